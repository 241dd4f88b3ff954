// What the page does when the server no longer has what a call needs: without a page, by order and counts.
import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.window = globalThis;
const { consentNotice, isAvatarFile, objection } = await import("../../streamer/web/enroll.js");
const { rememberedChoice } = await import("../../streamer/web/gallery.js");
const { fileName } = await import("../../streamer/web/keeping.js");
const { Lost, lostWords, makingWords } = await import("../../streamer/web/lost.js");
const { Origins } = await import("../../streamer/web/origins.js");

const GONE = { name: "refused", status: 404, text: "…" };
const NO_BACKGROUND = { name: "refused", status: 410, text: "the picture is gone" };
const UPLOAD = `u-${"x".repeat(22)}`;

/** A `Lost` whose surroundings only note what is asked of them. */
function stage(changes = {}) {
  const done = [];
  const waiting = [];
  const world = { chosen: UPLOAD, origins: { of: () => null } };
  const lost = new Lost({
    origins: { of: (name) => world.origins.of(name) },
    bare: false,
    chosen: () => world.chosen,
    title: (name) => (name === UPLOAD ? "ada" : null),
    remake: async (name) => done.push(["remake", name]),
    resendPicture: async () => false,
    dropPicture: (text) => done.push(["drop", text]),
    show: (phase) => done.push(["show", phase.name, phase.text, phase.action?.label]),
    start: () => done.push(["start"]),
    add: () => done.push(["add"]),
    later: (action) => waiting.push(action),
    ...changes,
  });
  lost.asked(world.chosen);
  return { lost, done, waiting, world };
}

const settled = () => new Promise((resolve) => setImmediate(resolve));
const passing = Object.assign(new Error("The server does not answer."), { passing: true });
const final = Object.assign(new Error("No face was found."), { passing: false });

test("other refusals are not its business", () => {
  const { lost, done } = stage();
  for (const phase of [{ name: "refused", status: 400 }, { name: "waiting", status: 503 }, { name: "connected" }]) {
    assert.equal(lost.refused(phase), false);
  }
  assert.deepEqual(done, []);
});

test("what the tab still has is sent again, and then the call begins", async () => {
  const { lost, done, world } = stage();
  world.origins = { of: () => ({ file: {}, consent: "Ada" }) };
  assert.equal(lost.refused(GONE), true);
  await settled();
  assert.deepEqual(done.map(([what]) => what), ["show", "remake", "start"]);
  assert.equal(done[0][1], "making");
  assert.deepEqual(done[1], ["remake", UPLOAD]);
});

test("without the photo nothing begins: it is held and asked for", async () => {
  const { lost, done } = stage();
  lost.refused(GONE);
  await settled();
  assert.deepEqual(done, [["show", "lost", "“ada” is no longer on the server.", "Add the photo again"]]);
});

/** All seconds that are waited for go by. */
function tick(waiting) {
  while (waiting.length) waiting.pop()();
}

test("while the server is away it is tried again, later and once", async () => {
  let answers = [passing, passing];
  const { lost, done, waiting, world } = stage({
    remake: async () => {
      const error = answers.shift();
      if (error) throw error;
    },
  });
  world.origins = { of: () => ({ file: {}, consent: "Ada" }) };
  lost.refused(GONE);
  for (let turn = 0; turn < 2; turn += 1) {
    await settled();
    assert.equal(waiting.length, 1);
    tick(waiting);
  }
  await settled();
  const said = done.map(([what, phase]) => phase ?? what);
  // each second of 2 and of 4 is said
  const counted = ["waiting", "waiting"];
  assert.deepEqual(said, ["making", ...counted, "making", ...counted, ...counted, "making", "start"]);
});

test("a photo that is refused again and again is said, and nothing begins", async () => {
  const { lost, done, waiting, world } = stage({
    remake: async () => {
      throw final;
    },
  });
  world.origins = { of: () => ({ file: {}, consent: "Ada" }) };
  lost.refused(GONE);
  await settled();
  for (; waiting.length; await settled()) waiting.pop()();
  assert.equal(done.filter(([, phase]) => phase === "making").length, 4);
  assert.deepEqual(done.at(-1), ["show", "lost", "No face was found.", "Add the photo again"]);
  assert.ok(!done.some(([what]) => what === "start"));
});

test("who chooses another meanwhile gets that one alone", async () => {
  let finish;
  const { lost, done, world } = stage({ remake: () => new Promise((resolve) => (finish = resolve)) });
  world.origins = { of: () => ({ file: {}, consent: "Ada" }) };
  lost.refused(GONE);
  world.chosen = "green";
  lost.asked("green");
  finish();
  await settled();
  assert.deepEqual(done.map(([what]) => what), ["show"]);
});

