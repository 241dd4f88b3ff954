"""Any generator that is its blueprint alone, on a device: scene, networks, and their window put into the picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.device.packet import Field, Told
from engines.device.rasteriser import rasterise_fixed
from engines.device.rows import Rows
from engines.device.sampling import Patch, bilinear, bilinear_bytes, rounded
from engines.device.sizes import Sizes

_PAIRS = 8  # for each pixel of the window
OPENINGS = ("right_eye", "left_eye", "mouth")
Inputs = Callable[["WindowPerson", Tensor, Told], tuple[Tensor, ...]]
Network = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True)
class WindowSizes:
    """Of the picture and of the window in which the head is rasterised; `moments` of motion are told of each frame."""

    width_px: int
    height_px: int
    columns: int
    rows: int
    moments: int
    motion: int

    @property
    def canvas(self) -> tuple[int, int]:
        """(rows, columns): room for the photo over all of the window."""
        side = max(self.width_px, self.height_px) + 16
        return side, side

    @property
    def openings_px(self) -> tuple[int, int, int]:
        """Sides of the squares in which `OPENINGS` are laid."""
        sizes = Sizes(self.width_px, self.height_px)
        return sizes.eye_px, sizes.eye_px, sizes.mouth_px

    def fields(self, vertices: int) -> list[Field]:
        """What is told of each frame; `OPENINGS` are premultiplied, drawn on the CPU."""
        return [
            Field("vertices", (vertices, 3)),
            Field("scale", (1,)),
            Field("motions", (self.moments, self.motion)),
            *(Field(f"{name}_corner", (2,)) for name in OPENINGS),
            *(
                Field(name, (4, side, side), True)
                for name, side in zip(OPENINGS, self.openings_px, strict=True)
            ),
        ]


@dataclass(frozen=True, slots=True)
class Pasted(Rows):
    """`networked.paste.Paste` of each call.

    - `still` (B, 4, H, W) uint8, `canvas` (B, h · w) int32 pixels, its edge repeated. - `corner` (B, 2): where it
      begins in the picture. - `step`, `first` (B, 2): canvas pixels are `x · step + first` in the window's.
    - `rim` (B, 1, H, W): 1 in the window … 0 at its edge and beyond.
    """

    still: Tensor
    canvas: Tensor
    corner: Tensor
    step: Tensor
    first: Tensor
    rim: Tensor


@dataclass(frozen=True, slots=True)
class WindowPerson(Rows):
    """Of each call a row: `chosen` (B, T) triangles that ever show; `small` (B, 4, h, w) the photo as networks see it,
    their `features` of it; what a `Scene` is made of; `paste`."""

    chosen: Tensor
    small: Tensor
    features: tuple[Tensor, ...]
    photo: Tensor
    maps: Tensor
    own_triangle: Tensor
    own_corners: Tensor
    own_motion: Tensor
    paste: Pasted


def draw_window(
    triangles: Tensor,
    behind: Tensor,
    inputs: Inputs,
    network: Network,
    person: WindowPerson,
    told: Told,
    sizes: WindowSizes,
    triangle: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(picture (B, 4, H, W), full (B,)). `inputs`: what the networks see of the head by its triangles (B, h, w);
    `triangle`: these, where somebody else has rasterised it."""
    full = torch.zeros_like(told["scale"][:, 0], dtype=torch.bool)
    if triangle is None:
        corners = told["vertices"].index_select(1, triangles.flatten()).unflatten(1, (-1, 3))
        push = behind * told["scale"]
        corners = torch.cat([corners[..., :2], corners[..., 2:] + push[:, :, None, None]], -1)
        room = _PAIRS * sizes.rows * sizes.columns
        drawn = rasterise_fixed(corners, person.chosen, sizes.rows, sizes.columns, room)
        triangle, full = drawn.triangle, drawn.full
    found = network(person.small, *inputs(person, triangle, told), *person.features)
    paste = person.paste
    if len(found) == 1:
        return _framed(paste, rounded(_large(paste, found[0].float(), sizes) * 255)), full
    difference, flow = (_large(paste, x.float(), sizes) for x in found)
    x, y = (
        flow[:, k] * (side / paste.step[:, k, None, None]) + _canvas(paste, k, sizes)
        for k, side in enumerate((sizes.columns, sizes.rows))
    )
    moved = rounded(bilinear_bytes(paste.canvas, sizes.canvas, x, y))
    for name, side in zip(OPENINGS, sizes.openings_px, strict=True):
        patch = Patch(told[f"{name}_corner"], side, sizes.height_px, sizes.width_px)
        laid = told[name].float()
        moved = patch.written(moved, patch.read(moved) * (1 - laid[:, 3:] / 255) + laid)
    return _framed(paste, (moved + difference * 255 + 0.5).clamp(0, 255).floor()), full


def _canvas(paste: Pasted, axis: int, sizes: WindowSizes) -> Tensor:
    """Which column (B, 1, W) or row (B, H, 1) of the canvas each of the picture is."""
    count = (sizes.width_px, sizes.height_px)[axis]
    steps = torch.arange(count, device=paste.corner.device) - paste.corner[:, axis, None]
    return steps[:, None] if axis == 0 else steps[:, :, None]


def _large(paste: Pasted, values: Tensor, sizes: WindowSizes) -> Tensor:
    """Values (B, C, h, w) over the window, over the picture."""
    at: list[Tensor] = []
    for axis, (count, of) in enumerate(((values.shape[3], sizes.columns), (values.shape[2], sizes.rows))):
        step, first = paste.step[:, axis, None, None], paste.first[:, axis, None, None]
        place = _canvas(paste, axis, sizes) * step + first
        at.append(((place + 0.5) * (count / of) - 0.5).expand(-1, sizes.height_px, sizes.width_px))
    return bilinear(values, at[0], at[1])


def _framed(paste: Pasted, drawn: Tensor) -> Tensor:
    still = paste.still.float()
    return (still + (drawn - still) * paste.rim + 0.5).floor()
