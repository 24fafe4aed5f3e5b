// The page: which candidate is looked at, keys and buttons, filters, files.
"use strict";

(() => {
  const data = window.REVIEW_DATA;
  const store = new ReviewStore(data, window.REVIEW_SERVER === true);
  const $ = (id) => document.getElementById(id);
  const number = new Intl.NumberFormat("en");
  const reviewerKey = "sat-xception:reviewer";
  // Notes on candidates without a verdict, which they are kept with.
  const drafts = new Map();
  let shown = [];
  let current = -1;

  const list = new ReviewList($("list"), $("rows"), describe, select);
  const map = new ReviewMap($("map"), data, (index) => store.get(index).verdict, select);

  function describe(index) {
    const tags = [];
    if (data.known.length) tags.push(data.known[index] ? "known" : "new");
    if (data.tiles[index] > 1) tags.push(`${number.format(data.tiles[index])} tiles`);
    if (store.get(index).note) tags.push("note");
    return { rank: index + 1, score: score(index), verdict: store.get(index).verdict, tags: tags.join(" · ") };
  }

  function score(index) {
    return data.score[index].toFixed(3);
  }

  // --- filters ---

  function filtered() {
    const [verdict, known, area] = ["by-verdict", "by-known", "by-area"].map((id) => $(id).value);
    const from = $("from-score").value === "" ? -Infinity : Number($("from-score").value);
    const to = $("to-score").value === "" ? Infinity : Number($("to-score").value);
    const found = [];
    for (let index = 0; index < data.x.length; index++) {
      const said = store.get(index).verdict;
      const fits =
        (!verdict || (verdict === "none" ? !said : said === verdict)) &&
        (!known || data.known[index] === (known === "known")) &&
        (!area || data.area[index] === Number(area)) &&
        data.score[index] >= from &&
        data.score[index] <= to;
      if (fits) found.push(index);
    }
    return found;
  }

  function refilter() {
    shown = filtered();
    list.show(shown);
    map.points.show(shown);
    $("matching").textContent = `${number.format(shown.length)} of ${number.format(data.x.length)} candidates` +
      (data.total > data.x.length ? `; ${number.format(data.total - data.x.length)} more with lower scores are in the files` : "");
    if (!shown.includes(current)) select(shown[0] ?? -1);
  }

  // --- the candidate ---

  function tilesOf(index) {
    const beside = data.beside[index];
    const across = [0, ...beside.map((place) => place[0])];
    const down = [0, ...beside.map((place) => place[1])];
    const members = new Set([[0, 0], ...beside].map(String));
    const tiles = [];
    for (let row = Math.min(...down); row <= Math.max(...down); row++) {
      for (let column = Math.min(...across); column <= Math.max(...across); column++) {
        const [x, y] = [data.x[index] + column, data.y[index] + row];
        const kind = column === 0 && row === 0 ? "best" : members.has(String([column, row])) ? "member" : "context";
        tiles.push({ x, y, kind, address: address(x, y) });
      }
    }
    const columns = Math.max(...across) - Math.min(...across) + 1;
    return { tiles, columns, rows: tiles.length / columns };
  }

  function address(x, y) {
    if (data.imagery) {
      const { url, hosts } = data.imagery;
      const host = hosts[(x + y) % hosts.length];
      const places = { z: data.zoom, x, y, "-y": 2 ** data.zoom - 1 - y, s: host };
      return url.replace(/\{(-y|[zxys])\}/g, (_, place) => places[place]);
    }
    if (!data.images) return "";
    const ending = data.images.others[`${x}/${y}`] ?? data.images.ending;
    return ending ? `tiles/${data.zoom}/${x}/${y}.${ending}` : "";
  }

  function picture({ x, y, kind, address: source }) {
    const cell = document.createElement("div");
    cell.className = `tile ${kind}`;
    const none = () => {
      cell.classList.add("lost");
      cell.replaceChildren("no picture");
    };
    if (!source) {
      none();
      return cell;
    }
    const image = new Image();
    image.alt = "";
    image.draggable = false;
    image.addEventListener("error", none);
    image.src = source;
    cell.append(image);
    return cell;
  }

  function select(index) {
    current = index;
    const there = index >= 0;
    for (const button of document.querySelectorAll(".verdicts button[data-verdict], .steps button")) button.disabled = !there;
    $("note").disabled = !there;
    list.select(index);
    if (!there) {
      $("name").textContent = data.x.length ? "No candidate fits the filters" : "There are no candidates";
      for (const id of ["facts", "about-tiles"]) $(id).textContent = "";
      $("tiles").replaceChildren();
      $("tiles").removeAttribute("aria-label");
      $("note").value = "";
      return;
    }
    const { tiles, columns, rows } = tilesOf(index);
    $("tiles").replaceChildren(...tiles.map(picture));
    $("tiles").style.setProperty("--columns", columns);
    $("tiles").style.setProperty("--rows", rows);
    $("tiles").setAttribute("aria-label", `aerial picture of candidate ${index + 1}, ${tiles.length} tiles`);
    map.select(index, tiles.filter((tile) => tile.kind !== "context"));
    showCandidate();
    $("note").value = noteOf(index);
  }

  function noteOf(index) {
    return store.get(index).verdict ? store.get(index).note : (drafts.get(index) ?? "");
  }

  function showCandidate() {
    const verdict = store.get(current).verdict;
    $("name").textContent = `Candidate ${number.format(current + 1)} of ${number.format(data.x.length)}`;
    const parts = [`score ${score(current)}`];
    if (data.known.length) {
      const metres = `${number.format(Math.round(data.distance_m[current]))} m`;
      parts.push(data.known[current] ? `known: a known place is ${metres} away` : `new: nearest known place ${metres} away`);
    }
    if (data.area.length) parts.push(data.areas[data.area[current]] || "outside all areas");
    parts.push(`${data.lat[current].toFixed(5)},\u00a0${data.lon[current].toFixed(5)}`);
    $("facts").textContent = parts.join(" · ");
    const [members, hidden] = [data.beside[current].length + 1, data.hidden[current]];
    $("about-tiles").textContent = `Tile ${store.sites[current]}` + (members > 1 ? `, outlined, and ${members - 1} beside it.` : ".") +
      (hidden ? ` ${number.format(hidden)} more tiles of this candidate aren't shown; what you say isn't about them.` : "");
    for (const button of document.querySelectorAll("[data-verdict]")) {
      button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict));
    }
  }

  // --- deciding ---

  function decide(verdict) {
    if (current < 0) return;
    const decided = current;
    const decision = { verdict, note: $("note").value.trim(), reviewer: $("reviewer").value.trim(), time: new Date().toISOString() };
    const next = nextToReview(decided);
    $("alert").hidden = true;
    drafts.delete(decided);
    store.decide(decided, decision);
    const done = store.counts.yes + store.counts.no + store.counts.unsure;
    const said = `${verdict} for candidate ${decided + 1}. ${number.format(done)} of ${number.format(data.x.length)} reviewed. `;
    if (next === undefined) {
      say(said + "None of these candidates is left to review.");
      if (shown.includes(decided)) select(decided);
      return;
    }
    select(next);
    say(said + spoken(next));
  }

  // The next one below in the list without a verdict, then from the top.
  function nextToReview(index) {
    const from = shown.indexOf(index);
    const later = shown.slice(from + 1).find((other) => !store.get(other).verdict);
    return later ?? shown.slice(0, Math.max(0, from)).find((other) => !store.get(other).verdict);
  }

  function spoken(index) {
    const known = data.known.length ? `, ${data.known[index] ? "known" : "new"}` : "";
    return `Now candidate ${index + 1}, score ${score(index)}${known}.`;
  }

  function undo() {
    const last = store.undoable.at(-1)?.[0];
    const note = store.get(last).note;
    const index = store.undo();
    if (index === undefined) return say("Nothing to undo.");
    // What was written stays, though the verdict goes.
    if (!store.get(index).verdict && note) drafts.set(index, note);
    if (!shown.includes(index)) {
      for (const id of ["by-verdict", "by-known", "by-area", "from-score", "to-score"]) $(id).value = "";
      refilter();
    }
    select(index);
    return say(`Undone. ${spoken(index)}`);
  }

  function step(by) {
    if (!shown.length) return;
    const at = shown.indexOf(current);
    const index = shown[Math.min(shown.length - 1, Math.max(0, at + by))];
    if (index === current) return say(by > 0 ? "This is the last one." : "This is the first one.");
    select(index);
    const verdict = store.get(index).verdict;
    return say(spoken(index) + (verdict ? ` Your verdict: ${verdict}.` : ""));
  }

  // A note alone is no verdict: it is kept with the verdict, before or after it is given.
  function keepNote() {
    const [there, note] = [store.get(current), $("note").value.trim()];
    if (current >= 0 && there.verdict && note !== there.note) {
      store.decide(current, { ...there, note, reviewer: $("reviewer").value.trim(), time: new Date().toISOString() });
    }
  }

  // --- what is told ---

  function say(text) {
    $("live").textContent = text;
  }

  function warn(text) {
    $("alert").hidden = false;
    $("alert").textContent = text;
  }

  function progress() {
    const { yes, no, unsure } = store.counts;
    const [done, all] = [yes + no + unsure, data.x.length];
    [$("bar").max, $("bar").value] = [Math.max(all, 1), done];
    $("progress").textContent = `${number.format(done)} of ${number.format(all)} reviewed: ${yes} yes, ${no} no, ${unsure} unsure`;
    $("undo").disabled = !store.undoable.length;
  }

  function saved({ hasServer, started, pending, keeps, problem }) {
    const waits = pending || (hasServer && !started);
    const state = problem ? "problem" : waits ? "pending" : keeps || hasServer ? "ok" : "problem";
    $("saved").dataset.state = state;
    if (problem && !started) $("saved").textContent = `The server doesn't answer: ${problem}. ${pending} kept here; trying again`;
    else if (problem) $("saved").textContent = `Not saved yet: ${problem}. ${pending} kept here; trying again`;
    else if (hasServer) $("saved").textContent = waits ? (started ? "Saving…" : "Loading…") : "Saved to review.geojson";
    else $("saved").textContent = keeps ? "Kept in this browser: export it when you are done" : "This browser keeps nothing: export before you leave";
  }

  // --- files ---

  function download(text, name, kind) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: kind }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    say(`${number.format(store.decided().length)} decisions written to ${name}.`);
  }

  async function importFile(file) {
    if (!file) return;
    try {
      const told = store.take(ReviewRecord.read(await file.text(), file.name));
      const names = { added: "added", replaced: "replaced older ones", same: "were here already", older: "are older than what is here, which is kept", unknown: "are of tiles that are no candidates here, and left out" };
      const parts = Object.entries(told).filter(([, count]) => count).map(([name, count]) => `${number.format(count)} ${names[name]}`);
      warn(`${file.name}: ${parts.join(", ")}.`);
    } catch (error) {
      warn(`${file.name} can't be imported: ${error.message}`);
    }
    $("import").value = "";
  }

  // --- wiring ---

  const KEYS = {
    y: () => decide("yes"),
    n: () => decide("no"),
    u: () => decide("unsure"),
    z: undo,
    c: () => $("note").focus(),
    "?": () => $("help").showModal(),
    ArrowDown: () => step(1),
    ArrowRight: () => step(1),
    ArrowUp: () => step(-1),
    ArrowLeft: () => step(-1),
  };

  document.addEventListener("keydown", (event) => {
    const { target } = event;
    if (event.key === "Escape" && target === $("note")) return $("note").blur();
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || $("help").open) return undefined;
    if (target.matches("input, textarea, select")) return undefined;
    const arrow = event.key.startsWith("Arrow");
    if (arrow && target.closest("#map")) return undefined;
    const act = KEYS[arrow ? event.key : event.key.toLowerCase()];
    // A key that is held down doesn't decide about what nobody has seen.
    if (!act || (event.repeat && !arrow)) return undefined;
    event.preventDefault();
    return act();
  });

  for (const button of document.querySelectorAll("[data-verdict]")) {
    button.addEventListener("click", () => decide(button.dataset.verdict));
  }
  $("undo").addEventListener("click", undo);
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("note").addEventListener("input", () => {
    if (!store.get(current).verdict) drafts.set(current, $("note").value);
  });
  $("note").addEventListener("change", keepNote);
  $("filters").addEventListener("input", refilter);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("export-geojson").addEventListener("click", () => download(ReviewRecord.toGeoJSON(data, store.decided()), "review.geojson", "application/geo+json"));
  $("export-csv").addEventListener("click", () => download(ReviewRecord.toCSV(data, store.decided()), "review.csv", "text/csv"));
  $("import").addEventListener("change", () => importFile($("import").files[0]));
  $("help-button").addEventListener("click", () => $("help").showModal());
  for (const button of document.querySelectorAll("[data-show]")) {
    button.addEventListener("click", () => {
      document.body.dataset.view = button.dataset.show;
      for (const other of document.querySelectorAll("[data-show]")) other.setAttribute("aria-pressed", String(other === button));
    });
  }

  store.addEventListener("change", ({ detail: changed }) => {
    progress();
    if ($("by-verdict").value) refilter();
    else list.draw();
    map.points.draw();
    if (changed.includes(current)) {
      showCandidate();
      if (document.activeElement !== $("note")) $("note").value = noteOf(current);
    }
  });
  store.addEventListener("saved", ({ detail }) => saved(detail));
  store.addEventListener("conflict", ({ detail: { index, there, mine } }) => {
    const who = there.reviewer ? ` by ${there.reviewer}` : "";
    const what = there.verdict ? `“${there.verdict}”${who}` : `undecided again${who}`;
    warn(`Candidate ${index + 1} was changed elsewhere: it is ${what}. Your “${mine.verdict || "undo"}” wasn't saved. Decide once more to overrule.`);
  });
  window.addEventListener("beforeunload", (event) => {
    if (store.hasServer && store.pending.size) event.preventDefault();
  });

  try {
    $("reviewer").value = localStorage.getItem(reviewerKey) ?? "";
    $("reviewer").addEventListener("change", () => localStorage.setItem(reviewerKey, $("reviewer").value.trim()));
  } catch {
    // A browser that keeps nothing says so where it says what is saved.
  }
  $("attribution").textContent = [data.attribution && `Imagery: ${data.attribution}`, data.basemap && `Map: ${data.basemap.attribution}`].filter(Boolean).join(" · ");
  $("attribution").hidden = !$("attribution").textContent;
  $("by-known").closest("label").hidden = !data.known.length;
  $("by-area").closest("label").hidden = !data.area.length;
  $("by-area").append(...data.areas.map((name, index) => new Option(name, index)));
  refilter();
  progress();
  const first = nextToReview(-1) ?? shown[0];
  if (first !== undefined) select(first);
  store.start();
  document.documentElement.dataset.ready = "true";
})();
