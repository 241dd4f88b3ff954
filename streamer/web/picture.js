/**
 * The large picture. Between two calls it keeps the last frame on a canvas, so that changing the avatar or
 * reconnecting never flashes black.
 */

export class Picture {
  #video;
  #still;
  #onFrame;
  #watching = 0;

  /**
   * @param {{video: HTMLVideoElement, still: HTMLCanvasElement,
   *   onFrame: (nowMs: number, metadata: object) => void}} parts
   */
  constructor({ video, still, onFrame }) {
    this.#video = video;
    this.#still = still;
    this.#onFrame = onFrame;
  }

  /** Has any frame ever been shown? */
  seen = false;

  /** "512x512", or null before the first frame. */
  get resolution() {
    const { videoWidth, videoHeight } = this.#video;
    return videoWidth ? `${videoWidth}x${videoHeight}` : null;
  }

  /** Freezes what is shown now. The stream shown so far is over: what it still brings is black. */
  hold() {
    this.#watching += 1;
    const { videoWidth, videoHeight } = this.#video;
    if (!this.seen || !videoWidth || !this.#still.hidden) return;
    this.#still.width = videoWidth;
    this.#still.height = videoHeight;
    this.#still.getContext("2d").drawImage(this.#video, 0, 0);
    this.#still.hidden = false;
  }

  /** Shows nothing any more: whose picture it was has deleted it. */
  clear() {
    this.#watching += 1;
    this.#video.srcObject = null;
    this.#still.hidden = true;
    this.seen = false;
  }

  show(stream) {
    this.#watching += 1;
    this.#video.srcObject = stream;
    // a muted video may always start; if a browser still refuses, its own play button is the way out
    this.#video.play().catch(() => {});
    if ("requestVideoFrameCallback" in this.#video) this.#watch(this.#watching);
    else this.#video.addEventListener("playing", () => this.#arrived(), { once: true });
  }

  setMuted(muted) {
    this.#video.muted = muted;
  }

  #watch(turn) {
    this.#video.requestVideoFrameCallback((nowMs, metadata) => {
      if (turn !== this.#watching) return;
      this.#watch(turn);
      this.#arrived();
      this.#onFrame(nowMs, metadata);
    });
  }

  #arrived() {
    this.seen = true;
    this.#still.hidden = true;
  }
}
