/** Whether the picture is shown mirrored: to the one whose camera drives it, as a mirror would, and to nobody else. */

/**
 * @param {{bare: boolean, drive: string, asked: boolean | null, kept: boolean | null}} now `asked`: by the address;
 *   `kept`: what was last chosen in this browser
 */
export function isMirrored({ bare, drive, asked, kept }) {
  // the avatar alone is what others see
  if (bare) return asked === true;
  return drive === "webcam" && (asked ?? kept ?? true);
}

/** The line that says what others see; nothing where nobody could take it for a mirror. */
export function mirrorWords({ drive, mirrored }) {
  if (drive !== "webcam") return "";
  return mirrored
    ? "Mirrored for you; others see you the right way round."
    : "Not mirrored: you see it as others do.";
}
