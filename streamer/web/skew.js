/**
 * How much later than its sound a picture is seen here, from what really plays. Without a page, so that it can be
 * tested; times are milliseconds on the `performance.now()` clock, and `clock` ones on the server's.
 */

import { SlidingWindow } from "./latency.js";

const SOUND_HZ = 48_000; // Opus' RTP clock, whatever it holds (RFC 7587)
// a packet is told as long as it plays: the earliest of some looks is its beginning
const LOOKS_MS = 1000;
const STALE_MS = 5000;

/** Signed distance in ms of two 32-bit RTP times, the short way around the wrap. */
const betweenMs = (a, b) => (((a - b) | 0) * 1000) / SOUND_HZ;

export class Skew {
  #told = null;
  #first = null;
  #looks = new SlidingWindow(LOOKS_MS);
  #newest = new SlidingWindow(LOOKS_MS);
  #window;

  constructor({ windowMs = 10_000 } = {}) {
    this.#window = new SlidingWindow(windowMs);
  }

  /** The server's `sound` message: which moment the sound of an RTP time is. */
  soundMessage({ rtp, clock_ms: clockMs }, nowMs) {
    if (!Number.isFinite(rtp) || !Number.isFinite(clockMs)) return;
    this.#told = { rtp, clockMs, nowMs };
  }

  /**
   * Sound with this RTP time left the jitter buffer at `atMs`, and is heard `outputMs` later.
   * @param {{rtp: number, atMs: number, outputMs: number}} sound
   */
  soundPlayed({ rtp, atMs, outputMs }) {
    if (!Number.isFinite(rtp) || !Number.isFinite(atMs)) return;
    this.#first ??= rtp;
    this.#looks.add(atMs, atMs - betweenMs(rtp, this.#first) + outputMs);
  }

  /** A picture of the moment `clockMs` is seen at `shownMs`; gives its skew, null where the sound is not known. */
  pictureShown(shownMs, clockMs) {
    const looks = this.#looks.values(shownMs);
    if (!Number.isFinite(clockMs) || this.#told === null || looks.length === 0) return null;
    if (shownMs - this.#told.nowMs > STALE_MS) return null;
    // what is heard while the picture is seen
    const playedMs = shownMs - Math.min(...looks);
    const heardMs = this.#told.clockMs + playedMs - betweenMs(this.#told.rtp, this.#first);
    const skewMs = heardMs - clockMs;
    this.#window.add(shownMs, skewMs);
    this.#newest.add(shownMs, skewMs);
    return skewMs;
  }

  values(nowMs) {
    return this.#window.values(nowMs);
  }

  /** Those of the last second. */
  newest(nowMs) {
    return this.#newest.values(nowMs);
  }

  /** Forget the windows. */
  reset() {
    this.#window.clear();
    this.#newest.clear();
  }

  /** Another call: other RTP times. */
  newCall() {
    this.#told = null;
    this.#first = null;
    this.#looks.clear();
    this.reset();
  }
}
