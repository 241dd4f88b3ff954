"""The set of emotions of one avatar: how its face moves for each, a picture each, and a labelled sheet of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from engines.enrollment import Enrollment, head_model_of
from engines.motion import Motion
from engines.presets import PRESET_NAMES
from engines.retarget import emotion_motion
from engines.templates import Templates, nearest, require_head_model, template_motion

U8 = NDArray[np.uint8]

SHEET_COLUMNS = 6
SHEET_CELL_PX = 256  # wide enough for the longest name
LABEL_PX, LABEL_FONT_PX = 28, 16
INK, PAPER = (20, 20, 20), (255, 255, 255)


def emotion_motions(
    enrollment: Enrollment, strength: float = 1.0, templates: Templates | None = None
) -> dict[str, Motion]:
    """Emotion → how the avatar's face shows it, in the order of `PRESET_NAMES`: as live, from a driver at rest.

    By the presets; with `templates` by the expression of the most similar head, for the emotions that they have.
    Raises ControlsError for a strength beyond 0 … 2, TemplatesError for templates of another head model.
    """
    source = enrollment.motion
    if templates is None:
        return {name: emotion_motion(source, name, strength) for name in PRESET_NAMES}
    model = head_model_of(enrollment)
    require_head_model(templates, model.digest, model.name)
    return {
        name: template_motion(source, nearest(several, enrollment.identity), strength)
        for name, several in templates.by_emotion.items()
    }


def draw_emotions(
    draw: Callable[[Motion], U8],
    motions: Mapping[str, Motion],
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, U8]:
    """Emotion → picture (H, W, 3) RGB by `draw`, in the order of `motions`."""
    pictures: dict[str, U8] = {}
    for count, (name, motion) in enumerate(motions.items(), start=1):
        pictures[name] = draw(motion)
        if progress:
            progress(count, len(motions))
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
