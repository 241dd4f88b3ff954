"""Folds of a smile that a face has let go of: the twin of `engines.generators.geometric.folds`."""

from __future__ import annotations

from torch import Tensor

from engines.device.packet import Told
from engines.device.sampling import bilinear_bytes, resized, rounded
from engines.device.sizes import Grids, Person
from engines.device.warp import Warped


def without_folds(person: Person, told: Told, at: Grids, warped: Warped) -> Tensor:
    """The warped picture (B, 4, H, W) with its folds filled as far as it is told."""
    sizes = at.sizes
    picture = warped.picture
    where = resized(warped.flow, sizes.height_px, sizes.width_px) + at.base
    canvas = sizes.canvas[0] // 2, sizes.canvas[1]
    filled = rounded(bilinear_bytes(person.folds, canvas, where[:, 0], where[:, 1]))
    shown = resized(warped.visible, sizes.height_px, sizes.width_px)
    weight = filled[:, 3:] * shown * (told["unfolded"][:, :, None, None] / 255)
    colour = picture.clone()
    colour[:, :3] += weight * (filled[:, :3] - picture[:, :3])
    return rounded(colour)
