// The movement settings: what is kept, what is refused, and whose settings a call starts with.
import assert from "node:assert/strict";
import { test } from "node:test";

import {
  CHOICES, DEFAULTS, GROUPS, LOOKS, STRENGTH, defaultsOf, emotionTitle, holds, percent, same, sane, startingValues,
} from "../../streamer/web/settings.js";

const EMOTIONS = ["neutral", "happy", "happily_surprised"];
const rows = GROUPS.flatMap((group) => group.rows);
const row = (name) => rows.find((each) => each.name === name);

test("every setting has one row, and every row a setting", () => {
  assert.deepEqual(rows.map((each) => each.name).sort(), Object.keys(DEFAULTS).sort());
  assert.equal(new Set(GROUPS.map((group) => group.id)).size, GROUPS.length);
  for (const { name, kind, label } of rows) {
    assert.ok(label.length > 1, name);
    assert.ok(["slider", "toggle", "switch", "select"].includes(kind), kind);
    if (kind === "slider") assert.ok(DEFAULTS[name] >= STRENGTH.min && DEFAULTS[name] <= STRENGTH.max);
    if (kind === "switch") assert.ok(Object.hasOwn(CHOICES[name], DEFAULTS[name]));
    if (kind === "toggle") assert.equal(typeof DEFAULTS[name], "boolean");
  }
});

test("settings that are missing, of another kind or out of range become the default", () => {
  assert.deepEqual(sane(null), { ...DEFAULTS });
  assert.deepEqual(sane("nonsense"), { ...DEFAULTS });
  assert.deepEqual(sane([1, 2]), { ...DEFAULTS });
  const bad = {
    expression: 9, lips: "1", eyes: -0.01, brows: NaN, gaze: null, head: [0.5], position: Infinity,
    region: "toString", head_from: "me", motion: ["absolute"], place_absolutely: 1, keep_lips: "no", keep_blink: 0,
    preset: "furious", preset_strength: 2.01, rest: 1.05, turn_reach: -0.1, more: 7,
  };
  assert.deepEqual(sane(bad, EMOTIONS), { ...DEFAULTS });
});

test("good settings are kept as they are", () => {
  const good = {
    expression: 0, lips: 2, eyes: 0.35, brows: 1.3, gaze: 0.5, head: 0.6, position: 0, region: "lip",
    head_from: "recording", motion: "absolute", place_absolutely: true, keep_lips: false, keep_blink: false, preset: "happy",
    preset_strength: 0.4, rest: 0.35, turn_reach: 0.7,
  };
  assert.deepEqual(sane(good, EMOTIONS), good);
  assert.equal(sane(good, []).preset, "none", "an emotion that this server does not know");
});

test("the defaults cannot be changed by accident", () => {
  const values = sane(null);
  values.head = 0;
  assert.equal(DEFAULTS.head, 1);
  assert.throws(() => {
    DEFAULTS.head = 0;
  }, TypeError);
});

test("two settings are the same when every value is", () => {
  assert.ok(same({ ...DEFAULTS }, DEFAULTS));
  assert.ok(same(null, null));
  assert.ok(!same(null, DEFAULTS));
  assert.ok(!same(DEFAULTS, null));
  for (const name of Object.keys(DEFAULTS)) assert.ok(!same({ ...DEFAULTS, [name]: "other" }, DEFAULTS), name);
});

test("ready-made settings are told apart and leave emotion, motion and switches alone", () => {
  assert.deepEqual(LOOKS.map((look) => look.title), ["Natural", "Subtle", "Lively", "Head only", "Face only"]);
  const mine = sane({ preset: "happy", motion: "absolute", keep_lips: false, lips: 0.2, region: "lip" }, EMOTIONS);
  for (const look of LOOKS) {
    const values = { ...mine, ...look.values };
    assert.deepEqual(sane(values, EMOTIONS), values, "nothing out of range");
    assert.deepEqual([values.preset, values.motion, values.keep_lips], ["happy", "absolute", false]);
    const pressed = LOOKS.filter((each) => holds(values, each.values)).map((each) => each.title);
    assert.deepEqual(pressed, [look.title]);
  }
  const strengths = (title) => LOOKS.find((look) => look.title === title).values;
  assert.deepEqual([strengths("Subtle").expression, strengths("Subtle").head], [0.6, 0.6]);
  assert.deepEqual([strengths("Lively").expression, strengths("Lively").head], [1.3, 1.3]);
  assert.ok(holds(DEFAULTS, strengths("Natural")));
});

test("a row that cannot have an effect says so", () => {
  const idle = (changes) =>
    rows.filter((each) => each.needs && !each.needs({ ...DEFAULTS, ...changes })).map((each) => each.name);
  const always = ["place_absolutely", "preset_strength"]; // pose is relative, no emotion is chosen
  assert.deepEqual(idle({}).sort(), always);
  assert.deepEqual(idle({ motion: "absolute", preset: "happy" }), []);
  assert.deepEqual(idle({ region: "exp" }).sort(), [...always, "head", "position", "turn_reach"].sort());
  assert.deepEqual(
    idle({ region: "pose" }).sort(),
    [...always, "expression", "lips", "eyes", "brows", "keep_lips", "keep_blink", "gaze"].sort(),
  );
  assert.ok(!idle({ region: "lip" }).includes("keep_lips"));
  assert.ok(!idle({ region: "eyes" }).includes("gaze"));
  assert.ok(idle({ region: "exp" }).includes("head"));
  assert.ok(!idle({ region: "exp", head_from: "recording" }).includes("head"), "a recording moves it");
});

test("a group's defaults are those of its rows", () => {
  const head = GROUPS.find((group) => group.title === "Head");
  assert.deepEqual(defaultsOf(head.rows), { head: 1, turn_reach: 1, position: 1, head_from: "driver" });
});

test("a first call starts with what is saved with the avatar, else as the driver does it", () => {
  assert.deepEqual(startingValues(null, null, EMOTIONS), { ...DEFAULTS });
  assert.deepEqual(startingValues(null, { ...DEFAULTS, head: 0.4 }, EMOTIONS), { ...DEFAULTS, head: 0.4 });
});

test("the visitor's own settings go on, until others were saved with the avatar", () => {
  const mine = { ...DEFAULTS, lips: 0.2 };
  const saved = { ...DEFAULTS, head: 0.4 };
  assert.deepEqual(startingValues({ values: mine, saved: null }, null, EMOTIONS), mine);
  assert.deepEqual(startingValues({ values: mine, saved }, { ...saved }, EMOTIONS), mine);
  // saved elsewhere since
  assert.deepEqual(startingValues({ values: mine, saved: null }, saved, EMOTIONS), saved);
  assert.deepEqual(startingValues({ values: mine, saved: { ...saved, gaze: 0 } }, saved, EMOTIONS), saved);
  // the server lost them
  assert.deepEqual(startingValues({ values: mine, saved }, null, EMOTIONS), mine);
  // what was stored is damaged
  assert.deepEqual(startingValues({ values: 7 }, null, EMOTIONS), { ...DEFAULTS });
});

test("numbers and names as people read them", () => {
  assert.deepEqual([0, 0.05, 1, 1.3, 2].map(percent), ["0 %", "5 %", "100 %", "130 %", "200 %"]);
  assert.deepEqual(EMOTIONS.map(emotionTitle), ["Neutral", "Happy", "Happily surprised"]);
  assert.ok(row("preset_strength").needs({ preset: "happy" }));
});
