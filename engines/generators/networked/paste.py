"""What networks say of a window at low resolution, applied to a picture at full resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.generators.geometric.patch import Patch
from engines.raster.gbuffer import Viewport
from engines.raster.resample import resample

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

_RIM_SHARE = 0.04  # of the window: there what was drawn fades into the photo as it is
_BEYOND_PX = 2  # more of the photo than the window, so that its edge has neighbours


def premultiplied(enrollment: Enrollment, viewport: Viewport) -> U8:
    """The photo's person in a viewport: premultiplied RGBA (h, w, 4)."""
    size = (viewport.width_px, viewport.height_px)
    rgba = resample(np.dstack([enrollment.photo, enrollment.matte]), viewport, 0, size)
    alpha = rgba[..., 3:].astype(np.uint16)
    rgba[..., :3] = ((rgba[..., :3] * alpha + 127) // 255).astype(np.uint8)
    return rgba


@dataclass(frozen=True, slots=True)
class Paste:
    """Where a window lies in a viewport, and the photo around it.

    - `still` (H, W, 4): the photo's person in the viewport; outside the window it is what shows.
    - `canvas`: the photo's person over all of the window, in whole viewport pixels; its corner `left_px`, `top_px`.
    - `inside` (y, x): what of the canvas lies in the viewport.
    - `affine` (2, 3): from canvas pixels to window shares times −1 … (as `cv2.warpAffine` maps, per window pixel).
    - `rim` (h, w) float32 over `inside`: 1 within the window … 0 at its edge.
    """

    still: U8
    canvas: U8
    left_px: int
    top_px: int
    inside: tuple[slice, slice]
    affine: F32
    window: Viewport
    viewport: Viewport
    rim: F32

    @staticmethod
    def of(enrollment: Enrollment, viewport: Viewport, window: Viewport) -> Paste:
        """Both in the pixels of the enrollment's photo."""
        step = viewport.scale / window.scale  # viewport pixels of a window pixel
        left = (window.origin_x_px - viewport.origin_x_px) * viewport.scale
        top = (window.origin_y_px - viewport.origin_y_px) * viewport.scale
        x0, y0 = int(np.floor(left)) - _BEYOND_PX, int(np.floor(top)) - _BEYOND_PX
        x1 = int(np.ceil(left + window.width_px * step)) + _BEYOND_PX
        y1 = int(np.ceil(top + window.height_px * step)) + _BEYOND_PX
        around = Viewport(
            viewport.origin_x_px + x0 / viewport.scale, viewport.origin_y_px + y0 / viewport.scale,
            viewport.scale, x1 - x0, y1 - y0,
        )  # fmt: skip
        inside = (
            slice(max(0, -y0), max(0, min(y1, viewport.height_px) - y0)),
            slice(max(0, -x0), max(0, min(x1, viewport.width_px) - x0)),
        )
        # the middle of a canvas pixel, in window pixels counted from the middle of the first
        affine = np.array(
            [[1 / step, 0, (x0 + 0.5 - left) / step - 0.5], [0, 1 / step, (y0 + 0.5 - top) / step - 0.5]],
            np.float32,
        )
        across = _rim(np.arange(x1 - x0), affine[0], window.width_px)
        down = _rim(np.arange(y1 - y0), affine[1, [1, 0, 2]], window.height_px)
        rim = np.minimum(down[:, None], across[None]).astype(np.float32)[inside]
        return Paste(
            premultiplied(enrollment, viewport), premultiplied(enrollment, around), x0, y0, inside, affine,
            window, viewport, rim,
        )  # fmt: skip

    def draw(self, rgba: F32) -> U8:
        """`rgba` (h, w, 4) 0 … 1 of the window, of any size, in the viewport (H, W, 4)."""
        return self._framed(cv2.convertScaleAbs(self._large(rgba), alpha=255))

    def draw_warped(self, difference: F32, flow: F32, laid: Sequence[Patch | None] = ()) -> U8:
        """The photo warped at full resolution by `flow` (h', w', 2) in shares of the window's sides, over it what is
        `laid` on it in the viewport, and on both the `difference` (h, w, 4), −1 … 1: as sharp as the photo is."""
        step = self.viewport.scale / self.window.scale
        sides = np.array([self.window.width_px * step, self.window.height_px * step], np.float32)
        where = self._large(flow) * sides
        rows, columns = (np.arange(s.start, s.stop, dtype=np.float32) for s in self.inside)
        where[..., 0] += columns[None]
        where[..., 1] += rows[:, None]
        moved = cv2.remap(self.canvas, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # pyright: ignore[reportCallIssue, reportArgumentType]
        drawn = np.asarray(moved, np.float32)
        for patch in laid:
            if patch is not None:
                patch.over(drawn, self.left_px + self.inside[1].start, self.top_px + self.inside[0].start)
        drawn += self._large(difference) * np.float32(255)
        return self._framed(np.clip(drawn + np.float32(0.5), 0, 255).astype(np.uint8))

    def _large(self, values: F32) -> F32:
        """Values (h, w, c) over the window, over `inside`."""
        height, width = values.shape[:2]
        scale = np.array([width / self.window.width_px, height / self.window.height_px], np.float32)
        affine = self.affine * scale[:, None]
        affine[:, 2] += 0.5 * scale - 0.5
        affine[:, 2] += affine[:, 0] * self.inside[1].start + affine[:, 1] * self.inside[0].start
        size = (self.inside[1].stop - self.inside[1].start, self.inside[0].stop - self.inside[0].start)
        if min(size) <= 0:
            return np.zeros((max(size[1], 0), max(size[0], 0), values.shape[2]), np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        large = cv2.warpAffine(values, affine, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(large, np.float32)

    def _framed(self, drawn: NDArray[np.generic]) -> U8:
        out = self.still.copy()
        if not drawn.size:
            return out
        y, x = self.inside
        place = out[
            y.start + self.top_px : y.stop + self.top_px, x.start + self.left_px : x.stop + self.left_px
        ]
        rim = self.rim[..., None]
        mixed = place + (np.asarray(drawn, np.float32) - place) * rim
        place[:] = (mixed + np.float32(0.5)).astype(np.uint8)
        return out


def _rim(pixels: NDArray[np.integer], row: F32, side_px: int) -> F32:
    """0 at the window's edges … 1 within, along one axis."""
    at = (pixels * row[0] + row[2] + 0.5) / side_px
    near = np.clip(np.minimum(at, 1 - at) / _RIM_SHARE, 0, 1)
    return (near * near * (3 - 2 * near)).astype(np.float32)
