"""`Picture`: a batch of stored pictures, looked at through each one's own window, mirrored or tinted, in torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from engines.generators.networked.constant import constant


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
        if self.window is None and _divides(self.pixels, size):
            whole = _averaged(self.pixels, self.pixels.shape[2] // size.height_px)
            if self.flip is not None:
                whole = torch.where(self.flip[:, None, None, None], whole.flip(-1), whole)
            return self._finish(whole)
        x = self.pixels
        # a window of another shape takes as much of the height, and more or less of the width
        high = x.shape[2] / size.height_px * _USUAL_SHARE
        step = x.shape[3] / size.width_px if self.window is None else high
        smaller = 1
        while step >= 2 and x.shape[2] % (2 * smaller) == 0 and x.shape[3] % (2 * smaller) == 0:
            smaller, step = smaller * 2, step / 2
        x = _averaged(x, smaller)
        # what was made smaller is smooth enough
        finer = 2 if step > 1.05 and smaller == 1 else 1
        whole = _nowhere(x).expand(len(x), 2, 3)
        grid = places(self._in_pixels(whole), Size(size.width_px * finer, size.height_px * finer))
        found = functional.grid_sample(x, grid, "bilinear", "border", align_corners=False)
        return self._finish(functional.avg_pool2d(found, finer) if finer > 1 else found)

    def crop(self, place: Tensor, size: Size) -> Tensor:
        """Boxes of the window (n, C, h, w), of about their own size in pixels; n a multiple of B, rows repeated.

        `place` (n, 2, 3): from −1 … 1 over the box to −1 … 1 over the window (as the mirror shows it).
        """
        times = len(place) // len(self.pixels)
        return self._repeated(times)._finish(sampled(self.pixels, places(self._in_pixels(place), size)))

    def _repeated(self, times: int) -> Picture:
        """Its tint for each row `times` times."""
        if times == 1 or self.tint is None:
            return self
        gain, offset = (x.repeat_interleave(times, 0) for x in (self.tint.gain, self.tint.offset))
        return replace(self, tint=Tint(gain, offset))

    def _in_pixels(self, place: Tensor) -> Tensor:
        times = len(place) // len(self.pixels)
        window, flip = (
            x if x is None or times == 1 else x.repeat_interleave(times, 0) for x in (self.window, self.flip)
        )
        whole = place if flip is None else _mirrored(place, flip)
        return whole if window is None else _after(window, whole)

    def _finish(self, x: Tensor) -> Tensor:
        if x.shape[1] < 3:
            return x
        colour, alpha = x[:, :3], x[:, 3:] if x.shape[1] > 3 else None
        if alpha is not None and self.alpha == "straight":
            colour = colour * alpha
        if self.tint is not None:
            colour = self.tint.of(colour, None if self.alpha == "beside" else alpha)
        return colour if alpha is None else torch.cat([colour, alpha], 1)


def places(place: Tensor, size: Size) -> Tensor:
    """`affine_grid` (n, h, w, 2) of `place` (n, 2, 3), without a matrix product, which mixed precision would round."""
    x, y = (
        (torch.arange(n, device=place.device, dtype=place.dtype) + 0.5) * (2 / n) - 1
        for n in (size.width_px, size.height_px)
    )
    across, down, middle = (p[:, None, None, :] for p in place.unbind(2))
    return across * x[:, None] + (down * y[:, None, None] + middle)


def place_in_square(window: Size, like: Tensor) -> Tensor | None:
    """(B, 2, 3) from −1 … 1 over a window to −1 … 1 over the square of its height about its middle, one for each row
    of `like`; None where they are one."""
    if window.width_px == window.height_px:
        return None
    share = window.width_px / window.height_px
    return constant([share, 0, 0, 0, 1, 0], like).reshape(1, 2, 3).expand(len(like), 2, 3)


def _divides(pixels: Tensor, size: Size) -> bool:
    height, width = pixels.shape[2:]
    times = height // size.height_px
    return times > 0 and (height, width) == (times * size.height_px, times * size.width_px)


def _averaged(pixels: Tensor, times: int) -> Tensor:
    """(B, C, H, W) → float (B, C, H / times, W / times), 0 … 1."""
    if pixels.dtype != torch.uint8:
        return functional.avg_pool2d(pixels, times) if times > 1 else pixels
    if times > 1 and pixels.device.type == "cpu":  # in whole numbers it takes a tenth of the time
        size = (pixels.shape[2] // times, pixels.shape[3] // times)
        return functional.interpolate(pixels, size, mode="bilinear", antialias=True).float() * (1 / 255)
    small = pixels.float() * (1 / 255)
    return functional.avg_pool2d(small, times) if times > 1 else small


def sampled(pixels: Tensor, grid: Tensor) -> Tensor:
    """`grid_sample` (n, C, h, w) float, at the border as the nearest, of pixels (B, C, H, W) by grid (n, h, w, 2), n a
    multiple of B, rows repeated. Of four channels of uint8 only what is looked at becomes float, 0 … 1."""
    times = len(grid) // len(pixels)
    if pixels.dtype != torch.uint8 or pixels.shape[1] != 4:
        x = pixels.float() * (1 / 255) if pixels.dtype == torch.uint8 else pixels
        x = x if times == 1 else x.repeat_interleave(times, 0)
        return functional.grid_sample(x, grid, "bilinear", "border", align_corners=False)
    height, width = pixels.shape[2:]
    # a pixel's four channels as one number, looked up at once
    packed = pixels.permute(0, 2, 3, 1).contiguous().view(torch.int32).reshape(-1)
    x = ((grid[..., 0] + 1) * (width / 2) - 0.5).clamp(0, width - 1)
    y = ((grid[..., 1] + 1) * (height / 2) - 0.5).clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    row = torch.arange(len(grid), device=grid.device).div(times, rounding_mode="floor") * (height * width)
    first = row[:, None, None] + top.long() * width + left.long()
    right = (left < width - 1).long()
    below = (top < height - 1).long() * width
    share_x, share_y = (x - left)[..., None], (y - top)[..., None]

    def at(index: Tensor) -> Tensor:
        return packed.take(index)[..., None].view(torch.uint8).float()

    upper = torch.lerp(at(first), at(first + right), share_x)
    lower = torch.lerp(at(first + below), at(first + below + right), share_x)
    return (torch.lerp(upper, lower, share_y) * (1 / 255)).permute(0, 3, 1, 2)


def _nowhere(like: Tensor) -> Tensor:
    """(1, 2, 3): the place that is the whole."""
    return torch.eye(2, 3, device=like.device)[None]


def _mirrored(place: Tensor, flip: Tensor) -> Tensor:
    """`place` in the mirror, where `flip` says so: x of what it gives is turned."""
    return torch.stack([torch.where(flip[:, None], -place[:, 0], place[:, 0]), place[:, 1]], 1)


def _after(outer: Tensor, inner: Tensor) -> Tensor:
    """(B, 2, 3) affine maps: first `inner`, then `outer`; no matrix product, which mixed precision would round."""
    rows = [outer[:, k, :1] * inner[:, 0] + outer[:, k, 1:2] * inner[:, 1] for k in range(2)]
    return torch.stack(rows, 1) + functional.pad(outer[:, :, 2:], (2, 0))
