/**
 * The call: one RTCPeerConnection at a time, kept alive, and changed while it runs. It reconnects by itself with
 * backoff, and reports what it does through callbacks; it draws nothing.
 */

import { ApiError, changeCall, iceSettings, postOffer } from "./api.js";
import { addMedia, favourMotion, gathered } from "./peer.js";
import { MOST_WAIT_MS, soundWaitsMs } from "./sound_waits.js";
import { Wishes, changesBetween } from "./wishes.js";

const ANSWER_CAP_MS = 15_000;
const CONNECT_CAP_MS = 9000; // the server gives an offer up after 8 s
const DISCONNECTED_GRACE_MS = 2500;
// after another network: a living server has said something by then
const NETWORK_GRACE_MS = 1000;
// a healthy server answers each ping, and sends a message per frame even while it repeats one
const SILENCE_CAP_MS = 5000;
// the data channel does not resend, so a setting is said again; saying it twice does no harm
const CONTROLS_REPEAT_MS = [250, 1500];

/** Seconds before the n-th attempt in a row (n from 0): 1, 2, 4, 8, then 10. */
export const backoffS = (attempt) => Math.min(10, 2 ** attempt);

export class Call {
  #on;
  #wanted = null;
  #session = null;
  #wishes = null;
  #changing = false;
  #pc = null;
  #channel = null;
  #abort = null;
  #timers = new Set();
  #attempts = 0;
  #heardMs = 0;
  #controls = null;
  #audio = { concealed: 0, total: 0 };
  #sums = new Map();
  #outputMs = 0;

  /**
   * `isHeard`: whether the sound is not silenced here, so that pictures wait for it. `ending` is called while the last frame can still be read; `answer` when the call has another avatar; `unchanged`
   * when what was `wanted` cannot be, and the call goes on as it was, with what is `kept`.
   * `skewMs`: how much later than its sound a picture was seen within the last moments, null if nobody knows.
   * @param {{
   *   phase: (phase: {name: "connecting"|"connected"|"waiting"|"refused", text?: string, inS?: number, status?: number}) => void,
   *   answer: (answer: {controls: object | null}) => void,
   *   neutral: () => string | undefined,
   *   isHeard: () => boolean,
   *   skewMs: () => number | null,
   *   unchanged: (refusal: {text: string, status?: number, what?: string, wanted: object, kept: object}) => void,
   *   ending: () => void,
   *   stream: (stream: MediaStream) => void,
   *   message: (message: object, nowMs: number) => void,
   * }} callbacks
   */
  constructor(callbacks) {
    this.#on = callbacks;
  }

  /**
   * Starts a call, ending the one before.
   * @param {{avatar: string, generator?: string, tracker?: string, sizePx: number, mode: string, drive: string,
   *   camera: MediaStream | null, trim_ms?: number, voice_helps?: boolean}} wanted `camera` may be a microphone alone
   */
  start(wanted) {
    this.#close();
    this.#wanted = wanted;
    this.#attempts = 0;
    void this.#connect();
  }

  /** The same call with something else, or a new one where that cannot be. */
  change(wanted) {
    if (!this.#session || changesBetween(this.#wishes.accepted, wanted) === null) {
      this.start(wanted);
      return;
    }
    this.#wanted = wanted;
    void this.#settle();
  }

