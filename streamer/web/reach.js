/**
 * "Test the connection": what stands between this browser and the server, in sentences that name the fix. Looks at
 * the page's own rights (camera, microphone), at which ways out of this network there are (host, STUN, TURN), and whether
 * packets come back from the server by them.
 */

import { iceSettings, postConnectionTest, serverHealth } from "./api.js";
import { el, make } from "./dom.js";

const GATHER_CAP_MS = 4000;
const OPEN_CAP_MS = 10_000;
const PINGS = 5;
const PING_CAP_MS = 1500;

const RIGHTS = {
  camera: "The browser may not use the camera for this page. Allow it beside the address.",
  microphone: "The browser may not use the microphone for this page. Allow it beside the address.",
};

/** "a relay over TCP", from a candidate pair's own end as `getStats` tells it. */
export function wayOf({ candidateType, protocol, relayProtocol }) {
  if (candidateType === "relay") return `the TURN relay over ${(relayProtocol ?? protocol ?? "udp").toUpperCase()}`;
  return { host: "this network", srflx: "the address that STUN found", prflx: "the router's address" }[candidateType] ?? "UDP";
}

/** What gathering failed at, one line a server. @param {{url: string, code: number, text?: string}[]} errors */
export function serverTroubles(errors, kinds) {
  const lines = new Map();
  for (const { url, code } of errors) {
    // Chromium tells an error for each interface; what another one got through is no trouble
    if ((url.startsWith("stun") && kinds.has("srflx")) || (url.startsWith("turn") && kinds.has("relay"))) continue;
    const name = url.startsWith("turn") ? "TURN" : "STUN";
    const text =
      code === 401 || code === 403
        ? `The TURN server ${url} does not let us in. Its secret, or user and password, are not the server's.`
        : `The ${name} server ${url} does not answer from this network. Its port may be blocked.`;
    lines.set(url, text);
  }
  return [...lines.values()];
}

/**
 * What was found → lines to show, worst last.
 * @param {{
 *   secure: boolean, rights: Record<string, string>, httpMs: number | null, error?: string, servers: object[],
 *   ports: string | null, kinds: Set<string>, errors: {url: string, code: number}[],
 *   direct: {open: boolean, way?: object, ms?: number} | null, relayed: {open: boolean, ms?: number} | null,
 * }} found
 * @returns {{good: boolean, text: string}[]}
 */
export function verdict(found) {
  const { secure, rights, httpMs, servers, ports, kinds, errors, direct, relayed } = found;
  const lines = [];
  const say = (good, text) => lines.push({ good, text });
  if (!secure) say(false, "This page is not secure, so browsers give it no camera: open it by https, or on localhost.");
  for (const [name, state] of Object.entries(rights)) if (state === "denied") say(false, RIGHTS[name]);
  if (httpMs === null) {
    say(false, found.error ?? "The server does not answer.");
    return lines;
  }
  say(true, `The server answers in ${Math.round(httpMs)} ms.`);
  for (const text of serverTroubles(errors, kinds)) say(false, text);
  if (kinds.size === 0) {
    say(false, "The browser shows no network address at all. An extension or a policy may have switched WebRTC off.");
    return lines;
  }
  if (direct?.open) {
    say(true, `Packets come back in ${Math.round(direct.ms)} ms by way of ${wayOf(direct.way ?? {})}.`);
  } else if (direct) {
    say(false, direct.error ?? `No packet comes back: ${blocked(servers, ports)}`);
  }
  if (relayed) {
    say(
      relayed.open,
      relayed.open
        ? `The TURN relay works (${Math.round(relayed.ms)} ms): calls get through where UDP is blocked.`
        : "No packet comes back through the TURN relay. The server's own firewall may keep the relay out.",
    );
  }
  return lines;
}

function blocked(servers, ports) {
  const which = ports ? `UDP ports ${ports}` : "UDP";
  const turn = servers.some((server) => [server.urls].flat().some((url) => url.startsWith("turn")));
  const open = `open ${which} to the server${ports ? "" : " (--udp-ports keeps calls to a few)"}`;
  return turn ? `${which} may be blocked, and the relay did not help. Ask for ${which} to be opened.` : `${open}, or give it a TURN server (--turn).`;
}

