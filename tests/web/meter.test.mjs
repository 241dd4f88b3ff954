// What the HUD and window.visavis.stats() report.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Meter, segments } from "../../streamer/web/meter.js";

const ORIGIN_MS = 1_700_000_000_000;

/** Plays `frames` frames at 30 fps with a glass-to-glass time of 80 ms; returns the time after the last. */
function play(meter, { frames = 60, offset = 1234, from = 0, captures = true } = {}) {
  let nowMs = 0;
  for (let i = from; i < from + frames; i += 1) {
    const captureMs = 1000 + (i * 1000) / 30;
    nowMs = captureMs + 70;
    const pts = i * 3000;
    meter.cameraFrame(captureMs + 3);
    meter.frameMessage(nowMs, {
      pts,
      capture_ms: captures ? ORIGIN_MS + captureMs : null,
      stage_ms: { decoded: 1, tracked: 6, generated: 15, encoded: 5 },
      dropped: Math.floor(i / 10),
    });
    meter.frameShown(nowMs + 2, {
      presentedFrames: i + 1,
      rtpTimestamp: pts + offset,
      receiveTime: nowMs + 1,
      expectedDisplayTime: captureMs + 80,
    });
  }
  return nowMs + 2;
}

test("a steady call", () => {
  const meter = new Meter({ timeOriginMs: ORIGIN_MS });
  const nowMs = play(meter);
  const snapshot = meter.snapshot(nowMs);
  assert.ok(Math.abs(snapshot.fps - 30) < 0.1, String(snapshot.fps));
  assert.equal(snapshot.glass_to_glass_ms.p50, 80);
  assert.equal(snapshot.glass_to_glass_ms.p99, 80);
  assert.equal(snapshot.glass_to_glass_ms.n, 60);
  assert.deepEqual(snapshot.stage_ms, { decoded: 1, tracked: 6, generated: 15, encoded: 5 });
  assert.equal(snapshot.dropped, 5);
  assert.equal(snapshot.shown, 60);
  assert.equal(snapshot.capture_check_ms, 3);
});

test("a snapshot is plain JSON, before the first frame too", () => {
  const empty = new Meter({ timeOriginMs: ORIGIN_MS }).snapshot(5);
  assert.deepEqual(JSON.parse(JSON.stringify(empty)), {
    fps: 0,
    glass_to_glass_ms: { p50: null, p95: null, p99: null, n: 0 },
    skew_ms: { p50: null, p95: null, p99: null, n: 0 },
    stage_ms: {},
    dropped: 0,
    shown: 0,
    capture_check_ms: null,
  });
});

test("frames without a capture time give no latency sample", () => {
  const meter = new Meter({ timeOriginMs: ORIGIN_MS });
  const nowMs = play(meter, { captures: false });
  assert.equal(meter.snapshot(nowMs).glass_to_glass_ms.n, 0);
  assert.ok(meter.snapshot(nowMs).fps > 29);
});

test("frames that the page was too busy to see are counted as shown", () => {
  const meter = new Meter({ timeOriginMs: ORIGIN_MS });
  meter.frameShown(0, { presentedFrames: 1 });
  meter.frameShown(100, { presentedFrames: 4 });
  assert.equal(meter.shown, 4);
});

test("an overtaken message does not take dropped frames back, not even across the wrap", () => {
  const meter = new Meter({ timeOriginMs: ORIGIN_MS });
  const message = (pts, dropped) => meter.frameMessage(1, { pts, dropped, stage_ms: {}, capture_ms: null });
  message(2 ** 32 - 3000, 7);
  message(0, 9);
  message(2 ** 32 - 6000, 6);
  assert.equal(meter.dropped, 9);
});

test("reset clears the windows and keeps the totals and the constant", () => {
  const meter = new Meter({ timeOriginMs: ORIGIN_MS });
  const nowMs = play(meter);
  meter.reset();
  const cleared = meter.snapshot(nowMs);
  assert.deepEqual([cleared.fps, cleared.glass_to_glass_ms.n, cleared.shown], [0, 0, 60]);
  assert.deepEqual(cleared.stage_ms, {});
  const laterMs = play(meter, { frames: 5, from: 60 });
  assert.equal(meter.snapshot(laterMs).glass_to_glass_ms.n, 5);
});

test("a new call matches a stream with another constant at once", () => {
  const meter = new Meter({ timeOriginMs: ORIGIN_MS });
  play(meter);
  meter.newCall();
  const nowMs = play(meter, { offset: 999_999, frames: 30 });
  assert.equal(meter.snapshot(nowMs).glass_to_glass_ms.n, 30);
  assert.equal(meter.shown, 90);
});

test("the stage bar ends with what the stages do not explain", () => {
  const snapshot = { stage_ms: { tracked: 6, generated: 15, sent: 0 }, glass_to_glass_ms: { p50: 80 } };
  assert.deepEqual(segments(snapshot), [
    { stage: "tracked", ms: 6 },
    { stage: "generated", ms: 15 },
    { stage: "rest", ms: 59 },
  ]);
  assert.equal(segments({ ...snapshot, glass_to_glass_ms: { p50: null } }).length, 2);
  assert.equal(segments({ ...snapshot, glass_to_glass_ms: { p50: 10 } }).length, 2);
});
