/** Wiring: joins the call, the camera, the picture, the panel and the statistics. */

import { bareAddress, parseAddress, withoutToken } from "./address.js";
import { keepToken, saveControls } from "./api.js";
import { Call, backoffS } from "./call.js";
import { Camera } from "./camera.js";
import { Controls } from "./controls.js";
import { Enroll } from "./enroll.js";
import { Gallery } from "./gallery.js";
import { Hud } from "./hud.js";
import { Level } from "./level.js";
import { Look } from "./look.js";
import { Meter } from "./meter.js";
import { Notices } from "./notices.js";
import { Picture } from "./picture.js";
import { statusOf } from "./status.js";
import { lasting } from "./store.js";

const DRAW_EVERY_MS = 250;
// a quick change of avatar needs no veil; a slow one must explain itself
const VEIL_AFTER_MS = 700;

const el = (id) => document.getElementById(id);

const wish = parseAddress(location.search);
keepToken(wish.token);
if (wish.token) history.replaceState(null, "", withoutToken(location.href));

const now = {
  drive: "demo",
  mode: wish.mode,
  sizePx: wish.sizePx,
  generator: wish.generator,
  drawnBy: null, // the generator that really draws: another than was asked for when its weights do not load
  tracker: wish.tracker,
  phase: "connecting",
  state: null,
  face: null,
};

const notices = new Notices(el("notices"));
const hud = new Hud();
const meter = new Meter({ timeOriginMs: performance.timeOrigin });

const picture = new Picture({
  video: el("picture"),
  still: el("still"),
  onFrame(nowMs, metadata) {
    meter.frameShown(nowMs, metadata);
    call.heard();
  },
});

const camera = new Camera({
  video: el("camera"),
  mesh: el("mesh"),
  figure: el("preview"),
  onCapture: (captureMs) => meter.cameraFrame(captureMs),
  onLost: cameraLost,
});

const level = new Level(el("level"));

const call = new Call({
  phase: onPhase,
  answer: onAnswer,
  ending: () => picture.hold(),
  stream: (stream) => picture.show(stream),
  message: onMessage,
});

const gallery = new Gallery({
  tiles: el("tiles"),
  onChoose: startCall,
  onError: (text) => notices.show(text, "error"),
});

const controls = new Controls({
  onChange: (values) => call.setControls(values),
  onSave: saveControls,
  tell: (text, level) => notices.show(text, level),
});

const look = new Look({ onChange: startCall, asked: wish });

new Enroll((avatar) => {
  for (const notice of avatar.notices ?? []) notices.show(notice);
  gallery.add(avatar);
  gallery.choose(avatar.name);
  el("stage").scrollIntoView({ block: "nearest" });
});

// ---- the call

function startCall() {
  if (!gallery.chosen) return;
  controls.show(gallery.chosen);
  call.start({
    avatar: gallery.chosen,
    generator: now.generator ?? undefined,
    tracker: now.tracker ?? undefined,
    sizePx: now.sizePx,
    mode: effectiveMode(),
    drive: now.drive,
    ...look.asked,
    trim_ms: Number(el("trim").value),
    voice_helps: el("voice-helps").checked,
    camera: now.drive === "demo" ? null : camera.stream,
  });
  drawButtons();
}

// before the data channel opens: the first thing that the server hears is what the sliders show
function onAnswer(answer) {
  controls.adopt(answer.controls ?? null);
  call.setControls(controls.values);
}

// there is nothing to echo without a camera
function effectiveMode() {
  return now.drive === "webcam" ? now.mode : "avatar";
}

function onPhase(phase) {
  now.phase = phase.name;
  if (phase.name === "connecting") {
    now.drawnBy = null;
    meter.newCall();
    now.state = null;
    now.face = null;
  }
  if (phase.name === "refused" && phase.status === 410) {
    notices.show(phase.text, "error");
    look.forgetPicture();
    startCall();
    return;
  }
  if (phase.name === "refused" && phase.status === 404 && gallery.fallback && gallery.chosen !== gallery.fallback) {
    notices.show(`${phase.text} Showing the default avatar instead.`, "error");
    gallery.forget(gallery.chosen);
    gallery.choose(gallery.fallback);
    return;
  }
  drawVeil(phase);
  drawStatus();
  drawButtons();
}

