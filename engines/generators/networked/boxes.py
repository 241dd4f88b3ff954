"""Windows and boxes of a picture: the square that networks work on, and crops that turn with the head."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.geometry import F64
from engines.raster.gbuffer import GBuffer, Viewport

F32 = NDArray[np.float32]

WHERE_PX = 32  # of the map that says where in the photo each place comes from


@dataclass(frozen=True, slots=True)
class Window:
    """The square of a viewport that the networks work on: the standard head crop. Whole pixels."""

    left_px: int
    top_px: int
    side_px: int

    @staticmethod
    def of(enrollment: Enrollment, viewport: Viewport) -> Window:
        """The enrollment's head crop in `viewport`; may reach beyond it."""
        left, top, side = enrollment.crop_px
        s = viewport.scale
        return Window(
            round((left - viewport.origin_x_px) * s),
            round((top - viewport.origin_y_px) * s),
            max(2, round(side * s)),
        )

    def cut(self, image: NDArray[np.generic]) -> NDArray[np.generic]:
        """(side, side, …) of `image`; beyond its edge the edge is repeated."""
        height, width = image.shape[:2]
        x0, y0, x1, y1 = self.left_px, self.top_px, self.left_px + self.side_px, self.top_px + self.side_px
        inner = image[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
        if x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height:
            return inner
        pad = (max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0))
        return np.asarray(cv2.copyMakeBorder(inner, *pad, cv2.BORDER_REPLICATE))  # pyright: ignore[reportCallIssue, reportArgumentType]

    def from_grid(self, values: NDArray[np.generic], viewport: Viewport, size_px: int) -> NDArray[np.generic]:
        """Values (h, w, …) on a G-buffer's grid, nearest, on a grid of `size_px` over the window."""
        rows, columns = values.shape[:2]
        x = (np.arange(size_px) + 0.5) * (self.side_px / size_px) + self.left_px
        y = (np.arange(size_px) + 0.5) * (self.side_px / size_px) + self.top_px
        column = np.clip((x * (columns / viewport.width_px)).astype(np.intp), 0, columns - 1)
        row = np.clip((y * (rows / viewport.height_px)).astype(np.intp), 0, rows - 1)
        return values[row[:, None], column[None]]


@dataclass(frozen=True, slots=True)
class TurnedBox:
    """A square crop that turns with the head: `centre_px` (2,) and `side_px` in viewport pixels, `angle_rad`."""

    centre_px: F64
    side_px: float
    angle_rad: float

    def affine(self, size_px: int, *, mirrored: bool = False) -> F64:
        """(2, 3) from crop pixels to viewport pixels, both counted from pixel centres as `cv2.warpAffine` does."""
        step = self.side_px / size_px
        across = np.array([np.cos(self.angle_rad), np.sin(self.angle_rad)])
        down = np.array([-across[1], across[0]]) * step
        across = across * (-step if mirrored else step)
        origin = self.centre_px - (across + down) * (size_px / 2)
        return np.column_stack([across, down, origin + (across + down) / 2 - 0.5])

    def finer(self, size_px: int) -> int:
        """By how much finer than `size_px` the box is read before it is averaged: more than 1 below half its size."""
        return max(1, int(self.side_px / size_px / 1.5))

    def on_grid(self, size_px: int, across: float, down: float, mirrored: bool) -> F64:
        """As `affine`, to the pixels of a grid with `across` and `down` pixels in one of the viewport."""
        step = np.array([across, down])
        affine = self.affine(size_px, mirrored=mirrored) * step[:, None]
        affine[:, 2] += 0.5 * step - 0.5
        return affine

    def reach(
        self, size_px: int, width: int, height: int, *, mirrored: bool = False
    ) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1): the upright rectangle around it in a picture of `width` × `height`."""
        affine = self.affine(size_px, mirrored=mirrored)
        low, high = -0.5, size_px - 0.5
        corners = np.array([[low, low], [high, low], [low, high], [high, high]])
        places = corners @ affine[:, :2].T + affine[:, 2]
        x0, y0 = np.maximum(np.floor(places.min(0)), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(places.max(0)) + 1, (width, height)).astype(int)
        return int(x0), int(y0), int(x1), int(y1)


def where_in_photo(flow: F32, gbuffer: GBuffer, window: Window) -> F32:
    """(32, 32, 2): where in the window of the photo each place of the window comes from, −1 … 1 as `grid_sample`."""
    found = window.from_grid(flow, gbuffer.viewport, WHERE_PX).astype(np.float32)
    centre = (np.arange(WHERE_PX, dtype=np.float32) + 0.5) / WHERE_PX * 2 - 1
    out = found * np.float32(2 / window.side_px)
    out[..., 0] += centre[None]
    out[..., 1] += centre[:, None]
    return np.clip(out, -1.5, 1.5)


def cut_box(
    image: NDArray[np.generic], box: TurnedBox, size_px: int, *, mirrored: bool = False, nearest: bool = False
) -> NDArray[np.generic]:
    """`box` of `image` as (size, size, …); averaged first where it shrinks to less than half."""
    flags = (cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    finer = 1 if nearest else box.finer(size_px)
    affine = box.affine(size_px * finer, mirrored=mirrored)
    size = (size_px * finer, size_px * finer)
    out = cv2.warpAffine(image, affine, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)  # pyright: ignore[reportCallIssue, reportArgumentType]
    if finer > 1:
        out = cv2.resize(out, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return np.asarray(out)
