"""A photo continued beyond its edges, for frames that show more than the photo does.

The background runs out smoothly (push-pull, blurred), shoulders fall away as they do in life, and nobody is mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.geometry import Camera
from engines.motion import Motion
from engines.picture.push_pull import push_pull
from engines.raster.gbuffer import Viewport

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Pad:
    """By how many photo pixels a photo grows on each side."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    @property
    def any(self) -> bool:
        """Whether it grows at all."""
        return max(self.left, self.top, self.right, self.bottom) > 0


def missing(enrollment: Enrollment, viewport: Viewport) -> Pad:
    """What `viewport` shows beyond the photo."""
    height, width = enrollment.photo.shape[:2]
    right = viewport.origin_x_px + viewport.width_px / viewport.scale - width
    bottom = viewport.origin_y_px + viewport.height_px / viewport.scale - height
    sides = (-viewport.origin_x_px, -viewport.origin_y_px, right, bottom)
    return Pad(*(max(0, int(np.ceil(side - 1e-6))) for side in sides))


def moved(viewport: Viewport, pad: Pad) -> Viewport:
    """`viewport` in the pixels of the photo that grew by `pad`."""
    return replace(
        viewport, origin_x_px=viewport.origin_x_px + pad.left, origin_y_px=viewport.origin_y_px + pad.top
    )


def told_beyond(enrollment: Enrollment, motion: Motion, pad: Pad) -> Motion:
    """A motion told in the camera of the enrollment's photo, in that of the photo that grew by `pad`."""
    if not pad.any:
        return motion
    height, width = enrollment.photo.shape[:2]
    pose = Camera(width, height).to_similarity(motion.rotation_rad, motion.translation_hu)
    grown = Camera(width + pad.left + pad.right, height + pad.top + pad.bottom)
    rotation, translation = grown.from_similarity(
        replace(pose, shift=pose.shift + np.array([pad.left, pad.top, 0.0]))
    )
    return replace(
        motion,
        rotation_rad=rotation.astype(np.float32),
        translation_hu=translation.astype(np.float32),
    )


def outpaint(enrollment: Enrollment, pad: Pad) -> Enrollment:
    """The enrollment in a photo that grew by `pad`: everything told in its pixels, the pose in its camera.

    The photo's own pixels stay as they are, but for the background right beside an edge that is continued.
    """
    if not pad.any:
        return enrollment
    photo, matte = enrollment.photo, enrollment.matte
    height, width = photo.shape[:2]
    pose = Camera(width, height).to_similarity(
        enrollment.motion.rotation_rad, enrollment.motion.translation_hu
    )
    wide, high = width + pad.left + pad.right, height + pad.top + pad.bottom
    plate = _grown_plate(enrollment, pad)
    if int(matte.min()) == 255:
        # nobody was told from the background: there is only one layer to continue
        person = np.zeros((high, wide, 4), np.uint8)
    else:
        chin_y = float(enrollment.landmarks_px[_CHIN, 1])
        person = _grown_person(photo, matte, pad, pose.scale, chin_y)
    sigma = max(0.5, _BACKGROUND_BLUR_HU * pose.scale * plate.shape[1] / wide)
    behind = cv2.GaussianBlur(plate, (0, 0), sigma)
    behind = cv2.resize(behind, (wide, high), interpolation=cv2.INTER_CUBIC)
    alpha = person[..., 3:].astype(np.float32) / 255
    grown = (person[..., :3] + behind * (1 - alpha) + 0.5).astype(np.uint8)
    grown_matte = np.ascontiguousarray(person[..., 3])
    inside = np.s_[pad.top : pad.top + height, pad.left : pad.left + width]
    # the background begins to blur a little before the photo ends, the person does not
    blurs = _blurs(width, height, pad, _BLURS_WITHIN_HU * pose.scale)[..., None]
    blurs = blurs * (1 - matte[..., None].astype(np.float32) / 255)
    grown[inside] = (photo * (1 - blurs) + behind[inside] * blurs + 0.5).astype(np.uint8)
    grown_matte[inside] = matte
    if int(matte.min()) == 255:
        grown_matte[:] = 255
    shift = np.array([pad.left, pad.top], np.float32)
    left, top, side = enrollment.crop_px
    landmarks = enrollment.landmarks_px.copy()
    landmarks[:, :2] += shift
    return replace(
        enrollment,
        photo=grown,
        matte=grown_matte,
        plate=plate,
        crop_px=(left + pad.left, top + pad.top, side),
        landmarks_px=landmarks,
        uv_position_px=enrollment.uv_position_px + shift,
        motion=told_beyond(enrollment, enrollment.motion, pad),
    )


