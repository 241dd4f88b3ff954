"""`Layout`: where each value of a frame lies in the one block of bytes that is sent to the device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Told = Mapping[str, Tensor]
_ALIGNED = 16  # bytes: every value begins at such a multiple, as a view of another kind wants it


@dataclass(frozen=True, slots=True)
class Field:
    """A value of every frame: its name, its shape, and whether it is bytes (else float32)."""

    name: str
    shape: tuple[int, ...]
    bytes: bool = False

    @property
    def size(self) -> int:
        """In bytes."""
        return prod(self.shape) * (1 if self.bytes else 4)


class Layout:
    """Fields after one another. Packing is NumPy's, unpacking torch's, without a copy."""

    def __init__(self, fields: Iterable[Field]) -> None:
        self.fields = tuple(fields)
        self._starts: list[int] = []
        end = 0
        for field in self.fields:
            self._starts.append(end)
            end += -(-field.size // _ALIGNED) * _ALIGNED
        self.size = end  # of one frame, in bytes

    def pack(self, values: Mapping[str, NDArray[np.generic]], out: NDArray[np.uint8]) -> None:
        """Write a frame into `out` (size,). Raises KeyError, ValueError when values are not as the fields say."""
        if len(values) != len(self.fields):
            raise ValueError(f"{len(values)} values for {len(self.fields)} fields")
        for field, start in zip(self.fields, self._starts, strict=True):
            value = np.ascontiguousarray(values[field.name], np.uint8 if field.bytes else np.float32)
            if value.shape != field.shape:
                raise ValueError(f"{field.name} is {value.shape}, not {field.shape}")
            out[start : start + field.size] = value.reshape(-1).view(np.uint8)

    def unpack(self, frames: Tensor) -> dict[str, Tensor]:
        """Views of frames (B, size) uint8 by name, (B, *shape)."""
        found: dict[str, Tensor] = {}
        for field, start in zip(self.fields, self._starts, strict=True):
            part = frames[:, start : start + field.size]
            part = part if field.bytes else part.view(torch.float32)
            found[field.name] = part.reshape(len(frames), *field.shape)
        return found
