/** What covers the picture while there is no call: why, and when it is tried again. */

import { el } from "./dom.js";

// a quick change of avatar needs no veil; a slow one must explain itself
const AFTER_MS = 700;

export class Veil {
  #mayCover;
  #timer = 0;

  /** @param {() => boolean} mayCover asked before the veil is drawn over the picture */
  constructor(mayCover) {
    this.#mayCover = mayCover;
  }

  /** What the button does, where that is not to try again. */
  action = null;

  /**
   * @param {{name: string, text?: string, detail?: string, inS?: number, action?: {label: string, run: () => void}}} phase
   *   of the call
   */
  draw({ name, text, detail, inS, action }) {
    clearTimeout(this.#timer);
    this.action = action ?? null;
    if (name === "connected") {
      el("veil").hidden = true;
      return;
    }
    if (!this.#mayCover()) return;
    const show = () => {
      el("veil-spinner").hidden = name === "refused" || name === "lost";
      el("veil-text").textContent = text ?? "Connecting";
      el("veil-detail").textContent = name === "waiting" ? `Trying again in ${inS} s` : (detail ?? "");
      el("veil-retry").textContent = action?.label ?? "Try now";
      el("veil-retry").hidden = name === "connecting" || name === "making";
      el("veil").hidden = false;
    };
    if (name === "connecting" && el("veil").hidden) this.#timer = setTimeout(show, AFTER_MS);
    else show();
  }
}
