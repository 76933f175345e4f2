// The page of `robolearn data view`: what is shown now, playing, keys, labels. The other files draw.
import { Cameras } from "./_view_frames.js";
import { List } from "./_view_list.js";
import { Plots } from "./_view_plots.js";
import { makeScene } from "./_view_scene.js";
import { TimeLine } from "./_view_time.js";

const BLANK_HZ = 10; // [1/s], for sets that do not say theirs
const AHEAD = 48; // rows fetched before they are due

const by = (id) => document.getElementById(id);
const now = { episode: -1, wanted: -1, row: 0, steps: 1, playing: false, times: null };
let set, list, cameras, plots, line, scene, flags = { state: "none", set: [], episodes: {} };

async function ask(name, body) {
  const options = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(`/api/${name}`, options);
  const found = await answer.json();
  if (found.error) throw new Error(found.error);
  return found;
}

function say(text, bad = false) {
  by("error").hidden = !bad;
  if (bad) by("error").textContent = text;
  else by("said").textContent = text;
}

const guarded = (work) => (...given) => Promise.resolve(work(...given)).catch((error) => say(error.message, true));

// ---- time ------------------------------------------------------------------------------------------------------------

const clock = {
  get unit() {
    return now.times || set.hz ? "s" : "";
  },
  at: (row) => {
    if (!now.times) return row / (set.hz ?? 1);
    const low = Math.min(Math.max(Math.floor(row), 0), now.steps - 1), high = Math.min(low + 1, now.steps - 1);
    return now.times[low] + (row - low) * (now.times[high] - now.times[low]);
  },
  row: (time) => {
    let row = Math.round(time * (set.hz ?? 1));
    if (now.times) {
      row = now.times.findIndex((t, k) => (t + (now.times[k + 1] ?? Infinity)) / 2 >= time);
      if (row < 0) row = now.steps - 1;
    }
    return Math.min(Math.max(row, 0), now.steps - 1);
  },
  text: (row) => (clock.unit ? `${clock.at(row).toFixed(2)} s` : `row ${row}`),
};

// ---- showing ---------------------------------------------------------------------------------------------------------

function draw() {
  const { episode, row } = now;
  const whole = cameras.draw(episode, row);
  scene?.draw(episode, row);
  return whole && (!scene || scene.ready(episode, row));
}

function seek(row) {
  now.row = Math.min(Math.max(row, 0), now.steps - 1);
  line.move(now.row);
  plots.move(now.row);
  const all = now.steps - 1;
  by("clock").textContent = clock.unit ? `${clock.at(now.row).toFixed(2)} / ${clock.at(all).toFixed(2)} s · row ${now.row} / ${all}` : `row ${now.row} / ${all}`;
  const asked = now.row;
  if (!draw()) {
    const { episode } = now;
    Promise.all([cameras.want(episode, asked), scene?.want(episode, asked)])
      .then(() => now.episode === episode && now.row === asked && draw())
      .catch((error) => say(error.message, true));
  }
  ahead();
  remember();
}

function ahead() {
  for (const row of [now.row + AHEAD / 2, now.row + AHEAD]) {
    if (row >= now.steps) continue;
    cameras.want(now.episode, row).catch(() => {}); // what is wrong is said when the row is due
    scene?.want(now.episode, row).catch(() => {});
  }
}

let remembering = 0;
function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => history.replaceState(null, "", `#episode=${now.episode}&row=${now.row}`), 200);
}

async function show(episode, row = 0) {
  if (!(episode >= 0 && episode < set.episodes.length)) return;
  play(false);
  const here = now.wanted === episode && now.episode === episode;
  now.wanted = episode;
  if (here) return void seek(row);
  const found = await ask(`episode?episode=${episode}`);
  if (now.wanted !== episode) return; // another one was chosen meanwhile
  Object.assign(now, { episode, steps: set.episodes[episode].steps, times: found.times, bands: found.bands });
  list.select(episode);
  line.show(now.steps, found.bands, flags.episodes[episode] ?? [], clock);
  const drawn = plots.show(episode, now.steps, clock);
  seek(row);
  showLabel();
  by("facts").querySelector("dl").replaceChildren(...Object.entries(found.facts).map(([name, value]) => {
    const pair = document.createElement("div");
    pair.append(Object.assign(document.createElement("dt"), { textContent: name }));
    pair.append(Object.assign(document.createElement("dd"), { textContent: String(value) }));
    return pair;
  }));
  document.title = `episode ${episode} · ${set.name}`;
  await drawn;
}