_BACKGROUND_BLUR_HU = 0.12
_BLURS_WITHIN_HU = 0.35
_PLATE_SIDE_PX = 512
_CHIN = 152  # the landmark


def _blurs(width: int, height: int, pad: Pad, within_px: float) -> F32:
    """(H, W) over the photo: 1 at the edges that are continued … 0 from `within_px` inwards."""
    x, y = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5
    far_x, far_y = np.full_like(x, 1e9), np.full_like(y, 1e9)
    across = np.minimum(x if pad.left else far_x, width - x if pad.right else far_x)
    down = np.minimum(y if pad.top else far_y, height - y if pad.bottom else far_y)
    inwards = np.clip(np.minimum(across[None], down[:, None]) / within_px, 0, 1)
    return np.asarray(1 - inwards * inwards * (3 - 2 * inwards), np.float32)


def _grown_plate(enrollment: Enrollment, pad: Pad) -> U8:
    """The background (h, w, 3), low-resolution, without the person and beyond the photo's edges."""
    height, width = enrollment.photo.shape[:2]
    wide, high = width + pad.left + pad.right, height + pad.top + pad.bottom
    # where nobody stands the photo itself knows best
    own = cv2.resize(enrollment.plate, (width, height), interpolation=cv2.INTER_LINEAR)
    image = np.zeros((high, wide, 3), np.float32)
    inside = np.s_[pad.top : pad.top + height, pad.left : pad.left + width]
    known = np.zeros((high, wide), np.float32)
    image[inside], known[inside] = own, 1
    step = min(1.0, _PLATE_SIDE_PX / max(high, wide))
    size = (max(2, round(wide * step)), max(2, round(high * step)))
    weight = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    small = (small / np.maximum(weight, 1e-6)[..., None]).astype(np.float32)
    return np.clip(push_pull(small, weight.astype(np.float32)) + 0.5, 0, 255).astype(np.uint8)


_LEAST_SLOPE, _MOST_SLOPE = 0.25, 1.2
_SLOPE_OVER_HU = 0.4  # how much of the shoulder's line says how it goes on
_BEND_PER_HU = 0.6  # by how much the slope grows with each head unit


def _grown_person(photo: U8, matte: U8, pad: Pad, hu_px: float, chin_y: float) -> U8:
    """The person (H', W', 4) premultiplied, beyond the photo's edges: shoulders fall away, the chest goes on."""
    alpha = matte.astype(np.float32)[..., None] / 255
    inner = np.dstack([photo * alpha, matte]).astype(np.float32)
    rows = np.vstack([inner, np.repeat(_calm_edge(inner)[None], pad.bottom, 0)])
    left = _beside(rows, pad.left, hu_px, chin_y)
    right = _beside(rows[:, ::-1], pad.right, hu_px, chin_y)
    across = np.hstack([left[:, ::-1], rows, right])
    top = _above(_calm_edge(across[::-1]), pad.top)
    return np.clip(np.vstack([top, across]) + 0.5, 0, 255).astype(np.uint8)


def _calm_edge(rows: F32) -> F32:
    """(W, 4): the last of `rows`, averaged with those before it and along itself, for it is about to make streaks."""
    return cv2.GaussianBlur(rows[-3:].mean(0)[None], (0, 0), 2.0)[0].astype(np.float32)


