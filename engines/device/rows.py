"""`Rows`: a frozen dataclass of tensors, one row for each call, which can be stacked, picked and put in a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor


class Rows:
    """Every field is a tensor (B, …), some of them, or `Rows` itself."""

    __slots__ = ()

    def _each(self) -> list[tuple[str, Any]]:
        assert is_dataclass(self)
        return [(f.name, getattr(self, f.name)) for f in fields(self)]

    def tensors(self) -> list[Tensor]:
        """All of them, in the order of the fields."""
        found: list[Tensor] = []
        for _, value in self._each():
            if isinstance(value, Rows):
                found += value.tensors()
            else:
                found += value if isinstance(value, tuple) else [value]
        return found

    def _made(self, tensors: list[Tensor]) -> Self:
        values: dict[str, Any] = {}
        for name, value in self._each():
            if isinstance(value, Rows):
                values[name] = value._made(tensors)
            elif isinstance(value, tuple):
                values[name] = tuple(tensors.pop(0) for _ in cast(tuple[Tensor, ...], value))
            else:
                values[name] = tensors.pop(0)
        return type(self)(**values)

    def at(self, rows: Tensor) -> Self:
        """The rows (n,) int64, copied."""
        return self._made([t.index_select(0, rows) for t in self.tensors()])

    def to(self, device: torch.device) -> Self:
        """On a device."""
        return self._made([t.to(device) for t in self.tensors()])

    def room(self, count: int) -> Self:
        """`count` rows like the first, zeros."""
        return self._made([t.new_zeros((count, *t.shape[1:])) for t in self.tensors()])

    def put(self, row: int, one: Self) -> None:
        """`one`'s first row in place of a row; the one change of what else never changes. Raises ValueError when its
        shapes are others."""
        for kept, new in zip(self.tensors(), one.tensors(), strict=True):
            if kept.shape[1:] != new.shape[1:]:
                raise ValueError(f"a row of {tuple(new.shape[1:])} does not fit {tuple(kept.shape[1:])}")
            kept[row].copy_(new[0])

    def clear(self, row: int) -> None:
        """Zeros in place of a row."""
        for kept in self.tensors():
            kept[row].zero_()

    @classmethod
    def stacked(cls, many: Sequence[Self]) -> Self:
        """All rows of many, after one another."""
        columns = zip(*(one.tensors() for one in many), strict=True)
        return many[0]._made([torch.cat(column) for column in columns])
