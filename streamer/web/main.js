/**
 * Wiring: joins the call, the camera, the picture, the panel and the statistics.
 * Over 400 lines because all parts of the page meet here, and nowhere else.
 */

import { bareAddress, parseAddress, withoutToken } from "./address.js";
import { keepToken, keptToken, makeAvatar, saveControls } from "./api.js";
import { Call, backoffS } from "./call.js";
import { Camera } from "./camera.js";
import { Choices } from "./choices.js";
import { Controls } from "./controls.js";
import { el } from "./dom.js";
import { Drive } from "./drive.js";
import { Enroll, consentNotice } from "./enroll.js";
import { Faces } from "./faces.js";
import { Gallery } from "./gallery.js";
import { Hud } from "./hud.js";
import { Keeping } from "./keeping.js";
import { KeptNeutral } from "./kept_neutral.js";
import { Look } from "./look.js";
import { Lost } from "./lost.js";
import { Meter } from "./meter.js";
import { CalmFace } from "./neutral.js";
import { Notices } from "./notices.js";
import { Origins } from "./origins.js";
import { SMALL_PX, SlowNotice } from "./pace.js";
import { Picture } from "./picture.js";
import { Reach } from "./reach.js";
import { Record } from "./record.js";
import { statusOf } from "./status.js";
import { lasting } from "./store.js";
import { Toolbar } from "./toolbar.js";
import { UseIt } from "./use.js";
import { Veil } from "./veil.js";

const DRAW_EVERY_MS = 250;

const wish = parseAddress(location.search);
keepToken(wish.token);
if (wish.token) history.replaceState(null, "", withoutToken(location.href));

const now = {
  drawnBy: null, // the generator that really draws: another than was asked for when its weights do not load
  phase: "connecting",
  state: null,
  face: null,
};

const notices = new Notices(el("notices"));
const record = new Record(notices);
const calmFace = new CalmFace(notices);
const keptNeutral = new KeptNeutral();
const slowNotice = new SlowNotice({
  notices,
  makeSmaller() {
    wish.sizePx = SMALL_PX;
    startCall();
  },
});
const hud = new Hud();
const meter = new Meter({ timeOriginMs: performance.timeOrigin });

const picture = new Picture({
  video: el("picture"),
  still: el("still"),
  onFrame(nowMs, metadata) {
    meter.soundPlayed(call.soundPlaying());
    meter.frameShown(nowMs, metadata);
    call.heard();
  },
});

// a broadcast must not show a message over a picture that it still has
const veil = new Veil(() => !(wish.bare && picture.seen));

const camera = new Camera({
  video: el("camera"),
  mesh: el("mesh"),
  figure: el("preview"),
  onCapture: (captureMs) => meter.cameraFrame(captureMs),
  onLost: () => drive.lost(),
});

const drive = new Drive({ camera, mode: wish.mode, audio: wish.audio, notices, onChange: changeCall });

const toolbar = new Toolbar({
  picture,
  drive,
  asked: wish,
  onRecalibrate() {
    if (!call.send({ type: "recalibrate" })) return;
    keptNeutral.forget();
    calmFace.ask();
  },
});

const call = new Call({
  phase: onPhase,
  answer: onAnswer,
  unchanged: onUnchanged,
  neutral: () => (drive.name === "webcam" ? keptNeutral.of(drive.stream) : undefined),
  isHeard: () => !el("picture").muted,
  skewMs: () => meter.skewMs(performance.now()),
  ending: () => picture.hold(),
  stream: (stream) => picture.show(stream),
  message: onMessage,
});

const origins = new Origins();

const gallery = new Gallery({
  tiles: el("tiles"),
  address: wish.avatar,
  onChoose: changeCall,
  onDraw: drawKeeping,
  onError: (text) => notices.show(text, "error"),
  canMake: (name) => origins.of(name) !== null,
  onDeleted({ name, title }, elsewhere, wasChosen) {
    origins.forget(name);
    if (!wasChosen) return;
    call.stop();
    picture.clear();
    lost.deleted(title, elsewhere);
  },
});

const keeping = new Keeping({
  kept(from, avatar) {
    renamed(from, avatar);
    notices.show(`“${avatar.title}” is kept on this computer, and here after the next start too.`);
  },
  renamed,
  remove: (avatar) => gallery.remove(avatar),
  tell: (text, level) => notices.show(text, level),
});

const controls = new Controls({
  onChange: (values) => call.setControls(values),
  onSave: saveControls,
  tell: (text, level) => notices.show(text, level),
});

