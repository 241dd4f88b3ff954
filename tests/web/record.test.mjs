/** Recording: what the button says, and what the files are called. */

import assert from "node:assert/strict";
import test from "node:test";

import { clock, fileName, recordWords } from "../../streamer/web/record.js";

test("the button says how long it has been recording", () => {
  assert.equal(recordWords(null), "Record motion");
  assert.equal(recordWords(0), "Stop and download (0:00)");
  assert.equal(recordWords(75.9), "Stop and download (1:15)");
  assert.deepEqual([9, 60, 599.5, 600].map(clock), ["0:09", "1:00", "9:59", "10:00"]);
});

test("files sort by time and say what they hold", () => {
  const at = new Date(2030, 0, 2, 3, 4, 5);
  assert.equal(fileName("motion", at), "visavis-2030-01-02-03-04-05-motion.jsonl");
  assert.equal(fileName("trace", at), "visavis-2030-01-02-03-04-05-trace.jsonl");
});
