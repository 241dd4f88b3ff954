"""Look-ups in batches of pictures; places are counted in pixels from the middle of the first, as OpenCV counts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def bilinear(picture: Tensor, x: Tensor, y: Tensor, *, beyond: str = "border") -> Tensor:
    """`cv2.remap` of (B, C, H, W) float at (B, h, w) → (B, C, h, w); `beyond` the edge the edge goes on, or "zeros"."""
    height, width = picture.shape[2:]
    grid = torch.stack([(x + 0.5) * (2 / width) - 1, (y + 0.5) * (2 / height) - 1], -1)
    return functional.grid_sample(picture, grid, "bilinear", beyond, align_corners=False)


def bilinear_bytes(packed: Tensor, size: tuple[int, int], x: Tensor, y: Tensor) -> Tensor:
    """The same of four channels of bytes, each pixel one number: packed (B, H · W) int32 of `size` (H, W), not rounded.

    Only what is looked at becomes float.
    """
    height, width = size
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    share_x, share_y = (x - left)[:, None], (y - top)[:, None]
    first = top.long() * width + left.long()
    right = (left < width - 1).long()
    below = (top < height - 1).long() * width

    def at(index: Tensor) -> Tensor:
        found = packed.gather(1, index.flatten(1))[..., None].view(torch.uint8).float()
        return found.reshape(*x.shape, 4).permute(0, 3, 1, 2)

    upper = torch.lerp(at(first), at(first + right), share_x)
    lower = torch.lerp(at(first + below), at(first + below + right), share_x)
    return torch.lerp(upper, lower, share_y)


def packed(pixels: Tensor) -> Tensor:
    """(B, H, W, 4) uint8 → (B, H · W) int32."""
    return pixels.contiguous().view(torch.int32).flatten(1)


def resized(values: Tensor, height: int, width: int) -> Tensor:
    """`cv2.resize`, bilinear, of (B, C, h, w) float."""
    if values.shape[2:] == (height, width):
        return values
    return functional.interpolate(values, (height, width), mode="bilinear", align_corners=False)


_BITS = 11  # of a weight's fraction, as OpenCV has it


def bytes_at(
    values: Tensor, x: Tensor, y: Tensor, columns: tuple[Tensor, Tensor], rows: tuple[Tensor, Tensor]
) -> Tensor:
    """Bytes (B, C, h, w) held as floats at columns x (B, W) and rows y (B, H) float64, in OpenCV's whole numbers.

    `columns`, `rows`: the first and the last of each picture (B, 1) that count.
    """
    left, right, less, more = _weights(x, *columns)
    top, bottom, upper, lower = _weights(y, *rows)
    whole = values.to(torch.int32)
    channels, high = values.shape[1], values.shape[2]

    def column(index: Tensor) -> Tensor:
        return whole.gather(3, index[:, None, None].expand(-1, channels, high, -1))

    across = (column(left) * less[:, None, None] + column(right) * more[:, None, None]) >> 4

    def row(index: Tensor) -> Tensor:
        return across.gather(2, index[:, None, :, None].expand(-1, channels, -1, across.shape[3]))

    def share(weight: Tensor) -> Tensor:
        return weight[:, None, :, None]

    found = ((row(top) * share(upper)) >> 16) + ((row(bottom) * share(lower)) >> 16)
    return ((found + 2) >> 2).clamp(0, 255).float()


def _weights(at: Tensor, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both neighbours of each place and their weights; beyond the edge the edge is both."""
    at = at.float()
    before = at.floor()
    share = at - before
    low = torch.minimum(torch.maximum(before, first.float()), last.float())
    high = torch.minimum(torch.maximum(before + 1, first.float()), last.float())
    one = 1 << _BITS
    return low.long(), high.long(), ((1 - share) * one).round().int(), (share * one).round().int()


def nearest(values: Tensor, height: int, width: int) -> Tensor:
    """`cv2.resize`, nearest, of (B, C, h, w)."""
    return functional.interpolate(values, (height, width), mode="nearest")


def rounded(values: Tensor) -> Tensor:
    """To whole numbers 0 … 255, halves to the even one, as OpenCV does."""
    return values.round().clamp(0, 255)


class Patch:
    """A square of `side` pixels of each picture, at each one's own place: read, worked on and written back."""

    def __init__(self, corner: Tensor, side: int, height: int, width: int) -> None:
        """`corner` (B, 2) x, y in whole pixels; the square lies within the picture."""
        steps = torch.arange(side, device=corner.device)
        x, y = corner[:, 0, None].long() + steps, corner[:, 1, None].long() + steps
        self.side = side
        self.x, self.y = x.float()[:, None], y.float()[:, :, None]  # (B, 1, side), (B, side, 1)
        self._index = (y[:, :, None] * width + x[:, None]).flatten(1)  # (B, side²)
        self._size = height, width

    def read(self, picture: Tensor) -> Tensor:
        """(B, C, side, side)."""
        index = self._index[:, None].expand(-1, picture.shape[1], -1)
        return picture.flatten(2).gather(2, index).unflatten(2, (self.side, self.side))

    def written(self, picture: Tensor, values: Tensor) -> Tensor:
        """The picture with `values` (B, C', side, side) in the first C' channels."""
        channels = values.shape[1]
        index = self._index[:, None].expand(-1, channels, -1)
        changed = picture[:, :channels].flatten(2).scatter(2, index, values.flatten(2))
        changed = changed.unflatten(2, self._size)
        return changed if channels == picture.shape[1] else torch.cat([changed, picture[:, channels:]], 1)

    def within(self, box: Tensor) -> Tensor:
        """(B, 1, side, side) bool: where `box` (B, 4: x0, y0, x1, y1) is."""
        x0, y0, x1, y1 = (edge[:, None, None] for edge in box.unbind(1))
        return ((self.x >= x0) & (self.x < x1) & (self.y >= y0) & (self.y < y1))[:, None]
