"""What stands behind the person: the photo's own, that a little or much blurred, a colour, a picture, nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import VisavisError

U8 = NDArray[np.uint8]

BackgroundMode = Literal["keep", "soft", "blur", "colour", "picture", "transparent"]
BLUR_HU: dict[BackgroundMode, float] = {"soft": 0.07, "blur": 0.35}  # sigma in head units (10 cm)
MAX_SIDES_RATIO = 4.0  # a longer strip would show a sliver of itself, many times enlarged
MIN_PICTURE_PX = 64


class BackgroundError(VisavisError):
    """A background cannot be used; the message says what would work."""


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """A choice of background.

    `colour` (r, g, b) is for mode "colour", `picture` (H, W, 3) uint8 RGB for mode "picture" (cut to the frame's
    shape, its middle kept). "soft" is the photo's own as a lens with the face in focus shows it, "blur" hides it.
    Raises BackgroundError for a picture that is missing, too small or a strip.
    """

    mode: BackgroundMode = "keep"
    colour: tuple[int, int, int] = (0, 0, 0)
    picture: U8 | None = None

    def __post_init__(self) -> None:
        if self.mode != "picture":
            return
        if self.picture is None:
            raise BackgroundError("a picture background needs a picture; name a JPEG or PNG file")
        height, width = self.picture.shape[:2]
        short, long = sorted((width, height))
        if short < MIN_PICTURE_PX:
            raise BackgroundError(
                f"the background picture has only {width}x{height} pixels; use one of at least "
                f"{MIN_PICTURE_PX} on each side, better 1280x720"
            )
        if long > MAX_SIDES_RATIO * short:
            raise BackgroundError(
                f"the background picture is a strip of {width}x{height} pixels; crop it, best to 16:9"
            )

    @property
    def keeps_photo(self) -> bool:
        """Whether the person stays in the photo's own surroundings, pixel for pixel."""
        return self.mode == "keep"


KEEP = Background()
CHROMA_GREEN = (0, 255, 0)

_COLOUR = re.compile(r"#(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})")


def read_colour(text: str) -> tuple[int, int, int]:
    """`#rrggbb` or `#rgb` → (r, g, b). Raises BackgroundError."""
    if not _COLOUR.fullmatch(text):
        raise BackgroundError(f"{text!r:.40} is no colour; write it as #rrggbb, such as #00ff00 for green")
    digits = text[1:] if len(text) == 7 else "".join(2 * digit for digit in text[1:])
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


def cover(picture: U8, width_px: int, height_px: int) -> U8:
    """`picture` (H, W, 3) scaled to fill `width_px` × `height_px`; what is too much is cut off, the middle kept."""
    height, width = picture.shape[:2]
    scale = max(width_px / width, height_px / height)
    # the part of the picture that shows, cut first: a huge picture is not enlarged in vain
    wide, high = min(width, round(width_px / scale)), min(height, round(height_px / scale))
    left, top = (width - wide) // 2, (height - high) // 2
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    part = picture[top : top + high, left : left + wide]
    return np.ascontiguousarray(cv2.resize(part, (width_px, height_px), interpolation=how), np.uint8)
