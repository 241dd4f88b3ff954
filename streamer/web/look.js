/** The look of the picture: what stands behind the avatar, and its shape. Remembered by this browser. */

import { ApiError, sendBackground } from "./api.js";
import { el } from "./dom.js";
import { objection } from "./enroll.js";
import { lasting } from "./store.js";

const STORE_KEY = "look";
const ASPECTS = ["1:1", "16:9"];
const KINDS = ["usual", "keep", "soft", "blur", "colour", "picture"];
const GREEN = "#00ff00";
// the avatar follows a colour that is being chosen
const PICK_EVERY_MS = 250;

/** Stored values made safe. A picture does not outlive the page: the server keeps it in memory only. */
export function saneLook(stored) {
  const given = stored ?? {};
  return {
    kind: KINDS.includes(given.kind) && given.kind !== "picture" ? given.kind : "usual",
    colour: /^#[0-9a-f]{6}$/.test(given.colour) ? given.colour : GREEN,
    aspect: ASPECTS.includes(given.aspect) ? given.aspect : null,
    picture: null,
  };
}

/** What the server is asked for; what is left out is as it was started. */
export function askedLook({ kind, colour, aspect, picture }) {
  const background = { keep: "keep", soft: "soft", blur: "blur", colour, picture: picture ?? undefined }[kind];
  return { background, aspect: aspect ?? undefined };
}

export class Look {
  #values;
  #usual = { background: "keep", aspect: "1:1" };
  #onChange;
  #abort = null;
  #picking = 0;
  // the picture itself, should the server lose it
  #file = null;

  /** @param {{onChange: () => void, asked: {background: string | null, aspect: string | null}}} parts */
  constructor({ onChange, asked }) {
    this.#onChange = onChange;
    this.#values = saneLook(lasting.read(STORE_KEY));
    if (asked.aspect) this.#values.aspect = asked.aspect;
    if (asked.background) Object.assign(this.#values, kindOf(asked.background, this.#values.colour));
    el("background").addEventListener("change", () => this.#choose(el("background").value));
    el("background-colour").addEventListener("input", () => {
      this.#picking ||= setTimeout(() => this.#pick(), PICK_EVERY_MS);
    });
    el("background-colour").addEventListener("change", () => this.#pick());
    el("background-file").addEventListener("change", () => {
      const [file] = el("background-file").files;
      el("background-file").value = "";
      if (file) void this.#send(file);
    });
    el("background-file").addEventListener("cancel", () => this.#draw());
    for (const radio of document.querySelectorAll("input[name=aspect]")) {
      radio.addEventListener("change", () => radio.checked && this.#set({ aspect: radio.value }));
    }
    this.#draw();
  }

  /** How the server was started: what holds until the visitor chooses. */
  set usual(look) {
    this.#usual = look ?? this.#usual;
    this.#draw();
  }

  /** For the offer and the address. */
  get asked() {
    return askedLook(this.#values);
  }

  /** Sends the picture that the server has lost once more; false where this tab has none. Throws ApiError. */
  async resendPicture() {
    if (!this.#file) return false;
    const { name } = await sendBackground(this.#file, undefined, this.#values.picture);
    this.#values = { ...this.#values, picture: name };
    return true;
  }

  /** The server has lost the picture, and so has this tab. */
  forgetPicture() {
    this.#file = null;
    this.#values = { ...this.#values, kind: "usual", picture: null };
    this.#draw();
  }

  /** What was chosen cannot be: the call stays with this look. */
  stay({ background, aspect }) {
    const known = background ? kindOf(background, this.#values.colour) : { kind: "usual" };
    this.#values = { ...this.#values, ...known, aspect: aspect ?? null };
    this.#remember();
    this.#draw();
  }

  #pick() {
    clearTimeout(this.#picking);
    this.#picking = 0;
    if (el("background-colour").value !== this.#values.colour) this.#set({ colour: el("background-colour").value });
  }

  #choose(kind) {
    if (kind === "picture" && !this.#values.picture) {
      // nothing changes until there is a picture
      el("picture-row").hidden = false;
      el("background-file").click();
      return;
    }
    this.#abort?.abort();
    el("background-state").textContent = kind === "picture" ? (this.#file?.name ?? "") : "";
    this.#set({ kind });
  }

  #set(changes) {
    this.#values = { ...this.#values, ...changes };
    this.#remember();
    this.#error(null);
    this.#draw();
    this.#onChange();
  }

  #remember() {
    const { kind, colour, aspect } = this.#values;
    lasting.write(STORE_KEY, { kind, colour, aspect });
  }

  async #send(file) {
    const problem = objection(file);
    if (problem) {
      this.#error(problem);
      return;
    }
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    this.#error(null);
    el("background-state").textContent = "Sending the picture";
    try {
      const { name } = await sendBackground(file, abort.signal);
      if (abort.signal.aborted) return;
      el("background-state").textContent = file.name;
      this.#file = file;
      this.#set({ kind: "picture", picture: name });
    } catch (error) {
      if (abort.signal.aborted) return;
      el("background-state").textContent = "";
      this.#error(error instanceof ApiError ? error.message : "The picture could not be sent. Try again.");
    }
  }

  #error(text) {
    el("background-error").textContent = text ?? "";
    el("background-error").hidden = !text;
  }

  #draw() {
    const { kind, colour, aspect } = this.#values;
    // a started server's keep, soft and blur are choices of their own; its colour or picture is not known here
    const own = ["keep", "soft", "blur"].includes(this.#usual.background);
    el("background-usual").hidden = own;
    el("background").value = kind === "usual" && own ? this.#usual.background : kind;
    el("background-colour").value = colour;
    el("colour-row").hidden = kind !== "colour";
    el("picture-row").hidden = kind !== "picture";
    for (const radio of document.querySelectorAll("input[name=aspect]")) {
      radio.checked = radio.value === (aspect ?? this.#usual.aspect);
    }
  }
}

/** An address's background as kind and value. */
function kindOf(background, colour) {
  if (background.startsWith("#")) return { kind: "colour", colour: background };
  if (background.startsWith("b-")) return { kind: "picture", picture: background };
  return { kind: background, colour };
}