_HAIR_FADES_HU, _HAIR_BLUR_HU = 0.15, 0.06


def _beside(rows: F32, count: int, hu_px: float, chin_y: float) -> F32:
    """(H, count, 4) to the left of `rows` (H, W, 4), nearest first.

    The shoulder (what reaches from below the chin to the lower edge) sinks ever faster; hair that the photo
    cuts off fades.
    """
    height = len(rows)
    if count == 0:
        return np.zeros((height, 0, 4), np.float32)
    edge = _calm_edge(np.swapaxes(rows[:, 2::-1], 0, 1))
    gaps = np.flatnonzero(edge[:, 3] < 127)
    shoulder_y = max(int(gaps[-1]) + 1 if len(gaps) else 0, round(chin_y))
    distance_hu = (np.arange(count, dtype=np.float32) + 0.5) / hu_px
    hair = edge.copy()
    hair[max(0, shoulder_y - round(2 * _SOFT_SHOULDER_PX)) :] = 0
    hair = cv2.GaussianBlur(hair[:, None], (0, 0), max(0.5, _HAIR_BLUR_HU * hu_px))
    out = hair.reshape(-1, 1, 4) * np.clip(1 - distance_hu / _HAIR_FADES_HU, 0, 1)[None, :, None]
    if shoulder_y < height:
        slope = _shoulder_slope(rows[max(0, shoulder_y - round(_SLOPE_OVER_HU * hu_px)) :, :, 3], hu_px)
        drop = (slope + _BEND_PER_HU * distance_hu) * distance_hu * hu_px
        at_y = np.arange(height, dtype=np.float32)[:, None] - drop[None]
        body = cv2.remap(
            np.ascontiguousarray(edge[:, None]), np.zeros_like(at_y), at_y, cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        weight = np.clip((at_y - shoulder_y) / _SOFT_SHOULDER_PX, 0, 1)[..., None]
        out = out * (1 - weight * body[..., 3:] / 255) + body * weight
    return np.asarray(out, np.float32)


_SOFT_SHOULDER_PX = 3.0


def _shoulder_slope(alpha: F32, hu_px: float) -> float:
    """How steeply the person's upper outline falls towards the left edge: rows per column."""
    columns = max(4, min(alpha.shape[1] // 4, round(_SLOPE_OVER_HU * hu_px)))
    solid = alpha[:, :columns] > 127
    known = np.asarray(solid.max(axis=0), np.bool_)
    if not known[0] or known.sum() < 4:
        return _LEAST_SLOPE
    top = solid.argmax(0)[known]
    x = np.flatnonzero(known) - float(np.flatnonzero(known).mean())
    slope = -float((x * (top - top.mean())).sum() / (x * x).sum())
    return float(np.clip(slope, _LEAST_SLOPE, _MOST_SLOPE))


_DOME = 0.6  # how high hair that the photo cuts off rises, in half its width


def _above(edge: F32, count: int) -> F32:
    """(count, W, 4) above the first row `edge` (W, 4): a dome over what the photo cuts off there."""
    width = len(edge)
    out = np.zeros((count, width, 4), np.float32)
    inside = np.flatnonzero(edge[:, 3] > 127)
    if not len(inside) or count == 0:
        return out
    centre, half = (inside[0] + inside[-1]) / 2, max(1.0, (inside[-1] - inside[0] + 1) / 2)
    up = (count - 0.5 - np.arange(count)) / (_DOME * half)
    narrow = np.sqrt(np.clip(1 - up * up, 0, 1))[:, None]
    x = np.arange(width)[None] - centre
    at = np.where(narrow > 0.02, centre + x / np.maximum(narrow, 0.02), -1e6).astype(np.float32)
    out = cv2.remap(
        np.ascontiguousarray(edge[None]), at, np.zeros_like(at), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
    )  # fmt: skip
    return np.asarray(out, np.float32)
