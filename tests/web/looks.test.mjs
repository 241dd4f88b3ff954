// What the page shows mirrored, in which colours, and what it says beside the picture.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { latencyLabel, stageName } from "../../streamer/web/hud.js";
import { isMirrored, mirrorWords } from "../../streamer/web/mirror.js";
import { CalmFace, neutralNews, neutralStatus, reportOf } from "../../streamer/web/neutral.js";
import { sentence } from "../../streamer/web/notices.js";
import { Pace, isThisComputer, slowWords } from "../../streamer/web/pace.js";
import { APPLICATIONS, commandOf, lacksFile, partsOf, secretWords, systemOf } from "../../streamer/web/use.js";

// ---- mirror

const eyes = { bare: false, drive: "webcam", asked: null, kept: null };

test("who drives by webcam sees a mirror unless they chose otherwise", () => {
  assert.equal(isMirrored(eyes), true);
  assert.equal(isMirrored({ ...eyes, kept: false }), false);
  assert.equal(isMirrored({ ...eyes, kept: false, asked: true }), true);
  assert.equal(isMirrored({ ...eyes, asked: false }), false);
});

test("demo and voice are no mirror", () => {
  for (const drive of ["demo", "voice"]) {
    assert.equal(isMirrored({ ...eyes, drive, kept: true }), false);
    assert.equal(mirrorWords({ drive, mirrored: false }), "");
  }
});

test("what others see is mirrored only where its address says so", () => {
  for (const drive of ["webcam", "voice", "demo"]) {
    assert.equal(isMirrored({ ...eyes, bare: true, drive, kept: true }), false);
    assert.equal(isMirrored({ ...eyes, bare: true, drive, asked: false }), false);
    assert.equal(isMirrored({ ...eyes, bare: true, drive, asked: true }), true);
  }
});

test("the page says what others see", () => {
  assert.match(mirrorWords({ drive: "webcam", mirrored: true }), /others see you the right way round/);
  assert.match(mirrorWords({ drive: "webcam", mirrored: false }), /as others do/);
});

// ---- the calm face

const waiting = { state: "waiting", why: ["talking", "looking_down"], revision: 1 };
const taken = { state: "taken", why: [], revision: 1 };

test("while the calm face is looked for, the status says what disturbs", () => {
  assert.equal(neutralStatus(waiting), "Looking for your calm face: you are talking and you are looking down");
  assert.equal(neutralStatus({ ...waiting, why: [] }), "Hold still: taking your calm face");
  assert.equal(neutralStatus({ ...waiting, why: ["something_new"] }), "Hold still: taking your calm face");
  assert.equal(neutralStatus(taken), null);
  assert.equal(neutralStatus(null), null);
});

test("what the server names as a disturbance has words", () => {
  const named = readFileSync(new URL("../../calibration/neutral.py", import.meta.url), "utf8");
  const why = named.match(/`why`: ("[a-z_]+"(?:,\s+"[a-z_]+")*)/);
  for (const [, name] of why?.[1].matchAll(/"([a-z_]+)"/g) ?? []) {
    assert.match(neutralStatus({ ...waiting, why: [name] }), /^Looking for your calm face: /, name);
  }
});

test("it is said once that the calm face is taken or corrected", () => {
  assert.equal(neutralNews(null, taken), null);
  assert.equal(neutralNews(waiting, waiting), null);
  assert.match(neutralNews(waiting, taken), /is taken/);
  assert.equal(neutralNews(taken, taken), null);
  assert.match(neutralNews(taken, { ...taken, revision: 2 }), /corrected/);
  assert.equal(neutralNews({ ...taken, revision: 2 }, taken), null, "an old message that came late");
});

test("a message that says nothing changes nothing", () => {
  assert.equal(reportOf({ state: "rocket" }), null);
  assert.deepEqual(reportOf({ state: "taken" }), { state: "taken", why: [], revision: 0 });
});

class SaidNotices {
  said = [];
  topics = new Map();
  show(text, level, { topic }) {
    this.said.push(text);
    this.topics.set(topic, text);
  }
  end(topic) {
    this.topics.delete(topic);
  }
}

test("the request to look here ends when the calm face is taken", () => {
  const notices = new SaidNotices();
  const face = new CalmFace(notices);
  face.begin();
  face.heard(taken);
  face.ask();
  assert.match(notices.topics.get("neutral"), /Look straight ahead/);
  face.heard({ ...waiting, why: ["smiling"] });
  assert.match(notices.topics.get("neutral"), /Look straight ahead/);
  face.heard({ ...taken, revision: 2 });
  assert.match(notices.topics.get("neutral"), /is taken/);
  face.begin();
  assert.equal(notices.topics.size, 0, "another call has another story");
});

