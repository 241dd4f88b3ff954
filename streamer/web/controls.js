/** The motion settings: two strengths and the pose switch, remembered in this browser. */

import { lasting } from "./store.js";

const STORE_KEY = "motion";
const DEFAULTS = { expression: 1, head: 1, motion: "relative" };
const HINTS = {
  relative: "Your movement is added to the pose in the photo.",
  absolute: "The avatar takes your exact pose and expression.",
};
// sliders fire on every pixel; the server needs no more than one setting per frame
const SEND_EVERY_MS = 40;

/** Stored settings made safe: whatever is missing or out of range becomes the default. */
export function sane(stored) {
  const strength = (value, fallback) => (Number.isFinite(value) && value >= 0 && value <= 2 ? value : fallback);
  return {
    expression: strength(stored?.expression, DEFAULTS.expression),
    head: strength(stored?.head, DEFAULTS.head),
    motion: Object.hasOwn(HINTS, stored?.motion) ? stored.motion : DEFAULTS.motion,
  };
}

export class Controls {
  values = sane(lasting.read(STORE_KEY));
  #onChange;
  #timer = 0;

  /** @param {(values: {expression: number, head: number, motion: string}) => void} onChange */
  constructor(onChange) {
    this.#onChange = onChange;
    for (const name of ["expression", "head"]) this.#bindSlider(name);
    for (const radio of document.querySelectorAll("input[name=motion]")) {
      radio.checked = radio.value === this.values.motion;
      radio.addEventListener("change", () => radio.checked && this.#set("motion", radio.value));
    }
    this.#hint();
  }

  #bindSlider(name) {
    const input = document.getElementById(name);
    const output = document.getElementById(`${name}-value`);
    const reset = document.getElementById(`${name}-reset`);
    const draw = () => {
      const value = this.values[name];
      input.value = String(value);
      const text = `${Math.round(value * 100)} %`;
      output.value = text;
      input.setAttribute("aria-valuetext", text);
      input.style.setProperty("--fill", `${value * 50}%`);
      // disabled and not hidden: the row must not jump, and focus must not get lost in the page
      reset.setAttribute("aria-disabled", String(value === DEFAULTS[name]));
    };
    input.addEventListener("input", () => {
      this.#set(name, Number(input.value));
      draw();
    });
    reset.addEventListener("click", () => {
      this.#set(name, DEFAULTS[name]);
      draw();
    });
    draw();
  }

  #set(name, value) {
    this.values = { ...this.values, [name]: value };
    lasting.write(STORE_KEY, this.values);
    this.#hint();
    if (this.#timer) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.#onChange(this.values);
    }, SEND_EVERY_MS);
  }

  #hint() {
    document.getElementById("motion-hint").textContent = HINTS[this.values.motion];
  }
}
