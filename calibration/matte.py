"""The person's matte and the background plate behind them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision
from numpy.typing import NDArray

from engines.errors import ModelMissing
from engines.model_files import find_model
from engines.picture.push_pull import push_pull

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

PLATE_SIDE_PX = 512


@dataclass(frozen=True, slots=True)
class Matte:
    """`alpha` (H, W) uint8: 255 on the person. `notice` says so when the segmenter could not be used."""

    alpha: U8
    notice: str | None = None


@cache
def _segmenter() -> Any:  # vision.ImageSegmenter, which has no usable stub
    path = find_model("selfie_segmenter.tflite")
    options = vision.ImageSegmenterOptions(
        base_options=BaseOptions(model_asset_buffer=path.read_bytes()),
        running_mode=vision.RunningMode.IMAGE,
        output_confidence_masks=True,
        output_category_mask=False,
    )
    return vision.ImageSegmenter.create_from_options(options)


def cut_out(photo: U8, crop_px: tuple[float, float, float]) -> Matte:
    """Matte of the person in `photo` (H, W, 3), segmented on the head crop where resolution matters.

    Without the segmenter's model the whole photo counts as person: the background then bends with the
    head, which is less beautiful but never wrong.
    """
    try:
        segmenter = _segmenter()
    except ModelMissing as error:
        return Matte(np.full(photo.shape[:2], 255, np.uint8), f"no background separation: {error}")
    left, top, side = crop_px
    x0, y0 = max(0, int(left)), max(0, int(top))
    x1, y1 = min(photo.shape[1], int(np.ceil(left + side))), min(photo.shape[0], int(np.ceil(top + side)))
    alpha = _confidence(segmenter, photo)
    alpha[y0:y1, x0:x1] = _confidence(segmenter, photo[y0:y1, x0:x1])
    # the network answers at 256²: guide its edge by the photo, so that hair keeps its contour
    radius = max(2, round(side / 100))
    sharp = cv2.ximgproc.guidedFilter(photo, alpha, radius, 40.0)
    sharp = np.clip((sharp - 0.15) / 0.7, 0, 1)
    return Matte((sharp * 255 + 0.5).astype(np.uint8))


def _confidence(segmenter: Any, image: U8) -> F32:
    result = segmenter.segment(mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(image)))
    mask = np.asarray(result.confidence_masks[0].numpy_view(), np.float32)
    return cv2.resize(mask.reshape(mask.shape[:2]), (image.shape[1], image.shape[0])).astype(np.float32)


def background_plate(photo: U8, alpha: U8, crop_px: tuple[float, float, float]) -> U8:
    """The background with the person filled in by push-pull (smooth; detail is not invented).

    Returned at most `PLATE_SIDE_PX` on the longer side.
    """
    height, width = photo.shape[:2]
    step = min(1.0, PLATE_SIDE_PX / max(height, width))
    size = (max(1, round(width * step)), max(1, round(height * step)))
    image = cv2.resize(photo, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    # grow the person a little: its soft edge must not bleed into the plate
    reach = max(2, round(crop_px[2] / 40))
    person = cv2.dilate((alpha > 8).astype(np.uint8) * 255, np.ones((3, 3), np.uint8), iterations=reach)
    covered = cv2.resize(person, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    known = (1 - covered / 255).astype(np.float32)
    if float(known.mean()) < 0.01:
        # no background in sight: the blurred photo is the best guess
        return cv2.GaussianBlur(image, (0, 0), max(size) / 30).astype(np.uint8)
    return np.clip(push_pull(image, known) + 0.5, 0, 255).astype(np.uint8)
