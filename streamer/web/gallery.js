/** The choice of avatars: the server's own, and those made from photos in this tab. */

import { ApiError, avatarPicture, deleteAvatar, listAvatars } from "./api.js";
import { passing } from "./store.js";

const UPLOADS_KEY = "uploads";

/** Uploads live as long as the tab: their unguessable names are what keeps them private. */
function loadUploads() {
  const stored = passing.read(UPLOADS_KEY);
  if (!Array.isArray(stored)) return [];
  return stored.filter((each) => typeof each?.name === "string" && typeof each?.title === "string");
}

export class Gallery {
  chosen = null;
  generators = [];
  trackers = [];
  emotions = [];
  fallback = null;
  look = null;
  #tiles;
  #onChoose;
  #onError;
  #avatars = [];
  #uploads = loadUploads();
  #pictures = new Map();

  /** @param {{tiles: HTMLElement, onChoose: (name: string) => void, onError: (text: string) => void}} parts */
  constructor({ tiles, onChoose, onError }) {
    this.#tiles = tiles;
    this.#onChoose = onChoose;
    this.#onError = onError;
  }

  /** Fetches the server's list; `preferred` is chosen if it is named, else the server's default. */
  async load(preferred) {
    const { avatars, generators, trackers, emotions, default: fallback, look } = await listAvatars();
    this.#avatars = avatars;
    this.generators = generators ?? [];
    this.trackers = trackers ?? [];
    this.emotions = emotions ?? [];
    this.fallback = fallback;
    this.look = look ?? null;
    this.chosen = preferred ?? fallback;
    this.#draw();
  }

  /** What the chosen avatar is called. */
  get title() {
    return [...this.#avatars, ...this.#uploads].find(({ name }) => name === this.chosen)?.title ?? "";
  }

  add({ name, title }) {
    this.#uploads = [...this.#uploads.filter((each) => each.name !== name), { name, title }];
    this.#keep();
    this.#draw();
  }

  choose(name) {
    this.chosen = name;
    for (const input of this.#tiles.querySelectorAll("input")) input.checked = input.value === name;
    this.#onChoose(name);
  }

  /** The server no longer knows `name` (it was restarted, say). */
  forget(name) {
    this.#uploads = this.#uploads.filter((each) => each.name !== name);
    this.#avatars = this.#avatars.filter((each) => each.name !== name);
    const url = this.#pictures.get(name);
    if (url) URL.revokeObjectURL(url);
    this.#pictures.delete(name);
    this.#keep();
    this.#draw();
  }

  #keep() {
    passing.write(UPLOADS_KEY, this.#uploads);
  }

  #draw() {
    const own = this.#avatars.map((avatar) => this.#tile(avatar, false));
    const uploaded = this.#uploads.map((avatar) => this.#tile(avatar, true));
    this.#tiles.replaceChildren(...own, ...uploaded);
  }

  #tile({ name, title }, isUpload) {
    const tile = document.createElement("div");
    tile.className = "tile";
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "avatar", value: name, checked: name === this.chosen });
    input.className = "unseen";
    input.addEventListener("change", () => input.checked && this.choose(name));
    const image = document.createElement("img");
    image.alt = "";
    image.decoding = "async";
    const caption = document.createElement("span");
    caption.textContent = title;
    caption.title = title;
    label.append(input, image, caption);
    tile.append(label);
    if (isUpload) tile.append(this.#deleteButton(name, title));
    void this.#fill(image, name, isUpload);
    return tile;
  }

  #deleteButton(name, title) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "tile-delete";
    button.textContent = "×";
    button.title = "Delete this avatar and its photo from the server";
    button.setAttribute("aria-label", `Delete the avatar ${title}`);
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await deleteAvatar(name);
      } catch (error) {
        if (error.status !== 404) {
          this.#onError(error.message);
          button.disabled = false;
          return;
        }
      }
      const wasChosen = this.chosen === name;
      this.forget(name);
      if (wasChosen && this.fallback) this.choose(this.fallback);
      this.#tiles.querySelector("input:checked")?.focus();
    });
    return button;
  }

  async #fill(image, name, isUpload) {
    try {
      if (!this.#pictures.has(name)) this.#pictures.set(name, await avatarPicture(name));
      image.src = this.#pictures.get(name);
    } catch (error) {
      // the server was restarted since the upload
      if (isUpload && error instanceof ApiError && error.status === 404) this.forget(name);
    }
  }
}