function showLabel() {
  const { label, by: who, time, success } = set.episodes[now.episode];
  for (const button of document.querySelectorAll("[data-label]")) {
    button.setAttribute("aria-pressed", Boolean(label || who) && button.dataset.label === label);
    button.disabled = Boolean(set.closed);
  }
  by("undo").disabled = Boolean(set.closed) || !set.can_undo;
  by("reviewer").disabled = Boolean(set.closed);
  const check = success === null || who === "env" ? "" : `the environment's check says ${success ? "success" : "failure"}`;
  const at = time && `, ${time.replace("T", " ").replace("+00:00", " UTC")}`;
  const said = `episode ${now.episode}: ${who ? `${label || "unknown"} (${who}${at})` : "no label yet"}`;
  say([said, check, set.closed && `labels cannot be changed: ${set.closed}`].filter(Boolean).join(" · "));
}

// ---- labels ----------------------------------------------------------------------------------------------------------

function changed({ episode, label, can_undo }) {
  set.can_undo = can_undo;
  by("error").hidden = true;
  if (episode === null) return;
  Object.assign(set.episodes[episode], label);
  refilter();
  if (episode === now.episode) showLabel();
}

const setLabel = guarded(async (label) => {
  if (set.closed) return;
  const reviewer = by("reviewer").value.trim();
  if (!reviewer) {
    by("reviewer").focus();
    throw new Error("type your name first: a label keeps who gave it");
  }
  localStorage.setItem("reviewer", reviewer);
  changed(await ask("label", { episode: now.episode, label, by: reviewer }));
});

const undo = guarded(async () => {
  if (set.closed || !set.can_undo) return;
  const answer = await ask("undo", {});
  changed(answer);
  if (answer.episode !== null && answer.episode !== now.episode) await show(answer.episode);
});

// ---- playing ---------------------------------------------------------------------------------------------------------

let before = 0, due = 0;

function play(on) {
  if (on === now.playing) return;
  now.playing = on;
  by("play").setAttribute("aria-label", on ? "Pause" : "Play");
  if (!on) return;
  if (now.row >= now.steps - 1) seek(0);
  before = performance.now();
  due = clock.at(now.row);
  requestAnimationFrame(tick);
}

function tick(time) {
  if (!now.playing) return;
  due += ((time - before) / 1000) * Number(by("speed").value) * (clock.unit ? 1 : BLANK_HZ);
  before = time;
  let next = now.row;
  while (next < now.steps - 1 && clock.at(next + 1) <= due) next++;
  if (next !== now.row) {
    const there = cameras.ready(now.episode, next) && (!scene || scene.ready(now.episode, next));
    if (there) seek(next);
    else {
      due = clock.at(now.row); // everything waits for the slowest camera, so that all show one row
      Promise.all([cameras.want(now.episode, next), scene?.want(now.episode, next)]).catch((error) => {
        play(false);
        say(error.message, true);
      });
    }
  }
  if (now.row >= now.steps - 1) play(false);
  else requestAnimationFrame(tick);
}

// ---- flags -----------------------------------------------------------------------------------------------------------

