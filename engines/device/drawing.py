"""`Drawing`: one call's picture as a pure function of what lies on the device and what is sent for a frame."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.device.composite import over, straight
from engines.device.packet import Field, Layout, Told
from engines.device.rows import Rows

U8 = NDArray[np.uint8]
ROW = "row"  # which row of the state each frame of a batch is drawn with
Draw = Callable[[Any, Told], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class State(Rows):
    """All that stays on the device from frame to frame, of each call a row: what its generator knows of the person,
    and the background (B, 3, H, W) uint8."""

    person: Rows
    background: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """How the frames of one call are drawn.

    - `key`: calls whose keys are equal draw alike, and can be drawn at once.
    - `draw`: (person, told) → (picture (B, 4, H, W) premultiplied, whole numbers 0 … 255; (B,) bool: not to be used).
    - `state`: the call's row, on the CPU until a batch takes it. - `fields`: what is told of each frame.
    - `transparent`: whether colours are to be straight and nothing lies behind.
    """

    key: Hashable
    draw: Draw
    state: State
    fields: tuple[Field, ...]
    transparent: bool

    def layout(self) -> Layout:
        """Of what is sent."""
        return Layout([*self.fields, Field(ROW, (1,))])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3 or 4) of a picture."""
        height, width = self.state.background.shape[2:]
        return height, width, 4 if self.transparent else 3

    def pictures(self, state: State, told: Told) -> Tensor:
        """(B, H · W · C + 1) uint8: the pictures, and at the end 1 where a picture is not to be used. Pure; of fixed
        shapes; waits for nothing."""
        picture, full = self.draw(state.person, told)
        shown = straight(picture) if self.transparent else over(picture, state.background)
        return torch.cat([shown.reshape(len(shown), -1), full[:, None].to(torch.uint8)], 1)

    def read(self, row: U8) -> U8 | None:
        """A row of `pictures`, on the CPU, as a picture; None where it is not to be used."""
        return None if row[-1] else row[:-1].reshape(self.shape)


def packed_frame(layout: Layout, values: Mapping[str, NDArray[np.generic]]) -> U8:
    """One frame as it is sent; its row is filled in by the batch."""
    out = np.zeros(layout.size, np.uint8)
    layout.pack({**values, ROW: np.zeros(1)}, out)
    return out
