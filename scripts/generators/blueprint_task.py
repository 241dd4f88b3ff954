"""Training of any generator that has a blueprint, on the pairs of a `Store`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engines.compile.precision import bfloat16_pays
from engines.generators.networked.blueprint import Blueprint
from engines.generators.networked.discriminators import load_folded
from engines.generators.networked.lesson import Judges, Outcome
from engines.generators.networked.surface import HeadTables
from engines.head.model import load_head_model
from scripts.generators.lessons import lesson_of
from scripts.generators.rows import Rows
from scripts.generators.store import Store
from scripts.generators.task import Batch, GeneratorTask

_TILE_PX = 128  # height of a column's picture in the grid


class BlueprintTask(GeneratorTask):
    """See the module."""

    def __init__(
        self,
        blueprint: Blueprint[Any],
        device: torch.device,
        judges: Judges,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`start`: tensors of a weights file that the networks begin with."""
        self.blueprint, self.name = blueprint, blueprint.kind.name
        self.teaching = blueprint.teaching
        self.window_px = (blueprint.window.width_px, blueprint.window.height_px)
        self._device, self._judges, self._start = device, judges, start
        self._bfloat16 = bfloat16_pays(device)
        self._tables = HeadTables.of(load_head_model(), device)

    def networks(self) -> nn.Module:
        networks = self.blueprint.networks()
        if self._start is not None:
            load_folded(networks, self._start)
        return networks

    def discriminators(self) -> dict[str, nn.Module]:
        return self.blueprint.discriminators()

    def phase(self, step: int) -> Hashable:
        return self.blueprint.phase(step)

    def batch(self, pairs: Rows, rows: NDArray[np.int64], rng: np.random.Generator | None) -> Batch:
        assert isinstance(pairs, Store)
        if rng is not None:
            pairs.look()
        return pairs.gather(rows, rng)

    def outcome(self, networks: nn.Module, batch: Batch, step: int) -> Outcome:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            lesson = lesson_of(batch, self._tables, self.blueprint, step)
            return self.blueprint.outcome(networks, lesson, self._judges)

    @torch.no_grad()
    def figures(self, networks: nn.Module, batch: Batch) -> dict[str, NDArray[np.float64]]:
        lesson = lesson_of(batch, self._tables, self.blueprint)
        found = self.blueprint.figures(networks, lesson, self._judges)
        return {name: values.double().cpu().numpy() for name, values in found.items()}

    @torch.no_grad()
    def grid(self, networks: nn.Module, batch: Batch) -> NDArray[np.uint8]:
        columns = self.blueprint.grid(networks, lesson_of(batch, self._tables, self.blueprint))
        tiles = torch.cat([_tile(column.float()) for column in columns], 3)
        rows = tiles.clamp(0, 1).mul(255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return np.ascontiguousarray(rows.reshape(-1, *rows.shape[2:]))


def _tile(column: Tensor) -> Tensor:
    height, width = column.shape[2:]
    size = (_TILE_PX, max(1, round(width * _TILE_PX / height)))
    return column if column.shape[2:] == size else functional.interpolate(column, size, mode="bilinear")
