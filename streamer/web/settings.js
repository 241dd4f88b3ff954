/**
 * What a visitor may change about the avatar's movement, as data: names, ranges, groups, ready-made settings.
 * The fields and their defaults are the server's (`engines.retarget.Controls`); nothing here touches the page.
 */

export const STRENGTH = { min: 0, max: 2, step: 0.05 };
/** A share has the same steps, but there is no more than all of it. */
export const SHARE = { ...STRENGTH, max: 1 };

export const DEFAULTS = Object.freeze({
  expression: 1,
  lips: 1,
  eyes: 1,
  brows: 1,
  gaze: 1,
  head: 1,
  position: 1,
  region: "all",
  head_from: "driver",
  motion: "relative",
  place_absolutely: false,
  keep_lips: true,
  keep_blink: true,
  preset: "none",
  preset_strength: 1,
  rest: 1,
  turn_reach: 1,
});

/** Choices: value → [label, what it means]. The emotions are the server's to name. */
export const CHOICES = {
  motion: {
    relative: ["Relative", "Your movement is added to the pose in the photo."],
    absolute: ["Absolute", "The avatar takes your exact pose and expression."],
  },
  region: {
    all: ["All", "Everything that you do gets through."],
    exp: ["Face", "Only your face and gaze move the avatar; its head stays."],
    pose: ["Head", "Only your head moves the avatar; its face stays."],
    lip: ["Lips", "Only your lips move the avatar."],
    eyes: ["Eyes", "Only your eyes move the avatar."],
  },
  head_from: {
    driver: ["You", "The avatar's head moves as yours does."],
    recording: ["Recorded", "A recorded motion moves the head; your face and gaze stay yours."],
  },
};

/** What of the driver each region lets through, as in `engines.retarget`. */
const LETS_THROUGH = {
  all: ["lips", "eyes", "brows", "gaze", "head", "position"],
  exp: ["lips", "eyes", "brows", "gaze"],
  pose: ["head", "position"],
  lip: ["lips"],
  eyes: ["eyes", "gaze"],
};
const lets = (...parts) => (values) => parts.some((part) => LETS_THROUGH[values.region].includes(part));
const movesHead = (part) => (values) => values.head_from === "recording" || lets(part)(values);

/**
 * The panel, top to bottom. `needs` says whether a setting can have an effect with the values given.
 * @type {{id: string, title: string, rows: {name: string, kind: string, label: string, title?: string,
 *   range?: typeof STRENGTH, needs?: (values: typeof DEFAULTS) => boolean}[]}[]}
 */
export const GROUPS = [
  {
    id: "expression-group",
    title: "Expression",
    rows: [
      {
        name: "expression",
        kind: "slider",
        label: "All",
        title: "Strength of the whole expression: multiplies lips, eyes and brows",
        needs: lets("lips", "eyes", "brows"),
      },
      {
        name: "rest",
        kind: "slider",
        label: "At rest",
        title: "What the face rests in: 0 % neutral, 100 % the photo's own expression",
        range: SHARE,
      },
      { name: "lips", kind: "slider", label: "Lips", title: "Strength of lips and jaw", needs: lets("lips") },
      { name: "eyes", kind: "slider", label: "Eyes", title: "Strength of the eyelids", needs: lets("eyes") },
      { name: "brows", kind: "slider", label: "Brows", title: "Strength of the brows", needs: lets("brows") },
      {
        name: "keep_lips",
        kind: "toggle",
        label: "Keep closed lips closed",
        title: "When your lips meet, so do the avatar's, whatever the strengths",
        needs: lets("lips"),
      },
      {
        name: "keep_blink",
        kind: "toggle",
        label: "Keep blinks complete",
        title: "When you blink, so does the avatar, whatever the strengths",
        needs: lets("eyes"),
      },
    ],
  },
  {
    id: "gaze-group",
    title: "Gaze",
    rows: [
      {
        name: "gaze",
        kind: "slider",
        label: "Direction",
        title: "Strength of where the eyes look",
        needs: lets("gaze"),
      },
    ],
  },
  {
    id: "head-group",
    title: "Head",
    rows: [
      {
        name: "head",
        kind: "slider",
        label: "Rotation",
        title: "Strength of the head's turning",
        needs: movesHead("head"),
      },
      {
        name: "turn_reach",
        kind: "slider",
        label: "Furthest",
        title: "How far the head may turn: 100 % as far as the photo bears",
        range: SHARE,
        needs: movesHead("head"),
      },
      {
        name: "position",
        kind: "slider",
        label: "Position",
        title: "Strength of the head's moving about",
        needs: movesHead("position"),
      },
      { name: "head_from", kind: "switch", label: "Follows" },
    ],
  },
  {
    id: "emotion-group",
    title: "Emotion",
    rows: [
      { name: "preset", kind: "select", label: "Show" },
      {
        name: "preset_strength",
        kind: "slider",
        label: "Strength",
        title: "Strength of the emotion; from 100 % on nothing of the photo's own expression is left",
        needs: (values) => values.preset !== "none",
      },
    ],
  },
  {
    id: "motion-group",
    title: "Motion",
    rows: [
      { name: "motion", kind: "switch", label: "Pose" },
      {
        name: "place_absolutely",
        kind: "toggle",
        label: "Take the place in the picture too",
        needs: (values) => values.motion === "absolute",
      },
      { name: "region", kind: "switch", label: "Region" },
    ],
  },
];

