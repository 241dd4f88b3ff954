"""Crops that turn with the head, cut out of a picture and blended back: the twin of `networked.boxes` and `blend`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engines.device.sampling import Patch, bilinear, rounded


@dataclass(frozen=True, slots=True)
class Crop:
    """A square crop of each picture, as `TurnedBox`.

    `centre`, `across` (B, 2): the direction of its x axis, turned round in a mirrored one; `down` (B, 2); `side` (B,)
    in the picture's pixels; `finer` (B,): how many times finer it is cut before it is averaged.
    """

    centre: Tensor
    across: Tensor
    down: Tensor
    side: Tensor
    finer: Tensor

    @staticmethod
    def told(numbers: Tensor) -> Crop:
        """Of (B, 8): centre 2, across 2, down 2, side, finer."""
        return Crop(numbers[:, :2], numbers[:, 2:4], numbers[:, 4:6], numbers[:, 6], numbers[:, 7])

    def places(self, size: int) -> tuple[Tensor, Tensor]:
        """Where the pixels of a crop of `size` lie in the picture: x, y (B, size, size)."""
        steps = (torch.arange(size, device=self.side.device) + 0.5) / size - 0.5
        across, down = (d * self.side[:, None] for d in (self.across, self.down))
        x, y = (
            self.centre[:, k, None, None]
            + across[:, k, None, None] * steps
            + down[:, k, None, None] * steps[:, None]
            for k in (0, 1)
        )
        return x - 0.5, y - 0.5

    def cut(self, picture: Tensor, size: int, finest: int) -> Tensor:
        """(B, C, size, size) of whole numbers; `finest`: the most that `finer` can be."""
        out: Tensor | None = None
        for finer in range(1, finest + 1):
            found = rounded(bilinear(picture, *self.places(size * finer)))
            found = functional.avg_pool2d(found, finer).round() if finer > 1 else found
            out = found if out is None else torch.where(self.finer[:, None, None, None] == finer, found, out)
        assert out is not None
        return out

    def nearest(self, grid: Tensor, size: int, width: int, height: int) -> Tensor:
        """(B, size, size) of numbers (B, h, w) on a grid over a picture of `width` × `height`, 0 beyond it."""
        rows, columns = grid.shape[1:]
        x, y = self.places(size)
        column = ((x + 0.5) * (columns / width)).floor().long()
        row = ((y + 0.5) * (rows / height)).floor().long()
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        index = (row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)).flatten(1)
        return torch.where(inside, grid.flatten(1).gather(1, index).reshape(x.shape), 0)

    def blended(self, picture: Tensor, layers: Tensor, patch: Patch, box: Tensor) -> Tensor:
        """The picture with a crop's layers (B, 7, s, s), bytes of `networks.blending`, in `box` of the patch; what is
        painted counts as much as the person is there."""
        size = layers.shape[2]
        dx, dy = patch.x + 0.5 - self.centre[:, 0, None, None], patch.y + 0.5 - self.centre[:, 1, None, None]
        # both directions are unit vectors at right angles
        x, y = (
            (d[:, 0, None, None] * dx + d[:, 1, None, None] * dy) / self.side[:, None, None]
            for d in (self.across, self.down)
        )
        here = rounded(bilinear(layers, (x + 0.5) * size - 0.5, (y + 0.5) * size - 0.5, beyond="zeros"))
        here = here * patch.within(box)
        under = patch.read(picture)
        person = under[:, 3:]
        kept = (under[:, :3] * (255 - here[:, 3:4]) / 255).round()
        painted, taken = (here[:, :3] * person / 255).round(), (here[:, 4:] * person / 255).round()
        drawn = ((kept + painted).clamp_max(255) - taken).clamp_min(0)
        return patch.written(picture, drawn)