test("where the server tells of no calm face, the end of calibrating ends it", () => {
  const notices = new SaidNotices();
  const face = new CalmFace(notices);
  face.ask();
  face.frame("tracking");
  face.frame("calibrating");
  assert.equal(notices.topics.size, 1);
  face.frame("tracking");
  assert.equal(notices.topics.size, 0);
});

test("a server's phrase is shown as a sentence", () => {
  assert.equal(sentence("two faces found: took the largest"), "Two faces found: took the largest.");
  assert.equal(sentence("Saved."), "Saved.");
  assert.equal(sentence("the 9000 × 9000 pixels (of it)"), "The 9000 × 9000 pixels (of it).");
  assert.equal(sentence("is it?"), "Is it?");
});

// ---- pace

function after(seconds, seen, pace = new Pace(), fromMs = 0) {
  for (let k = 0; k <= seconds * 4; k += 1) {
    const droppedSoFar = Math.round(((seen.droppedPerS ?? 0) * k) / 4);
    pace.look(fromMs + k * 250, { counts: true, drive: "demo", dropped: droppedSoFar, ...seen });
  }
  return pace;
}

test("a rate far below what was asked for some seconds is slow, a moment of it is not", () => {
  assert.equal(after(20, { fps: 13 }).isSlow, true);
  assert.equal(after(3, { fps: 13 }).isSlow, false);
  assert.equal(after(20, { fps: 24 }).isSlow, false);
  assert.equal(after(20, { fps: 17, drive: "voice" }).isSlow, false, "the voice asks for 25");
});

test("it is over when the rate is well again", () => {
  const pace = after(20, { fps: 13 });
  after(1, { fps: 20 }, pace, 21_000);
  assert.equal(pace.isSlow, true, "not well yet");
  after(1, { fps: 28 }, pace, 23_000);
  assert.equal(pace.isSlow, false);
});

test("a camera that gives few pictures in the dark is not called slow", () => {
  assert.equal(after(20, { fps: 12, drive: "webcam" }).isSlow, false);
  assert.equal(after(20, { fps: 12, drive: "webcam", droppedPerS: 15 }).isSlow, true);
});

test("nothing is said of what nobody sees", () => {
  const pace = after(20, { fps: 13 });
  pace.look(30_000, { fps: 1, dropped: 0, drive: "demo", counts: false });
  assert.equal(pace.isSlow, false);
});

test("what helps is what there is", () => {
  const now = { fps: 13.2, drive: "webcam", isHere: true, generator: "visavis", generators: ["visavis", "geometric"], sizePx: 512, aspect: "16:9" };
  const words = slowWords(now);
  for (const part of [/13 of 30/, /this computer is too slow/, /geometric/, /smaller picture/, /square/, /other tabs/]) assert.match(words, part);
  const least = slowWords({ ...now, generator: "geometric", sizePx: 256, aspect: "1:1", isHere: false });
  assert.doesNotMatch(least, /geometric|smaller|square|this computer/);
  assert.deepEqual(["localhost", "127.0.0.1", "[::1]", "192.168.0.2", "127.evil.example"].map(isThisComputer), [true, true, true, false, false]);
});

// ---- latency of the voice

