// "Test the connection": what is said of what was found.
import assert from "node:assert/strict";
import { test } from "node:test";

import { serverTroubles, verdict, wayOf } from "../../streamer/web/reach.js";

const FINE = {
  secure: true,
  rights: { camera: "granted", microphone: "prompt" },
  httpMs: 12.4,
  servers: [],
  ports: null,
  kinds: new Set(["host"]),
  errors: [],
  direct: { open: true, ms: 3.2, way: { candidateType: "host", protocol: "udp" } },
  relayed: null,
};
const said = (changes) => verdict({ ...FINE, ...changes });
const bad = (changes) => said(changes).filter(({ good }) => !good).map(({ text }) => text);

test("where nothing stands in the way, all that is said is good", () => {
  assert.deepEqual(said({}), [
    { good: true, text: "The server answers in 12 ms." },
    { good: true, text: "Packets come back in 3 ms by way of this network." },
  ]);
});

test("blocked UDP names the ports to open, or a relay", () => {
  const direct = { open: false };
  assert.match(bad({ direct })[0], /open UDP to the server \(--udp-ports keeps calls to a few\), or give it a TURN server/);
  assert.match(bad({ direct, ports: "50000-50100" })[0], /open UDP ports 50000-50100 to the server, or give it a TURN/);
  const servers = [{ urls: ["turn:relay.example:3478?transport=udp"] }];
  assert.match(bad({ direct, servers })[0], /UDP may be blocked, and the relay did not help/);
});

test("a relay is named as the way, and judged by itself", () => {
  const way = { candidateType: "relay", protocol: "udp", relayProtocol: "tcp" };
  assert.equal(wayOf(way), "the TURN relay over TCP");
  assert.equal(wayOf({ candidateType: "srflx" }), "the address that STUN found");
  assert.deepEqual(bad({ relayed: { open: true, ms: 40 } }), []);
  assert.match(bad({ relayed: { open: false } })[0], /through the TURN relay/);
});

test("a server that lets nobody in is told from one that is silent, once each, and not where another interface got through", () => {
  const turn = "turn:relay.example:3478?transport=udp";
  const stun = "stun:stun.example:3478";
  const errors = [{ url: turn, code: 401 }, { url: turn, code: 401 }, { url: stun, code: 701 }];
  const lines = serverTroubles(errors, new Set(["host"]));
  assert.equal(lines.length, 2);
  assert.match(lines[0], /does not let us in/);
  assert.match(lines[1], /The STUN server stun:stun.example:3478 does not answer/);
  assert.deepEqual(serverTroubles(errors, new Set(["srflx", "relay"])), []);
});

test("what the browser keeps from the page is said, also when the server is away", () => {
  assert.match(bad({ secure: false })[0], /not secure/);
  assert.match(bad({ rights: { camera: "denied" } })[0], /camera/);
  assert.match(bad({ kinds: new Set() })[0], /no network address/);
  assert.deepEqual(bad({ httpMs: null, error: "The server does not answer. Is it still running?" }), [
    "The server does not answer. Is it still running?",
  ]);
});
