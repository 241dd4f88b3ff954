/** The server's HTTP side, with the access token where one is needed. */

import { passing } from "./store.js";

const TOKEN_KEY = "token";
const UNREACHABLE = "The server does not answer. Is it still running?";
const NEEDS_TOKEN = "This server wants an access token. Open the address with ?token=… that it printed when it started.";

/** A request that failed; `message` can be shown, `status` is 0 when there was no answer at all. */
export class ApiError extends Error {
  constructor(message, status, retryAfterS = null, what = null) {
    super(message);
    this.status = status;
    this.retryAfterS = retryAfterS;
    this.what = what; // with 404: the "avatar" or the "call" that is not there any more
  }

  /** Worth trying again unchanged? */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export function keepToken(token) {
  if (token) passing.write(TOKEN_KEY, token);
}

function headers() {
  const token = passing.read(TOKEN_KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** The one sentence to show for a failed answer whose body is `text`. */
function sentence(status, text) {
  if (status === 401) return NEEDS_TOKEN;
  try {
    const { error } = JSON.parse(text);
    if (typeof error === "string" && error) return error;
  } catch {
    // not ours: a proxy's page, perhaps
  }
  if (status === 413) return "This file is too large for the server.";
  if (status === 503) return "The server is full at the moment.";
  return `The server answered with an error (${status}).`;
}

function missing(text) {
  try {
    return JSON.parse(text).what ?? null;
  } catch {
    return null;
  }
}

async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(UNREACHABLE, 0);
  }
  if (!answer.ok) {
    const retryAfterS = Number(answer.headers.get("Retry-After")) || null;
    const text = await answer.text();
    throw new ApiError(sentence(answer.status, text), answer.status, retryAfterS, missing(text));
  }
  return answer;
}

/**
 * @returns {Promise<{avatars: {name: string, title: string}[], generators: string[], trackers: string[], emotions: string[],
 *   default: string | null, look: {background: string, aspect: string}, keep_in: string | null}>}
 */
export async function listAvatars() {
  return (await request("api/avatars", { cache: "no-store" })).json();
}

/** How the avatar becomes a camera. @returns {Promise<object>} as `streamer/serve/camera_help.py` has it */
export async function cameraHelp(name) {
  return (await request(`api/camera?avatar=${encodeURIComponent(name)}`, { cache: "no-store" })).json();
}

/** The access token, for an address that another program opens; null where none is needed. */
export const keptToken = () => passing.read(TOKEN_KEY);

/** An object URL of the avatar's picture (an <img> cannot carry the token); the caller revokes it. */
export async function avatarPicture(name) {
  const answer = await request(`api/avatars/${encodeURIComponent(name)}/picture`);
  return URL.createObjectURL(await answer.blob());
}

const avatarPath = (name) => `api/avatars/${encodeURIComponent(name)}`;

export async function deleteAvatar(name) {
  await request(avatarPath(name), { method: "DELETE" });
}

/** The `.avatar` file, a Blob. */
export async function downloadAvatar(name) {
  return (await request(`${avatarPath(name)}/file`)).blob();
}

/** Keeps an upload on this computer. @returns {Promise<{name: string, title: string, file: string}>} as it is listed now */
export async function keepAvatar(name, called) {
  return (await request(`${avatarPath(name)}/keep`, { method: "POST", ...json({ name: called }) })).json();
}

/**
 * Draws all emotions of an avatar: a PNG sheet, or a ZIP with a picture each.
 * @param {{faces: "presets" | "templates", give: "sheet" | "pictures", generator?: string}} wanted @returns {Promise<Blob>}
 */
export async function drawEmotions(name, wanted, signal) {
  return (await request(`${avatarPath(name)}/emotions`, { method: "POST", ...json(wanted), signal })).blob();
}

/** Another name for a kept avatar. @returns {Promise<{name: string, title: string}>} */
export async function renameAvatar(name, called) {
  return (await request(avatarPath(name), { method: "PATCH", ...json({ name: called }) })).json();
}

/**
 * Sends a background picture; `again`: the name that it had before the server lost it.
 * @returns {Promise<{name: string}>} the name to offer with
 */
export async function sendBackground(picture, signal, again = null) {
  const form = new FormData();
  form.append("picture", picture);
  if (again) form.append("again", again);
  return (await request("api/backgrounds", { method: "POST", body: form, signal })).json();
}

/** @returns {Promise<{sdp: string, type: string, session: string, controls: object | null}>} */
export async function postOffer(offer, signal) {
  return (await request("api/offer", { method: "POST", ...json(offer), signal })).json();
}

/** STUN and TURN servers, and the server's UDP ports. @returns {Promise<{ice_servers: object[], udp_ports: string | null}>} */
export async function iceSettings(signal) {
  return (await request("api/ice", { cache: "no-store", signal })).json();
}

/** A connection that is no call, to test the way. @returns {Promise<{sdp: string, type: string}>} */
export async function postConnectionTest(offer, signal) {
  return (await request("api/connection-test", { method: "POST", ...json(offer), signal })).json();
}

/** That the server lives. */
export async function serverHealth(signal) {
  return (await request("api/health", { cache: "no-store", signal })).json();
}

/**
 * Changes a running call; null is as the server was started.
 * @returns {Promise<{controls: object | null, change: number}>} how its avatar is saved, and what pictures will say
 */
export async function changeCall(session, changes, signal) {
  const path = `api/calls/${encodeURIComponent(session)}`;
  return (await request(path, { method: "PATCH", ...json(changes), signal })).json();
}

/**
 * Keeps movement settings with an avatar, in its file where it has one.
 * @returns {Promise<{controls: object, kept: "file" | "memory"}>}
 */
export async function saveControls(name, controls) {
  return (await request(`api/avatars/${encodeURIComponent(name)}/controls`, { method: "PUT", ...json(controls) })).json();
}

/** Records what drives the call of that name. @returns {Promise<{most_s: number}>} when it stops by itself */
export async function beginRecording(session) {
  return (await request(recording(session), { method: "POST" })).json();
}

/** Ends the recording. @param {"motion" | "trace"} part @returns {Promise<Blob>} */
export async function fetchRecording(session, part) {
  return (await request(recording(session) + (part === "trace" ? "/trace" : ""))).blob();
}

export async function forgetRecording(session) {
  await request(recording(session), { method: "DELETE" });
}

const recording = (session) => `api/calls/${encodeURIComponent(session)}/recording`;

const json = (value) => ({ body: JSON.stringify(value), headers: { "Content-Type": "application/json" } });

/**
 * Sends a photo for enrollment, or with `consent` null an `.avatar` file, which holds its own.
 * @param {(share: number) => void} onProgress 0..1 of the upload; 1 means that the server is at work
 * @param {string | null} again the name that it had before the server lost it
 * @returns {Promise<{name: string, title: string, notices: string[], consent?: {name: string, given_utc: string} | null}>}
 */
export function makeAvatar(file, consent, onProgress, signal, again = null) {
  const form = new FormData();
  if (consent === null) form.append("avatar", file);
  else {
    form.append("photo", file);
    form.append("consent", consent);
  }
  if (again) form.append("again", again);
  return sendForm(consent === null ? "api/avatars/file" : "api/avatars", form, onProgress, signal);
}

/** XMLHttpRequest because fetch cannot report the progress of an upload. */
function sendForm(path, form, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open("POST", path);
    for (const [name, value] of Object.entries(headers())) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    xhr.upload.onload = () => onProgress(1);
    xhr.onload = () => {
      if (xhr.status !== 201 && xhr.status !== 200) {
        reject(new ApiError(sentence(xhr.status, xhr.responseText), xhr.status));
        return;
      }
      try {
        resolve(JSON.parse(xhr.responseText));
      } catch {
        reject(new ApiError("The server's answer could not be read. Try again.", xhr.status));
      }
    };
    xhr.onerror = () => reject(new ApiError(UNREACHABLE, 0));
    xhr.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal?.addEventListener("abort", () => xhr.abort());
    xhr.send(form);
  });
}
