/** The buttons below the picture: what they say, and what they do to the page itself. */

import { el } from "./dom.js";
import { Level } from "./level.js";
import { isMirrored, mirrorWords } from "./mirror.js";
import { lasting } from "./store.js";

export class Toolbar {
  #picture;
  #onRecalibrate;
  #level = new Level(el("level"));
  #mirror;

  /**
   * @param {{picture: Picture, drive: Drive, onRecalibrate: () => void,
   *   asked: {bare: boolean, mirror: boolean | null}}} parts `asked`: by the address
   */
  constructor({ picture, drive, onRecalibrate, asked }) {
    this.#picture = picture;
    this.#mirror = { bare: asked.bare, asked: asked.mirror, kept: lasting.read("mirror") };
    this.#onRecalibrate = onRecalibrate;
    const toggle = (name, use) => (drive.name === name ? this.#stop(drive) : void use());
    el("webcam").addEventListener("click", () => toggle("webcam", () => drive.useWebcam()));
    el("voice").addEventListener("click", () => toggle("voice", () => drive.useVoice()));
    el("recalibrate").addEventListener("click", () => this.recalibrate());
    el("sound").addEventListener("click", () => this.#setSound(el("picture").muted));
    el("full").addEventListener("click", () => this.toggleFull());
    el("leave-full").addEventListener("click", () => this.toggleFull());
    el("mirror").addEventListener("click", () => {
      const on = el("mirror").getAttribute("aria-pressed") !== "true";
      // a click is newer than the address
      Object.assign(this.#mirror, { asked: null, kept: on });
      lasting.write("mirror", on);
      this.#drawMirror(drive.name);
    });
    this.#drawMirror(drive.name);
  }

  /** @param {{drive: Drive, connected: boolean, bareHref: string}} now */
  draw({ drive, connected, bareHref }) {
    const webcam = drive.name === "webcam";
    const voice = drive.name === "voice";
    el("voice-label").textContent = voice
      ? "Stop voice (demo)"
      : drive.before === "voice" ? "Use my voice again" : "Voice only";
    el("voice").setAttribute("aria-pressed", String(voice));
    this.#level.show(voice ? drive.stream : null);
    el("webcam-label").textContent = webcam
      ? "Stop webcam (demo)"
      : drive.before === "webcam" ? "Use my webcam again" : "Use my webcam";
    el("webcam").classList.toggle("primary", !webcam);
    el("webcam").classList.toggle("again", drive.before === "webcam");
    el("voice").classList.toggle("again", drive.before === "voice");
    el("recalibrate").disabled = !(webcam && connected && drive.mode === "avatar");
    el("sound").disabled = !drive.stream?.getAudioTracks().length;
    el("bare-link").href = bareHref;
    el("mirror").disabled = !webcam;
    this.#drawMirror(drive.name);
  }

  recalibrate() {
    if (!el("recalibrate").disabled) this.#onRecalibrate();
  }

  toggleFull() {
    if (document.fullscreenElement) void document.exitFullscreen();
    else if (el("theatre").requestFullscreen) el("theatre").requestFullscreen().catch(() => {});
    else el("picture").webkitEnterFullscreen?.();
  }

  #stop(drive) {
    this.#setSound(false);
    drive.stop();
  }

  #setSound(on) {
    this.#picture.setMuted(!on);
    el("sound").dataset.on = String(on);
    el("sound-label").textContent = on ? "Mute" : "Unmute";
  }

  #drawMirror(drive) {
    const on = isMirrored({ ...this.#mirror, drive });
    const words = mirrorWords({ drive, mirrored: on });
    el("stage").classList.toggle("mirrored", on);
    el("mirror").setAttribute("aria-pressed", String(on));
    el("mirror-words").hidden = !words;
    if (el("mirror-words").textContent !== words) el("mirror-words").textContent = words;
  }
}
