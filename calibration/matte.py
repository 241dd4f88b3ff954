"""The person's matte and the background plate behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision
from numpy.typing import NDArray

from calibration.fill import WORK_PX, fill
from engines.errors import ModelMissing
from engines.model_files import find_model

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

PLATE_SIDE_PX = 1024


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


def of_one(alpha: U8, photo: U8, face_px: F32, others_px: Sequence[F32] = ()) -> U8:
    """`alpha` (H, W) without who and what is not the person with the face `face_px` (478, 2 or 3).

    Other faces and what belongs to them as the photo's edges tell it (watershed), and islands apart from the person,
    are background. An island by the person's side that is small stays: a curl, an ear-ring.
    """
    out = alpha.copy()
    own = _hull(face_px, alpha)
    if others_px and int(alpha.min()) < 255:
        markers = np.zeros(alpha.shape, np.int32)
        markers[alpha < _CLEAR] = _GROUND
        for other in others_px:
            markers[_hull(other, alpha) & ~own] = _OTHER
        markers[own] = _OWN
        cv2.watershed(np.ascontiguousarray(photo), markers)
        theirs = cv2.morphologyEx(
            (markers == _OTHER).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)
        )
        soft = cv2.GaussianBlur(255 - theirs * 255, (0, 0), 1.0)
        out = np.minimum(out, np.asarray(soft, np.uint8))
        out[theirs > 0] = 0
    solid = (out > 127).astype(np.uint8)
    count, labels, boxes, _ = (np.asarray(part) for part in cv2.connectedComponentsWithStats(solid))
    kept = np.unique(labels[own & (solid > 0)])
    if not len(kept):
        return out  # not that face's matte at all: the caller sees it
    size = boxes[:, cv2.CC_STAT_AREA]
    person = np.isin(labels, kept)
    reach = max(3, round(_BESIDE * float(np.ptp(face_px[:, 1]))))
    beside = cv2.dilate(person.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=reach) > 0
    limit = _SMALL * float(size[kept].sum())
    stays = np.array(
        [k in kept or (size[k] < limit and bool(beside[labels == k].any())) for k in range(count)], np.bool_
    )
    stays[0] = False
    if stays[1:].all():
        return out
    # each place goes with the island it is nearest to, soft edges with it
    _, told = cv2.distanceTransformWithLabels(1 - solid, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    nearest = np.asarray(told, np.int32)
    island = np.zeros(int(nearest.max()) + 1, np.int32)
    island[nearest[solid > 0]] = labels[solid > 0]
    out[~stays[island[nearest]]] = 0
    return out


_GROUND, _OWN, _OTHER = 1, 2, 3  # markers of the watershed
_CLEAR = 13
_BESIDE, _SMALL = 0.15, 0.02  # of the face's height, of the person's area


def _hull(face_px: F32, alpha: U8) -> NDArray[np.bool_]:
    mask = np.zeros(alpha.shape, np.uint8)
    points = np.round(face_px[:, :2]).astype(np.int32)
    cv2.fillConvexPoly(mask, cv2.convexHull(points), 1)
    return mask > 0


def _confidence(segmenter: Any, image: U8) -> F32:
    result = segmenter.segment(mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(image)))
    mask = np.asarray(result.confidence_masks[0].numpy_view(), np.float32)
    return cv2.resize(mask.reshape(mask.shape[:2]), (image.shape[1], image.shape[0])).astype(np.float32)


def background_plate(photo: U8, alpha: U8, crop_px: tuple[float, float, float], fill_px: int = WORK_PX) -> U8:
    """The photo without the person: what they hide is filled from the rest (`calibration.fill`, at `fill_px`).

    Returned at most `PLATE_SIDE_PX` on the longer side. Where the photo itself shows the background, drawing takes it
    from there (`engines.picture.parting`).
    """
    height, width = photo.shape[:2]
    step = min(1.0, PLATE_SIDE_PX / max(height, width))
    size = (max(1, round(width * step)), max(1, round(height * step)))
    image = cv2.resize(photo, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    # beside the soft edge there may be stray hair: it is not to be filled, but nothing is copied from there
    hidden, near = (_covered(alpha, size, max(1, round(crop_px[2] / share))) for share in (_FILLED, _BARRED))
    if float(near.mean()) > 0.99:
        # no background in sight: the blurred photo is the best guess
        return cv2.GaussianBlur(image, (0, 0), max(size) / 30).astype(np.uint8)
    return fill(image, hidden, near, fill_px)


_FILLED, _BARRED = 60, 36  # parts of the head crop's side


def _covered(alpha: U8, size: tuple[int, int], reach_px: int) -> NDArray[np.bool_]:
    person = cv2.dilate((alpha > 0).astype(np.uint8) * 255, np.ones((3, 3), np.uint8), iterations=reach_px)
    return np.asarray(cv2.resize(person, size, interpolation=cv2.INTER_AREA) > 0)
