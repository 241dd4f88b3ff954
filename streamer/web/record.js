/** Records what drives the call, and downloads it. The server keeps it in memory, for this page alone. */

import { beginRecording, fetchRecording, forgetRecording } from "./api.js";
import { el } from "./dom.js";

const TOPIC = "recording";

/** Minutes and seconds, as on a recorder: 75 → "1:15". */
export const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

/** What the button says. @param {number | null} seconds of the recording that runs */
export const recordWords = (seconds) => (seconds === null ? "Record motion" : `Stop and download (${clock(seconds)})`);

/** A file's name that sorts by time: visavis-2030-01-02-13-45-06-motion.jsonl */
export function fileName(part, now = new Date()) {
  const two = (number) => String(number).padStart(2, "0");
  const day = [now.getFullYear(), two(now.getMonth() + 1), two(now.getDate())];
  return ["visavis", ...day, two(now.getHours()), two(now.getMinutes()), two(now.getSeconds()), part].join("-") + ".jsonl";
}

export class Record {
  #notices;
  #session = null;
  #sinceMs = null;
  #mostS = Infinity;
  #busy = false;
  #timer = null;

  /** @param {import("./notices.js").Notices} notices */
  constructor(notices) {
    this.#notices = notices;
    el("record").addEventListener("click", () => void this.#press());
    this.#draw();
  }

  /** A call begins; `session` is the name that only this page was told. */
  begin(session) {
    this.end();
    this.#session = session;
    this.#draw();
  }

  /** The call is over, and what it recorded is gone with it. */
  end() {
    if (this.#sinceMs !== null) this.#notices.show("The call ended, and its recording is gone.", "error");
    this.#session = null;
    this.#stop();
  }

  async #press() {
    if (this.#busy || !this.#session) return;
    this.#busy = true;
    this.#draw();
    const session = this.#session;
    try {
      if (this.#sinceMs === null) await this.#start(session);
      else await this.#save(session);
    } catch (error) {
      this.#notices.show(error.message, "error");
    }
    this.#busy = false;
    this.#draw();
  }

  async #start(session) {
    const { most_s: mostS } = await beginRecording(session);
    if (session !== this.#session) return;
    this.#mostS = mostS;
    this.#sinceMs = performance.now();
    this.#timer = setInterval(() => this.#tick(), 1000);
  }

  async #save(session) {
    this.#stop();
    for (const part of ["motion", "trace"]) download(await fetchRecording(session, part), fileName(part));
    await forgetRecording(session);
    this.#notices.show("Two files were downloaded: motion for “visavis animate --driver”, trace for “visavis latency”.", "info", { topic: TOPIC, staysMs: 12_000 });
  }

  #tick() {
    // it has stopped by itself, and is worth nothing once the call is over
    if ((performance.now() - this.#sinceMs) / 1000 >= this.#mostS) void this.#press();
    this.#draw();
  }

  #stop() {
    clearInterval(this.#timer);
    this.#sinceMs = null;
    this.#draw();
  }

  #draw() {
    const seconds = this.#sinceMs === null ? null : (performance.now() - this.#sinceMs) / 1000;
    el("record").textContent = recordWords(seconds);
    el("record").disabled = this.#busy || !this.#session;
    el("record").setAttribute("aria-pressed", String(seconds !== null));
    el("stage").toggleAttribute("data-recording", seconds !== null);
  }
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  // the browser reads it after the click
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