/** Looks at everything. @returns {Promise<Parameters<typeof verdict>[0]>} */
export async function look(signal) {
  const found = {
    secure: window.isSecureContext && Boolean(navigator.mediaDevices),
    rights: await rights(),
    httpMs: null,
    servers: [],
    ports: null,
    kinds: new Set(),
    errors: [],
    direct: null,
    relayed: null,
  };
  try {
    const begun = performance.now();
    await serverHealth(signal);
    found.httpMs = performance.now() - begun;
    const told = await iceSettings(signal);
    found.servers = told.ice_servers;
    found.ports = told.udp_ports;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { ...found, httpMs: null, error: error.message };
  }
  found.direct = await connect(found, "all", signal);
  if (found.kinds.has("relay")) found.relayed = await connect({ ...found, errors: [], kinds: new Set() }, "relay", signal);
  return found;
}

async function rights() {
  const told = {};
  for (const name of Object.keys(RIGHTS)) {
    try {
      told[name] = (await navigator.permissions.query({ name })).state;
    } catch {
      // not every browser can be asked
    }
  }
  return told;
}

/** One connection of a data channel: which candidates there are, whether it opens, and how fast it answers. */
async function connect({ servers, kinds, errors }, policy, signal) {
  const pc = new RTCPeerConnection({ iceServers: servers, iceTransportPolicy: policy });
  try {
    pc.addEventListener("icecandidate", ({ candidate }) => candidate?.type && kinds.add(candidate.type));
    pc.addEventListener("icecandidateerror", ({ url, errorCode }) => url && errors.push({ url, code: errorCode }));
    const channel = pc.createDataChannel("reach", { ordered: false, maxRetransmits: 0 });
    await pc.setLocalDescription(await pc.createOffer());
    await within(GATHER_CAP_MS, (done) =>
      pc.addEventListener("icegatheringstatechange", () => pc.iceGatheringState === "complete" && done()),
    );
    // an older browser has no `type` on a candidate
    for (const [, type] of pc.localDescription.sdp.matchAll(/^a=candidate:.* typ (\w+)/gm)) kinds.add(type);
    const { sdp, type } = pc.localDescription;
    const answer = await postConnectionTest({ sdp, type }, signal);
    await pc.setRemoteDescription({ sdp: answer.sdp, type: answer.type });
    const open = await within(OPEN_CAP_MS, (done) => {
      if (channel.readyState === "open") done(true);
      channel.addEventListener("open", () => done(true));
    });
    if (!open) return { open: false };
    const ms = await pinged(channel);
    return ms === null ? { open: false } : { open: true, ms, way: await chosenWay(pc) };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { open: false, error: error.message };
  } finally {
    pc.close();
  }
}

/** Median of a few round trips in ms; null where none came back. */
async function pinged(channel) {
  const times = [];
  for (let k = 0; k < PINGS; k += 1) {
    const begun = performance.now();
    const back = within(PING_CAP_MS, (done) =>
      channel.addEventListener("message", ({ data }) => data === String(k) && done(performance.now() - begun)),
    );
    channel.send(String(k));
    const ms = await back;
    if (ms !== undefined) times.push(ms);
  }
  times.sort((a, b) => a - b);
  return times.length ? times[times.length >> 1] : null;
}

async function chosenWay(pc) {
  const stats = await pc.getStats();
  for (const entry of stats.values()) {
    if (entry.type === "candidate-pair" && entry.nominated && entry.state === "succeeded") {
      return stats.get(entry.localCandidateId) ?? {};
    }
  }
  return {};
}

/** What `listen` is done with, or undefined after the cap. */
const within = (capMs, listen) =>
  new Promise((resolve) => {
    const cap = setTimeout(resolve, capMs);
    listen((value) => {
      clearTimeout(cap);
      resolve(value);
    });
  });

export class Reach {
  #work = null;

  constructor() {
    el("reach").addEventListener("click", () => void this.#test());
  }

  async #test() {
    this.#work?.abort();
    const work = (this.#work = new AbortController());
    el("reach").disabled = true;
    el("reach-state").textContent = "Looking for a way to the server. That takes some seconds.";
    el("reach-findings").replaceChildren();
    try {
      const lines = verdict(await look(work.signal));
      const rows = lines.map(({ good, text }) => make("li", { "data-good": String(good) }, text));
      el("reach-findings").replaceChildren(...rows);
      el("reach-state").textContent = lines.every(({ good }) => good) ? "Nothing stands in the way." : "Something stands in the way:";
    } catch (error) {
      el("reach-state").textContent = error.message;
    } finally {
      el("reach").disabled = false;
    }
  }
}