test("an avatar that goes by another name by now is asked for by that", async () => {
  const { lost, done, world } = stage();
  world.chosen = "kept";
  lost.refused(GONE);
  await settled();
  assert.deepEqual(done, [["start"]]);
});

test("a broadcast waits for the page that made the avatar", async () => {
  const { lost, done, waiting } = stage({ bare: true });
  lost.refused(GONE);
  await settled();
  assert.equal(done[0][1], "waiting");
  tick(waiting);
  assert.deepEqual(done.at(-1), ["start"]);
  // once something else was asked for, what waited is nothing any more
  lost.refused(GONE);
  lost.asked("green");
  tick(waiting);
  assert.equal(done.filter(([what]) => what === "start").length, 1);
});

test("a lost background is sent again; without it the visitor is told and the call goes on", async () => {
  const sent = stage({ resendPicture: async () => true });
  assert.equal(sent.lost.refused(NO_BACKGROUND), true);
  await settled();
  assert.deepEqual(sent.done.map(([what]) => what), ["show", "start"]);
  const none = stage();
  none.lost.refused(NO_BACKGROUND);
  await settled();
  assert.deepEqual(none.done.at(-1), ["drop", "the picture is gone"]);
  const bare = stage({ bare: true });
  bare.lost.refused(NO_BACKGROUND);
  await settled();
  assert.equal(bare.done.at(-1)[1], "waiting");
  assert.ok(!bare.done.some(([what]) => what === "drop"), "a broadcast never changes its background by itself");
});

test("after a deletion no call begins, whatever else is changed", () => {
  const { lost, done, world } = stage();
  world.chosen = null;
  lost.deleted("ada");
  lost.asked(null);
  lost.nobody();
  assert.deepEqual(new Set(done.map(([, phase, text]) => `${phase} ${text}`)), new Set(["lost You deleted “ada”."]));
});

test("no sentence holds a secret name", () => {
  const secret = new RegExp(UPLOAD);
  for (const title of ["ada", null]) {
    for (const text of Object.values(lostWords(UPLOAD, title))) assert.doesNotMatch(text, secret);
  }
  assert.match(lostWords("nobody", null).text, /“nobody”/);
  assert.match(makingWords("ada").text, /“ada”/);
});

test("the choice of this tab comes first, unless its address asks for another by now", () => {
  const tab = { name: "a", title: "A", address: null };
  const browser = { name: "b", title: "B" };
  assert.equal(rememberedChoice(null, tab, browser).name, "a");
  assert.equal(rememberedChoice("c", tab, browser).name, "c");
  assert.equal(rememberedChoice("c", { ...tab, address: "c" }, browser).name, "a");
  assert.equal(rememberedChoice(null, null, browser).name, "b");
  assert.equal(rememberedChoice(null, null, null), null);
  for (const nonsense of [1, "x", [], {}, { name: 1, title: "x" }]) {
    assert.equal(rememberedChoice(null, nonsense, nonsense), null);
  }
});

test("an .avatar is taken, whatever its type is said to be; consent is what it says", () => {
  assert.equal(objection({ name: "Ada.AVATAR", type: "application/octet-stream", size: 9 }), null);
  assert.ok(isAvatarFile({ name: "a.b.avatar" }));
  assert.ok(!isAvatarFile({ name: "avatar.png" }));
  assert.match(objection({ name: "a.avatar", type: "", size: 0 }), /empty/);
  assert.match(consentNotice("ada", { name: "Ada L.", given_utc: "2026-11-28T00:00:00+00:00" }), /Ada L\. agreed on .*2026/);
  assert.match(consentNotice("ada", { name: "Ada L.", given_utc: "soon" }), /Ada L\. agreed\.$/);
  assert.match(consentNotice("ada", null), /no record of consent/);
});

test("a title becomes a file's name", () => {
  for (const [title, name] of [["Zoë B.", "Zoë-B"], ["../x", "x"], ["", "avatar"], ["a\nb", "a-b"]]) {
    assert.equal(fileName(title), name);
  }
});

test("the tab's copy of a photo outlives the file, and follows its name", async () => {
  const origins = new Origins();
  await origins.remember("u-1", { file: new File(["abc"], "a.png", { type: "image/png" }), consent: "Ada" });
  assert.equal(await origins.of("u-1").file.text(), "abc");
  origins.renamed("u-1", "u-2");
  assert.equal(origins.of("u-1"), null);
  assert.equal(origins.of("u-2").consent, "Ada");
  origins.forget("u-2");
  assert.equal(origins.of("u-2"), null);
  await origins.remember("u-3", { file: { arrayBuffer: () => Promise.reject(new Error("gone")) }, consent: null });
  assert.ok(origins.of("u-3").file);
});