test("the voice has a latency and stages of its own names", () => {
  const here = latencyLabel("voice", { p50: 170 }, true);
  assert.equal(here.name, "Voice to glass");
  assert.equal(here.usable, true);
  assert.match(here.title, /microphone's own delay cannot be measured/);
  assert.equal(stageName("decoded", "voice"), "Look-ahead");
  assert.equal(stageName("decoded", "webcam"), "Decode");
  assert.equal(stageName("generated", "voice"), "Generate");
  assert.equal(stageName("rest", "voice"), "Network, screen");
});

test("a number of two computers' clocks is not shown as a latency", () => {
  for (const drive of ["voice", "demo"]) assert.equal(latencyLabel(drive, { p50: 170 }, false).usable, false);
  assert.equal(latencyLabel("webcam", { p50: 170 }, false).usable, true, "one clock, the browser's");
  assert.equal(latencyLabel("demo", { p50: null }, true).usable, false);
});

// ---- into a call

test("the command is the avatar's, and looks as the page does", () => {
  const help = { program: "visavis", avatar: "me.avatar" };
  const now = { drive: "webcam", look: {} };
  assert.equal(commandOf(help, now), "visavis run me.avatar --from webcam --to virtualcam");
  assert.equal(commandOf(help, { ...now, drive: "demo" }), "visavis run me.avatar --from webcam --to virtualcam");
  assert.equal(
    commandOf(help, { drive: "voice", look: { aspect: "16:9", background: "#00ff00" }, generator: "geometric" }),
    'visavis run me.avatar --from mic --to virtualcam --aspect 16:9 --background "#00ff00" --generator geometric',
  );
  for (const background of ["keep", "b-abcdefgh"]) assert.doesNotMatch(commandOf(help, { ...now, look: { background } }), /background/);
});

test("an avatar without a file is told apart", () => {
  assert.match(lacksFile({ avatar: "u-123", title: "me" }), /keep it on this computer or download/);
  assert.match(lacksFile({ avatar: "demo", title: "demo" }), /add your own photo/);
  assert.match(lacksFile({ avatar: "", title: "" }), /^Choose an avatar/, "after it was deleted");
  assert.match(lacksFile({ avatar: "u-123", title: "" }), /^This avatar is not here/);
});

test("what must not be given away is said beside it", () => {
  assert.equal(secretWords("demo", null), "");
  assert.match(secretWords("u-123", null), /can show this avatar/);
  assert.match(secretWords("u-123", "T"), /token/);
});

test("every application that people ask for is there", () => {
  assert.deepEqual(APPLICATIONS.map(([name]) => name), ["Zoom", "Google Meet", "Microsoft Teams", "Discord"]);
});

test("commands stand out of their sentences", () => {
  assert.deepEqual(partsOf("run `a && b`, then stop"), [
    { text: "run ", isCommand: false },
    { text: "a && b", isCommand: true },
    { text: ", then stop", isCommand: false },
  ]);
});

test("a system is known by what the browser says", () => {
  assert.deepEqual(["Win32", "MacIntel", "Linux x86_64", "iPhone", ""].map(systemOf), ["win32", "darwin", "linux", "darwin", "linux"]);
});

// ---- colours

const css = (name) => readFileSync(new URL(`../../streamer/web/${name}.css`, import.meta.url), "utf8");

/** The variables of the first `:root` block after `start`. */
function variables(text, start) {
  const block = text.slice(text.indexOf(start)).match(/:root \{([^}]*)\}/)[1];
  return Object.fromEntries([...block.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map(([, name, colour]) => [name, colour]));
}

// WCAG 2.2: relative luminance and contrast ratio
function luminance(colour) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

const dark = variables(css("style"), ":root");
const light = { ...dark, ...variables(css("style"), "prefers-color-scheme: light") };
const WORDS = [
  ["text", ["ground", "panel", "raised", "raised-hover"]],
  ["quiet", ["ground", "panel", "raised", "accent-tint"]],
  ["accent", ["ground", "panel", "raised", "accent-tint"]],
  ["error", ["ground", "panel"]],
  ["placeholder", ["ground"]],
  ["on-accent", ["accent", "accent-hover"]],
  ["over-text", ["over"]],
];
// edges and marks that say something
const MARKS = [["line-strong", ["ground", "panel"]], ["accent", ["panel"]], ["thumb", ["line-strong"]], ["over-accent", ["over"]]];

for (const [scheme, colours] of [["dark", dark], ["light", light]]) {
  test(`words are readable in the ${scheme} scheme`, () => {
    for (const [on, grounds] of WORDS) {
      for (const ground of grounds) {
        const ratio = contrast(colours[on], colours[ground]);
        assert.ok(ratio >= 4.5, `${on} on ${ground}: ${ratio.toFixed(2)}`);
      }
    }
    for (const [on, grounds] of MARKS) {
      for (const ground of grounds) {
        const ratio = contrast(colours[on], colours[ground]);
        assert.ok(ratio >= 3, `${on} on ${ground}: ${ratio.toFixed(2)}`);
      }
    }
  });
}

test("the light scheme changes every colour of the page's own", () => {
  const own = Object.keys(dark).filter((name) => !name.startsWith("over"));
  assert.deepEqual(Object.keys(variables(css("style"), "prefers-color-scheme: light")).sort(), own.sort());
});

test("what lies over the picture stays readable over white", () => {
  // a translucent ground over the brightest picture
  const over = Object.entries({ status: css("stage"), veil: css("stage") });
  for (const [name, text] of over) {
    const [, r, g, b, share] = text.match(new RegExp(`\\.${name} \\{[^}]*background: rgb\\((\\d+) (\\d+) (\\d+) / (\\d+)%\\)`));
    const mixed = [r, g, b].map((c) => Math.round((Number(c) * share + 255 * (100 - share)) / 100));
    const colour = `#${mixed.map((c) => c.toString(16).padStart(2, "0")).join("")}`;
    const ratio = contrast(dark["over-text"], colour);
    assert.ok(ratio >= 4.5, `${name}: ${ratio.toFixed(2)}`);
  }
});

test("no colour of a word stands outside the variables", () => {
  for (const name of ["style", "buttons", "stage", "panel", "controls", "notices", "use", "system_colours"]) {
    for (const [line] of css(name).matchAll(/^\s+color: .*$/gm)) assert.match(line, /var\(--|inherit|currentcolor/, `${name}: ${line}`);
  }
});
