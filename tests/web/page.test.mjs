// The page's other decisions that need no page: its address, the retries, the status line.
import assert from "node:assert/strict";
import { test } from "node:test";

import { bareAddress, parseAddress, withoutToken } from "../../streamer/web/address.js";
import { backoffS } from "../../streamer/web/call.js";
import { preferVp8 } from "../../streamer/web/peer.js";
import { objection } from "../../streamer/web/enroll.js";
import { askedLook, saneLook } from "../../streamer/web/look.js";
import { statusOf } from "../../streamer/web/status.js";

test("an empty address starts the demo on the server's default avatar", () => {
  assert.deepEqual(parseAddress(""), {
    drive: "demo",
    avatar: null,
    generator: null,
    tracker: null,
    sizePx: 512,
    mode: "avatar",
    hud: null,
    bare: false,
    mirror: null,
    audio: "1",
    token: null,
    aspect: null,
    background: null,
  });
});

test("a full address is taken as it is", () => {
  const asked = parseAddress("?drive=webcam&avatar=anna%20b&size=256&mode=echo&hud=0&bare=1&audio=raw&token=T");
  assert.deepEqual(asked, {
    drive: "webcam",
    avatar: "anna b",
    generator: null,
    tracker: null,
    sizePx: 256,
    mode: "echo",
    hud: false,
    bare: true,
    mirror: null,
    audio: "raw",
    token: "T",
    aspect: null,
    background: null,
  });
});

test("nonsense in the address falls back", () => {
  const asked = parseAddress("?drive=rocket&size=1e9&mode=&audio=loud&bare=yes&hud=1");
  assert.deepEqual([asked.drive, asked.sizePx, asked.mode, asked.audio], ["demo", 512, "avatar", "1"]);
  assert.deepEqual([asked.bare, asked.hud], [false, true]);
  for (const size of ["0", "-5", "512.5", "abc", "99999"]) assert.equal(parseAddress(`?size=${size}`).sizePx, 512);
});

test("no size is asked for that an offer refuses", () => {
  for (const [size, sizePx] of [["63", 512], ["64", 64], ["1024", 1024], ["1025", 512], ["2048", 512]]) {
    assert.equal(parseAddress(`?size=${size}`).sizePx, sizePx);
  }
});

test("an address may ask for a mirror, and the one for others never does", () => {
  assert.deepEqual(["1", "0", "yes", ""].map((text) => parseAddress(`?mirror=${text}`).mirror), [true, false, null, null]);
  const href = bareAddress("http://h:8000/?mirror=1", { drive: "webcam", avatar: "a", sizePx: 512, mode: "avatar" });
  assert.equal(parseAddress(new URL(href).search).mirror, null);
});

test("the avatar alone is drawn by whom the visitor chose", () => {
  const chosen = { drive: "webcam", avatar: "a", sizePx: 512, mode: "avatar", generator: "geometric", tracker: "regressor" };
  const asked = parseAddress(new URL(bareAddress("http://h:8000/", chosen)).search);
  assert.deepEqual([asked.generator, asked.tracker], ["geometric", "regressor"]);
});

test("an address may say how the picture looks", () => {
  const asked = parseAddress("?aspect=16:9&background=%2300ff00");
  assert.deepEqual([asked.aspect, asked.background], ["16:9", "#00ff00"]);
  for (const text of ["keep", "soft", "blur", "b-abcdefghijkl"]) assert.equal(parseAddress(`?background=${text}`).background, text);
  for (const text of ["transparent", "%23zzz", "/etc/passwd", ""]) {
    assert.equal(parseAddress(`?background=${text}`).background, null);
  }
  const href = bareAddress("http://h:8000/", { drive: "demo", avatar: "a", sizePx: 512, mode: "avatar", aspect: "16:9", background: "#00ff00" });
  const again = parseAddress(new URL(href).search);
  assert.deepEqual([again.aspect, again.background], ["16:9", "#00ff00"]);
});

test("a look that was never chosen is the server's", () => {
  assert.deepEqual(askedLook(saneLook(null)), { background: undefined, aspect: undefined });
  assert.deepEqual(saneLook({ kind: "rocket", colour: "red", aspect: "4:3" }), saneLook(null));
});

