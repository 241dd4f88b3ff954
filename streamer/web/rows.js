/** One row of the movement panel for each kind of setting. A row shows values and reports changes; it keeps none. */

import { icon, make } from "./dom.js";
import { CHOICES, DEFAULTS, STRENGTH, emotionTitle, isDefault, percent } from "./settings.js";

const TURN_BACK = "M5 5v5h5M5.6 10A7.5 7.5 0 1 1 4.5 14";

/**
 * @typedef {{element: HTMLElement, draw: (values: object) => void}} Row
 * @typedef {(name: string, value: number | boolean | string) => void} Change
 */

/** A small button that puts settings back; out of sight and out of the way while there is nothing to put back. */
export function resetButton(attributes, onReset, ...children) {
  const button = make("button", { type: "button", ...attributes }, ...children);
  button.addEventListener("click", () => button.getAttribute("aria-disabled") !== "true" && onReset());
  return {
    element: button,
    // disabled by name only: focus must not get lost in the page
    draw(needed) {
      button.setAttribute("aria-disabled", String(!needed));
      button.tabIndex = needed ? 0 : -1;
    },
  };
}

/** @returns {Row} */
function slider({ name, label, title, needs, range = STRENGTH }, group, change) {
  const back = () => change(name, DEFAULTS[name]);
  const input = make("input", { id: name, type: "range", "aria-describedby": `${group.id}-title`, ...range });
  const output = make("output", { id: `${name}-value`, for: name, "aria-live": "off" });
  const says = `Reset ${group.title.toLowerCase()}, ${label.toLowerCase()}, to ${percent(DEFAULTS[name])}`;
  const reset = resetButton({ class: "undo", id: `${name}-reset`, "aria-label": says, title: says }, back, icon(TURN_BACK));
  const words = make("label", { for: name, ...(title && { title }) }, label);
  const element = make("div", { class: "slider" }, words, input, output, reset.element);
  input.addEventListener("input", () => change(name, Number(input.value)));
  for (const part of [words, input, output]) part.addEventListener("dblclick", back);
  return {
    element,
    draw(values) {
      const value = values[name];
      // while it is dragged the browser knows best
      if (Number(input.value) !== value) input.value = String(value);
      const text = percent(value);
      output.value = text;
      input.setAttribute("aria-valuetext", text);
      input.style.setProperty("--fill", `${(value / range.max) * 100}%`);
      reset.draw(!isDefault(values, name));
      input.disabled = needs ? !needs(values) : false;
      element.classList.toggle("idle", input.disabled);
    },
  };
}

/** @returns {Row} */
function toggle({ name, label, title, needs }, _, change) {
  const input = make("input", { id: name, type: "checkbox", role: "switch" });
  const element = make("label", { class: "toggle", ...(title && { title }) }, make("span", {}, label), input);
  input.addEventListener("change", () => change(name, input.checked));
  return {
    element,
    draw(values) {
      input.checked = values[name];
      input.disabled = needs ? !needs(values) : false;
      element.classList.toggle("idle", input.disabled);
    },
  };
}

/** @returns {Row} */
function choice({ name, label }, _, change) {
  const options = Object.entries(CHOICES[name]);
  const hint = make("p", { class: "quiet", id: `${name}-hint` });
  const radios = options.map(([value]) => make("input", { type: "radio", name, value }));
  const labels = options.map(([, [text]], k) => make("label", {}, radios[k], make("span", {}, text)));
  const fields = make("fieldset", { class: "switch", "aria-describedby": hint.id }, make("legend", {}, label), ...labels);
  for (const radio of radios) radio.addEventListener("change", () => radio.checked && change(name, radio.value));
  return {
    element: make("div", { class: "choice" }, fields, hint),
    draw(values) {
      for (const radio of radios) radio.checked = radio.value === values[name];
      const text = CHOICES[name][values[name]][1];
      if (hint.textContent !== text) hint.textContent = text;
    },
  };
}

/** @returns {Row} */
function emotion({ name, label }, _, change) {
  const select = make("select", { class: "field", id: name });
  select.addEventListener("change", () => change(name, select.value));
  return {
    element: make("div", { class: "select" }, make("label", { for: name }, label), select),
    draw(values, emotions) {
      if (select.length !== emotions.length + 1) {
        select.replaceChildren(new Option("None", "none"), ...emotions.map((each) => new Option(emotionTitle(each), each)));
      }
      select.value = values[name];
    },
  };
}

const KINDS = { slider, toggle, switch: choice, select: emotion };

/**
 * @param {{kind: string, name: string, label: string}} row one of `GROUPS`
 * @param {Change} change
 * @returns {Row}
 */
export const makeRow = (row, group, change) => KINDS[row.kind](row, group, change);