function onMessage(message, nowMs) {
  switch (message.type) {
    case "frame":
      meter.frameMessage(nowMs, message);
      now.state = message.state;
      now.face = message.face;
      now.drawnBy = message.generator ?? null;
      drawStatus();
      break;
    case "mesh":
      camera.drawMesh(message.points);
      break;
    case "pong":
      meter.roundTripMs = nowMs - message.t;
      break;
    case "notice":
      notices.show(message.text, message.level);
      break;
  }
}

// ---- the camera

async function useWebcam() {
  const button = el("webcam");
  button.disabled = true;
  notices.clear();
  el("webcam-label").textContent = "Waiting for permission";
  try {
    const { notice } = await camera.start(wish.audio);
    now.drive = "webcam";
    if (notice) notices.show(notice);
  } catch (error) {
    now.drive = "demo";
    setMode("avatar");
    notices.show(error.message, "error");
  } finally {
    button.disabled = false;
  }
  startCall();
}

async function useVoice() {
  el("voice").disabled = true;
  notices.clear();
  el("voice-label").textContent = "Waiting for permission";
  setMode("avatar");
  try {
    await camera.startVoice(wish.audio);
    now.drive = "voice";
  } catch (error) {
    now.drive = camera.stream ? now.drive : "demo";
    notices.show(error.message, "error");
  } finally {
    el("voice").disabled = false;
  }
  startCall();
}

function stopDriving() {
  camera.stop();
  now.drive = "demo";
  setMode("avatar");
  setSound(false);
  startCall();
}

function cameraLost() {
  const drive = now.drive;
  const device = drive === "voice" ? "microphone" : "camera";
  notices.show(`The ${device} was disconnected. Plug it in again and the call goes on.`, "error");
  const again = () => now.drive === drive && (drive === "voice" ? useVoice() : useWebcam());
  navigator.mediaDevices.addEventListener("devicechange", again, { once: true });
}

// ---- drawing

let veilTimer = 0;

function drawVeil({ name, text, inS }) {
  clearTimeout(veilTimer);
  if (name === "connected") {
    el("veil").hidden = true;
    return;
  }
  // a broadcast must not show a message over a picture that it still has
  if (wish.bare && picture.seen) return;
  const show = () => {
    el("veil-spinner").hidden = name === "refused";
    el("veil-text").textContent = text ?? "Connecting";
    el("veil-detail").textContent = name === "waiting" ? `Trying again in ${inS} s` : "";
    el("veil-retry").hidden = name === "connecting";
    el("veil").hidden = false;
  };
  if (name === "connecting" && el("veil").hidden) veilTimer = setTimeout(show, VEIL_AFTER_MS);
  else show();
}

function drawStatus() {
  const { tone, text } = statusOf({ ...now, mode: effectiveMode() });
  // rewriting the same words would make a screen reader say them again
  if (el("status-text").textContent === text) return;
  el("status-text").textContent = text;
  el("status").dataset.tone = tone;
}

function drawButtons() {
  const webcam = now.drive === "webcam";
  const voice = now.drive === "voice";
  const hasSound = now.drive !== "demo" && Boolean(camera.stream?.getAudioTracks().length);
  el("voice-label").textContent = voice ? "Stop voice (demo)" : "Voice only";
  el("voice").setAttribute("aria-pressed", String(voice));
  level.show(voice ? camera.stream : null);
  el("webcam-label").textContent = webcam ? "Stop webcam (demo)" : "Use my webcam";
  el("webcam").classList.toggle("primary", !webcam);
  el("recalibrate").disabled = !(webcam && now.phase === "connected" && effectiveMode() === "avatar");
  el("sound").disabled = !hasSound;
  el("bare-link").href = bareAddress(document.baseURI, {
    drive: now.drive,
    avatar: gallery.chosen ?? "",
    sizePx: now.sizePx,
    mode: effectiveMode(),
    ...look.asked,
  });
}

function setSound(on) {
  picture.setMuted(!on);
  el("sound").dataset.on = String(on);
  el("sound-label").textContent = on ? "Mute" : "Unmute";
}

function setMirror(on) {
  el("stage").classList.toggle("mirrored", on);
  el("mirror").setAttribute("aria-pressed", String(on));
}

function setHud(on) {
  hud.shown = on;
  hud.draw(stats(), now.drive);
}

function setMode(mode) {
  now.mode = mode;
  for (const radio of document.querySelectorAll("input[name=mode]")) radio.checked = radio.value === mode;
}