const RANGES = Object.fromEntries(
  GROUPS.flatMap((group) => group.rows)
    .filter((row) => row.kind === "slider")
    .map((row) => [row.name, row.range ?? STRENGTH]),
);

/** Ready-made settings. They decide the driver's strengths and the region, and leave everything else alone. */
const plain = Object.fromEntries(
  ["expression", "lips", "eyes", "brows", "gaze", "head", "position", "region"].map((name) => [name, DEFAULTS[name]]),
);
const scaled = (strength) => ({ ...plain, expression: strength, head: strength, position: strength });
export const LOOKS = [
  { title: "Natural", values: plain },
  { title: "Subtle", values: scaled(0.6) },
  { title: "Lively", values: scaled(1.3) },
  { title: "Head only", values: { ...plain, region: "pose" } },
  { title: "Face only", values: { ...plain, region: "exp" } },
];

/** Do all of `part`'s settings have these values already? */
export const holds = (values, part) => Object.keys(part).every((name) => values[name] === part[name]);

/** Are two whole settings (or none) the same? */
export const same = (a, b) => a === b || (Boolean(a && b) && Object.keys(DEFAULTS).every((name) => a[name] === b[name]));

export const isDefault = (values, name) => values[name] === DEFAULTS[name];

/** The default values of the settings in `rows`. */
export const defaultsOf = (rows) => Object.fromEntries(rows.map(({ name }) => [name, DEFAULTS[name]]));

/** "80 %", as shown and as said. */
export const percent = (strength) => `${Math.round(strength * 100)} %`;

/** "happily_surprised" → "Happily surprised". */
export function emotionTitle(name) {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** Stored or received settings made safe: whatever is missing or out of range becomes the default. */
export function sane(stored, emotions = []) {
  const given = stored ?? {};
  const values = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS)) {
    const value = Object.hasOwn(given, name) ? given[name] : undefined;
    if (name in RANGES) {
      const { min, max } = RANGES[name];
      if (Number.isFinite(value) && value >= min && value <= max) values[name] = value;
    } else if (name in CHOICES) {
      if (typeof value === "string" && Object.hasOwn(CHOICES[name], value)) values[name] = value;
    } else if (name === "preset") {
      if (emotions.includes(value)) values[name] = value;
    } else if (typeof value === "boolean") {
      values[name] = value;
    }
  }
  return values;
}

/**
 * Which settings a call starts with. The visitor's own, kept by this browser, win over those saved with the
 * avatar as long as they were made on top of them; once others were saved (elsewhere, say), those win.
 * @param {{values: object, saved: object | null} | null} kept what this browser remembers of the avatar
 * @param {object | null} saved what the server has saved with the avatar
 */
export function startingValues(kept, saved, emotions) {
  const known = saved && sane(saved, emotions);
  if (kept && (!known || same(kept.saved && sane(kept.saved, emotions), known))) return sane(kept.values, emotions);
  return known ?? { ...DEFAULTS };
}
