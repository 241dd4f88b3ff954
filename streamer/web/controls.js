/** The movement panel: sliders and switches, remembered for each avatar, saved with it when asked. */

import { el, make } from "./dom.js";
import { makeRow, resetButton } from "./rows.js";
import { DEFAULTS, GROUPS, LOOKS, defaultsOf, holds, sane, same, startingValues } from "./settings.js";
import { lasting, passing } from "./store.js";

const STORE_KEY = "controls";
// sliders fire on every pixel; the server needs no more than one setting per frame
const SEND_EVERY_MS = 40;
const STATES = {
  none: "Nothing is saved with this avatar yet.",
  saving: "Saving",
  saved: "Saved with this avatar.",
  changed: "Changed since it was saved.",
};

/** The name of an upload is a secret that ends with the tab, and so does what is kept under it. */
const storeOf = (avatar) => (avatar.startsWith("u-") ? passing : lasting);

export class Controls {
  values = { ...DEFAULTS };
  #emotions = [];
  #avatar = null;
  #saved = null;
  #busy = false;
  #onChange;
  #onSave;
  #tell;
  #timer = 0;
  #draws = [];

  /**
   * @param {{onChange: (values: object) => void, tell: (text: string, level?: "info" | "error") => void,
   *   onSave: (avatar: string, values: object) => Promise<{controls: object, kept: "file" | "memory"}>}} parts
   */
  constructor({ onChange, onSave, tell }) {
    this.#onChange = onChange;
    this.#onSave = onSave;
    this.#tell = tell;
    el("looks").append(...LOOKS.map((look) => this.#look(look)));
    el("settings").append(...GROUPS.map((group) => this.#group(group)));
    const all = () => this.#set(DEFAULTS);
    const reset = resetButton({ class: "reset", id: "reset-all" }, all, "Reset all");
    el("movement-head").append(reset.element);
    this.#draws.push(() => reset.draw(!same(this.values, DEFAULTS)));
    el("save").addEventListener("click", () => void this.#save());
    el("revert").addEventListener("click", () => this.#state === "changed" && this.#set(this.#saved));
    this.#draw();
  }

  /** The emotions that the server knows, by name. */
  set emotions(names) {
    this.#emotions = names;
    this.#draw();
  }

  /** Shows what this browser remembers of `avatar`; what is saved with it comes with the call. */
  show(avatar) {
    if (avatar === this.#avatar) return;
    this.#avatar = avatar;
    const kept = this.#remembered();
    this.#saved = kept?.saved ? sane(kept.saved, this.#emotions) : null;
    this.values = kept ? sane(kept.values, this.#emotions) : { ...DEFAULTS };
    this.#draw();
  }

  /** The avatar goes by another name: what is remembered of it goes along. */
  renamed(from, to) {
    if (from === to) return;
    const { [from]: kept, ...others } = storeOf(from).read(STORE_KEY) ?? {};
    if (kept) {
      storeOf(from).write(STORE_KEY, others);
      storeOf(to).write(STORE_KEY, { ...storeOf(to).read(STORE_KEY), [to]: kept });
    }
    if (this.#avatar === from) this.#avatar = to;
  }

  /** What was saved with `avatar` as far as this browser knows, or null. */
  savedWith(avatar) {
    return storeOf(avatar).read(STORE_KEY)?.[avatar]?.saved ?? null;
  }

  /** @param {object | null} saved what the server has saved with the avatar shown */
  adopt(saved) {
    this.values = startingValues(this.#remembered(), saved, this.#emotions);
    this.#saved = saved && sane(saved, this.#emotions);
    this.#remember();
    this.#draw();
  }

  #look({ title, values }) {
    const button = make("button", { type: "button", class: "chip", onclick: () => this.#set(values) }, title);
    this.#draws.push(() => button.setAttribute("aria-pressed", String(holds(this.values, values))));
    return button;
  }

  #group(group) {
    const defaults = defaultsOf(group.rows);
    const says = `Reset ${group.title.toLowerCase()}`;
    const reset = resetButton({ class: "reset", "aria-label": says, title: says }, () => this.#set(defaults), "Reset");
    const rows = group.rows.map((row) => makeRow(row, group, (name, value) => this.#set({ [name]: value })));
    this.#draws.push(() => {
      reset.draw(!holds(this.values, defaults));
      for (const row of rows) row.draw(this.values, this.#emotions);
    });
    const title = make("h3", { id: `${group.id}-title` }, group.title);
    return make(
      "section",
      { class: "settings", id: group.id, role: "group", "aria-labelledby": title.id },
      make("header", { class: "group-head" }, title, reset.element),
      ...rows.map((row) => row.element),
    );
  }

  #set(changes) {
    this.values = { ...this.values, ...changes };
    this.#remember();
    this.#draw();
    if (this.#timer) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.#onChange(this.values);
    }, SEND_EVERY_MS);
  }

  async #save() {
    const avatar = this.#avatar;
    if (el("save").getAttribute("aria-disabled") === "true") return;
    this.#busy = true;
    this.#draw();
    try {
      const { controls, kept } = await this.#onSave(avatar, this.values);
      if (avatar !== this.#avatar) return;
      this.#saved = sane(controls, this.#emotions);
      this.#remember();
      if (kept === "memory") this.#tell("Saved until the server ends: this avatar has no file of its own.");
    } catch (error) {
      this.#tell(error.message, "error");
    } finally {
      this.#busy = false;
      this.#draw();
    }
  }

  #draw() {
    for (const draw of this.#draws) draw();
    const state = this.#state;
    // disabled by name only: focus must not get lost in the page
    el("save").setAttribute("aria-disabled", String(!this.#avatar || !["none", "changed"].includes(state)));
    el("revert").setAttribute("aria-disabled", String(state !== "changed"));
    el("revert").hidden = !this.#saved;
    if (el("save-state").textContent !== STATES[state]) el("save-state").textContent = STATES[state];
  }

  get #state() {
    if (this.#busy) return "saving";
    if (!this.#saved) return "none";
    if (!same(this.#saved, this.values)) return "changed";
    return "saved";
  }

  #remembered() {
    return this.#avatar ? (storeOf(this.#avatar).read(STORE_KEY)?.[this.#avatar] ?? null) : null;
  }

  #remember() {
    if (!this.#avatar) return;
    const store = storeOf(this.#avatar);
    store.write(STORE_KEY, { ...store.read(STORE_KEY), [this.#avatar]: { values: this.values, saved: this.#saved } });
  }
}
