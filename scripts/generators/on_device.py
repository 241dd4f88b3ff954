"""`OnDevice`: all of every item, decoded, on the device that trains; a batch is a look-up of numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.head.model import load_head_model
from engines.raster.gbuffer import BEHIND_HU, mouth_interior
from engines.raster.gbuffer_torch import TorchMesh, visible_triangles
from scripts.generators.held import OF_BASE, OF_PAIR, OF_TARGET, RASTERS, Held
from scripts.generators.kept import Pool, has_room

Array = NDArray[Any]
I64 = NDArray[np.int64]
Batch = dict[str, Tensor]

_RASTERISED = 16  # heads at a time


class OnDevice:
    """All of every item, decoded, on one device."""

    def __init__(self, device: torch.device, room: Callable[[torch.device], bool] = has_room) -> None:
        """`room` says whether there is memory for more."""
        self.device, self._room = device, room
        self._full = False
        self._pools: dict[str, Pool] = {}
        # where each item's first frame, first pair lie; where the photo of each frame
        self._frames: list[int] = []
        self._pairs: list[int] = []
        self._truths: list[int] = []
        self._photos: list[I64] = []
        self._workers = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        model = load_head_model()
        count = len(model.triangles)
        # each triangle with corners of its own: the mouth's inside is pushed behind all skin, corners are shared
        corners = np.arange(3 * count).reshape(count, 3)
        self._mesh = TorchMesh.of(corners, model.uv[model.triangles.reshape(-1)], model.part, device)
        self._corner = torch.from_numpy(model.triangles.reshape(-1).astype(np.int64)).to(device)
        self._inside = torch.from_numpy(np.repeat(mouth_interior(model), 3)).to(device) * BEHIND_HU

    def add(self, held: Held, entries: Sequence[str]) -> None:
        """Raises TrainingError, torch.OutOfMemoryError; then nothing of the item is there.

        What was full once stays so: each further item would be decoded for nothing.
        """
        self._full = self._full or not self._room(self.device)
        if self._full:
            raise torch.OutOfMemoryError("the rest of the memory is for the steps")
        try:
            self._add(held, entries)
        except torch.OutOfMemoryError:
            self._full = True
            raise

    def _add(self, held: Held, entries: Sequence[str]) -> None:
        frames = len(held.small["crop"])
        before = {name: pool.count for name, pool in self._pools.items()}
        try:
            for name in entries:
                many = held.pairs if name in (*OF_PAIR, *OF_BASE) else frames
                if name == "photo":
                    continue
                if name in held.small:
                    self._pool(name).add(held.small[name])
                elif name in RASTERS:
                    self._pool(name).add(self._rasters(held, name, many))
                else:
                    self._pool(name).add(self._made(held, name, np.arange(many)))
            truth = self._pool("truth").count - frames
            photos = truth + np.arange(frames)
            # poor photos lie behind the frames' own pictures
            poor = np.flatnonzero(held.poor)
            if len(poor):
                photos[poor] = self._pool("truth").add(self._made(held, "photo", poor)) + np.arange(len(poor))
        except BaseException:
            for name, pool in self._pools.items():
                pool.count = before.get(name, 0)
            raise
        self._truths.append(truth)
        self._frames.append(self._pool("crop").count - frames)
        self._pairs.append(self._pool("motions").count - held.pairs)
        self._photos.append(photos)
        held.forget_files()

    def gather(self, items: Sequence[Held], rows: I64, entries: Sequence[str]) -> Batch:
        which: dict[str, list[int]] = {name: [] for name in ("source", "driver", "truth", "pair", "photo")}
        for item, pair in rows.tolist():
            held = items[item]
            source, target = int(held.source[pair]), int(held.target[pair])
            which["source"].append(self._frames[item] + source)
            which["driver"].append(self._frames[item] + target)
            which["truth"].append(self._truths[item] + target)
            which["pair"].append(self._pairs[item] + pair)
            which["photo"].append(int(self._photos[item][source]))
        numbers = sent(torch.tensor(list(which.values())), self.device)
        at = dict(zip(which, numbers.unbind(0), strict=True))

        def take(name: str) -> Tensor:
            if name in ("photo", "truth"):
                return self._pool("truth").take(at[name])
            if name in (*OF_PAIR, *OF_BASE):
                return self._pool(name).take(at["pair"])
            return self._pool(name).take(at["driver" if name in OF_TARGET else "source"])

        return {name: take(name) for name in entries}

    def _pool(self, name: str) -> Pool:
        return self._pools.setdefault(name, Pool(self.device))

    def _made(self, held: Held, name: str, numbers: I64) -> Array:
        return np.stack(list(self._workers.map(lambda k: held.make(name, k), numbers.tolist())))

    def _rasters(self, held: Held, name: str, many: int) -> Tensor:
        found: list[Tensor] = []
        size = held.size
        for first in range(0, many, _RASTERISED):
            corners, scale = held.corners(name, slice(first, first + _RASTERISED), self.device)
            apart = corners.index_select(1, self._corner)
            apart[..., 2] += self._inside * scale[:, None]
            drawn = visible_triangles(apart, self._mesh, size.height_px, size.width_px, cull=True)
            found.append(drawn.to(torch.int16))
        return torch.cat(found)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device, from pinned memory, so that nothing waits."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
