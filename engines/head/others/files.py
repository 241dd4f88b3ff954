"""Reading what users bring: every way in which a file can be wrong ends in a ModelError that says what was found."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelError

Array = NDArray[np.generic]
Shape = tuple[int | str, ...]  # a letter is a count that must be the same wherever it stands
SEE = "see docs/head-models.md"


def read_npz(path: Path, kind: str, names: Iterable[str]) -> dict[str, Array]:
    """Those of `names` that an .npz holds; pickled objects are refused, not loaded."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in names if name in file.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(f"{path} is no {kind} head model or is truncated: {error}; {SEE}") from error


def check(path: Path, kind: str, found: Mapping[str, Array], expected: Mapping[str, Shape]) -> dict[str, int]:
    """Raise ModelError unless every expected field is there with its shape, as finite numbers; the counts by letter."""
    described = ", ".join(f"{name} ({', '.join(map(str, shape))})" for name, shape in expected.items())
    missing = [name for name in expected if name not in found]
    if missing:
        here = ", ".join(sorted(found)) or "none of them"
        raise ModelError(
            f"{path} is no {kind} head model: it lacks {', '.join(missing)}; found: {here}; "
            f"expected: {described}; {SEE}"
        )
    counts: dict[str, int] = {}
    for name, shape in expected.items():
        value = found[name]
        fits = value.ndim == len(shape) and all(
            have == (want if isinstance(want, int) else counts.setdefault(want, have))
            for have, want in zip(value.shape, shape, strict=True)
        )
        if not fits or 0 in value.shape:
            told = ", ".join(f"{letter} = {count}" for letter, count in counts.items())
            raise ModelError(
                f"{path} is no {kind} head model: {name} is {value.shape}, expected "
                f"({', '.join(map(str, shape))}){' with ' + told if told else ''}; expected: {described}; {SEE}"
            )
        if value.dtype.kind not in ("U" if name.endswith("_names") else "fiub"):
            raise ModelError(
                f"{path} is no {kind} head model: {name} holds {value.dtype}, expected numbers; {SEE}"
            )
        if value.dtype.kind == "f" and not np.isfinite(np.asarray(value, np.float64)).all():
            raise ModelError(f"{path}: {name} holds a number that is not finite; download the file again")
    return counts


def indices(path: Path, name: str, value: Array, count: int, first: int = 0) -> NDArray[np.int64]:
    """`value` as indices that count from `first`, below `count`; raises ModelError for others."""
    out = np.asarray(value).astype(np.int64) - first
    if out.size and (int(out.min()) < 0 or int(out.max()) >= count):
        raise ModelError(
            f"{path}: {name} holds {int(out.min()) + first} … {int(out.max()) + first}, expected "
            f"{first} … {count - 1 + first}; {SEE}"
        )
    return out
