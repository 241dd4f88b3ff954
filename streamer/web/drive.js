/** Who drives the avatar: the demo, the webcam or the voice alone. */

import { el } from "./dom.js";
import { passing } from "./store.js";

const BEFORE_KEY = "drive";

const modes = () => document.querySelectorAll("input[name=mode]");

export class Drive {
  /** "demo", "webcam" or "voice" */
  name = "demo";
  /** What drove before this page was loaded again, until something is chosen: null, "webcam" or "voice". */
  before = passing.read(BEFORE_KEY);
  #mode;
  #camera;
  #audio;
  #notices;
  #onChange;

  /**
   * @param {{camera: Camera, mode: string, audio: string, notices: Notices, onChange: () => void}} parts
   *   `onChange` is called when the call has to be made anew
   */
  constructor({ camera, mode, audio, notices, onChange }) {
    this.#camera = camera;
    this.#audio = audio;
    this.#notices = notices;
    this.#onChange = onChange;
    this.#setMode(mode);
    for (const radio of modes()) radio.addEventListener("change", () => radio.checked && this.#choose(radio.value));
  }

  /** What the call shows: there is nothing to echo without a camera. */
  get mode() {
    return this.name === "webcam" ? this.#mode : "avatar";
  }

  /** What the call is sent, or null. */
  get stream() {
    return this.name === "demo" ? null : this.#camera.stream;
  }

  async useWebcam() {
    const button = el("webcam");
    button.disabled = true;
    this.#notices.clear();
    el("webcam-label").textContent = "Waiting for permission";
    try {
      const { notice } = await this.#camera.start(this.#audio);
      this.#is("webcam");
      if (notice) this.#notices.show(notice);
    } catch (error) {
      // a voice that drives goes on; what is left of a lost camera need not stay open
      if (this.name !== "voice") {
        this.#camera.stop();
        this.name = "demo";
      }
      this.#setMode("avatar");
      this.#notices.show(error.message, "error");
    } finally {
      button.disabled = false;
    }
    this.#onChange();
  }

  async useVoice() {
    const button = el("voice");
    button.disabled = true;
    this.#notices.clear();
    el("voice-label").textContent = "Waiting for permission";
    this.#setMode("avatar");
    try {
      await this.#camera.startVoice(this.#audio);
      this.#is("voice");
    } catch (error) {
      this.name = this.#camera.stream ? this.name : "demo";
      this.#notices.show(error.message, "error");
    } finally {
      button.disabled = false;
    }
    this.#onChange();
  }

  /** Back to the demo. */
  stop() {
    this.#camera.stop();
    this.#is("demo");
    this.#setMode("avatar");
    this.#onChange();
  }

  /** The device went away; it is used again as soon as there is another. */
  lost() {
    const drive = this.name;
    const device = drive === "voice" ? "microphone" : "camera";
    this.#notices.show(`The ${device} was disconnected. Plug it in again and the call goes on.`, "error");
    const devices = navigator.mediaDevices;
    const gone = this.#camera.stream;
    const look = async () => {
      const there = await devices.enumerateDevices();
      const isWanted = this.#camera.stream === gone;
      // browsers tell of the unplugging itself too
      if (isWanted && !there.some(({ kind }) => kind === (drive === "voice" ? "audioinput" : "videoinput"))) return;
      devices.removeEventListener("devicechange", look);
      if (isWanted && !el(drive).disabled) void (drive === "voice" ? this.useVoice() : this.useWebcam());
    };
    devices.addEventListener("devicechange", look);
  }

  #is(name) {
    this.name = name;
    this.before = null;
    passing.write(BEFORE_KEY, name === "demo" ? null : name);
  }

  #choose(mode) {
    this.#mode = mode;
    if (mode === "echo" && this.name !== "webcam") void this.useWebcam();
    else this.#onChange();
  }

  #setMode(mode) {
    this.#mode = mode;
    for (const radio of modes()) radio.checked = radio.value === mode;
  }
}
