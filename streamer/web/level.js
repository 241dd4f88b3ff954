/** How loud the own microphone is, as a bar: who drives with the voice sees that it is heard. */

const DRAW_EVERY_MS = 60;
const FLOOR_DB = -60;

export class Level {
  #meter;
  #context = null;
  #timer = 0;
  #stream = null;

  /** @param {HTMLMeterElement} meter */
  constructor(meter) {
    this.#meter = meter;
  }

  /** @param {MediaStream | null} stream whose sound to show; null hides the bar */
  show(stream) {
    if (stream === this.#stream) return;
    this.#stream = stream;
    clearInterval(this.#timer);
    void this.#context?.close();
    this.#context = null;
    this.#meter.hidden = !stream;
    if (!stream) return;
    this.#context = new AudioContext();
    const analyser = this.#context.createAnalyser();
    analyser.fftSize = 2048;
    this.#context.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    this.#timer = setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      this.#meter.value = loudness(samples);
    }, DRAW_EVERY_MS);
  }
}

/** 0 … 1 for samples between −60 and 0 dB of a full square wave. */
export function loudness(samples) {
  const power = samples.reduce((sum, value) => sum + value * value, 0) / Math.max(1, samples.length);
  const db = 10 * Math.log10(Math.max(power, 1e-12));
  return Math.min(1, Math.max(0, 1 - db / FLOOR_DB));
}
