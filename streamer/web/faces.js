/** "All emotions": a sheet of the chosen avatar's faces, drawn by the server beside the calls, to look at and to save. */

import { drawEmotions } from "./api.js";
import { el } from "./dom.js";
import { fileName } from "./keeping.js";

const ABOUT = {
  presets: "Each emotion as the face's muscles make it: the same for everybody.",
  templates: "Each emotion as people with the most similar head showed it, for those that there are examples of.",
};

/** What the server is asked for. @param {"presets" | "templates"} kind @param {"sheet" | "pictures"} give */
export function wantedOf({ kind, generator }, give) {
  return generator ? { faces: kind, give, generator } : { faces: kind, give };
}

/** What a file of these faces is called. */
export const facesFile = (title, kind, give) => `${fileName(title)}-${kind}.${give === "sheet" ? "png" : "zip"}`;

export class Faces {
  #now;
  #work = null;
  #sheet = null;
  #url = null;

  /** @param {{now: () => {avatar: string | null, title: string, generator?: string}}} parts */
  constructor({ now }) {
    this.#now = now;
    el("faces").addEventListener("click", () => this.#open());
    el("faces-close").addEventListener("click", () => el("faces-dialog").close());
    el("faces-dialog").addEventListener("click", (event) => event.target === el("faces-dialog") && el("faces-dialog").close());
    // whoever goes away ends the work: it keeps the server from others'
    el("faces-dialog").addEventListener("close", () => this.#clear());
    for (const input of document.querySelectorAll("input[name=faces]")) input.addEventListener("change", () => void this.#draw());
    el("faces-save").addEventListener("click", () => this.#download(this.#sheet, "sheet"));
    el("faces-save-all").addEventListener("click", () => void this.#saveAll());
    el("faces-again").addEventListener("click", () => void this.#draw());
  }

  get #kind() {
    return document.querySelector("input[name=faces]:checked").value;
  }

  #open() {
    const { title } = this.#now();
    el("faces-title").textContent = title ? `All emotions of “${title}”` : "All emotions";
    el("faces-dialog").showModal();
    void this.#draw();
  }

  async #draw() {
    this.#clear();
    el("faces-about").textContent = ABOUT[this.#kind];
    const found = await this.#ask("sheet", "The server draws every face. That takes some seconds.");
    if (!found) return;
    this.#sheet = found;
    this.#url = URL.createObjectURL(found);
    el("faces-sheet").src = this.#url;
    el("faces-sheet").hidden = false;
    el("faces-save").disabled = false;
    el("faces-save-all").disabled = false;
  }

  async #saveAll() {
    el("faces-save-all").disabled = true;
    const found = await this.#ask("pictures", "The server draws them again, a file each.");
    if (found) this.#download(found, "pictures");
    el("faces-save-all").disabled = !this.#sheet;
  }

  /** What the server draws, or null where it did not, or nobody waits for it any more. */
  async #ask(give, words) {
    const { avatar, generator } = this.#now();
    this.#tell(null);
    if (!avatar) {
      this.#tell("Choose an avatar first, or add a photo.");
      return null;
    }
    this.#work?.abort();
    const work = (this.#work = new AbortController());
    el("faces-state").textContent = words;
    el("faces-dialog").setAttribute("aria-busy", "true");
    try {
      const found = await drawEmotions(avatar, wantedOf({ kind: this.#kind, generator }, give), work.signal);
      return work === this.#work ? found : null;
    } catch (error) {
      if (work === this.#work && error.name !== "AbortError") this.#tell(error.message);
      return null;
    } finally {
      if (work === this.#work) this.#rest();
    }
  }

  #tell(text) {
    el("faces-error").textContent = text ?? "";
    el("faces-error").hidden = !text;
    el("faces-again").hidden = !text;
  }

  #rest() {
    this.#work = null;
    el("faces-state").textContent = "";
    el("faces-dialog").setAttribute("aria-busy", "false");
  }

  #clear() {
    this.#work?.abort();
    this.#rest();
    this.#tell(null);
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = this.#sheet = null;
    el("faces-sheet").hidden = true;
    el("faces-sheet").removeAttribute("src");
    el("faces-save").disabled = true;
    el("faces-save-all").disabled = true;
  }

  #download(blob, give) {
    const url = URL.createObjectURL(blob);
    const name = facesFile(this.#now().title || "avatar", this.#kind, give);
    Object.assign(document.createElement("a"), { href: url, download: name }).click();
    // the browser reads it after the click
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }
}
