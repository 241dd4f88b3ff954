"""The last step of drawing: the generator's premultiplied RGBA over a background."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment, head_model_of
from engines.native.loader import kernels
from engines.picture.background import KEEP, Background, clean_edges, cover
from engines.raster.gbuffer import Viewport, rasterise
from engines.raster.pose import photo_viewport, pose_head, pose_in_viewport
from engines.raster.resample import resample

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

_GRID_PX = 512
_REACH_HU = 0.9  # the body layer moves along this far from the head


def make_background(
    enrollment: Enrollment, viewport: Viewport, background: Background = KEEP, behind: U8 | None = None
) -> U8:
    """(H, W, 3): what is seen behind the person, black where it is transparent.

    The photo's own: the photo where nothing will ever move, the filled plate behind the part that does.
    `behind`: what `behind_person` said, where it is known already.
    """
    size = (viewport.width_px, viewport.height_px)
    if background.mode == "picture" and background.picture is not None:
        return cover(background.picture, *size)
    if background.mode in ("colour", "transparent"):
        colour = background.colour if background.mode == "colour" else (0, 0, 0)
        return np.full((size[1], size[0], 3), colour, np.uint8)
    if behind is None:
        behind = behind_person(enrollment, everywhere=background.mode == "blur")
    if background.mode == "blur":
        behind = _blurred(behind, background.blur_hu * photo_scale(enrollment))
    return resample(behind, viewport, 0, size)


def photo_scale(enrollment: Enrollment) -> float:
    """Pixels per head unit in the photo."""
    return pose_in_viewport(enrollment, enrollment.motion, photo_viewport(enrollment)).scale


def behind_person(enrollment: Enrollment, *, everywhere: bool) -> U8:
    """(H, W, 3) in photo pixels: the photo with the plate where the person is, `everywhere` or where they may move."""
    height, width = enrollment.photo.shape[:2]
    plate = cv2.resize(enrollment.plate, (width, height), interpolation=cv2.INTER_LINEAR)
    # beyond the matte's soft edge, so that no rim of hair stays behind when the head moves away
    reach = max(2, round(enrollment.crop_px[2] / 40))
    grown = cv2.dilate(
        (enrollment.matte > 8).astype(np.uint8) * 255, np.ones((3, 3), np.uint8), iterations=reach
    )
    soft = cv2.GaussianBlur(grown, (0, 0), max(1.0, reach / 3)).astype(np.float32) / 255
    if not everywhere:
        soft = soft * _may_move(enrollment)
    soft = soft[..., None]
    return (enrollment.photo * (1 - soft) + plate * soft + 0.5).astype(np.uint8)


def _blurred(image: U8, sigma_px: float) -> U8:
    """A wide blur, worked out small: nothing finer is left of it."""
    height, width = image.shape[:2]
    step = min(1.0, 4 / max(sigma_px, 1e-3))
    size = (max(2, round(width * step)), max(2, round(height * step)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    small = cv2.GaussianBlur(small, (0, 0), max(0.3, sigma_px * step))
    wide = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(wide + 0.5, 0, 255).astype(np.uint8)


def _may_move(enrollment: Enrollment) -> F32:
    """(H, W) 0 … 1 over the photo: 1 where the head can uncover what is behind it, 0 beyond its reach."""
    model = head_model_of(enrollment)
    viewport = photo_viewport(enrollment)
    mesh = pose_head(model, enrollment, enrollment.motion, viewport)
    covered = (rasterise(model, mesh, viewport, _GRID_PX).part > 0).astype(np.uint8)
    height, width = enrollment.photo.shape[:2]
    distance = cv2.distanceTransform(1 - covered, cv2.DIST_L2, 5)
    reach = _REACH_HU * mesh.pose.scale * covered.shape[1] / width
    near = np.clip(2 - 2 * distance / max(reach, 1e-3), 0, 1).astype(np.float32)
    return cv2.resize(near, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)


def composite(rgba: U8, background: U8) -> U8:
    """`rgba` (H, W, 4) premultiplied over `background` (H, W, 3) → (H, W, 3) uint8."""
    compiled = kernels()
    if compiled is not None and rgba.flags.c_contiguous and background.flags.c_contiguous:
        return compiled.over(rgba, background)  # in one pass
    alpha = rgba[..., 3]
    clear = cv2.cvtColor(cv2.bitwise_not(alpha), cv2.COLOR_GRAY2RGB)
    behind = cv2.multiply(background, clear, scale=1 / 255)
    return cv2.add(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), behind).astype(np.uint8)


def straight(rgba: U8) -> U8:
    """`rgba` (H, W, 4) premultiplied → the same with straight colours, as PNG and video files have them."""
    alpha = rgba[..., 3]
    colour = cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB)
    colour = cv2.divide(colour, cv2.cvtColor(alpha, cv2.COLOR_GRAY2RGB), scale=255)
    return np.dstack([colour, alpha]).astype(np.uint8, copy=False)


def without_old_background(enrollment: Enrollment, behind: U8) -> Enrollment:
    """The same person with `behind`, of `behind_person`, taken out of their soft edge (`background.clean_edges`)."""
    return replace(
        enrollment,
        photo=clean_edges(enrollment.photo, enrollment.matte, behind, photo_scale(enrollment)),
    )


def still_person(enrollment: Enrollment, viewport: Viewport) -> U8:
    """(H, W, 4) premultiplied: the person as in the photo, which is what a generator draws where nothing moves."""
    rgba = resample(
        np.dstack([enrollment.photo, enrollment.matte]), viewport, 0, (viewport.width_px, viewport.height_px)
    )
    alpha = rgba[..., 3:].astype(np.uint16)
    rgba[..., :3] = ((rgba[..., :3] * alpha + 127) // 255).astype(np.uint8)
    return rgba
