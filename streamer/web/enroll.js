/** Making an avatar from a photo or an `.avatar` file: picker or drop, consent, progress, and errors in place. */

import { makeAvatar } from "./api.js";
import { el } from "./dom.js";

const LARGEST_BYTES = 60 * 1024 * 1024;

export const isAvatarFile = ({ name }) => name.toLowerCase().endsWith(".avatar");

/** What is said of the consent that an `.avatar` file holds. */
export function consentNotice(title, consent) {
  if (!consent) return `“${title}” holds no record of consent. Use it only if the person in it agreed.`;
  const when = new Date(consent.given_utc);
  const day = Number.isNaN(when.getTime()) ? "" : ` on ${when.toLocaleDateString(undefined, { dateStyle: "long" })}`;
  return `“${title}”: ${consent.name} agreed${day}.`;
}

/** The sentence to show for a file that is not worth sending, or null. */
export function objection({ name, type, size }) {
  if (size === 0) return `“${name}” is empty. Choose another photo.`;
  if (size > LARGEST_BYTES) return `“${name}” is larger than 60 MB. Save a smaller copy and choose that.`;
  // some systems give HEIC and AVIF no type at all: the server decides about those
  if (isAvatarFile({ name })) return null;
  if (type && !type.startsWith("image/")) return `“${name}” is not a picture. Choose a photo such as a JPEG or PNG.`;
  return null;
}

export class Enroll {
  #photo = null;
  #abort = null;
  #thumbUrl = null;
  #onMade;

  #again;

  /**
   * @param {(avatar: {name: string, title: string, notices: string[]}, origin: {file: File, consent: string | null},
   *   remark: string | null) => void} onMade
   * @param {(title: string) => string | null} again the name that an avatar of that title had, if it is the one that is missed
   */
  constructor(onMade, again = () => null) {
    this.#onMade = onMade;
    this.#again = again;
    el("photo").addEventListener("change", () => {
      const [photo] = el("photo").files;
      if (photo) this.offer(photo);
      // the same file chosen twice must be noticed twice
      el("photo").value = "";
    });
    el("enroll").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#send();
    });
    el("enroll-cancel").addEventListener("click", () => this.#cancel());
    this.#bindDrop();
  }

  /** Shows the form for `photo`. */
  offer(photo, remark = null) {
    this.#abort?.abort();
    const problem = objection(photo);
    this.#photo = problem ? null : photo;
    el("enroll").hidden = false;
    el("enroll-file").textContent = photo.name;
    this.#thumb(problem || isAvatarFile(photo) ? null : photo);
    this.#busy(false);
    const isAvatar = isAvatarFile(photo);
    el("enroll-question").hidden = Boolean(problem) || isAvatar;
    el("enroll-go").hidden = Boolean(problem) || isAvatar;
    this.#error(problem ?? remark);
    el("enroll").scrollIntoView({ block: "nearest" });
    if (problem) return;
    // who agreed is in the file: there is nothing to ask
    if (isAvatar) void this.#make(null, remark);
    else el("consent").focus({ preventScroll: true });
  }

  async #send() {
    const consent = el("consent").value.trim();
    if (!this.#photo || this.#abort) return;
    if (!consent) {
      this.#error("Type the name of the person who agreed.");
      el("consent").setAttribute("aria-invalid", "true");
      el("consent").focus();
      return;
    }
    await this.#make(consent);
  }

  /** @param {string | null} consent null: the file is an avatar @param {string | null} remark said when it is made */
  async #make(consent, remark = null) {
    const file = this.#photo;
    const abort = new AbortController();
    this.#abort = abort;
    this.#error(null);
    this.#busy(true);
    try {
      const again = this.#again(file.name.replace(/\.[^.]*$/, ""));
      const avatar = await makeAvatar(file, consent, (share) => this.#progress(share), abort.signal, again);
      this.#close();
      this.#onMade(avatar, { file, consent }, remark);
    } catch (error) {
      if (abort.signal.aborted) return;
      this.#busy(false);
      this.#error(error.message);
      (consent === null ? el("enroll-cancel") : el("enroll-go")).focus();
    } finally {
      if (this.#abort === abort) this.#abort = null;
    }
  }

  #cancel() {
    this.#abort?.abort();
    this.#close();
    el("photo").focus();
  }

  #close() {
    this.#photo = null;
    this.#thumb(null);
    this.#busy(false);
    el("enroll").hidden = true;
    // each photo is a person of its own: the last name must not slip into the next record
    el("consent").value = "";
  }

  #busy(busy) {
    el("enroll-progress").hidden = !busy;
    el("enroll-go").disabled = busy;
    el("consent").readOnly = busy;
    if (busy) this.#progress(0);
  }

  #progress(share) {
    if (share < 1) el("enroll-bar").value = share;
    else el("enroll-bar").removeAttribute("value");
    const step = share < 1 ? `Sending the file, ${Math.round(share * 10) * 10} %` : "Making the avatar";
    if (el("enroll-step").textContent !== step) el("enroll-step").textContent = step;
  }

  #error(text) {
    el("enroll-error").textContent = text ?? "";
    el("enroll-error").hidden = !text;
    el("consent").removeAttribute("aria-invalid");
  }

  #thumb(photo) {
    if (this.#thumbUrl) URL.revokeObjectURL(this.#thumbUrl);
    this.#thumbUrl = photo ? URL.createObjectURL(photo) : null;
    const image = el("enroll-thumb");
    image.hidden = true;
    image.onload = () => (image.hidden = false);
    if (this.#thumbUrl) image.src = this.#thumbUrl;
    else image.removeAttribute("src");
  }

  #bindDrop() {
    const target = el("drop-target");
    const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    window.addEventListener("dragenter", (event) => holdsFiles(event) && (target.hidden = false));
    window.addEventListener("dragover", (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
    });
    // leaving the window, not merely one element of it, has no related target
    window.addEventListener("dragleave", (event) => !event.relatedTarget && (target.hidden = true));
    window.addEventListener("drop", (event) => {
      target.hidden = true;
      if (!holdsFiles(event)) return;
      event.preventDefault();
      const [photo, second] = event.dataTransfer.files;
      if (photo) this.offer(photo, second ? "Only the first of these files is used." : null);
    });
  }
}
