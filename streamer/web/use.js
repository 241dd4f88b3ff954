/** "Use it in a call": how the chosen avatar becomes a camera in Zoom and the like, in commands to copy. */

import { cameraHelp } from "./api.js";
import { el, make } from "./dom.js";

const SYSTEM_TITLES = { linux: "Linux", darwin: "macOS", win32: "Windows" };

/** Where each application lets one choose the camera. */
export const APPLICATIONS = [
  ["Zoom", "Settings → Video → Camera"],
  ["Google Meet", "⋮ More options → Settings → Video → Camera"],
  ["Microsoft Teams", "Settings → Devices → Camera"],
  ["Discord", "User Settings → Voice & Video → Camera"],
];
/** On Linux its own camera is another one, and it can take ours as a source. */
const OBS_ON_LINUX = ["OBS", "Sources → + → Video Capture Device (V4L2) → Device"];

/** OBS started so that the pages in it may use the camera. */
const OBS_START = {
  linux: "obs --enable-media-stream",
  darwin: "open -a OBS --args --enable-media-stream",
  win32: "obs64.exe --enable-media-stream",
};

/** What is empty until the server has said how. */
const FROM_HELP = ["use-camera", "use-command", "use-applications", "use-obs"];

const COPIED_FOR_MS = 2000;

/** The visitor's system as `sys.platform` has it, from what the browser says. */
export function systemOf(platform) {
  if (/win/i.test(platform)) return "win32";
  if (/mac|iphone|ipad/i.test(platform)) return "darwin";
  return "linux";
}

/** A sentence as plain words and commands (what stands between backticks). @returns {{text: string, isCommand: boolean}[]} */
export function partsOf(words) {
  return words
    .split("`")
    .map((text, k) => ({ text, isCommand: k % 2 === 1 }))
    .filter(({ text }) => text);
}

/**
 * What starts the avatar as a camera, looking as it does on the page.
 * @param {{program: string, avatar: string}} help as the server says it
 * @param {{drive: string, look: {background?: string, aspect?: string}, generator?: string}} now
 */
export function commandOf({ program, avatar }, { drive, look, generator }) {
  const words = [program, "run", avatar, "--from", drive === "voice" ? "mic" : "webcam", "--to", "virtualcam"];
  if (look.aspect === "16:9") words.push("--aspect", "16:9");
  // a picture that was sent to the server is no file that a command could name
  if (look.background && !look.background.startsWith("b-") && look.background !== "keep") {
    words.push("--background", look.background.startsWith("#") ? `"${look.background}"` : look.background);
  }
  if (generator) words.push("--generator", generator);
  return words.join(" ");
}

/** Why no command can start an avatar yet, and what to do. */
export function lacksFile({ avatar, title }) {
  if (!avatar) return "Choose an avatar first, or add a photo.";
  if (!title) return "This avatar is not here: choose another, or add its photo again.";
  return avatar.startsWith("u-")
    ? `“${title}” has no file yet that a command could use: keep it on this computer or download it first.`
    : `“${title}” only shows how it works: add your own photo, and keep its avatar on this computer.`;
}

/** What must not be given away with the address of the avatar alone; "" of none. */
export function secretWords(avatar, token) {
  if (token) return "The address holds this server's token: whoever has it can use the server. Paste it into OBS and nowhere else.";
  if (avatar.startsWith("u-")) return "Whoever has this address can show this avatar until the server ends: paste it into OBS and nowhere else.";
  return "";
}

export class UseIt {
  #now;
  #help = null;
  #turn = 0;
  #timer = 0;

