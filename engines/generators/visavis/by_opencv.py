"""`ByOpenCv`: what the networks of `visavis` see and say, by OpenCV and NumPy; the reference for the compiled way."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.generators.networked.blend import blend_box, blend_window, move
from engines.generators.networked.boxes import TurnedBox, Window, cut_box, where_in_photo
from engines.generators.visavis import inputs
from engines.generators.visavis.inputs import EYE_PX, MOUTH_PX
from engines.generators.visavis.way import Way
from engines.raster.conditioning import PreparedMap
from engines.raster.gbuffer import GBuffer

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


class ByOpenCv(Way):
    """See the module."""

    def see_head(
        self, picture: U8, flow: F32, guides: PreparedMap, gbuffer: GBuffer, window: Window
    ) -> tuple[Tensor, Tensor, Tensor]:
        guide, part = inputs.guides(guides, gbuffer, window)
        return (
            as_tensor(inputs.low_picture(picture, window)),
            _channels_first(inputs.head_guide(guide, part)),
            torch.from_numpy(where_in_photo(flow, gbuffer, window)[None]),
        )

    def complete(self, picture: U8, window: Window, flow: Tensor | None, layers: Tensor | None) -> U8:
        if flow is not None:
            picture = move(picture, np.ascontiguousarray(flow[0].permute(1, 2, 0).numpy()), window)
        if layers is not None:
            blend_window(picture, _bytes(layers[0]), window)
        return picture

    def see_mouth(self, picture: U8, gbuffer: GBuffer, box: TurnedBox) -> tuple[Tensor, Tensor]:
        part = inputs.part_crop(gbuffer, box, MOUTH_PX)
        crop = cut_box(picture, box, MOUTH_PX)[..., :3]
        return as_tensor(crop), _channels_first(inputs.mouth_guide(part))

    def see_eye(
        self, picture: U8, gbuffer: GBuffer, box: TurnedBox, *, mirrored: bool
    ) -> tuple[Tensor, Tensor]:
        part = inputs.part_crop(gbuffer, box, EYE_PX, mirrored=mirrored)
        crop = cut_box(picture, box, EYE_PX, mirrored=mirrored)[..., :3]
        return as_tensor(crop), _channels_first(inputs.eye_guide(part))

    def paint(self, picture: U8, layers: Tensor, box: TurnedBox, *, mirrored: bool = False) -> None:
        blend_box(picture, _bytes(layers), box, mirrored=mirrored)


def as_tensor(image: NDArray[np.generic]) -> Tensor:
    """(h, w, c) uint8 → (1, c, h, w) float32 0 … 1."""
    return _channels_first(image.astype(np.float32) * np.float32(1 / 255))


def _channels_first(values: F32) -> Tensor:
    """(h, w, c) → (1, c, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)[None]))


def _bytes(values: Tensor) -> U8:
    """(c, h, w) 0 … 1 → the same 0 … 255, rounded and saturated."""
    channels, height, width = values.shape
    flat = values.numpy().reshape(channels * height, width)
    return cv2.convertScaleAbs(flat, alpha=255).reshape(channels, height, width).astype(np.uint8, copy=False)
