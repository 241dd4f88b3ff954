/** What the status line says: a pure function of the call's phase and the server's last word. */

import { neutralStatus } from "./neutral.js";

/**
 * @param {{phase: string, drive: string, mode: string, state: string | null, face: boolean | null, status?: number,
 *   neutral?: import("./neutral.js").Report | null}} now `status`: of the last refusal
 * @returns {{tone: "ok" | "busy" | "warn" | "error", text: string}}
 */
export function statusOf({ phase, drive, mode, state, face, status, neutral = null }) {
  if (phase === "lost") return { tone: "warn", text: "No avatar: add or choose one" };
  if (phase === "making") return { tone: "busy", text: "Making it again" };
  if (phase === "refused") return { tone: "error", text: "Not connected" };
  if (phase === "waiting" && status === 503) return { tone: "warn", text: "The server is full, waiting" };
  if (phase === "waiting") return { tone: "warn", text: "Connection lost, reconnecting" };
  if (phase === "connecting") return { tone: "busy", text: "Connecting" };
  if (state === "fault") return { tone: "error", text: "Fault on the server, recovering" };
  if (mode === "echo") return { tone: "ok", text: "Echo: your camera, unchanged" };
  if (state === null) return { tone: "busy", text: "Waiting for the first picture" };
  if (drive === "demo") return { tone: "ok", text: "Demo is playing" };
  if (drive === "voice") {
    return state === "idle" || state === "holding"
      ? { tone: "warn", text: "No sound arrives: check your microphone" }
      : { tone: "ok", text: "Listening" };
  }
  const calming = neutralStatus(neutral);
  if (state === "calibrating") return { tone: "busy", text: calming ?? "Calibrating: look here with a calm face" };
  if (state === "holding") return { tone: "warn", text: "Face lost" };
  if (state === "idle") return { tone: "warn", text: "Face lost, idling until you are back" };
  if (face === false) return { tone: "warn", text: "Face lost" };
  if (calming) return { tone: "busy", text: calming };
  return { tone: "ok", text: "Tracking" };
}