const choices = new Choices({ asked: wish, onChange: changeCall });

const look = new Look({ onChange: changeCall, asked: wish });

const lost = new Lost({
  origins,
  bare: wish.bare,
  chosen: () => gallery.chosen,
  title: (name) => gallery.titleOf(name),
  remake: makeAgain,
  resendPicture: () => look.resendPicture(),
  dropPicture(text) {
    notices.show(text, "error");
    look.forgetPicture();
    startCall();
  },
  show: drawPhase,
  start: startCall,
  add: () => el("photo").click(),
});

new Enroll(
  async (avatar, origin, remark) => {
    for (const notice of [remark, ...(avatar.notices ?? [])]) if (notice) notices.show(notice);
    if (origin.consent === null) notices.show(consentNotice(avatar.title, avatar.consent));
    await origins.remember(avatar.name, origin);
    gallery.add(avatar);
    gallery.choose(avatar.name);
    el("stage").scrollIntoView({ block: "nearest" });
  },
  (title) => (now.phase === "lost" && gallery.titleOf(gallery.chosen) === title ? gallery.chosen : null),
);

/** The avatar that the server lost, from what this tab has of it, under its name and with what was saved with it. */
async function makeAgain(name, { file, consent }) {
  const made = await makeAvatar(file, consent, () => {}, undefined, name);
  origins.renamed(name, made.name);
  controls.renamed(name, made.name);
  gallery.remade(name, made.name);
  const saved = controls.savedWith(made.name);
  // what is not saved is still remembered here
  if (saved) await saveControls(made.name, saved).catch(() => {});
  return made.name;
}

/** The same face under another name: everything here goes on with that. */
function renamed(from, avatar) {
  call.renamed(from, avatar.name);
  controls.renamed(from, avatar.name);
  gallery.replace(from, avatar);
}

function drawKeeping() {
  keeping.show(gallery.entry(gallery.chosen), gallery.keepIn);
}

// ---- the call

function startCall() {
  goOn((wanted) => call.start(wanted));
}

/** Inside the running call where that can be. */
function changeCall() {
  goOn((wanted) => call.change(wanted));
}

function goOn(ask) {
  lost.asked(gallery.chosen);
  if (!gallery.chosen) {
    lost.nobody();
    drawButtons();
    return;
  }
  controls.show(gallery.chosen);
  ask({
    avatar: gallery.chosen,
    ...choices.asked,
    sizePx: wish.sizePx,
    mode: drive.mode,
    drive: drive.name,
    ...look.asked,
    trim_ms: Number(el("trim").value),
    voice_helps: el("voice-helps").checked,
    camera: drive.stream,
  });
  drawButtons();
}

/** What was chosen cannot be: the page shows again what the call goes on with. */
function onUnchanged({ text, status, what, wanted, kept }) {
  // the tab may have what the server has lost: a new call tells
  if (status === 410 || (what === "avatar" && origins.of(wanted.avatar))) {
    startCall();
    return;
  }
  notices.show(text, "error");
  gallery.stay(kept.avatar);
  choices.stay(kept);
  look.stay(kept);
  el("voice-helps").checked = kept.voice_helps;
  lost.asked(kept.avatar);
  controls.show(kept.avatar);
  call.setControls(controls.values);
  drawButtons();
}

// of a new call before the data channel opens: the first thing that the server hears is what the sliders show
function onAnswer(answer) {
  // a change goes on in the call that there is
  if (answer.session) record.begin(answer.session);
  controls.adopt(answer.controls ?? null);
  call.setControls(controls.values);
}

function onPhase(phase) {
  if (phase.name !== "connected") record.end();
  if (phase.name === "connected") lost.found();
  if (!lost.refused(phase)) drawPhase(phase);
}

function drawPhase(phase) {
  now.phase = phase.name;
  now.status = phase.status;
  if (phase.name === "connecting") {
    now.drawnBy = null;
    meter.newCall();
    now.state = null;
    now.face = null;
    calmFace.begin();
    notices.end("call");
  }
  veil.draw(phase);
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
      calmFace.frame(message.state);
      drawStatus();
      break;
    case "sound":
      meter.soundMessage(nowMs, message);
      break;
    case "neutral":
      calmFace.heard(message);
      keptNeutral.heard(message, drive.stream);
      drawStatus();
      break;
    case "mesh":
      camera.drawMesh(message.points);
      break;
    case "pong":
      meter.roundTripMs = nowMs - message.t;
      break;
    case "notice":
      notices.show(message.text, message.level, { of: "call" });
      break;
  }
}

