"""`Way`: how a frame gets into the networks of `visavis`, and what they say into its picture."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engines.generators.networked.boxes import TurnedBox, Window
from engines.raster.conditioning import PreparedMap
from engines.raster.gbuffer import GBuffer

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


class Way(ABC):
    """`ByOpenCv` everywhere, `Compiled` where there is a C compiler and the window suits it; both draw the same.

    Pictures are premultiplied RGBA (h, w, 4) of the viewport's size; tensors float32, 0 … 1 unless said otherwise.
    """

    @abstractmethod
    def see_head(
        self, picture: U8, flow: F32, guides: PreparedMap, gbuffer: GBuffer, window: Window
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of the head network: picture (1, 4, 128, 128), guide (1, 10, 128, 128), where (1, 32, 32, 2) in −1 … 1."""

    @abstractmethod
    def complete(self, picture: U8, window: Window, flow: Tensor | None, layers: Tensor | None) -> U8:
        """The picture moved by `flow` (1, 2, 64, 64), with `layers` (1, 9, 128, 128) on it, each where given.

        It may be `picture` itself, changed.
        """

    @abstractmethod
    def see_mouth(self, picture: U8, gbuffer: GBuffer, box: TurnedBox) -> tuple[Tensor, Tensor]:
        """(1, 3, 96, 96) of the picture and (1, 3, 96, 96) which parts: as the mouth's path sees them."""

    @abstractmethod
    def see_eye(
        self, picture: U8, gbuffer: GBuffer, box: TurnedBox, *, mirrored: bool
    ) -> tuple[Tensor, Tensor]:
        """(1, 3, 64, 64) of the picture and (1, 1, 64, 64) which parts: as an eye's path sees them."""

    @abstractmethod
    def paint(self, picture: U8, layers: Tensor, box: TurnedBox, *, mirrored: bool = False) -> None:
        """Blend a path's layers (7, s, s) into the picture, in place."""
