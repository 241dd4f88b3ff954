/** The own camera and microphone: permission, the small preview, and the tracked mesh over it. */

const MESH_FULL_SCALE = 4095;
const MESH_STALE_MS = 600;
const MESH_COLOUR = "rgb(134 232 210 / 85%)";

const REASONS = {
  NotAllowedError: "The browser may not use the camera. Allow it beside the address, then press “Use my webcam” again.",
  NotFoundError: "No camera was found. Plug one in and press “Use my webcam” again.",
  NotReadableError: "The camera is in use by another program. Close that program and try again.",
  OverconstrainedError: "The camera offers no usable picture size. Try another camera.",
};

const VOICE_REASONS = {
  NotAllowedError:
    "The browser may not use the microphone. Allow it beside the address, then press “Voice only” again.",
  NotFoundError: "No microphone was found. Plug one in and press “Voice only” again.",
  NotReadableError: "The microphone is in use by another program. Close that program and try again.",
};

const RAW_AUDIO = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

export class Camera {
  /** What is sent, or null. */
  stream = null;
  #video;
  #mesh;
  #figure;
  #on;
  #meshTimer = 0;
  #turn = 0;

  /**
   * @param {{video: HTMLVideoElement, mesh: HTMLCanvasElement, figure: HTMLElement,
   *   onCapture: (captureMs: number) => void, onLost: () => void}} parts
   */
  constructor({ video, mesh, figure, onCapture, onLost }) {
    this.#video = video;
    this.#mesh = mesh;
    this.#figure = figure;
    this.#on = { capture: onCapture, lost: onLost };
    video.addEventListener("resize", () => {
      if (video.videoWidth) figure.style.aspectRatio = `${video.videoWidth} / ${video.videoHeight}`;
    });
  }

  /**
   * Asks for the camera (and the microphone unless `audio` is "0"). A missing or refused microphone does not
   * stop the picture. Throws an Error whose message can be shown.
   * @returns {Promise<{stream: MediaStream, notice: string | null}>}
   */
  async start(audio) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Browsers give the camera only to pages on https:// or http://localhost. Open this page that way.");
    }
    const video = {
      width: { ideal: 640 },
      height: { ideal: 480 },
      frameRate: { ideal: 30 },
      facingMode: "user",
    };
    const microphone = audio === "raw" ? RAW_AUDIO : { echoCancellation: true };
    let stream;
    let notice = null;
    try {
      stream = await open(video, audio === "0" ? false : microphone);
    } catch (error) {
      if (audio === "0") throw new Error(reason(error), { cause: error });
      try {
        stream = await open(video, false);
        notice = "No microphone could be used: the call goes on without your voice.";
      } catch (second) {
        throw new Error(reason(second), { cause: second });
      }
    }
    this.#use(stream);
    return { stream, notice };
  }

  /**
   * The microphone alone. Throws an Error whose message can be shown.
   * @returns {Promise<void>}
   */
  async startVoice(audio) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error(
        "Browsers give the microphone only to pages on https:// or http://localhost. Open this page that way.",
      );
    }
    let stream;
    try {
      // noise suppression keeps a fan or a neighbour from moving the mouth
      stream = await open(false, audio === "raw" ? RAW_AUDIO : { echoCancellation: true, noiseSuppression: true });
    } catch (error) {
      const text = VOICE_REASONS[error.name] ?? "The microphone could not be opened. Unplug it, plug it in again and retry.";
      throw new Error(text, { cause: error });
    }
    this.stop();
    this.stream = stream;
    stream.getAudioTracks()[0].addEventListener("ended", () => {
      if (this.stream === stream) this.#on.lost();
    });
  }

  stop() {
    this.#turn += 1;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.#video.srcObject = null;
    this.#figure.hidden = true;
    this.#clearMesh();
  }

  /** @param {number[]} points x0, y0, x1, y1, … over the camera's picture, 0..4095 */
  drawMesh(points) {
    if (!this.stream) return;
    const scale = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.round(this.#mesh.clientWidth * scale);
    const height = Math.round(this.#mesh.clientHeight * scale);
    if (!width || !height) return;
    if (this.#mesh.width !== width || this.#mesh.height !== height) Object.assign(this.#mesh, { width, height });
    const context = this.#mesh.getContext("2d");
    context.clearRect(0, 0, width, height);
    context.fillStyle = MESH_COLOUR;
    const side = Math.max(1, width / 200);
    for (let i = 0; i + 1 < points.length; i += 2) {
      const x = (points[i] / MESH_FULL_SCALE) * width;
      const y = (points[i + 1] / MESH_FULL_SCALE) * height;
      context.fillRect(x - side / 2, y - side / 2, side, side);
    }
    // a mesh left standing would claim a face that is no longer tracked
    clearTimeout(this.#meshTimer);
    this.#meshTimer = setTimeout(() => this.#clearMesh(), MESH_STALE_MS);
  }

  #use(stream) {
    this.stop();
    this.stream = stream;
    this.#video.srcObject = stream;
    this.#video.play().catch(() => {});
    this.#figure.hidden = false;
    stream.getVideoTracks()[0].addEventListener("ended", () => {
      if (this.stream === stream) this.#on.lost();
    });
    if ("requestVideoFrameCallback" in this.#video) this.#watch(this.#turn);
  }

  #watch(turn) {
    this.#video.requestVideoFrameCallback((_, { captureTime }) => {
      if (turn !== this.#turn) return;
      if (captureTime !== undefined) this.#on.capture(captureTime);
      this.#watch(turn);
    });
  }

  #clearMesh() {
    this.#mesh.getContext("2d").clearRect(0, 0, this.#mesh.width, this.#mesh.height);
  }
}

const open = (video, audio) => navigator.mediaDevices.getUserMedia({ video, audio });

function reason(error) {
  return REASONS[error.name] ?? "The camera could not be opened. Unplug it, plug it in again and retry.";
}
