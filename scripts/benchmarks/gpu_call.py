"""`Call`: one call as it is carried to the GPU that is measured; needs torch and NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.device.drawing import State
from engines.device.packet import Field
from engines.device.sizes import Head

U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as it is carried to the GPU: what lies there, frames as they are sent, and OpenCV's pictures of them.

    `networks`: blueprint and networks, by `torch.save`; empty without networks. `told_ms`: the CPU's part of a frame.
    """

    generator: str
    size_px: int
    sizes: Any
    state: State
    fields: tuple[Field, ...]
    frames: list[U8]
    wanted: list[U8]
    head: Head
    networks: bytes
    told_ms: float
