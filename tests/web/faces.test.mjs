/** All emotions of an avatar: what the server is asked for, and what the files are called. */

import assert from "node:assert/strict";
import test from "node:test";

import { facesFile, wantedOf } from "../../streamer/web/faces.js";

test("the generator of the call draws, or the server's own", () => {
  assert.deepEqual(wantedOf({ kind: "presets", generator: undefined }, "sheet"), { faces: "presets", give: "sheet" });
  assert.deepEqual(wantedOf({ kind: "templates", generator: "pncc" }, "pictures"), { faces: "templates", give: "pictures", generator: "pncc" });
});

test("files say whose faces they are and of which kind", () => {
  assert.equal(facesFile("Ada Lovelace", "presets", "sheet"), "Ada-Lovelace-presets.png");
  assert.equal(facesFile("…", "templates", "pictures"), "avatar-templates.zip");
});