test("a chosen look is asked for, but no picture that the page has lost", () => {
  const colour = saneLook({ kind: "colour", colour: "#112233", aspect: "16:9" });
  assert.deepEqual(askedLook(colour), { background: "#112233", aspect: "16:9" });
  assert.equal(saneLook({ kind: "picture" }).kind, "usual");
  assert.equal(askedLook({ ...colour, kind: "picture", picture: "b-x" }).background, "b-x");
  assert.equal(askedLook({ ...colour, kind: "picture", picture: null }).background, undefined);
  assert.equal(askedLook({ ...colour, kind: "blur" }).background, "blur");
});

test("the token leaves the address and nothing else does", () => {
  assert.equal(parseAddress("?token=a+b/c-_.~==").token, "a+b/c-_.~==");
  assert.equal(withoutToken("http://h:8000/?token=T&drive=demo#x"), "/?drive=demo#x");
  assert.equal(withoutToken("http://h:8000/?token=T"), "/");
});

test("the address of the avatar alone says it all but the token", () => {
  const href = bareAddress("http://h:8000/?token=T&hud=1", { drive: "demo", avatar: "a&b", sizePx: 512, mode: "avatar" });
  const asked = parseAddress(new URL(href).search);
  assert.deepEqual([asked.avatar, asked.bare, asked.token, asked.sizePx], ["a&b", true, null, 512]);
});

test("retries slow down to every ten seconds", () => {
  assert.deepEqual([0, 1, 2, 3, 4, 5, 50].map(backoffS), [1, 2, 4, 8, 10, 10, 10]);
});

test("VP8 goes first and nothing is lost", () => {
  const codecs = ["video/H264", "video/rtx", "video/VP8", "video/VP9"].map((mimeType) => ({ mimeType }));
  assert.deepEqual(
    preferVp8(codecs).map((codec) => codec.mimeType),
    ["video/VP8", "video/H264", "video/rtx", "video/VP9"],
  );
});

test("the status line follows the call, then the server", () => {
  const webcam = { phase: "connected", drive: "webcam", mode: "avatar", state: "tracking", face: true };
  assert.deepEqual(statusOf(webcam), { tone: "ok", text: "Tracking" });
  assert.equal(statusOf({ ...webcam, state: "calibrating" }).tone, "busy");
  assert.match(statusOf({ ...webcam, state: "holding", face: false }).text, /Face lost/);
  assert.match(statusOf({ ...webcam, state: "idle", face: false }).text, /Face lost/);
  assert.equal(statusOf({ ...webcam, face: false }).tone, "warn");
  assert.equal(statusOf({ ...webcam, state: "fault" }).tone, "error");
  assert.equal(statusOf({ ...webcam, phase: "waiting" }).text, "Connection lost, reconnecting");
  assert.match(statusOf({ ...webcam, phase: "waiting", status: 503 }).text, /full/);
  assert.equal(statusOf({ ...webcam, phase: "refused" }).tone, "error");
  const waiting = { state: "waiting", why: ["talking"], revision: 1 };
  assert.deepEqual(statusOf({ ...webcam, neutral: waiting }), { tone: "busy", text: "Looking for your calm face: you are talking" });
  assert.equal(statusOf({ ...webcam, neutral: { ...waiting, state: "taken", why: [] } }).text, "Tracking");
  assert.equal(statusOf({ ...webcam, neutral: waiting, face: false }).text, "Face lost");
  assert.equal(statusOf({ ...webcam, drive: "demo", neutral: waiting }).text, "Demo is playing");
  // the demo has no face that could be lost
  assert.deepEqual(statusOf({ ...webcam, drive: "demo", state: "idle", face: false }), { tone: "ok", text: "Demo is playing" });
});

test("a file that cannot be a photo is refused before it is sent", () => {
  assert.equal(objection({ name: "a.jpg", type: "image/jpeg", size: 10 }), null);
  assert.equal(objection({ name: "a.heic", type: "", size: 10 }), null);
  assert.match(objection({ name: "a.mp4", type: "video/mp4", size: 10 }), /not a picture/);
  assert.match(objection({ name: "a.jpg", type: "image/jpeg", size: 0 }), /empty/);
  assert.match(objection({ name: "a.jpg", type: "image/jpeg", size: 61 * 1024 * 1024 }), /60 MB/);
});