  /** The sound's trim went another way; a new call has it too. */
  trimmed(trimMs) {
    if (this.#wanted) this.#wanted = { ...this.#wanted, trim_ms: trimMs };
  }

  /** The avatar has another name by now: nothing of the call changes. */
  renamed(from, to) {
    if (this.#wanted?.avatar === from) this.#wanted = { ...this.#wanted, avatar: to };
    this.#wishes?.renamed(from, to);
  }

  stop() {
    this.#wanted = null;
    this.#close();
  }

  /** Ends a pause between attempts. */
  retryNow() {
    if (!this.#wanted) return;
    this.#close();
    void this.#connect();
  }

  /** The computer is in another network: a call whose packets no longer arrive is begun anew at once (ICE restart). */
  networkChanged() {
    if (this.connection !== "connected" && this.connection !== "disconnected") {
      if (!this.#session) this.retryNow();
      return;
    }
    const sinceMs = performance.now();
    this.#later(() => this.#heardMs < sinceMs && this.retryNow(), NETWORK_GRACE_MS);
  }

  /** Sends unless the channel is shut, in which case it is not worth keeping. */
  send(message) {
    if (this.#channel?.readyState !== "open") return false;
    this.#channel.send(JSON.stringify(message));
    return true;
  }

  setControls(controls) {
    this.#controls = { type: "controls", ...controls };
    this.#sayControls();
  }

  /** A frame was shown: the server is alive even if its messages get lost. */
  heard() {
    this.#heardMs = performance.now();
    this.#attempts = 0;
  }

  get connection() {
    return this.#pc?.connectionState ?? "closed";
  }

  get audio() {
    return { ...this.#audio };
  }

  /** Which sound leaves the jitter buffer now; null where nobody says. @returns {{rtp: number, atMs: number, outputMs: number} | null} */
  soundPlaying() {
    const receiver = this.#pc?.getReceivers?.().find(({ track }) => track.kind === "audio");
    const source = receiver?.getSynchronizationSources?.()[0];
    if (source?.rtpTimestamp === undefined) return null;
    return { rtp: source.rtpTimestamp, atMs: source.timestamp - performance.timeOrigin, outputMs: this.#outputMs };
  }

  /** One change at a time: what is wanted meanwhile goes together with the next. */
  async #settle() {
    const abort = this.#abort;
    if (this.#changing) return;
    this.#changing = true;
    while (this.#abort === abort && this.#session) {
      const wanted = this.#wanted;
      const changes = changesBetween(this.#wishes.accepted, wanted);
      if (!changes || Object.keys(changes).length === 0) break;
      try {
        const answer = await changeCall(this.#session, changes, abort.signal);
        if (this.#abort !== abort) return;
        this.#wishes.take(answer.change, changes);
        // what is saved with a face that was passed over is no other's
        if ("avatar" in changes && changes.avatar === this.#wanted.avatar) this.#on.answer(answer);
      } catch (error) {
        if (this.#abort !== abort) return;
        if (error.status === 404 && error.what === "call") {
          this.retryNow();
          return;
        }
        // whether the server lives is for the call itself to find out
        if (error.status === 429 || error.status === 0) await this.#pause(error.retryAfterS ?? 1);
        else if (this.#wanted === wanted) this.#keep(error.message, error.status, error.what);
      }
    }
    if (this.#abort === abort) this.#changing = false;
  }

  #keep(text, status, what) {
    const [wanted, kept] = [this.#wanted, this.#wishes.accepted];
    this.#wanted = kept;
    this.#on.unchanged({ text, status, what, wanted, kept });
  }

  #pause(seconds) {
    return new Promise((resolve) => this.#later(resolve, seconds * 1000));
  }

  async #connect() {
    const wanted = this.#wanted;
    const abort = new AbortController();
    this.#abort = abort;
    const over = () => abort.signal.aborted;
    this.#on.phase({ name: "connecting" });
    try {
      const late = this.#later(() => abort.abort("late"), ANSWER_CAP_MS);
      // anew for each attempt: what lets us into a relay ends some day
      const { ice_servers: iceServers } = await iceSettings(abort.signal);
      if (over()) return;
      const pc = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
      this.#pc = pc;
      this.#watch(pc, over);
      this.#openChannel(pc, over);
      addMedia(pc, wanted.camera);
      await pc.setLocalDescription(await pc.createOffer());
      await gathered(pc, iceServers);
      if (over()) return;
      const { camera: _, sizePx, ...rest } = wanted;
      const { sdp, type } = pc.localDescription;
      const neutral = this.#on.neutral();
      const answer = await postOffer({ sdp, type, size: sizePx, neutral, ...rest }, abort.signal);
      this.#cancel(late);
      if (over()) return;
      this.#session = answer.session;
      this.#wishes = new Wishes(wanted);
      this.#on.answer(answer);
      await pc.setRemoteDescription({ sdp: answer.sdp, type: answer.type });
      await favourMotion(pc);
      if (over()) return;
      void this.#settle();
      this.#later(() => {
        if (pc.connectionState !== "connected") {
          this.#retry("No connection to the server could be made.");
        }
      }, CONNECT_CAP_MS);
    } catch (error) {
      if (this.#abort !== abort) return;
      if (over() && abort.signal.reason !== "late") return;
      if (error instanceof ApiError && !error.passing) {
        this.#close();
        this.#on.phase({ name: "refused", text: error.message, status: error.status });
        return;
      }
      const text = error instanceof ApiError ? error.message : "The server took too long or its answer made no sense.";
      this.#retry(text, error.retryAfterS, error.status);
    }
  }

  #watch(pc, over) {
    const stream = new MediaStream();
    pc.ontrack = ({ track, receiver }) => {
      if (over()) return;
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      stream.addTrack(track);
      if (track.kind === "video") this.#on.stream(stream);
    };
    let grace = null;
    pc.onconnectionstatechange = () => {
      if (over()) return;
      this.#cancel(grace);
      if (pc.connectionState === "connected") {
        this.#heardMs = performance.now();
        this.#on.phase({ name: "connected" });
        this.#every(() => this.#listen(pc), 1000);
      } else if (pc.connectionState === "failed") {
        this.#retry("The connection was lost.");
      } else if (pc.connectionState === "disconnected") {
        // a blink of the network heals by itself
        grace = this.#later(() => this.#retry("The connection was lost."), DISCONNECTED_GRACE_MS);
      }
    };
  }

  #openChannel(pc, over) {
    const channel = pc.createDataChannel("visavis", { ordered: false, maxRetransmits: 0 });
    this.#channel = channel;
    channel.onopen = () => this.#sayControls();
    channel.onmessage = ({ data }) => {
      if (over()) return;
      const nowMs = performance.now();
      this.#heardMs = nowMs;
      let message;
      try {
        message = JSON.parse(data);
      } catch {
        return; // an unreadable message is as good as a lost one
      }
      this.#hear(message);
      if (!over()) this.#on.message(message, nowMs);
    };
    channel.onclose = () => {
      if (!over()) this.#retry("The server ended the call.");
    };
  }

  /** What of the server's messages is about the call itself. */
  #hear({ type, change, kept, text, retry_after_s: retryAfterS }) {
    if (type === "frame") this.#wishes?.show(change);
    else if (type === "unchanged" && this.#wishes?.refuse(change, kept)) this.#keep(text);
    else if (type === "full") this.#retry(text, retryAfterS, 503);
  }

  /** Once a second: ping, notice silence, read the audio's counters, tell how long sound lies in buffers here. */
  async #listen(pc) {
    this.send({ type: "ping", t: performance.now() });
    if (performance.now() - this.#heardMs > SILENCE_CAP_MS) {
      this.#retry("The server has gone quiet.");
      return;
    }
    const waits = {};
    for (const entry of (await pc.getStats()).values()) {
      if (entry.type === "media-playout") {
        waits.playout = this.#meanMs("playout", entry.totalPlayoutDelay, entry.totalSamplesCount);
      }
      if (entry.type !== "inbound-rtp") continue;
      waits[entry.kind] = this.#meanMs(entry.kind, entry.jitterBufferDelay, entry.jitterBufferEmittedCount);
      if (entry.kind === "audio") {
        this.#audio = { concealed: entry.concealedSamples ?? 0, total: entry.totalSamplesReceived ?? 0 };
      }
    }
    // the server lets the sound leave earlier by what it will wait here
    this.#outputMs = waits.playout ?? this.#outputMs;
    const waitsMs = soundWaitsMs(waits);
    const skewMs = this.#on.skewMs();
    this.send({
      type: "sound",
      heard: this.#on.isHeard(),
      ...(waitsMs !== null && { waits_ms: waitsMs }),
      ...(skewMs !== null && Math.abs(skewMs) <= MOST_WAIT_MS && { skew_ms: skewMs }),
    });
  }

  /** Mean of what a sum over a count grew by since the last look, in ms; undefined without news. */
  #meanMs(name, sumS, count) {
    const before = this.#sums.get(name);
    if (sumS === undefined || !count) return undefined;
    this.#sums.set(name, { sumS, count });
    return before && count > before.count ? (1000 * (sumS - before.sumS)) / (count - before.count) : undefined;
  }

  #retry(text, atLeastS = null, status = undefined) {
    this.#close();
    const inS = Math.max(backoffS(this.#attempts), Math.min(atLeastS ?? 0, 60));
    this.#attempts += 1;
    const dueMs = performance.now() + inS * 1000;
    const tell = () => {
      const leftS = Math.max(0, Math.ceil((dueMs - performance.now()) / 1000));
      this.#on.phase({ name: "waiting", text, inS: leftS, status });
    };
    tell();
    if (inS > 1) this.#every(tell, 1000);
    this.#later(() => this.retryNow(), inS * 1000);
  }

  #sayControls() {
    if (!this.#controls || !this.send(this.#controls)) return;
    const said = this.#controls;
    for (const delayMs of CONTROLS_REPEAT_MS) {
      this.#later(() => said === this.#controls && this.send(said), delayMs);
    }
  }

  #close() {
    this.#abort?.abort("closed");
    this.#abort = null;
    for (const timer of this.#timers) clearInterval(timer);
    this.#timers.clear();
    this.#channel = null;
    this.#session = null;
    this.#changing = false;
    this.#sums.clear();
    this.#outputMs = 0;
    if (this.#pc) this.#on.ending();
    this.#pc?.close();
    this.#pc = null;
    this.#audio = { concealed: 0, total: 0 };
  }

  // every timer belongs to one attempt and dies with it
  #later(action, delayMs) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      action();
    }, delayMs);
    this.#timers.add(timer);
    return timer;
  }

  #every(action, periodMs) {
    this.#timers.add(setInterval(action, periodMs));
  }

  #cancel(timer) {
    clearTimeout(timer);
    this.#timers.delete(timer);
  }
}
