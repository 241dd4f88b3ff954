"""`Compiled`: what the networks of `visavis` see and say, by the compiled kernels; as `ByOpenCv`, each in one call."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.generators.networked.boxes import TurnedBox, Window
from engines.generators.visavis.inputs import EYE_PX, MOUTH_PX, WINDOW_PX, eye_guide, mouth_guide, one_hot
from engines.generators.visavis.way import Way
from engines.native.kernels import Crop, Kernels
from engines.raster.conditioning import PreparedMap
from engines.raster.gbuffer import GBuffer, Viewport

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

_ALL = np.arange(256, dtype=np.uint8)
_SKIN, _EYE, _MOUTH = (np.ascontiguousarray(x, np.uint8) for x in one_hot(_ALL))
_IN_MOUTH = np.ascontiguousarray(mouth_guide(_ALL[None])[0], np.uint8)  # (256, 3)
_IN_EYE = np.ascontiguousarray(eye_guide(_ALL[None])[0], np.uint8)  # (256, 1)


_MOST_PX = 1 << 15


def can_draw(window: Window, viewport: Viewport) -> bool:
    """Whether the kernels draw this window: a smaller one would have to be enlarged for the networks, and one that an
    odd avatar has beside the picture has no edge to go on from."""
    across = -window.side_px < window.left_px < viewport.width_px
    down = -window.side_px < window.top_px < viewport.height_px
    return across and down and WINDOW_PX <= window.side_px <= _MOST_PX


class Compiled(Way):
    """See the module. Windows that it does not draw: `can_draw`."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels

    def see_head(
        self, picture: U8, flow: F32, guides: PreparedMap, gbuffer: GBuffer, window: Window
    ) -> tuple[Tensor, Tensor, Tensor]:
        first, second = guides.pieces
        seen = self._kernels.window(
            picture, _place(window), (gbuffer.uv, gbuffer.part, flow), (first, second), (_SKIN, _EYE, _MOUTH)
        )
        picture_in, guide, where = (torch.from_numpy(x[None]) for x in seen)
        return picture_in, guide, where

    def complete(self, picture: U8, window: Window, flow: Tensor | None, layers: Tensor | None) -> U8:
        told = [None if x is None else np.ascontiguousarray(x[0].numpy()) for x in (flow, layers)]
        return self._kernels.blend(picture, _place(window), *told)

    def see_mouth(self, picture: U8, gbuffer: GBuffer, box: TurnedBox) -> tuple[Tensor, Tensor]:
        return self._see(picture, gbuffer, box, MOUTH_PX, _IN_MOUTH, mirrored=False)

    def see_eye(
        self, picture: U8, gbuffer: GBuffer, box: TurnedBox, *, mirrored: bool
    ) -> tuple[Tensor, Tensor]:
        return self._see(picture, gbuffer, box, EYE_PX, _IN_EYE, mirrored=mirrored)

    def paint(self, picture: U8, layers: Tensor, box: TurnedBox, *, mirrored: bool = False) -> None:
        crop = Crop.of(box.affine(layers.shape[-1], mirrored=mirrored), layers.shape[-1])
        self._kernels.blend_crop(picture, crop, np.ascontiguousarray(layers.numpy()))

    def _see(
        self, picture: U8, gbuffer: GBuffer, box: TurnedBox, size_px: int, kinds: U8, *, mirrored: bool
    ) -> tuple[Tensor, Tensor]:
        finer = box.finer(size_px)
        crop = Crop.of(box.affine(size_px * finer, mirrored=mirrored), size_px, finer)
        rows, columns = gbuffer.part.shape
        grid = box.on_grid(
            size_px, columns / gbuffer.viewport.width_px, rows / gbuffer.viewport.height_px, mirrored
        )
        return (
            torch.from_numpy(self._kernels.crop(picture, crop)[None]),
            torch.from_numpy(self._kernels.crop_parts(gbuffer.part, Crop.of(grid, size_px), kinds)[None]),
        )


def _place(window: Window) -> tuple[int, int, int]:
    return window.left_px, window.top_px, window.side_px
