"""The training cache in memory, and batches of it: the same batch for the same seed and step."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.training.errors import TrainingError

Arrays = dict[str, NDArray[Any]]

CACHE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Pairs:
    """Everything that `scripts.generators.pairs` wrote: one dict of arrays for each item, and rows (item, row)."""

    items: list[Arrays]
    names: list[str]
    train: NDArray[np.int64]  # (n, 2)
    held_out: NDArray[np.int64]  # (m, 2)
    digest: str  # of names and row counts: which data a set of weights has seen


def read_pairs(cache: Path) -> Pairs:
    """Load a cache. Raises TrainingError when there is none, it is of another version, or has nobody to train on."""
    again = f"make it with: python -m scripts.generators.pairs DATA {cache}"
    try:
        report = json.loads((cache / "report.json").read_text(encoding="utf-8"))
        version, entries = int(report["version"]), dict(report["items"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{cache} is no training cache ({error}); {again}") from error
    if version != CACHE_VERSION:
        raise TrainingError(f"{cache} is training cache version {version} of {CACHE_VERSION}; {again}")
    items: list[Arrays] = []
    names: list[str] = []
    rows: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    digest = hashlib.sha256()
    for name, entry in entries.items():
        try:
            with np.load(cache / f"{name}.npz") as data:
                arrays = {k: data[k] for k in data.files}
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"{cache / name}.npz cannot be read ({error}); delete it and make it again: {again}"
            ) from error
        count = len(arrays["t_part"])
        rows[bool(entry["held_out"])] += [(len(items), k) for k in range(count)]
        items.append(arrays)
        names.append(name)
        digest.update(f"{name}:{count};".encode())
    if not rows[False]:
        raise TrainingError(
            f"{cache} has no person to train on (all {len(names)} are held out by name); add clips of other people"
        )
    return Pairs(
        items,
        names,
        np.array(rows[False], np.int64).reshape(-1, 2),
        np.array(rows[True], np.int64).reshape(-1, 2),
        digest.hexdigest()[:16],
    )


def gather(pairs: Pairs, rows: NDArray[np.int64]) -> Arrays:
    """Rows (n, 2) as arrays (n, …): `t_…` of the pair, `s_…` of its photo, `sharpness`."""
    picked: dict[str, list[NDArray[Any]]] = {}
    for item, row in rows:
        arrays = pairs.items[item]
        source = int(arrays["t_source"][row])
        for name, values in arrays.items():
            value = values[row] if name[0] == "t" else values[source] if name[:2] == "s_" else values
            picked.setdefault(name, []).append(np.asarray(value))
    return {name: np.stack(values) for name, values in picked.items()}


class Draw:
    """Which rows make the batch of a step: items by the square root of their number of rows."""

    def __init__(self, rows: NDArray[np.int64], seed: int) -> None:
        counts = np.bincount(rows[:, 0])
        weight = 1 / np.sqrt(counts[rows[:, 0]])
        self._rows, self._sum, self._seed = rows, np.cumsum(weight / weight.sum()), seed

    def rng(self, step: int) -> np.random.Generator:
        """Randomness of a step: the same whenever it is taken."""
        return np.random.default_rng([self._seed, step])

    def rows(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(count, 2)."""
        return self._rows[np.minimum(np.searchsorted(self._sum, rng.random(count)), len(self._rows) - 1)]
