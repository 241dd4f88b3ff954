"""`geometric` on a device: a person and what is told of a frame → the picture, as one pure function."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from engines.device.eyes import with_eyes
from engines.device.folds import without_folds
from engines.device.mouth import with_mouth
from engines.device.packet import Told
from engines.device.sizes import Grids, Head, Person
from engines.device.warp import Seen, Warped, seen_of, warped


@dataclass(frozen=True, slots=True)
class Geometric:
    """`picture` (B, 4, H, W) premultiplied RGBA, whole numbers 0 … 255, with what guides networks; `full` (B,) bool:
    rows that must be drawn elsewhere, for there was no room for all triangles."""

    picture: Tensor
    warped: Warped
    full: Tensor


def draw_geometric(head: Head, person: Person, told: Told, at: Grids, seen: Seen | None = None) -> Geometric:
    """`seen`: the head on the grid, where somebody else has rasterised it."""
    seen = seen_of(head, person, told, at) if seen is None else seen
    found = warped(head, person, told, at, seen)
    smooth = without_folds(person, told, at, found)
    picture, full = with_mouth(head, person, told, at, with_eyes(person, told, at.sizes, smooth))
    return Geometric(picture, found, seen.full | full)
