// The episodes at the left: filtered, only those in sight are drawn, so that ten thousand are no burden.

const HEIGHT = 34; // [px] of one

const MARKS = { success: "✓", failure: "✕", partial: "◐", "": "–" };

export class List {
  constructor(root, episodes, pick) {
    this.root = root;
    this.episodes = episodes;
    this.flags = {};
    this.pick = pick;
    this.current = 0;
    this.shown = episodes.map((_, index) => index);
    this.body = document.createElement("div");
    this.body.className = "rows";
    this.body.setAttribute("role", "presentation");
    root.append(this.body);
    root.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(root);
    root.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("[data-episode]");
      if (row) this.pick(Number(row.dataset.episode));
    });
  }

  filter(text, only) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.shown = this.episodes
      .map((episode, index) => ({ episode, index }))
      .filter(({ episode, index }) => {
        if (only === "flagged" ? !this.flags[index] : only && (episode.label || "unknown") !== only) return false;
        const known = `${episode.label || "unknown"} ${episode.by} ${episode.words}`.toLowerCase();
        return words.every((word) => (/^\d+$/.test(word) ? String(index).startsWith(word) : known.includes(word)));
      })
      .map(({ index }) => index);
    this.draw();
    return this.shown.length;
  }

  // The episode `by` places after the current one in the list; the current one where there is none.
  beside(by) {
    const at = this.shown.indexOf(this.current);
    if (at < 0) return this.shown[0] ?? this.current;
    return this.shown[Math.min(Math.max(at + by, 0), this.shown.length - 1)];
  }

  select(index) {
    this.current = index;
    const at = this.shown.indexOf(index);
    if (at >= 0) {
      const top = at * HEIGHT;
      if (top < this.root.scrollTop) this.root.scrollTop = top;
      if (top + HEIGHT > this.root.scrollTop + this.root.clientHeight) this.root.scrollTop = top + HEIGHT - this.root.clientHeight;
    }
    this.draw();
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.root.clientHeight / HEIGHT) - 1);
    const move = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (move === undefined || event.shiftKey || event.ctrlKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.pick(this.beside(move));
  }

  draw() {
    const first = Math.max(0, Math.floor(this.root.scrollTop / HEIGHT) - 4);
    const last = Math.min(this.shown.length, first + Math.ceil(this.root.clientHeight / HEIGHT) + 8);
    this.body.style.height = `${this.shown.length * HEIGHT}px`;
    this.body.replaceChildren(...this.shown.slice(first, last).map((index, k) => this.row(index, first + k)));
    const active = this.shown.includes(this.current) ? `episode-${this.current}` : null;
    if (active && document.getElementById(active)) this.root.setAttribute("aria-activedescendant", active);
    else this.root.removeAttribute("aria-activedescendant");
  }

  row(index, at) {
    const { label, by, success, steps } = this.episodes[index];
    const row = document.createElement("div");
    row.id = `episode-${index}`;
    row.className = "episode";
    row.dataset.episode = index;
    row.style.top = `${at * HEIGHT}px`;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", index === this.current);
    row.setAttribute("aria-setsize", this.shown.length);
    row.setAttribute("aria-posinset", at + 1);
    // A person's word first; where there is none, what the environment's check said.
    const shown = label || (success === null ? "" : success ? "success" : "failure");
    const count = this.flags[index]?.length ?? 0;
    const cells = [
      ["number", String(index)],
      [`mark ${shown || "unknown"}${label ? "" : " env"}`, `${MARKS[shown]} ${shown || "unknown"}`],
      ["steps", `${steps}`],
      ["flags", count ? `⚑ ${count}` : ""],
    ];
    for (const [name, text] of cells) row.append(Object.assign(document.createElement("span"), { className: name, textContent: text }));
    const who = label ? by : success === null ? "nobody has said" : "the environment's check";
    row.title = `episode ${index}: ${shown || "unknown"} (${who}), ${steps} steps${count ? `, ${count} flags` : ""}`;
    row.setAttribute("aria-label", row.title);
    return row;
  }
}
