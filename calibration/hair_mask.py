"""Where a photo shows hair: told from skin, clothes and background by the photo's own colours and by place."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.geometry import Similarity
from engines.head.landmark_names import OVAL
from engines.head.model import HeadModel
from engines.raster.gbuffer import Viewport

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

SIDE_PX = 192  # colours are told apart in a crop of this size
_LIKE_SKIN = 5.0  # squared Mahalanobis distance from the face's colours: nearer may be skin
_LEAST_SEED_PX = 60
_GRABCUT_ROUNDS = 4
_PERSON = 128


def hair_mask(
    model: HeadModel,
    photo: U8,
    matte: U8,
    crop_px: tuple[float, float, float],
    neutral_hu: F32,
    pose: Similarity,
) -> U8:
    """(H, W) uint8: 255 where `photo` (H, W, 3) shows the person's hair within `matte` (H, W), in the crop alone.

    Hair is what looks like the rim of the scalp under the matte and hangs together with it, and unlike the face and
    the chest: two mixtures of Gaussians, parted by a graph cut. 0 everywhere where no hair is found (a bald head).
    `pose` takes head units to photo pixels, `neutral_hu` (N, 3) need not be inflated.
    """
    left, top, side = crop_px
    scale = SIDE_PX / side
    to_crop = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    small = cv2.warpAffine(
        photo, to_crop, (SIDE_PX, SIDE_PX), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
    )
    person = cv2.warpAffine(matte, to_crop, (SIDE_PX, SIDE_PX), flags=cv2.INTER_AREA) > _PERSON
    view = Viewport(left, top, scale, SIDE_PX, SIDE_PX)
    seeds = _seeds(model, np.asarray(small, np.uint8), person, view, neutral_hu, pose)
    height, width = photo.shape[:2]
    if seeds is None:
        return np.zeros((height, width), np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    cv2.grabCut(
        cv2.cvtColor(small, cv2.COLOR_RGB2BGR),
        seeds,
        (0, 0, 1, 1),
        *models,
        _GRABCUT_ROUNDS,
        cv2.GC_INIT_WITH_MASK,
    )  # pyright: ignore[reportCallIssue, reportArgumentType]
    found = np.isin(seeds, (cv2.GC_FGD, cv2.GC_PR_FGD)) & person
    found = _hanging_together(found, seeds == cv2.GC_FGD)
    soft = cv2.GaussianBlur(found.astype(np.uint8) * np.uint8(255), (0, 0), 1.0)
    back = cv2.warpAffine(soft, to_crop, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return np.asarray(cv2.min(back, matte), np.uint8)


def _seeds(
    model: HeadModel, small: U8, person: NDArray[np.bool_], view: Viewport, neutral_hu: F32, pose: Similarity
) -> U8 | None:
    """Grab-cut's first labels (S, S); None where the scalp's rim shows nothing but skin."""
    points = view.from_photo(pose.apply(neutral_hu).astype(np.float32)).astype(np.float32)
    marks = model.landmarks(points)[:, :2]
    oval = marks[list(OVAL)]
    middle = oval.mean(0)
    face = _filled(middle + 0.86 * (oval - middle))
    brow, chin = float(marks[[105, 334], 1].mean()), float(marks[152, 1])
    high = chin - float(oval[:, 1].min())
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX]
    wide = np.ptp(oval[:, 0])
    beyond = ~_filled(middle + 1.06 * (oval - middle))
    # the person's rim above the brows that the face does not reach
    inside = cv2.distanceTransform(person.astype(np.uint8), cv2.DIST_L2, 5)
    rim = (
        person
        & beyond
        & (y < brow)
        & (inside > 1.5)
        & (np.abs(x - middle[0]) < wide)
        & (y > oval[:, 1].min() - high)
    )
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    skin = face & (y > brow + 0.1 * high) & (y < brow + 0.5 * high)
    if int(skin.sum()) < _LEAST_SEED_PX or not rim.any():
        return None
    far = _distance(lab, lab[skin])
    hair = rim & (far > _LIKE_SKIN)
    if int(hair.sum()) < _LEAST_SEED_PX or float(hair.sum()) < 0.1 * float(rim.sum()):
        return None
    out = np.full((SIDE_PX, SIDE_PX), cv2.GC_PR_BGD, np.uint8)
    out[person & beyond & (y < chin + 0.6 * high)] = cv2.GC_PR_FGD
    out[hair] = cv2.GC_FGD
    out[face | ~person] = cv2.GC_BGD
    # beneath the chin stand neck and clothes
    chest = (y > chin + 0.12 * high) & (np.abs(x - marks[152, 0]) < 0.22 * wide)
    out[chest & person] = cv2.GC_BGD
    return out


def _filled(outline: NDArray[np.floating]) -> NDArray[np.bool_]:
    out = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    cv2.fillPoly(out, [np.rint(outline * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    return out > 0


def _distance(lab: F32, of: F32) -> F32:
    """(S, S) squared Mahalanobis distance of colours (S, S, 3) from the colours `of` (P, 3)."""
    middle = np.median(of, 0)
    spread = np.cov((of - middle).T) + np.diag([25.0, 4.0, 4.0])
    offset = lab - middle
    return np.asarray(np.einsum("...i,ij,...j->...", offset, np.linalg.inv(spread), offset), np.float32)


def _hanging_together(found: NDArray[np.bool_], sure: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What of `found` hangs together with what is `sure`, its small gaps closed."""
    closed = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, found_labels = cv2.connectedComponents(closed, connectivity=4)
    labels = np.asarray(found_labels, np.int32)
    touched = np.bincount(labels[sure & (closed > 0)], minlength=count) > 0
    touched[0] = False
    return touched[labels]