// ---- drawing

function drawStatus() {
  const { tone, text } = statusOf({ ...now, neutral: calmFace.report, drive: drive.name, mode: drive.mode });
  // rewriting the same words would make a screen reader say them again
  if (el("status-text").textContent === text) return;
  el("status-text").textContent = text;
  el("status").dataset.tone = tone;
}

function bareHref() {
  return bareAddress(document.baseURI, {
    // who shows it to others is there in person
    drive: drive.name === "demo" ? "webcam" : drive.name,
    avatar: gallery.chosen ?? "",
    sizePx: wish.sizePx,
    mode: drive.mode,
    ...choices.asked,
    ...look.asked,
  });
}

function drawButtons() {
  toolbar.draw({ drive, connected: now.phase === "connected", bareHref: bareHref() });
}

new UseIt({
  now: () => ({
    avatar: gallery.chosen ?? "",
    title: gallery.titleOf(gallery.chosen) ?? "",
    drive: drive.name,
    look: look.asked,
    generator: choices.asked.generator,
    bareHref: bareHref(),
    secret: keptToken(),
  }),
});

new Reach();

new Faces({
  now: () => ({
    avatar: gallery.chosen,
    title: gallery.titleOf(gallery.chosen) ?? "",
    generator: choices.asked.generator,
  }),
});

function setHud(on) {
  hud.shown = on;
  hud.draw(stats(), drive.name);
}

function changeHud() {
  setHud(!hud.shown);
  // in one column it comes last
  if (hud.shown) el("hud").scrollIntoView({ block: "nearest" });
  lasting.write("hud", hud.shown);
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

function drawPace({ fps, dropped, generator }) {
  const counts = now.phase === "connected" && now.state === "tracking" && drive.mode === "avatar" && !document.hidden;
  slowNotice.draw({
    fps,
    dropped,
    generator,
    drive: drive.name,
    counts: counts && !wish.bare,
    generators: gallery.generators,
    sizePx: wish.sizePx,
    aspect: look.asked.aspect,
  });
}

window.visavis = { stats, reset: () => meter.reset() };

// ---- what the visitor does

el("hud-toggle").addEventListener("click", changeHud);
el("veil-retry").addEventListener("click", () => {
  if (veil.action) veil.action.run();
  else if (gallery.chosen) startCall();
  else void begin();
});

el("trim").addEventListener("input", () => {
  const { value, min, max } = el("trim");
  el("trim").style.setProperty("--fill", `${(100 * (value - min)) / (max - min)}%`);
  el("trim-value").textContent = `${el("trim").value} ms`;
  call.send({ type: "sound", trim_ms: Number(el("trim").value) });
  call.trimmed(Number(el("trim").value));
});

el("voice-helps").addEventListener("change", changeCall);

const SHORTCUTS = { r: () => toolbar.recalibrate(), h: changeHud, f: () => toolbar.toggleFull() };
window.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest?.("input[type=text], textarea, select, dialog")) return;
  SHORTCUTS[event.key.toLowerCase()]?.();
});

for (const network of [window, navigator.connection]) {
  network?.addEventListener(network === window ? "online" : "change", () => call.networkChanged());
}
// a closed connection tells the server at once; a page brought back from the history starts afresh
window.addEventListener("pagehide", () => call.stop());
window.addEventListener("pageshow", (event) => event.persisted && startCall());

// ---- start

let beginTurn = 0;

async function begin(attempt = 0) {
  beginTurn += 1;
  const turn = beginTurn;
  try {
    await gallery.load();
  } catch (error) {
    if (turn !== beginTurn) return;
    const again = error.passing ?? true;
    const inS = backoffS(attempt);
    onPhase({ name: again ? "waiting" : "refused", text: error.message, inS });
    if (again) setTimeout(() => turn === beginTurn && begin(attempt + 1), inS * 1000);
    return;
  }
  choices.fill(gallery);
  controls.emotions = gallery.emotions;
  look.usual = gallery.look;
  if (wish.drive === "webcam") await drive.useWebcam();
  else if (wish.drive === "voice") await drive.useVoice();
  else {
    if (drive.before === "webcam") notices.show("Your camera was in use. Press “Use my webcam again” to go on.");
    startCall();
  }
}

document.body.classList.toggle("bare", wish.bare);
setHud(wish.hud ?? (wish.bare ? false : lasting.read("hud") !== false));
setInterval(() => {
  const seen = stats();
  hud.draw(seen, drive.name);
  drawPace(seen);
}, DRAW_EVERY_MS);
void begin();
