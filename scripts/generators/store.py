"""`Store`: the pairs of a folder, read as they appear, and batches of them on the device that trains."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.generators.networked.blueprint import Blueprint
from engines.head.model import load_head_model
from scripts.generators.held import Held, entries_of
from scripts.generators.item import SUFFIX, load_item, read_about
from scripts.generators.kept import Kept, free_bytes
from scripts.generators.on_device import OnDevice, sent
from scripts.training.errors import TrainingError

Array = NDArray[Any]
I64 = NDArray[np.int64]
Batch = dict[str, Tensor]

GAIN, OFFSET = 0.12, 0.04  # of the colours of a row, at most, when it is augmented
_SHARE = 0.5  # of the free memory that is used when nothing is said
_LEAST_KEPT = 256 << 20  # bytes for decoded pictures, however little is left
_LOOK_S, _READ_AT_ONCE = 20.0, 2  # how often a training looks for new items, and how many it then reads


class Store:
    """Pairs for one blueprint. Any thread may gather, also while one reads.

    On a GPU everything lies decoded there. On a CPU files stay compressed and are decoded when they are drawn; what
    was decoded is kept within `memory_bytes` (None: half of what is free).
    """

    def __init__(
        self,
        folder: Path,
        blueprint: Blueprint[Any],
        device: torch.device,
        *,
        memory_bytes: int | None = None,
        decoded: bool | None = None,
        judging: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Reads what is there. Raises TrainingError when there is nobody to train on.

        `decoded`: whether everything lies decoded on the device (None: on a GPU); `judging`: of held-out people alone,
        and raises where there is none; `say` is told of each file that is left out.
        """
        self.folder, self.device, self.left_out = folder, device, dict[str, str]()
        self._blueprint, self._model, self._say = blueprint, load_head_model(), say
        self._entries, self._judging = entries_of(blueprint), judging
        self._held: list[Held] = []
        self._makers = ThreadPoolExecutor(torch.get_num_threads(), "pictures")
        self._seen: dict[str, tuple[int, int]] = {}
        self._memory = memory_bytes if memory_bytes is not None else int(free_bytes() * _SHARE)
        self._kept = Kept(self._memory)
        decoded = device.type == "cuda" if decoded is None else decoded
        self._on_device = OnDevice(device) if decoded else None
        self._reading = threading.Lock()
        self._looked_s = time.monotonic()
        self.train = self.held_out = np.zeros((0, 2), np.int64)
        self.refresh()
        if not len(self.held_out if judging else self.train):
            raise TrainingError(self._why_nobody())

    # --- what there is --------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        return sorted(held.name for held in self._held)

    def name_of(self, item: int) -> str:
        """Of an item of `train` and `held_out`."""
        return self._held[item].name

    @property
    def digest(self) -> str:
        """Of names and row counts: which data a set of weights has seen."""
        told = "".join(f"{held.name}:{held.pairs};" for held in sorted(self._held, key=lambda h: h.name))
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def look(self) -> None:
        """`refresh` now and then, a few files at a time; for whoever makes batches."""
        if time.monotonic() - self._looked_s > _LOOK_S and self._reading.acquire(blocking=False):
            try:
                self._refresh(_READ_AT_ONCE)
                self._looked_s = time.monotonic()
            finally:
                self._reading.release()

    def refresh(self) -> int:
        """Read files that have come since. How many were new."""
        with self._reading:
            return self._refresh(None)

    def _refresh(self, most: int | None) -> int:
        new = 0
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                stat = path.stat()
            except OSError:
                continue
            if self._seen.get(path.name) == (stat.st_mtime_ns, stat.st_size):
                continue
            if any(held.name == path.stem for held in self._held):
                continue  # made anew while it is in use: the next training will read it
            self._seen[path.name] = (stat.st_mtime_ns, stat.st_size)
            new += self._read(path)
            if most is not None and new >= most:
                break
        if new:
            self._kept.most_bytes = max(_LEAST_KEPT, self._memory - sum(h.bytes for h in self._held))
            self.train, self.held_out = self._rows(False), self._rows(True)
        return new

    def _read(self, path: Path) -> bool:
        try:
            if self._judging and not read_about(path).held_out:
                return False
            item = load_item(path)
            if item.head_model != self._model.digest:
                raise TrainingError(
                    f"{path} was made with another head model; make it again: python -m scripts.generators.pairs"
                )
            if item.name != path.stem:
                raise TrainingError(f"{path} holds the pairs of {item.name}; give it its name back")
            held = Held(item, self._model, self._blueprint)
            if self._on_device is not None:
                self._on_device.add(held, self._entries)
        except (TrainingError, torch.OutOfMemoryError) as error:
            full = isinstance(error, torch.OutOfMemoryError)
            reason = f"{path} does not fit on the GPU any more: trains without it" if full else str(error)
            self.left_out[path.stem] = reason
            self._say(f"left out: {reason}")
            return False
        self.left_out.pop(path.stem, None)
        self._held.append(held)
        return True

    def _rows(self, held_out: bool) -> I64:
        # by name, so that the order in which they came does not matter
        items = sorted((h.name, k) for k, h in enumerate(self._held) if h.held_out == held_out)
        rows = [(k, pair) for _, k in items for pair in range(self._held[k].pairs)]
        return np.array(rows, np.int64).reshape(-1, 2)

    def _why_nobody(self) -> str:
        make = f"make pairs with: python -m scripts.generators.pairs DATA -o {self.folder}"
        if self._judging:
            return f"{self.folder} has no held-out person to judge by; {make}"
        if self._held:
            return (
                f"{self.folder} has no person to train on (all {len(self._held)} are held out by name); "
                "add clips of other people"
            )
        if self.left_out:
            return f"{self.folder} has no pairs that can be read ({next(iter(self.left_out.values()))})"
        if (self.folder / "report.json").is_file() and any(self.folder.glob("*.npz")):
            return f"{self.folder} holds pairs of version 1, which are not read any more; {make}"
        return f"there are no pairs in {self.folder}; {make}"

    # --- batches --------------------------------------------------------------------------------------

    def gather(self, rows: I64, rng: np.random.Generator | None) -> Batch:
        """Rows (n, 2) as tensors (n, …) for `lesson_of`, augmented when `rng` is given; on the GPU, or in main memory.

        Pictures are (n, C, h, w) uint8, channels last; `flip` (n,), `gain` and `offset` (n, 3) are the augmentation.
        """
        if self._on_device is not None:
            out = self._on_device.gather(self._held, rows, self._entries)
        else:
            out = self._gathered(rows)
        out = {n: t.permute(0, 3, 1, 2) if t.dtype == torch.uint8 else t for n, t in out.items()}
        changes = _augmentation(len(rows), rng)
        if self._on_device is not None:
            return out | {n: sent(t, self.device) for n, t in changes.items()}
        return out | changes

    def _gathered(self, rows: I64) -> Batch:
        wanted = [(int(item), name, int(pair)) for name in self._entries for item, pair in rows]
        arrays = list(self._makers.map(lambda entry: self._entry(*entry), wanted))
        picked = (arrays[k : k + len(rows)] for k in range(0, len(arrays), len(rows)))
        return {n: torch.from_numpy(np.stack(a)) for n, a in zip(self._entries, picked, strict=True)}

    def _entry(self, item: int, name: str, pair: int) -> Array:
        held, (stored, of) = self._held[item], self._entries[name]
        number = held.number(of, pair)
        if stored in held.small:
            return held.small[stored][number]
        if stored == "photo" and not held.poor[number]:
            stored = "truth"
        return self._kept.get((item, stored, number), lambda: held.make(stored, number))


def _augmentation(count: int, rng: np.random.Generator | None) -> Batch:
    flip = np.zeros(count, bool)
    gain, offset = np.ones((count, 3), np.float32), np.zeros((count, 3), np.float32)
    if rng is not None:
        flip = rng.random(count) < 0.5
        gain += rng.uniform(-GAIN, GAIN, (count, 1)) + rng.uniform(-GAIN / 2, GAIN / 2, (count, 3))
        offset += rng.uniform(-OFFSET, OFFSET, (count, 1))
    return {n: torch.from_numpy(a) for n, a in (("flip", flip), ("gain", gain), ("offset", offset))}
