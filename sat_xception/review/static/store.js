// What was decided, kept in the browser at once and, where there is one, on the server.
"use strict";

(() => {
  const BATCH = 200;
  const NOTHING = Object.freeze({ verdict: "", note: "", reviewer: "", time: "" });
  const same = (one, other) => ["verdict", "note", "reviewer", "time"].every((name) => one[name] === other[name]);

  // Events: "change" with the candidates' indices, "saved" with a state, "conflict" with an index and what is there.
  class ReviewStore extends EventTarget {
    constructor(data, hasServer) {
      super();
      this.data = data;
      this.hasServer = hasServer;
      this.sites = data.x.map((x, index) => `${data.zoom}/${x}/${data.y[index]}`);
      this.indexOf = new Map(this.sites.map((site, index) => [site, index]));
      this.prefix = `sat-xception:${data.key}:`;
      this.entries = new Map();
      this.undoable = [];
      this.counts = { yes: 0, no: 0, unsure: 0 };
      this.pending = new Set();
      this.sending = false;
      this.started = false;
      this.waitMs = 1000;
      this.keeps = this.load();
      window.addEventListener("storage", (event) => this.takeOther(event));
    }

    load() {
      try {
        for (let at = 0; at < localStorage.length; at++) {
          const key = localStorage.key(at);
          if (key.startsWith(this.prefix)) this.parse(key, localStorage.getItem(key));
        }
        return true;
      } catch {
        return false;
      }
    }

    parse(key, text) {
      const index = this.indexOf.get(key.slice(this.prefix.length));
      if (index === undefined) return undefined;
      let entry = { ...NOTHING, version: "", pending: false };
      try {
        const [verdict, note, reviewer, time, version, pending] = JSON.parse(text ?? "[]");
        if (verdict) entry = { verdict, note, reviewer, time, version, pending };
        else entry = { ...entry, version: version ?? "", pending: Boolean(pending) };
      } catch {
        // Not ours, or cut: as if it weren't there.
      }
      this.place(index, entry);
      return index;
    }

    get(index) {
      return this.entries.get(index) ?? NOTHING;
    }

    // Puts an entry in its place in memory only.
    place(index, entry) {
      const before = this.get(index).verdict;
      if (before) this.counts[before]--;
      if (entry.verdict) this.counts[entry.verdict]++;
      this.entries.set(index, entry);
      if (entry.pending) this.pending.add(index);
      else this.pending.delete(index);
    }

    keep(index, entry) {
      this.place(index, entry);
      try {
        const value = [entry.verdict, entry.note, entry.reviewer, entry.time, entry.version, entry.pending];
        if (entry.verdict || entry.pending) localStorage.setItem(this.prefix + this.sites[index], JSON.stringify(value));
        else localStorage.removeItem(this.prefix + this.sites[index]);
      } catch {
        this.keeps = false;
      }
    }

    decide(index, decision) {
      const before = this.get(index);
      this.undoable.push([index, { ...NOTHING, ...pick(before) }]);
      this.change(index, decision);
    }

    change(index, decision) {
      const entry = { ...pick(decision), version: this.get(index).version ?? "", pending: this.hasServer };
      this.keep(index, entry);
      this.tell("change", [index]);
      this.send();
    }

    // Returns the candidate that is as it was before the last decision, undefined when there is none.
    undo() {
      const last = this.undoable.pop();
      if (!last) return undefined;
      this.change(last[0], last[1]);
      return last[0];
    }

    decided() {
      return [...this.entries].filter(([, entry]) => entry.verdict).sort(([one], [other]) => one - other);
    }

    // Takes decisions of a file; of two about a candidate the later one is kept. Returns what became of them.
    take(decisions) {
      const told = { added: 0, replaced: 0, same: 0, older: 0, unknown: 0 };
      const changed = [];
      for (const decision of decisions) {
        const index = this.indexOf.get(decision.site);
        const present = index === undefined ? undefined : this.get(index);
        if (!present) told.unknown++;
        else if (present.verdict && same(present, decision)) told.same++;
        else if (present.verdict && present.time > decision.time) told.older++;
        else {
          told[present.verdict ? "replaced" : "added"]++;
          this.keep(index, { ...pick(decision), version: present.version ?? "", pending: this.hasServer });
          changed.push(index);
        }
      }
      this.undoable = this.undoable.filter(([index]) => !changed.includes(index));
      this.tell("change", changed);
      this.send();
      return told;
    }

    takeOther(event) {
      if (!event.key?.startsWith(this.prefix)) return;
      const index = this.parse(event.key, event.newValue);
      if (index === undefined) return;
      // What another tab decided isn't ours to undo.
      this.undoable = this.undoable.filter(([other]) => other !== index);
      this.tell("change", [index]);
    }

    // What the server has is right, except for what this browser hasn't sent yet.
    async start() {
      if (!this.hasServer) return this.tell("saved", this.state());
      try {
        const { decisions } = await answer(await fetch("api/decisions"));
        const there = new Set();
        for (const decision of decisions) {
          const index = this.indexOf.get(decision.site);
          there.add(index);
          if (!this.pending.has(index)) this.keep(index, { ...pick(decision), version: decision.version, pending: false });
        }
        for (const index of [...this.entries.keys()]) {
          if (!there.has(index) && !this.pending.has(index)) this.keep(index, { ...NOTHING, version: "", pending: false });
        }
        this.started = true;
        this.tell("change", [...this.entries.keys()]);
      } catch (error) {
        return this.later(error);
      }
      return this.send();
    }

    async send() {
      if (!this.hasServer || !this.started || !this.pending.size || this.sending) return this.tell("saved", this.state());
      this.sending = true;
      this.tell("saved", this.state());
      const sent = [...this.pending].slice(0, BATCH).map((index) => [index, this.get(index)]);
      const body = { decisions: sent.map(([index, entry]) => ({ site: this.sites[index], ...pick(entry), base: entry.version })) };
      try {
        const told = await answer(await fetch("api/decisions", {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify(body),
        }));
        this.sending = false;
        this.waitMs = 1000;
        this.settle(new Map(sent), told);
      } catch (error) {
        this.sending = false;
        return this.later(error);
      }
      return this.send();
    }

    settle(sent, told) {
      for (const { site, version } of told.saved) {
        const index = this.indexOf.get(site);
        const present = this.get(index);
        // Changed again while it was on its way: that goes with the next.
        this.keep(index, { ...pick(present), version, pending: !same(present, sent.get(index)) });
      }
      for (const there of told.conflicts) {
        const index = this.indexOf.get(there.site);
        const mine = this.get(index);
        this.keep(index, { ...pick(there), version: there.version, pending: false });
        this.undoable = this.undoable.filter(([other]) => other !== index);
        this.tell("change", [index]);
        this.tell("conflict", { index, there: pick(there), mine: pick(mine) });
      }
    }

    later(error) {
      this.tell("saved", { ...this.state(), problem: error.message });
      setTimeout(() => (this.started ? this.send() : this.start()), this.waitMs);
      this.waitMs = Math.min(30000, this.waitMs * 2);
    }

    state() {
      return { hasServer: this.hasServer, started: this.started, pending: this.pending.size, keeps: this.keeps };
    }

    tell(name, detail) {
      this.dispatchEvent(new CustomEvent(name, { detail }));
    }
  }

  function pick({ verdict, note, reviewer, time }) {
    return { verdict, note, reviewer, time };
  }

  async function answer(response) {
    const content = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(content.error ?? `HTTP ${response.status}`);
    return content;
  }

  window.ReviewStore = ReviewStore;
})();
