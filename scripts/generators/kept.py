"""Where what was decoded lies: `Kept` in bounded main memory, `Pool` whole on a device."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


class Kept:
    """Arrays that were made, the least recently used given up where they are more than `most_bytes`. Any thread."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.bytes, self.made = most_bytes, 0, 0
        self._lock = threading.Lock()
        self._held: OrderedDict[Hashable, Array] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Array]) -> Array:
        """What `make` gives or has given; not to be changed."""
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
                return found
        found = make()
        with self._lock:
            self.made += 1
            if key not in self._held:
                self._held[key] = found
                self.bytes += found.nbytes
            while self.bytes > self.most_bytes and len(self._held) > 1:
                self.bytes -= self._held.popitem(last=False)[1].nbytes
        return found


class Pool:
    """Arrays of one shape one after another in one tensor on a device."""

    def __init__(self, device: torch.device) -> None:
        self.count = 0
        self._device = device
        self._held: Tensor | None = None

    def add(self, values: Array | Tensor) -> int:
        """Put (n, …) behind the others; the number of the first. Raises torch.OutOfMemoryError."""
        added = torch.as_tensor(values)
        end = self.count + len(added)
        if self._held is None or end > len(self._held):
            # grows by a quarter: it is copied seldom, and little is left unused
            room = torch.empty((end + end // 4, *added.shape[1:]), dtype=added.dtype, device=self._device)
            if self._held is not None:
                room[: self.count] = self._held[: self.count]
            self._held = room
        self._held[self.count : end] = added.to(self._device)
        first, self.count = self.count, end
        return first

    def take(self, numbers: Tensor) -> Tensor:
        """(n, …) of `numbers` (n,) on the device."""
        assert self._held is not None
        return self._held.index_select(0, numbers)


_LEFT_FOR_STEPS = 0.25  # of a GPU's memory: pairs that fill it leave none for a training


def has_room(device: torch.device) -> bool:
    """Whether a GPU has memory for more pairs beside what steps need; a CPU has."""
    if device.type != "cuda":
        return True
    free, total = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + unused > _LEFT_FOR_STEPS * total


def free_bytes() -> int:
    """Main memory that is free, as the system counts it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable"))
        return int(kilobytes) * 1024
    except (OSError, StopIteration, ValueError):
        return 4 << 30
