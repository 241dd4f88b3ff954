/**
 * The driver's calm face, kept in the tab, so that the next call need not ask for it again: the person and the camera
 * are the same. The server alone knows what is in it, and takes it anew where it does not fit.
 */

import { passing } from "./store.js";

const KEY = "neutral";
const MOST_CHARACTERS = 4096;

/** Which camera a stream comes from; null where there is none. */
const cameraOf = (stream) => stream?.getVideoTracks()[0]?.getSettings().deviceId ?? null;

export class KeptNeutral {
  #store;

  /** @param {{read: (key: string) => any, write: (key: string, value: any) => void}} store */
  constructor(store = passing) {
    this.#store = store;
  }

  /** The server's "neutral" message, for the camera that drives. */
  heard({ kept }, stream) {
    const camera = cameraOf(stream);
    if (camera === null || typeof kept !== "string" || kept.length > MOST_CHARACTERS) return;
    this.#store.write(KEY, { camera, kept });
  }

  /** For an offer that is driven by `stream`: undefined where that is another camera. */
  of(stream) {
    const known = this.#store.read(KEY);
    return known && known.camera === cameraOf(stream) ? known.kept : undefined;
  }

  /** It is taken anew. */
  forget() {
    this.#store.write(KEY, null);
  }
}
