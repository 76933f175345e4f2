// The time line: a slider over the whole episode, and under it lanes of what happened when.

const KNOWN = ["policy", "operator", "recovery", "expert", "replay", "intervention", "late", "solved"];
const MOST_LANES = 4; // of flags

function element(tag, className, text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

// Flags of one code share a lane; where there are many codes, all share one, the longest below.
function flagLanes(flags) {
  const run = (flag) => ({ ...flag, name: `${flag.code}: ${flag.text}`, short: flag.code, flag: true });
  const codes = [...new Set(flags.map(({ code }) => code))];
  if (codes.length > MOST_LANES)
    return [{ name: "⚑ check", runs: flags.map(run).sort((a, b) => b.last - b.first - (a.last - a.first)) }];
  return codes.map((code) => ({ name: `⚑ ${code}`, runs: flags.filter((flag) => flag.code === code).map(run) }));
}

export class TimeLine {
  constructor(lanes, marks, seek) {
    this.lanes = lanes;
    this.marks = marks;
    this.seek = seek;
    this.track = element("div", "track slider");
    this.track.setAttribute("role", "slider");
    this.track.setAttribute("aria-label", "Row of the episode");
    this.track.tabIndex = 0;
    this.track.append(element("div", "window"), element("div", "done"), element("div", "thumb"));
    const move = (event) => {
      const box = this.track.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      this.seek(this.time.row(share * this.time.at(this.steps - 1)));
    };
    lanes.addEventListener("pointerdown", (event) => {
      if (!event.target.closest(".track")) return;
      lanes.setPointerCapture(event.pointerId);
      move(event);
      lanes.onpointermove = move;
    });
    for (const end of ["pointerup", "pointercancel"]) lanes.addEventListener(end, () => (lanes.onpointermove = null));
  }

  // bands: [{name, runs: [{first, last, name}]}]; flags: [{code, text, first, last}], first is null where it is the whole episode.
  // time: {at(row) -> [s], row(time) -> row, text(row)}, the same as the plots have, so that one lies above the other.
  show(steps, bands, flags, time) {
    this.steps = steps;
    this.time = time;
    const lanes = [...flagLanes(flags.filter(({ first }) => first !== null)), ...bands];
    this.track.setAttribute("aria-valuemin", 0);
    this.track.setAttribute("aria-valuemax", steps - 1);
    this.cursor = element("div", "cursor");
    const rows = [this.lane(element("span", "lane-name", "time"), this.track)];
    for (const { name, runs } of lanes) {
      const track = element("div", "track");
      track.append(...runs.map((run) => this.run(run)));
      rows.push(this.lane(element("span", "lane-name", name), track));
    }
    const over = element("div", "over");
    over.append(this.cursor);
    this.lanes.replaceChildren(...rows, over);
    this.marks.replaceChildren(...flags.map((flag) => this.mark(flag)));
    this.marks.hidden = !flags.length;
  }

  lane(name, track) {
    const lane = element("div", "lane");
    lane.append(name, track);
    return lane;
  }

  run({ first, last, name, short, flag }) {
    const kind = flag ? "check" : (KNOWN.find((word) => name.includes(word)) ?? "other");
    const run = element("div", `run ${kind}`);
    const [from, to] = [this.share(first), this.share(Math.min(last + 1, this.steps - 1))];
    run.style.left = `min(${100 * from}%, 100% - 4px)`;
    run.style.width = `${100 * Math.max(0, to - from)}%`;
    run.title = `${name} (${first === last ? `row ${first}` : `rows ${first} to ${last}`}, from ${this.time.text(first)})`;
    run.append(element("span", "", short ?? name));
    return run;
  }

  mark({ code, text, first, last }) {
    const item = element("li", "");
    const there = first === null ? "whole episode" : first === last ? `row ${first}` : `rows ${first} to ${last}`;
    const mark = element(first === null ? "span" : "button", "mark", "");
    mark.append(element("b", "", `⚑ ${code}`), ` ${text} `, element("span", "soft", there));
    if (first !== null) {
      mark.type = "button";
      mark.addEventListener("click", () => this.seek(first));
    }
    item.append(mark);
    return item;
  }

  share(row) {
    return this.steps > 1 ? this.time.at(row) / this.time.at(this.steps - 1) : 0;
  }

  move(row) {
    this.lanes.style.setProperty("--at", this.share(row));
    this.track.setAttribute("aria-valuenow", row);
    this.track.setAttribute("aria-valuetext", `row ${row} of ${this.steps - 1}, ${this.time.text(row)}`);
  }

  zoomed(first, last) {
    this.lanes.style.setProperty("--from", this.share(first));
    this.lanes.style.setProperty("--to", this.share(last - 1));
    this.lanes.classList.toggle("zoomed", first > 0 || last < this.steps);
  }
}
