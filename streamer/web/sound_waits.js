/** How long sound lies in this browser, for the server to make up for. */

export const MOST_WAIT_MS = 1000;

/** By how much sound waits here longer than pictures, as far as the server can make up for it; null without news. */
export function soundWaitsMs({ audio, playout = 0, video }) {
  if (audio === undefined || video === undefined) return null;
  return Math.max(-MOST_WAIT_MS, Math.min(MOST_WAIT_MS, Math.round(audio + playout - video)));
}
