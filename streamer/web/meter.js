/**
 * The call's numbers: takes shown frames, server messages and camera times, gives the HUD's summary.
 * Without a page, so that it can be tested; all times are milliseconds on the `performance.now()` clock,
 * and `timeOriginMs` turns them into wall clock.
 */

import { FrameMatcher, RateWindow, SlidingWindow, median, nearestDistance, summary, tenth } from "./latency.js";
import { Skew } from "./skew.js";

const CAMERA_TIMES_KEPT = 120;
// the preview may show a frame later than the server answers about it
const CAPTURE_CHECK_DELAY_MS = 500;

export class Meter {
  /** Frames shown since the page started; survives `reset` and reconnects. */
  shown = 0;
  dropped = 0;
  roundTripMs = null;
  #matcher = new FrameMatcher();
  #rate;
  #glassMs;
  #captureErrorMs;
  #stagesMs = new Map();
  #cameraMs = [];
  #unchecked = [];
  #presented = null;
  #newestPts = null;
  #skew;

  constructor({ timeOriginMs, windowMs = 10_000 }) {
    this.timeOriginMs = timeOriginMs;
    this.windowMs = windowMs;
    this.#rate = new RateWindow(windowMs);
    this.#glassMs = new SlidingWindow(windowMs);
    this.#captureErrorMs = new SlidingWindow(windowMs);
    this.#skew = new Skew({ windowMs });
  }

  /**
   * A frame was put on screen; `metadata` is that of requestVideoFrameCallback. The callback skips frames
   * while the page is busy, so `presentedFrames` does the counting.
   */
  frameShown(nowMs, metadata) {
    const step = this.#presented === null ? 1 : metadata.presentedFrames - this.#presented;
    const count = Number.isFinite(step) && step > 0 ? step : 1;
    this.#presented = metadata.presentedFrames ?? null;
    this.shown += count;
    this.#rate.add(nowMs, count);
    if (metadata.rtpTimestamp === undefined) return;
    const shownMs = metadata.expectedDisplayTime ?? metadata.presentationTime ?? nowMs;
    this.#record(nowMs, this.#matcher.frame(metadata.rtpTimestamp, shownMs, metadata.receiveTime ?? shownMs));
  }

  /** A `frame` message of the data channel arrived. */
  frameMessage(nowMs, message) {
    // messages may overtake each other: only the newest frame's running total counts
    if (this.#newestPts === null || ((message.pts - this.#newestPts) | 0) > 0) {
      this.#newestPts = message.pts;
      this.dropped = message.dropped ?? this.dropped;
    }
    for (const [stage, ms] of Object.entries(message.stage_ms ?? {})) {
      if (!Number.isFinite(ms)) continue;
      if (!this.#stagesMs.has(stage)) this.#stagesMs.set(stage, new SlidingWindow(this.windowMs));
      this.#stagesMs.get(stage).add(nowMs, ms);
    }
    if (Number.isFinite(message.capture_ms)) this.#unchecked.push({ nowMs, captureMs: message.capture_ms });
    this.#checkCaptures(nowMs);
    this.#record(nowMs, this.#matcher.message(message, nowMs));
  }

  /** A `sound` message of the data channel arrived. */
  soundMessage(nowMs, message) {
    this.#skew.soundMessage(message, nowMs);
  }

  /** What plays now of the sound, as `Call.soundPlaying` says it. */
  soundPlayed(sound) {
    if (sound) this.#skew.soundPlayed(sound);
  }

  /** The median of the last moments, null of none. */
  skewMs(nowMs) {
    return tenth(median(this.#skew.newest(nowMs)));
  }

  /** The own camera captured a frame at `captureMs` (performance clock). */
  cameraFrame(captureMs) {
    this.#cameraMs.push(captureMs + this.timeOriginMs);
    if (this.#cameraMs.length > CAMERA_TIMES_KEPT) this.#cameraMs.shift();
  }

  /** Another call begins: nothing of the old stream can be matched with the new one. */
  newCall() {
    this.#matcher.reset();
    this.#presented = null;
    this.#newestPts = null;
    this.dropped = 0;
    this.roundTripMs = null;
    this.#cameraMs = [];
    this.#unchecked = [];
    this.#skew.newCall();
    this.reset();
  }

  /** Forget the windows; running totals stay. */
  reset() {
    this.#rate.clear();
    this.#glassMs.clear();
    this.#captureErrorMs.clear();
    this.#stagesMs.clear();
    this.#skew.reset();
  }

  /** What the HUD shows. Stages keep the server's order, which is the order a frame passes them. */
  snapshot(nowMs) {
    const stages = [...this.#stagesMs].map(([stage, window]) => [stage, tenth(median(window.values(nowMs)))]);
    return {
      fps: tenth(this.#rate.perSecond(nowMs)),
      glass_to_glass_ms: summary(this.#glassMs.values(nowMs)),
      skew_ms: summary(this.#skew.values(nowMs)),
      stage_ms: Object.fromEntries(stages.filter(([, ms]) => ms !== null)),
      dropped: this.dropped,
      shown: this.shown,
      capture_check_ms: tenth(median(this.#captureErrorMs.values(nowMs))),
    };
  }

  #checkCaptures(nowMs) {
    while (this.#unchecked.length && this.#unchecked[0].nowMs < nowMs - CAPTURE_CHECK_DELAY_MS) {
      const { captureMs } = this.#unchecked.shift();
      const distanceMs = nearestDistance(this.#cameraMs, captureMs);
      if (distanceMs !== null) this.#captureErrorMs.add(nowMs, distanceMs);
    }
  }

  #record(nowMs, pairs) {
    for (const { message, shownMs } of pairs) {
      this.#skew.pictureShown(shownMs, message.clock_ms);
      if (!Number.isFinite(message.capture_ms)) continue;
      this.#glassMs.add(nowMs, this.timeOriginMs + shownMs - message.capture_ms);
    }
  }
}

/**
 * The stage bar's segments: the server's stages and, when the whole way is known, what is left of it.
 * @returns {{stage: string, ms: number}[]}
 */
export function segments(snapshot) {
  const parts = Object.entries(snapshot.stage_ms).map(([stage, ms]) => ({ stage, ms }));
  const known = parts.reduce((sum, part) => sum + part.ms, 0);
  const wholeMs = snapshot.glass_to_glass_ms.p50;
  if (wholeMs !== null && wholeMs > known) parts.push({ stage: "rest", ms: tenth(wholeMs - known) });
  return parts.filter((part) => part.ms > 0);
}