async function watchCheck() {
  flags = await ask("check");
  const words = { running: "checking the set …", none: flags.why };
  const count = Object.values(flags.episodes).reduce((sum, marks) => sum + marks.length, 0) + flags.set.length;
  by("check").textContent = words[flags.state] ?? `check: ${flags.grade && `grade ${flags.grade}, `}${count ? `${count} flag${count > 1 ? "s" : ""}` : "nothing found"}`;
  if (flags.state === "running") return void setTimeout(guarded(watchCheck), 500);
  by("set-flags").hidden = !flags.set.length;
  by("set-flags").querySelector("summary").textContent = `⚑ ${flags.set.length} flag${flags.set.length > 1 ? "s" : ""} of the whole set`;
  by("set-flags").querySelector("ul").replaceChildren(...flags.set.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  list.flags = flags.episodes;
  refilter();
  if (now.episode >= 0) {
    line.show(now.steps, now.bands, flags.episodes[now.episode] ?? [], clock);
    line.move(now.row);
    line.zoomed(plots.first, plots.last);
  }
}

// Goes to the next (by 1) or previous (-1) flag: in this episode, else in the nearest one of the list that has any.
async function nextFlag(step) {
  const starts = (episode) => (flags.episodes[episode] ?? []).map(({ first }) => first ?? 0).sort((a, b) => step * (a - b));
  const here = starts(now.episode).find((row) => step * (row - now.row) > 0);
  if (here !== undefined) return seek(here);
  const order = step > 0 ? list.shown : [...list.shown].reverse();
  const at = order.indexOf(now.episode);
  const other = [...order.slice(at + 1), ...order.slice(0, Math.max(0, at))].find((episode) => starts(episode).length);
  if (other !== undefined) await show(other, starts(other)[0]);
}

// ---- keys ------------------------------------------------------------------------------------------------------------

const KEYS = {
  " ": () => play(!now.playing),
  ArrowLeft: () => seek(now.row - 1),
  ArrowRight: () => seek(now.row + 1),
  ArrowUp: () => seek(now.row - 10),
  ArrowDown: () => seek(now.row + 10),
  Home: () => seek(0),
  End: () => seek(now.steps - 1),
  "Shift+ArrowLeft": () => show(list.beside(-1)),
  "Shift+ArrowRight": () => show(list.beside(1)),
  "Shift+ArrowUp": () => show(list.beside(-1)),
  "Shift+ArrowDown": () => show(list.beside(1)),
  1: () => setLabel("success"),
  2: () => setLabel("failure"),
  3: () => setLabel("partial"),
  4: () => setLabel(""),
  u: undo,
  f: () => nextFlag(1),
  "Shift+F": () => nextFlag(-1),
  "+": () => plots.scale(0.6, now.row),
  "-": () => plots.scale(1 / 0.6, now.row),
  0: () => plots.zoom(0, now.steps),
  "/": () => by("search").focus(),
  "?": () => by("help").showModal(),
};

function key(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || by("help").open || !by("keys-on").checked) return;
  if (event.target.closest("input, select, textarea")) return;
  if (event.key === " " && event.target.closest("button, summary, a")) return; // it presses what has the focus
  const plain = event.shiftKey && !["?", "+", "/"].includes(event.key);
  const work = KEYS[plain ? `Shift+${event.key}` : event.key];
  if (!work) return;
  event.preventDefault();
  guarded(work)();
}

// ---- the beginning ---------------------------------------------------------------------------------------------------

function refilter() {
  const count = list.filter(by("search").value, by("only").value);
  by("count").textContent = count === set.episodes.length ? `${count} episode${count === 1 ? "" : "s"}` : `${count} of ${set.episodes.length} episodes`;
}

function wire() {
  by("play").onclick = () => play(!now.playing);
  by("previous").onclick = guarded(() => show(list.beside(-1)));
  by("next").onclick = guarded(() => show(list.beside(1)));
  by("undo").onclick = undo;
  by("search").oninput = refilter;
  by("only").onchange = refilter;
  by("help-open").onclick = () => by("help").showModal();
  by("reviewer").value = localStorage.getItem("reviewer") ?? "";
  by("keys-on").checked = localStorage.getItem("keys") !== "off";
  by("keys-on").onchange = () => localStorage.setItem("keys", by("keys-on").checked ? "on" : "off");
  for (const button of document.querySelectorAll("[data-label]")) button.onclick = () => setLabel(button.dataset.label);
  document.addEventListener("keydown", key);
}

function startOf(text) {
  const given = new URLSearchParams(text.slice(1));
  return [Number(given.get("episode") ?? 0), Number(given.get("row") ?? 0)];
}

async function begin() {
  while (!by("viewer")) await new Promise((done) => setTimeout(done, 20)); // the page's shell comes with NiceGUI
  set = await ask("set");
  by("name").textContent = set.name;
  by("about").textContent = [
    set.task && `task ${set.task}`,
    `${set.episodes.length} episode${set.episodes.length === 1 ? "" : "s"}, ${set.steps} rows`,
    set.hz ? `${set.hz} Hz` : "rate unknown",
    ...set.notes,
  ].filter(Boolean).join(" · ");
  list = new List(by("list"), set.episodes, guarded((episode) => show(episode)));
  cameras = new Cameras(by("cameras"), set.cameras);
  by("viewer").classList.toggle("blind", !set.cameras.length);
  line = new TimeLine(by("lanes"), by("marks"), (row) => seek(row));
  plots = new Plots(by("plots"), set.panels, { seek, zoomed: (first, last) => line.zoomed(first, last) });
  wire();
  refilter();
  await show(...startOf(location.hash));
  by("viewer").setAttribute("aria-busy", "false");
  guarded(watchCheck)();
  const made = await makeScene(by("stage"), () => (by("scene").hidden = false));
  if (made.why) {
    by("no-scene").hidden = false;
    by("scene").hidden = true;
    by("no-scene").textContent = `No 3-D scene: ${made.why}.`;
    by("viewer").classList.toggle("beside", set.cameras.length > 0 && set.cameras.length <= 2);
    cameras.arrange();
  } else {
    scene = made.scene;
    by("scene-note").textContent = made.note;
    cameras.arrange();
    seek(now.row);
  }
  document.documentElement.dataset.whole = "true";
}

guarded(begin)();
