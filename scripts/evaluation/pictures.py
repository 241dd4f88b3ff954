"""What the numbers are about, to look at: the grid of people, and strips that show flicker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

U8 = NDArray[np.uint8]

LABEL_PX = 22
# one shot of each take, picture by picture: a folder for each take, and what photo and driver are called there
TILES, PHOTO, DRIVER = "tiles", "photo", "driver"
STRIP_TILE_PX = 160
DIFFERENCE_GAIN = 6.0
_INK = (235, 235, 235)


def labelled(tile: U8, text: str) -> U8:
    """The picture with a line of text above it."""
    height, width = tile.shape[:2]
    page = Image.new("RGB", (width, height + LABEL_PX), (24, 24, 24))
    page.paste(Image.fromarray(tile), (0, LABEL_PX))
    font = ImageFont.load_default(13)
    ImageDraw.Draw(page).text((5, LABEL_PX // 2), text, _INK, font, anchor="lm")
    return np.asarray(page, np.uint8)


def grid(rows: Sequence[Mapping[str, U8]]) -> U8:
    """One row of labelled pictures per shot; all rows have the same names and sizes. Raises ValueError for none."""
    if not rows:
        raise ValueError("a grid needs a row")
    lines = [np.hstack([labelled(tile, name) for name, tile in row.items()]) for row in rows]
    return np.vstack(lines)


def differences(pictures: Sequence[U8]) -> list[U8]:
    """|difference| of consecutive pictures (H, W, 3), made visible: n − 1 of n, times six."""
    out: list[U8] = []
    for one, other in pairwise(pictures):
        apart = cv2.absdiff(one, other).astype(np.float32) * DIFFERENCE_GAIN
        out.append(np.minimum(apart, 255).astype(np.uint8))
    return out


def flicker_strip(runs: Mapping[str, Sequence[U8]], tile_px: int = STRIP_TILE_PX) -> U8:
    """A line per name (each generator, then the real clip) of the differences of its consecutive pictures."""
    lines: list[U8] = []
    for name, pictures in runs.items():
        tiles = [
            np.asarray(cv2.resize(d, (tile_px, tile_px), interpolation=cv2.INTER_AREA), np.uint8)
            for d in differences(pictures)
        ]
        lines.append(
            labelled(
                np.hstack(tiles), f"{name}: differences of consecutive frames, {DIFFERENCE_GAIN:g} times"
            )
        )
    return np.vstack(lines)
