/** Whether far fewer pictures arrive than were asked for, and what helps. Without a page, so that it can be tested. */

const FAR_BELOW = 0.6;
const WELL_AGAIN = 0.75;
const FOR_MS = 6000;
// a camera that gives few pictures in the dark is not slow: only what was dropped on the way is
const DROPPED_PER_S = 3;
const ASKED_FPS = { webcam: 30, demo: 30, voice: 25 };
const DROPPED_OVER_MS = 5000;

export const SMALL_PX = 256;

export class Pace {
  /** Has it been slow for some seconds? */
  isSlow = false;
  #belowSinceMs = null;
  #dropped = [];

  /**
   * Takes one look at the statistics.
   * @param {{fps: number, dropped: number, drive: string, counts: boolean}} seen `dropped`: so far; `counts`: false
   *   while nothing can be told (no call yet, a hidden page, no face)
   */
  look(nowMs, { fps, dropped, drive, counts }) {
    if (!counts) {
      this.isSlow = false;
      this.#belowSinceMs = null;
      this.#dropped = [];
      return;
    }
    this.#dropped.push({ nowMs, dropped });
    while (this.#dropped[0].nowMs < nowMs - DROPPED_OVER_MS) this.#dropped.shift();
    const asked = ASKED_FPS[drive];
    if (fps >= WELL_AGAIN * asked) this.isSlow = false;
    if (fps >= FAR_BELOW * asked || (drive === "webcam" && this.#droppedPerS() < DROPPED_PER_S)) {
      this.#belowSinceMs = null;
      return;
    }
    this.#belowSinceMs ??= nowMs;
    if (nowMs - this.#belowSinceMs >= FOR_MS) this.isSlow = true;
  }

  #droppedPerS() {
    const [first, last] = [this.#dropped[0], this.#dropped.at(-1)];
    return last.nowMs > first.nowMs ? (1000 * (last.dropped - first.dropped)) / (last.nowMs - first.nowMs) : 0;
  }
}

/**
 * What to say of it.
 * @param {{fps: number, drive: string, isHere: boolean, generator: string | null, generators: string[], sizePx: number,
 *   aspect: string | undefined}} now `isHere`: the server runs on this computer
 */
export function slowWords({ fps, drive, isHere, generator, generators, sizePx, aspect }) {
  const helps = [];
  if (generator && generator !== "geometric" && generators.includes("geometric")) {
    helps.push("the generator “geometric” (under Developer)");
  }
  if (sizePx > SMALL_PX) helps.push("a smaller picture");
  if (aspect === "16:9") helps.push("the square shape");
  helps.push(isHere ? "closing other tabs with an avatar and other programs" : "fewer calls at once on the server");
  const who = isHere ? "this computer is too slow for it" : "the server, or the way to it, is too slow";
  const list = helps.length > 1 ? `${helps.slice(0, -1).join(", ")} or ${helps.at(-1)}` : helps[0];
  return `Only ${Math.round(fps)} of ${ASKED_FPS[drive]} pictures a second arrive: ${who}. What helps: ${list}.`;
}

/** Whether an address's host is this computer. */
export const isThisComputer = (hostname) => /^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname);

const TOPIC = "pace";

/** Says beside the avatar that it is slow, and takes it back when it is not any more. */
export class SlowNotice {
  #pace = new Pace();
  #notices;
  #makeSmaller;

  /** @param {{notices: Notices, makeSmaller: () => void}} parts */
  constructor({ notices, makeSmaller }) {
    this.#notices = notices;
    this.#makeSmaller = makeSmaller;
  }

  /** Takes one look: what `Pace.look` and `slowWords` want to know. */
  draw(seen) {
    const wasSlow = this.#pace.isSlow;
    this.#pace.look(performance.now(), seen);
    if (this.#pace.isSlow === wasSlow) return;
    if (wasSlow) {
      this.#notices.end(TOPIC);
      return;
    }
    const action =
      seen.sizePx > SMALL_PX ? { label: "Make the picture smaller", go: () => this.#makeSmaller() } : undefined;
    const words = slowWords({ ...seen, isHere: isThisComputer(location.hostname) });
    this.#notices.show(words, "info", { topic: TOPIC, action });
  }
}
