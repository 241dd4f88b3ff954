/** What a call does with its RTCPeerConnection before the first packet: tracks, codecs, candidates. */

const GATHER_CAP_MS = 1000;
const ASK_CAP_MS = 2500; // with STUN or TURN servers, which have to answer first

/** VP8 first, everything else behind it in the browser's own order. */
export function preferVp8(codecs) {
  const isVp8 = (codec) => codec.mimeType.toLowerCase() === "video/vp8";
  return [...codecs.filter(isVp8), ...codecs.filter((codec) => !isVp8(codec))];
}

export function addMedia(pc, camera) {
  for (const track of camera?.getTracks() ?? []) {
    if (track.kind === "video") track.contentHint = "motion";
    pc.addTrack(track, camera);
  }
  if (!camera?.getVideoTracks().length) pc.addTransceiver("video", { direction: "recvonly" });
  const codecs = RTCRtpReceiver.getCapabilities?.("video")?.codecs;
  if (!codecs) return;
  for (const transceiver of pc.getTransceivers()) {
    if (transceiver.receiver.track.kind !== "video") continue;
    transceiver.setCodecPreferences?.(preferVp8(codecs));
  }
}

/** A driver wants each moment more than each pixel. */
export async function favourMotion(pc) {
  for (const sender of pc.getSenders()) {
    if (sender.track?.kind !== "video") continue;
    const parameters = sender.getParameters();
    parameters.degradationPreference = "maintain-framerate";
    // older browsers refuse the field; the hint on the track still stands
    await sender.setParameters(parameters).catch(() => {});
  }
}

/** Resolves when every candidate is known, or after the cap: without STUN there is nothing to wait for. */
export function gathered(pc, iceServers) {
  return new Promise((resolve) => {
    if (pc.iceGatheringState === "complete") {
      resolve();
      return;
    }
    const cap = setTimeout(resolve, iceServers.length ? ASK_CAP_MS : GATHER_CAP_MS);
    pc.addEventListener("icegatheringstatechange", () => {
      if (pc.iceGatheringState !== "complete") return;
      clearTimeout(cap);
      resolve();
    });
  });
}
