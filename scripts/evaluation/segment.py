"""Pictures without their background: the person cut out by the matte of the true frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.face import head_crop
from calibration.matte import cut_out

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Cut:
    """The person's share (H, W) 0 … 1 of each pixel of a true frame."""

    alpha: F32

    def of(self, picture: U8) -> U8:
        """The picture (H, W, 3) on black where the true frame has no person."""
        return (picture * self.alpha[..., None] + 0.5).astype(np.uint8)


def cut_of(picture: U8, points_px: F32 | None) -> tuple[Cut | None, str]:
    """The person in a true frame (H, W, 3) with the landmarks (478, 3), and why there is no matte (else "")."""
    height, width = picture.shape[:2]
    crop = (0.0, 0.0, float(max(height, width))) if points_px is None else head_crop(points_px, width, height)
    matte = cut_out(picture, crop)
    if matte.notice:
        return None, matte.notice
    return Cut((matte.alpha / 255).astype(np.float32)), ""


def cut_all(pictures: Sequence[U8], cuts: Sequence[Cut]) -> list[U8]:
    """Each picture cut out by its own matte."""
    return [cut.of(picture) for picture, cut in zip(pictures, cuts, strict=True)]
