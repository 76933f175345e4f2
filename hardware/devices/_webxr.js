// The page of the WebXR device: reads a hand (headset, phone, or this screen) and sends it as long as it is held.
"use strict";

const VERSION = 1, METRES_PER_PX = 0.001, KEY_SPEED = 0.2, KEY_TURN = 0.6, MOST_WAITING = 4096;
const arms = Number(document.documentElement.dataset.arms) || 1;
const $ = (id) => document.getElementById(id);
const MOVES = { w: [0, 0, -1], s: [0, 0, 1], a: [-1, 0, 0], d: [1, 0, 0], q: [0, -1, 0], e: [0, 1, 0] };
const TURNS = { z: 1, x: -1 };

const link = { socket: null, seq: 0, events: [], open: false };
const screenHand = { p: [0, 0, 0], yaw: 0, grip: 0, keys: new Set(), holders: new Set(), last: performance.now() };
let session = null, space = null;
const pressed = new Map(); // "right 4" -> was it down

// --- the connection -------------------------------------------------------------------------------------------------

function say(text, state) {
  if ($("link").textContent !== text) $("link").textContent = text;
  $("link").dataset.state = state;
}

function connect() {
  const token = new URLSearchParams(location.search).get("token") ?? "";
  const socket = new WebSocket(`wss://${location.host}/ws?token=${encodeURIComponent(token)}`);
  link.socket = socket;
  socket.onopen = () => { link.open = true; link.seq = 0; say("connected", "on"); };
  socket.onmessage = ({ data }) => hear(JSON.parse(data));
  socket.onclose = ({ code, reason }) => {
    link.open = false;
    letGo();
    const refused = code === 4001 || code === 4002;
    say(refused ? reason : "connection lost: trying again", refused ? "refused" : "off");
    setTimeout(connect, refused ? 3000 : 1000);
  };
}

function hear(message) {
  if ("ping" in message) {
    link.socket.send(JSON.stringify({ v: VERSION, pong: message.ping, t: performance.now() }));
    return;
  }
  const ms = (value) => (value === null ? "–" : `${value.toFixed(value < 10 ? 1 : 0)} ms`);
  $("age").textContent = ms(message.age_ms);
  $("trip").textContent = ms(message.round_trip_ms);
  $("dropped").textContent = message.dropped;
  $("dropped").title = message.why;
}

function send(arm, p, q, btn, axes, deadman) {
  $("held").textContent = deadman ? "held" : "released";
  if (!link.open || (deadman && link.socket.bufferedAmount > MOST_WAITING)) return; // the network is slow: newest wins
  const message = { v: VERSION, seq: link.seq++, t: performance.now(), arm, p, q, btn, axes, deadman };
  if (link.events.length) message.ev = link.events.splice(0, 8);
  link.socket.send(JSON.stringify(message));
}

// --- this screen: drag, buttons, keys -------------------------------------------------------------------------------

function letGo() {
  screenHand.holders.clear();
  screenHand.keys.clear();
  show();
}

function show() {
  const held = screenHand.holders.size > 0;
  $("hold").setAttribute("aria-pressed", held);
  $("pad").classList.toggle("held", held);
  $("grip").setAttribute("aria-pressed", screenHand.grip === 1);
  $("grip").textContent = screenHand.grip ? "Open gripper" : "Close gripper";
}

const screenHeld = () => screenHand.holders.size > 0 && document.visibilityState === "visible" && document.hasFocus();
const turned = (yaw) => [0, Math.sin(yaw / 2), 0, Math.cos(yaw / 2)];

function sendScreen() {
  if (session) return;
  const now = performance.now(), dt = Math.min(0.05, (now - screenHand.last) / 1000);
  screenHand.last = now;
  const held = screenHeld();
  for (const key of held ? screenHand.keys : []) {
    MOVES[key]?.forEach((way, axis) => (screenHand.p[axis] += way * KEY_SPEED * dt));
    screenHand.yaw += (TURNS[key] ?? 0) * KEY_TURN * dt;
  }
  for (const [axis, value] of screenHand.p.entries()) screenHand.p[axis] = Math.max(-2, Math.min(2, value));
  const seen = (metres) => `${90 * Math.tanh(4 * metres)}px`;
  $("dot").style.transform = `translate(${seen(screenHand.p[0])}, ${seen(screenHand.p[2])})`;
  send(0, [...screenHand.p], turned(screenHand.yaw), [screenHand.grip], [], held);
}

function toggleGrip() {
  screenHand.grip = 1 - screenHand.grip;
  show();
}

function holdWith(node, name, also) {
  node.addEventListener("pointerdown", (event) => {
    node.setPointerCapture(event.pointerId);
    screenHand.holders.add(name);
    if (also) screenHand.keys.add(also);
    show();
  });
  for (const type of ["pointerup", "pointercancel", "lostpointercapture"]) {
    node.addEventListener(type, () => {
      screenHand.holders.delete(name);
      if (also) screenHand.keys.delete(also);
      show();
    });
  }
  node.addEventListener("contextmenu", (event) => event.preventDefault());
}

