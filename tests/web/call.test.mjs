// A call that changes while it runs: what may be asked of it, and what the page knows of it.
import assert from "node:assert/strict";
import { test } from "node:test";

import { KeptNeutral } from "../../streamer/web/kept_neutral.js";
import { soundWaitsMs } from "../../streamer/web/sound_waits.js";
import { Wishes, changesBetween } from "../../streamer/web/wishes.js";

const WISH = { avatar: "a", generator: undefined, tracker: undefined, sizePx: 512, mode: "avatar", drive: "webcam", voice_helps: true, trim_ms: 0, camera: null };

test("what differs is asked for, and what is left out again is null", () => {
  assert.deepEqual(changesBetween(WISH, { ...WISH }), {});
  assert.deepEqual(changesBetween(WISH, { ...WISH, avatar: "b", background: "blur" }), { avatar: "b", background: "blur" });
  assert.deepEqual(changesBetween({ ...WISH, background: "blur", aspect: "16:9" }, WISH), { background: null, aspect: null });
  assert.deepEqual(changesBetween(WISH, { ...WISH, voice_helps: false, trim_ms: -5 }), { voice_helps: false, trim_ms: -5 });
  assert.deepEqual(changesBetween({ ...WISH, generator: null }, WISH), {}, "null and left out are the same");
});

test("another tracker, size, mode, drive or camera is another call", () => {
  for (const other of [{ tracker: "regressor" }, { sizePx: 256 }, { mode: "echo" }, { drive: "voice" }, { camera: {} }]) {
    assert.equal(changesBetween(WISH, { ...WISH, avatar: "b", ...other }), null, JSON.stringify(other));
  }
});

test("what was taken counts before it is shown, so that nothing is asked twice", () => {
  const wishes = new Wishes(WISH);
  wishes.take(1, { background: "blur" });
  wishes.take(2, { avatar: "b" });
  assert.deepEqual(changesBetween(wishes.accepted, { ...WISH, background: "blur", avatar: "b" }), {});
  wishes.show(0);
  wishes.show(1);
  assert.equal(wishes.accepted.avatar, "b");
  wishes.show(2);
  assert.equal(wishes.accepted.background, "blur");
});

test("what could not be made is taken back, and what was shown before stays", () => {
  const wishes = new Wishes(WISH);
  wishes.take(1, { background: "blur" });
  wishes.take(2, { avatar: "broken", voice_helps: false });
  assert.equal(wishes.refuse(2, 1), true);
  assert.equal(wishes.refuse(2, 1), false, "it is said more than once");
  assert.deepEqual(wishes.accepted, { ...WISH, background: "blur", voice_helps: false }, "the sound was never refused");
});

test("a change that was overtaken by one that could not be made is gone too", () => {
  const wishes = new Wishes(WISH);
  wishes.take(1, { background: "blur" });
  wishes.take(2, { avatar: "broken" });
  wishes.refuse(2, 0);
  assert.equal(wishes.accepted.background ?? null, null);
  wishes.take(3, { aspect: "16:9" });
  wishes.show(3);
  assert.equal(wishes.accepted.aspect, "16:9");
});

test("what was asked after a refusal on its way is kept", () => {
  const wishes = new Wishes(WISH);
  wishes.take(1, { avatar: "broken" });
  wishes.take(2, { aspect: "16:9" });
  wishes.refuse(1, 0);
  assert.deepEqual([wishes.accepted.avatar, wishes.accepted.aspect], ["a", "16:9"]);
});

test("an avatar that was renamed is not asked for again, nor by its old name", () => {
  const wishes = new Wishes(WISH);
  wishes.take(1, { avatar: "b" });
  wishes.take(2, { avatar: "broken" });
  wishes.renamed("b", "ada");
  assert.equal(wishes.refuse(2, 1), true);
  assert.equal(wishes.accepted.avatar, "ada");
  wishes.renamed("ada", "eve");
  assert.deepEqual(changesBetween(wishes.accepted, { ...WISH, avatar: "eve" }), {});
});

const stream = (deviceId) => ({ getVideoTracks: () => [{ getSettings: () => ({ deviceId }) }] });
const silent = { getVideoTracks: () => [] };

test("a calm face is kept for its own camera, and forgotten when it is to be taken anew", () => {
  const kept = new Map();
  const neutral = new KeptNeutral({ read: (key) => kept.get(key) ?? null, write: (key, value) => kept.set(key, value) });
  assert.equal(neutral.of(stream("one")), undefined);
  neutral.heard({ state: "waiting", kept: null }, stream("one"));
  assert.equal(neutral.of(stream("one")), undefined);
  neutral.heard({ kept: "AAAA" }, stream("one"));
  assert.equal(neutral.of(stream("one")), "AAAA");
  assert.equal(neutral.of(stream("two")), undefined, "another camera sees another face");
  assert.equal(neutral.of(silent), undefined);
  assert.equal(neutral.of(null), undefined);
  for (const nonsense of [{ kept: 7 }, { kept: "x".repeat(5000) }, {}]) neutral.heard(nonsense, stream("one"));
  assert.equal(neutral.of(stream("one")), "AAAA");
  neutral.forget();
  assert.equal(neutral.of(stream("one")), undefined);
});

test("what sound waits is told as far as the server can make up for it", () => {
  assert.equal(soundWaitsMs({ audio: 60.4, playout: 20, video: 30 }), 50);
  assert.equal(soundWaitsMs({ audio: 60, video: 30 }), 30);
  assert.equal(soundWaitsMs({ audio: 20, video: 5000 }), -1000, "a computer that is far too busy");
  assert.equal(soundWaitsMs({ audio: 5000, video: 0 }), 1000);
  assert.equal(soundWaitsMs({ audio: 20 }), null);
  assert.equal(soundWaitsMs({}), null);
});
