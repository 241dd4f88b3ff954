/**
 * When the server no longer has what a call needs (it was started again, newer photos took the place): the last
 * picture is held, it is said, and what the tab still has is sent again. Never does another face go live by itself.
 */

import { backoffS } from "./call.js";

const CHOOSE = "Choose another avatar, or add a photo, and the call goes on.";
const HELD = "Until you choose, nobody else is shown. Add the photo again, or choose another avatar.";
const SECRET = /^u-/;
const MOST_TRIES = 3; // of what the server refuses

/** What is said of an avatar that is not there: `title` is what the visitor knows it by, if anything. */
export function lostWords(name, title) {
  if (title) return { text: `“${title}” is no longer on the server.`, detail: HELD };
  if (SECRET.test(name)) return { text: "The avatar of this address is no longer on the server.", detail: HELD };
  return { text: `There is no avatar called “${name}” here.`, detail: CHOOSE };
}

/** What is said while it is made again. */
export const makingWords = (title) => ({
  text: `The server no longer has “${title}”.`,
  detail: "It was started again, or newer photos took the place. The avatar is made again from what you added here.",
});

export class Lost {
  #parts;
  #asked = null;
  #turn = 0;
  #attempts = 0;
  #shown = null;

  /**
   * @param {{origins: Origins, bare: boolean,
   *   chosen: () => string | null, title: (name: string) => string | null,
   *   remake: (name: string, origin: object) => Promise<string>, resendPicture: () => Promise<boolean>,
   *   dropPicture: () => void, show: (phase: object) => void, start: () => void, add: () => void,
   *   later?: (action: () => void, ms: number) => void}} parts
   *   `remake` gives the new name; `resendPicture` is false where the tab has no picture to send; `add` asks for a photo
   */
  constructor(parts) {
    this.#parts = { later: (action, ms) => setTimeout(action, ms), ...parts };
  }

  /** A call begins with the avatar `name`: what was tried for another is over. */
  asked(name) {
    this.#turn += 1;
    if (name !== this.#asked) this.#attempts = 0;
    this.#asked = name;
    if (name) this.#shown = null;
  }

  /** It went well. */
  found() {
    this.#attempts = 0;
  }

  /** @returns {boolean} whether this refusal of the server is dealt with here */
  refused({ name, status, text }) {
    if (name !== "refused") return false;
    if (status === 410) void this.#background(text);
    else if (status === 404) void this.#avatar();
    else return false;
    return true;
  }

  /** No avatar is chosen. */
  nobody() {
    this.#show(this.#shown ?? { text: "No avatar is here yet.", detail: "Add a photo to make one.", add: "Add a photo" });
  }

  /** The visitor deleted the avatar of the call, here or in another tab. */
  deleted(title, elsewhere = false) {
    this.#turn += 1;
    const text = elsewhere ? `“${title}” was deleted in another tab.` : `You deleted “${title}”.`;
    this.#show({ text, detail: CHOOSE, add: "Add a photo" });
  }

  async #avatar() {
    const name = this.#asked;
    const { chosen, origins, title, start } = this.#parts;
    if (chosen() !== name) {
      // it goes by another name by now: it was kept on this computer, or renamed
      start();
      return;
    }
    const origin = origins.of(name);
    if (!origin) {
      const words = lostWords(name, title(name));
      // the page that made it may bring it back under its name
      if (this.#parts.bare) this.#again(words.text, start);
      else this.#show({ ...words, add: title(name) ? "Add the photo again" : "Add a photo" });
      return;
    }
    const turn = this.#turn;
    this.#parts.show({ name: "making", ...makingWords(title(name) ?? "your avatar") });
    try {
      await this.#parts.remake(name, origin);
      if (turn === this.#turn) start();
    } catch (error) {
      if (turn !== this.#turn) return;
      // it was good before: a computer that is busy with its start may have given it up
      if (error.passing || this.#attempts < MOST_TRIES) this.#again(error.message, () => void this.#avatar());
      else this.#show({ text: error.message, detail: HELD, add: "Add the photo again" });
    }
  }

  async #background(text) {
    const turn = this.#turn;
    const { resendPicture, dropPicture, start, bare } = this.#parts;
    try {
      this.#parts.show({ name: "making", text: "The server no longer has your background.", detail: "It is sent again." });
      const sent = await resendPicture();
      if (turn !== this.#turn) return;
      if (sent) start();
      else if (bare) this.#again("The background picture is gone. Choose it again on the page.", start);
      else dropPicture(text);
    } catch (error) {
      if (turn !== this.#turn) return;
      if (error.passing) this.#again(error.message, () => void this.#background(text));
      else dropPicture(error.message);
    }
  }

  #again(text, action) {
    const turn = this.#turn;
    const { show, later } = this.#parts;
    const tick = (inS) => {
      if (turn !== this.#turn) return;
      if (inS <= 0) {
        action();
        return;
      }
      show({ name: "waiting", text, inS });
      later(() => tick(inS - 1), 1000);
    };
    this.#attempts += 1;
    tick(backoffS(this.#attempts));
  }

  #show({ text, detail, add }) {
    this.#shown = { text, detail, add };
    this.#parts.show({ name: "lost", text, detail, action: { label: add, run: this.#parts.add } });
  }
}
