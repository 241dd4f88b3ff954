"""The last step of drawing: the generator's premultiplied RGBA over a background."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.native.loader import kernels
from engines.picture.background import BLUR_HU, KEEP, Background, cover
from engines.picture.parting import part, premultiplied
from engines.raster.gbuffer import Viewport
from engines.raster.pose import photo_viewport, pose_in_viewport
from engines.raster.resample import resample

U8 = NDArray[np.uint8]

RIM = 1 / 64  # of the head crop's side: how far beyond the matte there may be something of the person


def make_background(
    enrollment: Enrollment, viewport: Viewport, background: Background = KEEP, behind: U8 | None = None
) -> U8:
    """(H, W, 3): what is seen behind the person, black where it is transparent.

    `behind` (H', W', 3) in photo pixels: what the photo has behind them, where it is known already (default: `parted`).
    """
    size = (viewport.width_px, viewport.height_px)
    if background.mode == "picture" and background.picture is not None:
        return cover(background.picture, *size)
    if background.mode in ("colour", "transparent"):
        colour = background.colour if background.mode == "colour" else (0, 0, 0)
        return np.full((size[1], size[0], 3), colour, np.uint8)
    if behind is None:
        behind = parted(enrollment).plate
    if background.mode in BLUR_HU:
        behind = _blurred(behind, BLUR_HU[background.mode] * photo_scale(enrollment))
    return resample(behind, viewport, 0, size)


def photo_scale(enrollment: Enrollment) -> float:
    """Pixels per head unit in the photo."""
    return pose_in_viewport(enrollment, enrollment.motion, photo_viewport(enrollment)).scale


def parted(enrollment: Enrollment, *, rim: bool = True) -> Enrollment:
    """The same in two layers: `photo` is the person without the old background in their soft edge, `plate` (H, W, 3)
    what is behind them in photo pixels, the photo itself wherever it shows that (`engines.picture.parting`).

    `rim`: with what is theirs beyond the matte; not for another background, where it would be a fringe.
    """
    height, width = enrollment.photo.shape[:2]
    guess = cv2.resize(enrollment.plate, (width, height), interpolation=cv2.INTER_CUBIC)
    rim_px = enrollment.crop_px[2] * RIM if rim else None
    layers = part(enrollment.photo, enrollment.matte, np.asarray(guess, np.uint8), rim_px)
    return replace(enrollment, photo=layers.person, matte=layers.matte, plate=layers.behind)


def _blurred(image: U8, sigma_px: float) -> U8:
    """A wide blur, worked out small: nothing finer is left of it."""
    height, width = image.shape[:2]
    step = min(1.0, 4 / max(sigma_px, 1e-3))
    size = (max(2, round(width * step)), max(2, round(height * step)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    small = cv2.GaussianBlur(small, (0, 0), max(0.3, sigma_px * step))
    wide = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(wide + 0.5, 0, 255).astype(np.uint8)


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


def still_person(enrollment: Enrollment, viewport: Viewport, margin_px: int = 0) -> U8:
    """(H + 2m, W + 2m, 4) premultiplied: the person as in the photo, which is what a generator draws where nothing
    moves, with a margin. Of an enrollment that was `parted`, over `make_background` the photo again."""
    size = (viewport.width_px + 2 * margin_px, viewport.height_px + 2 * margin_px)
    if enrollment.plate.shape == enrollment.photo.shape:
        whole = rejoined(enrollment)
        matte = resample(enrollment.matte, viewport, margin_px, size)
        return premultiplied(
            resample(whole, viewport, margin_px, size),
            matte,
            resample(enrollment.plate, viewport, margin_px, size),
        )
    rgba = resample(np.dstack([enrollment.photo, enrollment.matte]), viewport, margin_px, size)
    alpha = rgba[..., 3:].astype(np.uint16)
    rgba[..., :3] = ((rgba[..., :3] * alpha + 127) // 255).astype(np.uint8)
    return rgba


def rejoined(enrollment: Enrollment) -> U8:
    """(H, W, 3): the photo of an enrollment that was `parted`."""
    alpha = enrollment.matte[..., None].astype(np.uint32)
    both = enrollment.photo * alpha + enrollment.plate * (255 - alpha)
    return ((both + 127) // 255).astype(np.uint8)