function toggleFull() {
  if (document.fullscreenElement) void document.exitFullscreen();
  else if (el("theatre").requestFullscreen) el("theatre").requestFullscreen().catch(() => {});
  else el("picture").webkitEnterFullscreen?.();
}

// ---- statistics

function stats() {
  return {
    ...meter.snapshot(performance.now()),
    resolution: picture.resolution,
    state: now.state ?? now.phase,
    generator: now.drawnBy,
    connection: now.phase === "waiting" ? "reconnecting" : call.connection,
    round_trip_ms: meter.roundTripMs,
    audio: call.audio,
  };
}

window.visavis = { stats, reset: () => meter.reset() };

// ---- what the visitor does

function recalibrate() {
  if (!el("recalibrate").disabled) call.send({ type: "recalibrate" });
}

function changeHud() {
  setHud(!hud.shown);
  lasting.write("hud", hud.shown);
}

el("webcam").addEventListener("click", () => (now.drive === "webcam" ? stopDriving() : void useWebcam()));
el("voice").addEventListener("click", () => (now.drive === "voice" ? stopDriving() : void useVoice()));
el("recalibrate").addEventListener("click", recalibrate);
el("sound").addEventListener("click", () => setSound(el("picture").muted));
el("full").addEventListener("click", toggleFull);
el("leave-full").addEventListener("click", toggleFull);
el("hud-toggle").addEventListener("click", changeHud);
el("mirror").addEventListener("click", () => {
  const on = el("mirror").getAttribute("aria-pressed") !== "true";
  setMirror(on);
  lasting.write("mirror", on);
});
el("veil-retry").addEventListener("click", () => (gallery.chosen ? startCall() : void begin()));

for (const radio of document.querySelectorAll("input[name=mode]")) {
  radio.addEventListener("change", () => {
    if (!radio.checked) return;
    now.mode = radio.value;
    if (now.mode === "echo" && now.drive !== "webcam") void useWebcam();
    else startCall();
  });
}

el("trim").addEventListener("input", () => {
  el("trim-value").textContent = `${el("trim").value} ms`;
  call.send({ type: "sound", trim_ms: Number(el("trim").value) });
});

el("voice-helps").addEventListener("change", () => now.drive === "webcam" && startCall());

el("generator").addEventListener("change", () => {
  now.generator = el("generator").value;
  startCall();
});

el("tracker").addEventListener("change", () => {
  now.tracker = el("tracker").value;
  startCall();
});

const SHORTCUTS = { r: recalibrate, h: changeHud, f: toggleFull };
window.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest?.("input[type=text], textarea, select")) return;
  SHORTCUTS[event.key.toLowerCase()]?.();
});

window.addEventListener("online", () => now.phase === "waiting" && call.retryNow());
// a closed connection tells the server at once; a page brought back from the history starts afresh
window.addEventListener("pagehide", () => call.stop());
window.addEventListener("pageshow", (event) => event.persisted && startCall());

// ---- start

let beginTurn = 0;

async function begin(attempt = 0) {
  beginTurn += 1;
  const turn = beginTurn;
  try {
    await gallery.load(wish.avatar);
  } catch (error) {
    if (turn !== beginTurn) return;
    const again = error.passing ?? true;
    const inS = backoffS(attempt);
    onPhase({ name: again ? "waiting" : "refused", text: error.message, inS });
    if (again) setTimeout(() => turn === beginTurn && begin(attempt + 1), inS * 1000);
    return;
  }
  fillChoices();
  controls.emotions = gallery.emotions;
  look.usual = gallery.look;
  if (wish.drive === "webcam") await useWebcam();
  else if (wish.drive === "voice") await useVoice();
  else startCall();
}

function fillChoices() {
  fillChoice("generator", gallery.generators);
  fillChoice("tracker", gallery.trackers);
}

function fillChoice(which, names) {
  el(which).replaceChildren(...names.map((name) => new Option(name, name, false, name === now[which])));
  el(`${which}-row`).hidden = names.length < 2;
}

document.body.classList.toggle("bare", wish.bare);
setMode(now.mode);
setMirror(lasting.read("mirror") === true);
setHud(wish.hud ?? (wish.bare ? false : lasting.read("hud") !== false));
setInterval(() => hud.draw(stats(), now.drive), DRAW_EVERY_MS);
void begin();
