// The page's latency arithmetic: percentiles, windows, and which message belongs to which shown frame.
import assert from "node:assert/strict";
import { test } from "node:test";

import {
  FrameMatcher,
  RateWindow,
  SlidingWindow,
  findOffset,
  nearestDistance,
  percentile,
  summary,
} from "../../streamer/web/latency.js";

// a small seeded generator: the same "random" losses and delays on every run
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Plays a stream through a matcher; returns the pairs as [pts of message, index of frame]. */
function play(matcher, { offset, frames = 300, stepMs = 1000 / 30, lossShare = 0, seed = 1, from = 0, roundedTicks = 0 }) {
  const next = random(seed);
  const events = [];
  for (let i = from; i < from + frames; i += 1) {
    const sentMs = 1000 + i * stepMs;
    const pts = Math.round(i * stepMs * 90) % 2 ** 32;
    const rounding = Math.floor(next() * (roundedTicks + 1));
    const rtp = (pts + offset - rounding + 2 ** 32) % 2 ** 32;
    const receivedMs = sentMs + 2 + 6 * next();
    const shownMs = receivedMs + 5 + 20 * next();
    events.push({ atMs: shownMs, run: () => matcher.frame(rtp, shownMs, receivedMs) });
    if (next() < lossShare) continue;
    const arrivedMs = sentMs + 1 + 6 * next();
    events.push({ atMs: arrivedMs, run: () => matcher.message({ pts, sentMs }, arrivedMs) });
  }
  events.sort((a, b) => a.atMs - b.atMs);
  return events.flatMap((event) => event.run());
}

const delays = (pairs) => pairs.map(({ message, shownMs }) => shownMs - message.sentMs);

test("percentile interpolates between the two nearest values", () => {
  assert.equal(percentile([], 0.5), null);
  assert.equal(percentile([7], 0.95), 7);
  assert.equal(percentile([4, 1, 3, 2], 0.5), 2.5);
  assert.equal(percentile([10, 0], 0.25), 2.5);
  assert.equal(percentile([0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100], 0.95), 95);
});

test("percentile sorts numbers as numbers and leaves its input alone", () => {
  const values = [100, 9, 20];
  assert.equal(percentile(values, 0), 9);
  assert.deepEqual(values, [100, 9, 20]);
});

test("summary says how many samples it rests on", () => {
  assert.deepEqual(summary([]), { p50: null, p95: null, p99: null, n: 0 });
  assert.deepEqual(summary([1.04, 1.04]), { p50: 1, p95: 1, p99: 1, n: 2 });
});

test("a window forgets what is older than its span", () => {
  const window = new SlidingWindow(1000);
  window.add(0, "a");
  window.add(600, "b");
  assert.deepEqual(window.values(1000), ["a", "b"]);
  assert.deepEqual(window.values(1001), ["b"]);
  assert.deepEqual(window.values(5000), []);
  window.add(5001, "c");
  window.clear();
  assert.deepEqual(window.values(5001), []);
});

test("a rate counts a stall at the end of the window", () => {
  const rate = new RateWindow(10_000);
  for (let i = 0; i <= 60; i += 1) rate.add((i * 1000) / 30);
  assert.ok(Math.abs(rate.perSecond(2000) - 30) < 0.01);
  assert.ok(Math.abs(rate.perSecond(4000) - 15) < 0.01);
  assert.equal(rate.perSecond(60_000), 0);
});

test("a rate counts frames that the page had no time to look at", () => {
  const rate = new RateWindow(10_000);
  for (let i = 0; i <= 15; i += 1) rate.add((i * 2000) / 30, 2);
  assert.ok(Math.abs(rate.perSecond(1000) - 30) < 0.01);
});

test("nearestDistance", () => {
  assert.equal(nearestDistance([], 3), null);
  assert.equal(nearestDistance([10, 4, -2], 5), 1);
});

test("findOffset needs enough votes", () => {
  const frames = [1, 2, 3].map((i) => ({ rtp: i * 3000 + 5, receivedMs: i * 33 }));
  const messages = [1, 2, 3].map((i) => ({ pts: i * 3000, arrivedMs: i * 33 }));
  assert.equal(findOffset(frames, messages), null);
  assert.equal(findOffset(frames, messages, { minVotes: 3 }), 5);
});

