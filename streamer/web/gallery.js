/** The choice of avatars: the server's own, those kept on this computer, and those made in this tab. */

import { ApiError, avatarPicture, deleteAvatar, listAvatars } from "./api.js";
import { lasting, passing } from "./store.js";

const UPLOADS_KEY = "uploads";
const CHOSEN_KEY = "chosen";

const isAvatar = (each) => typeof each?.name === "string" && typeof each?.title === "string";

/** Uploads live as long as the tab: their unguessable names are what keeps them private. */
function loadUploads() {
  const stored = passing.read(UPLOADS_KEY);
  if (!Array.isArray(stored)) return [];
  return stored.filter(isAvatar);
}

/**
 * Which avatar was chosen last: in this tab, unless its address asks for another by now, else in this browser.
 * @param {string | null} address the avatar that the page's address asks for
 */
export function rememberedChoice(address, inTab, inBrowser) {
  if (isAvatar(inTab) && (inTab.address ?? null) === address) return inTab;
  if (address) return { name: address, title: null };
  return isAvatar(inBrowser) ? inBrowser : null;
}

export class Gallery {
  chosen = null;
  generators = [];
  trackers = [];
  emotions = [];
  look = null;
  /** Where the server keeps avatars on this computer, or null where it does not. */
  keepIn = null;
  #tiles;
  #on;
  #address;
  #title = null;
  #avatars = [];
  #uploads = loadUploads();
  #pictures = new Map();
  #tabs = "BroadcastChannel" in window ? new BroadcastChannel("visavis") : null;

  /**
   * @param {{tiles: HTMLElement, address: string | null, onChoose: (name: string) => void,
   *   onDraw: () => void, onError: (text: string) => void, canMake: (name: string) => boolean,
   *   onDeleted: (avatar: {name: string, title: string}, elsewhere: boolean) => void}} parts
   *   `address`: the avatar that the page's address names; `canMake`: whether the tab can make it again
   */
  constructor({ tiles, address, ...on }) {
    this.#tiles = tiles;
    this.#address = address;
    this.#on = on;
    this.#tabs?.addEventListener("message", ({ data }) => {
      const gone = this.entry(data?.deleted);
      if (gone) this.#dropped(gone, true);
    });
  }

  /** Fetches the server's list. What was chosen before stays chosen, whether the server still has it or not. */
  async load() {
    const { avatars, generators, trackers, emotions, default: usual, look, keep_in: keepIn } = await listAvatars();
    this.#avatars = avatars;
    this.generators = generators ?? [];
    this.trackers = trackers ?? [];
    this.emotions = emotions ?? [];
    this.look = look ?? null;
    this.keepIn = keepIn ?? null;
    const before = rememberedChoice(this.#address, passing.read(CHOSEN_KEY), lasting.read(CHOSEN_KEY));
    this.chosen = before?.name ?? usual ?? null;
    this.#title = before?.title ?? null;
    this.#draw();
  }

  /** What is known of the avatar called `name`, or null. */
  entry(name) {
    const upload = this.#uploads.find((each) => each.name === name);
    if (upload) return { ...upload, kind: "upload" };
    const listed = this.#avatars.find((each) => each.name === name);
    return listed ? { ...listed, kind: listed.kept ? "kept" : "given" } : null;
  }

  /** What the visitor knows the avatar by, or null. */
  titleOf(name) {
    return this.entry(name)?.title ?? (name === this.chosen ? this.#title : null);
  }

  add({ name, title }) {
    this.#uploads = [...this.#uploads.filter((each) => each.name !== name), { name, title }];
    this.#keep();
    this.#draw();
  }

  /** The upload is one of this computer's avatars by now, or a kept one has another name. The call goes on. */
  replace(from, { name, title }) {
    const place = this.#avatars.findIndex((each) => each.name === from);
    const kept = { name, title, kept: true };
    if (place < 0) this.#avatars.push(kept);
    else this.#avatars[place] = kept;
    this.#uploads = this.#uploads.filter((each) => each.name !== from);
    if (this.#pictures.has(from)) this.#pictures.set(name, this.#pictures.get(from));
    if (name !== from) this.#pictures.delete(from);
    this.#goesBy(from, name);
  }

  /** The upload was made again and has another name. */
  remade(from, to) {
    if (from === to) return;
    this.#uploads = this.#uploads.map((each) => (each.name === from ? { ...each, name: to } : each));
    this.#goesBy(from, to);
  }

  #goesBy(from, name) {
    this.#keep();
    if (this.chosen === from) {
      this.chosen = name;
      this.#remember();
    }
    this.#draw();
  }

  choose(name) {
    this.stay(name);
    this.#on.onChoose(name);
  }

  /** The call has this avatar already, or still. */
  stay(name) {
    this.chosen = name;
    this.#remember();
    for (const input of this.#tiles.querySelectorAll("input")) input.checked = input.value === name;
    this.#on.onDraw();
  }

  /** Deletes it on the server. Throws ApiError. */
  async remove(avatar) {
    try {
      await deleteAvatar(avatar.name);
    } catch (error) {
      if (error.status !== 404) throw error;
    }
    this.#tabs?.postMessage({ deleted: avatar.name });
    this.#dropped(avatar, false);
  }

  #dropped(avatar, elsewhere) {
    const wasChosen = this.chosen === avatar.name;
    if (wasChosen) {
      this.chosen = null;
      passing.write(CHOSEN_KEY, null);
      if (lasting.read(CHOSEN_KEY)?.name === avatar.name) lasting.write(CHOSEN_KEY, null);
    }
    this.#forget(avatar.name);
    this.#on.onDeleted(avatar, elsewhere, wasChosen);
    if (!elsewhere) this.#tiles.querySelector("input")?.focus();
  }

  #forget(name) {
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

  #remember() {
    const { name, title, kind } = this.entry(this.chosen) ?? { name: this.chosen, title: this.chosen };
    passing.write(CHOSEN_KEY, { name, title, address: this.#address });
    if (kind === "given" || kind === "kept") lasting.write(CHOSEN_KEY, { name, title });
  }

  #draw() {
    const own = this.#avatars.map((avatar) => this.#tile(avatar, false));
    const uploaded = this.#uploads.map((avatar) => this.#tile(avatar, true));
    this.#tiles.replaceChildren(...own, ...uploaded);
    this.#on.onDraw();
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
        await this.remove({ name, title });
      } catch (error) {
        this.#on.onError(error.message);
        button.disabled = false;
      }
    });
    return button;
  }

  async #fill(image, name, isUpload) {
    try {
      if (!this.#pictures.has(name)) this.#pictures.set(name, await avatarPicture(name));
      image.src = this.#pictures.get(name);
    } catch (error) {
      const isGone = error instanceof ApiError && error.status === 404;
      // of the one in use it is said on the stage; one that the tab can make again is made when it is chosen
      if (isUpload && isGone && name !== this.chosen && !this.#on.canMake(name)) this.#forget(name);
    }
  }
}
