// A call when the computer changes its network: what still hears the server goes on, what does not begins anew at once.
import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { Call } from "../../streamer/web/call.js";

const made = [];
let nowMs = 0;

class Peer {
  constructor(configuration) {
    this.configuration = configuration;
    this.connectionState = "new";
    this.iceGatheringState = "complete";
    this.localDescription = { sdp: "offer", type: "offer" };
    made.push(this);
  }
  createDataChannel() {
    this.channel = { readyState: "open", send: () => {} };
    return this.channel;
  }
  addTransceiver() {}
  getTransceivers = () => [];
  getSenders = () => [];
  getStats = async () => new Map();
  createOffer = async () => ({});
  setLocalDescription = async () => {};
  setRemoteDescription = async () => {};
  close() {
    this.connectionState = "closed";
  }
  connect() {
    this.connectionState = "connected";
    this.onconnectionstatechange();
  }
}

const TURN = [{ urls: ["turn:relay:3478?transport=udp"], username: "u", credential: "c" }];
const settled = async () => {
  for (let k = 0; k < 20; k += 1) await Promise.resolve();
  await new Promise((resolve) => setImmediate(resolve));
};
const later = (ms) => {
  nowMs += ms;
  mock.timers.tick(ms);
};

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  made.length = 0;
  nowMs = 10_000;
  globalThis.RTCPeerConnection = Peer;
  globalThis.RTCRtpReceiver = class {};
  globalThis.MediaStream = class {};
  globalThis.sessionStorage = { getItem: () => null, setItem: () => {} };
  mock.method(performance, "now", () => nowMs);
  globalThis.fetch = async (path) => {
    const body = path === "api/ice" ? { ice_servers: TURN, udp_ports: null } : { sdp: "", type: "answer", session: "s" };
    return { ok: true, json: async () => body };
  };
});

function calling() {
  const phases = [];
  const call = new Call({
    phase: (phase) => phases.push(phase.name),
    answer: () => {},
    neutral: () => undefined,
    isHeard: () => false,
    skewMs: () => null,
    unchanged: () => {},
    ending: () => {},
    stream: () => {},
    message: () => {},
  });
  call.start({ avatar: "a", sizePx: 512, mode: "avatar", drive: "demo", camera: null });
  return { call, phases };
}

test("each attempt asks for servers anew, and uses them", async () => {
  const { call } = calling();
  await settled();
  assert.deepEqual(made[0].configuration.iceServers, TURN);
  call.stop();
});

test("a call that hears the server outlives another network", async () => {
  const { call } = calling();
  await settled();
  made[0].connect();
  call.networkChanged();
  nowMs += 500;
  call.heard();
  later(1500);
  await settled();
  assert.equal(made.length, 1);
  assert.equal(call.connection, "connected");
  call.stop();
});

test("a call that hears nothing any more begins anew after a second, with the same avatar", async () => {
  const { call, phases } = calling();
  await settled();
  made[0].connect();
  nowMs += 10;
  call.networkChanged();
  later(999);
  await settled();
  assert.equal(made.length, 1);
  later(2);
  await settled();
  assert.equal(made.length, 2);
  assert.equal(made[0].connectionState, "closed");
  made[1].connect();
  assert.deepEqual(phases, ["connecting", "connected", "connecting", "connected"]);
  call.stop();
});

test("a pause between attempts ends when a network comes, and one that is at work is left alone", async () => {
  const { call, phases } = calling();
  await settled();
  made[0].connectionState = "failed";
  made[0].onconnectionstatechange();
  assert.equal(phases.at(-1), "waiting");
  call.networkChanged();
  await settled();
  assert.equal(made.length, 2);
  call.networkChanged(); // connecting: answered already
  await settled();
  assert.equal(made.length, 2);
  call.stop();
});
