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

  /** @param {{name: string, text?: string, inS?: number}} phase of the call */
  draw({ name, text, inS }) {
    clearTimeout(this.#timer);
    if (name === "connected") {
      el("veil").hidden = true;
      return;
    }
    if (!this.#mayCover()) return;
    const show = () => {
      el("veil-spinner").hidden = name === "refused";
      el("veil-text").textContent = text ?? "Connecting";
      el("veil-detail").textContent = name === "waiting" ? `Trying again in ${inS} s` : "";
      el("veil-retry").hidden = name === "connecting";
      el("veil").hidden = false;
    };
    if (name === "connecting" && el("veil").hidden) this.#timer = setTimeout(show, AFTER_MS);
    else show();
  }
}
