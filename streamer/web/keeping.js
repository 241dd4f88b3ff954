/** What can be done with the chosen avatar as a file: download it, keep it on this computer, rename it, delete it. */

import { downloadAvatar, keepAvatar, renameAvatar } from "./api.js";
import { el } from "./dom.js";

const FORMS = {
  keep: {
    label: "Keep it under the name",
    hint: (folder) =>
      `The avatar, with the photo in it, will lie as a file in ${folder} on this computer. Who can use your account ` +
      "here can read it, and this page offers it to whoever opens the page on this computer. Delete it here at any " +
      "time, or with “visavis avatars delete”.",
    go: "I agree: keep it",
  },
  rename: { label: "New name", hint: () => "“visavis run” and this page know it by this name.", go: "Rename" },
  delete: {
    hint: () => "Its file on this computer and the photo in it are deleted. This cannot be undone.",
    go: "Delete it",
  },
};

export class Keeping {
  #avatar = null;
  #folder = null;
  #form = null;
  #on;

  /**
   * @param {{kept: (from: string, avatar: object) => void, renamed: (from: string, avatar: object) => void,
   *   remove: (avatar: object) => Promise<void>, tell: (text: string, level?: string) => void}} on
   */
  constructor(on) {
    this.#on = on;
    el("own-download").addEventListener("click", () => void this.#download());
    el("own-keep").addEventListener("click", () => this.#ask("keep"));
    el("own-rename").addEventListener("click", () => this.#ask("rename"));
    el("own-delete").addEventListener("click", () => this.#ask("delete"));
    el("own-cancel").addEventListener("click", () => this.#close());
    el("own-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#go();
    });
  }

  /** @param {{name: string, title: string, kind: "upload" | "kept" | "given"} | null} avatar @param {string | null} folder */
  show(avatar, folder) {
    if (avatar?.name !== this.#avatar?.name) this.#close();
    this.#avatar = avatar;
    this.#folder = folder;
    const { kind } = avatar ?? {};
    el("own").hidden = kind !== "upload" && kind !== "kept";
    el("own-keep").hidden = kind !== "upload" || !folder;
    el("own-rename").hidden = kind !== "kept";
    el("own-delete").hidden = kind !== "kept";
    el("own-hint").textContent =
      kind === "upload"
        ? "Only this tab has this avatar, until the server ends."
        : `Kept on this computer. In a terminal: visavis run ${avatar?.name ?? ""} --to virtualcam`;
  }

  #ask(which) {
    const { label, hint, go } = FORMS[which];
    this.#form = which;
    el("own-name-row").hidden = !label;
    el("own-name-label").textContent = label ?? "";
    el("own-name").value = this.#avatar.title;
    el("own-form-hint").textContent = hint(this.#folder);
    el("own-go").textContent = which === "delete" ? `Delete “${this.#avatar.title}”` : go;
    this.#error(null);
    el("own-form").hidden = false;
    el("own-form").scrollIntoView({ block: "nearest" });
    if (label) {
      el("own-name").focus({ preventScroll: true });
      el("own-name").select();
    } else el("own-cancel").focus();
  }

  async #go() {
    const avatar = this.#avatar;
    const name = el("own-name").value.trim();
    if (this.#form !== "delete" && !name) {
      this.#error("Type a name.");
      return;
    }
    el("own-go").disabled = true;
    try {
      if (this.#form === "keep") this.#on.kept(avatar.name, await keepAvatar(avatar.name, name));
      else if (this.#form === "rename") this.#on.renamed(avatar.name, await renameAvatar(avatar.name, name));
      else await this.#on.remove(avatar);
      this.#close();
    } catch (error) {
      this.#error(error.message);
    } finally {
      el("own-go").disabled = false;
    }
  }

  async #download() {
    const { name, title } = this.#avatar;
    el("own-download").disabled = true;
    try {
      const url = URL.createObjectURL(await downloadAvatar(name));
      Object.assign(document.createElement("a"), { href: url, download: `${fileName(title)}.avatar` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      this.#on.tell(error.message, "error");
    } finally {
      el("own-download").disabled = false;
    }
  }

  #close() {
    this.#form = null;
    el("own-form").hidden = true;
    this.#error(null);
  }

  #error(text) {
    el("own-error").textContent = text ?? "";
    el("own-error").hidden = !text;
  }
}

/** A title as a file's name: letters, digits, - and _. */
export const fileName = (title) => title.replace(/[^\p{L}\p{N}_-]+/gu, "-").replace(/^[-_]+|[-_]+$/g, "") || "avatar";