test("findOffset finds nothing where nothing fits", () => {
  const next = random(3);
  const odd = () => Math.floor(next() * 2 ** 32);
  const frames = Array.from({ length: 60 }, (_, i) => ({ rtp: odd(), receivedMs: i * 33 }));
  const messages = Array.from({ length: 60 }, (_, i) => ({ pts: odd(), arrivedMs: i * 33 }));
  assert.equal(findOffset(frames, messages), null);
});

for (const offset of [0, 5, 123_456_789, 2 ** 31, 2 ** 32 - 5, 2 ** 32 - 1_000_000]) {
  test(`an even stream with the constant ${offset} is matched exactly`, () => {
    const matcher = new FrameMatcher();
    const pairs = play(matcher, { offset, frames: 200, stepMs: 100 / 3 });
    assert.equal(matcher.offset, offset);
    assert.ok(pairs.length >= 195, `${pairs.length} pairs`);
    const all = delays(pairs);
    assert.ok(Math.min(...all) > 0 && Math.max(...all) < 33, `${Math.min(...all)}..${Math.max(...all)}`);
  });
}

for (const offset of [0, 1_000_000_007]) {
  test(`timestamps that a browser rounds by a tick still match every frame (constant ${offset})`, () => {
    const matcher = new FrameMatcher();
    const pairs = play(matcher, { offset, frames: 200, stepMs: 100 / 3, roundedTicks: 1 });
    assert.ok(Math.abs((matcher.offset - offset) | 0) <= 1, String(matcher.offset));
    assert.ok(pairs.length >= 195, `${pairs.length} pairs`);
    assert.ok(Math.max(...delays(pairs)) < 33);
  });
}

test("pts that wrap around 2^32 go on matching", () => {
  const matcher = new FrameMatcher();
  const startIndex = Math.floor(2 ** 32 / 3000) - 100;
  const pairs = play(matcher, { offset: 77, frames: 300, stepMs: 100 / 3, from: startIndex });
  assert.ok(pairs.length >= 290, `${pairs.length} pairs`);
});

test("a fifth of the messages may be lost", () => {
  const matcher = new FrameMatcher();
  const pairs = play(matcher, { offset: 987_654, frames: 300, lossShare: 0.2, seed: 5 });
  assert.equal(matcher.offset, 987_654);
  assert.ok(pairs.length > 200 && pairs.length < 260, `${pairs.length} pairs`);
  assert.ok(Math.max(...delays(pairs)) < 40);
});

test("messages may come long after their frames were shown", () => {
  const matcher = new FrameMatcher();
  // an uneven frame rate tells its neighbours apart, so the late arrival cannot mislead
  const pairs = [];
  const next = random(11);
  const events = [];
  let sentMs = 0;
  for (let i = 0; i < 200; i += 1) {
    sentMs += 25 + Math.floor(16 * next());
    const pts = sentMs * 90;
    const at = sentMs;
    events.push({ atMs: at + 10, run: () => matcher.frame(pts + 42, at + 10, at + 4) });
    events.push({ atMs: at + 120, run: () => matcher.message({ pts, sentMs: at }, at + 120) });
  }
  for (const event of events.sort((a, b) => a.atMs - b.atMs)) pairs.push(...event.run());
  assert.equal(matcher.offset, 42);
  assert.ok(pairs.length > 180, `${pairs.length} pairs`);
  assert.deepEqual(new Set(delays(pairs)), new Set([10]));
});

test("a stream that starts anew with another constant is found again", () => {
  const matcher = new FrameMatcher();
  play(matcher, { offset: 500, frames: 120 });
  assert.equal(matcher.offset, 500);
  play(matcher, { offset: 900_000, frames: 200, from: 1000 });
  assert.equal(matcher.offset, 900_000);
});

test("reset forgets the constant", () => {
  const matcher = new FrameMatcher();
  play(matcher, { offset: 500, frames: 60 });
  matcher.reset();
  assert.equal(matcher.offset, null);
  assert.deepEqual(matcher.frame(500, 1, 1), []);
});

test("a matcher does not grow with the call", () => {
  const matcher = new FrameMatcher({ capacity: 300 });
  for (let i = 0; i < 5000; i += 1) matcher.message({ pts: i * 3000 }, i * 33);
  // one of the oldest messages has gone, one of the newest is still there
  for (let i = 4900; i < 5000; i += 1) matcher.frame(i * 3000, i * 33 + 5, i * 33 + 2);
  assert.equal(matcher.offset, 0);
  assert.deepEqual(matcher.frame(10 * 3000, 10 * 33, 10 * 33), []);
});
