"""The set of emotions of one avatar: 22 pictures and a labelled sheet of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from engines.motion import Motion
from engines.presets import PRESET_NAMES
from engines.retarget import emotion_motion

U8 = NDArray[np.uint8]

SHEET_COLUMNS = 6
SHEET_CELL_PX = 256  # wide enough for the longest name
LABEL_PX, LABEL_FONT_PX = 28, 16
INK, PAPER = (20, 20, 20), (255, 255, 255)


def draw_emotions(
    draw: Callable[[Motion], U8],
    source: Motion,
    strength: float = 1.0,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, U8]:
    """Emotion → picture (H, W, 3) RGB by `draw`, in the order of `PRESET_NAMES`; as live, from a driver at rest."""
    pictures: dict[str, U8] = {}
    for count, name in enumerate(PRESET_NAMES, start=1):
        pictures[name] = draw(emotion_motion(source, name, strength))
        if progress:
            progress(count, len(PRESET_NAMES))
    return pictures


def sheet_of(pictures: Mapping[str, U8]) -> U8:
    """All pictures side by side with their names below: one picture (H, W, 3) RGB."""
    font = ImageFont.load_default(LABEL_FONT_PX)
    first = next(iter(pictures.values()))
    width = SHEET_CELL_PX
    height = round(first.shape[0] * width / first.shape[1])
    columns = min(SHEET_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * (height + LABEL_PX)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, (name, picture) in enumerate(pictures.items()):
        x, y = index % columns * width, index // columns * (height + LABEL_PX)
        sheet.paste(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS), (x, y))
        label = name.replace("_", " ")
        pen.text((x + width / 2, y + height + LABEL_PX / 2), label, fill=INK, font=font, anchor="mm")
    return np.asarray(sheet)
