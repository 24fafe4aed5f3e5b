// The list of candidates. Only rows that can be seen exist, so 50,000 of them are as quick as 50.
"use strict";

(() => {
  const ROW_PX = 56;
  const SPARE = 4;

  class ReviewList {
    // describe(index): {rank, score, verdict, tags} of a candidate.
    constructor(box, rows, describe, choose) {
      [this.box, this.rows, this.describe] = [box, rows, describe];
      this.shown = [];
      this.current = -1;
      box.addEventListener("scroll", () => this.draw());
      new ResizeObserver(() => this.draw()).observe(box);
      rows.addEventListener("click", (event) => {
        const row = event.target.closest("[data-index]");
        if (row) choose(Number(row.dataset.index));
      });
    }

    show(indices) {
      this.shown = indices;
      this.position = new Map(indices.map((index, position) => [index, position]));
      this.rows.style.height = `${indices.length * ROW_PX}px`;
      this.draw();
    }

    select(index) {
      this.current = index;
      const position = this.position.get(index);
      if (position !== undefined) {
        const [top, height] = [position * ROW_PX, this.box.clientHeight];
        if (top < this.box.scrollTop) this.box.scrollTop = top;
        else if (top + ROW_PX > this.box.scrollTop + height) this.box.scrollTop = top + ROW_PX - height;
      }
      this.draw();
    }

    draw() {
      const first = Math.max(0, Math.floor(this.box.scrollTop / ROW_PX) - SPARE);
      const last = Math.min(this.shown.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW_PX) + SPARE);
      this.rows.replaceChildren(...this.shown.slice(first, last).map((index, place) => this.row(index, first + place)));
      const selected = document.getElementById(`candidate-${this.current}`);
      if (selected) this.box.setAttribute("aria-activedescendant", selected.id);
      else this.box.removeAttribute("aria-activedescendant");
    }

    row(index, position) {
      const { rank, score, verdict, tags } = this.describe(index);
      const row = document.createElement("div");
      row.id = `candidate-${index}`;
      row.className = "row";
      row.dataset.index = index;
      row.style.transform = `translateY(${position * ROW_PX}px)`;
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", String(index === this.current));
      row.setAttribute("aria-setsize", String(this.shown.length));
      row.setAttribute("aria-posinset", String(position + 1));
      row.append(text("rank", `${rank}`), text("score", score), text("tags", tags), text(`verdict ${verdict}`, verdict || "to review"));
      return row;
    }
  }

  function text(kind, content) {
    const span = document.createElement("span");
    span.className = kind;
    span.textContent = content;
    return span;
  }

  window.ReviewList = ReviewList;
})();