function listen() {
  holdWith($("hold"), "hold");
  holdWith($("pad"), "pad");
  holdWith($("up"), "up", "e");
  holdWith($("down"), "down", "q");
  $("pad").addEventListener("pointermove", (event) => {
    if (!screenHand.holders.has("pad")) return;
    screenHand.p[0] += event.movementX * METRES_PER_PX;
    screenHand.p[2] += event.movementY * METRES_PER_PX;
  });
  $("grip").addEventListener("click", toggleGrip);
  for (const button of document.querySelectorAll("[data-event]")) {
    button.addEventListener("click", () => link.events.push(button.dataset.event));
  }
  addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const onButton = event.target instanceof HTMLButtonElement && event.target.id !== "hold";
    if (key === " " && !onButton) { screenHand.holders.add("space"); event.preventDefault(); show(); }
    else if (key in MOVES || key in TURNS) screenHand.keys.add(key);
    else if (key === "g" && !event.repeat) toggleGrip();
  });
  addEventListener("keyup", (event) => {
    screenHand.keys.delete(event.key.toLowerCase());
    if (event.key === " ") { screenHand.holders.delete("space"); show(); }
  });
  const gone = () => { letGo(); sendScreen(); };
  addEventListener("blur", gone);
  addEventListener("pagehide", gone);
  document.addEventListener("visibilitychange", gone);
  setInterval(sendScreen, 16);
}

// --- WebXR ----------------------------------------------------------------------------------------------------------

async function offer() {
  for (const [id, mode] of [["ar", "immersive-ar"], ["vr", "immersive-vr"]]) {
    if (!(await navigator.xr?.isSessionSupported(mode).catch(() => false))) continue;
    $(id).hidden = false;
    $(id).addEventListener("click", () => enter(mode).catch((error) => say(`${mode}: ${error.message}`, "refused")));
    $("without").textContent = "AR and VR work here: hold the grip button (or the button below on a phone) to move.";
  }
}

async function enter(mode) {
  if (session) return session.end();
  const optionalFeatures = ["local-floor", "hand-tracking", "dom-overlay"];
  const begun = await navigator.xr.requestSession(mode, { optionalFeatures, domOverlay: { root: $("viewer") } });
  const gl = $("gl").getContext("webgl", { xrCompatible: true });
  if (gl) await begun.updateRenderState({ baseLayer: new XRWebGLLayer(begun, gl) });
  space = await begun.requestReferenceSpace("local");
  session = begun;
  letGo();
  $("ar").textContent = $("vr").textContent = "End session";
  begun.addEventListener("visibilitychange", () => { if (begun.visibilityState !== "visible") release(sent.keys()); });
  begun.addEventListener("end", () => {
    release(sent.keys());
    sent.clear();
    session = null;
    letGo();
    $("ar").textContent = "Start AR";
    $("vr").textContent = "Start VR";
  });
  $("viewer").addEventListener("beforexrselect", (event) => event.preventDefault());
  begun.requestAnimationFrame(frameOf(gl));
}

const sent = new Map(); // arm -> what was sent last, but the dead-man

function release(which) {
  for (const arm of which) send(arm, ...sent.get(arm), false);
}

function frameOf(gl) {
  return function onFrame(_, frame) {
    if (!session) return;
    session.requestAnimationFrame(onFrame);
    const layer = session.renderState?.baseLayer;
    if (gl && layer) {
      gl.bindFramebuffer(gl.FRAMEBUFFER, layer.framebuffer);
      gl.clearColor(0, 0, 0, session.environmentBlendMode === "opaque" ? 1 : 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
    }
    const visible = session.visibilityState !== "hidden" && session.visibilityState !== "visible-blurred";
    const seen = hands(frame);
    release([...sent.keys()].filter((arm) => !seen.some((one) => one.arm === arm))); // a hand out of sight holds nothing
    for (const { arm, pose, pad, hand } of seen) {
      const { position: p, orientation: q } = pose.transform;
      const values = [...(pad?.buttons ?? [])].slice(0, 16).map((button) => button.value);
      const squeezes = values.length > 1; // a tracked hand has a pinch only, which then is the dead-man
      const held = hand ? (squeezes ? pad.buttons[1].pressed : Boolean(pad?.buttons[0]?.pressed)) : screenHand.holders.size > 0;
      const btn = hand ? (squeezes ? values : []) : [screenHand.grip];
      const said = [[p.x, p.y, p.z], [q.x, q.y, q.z, q.w], btn, [...(pad?.axes ?? [])].slice(0, 8)];
      if (hand) press(hand, pad);
      sent.set(arm, said);
      send(arm, ...said, held && visible && !pose.emulatedPosition);
    }
  };
}

// Returns the hands of this frame: tracked controllers or hands; the phone itself where there is none.
function hands(frame) {
  const found = [...session.inputSources].filter((source) => source.gripSpace);
  const byHand = Object.fromEntries(found.map((source) => [source.handedness, source]));
  const chosen = arms === 2 ? [byHand.right, byHand.left] : [byHand.right ?? byHand.left ?? found[0]];
  const out = [];
  chosen.forEach((source, arm) => {
    const pose = source && frame.getPose(source.gripSpace, space);
    if (pose) out.push({ arm, pose, pad: source.gamepad, hand: source.handedness || "none" });
  });
  if (found.length === 0) {
    const pose = frame.getViewerPose(space);
    if (pose) out.push({ arm: 0, pose, pad: null, hand: "" });
  }
  return out;
}

// Buttons of a controller that speak of the recording: right A, B: success, failure; left X, Y: start, redo.
function press(hand, pad) {
  const meaning = hand === "left" ? { 4: "start", 5: "redo" } : { 4: "success", 5: "failure" };
  for (const [index, event] of Object.entries(meaning)) {
    const down = Boolean(pad?.buttons[index]?.pressed), key = `${hand} ${index}`;
    if (down && !pressed.get(key)) {
      link.events.push(event);
      pad.hapticActuators?.[0]?.pulse?.(0.5, 60);
    }
    pressed.set(key, down);
  }
}

listen();
show();
connect();
offer();
