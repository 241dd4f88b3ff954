/** The driver's calm face, which all movement is measured from: what the server says of it, in words. */

/** What is not calm, as the server names it. */
const DISTURBS = {
  talking: "you are talking",
  mouth_open: "your mouth is open",
  smiling: "you are smiling",
  eyes_shut: "your eyes are shut",
  brows_up: "your brows are raised",
  turned: "you are not looking straight ahead",
  looking_down: "you are looking down",
  moving: "you are moving",
  cut_off: "your face is not all in the picture",
  new_person: "somebody else is here",
};
const MOST_NAMED = 2;

/**
 * @typedef {{state: "waiting" | "taken", why: string[], revision: number}} Report as in the server's "neutral" message
 */

/** A message made safe: null for one that says nothing. @returns {Report | null} */
export function reportOf({ state, why, revision }) {
  if (state !== "waiting" && state !== "taken") return null;
  return { state, why: Array.isArray(why) ? why : [], revision: Number.isInteger(revision) ? revision : 0 };
}

/** For the status line while the calm face is looked for; null once it is taken. */
export function neutralStatus(report) {
  if (report?.state !== "waiting") return null;
  const known = report.why.filter((each) => Object.hasOwn(DISTURBS, each)).map((each) => DISTURBS[each]);
  if (known.length === 0) return "Hold still: taking your calm face";
  return `Looking for your calm face: ${known.slice(0, MOST_NAMED).join(" and ")}`;
}

/**
 * The short word for what is new since `before` (null: the call has just begun), or null.
 * @param {Report | null} before
 * @param {Report} report
 */
export function neutralNews(before, report) {
  if (before === null || report.state !== "taken" || report.revision < before.revision) return null;
  if (before.state === "waiting") return "Your calm face is taken.";
  return report.revision > before.revision ? "Your calm face is corrected: the first one was not calm." : null;
}

const TOPIC = "neutral";
const NEWS_STAYS_MS = 4000;

/** Follows the calm face of one call after the other and says so beside the avatar. */
export class CalmFace {
  /** @type {Report | null} */
  report = null;
  #notices;
  #state = null;

  /** @param {Notices} notices */
  constructor(notices) {
    this.#notices = notices;
  }

  /** A call begins. */
  begin() {
    this.report = this.#state = null;
    this.#notices.end(TOPIC);
  }

  /** The visitor wants it taken anew. */
  ask() {
    this.#notices.show("Look straight ahead with a calm face.", "info", { topic: TOPIC });
  }

  /** The server's "neutral" message. */
  heard(message) {
    const report = reportOf(message);
    if (report === null) return;
    const news = neutralNews(this.report, report);
    this.report = report;
    if (news) this.#notices.show(news, "info", { topic: TOPIC, staysMs: NEWS_STAYS_MS });
  }

  /** The state in a "frame" message: what was asked for is done when it calibrates no longer. */
  frame(state) {
    const done = this.#state === "calibrating" && state !== "calibrating";
    // a server that says more ends it with its own word
    if (done && this.report === null) this.#notices.end(TOPIC);
    this.#state = state;
  }
}
