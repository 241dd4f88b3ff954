// How much later than its sound a picture is seen, of what the browser says of both.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Skew } from "../../streamer/web/skew.js";

const RTP = 2 ** 32 - 96_000; // wraps two seconds into the call
const CLOCK_MS = 5_000_000;

/** Three seconds: sound is heard `soundMs` after its capture, pictures are seen `pictureMs` after theirs. */
function played(skew, { soundMs, pictureMs, outputMs = 0, told = true }) {
  const found = [];
  for (let ms = 0; ms < 3000; ms += 10) {
    const packetMs = Math.floor(ms / 20) * 20; // of the packet that plays
    const rtp = (RTP + packetMs * 48) % 2 ** 32;
    if (told && ms % 500 === 0) skew.soundMessage({ rtp, clock_ms: CLOCK_MS + packetMs }, ms);
    skew.soundPlayed({ rtp, atMs: ms + soundMs - outputMs, outputMs });
    if (ms % 40 === 0) found.push(skew.pictureShown(ms + pictureMs, CLOCK_MS + ms));
  }
  return found.filter((value) => value !== null);
}

for (const [soundMs, pictureMs] of [[80, 80], [60, 130], [150, 70]]) {
  test(`sound after ${soundMs} ms, pictures after ${pictureMs} ms`, () => {
    const skew = new Skew();
    const found = played(skew, { soundMs, pictureMs });
    assert.ok(found.length > 50, String(found.length));
    for (const value of found) assert.ok(Math.abs(value - (pictureMs - soundMs)) < 0.01, String(value));
    assert.equal(skew.values(3000 + pictureMs).length, found.length);
    assert.ok(skew.newest(3000 + pictureMs).length < found.length / 2);
  });
}

test("sound that waits in the output is heard later", () => {
  const found = played(new Skew(), { soundMs: 90, pictureMs: 90, outputMs: 30 });
  for (const value of found) assert.ok(Math.abs(value) < 0.01, String(value));
});

test("without the server's word, or without sound, nothing is known", () => {
  assert.deepEqual(played(new Skew(), { soundMs: 80, pictureMs: 80, told: false }), []);
  const silent = new Skew();
  silent.soundMessage({ rtp: 1, clock_ms: 1 }, 0);
  assert.equal(silent.pictureShown(50, 1), null);
});

test("what was told long ago is not believed, and a new call knows nothing of the old one", () => {
  const skew = new Skew();
  skew.soundMessage({ rtp: 48_000, clock_ms: 1000 }, 0);
  skew.soundPlayed({ rtp: 48_000, atMs: 9000, outputMs: 0 });
  assert.equal(skew.pictureShown(9000, 10_000), null);
  skew.soundMessage({ rtp: 48_000, clock_ms: 1000 }, 9000);
  assert.equal(skew.pictureShown(9000, 1000), 0);
  skew.newCall();
  assert.equal(skew.pictureShown(9000, 1000), null);
  assert.deepEqual(skew.values(9000), []);
});

test("a picture that says no moment has no skew", () => {
  const skew = new Skew();
  skew.soundMessage({ rtp: 0, clock_ms: 0 }, 0);
  skew.soundPlayed({ rtp: 0, atMs: 0, outputMs: 0 });
  assert.equal(skew.pictureShown(0, null), null);
  assert.equal(skew.pictureShown(0, undefined), null);
});
