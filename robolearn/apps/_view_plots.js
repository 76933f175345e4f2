// Curves over time on canvases that share one time axis: one fetch a plot and window, drawn at the screen's own resolution.
import { bytes } from "./_view_frames.js";

const LEFT = 80, RIGHT = 12, TOP = 8, BOTTOM = 20; // [px] around the axes
const HEIGHT = 132;
const DASH = { "": [], action: [6, 3], filtered: [2, 2], sent: [1, 3] };

function element(tag, className, text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

function niceStep(span, count) {
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((k) => k * power).find((step) => step >= rough);
}

function ticks(low, high, count) {
  const step = niceStep(high - low || 1, count);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

// digits: of the axis the value is read on; two more tell near values apart.
function short(value, digits) {
  if (!Number.isFinite(value)) return "–";
  return Math.abs(value) >= 1e6 ? value.toExponential(2) : value.toFixed(Math.min(6, digits + 2)).replace(/^-(0\.?0*)$/, "$1");
}

class Plot {
  constructor(panel, owner) {
    this.panel = panel;
    this.owner = owner;
    this.hidden = new Set();
    // Dashes tell an action from what it lies over; what lies alone needs none.
    const [first] = panel.lines;
    this.dash = { ...DASH, [first.role]: [] };
    this.root = element(panel.folded ? "details" : "figure", "plot");
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.cursor = element("div", "cursor");
    const title = element(panel.folded ? "summary" : "figcaption", "", "");
    title.append(element("b", "", panel.title), panel.unit ? ` [${panel.unit}]` : "");
    const names = panel.lines.map((line) => (line.role ? `${line.role} ${line.name}` : line.name));
    this.canvas.setAttribute("aria-label", `Plot of ${panel.title}${panel.unit ? ` in ${panel.unit}` : ""}: ${names.join(", ")}`);
    this.legend = element("div", "legend");
    this.values = panel.lines.map((line, i) => this.entry(line, i, names[i]));
    const area = element("div", "area");
    area.append(this.canvas, this.cursor);
    this.root.append(title, this.legend, area);
    if (panel.folded) this.root.addEventListener("toggle", () => this.load());
    this.pointer();
  }

  entry(line, i, name) {
    const entry = element("button", `line c${line.colour % 12} ${this.dash[line.role].length ? line.role : "observed"}`);
    entry.type = "button";
    entry.setAttribute("aria-pressed", "true");
    entry.title = "Hide or show this line";
    const value = element("output", "value");
    value.setAttribute("aria-live", "off");
    entry.append(element("i", "swatch"), element("span", "", name), value);
    entry.addEventListener("click", () => {
      if (!this.hidden.delete(i)) this.hidden.add(i);
      entry.setAttribute("aria-pressed", !this.hidden.has(i));
      this.draw();
    });
    this.legend.append(entry);
    return value;
  }

  pointer() {
    let from = null;
    const rowAt = (event) => {
      const box = this.canvas.getBoundingClientRect();
      return this.owner.rowAtShare((event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT));
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      from = { x: event.clientX, row: rowAt(event) };
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (from && Math.abs(event.clientX - from.x) > 6) this.draw([from.row, rowAt(event)]);
    });
    this.canvas.addEventListener("pointerup", (event) => {
      if (!from) return;
      const to = rowAt(event);
      if (Math.abs(event.clientX - from.x) > 6) this.owner.zoom(Math.min(from.row, to), Math.max(from.row, to) + 1);
      else this.owner.seek(to);
      from = null;
    });
    this.canvas.addEventListener("dblclick", () => this.owner.zoom(0, this.owner.steps));
    this.canvas.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey) return; // without Ctrl the wheel scrolls the plots
        event.preventDefault();
        this.owner.scale(event.deltaY > 0 ? 1.25 : 0.8, rowAt(event));
      },
      { passive: false },
    );
  }

  async load() {
    if (this.panel.folded && !this.root.open) return;
    const { episode, first, last } = this.owner;
    const width = this.canvas.parentElement.clientWidth;
    const points = Math.max(200, 2 * Math.round((width - LEFT - RIGHT) * Math.min(2, devicePixelRatio)));
    const name = `${episode}/${first}/${last}/${points}`;
    if (this.name !== name) {
      const buffer = await bytes(`/api/series?panel=${this.panel.id}&episode=${episode}&first=${first}&last=${last}&points=${points}`);
      const { episode: e, first: f, last: l } = this.owner;
      if (e !== episode || f !== first || l !== last) return; // another window was asked for meanwhile
      const all = new Float32Array(buffer);
      const n = all.length / (this.panel.lines.length + 1);
      this.name = name;
      this.rows = all.subarray(0, n);
      this.lines = this.panel.lines.map((_, i) => all.subarray((i + 1) * n, (i + 2) * n));
    }
    this.draw();
    this.move(this.owner.row);
  }

  draw(selected = null) {
    if (!this.lines) return;
    const width = this.canvas.parentElement.clientWidth;
    const scale = devicePixelRatio;
    Object.assign(this.canvas, { width: Math.round(width * scale), height: Math.round(HEIGHT * scale) });
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(this.root);
    const colour = (name) => style.getPropertyValue(name).trim();
    let low = Infinity, high = -Infinity;
    this.lines.forEach((line, i) => {
      if (this.hidden.has(i)) return;
      for (const v of line) {
        if (v < low) low = v;
        if (v > high) high = v;
      }
    });
    if (!(low <= high)) [low, high] = [0, 1];
    const pad = (high - low) * 0.06 || Math.abs(high) * 0.1 || 0.5;
    low -= pad;
    high += pad;
    const x = (row) => LEFT + this.owner.share(row) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
    pen.font = "11.5px system-ui, sans-serif";
    pen.lineWidth = 1;
    this.axes(pen, { width, low, high, y, colour });
    if (selected) {
      pen.fillStyle = colour("--select");
      pen.fillRect(x(selected[0]), TOP, x(selected[1]) - x(selected[0]), HEIGHT - TOP - BOTTOM);
    }
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, 0, width - LEFT - RIGHT, HEIGHT - BOTTOM + 1);
    pen.clip();
    pen.lineWidth = 1.6;
    pen.lineJoin = "round";
    const order = this.panel.lines.map((_, i) => i).sort((a, b) => Boolean(this.panel.lines[a].role) - Boolean(this.panel.lines[b].role));
    for (const i of order) {
      if (this.hidden.has(i)) continue;
      pen.strokeStyle = colour(`--c${this.panel.lines[i].colour % 12}`);
      pen.setLineDash(this.dash[this.panel.lines[i].role]);
      this.trace(pen, this.lines[i], x, y);
    }
    pen.restore();
  }

  axes(pen, { width, low, high, y, colour }) {
    const upright = ticks(low, high, 4);
    this.digits = upright.digits;
    const along = ticks(...this.owner.span(), Math.max(3, width / 110));
    pen.fillStyle = colour("--soft");
    pen.strokeStyle = colour("--grid");
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const value of upright.found) {
      pen.fillText(value.toFixed(upright.digits), LEFT - 8, y(value));
      pen.beginPath();
      pen.moveTo(LEFT, Math.round(y(value)) + 0.5);
      pen.lineTo(width - RIGHT, Math.round(y(value)) + 0.5);
      pen.stroke();
    }
    pen.textBaseline = "alphabetic";
    const [from, to] = this.owner.span();
    along.found.forEach((value) => {
      const at = LEFT + ((value - from) / (to - from || 1)) * (width - LEFT - RIGHT);
      pen.textAlign = at > width - RIGHT - 24 ? "right" : "center";
      pen.fillText(`${value.toFixed(along.digits)}${this.owner.unit ? ` ${this.owner.unit}` : ""}`, at, HEIGHT - 5);
      pen.beginPath();
      pen.moveTo(Math.round(at) + 0.5, HEIGHT - BOTTOM);
      pen.lineTo(Math.round(at) + 0.5, HEIGHT - BOTTOM + 4);
      pen.stroke();
    });
  }

  trace(pen, line, x, y) {
    pen.beginPath();
    let open = false;
    for (let k = 0; k < line.length; k++) {
      if (!Number.isFinite(line[k])) {
        open = false; // a gap where there is no number
        continue;
      }
      if (open) pen.lineTo(x(this.rows[k]), y(line[k]));
      else pen.moveTo(x(this.rows[k]), y(line[k]));
      open = true;
    }
    pen.stroke();
  }

  move(row) {
    const share = this.owner.share(row);
    this.cursor.hidden = share < 0 || share > 1;
    this.cursor.style.left = `calc(${LEFT}px + ${share} * (100% - ${LEFT + RIGHT}px))`;
    if (!this.rows) return;
    let k = 0;
    for (let low = 0, high = this.rows.length - 1; low <= high; ) {
      const middle = (low + high) >> 1;
      if (this.rows[middle] <= row) [k, low] = [middle, middle + 1];
      else high = middle - 1;
    }
    this.values.forEach((value, i) => (value.textContent = short(this.lines[i][k], this.digits ?? 3)));
  }
}