  /**
   * @param {{now: () => {avatar: string, title: string, drive: string, look: object, generator?: string,
   *   bareHref: string, secret: string | null}}} parts `secret`: the token that the bare address needs
   */
  constructor({ now }) {
    this.#now = now;
    el("use").addEventListener("click", () => void this.#open());
    el("use-close").addEventListener("click", () => el("use-dialog").close());
    // a click beside the dialog is one on its backdrop
    el("use-dialog").addEventListener("click", (event) => event.target === el("use-dialog") && el("use-dialog").close());
    el("use-system").addEventListener("change", () => this.#draw());
  }

  async #open() {
    el("use-dialog").showModal();
    el("use-error").hidden = true;
    const turn = (this.#turn += 1);
    // what was said of another avatar would start that one
    this.#help = null;
    this.#draw();
    try {
      const help = await cameraHelp(this.#now().avatar);
      if (turn !== this.#turn) return;
      this.#help = help;
    } catch (error) {
      if (turn !== this.#turn) return;
      el("use-error").textContent = error.message;
      el("use-error").hidden = false;
    }
    const { system } = this.#help ?? {};
    el("use-system").value = system in SYSTEM_TITLES ? system : systemOf(navigator.platform);
    el("use-system-row").hidden = Boolean(system);
    this.#draw();
  }

  #draw() {
    const now = this.#now();
    this.#drawBare(now);
    if (!this.#help) {
      for (const id of FROM_HELP) el(id).replaceChildren();
      return;
    }
    const { system, drivers, missing, cameras, avatar, program } = this.#help;
    const theirs = system ?? el("use-system").value;
    const camera = cameras[theirs] ?? "visavis";
    const elsewhere = system === null;
    const needs = elsewhere ? [drivers[theirs]] : missing;
    el("use-camera").replaceChildren(
      ...(needs.length
        ? needs.flatMap((words) => this.#sentence(words))
        : [make("p", {}, theirs === "linux" ? `It is there already: ${camera}.` : this.#firstTime(drivers[theirs]))]),
    );
    const argument = avatar ?? (elsewhere ? "me.avatar" : null);
    el("use-command").replaceChildren(
      ...(argument
        ? [this.#command(commandOf({ program, avatar: argument }, now)), make("p", { class: "quiet" }, this.#hint(now, elsewhere))]
        : [make("p", {}, lacksFile(now))]),
    );
    const applications = theirs === "linux" ? [...APPLICATIONS, OBS_ON_LINUX] : APPLICATIONS;
    el("use-applications").replaceChildren(
      ...applications.map(([name, where]) => make("div", {}, make("dt", {}, name), make("dd", {}, where))),
    );
    el("use-obs").replaceChildren(this.#command(OBS_START[theirs] ?? OBS_START.linux));
    for (const each of document.querySelectorAll(".use-camera-name")) each.textContent = camera;
  }

  #firstTime(driver) {
    const span = make("span", {}, "It comes with OBS. If step 2 says that it does not open: ");
    span.append(...this.#inline(driver));
    return span;
  }

  #hint({ drive }, elsewhere) {
    const stop = drive === "webcam" ? " Stop the webcam on this page before: a camera serves one program at a time." : "";
    const where = elsewhere
      ? "Type it on the computer that you call from, where visavis is installed and the avatar's file lies."
      : "Type it where you started the server.";
    return `${where} It goes on until Ctrl-C.${stop}`;
  }

  #drawBare({ avatar, bareHref, secret }) {
    const url = new URL(bareHref);
    if (secret) url.searchParams.set("token", secret);
    el("use-bare").replaceChildren(this.#command(url.href));
    const words = secretWords(avatar, secret);
    el("use-bare-secret").textContent = words;
    el("use-bare-secret").hidden = !words;
  }

  /** Words with the commands in them on lines of their own. */
  #sentence(words) {
    return partsOf(words).map(({ text, isCommand }) => {
      if (isCommand) return this.#command(text);
      const plain = text.replace(/^[,;]?\s*/, "").trim();
      return make("p", {}, plain.charAt(0).toUpperCase() + plain.slice(1));
    });
  }

  #inline(words) {
    return partsOf(words).map(({ text, isCommand }) => (isCommand ? make("code", {}, text) : text));
  }

  #command(text) {
    const copy = make("button", { type: "button", class: "button copy" }, "Copy");
    copy.addEventListener("click", () => void this.#copy(text, copy));
    return make("div", { class: "command" }, make("code", { tabindex: "0" }, text), copy);
  }

  async #copy(text, button) {
    clearTimeout(this.#timer);
    let said = "Copied";
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // plain http from another computer has no clipboard: the words are at least selected
      const range = document.createRange();
      range.selectNodeContents(button.previousElementSibling);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      said = "Press Ctrl+C";
    }
    for (const other of document.querySelectorAll(".copy")) other.textContent = "Copy";
    button.textContent = said;
    el("use-said").textContent = said;
    this.#timer = setTimeout(() => {
      button.textContent = "Copy";
      el("use-said").textContent = "";
    }, COPIED_FOR_MS);
  }
}
