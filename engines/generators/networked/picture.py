"""`Picture`: a batch of stored pictures, looked at through each one's own window, mirrored or tinted, in torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Size:
    """Of a picture in pixels."""

    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class Tint:
    """Colours changed alike in all pictures of a row: `colour · gain + offset`, each (B, 3)."""

    gain: Tensor
    offset: Tensor

    def of(self, colour: Tensor, alpha: Tensor | None = None) -> Tensor:
        """(B, 3, …) 0 … 1; `alpha` (B, 1, …) of premultiplied colours, which stay within it."""
        shape = (*self.gain.shape, *[1] * (colour.ndim - 2))
        shift = self.offset.reshape(shape)
        if alpha is None:
            return (colour * self.gain.reshape(shape) + shift).clamp(0, 1)
        return torch.minimum((colour * self.gain.reshape(shape) + shift * alpha).clamp_min(0), alpha)


# how much of the stored picture a window usually takes: what is averaged may depend on shapes alone, for a step on a
# GPU is captured once
_USUAL_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Picture:
    """`pixels` (B, C, H, W) uint8 or float 0 … 1, and how they are looked at.

    - `window` (B, 2, 3): from −1 … 1 over the window to −1 … 1 over `pixels` (`align_corners` False); None: all of it.
    - `flip` (B,) bool: which rows are seen in a mirror. - `tint`: of the first three channels.
    - `alpha`, of four channels: colours are "premultiplied", or "straight" and are premultiplied when they are looked
      at, or the fourth channel lies "beside" them.
    """

    pixels: Tensor
    window: Tensor | None = None
    flip: Tensor | None = None
    tint: Tint | None = None
    alpha: Literal["premultiplied", "straight", "beside"] = "premultiplied"

    def at(self, size: Size) -> Tensor:
        """The window (B, C, h, w) float, averaged where it shrinks."""
        x = self._float()
        if self.window is None and x.shape[3] % size.width_px == 0 and x.shape[2] % size.height_px == 0:
            whole = functional.avg_pool2d(x, (x.shape[2] // size.height_px, x.shape[3] // size.width_px))
            if self.flip is not None:
                whole = torch.where(self.flip[:, None, None, None], whole.flip(-1), whole)
            return self._finish(whole)
        step = x.shape[3] / size.width_px * (1.0 if self.window is None else _USUAL_SHARE)
        while step >= 2:
            x, step = functional.avg_pool2d(x, 2), step / 2
        finer = 2 if step > 1.05 else 1
        eye = torch.eye(2, 3, device=x.device).expand(len(x), 2, 3)
        found = _sampled(x, self._in_pixels(eye), Size(size.width_px * finer, size.height_px * finer))
        return self._finish(functional.avg_pool2d(found, finer) if finer > 1 else found)

    def crop(self, place: Tensor, size: Size) -> Tensor:
        """A box of the window (B, C, h, w), of about its own size in pixels.

        `place` (B, 2, 3): from −1 … 1 over the box to −1 … 1 over the window (as the mirror shows it).
        """
        return self._finish(_sampled(self._float(), self._in_pixels(place), size))

    def _in_pixels(self, place: Tensor) -> Tensor:
        whole = place if self.flip is None else _mirrored(place, self.flip)
        return whole if self.window is None else _after(self.window, whole)

    def _float(self) -> Tensor:
        x = self.pixels
        return x.float() * (1 / 255) if x.dtype == torch.uint8 else x

    def _finish(self, x: Tensor) -> Tensor:
        if x.shape[1] < 3:
            return x
        colour, alpha = x[:, :3], x[:, 3:] if x.shape[1] > 3 else None
        if alpha is not None and self.alpha == "straight":
            colour = colour * alpha
        if self.tint is not None:
            colour = self.tint.of(colour, None if self.alpha == "beside" else alpha)
        return colour if alpha is None else torch.cat([colour, alpha], 1)


def _sampled(x: Tensor, place: Tensor, size: Size) -> Tensor:
    grid = functional.affine_grid(place, [len(place), 1, size.height_px, size.width_px], align_corners=False)
    return functional.grid_sample(x, grid, "bilinear", "border", align_corners=False)


def _mirrored(place: Tensor, flip: Tensor) -> Tensor:
    """`place` in the mirror, where `flip` says so: x of what it gives is turned."""
    sign = torch.where(flip[:, None, None], place.new_tensor([[-1.0], [1.0]]), place.new_ones(2, 1))
    return place * sign


def _after(outer: Tensor, inner: Tensor) -> Tensor:
    """(B, 2, 3) affine maps: first `inner`, then `outer`."""
    linear = outer[:, :, :2] @ inner[:, :, :2]
    moved = outer[:, :, :2] @ inner[:, :, 2:] + outer[:, :, 2:]
    return torch.cat([linear, moved], 2)
