/** Draws the statistics: the numbers, the stacked stage bar and its legend. The maths is in meter.js. */

import { el } from "./dom.js";
import { segments } from "./meter.js";
import { isThisComputer } from "./pace.js";

const STAGE_NAMES = {
  received: "Receive",
  decoded: "Decode",
  tracked: "Track",
  waited: "Wait",
  fitted: "Fit",
  rasterised: "Rasterise",
  generated: "Generate",
  composited: "Compose",
  encoded: "Encode",
  sent: "Send",
};
// sound has other things done to it on its way to the same picture
const VOICE_STAGE_NAMES = { ...STAGE_NAMES, received: "Packet of sound", decoded: "Look-ahead", tracked: "Follow" };
const REST_NAMES = { webcam: "Camera, network, screen", voice: "Network, screen", demo: "Network, screen" };
/** Of each way to drive: what the latency is called, and from where to where it goes. */
const LATENCIES = {
  webcam: ["Glass to glass", "From your camera to this screen"],
  voice: [
    "Voice to glass",
    "From your voice, as it reached the server, to this screen; your microphone's own delay cannot be measured here",
  ],
  demo: ["Server to glass", "From the server to this screen: the demo has no camera"],
};
const OTHER_CLOCK = "Not measured: the server is another computer, with a clock of its own";
// the tail of the server's clock: one on another machine keeps another time
const CLOCKS_DIFFER_MS = -5;

/**
 * What stands over the latency, and whether its numbers are worth showing. Only a camera's are told by this browser's
 * clock alone.
 * @param {{p50: number | null}} glass
 * @param {boolean} isHere the server runs on this computer
 */
export function latencyLabel(drive, { p50 }, isHere) {
  const [name, title] = LATENCIES[drive];
  const told = drive === "webcam" || isHere;
  return { name, title: told ? title : OTHER_CLOCK, usable: told && p50 !== null && p50 > CLOCKS_DIFFER_MS };
}

/** What a stage is called where `drive` moves the avatar. */
export function stageName(stage, drive) {
  if (stage === "rest") return REST_NAMES[drive];
  return (drive === "voice" ? VOICE_STAGE_NAMES : STAGE_NAMES)[stage] ?? stage;
}

const whole = (value) => (value === null ? "–" : String(Math.round(value)));

export class Hud {
  #root = el("hud");
  #toggle = el("hud-toggle");
  #parts = new Map();
  #generator = null;
  #skew = null;

  get shown() {
    return !this.#root.hidden;
  }

  set shown(shown) {
    this.#root.hidden = !shown;
    this.#toggle.setAttribute("aria-pressed", String(shown));
  }

  /** @param {object} stats what `window.visavis.stats()` returns */
  draw(stats, drive) {
    if (!this.shown) return;
    const { p50, p95 } = stats.glass_to_glass_ms;
    const { name, title, usable } = latencyLabel(drive, stats.glass_to_glass_ms, isThisComputer(location.hostname));
    el("hud-fps").textContent = stats.shown ? stats.fps.toFixed(1) : "–";
    el("hud-latency-name").textContent = name;
    el("hud-latency-name").title = title;
    el("hud-p50").textContent = usable ? whole(p50) : "–";
    el("hud-p95").textContent = usable ? whole(p95) : "–";
    el("hud-dropped").textContent = String(stats.dropped);
    el("hud-resolution").textContent = stats.resolution?.replace("x", " × ") ?? "–";
    this.#drawSkew(stats.skew_ms?.p50 ?? null);
    this.#drawGenerator(stats.generator ?? null);
    this.#drawStages(segments(stats), drive);
  }

  /** How much later than its sound the picture is seen; no line while there is no sound. */
  #drawSkew(skewMs) {
    if (skewMs === null && this.#skew === null) return;
    this.#skew ??= makeNumber(this.#root.querySelector(".numbers"), "Picture after sound", "hud-skew", "ms p50");
    this.#skew.textContent = whole(skewMs);
  }

  /** Which generator is at work; no line while nobody has said. */
  #drawGenerator(name) {
    if (name === null && this.#generator === null) return;
    this.#generator ??= makeNumber(this.#root.querySelector(".numbers"), "Generator", "hud-generator");
    this.#generator.textContent = name ?? "–";
  }

  #drawStages(parts, drive) {
    const name = (stage) => stageName(stage, drive);
    // between two calls the last bar stays, dimmed, so that the page does not jump
    this.#root.classList.toggle("stale", parts.length === 0);
    if (parts.length === 0) return;
    const stages = new Set(parts.map((part) => part.stage));
    for (const [stage, { segment, item }] of this.#parts) {
      if (stages.has(stage)) continue;
      segment.remove();
      item.remove();
      this.#parts.delete(stage);
    }
    for (const { stage, ms } of parts) {
      if (!this.#parts.has(stage)) this.#parts.set(stage, makePart(stage));
      const { segment, item, label, value } = this.#parts.get(stage);
      segment.style.flexGrow = String(ms);
      label.textContent = name(stage);
      value.textContent = `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
      el("hud-bar").append(segment);
      el("hud-legend").append(item);
    }
    const text = parts.map(({ stage, ms }) => `${name(stage)} ${ms} milliseconds`).join(", ");
    el("hud-bar").setAttribute("aria-label", text ? `Median time per stage: ${text}` : "No timings yet");
  }
}

/** One more entry of the list of numbers; gives the element that holds its value. */
function makeNumber(list, name, id, unit = "") {
  const entry = document.createElement("div");
  const label = document.createElement("dt");
  label.textContent = name;
  const holder = document.createElement("dd");
  const value = document.createElement("span");
  value.id = id;
  holder.append(value);
  if (unit) {
    const small = document.createElement("small");
    small.textContent = unit;
    holder.append(small);
  }
  entry.append(label, holder);
  list.append(entry);
  return value;
}

function makePart(stage) {
  const segment = document.createElement("span");
  segment.dataset.stage = stage;
  const item = document.createElement("li");
  const swatch = document.createElement("i");
  swatch.dataset.stage = stage;
  const label = document.createElement("span");
  const value = document.createElement("b");
  item.append(swatch, label, value);
  return { segment, item, label, value };
}