export class Plots {
  // time: {at(row) -> [s], row(time) -> row, unit}; seek(row), zoomed(first, last): what the page does then.
  constructor(root, panels, { seek, zoomed }) {
    this.seek = seek;
    this.zoomed = zoomed;
    this.plots = panels.map((panel) => new Plot(panel, this));
    root.append(...this.arranged());
    let pending = 0;
    new ResizeObserver(() => {
      cancelAnimationFrame(pending);
      pending = requestAnimationFrame(() => this.load());
    }).observe(root);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.plots.forEach((plot) => plot.draw()));
  }

  // The plots in their order; those of one folded key, such as a simulator's state, share a fold.
  arranged() {
    const found = [];
    const folds = new Map();
    for (const { panel, root } of this.plots) {
      const [{ key }] = panel.lines;
      if (!panel.folded || !this.plots.some((other) => other.panel !== panel && other.panel.lines[0].key === key)) {
        found.push(root);
        continue;
      }
      if (!folds.has(key)) {
        const fold = element("details", "plot more");
        const count = this.plots.reduce((sum, other) => sum + (other.panel.lines[0].key === key ? other.panel.lines.length : 0), 0);
        const title = element("summary");
        title.append(element("b", "", key), ` ${count} numbers`);
        fold.append(title);
        folds.set(key, fold);
        found.push(fold);
      }
      folds.get(key).append(root);
    }
    return found;
  }

  show(episode, steps, time) {
    Object.assign(this, { episode, steps, time, unit: time.unit, first: 0, last: steps });
    this.zoomed(0, steps);
    return this.load();
  }

  load() {
    if (this.episode === undefined) return null;
    return Promise.all(this.plots.map((plot) => plot.load()));
  }

  span() {
    return [this.time.at(this.first), this.time.at(Math.max(this.first, this.last - 1))];
  }

  share(row) {
    const [from, to] = this.span();
    return to > from ? (this.time.at(row) - from) / (to - from) : 0;
  }

  rowAtShare(share) {
    const [from, to] = this.span();
    return this.time.row(from + Math.min(1, Math.max(0, share)) * (to - from));
  }

  zoom(first, last) {
    this.first = Math.max(0, Math.min(first, this.steps - 4));
    this.last = Math.min(this.steps, Math.max(last, this.first + 4));
    this.zoomed(this.first, this.last);
    return this.load();
  }

  scale(by, around) {
    const size = Math.round((this.last - this.first) * by);
    const share = (around - this.first) / (this.last - this.first || 1);
    const first = Math.max(0, Math.min(Math.round(around - share * size), this.steps - size));
    return this.zoom(first, first + size);
  }

  move(row) {
    this.row = row;
    if (this.last - this.first < this.steps && (row < this.first || row >= this.last)) {
      const size = this.last - this.first;
      const first = Math.max(0, Math.min(row - Math.round(size / 10), this.steps - size));
      this.zoom(first, first + size);
    }
    this.plots.forEach((plot) => plot.move(row));
  }
}
