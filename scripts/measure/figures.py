"""`Figure`: one measured number with its target; tables of them; the statistics that several sections need."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibration.enroll import enroll
from engines.enrollment import Enrollment
from engines.geometry import F64
from scripts.people.tracks import Tracked


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """`value` in `unit`; the target is `at_most` or `at_least` (neither: reported only)."""

    key: str
    label: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one. A value that is not finite reaches none."""
        if self.at_most is None and self.at_least is None:
            return None
        low = -np.inf if self.at_least is None else self.at_least
        high = np.inf if self.at_most is None else self.at_most
        return bool(low <= self.value <= high) and bool(np.isfinite(self.value))

    @property
    def target(self) -> str:
        """The target as text, empty without one."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return "" if self.at_least is None else f"≥ {self.at_least:g}"


@dataclass(frozen=True, slots=True)
class Section:
    """What one section found: its figures, and `items`: the numbers of each clip, portrait or pair by name."""

    name: str
    figures: Sequence[Figure]
    items: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, dict[str, float]])


def to_markdown(sections: Sequence[Section]) -> str:
    """One table of all figures."""
    lines = ["| section | figure | value | target | met | note |", "| --- | --- | ---: | --- | --- | --- |"]
    for section in sections:
        for f in section.figures:
            met = "" if f.met is None else "yes" if f.met else "**no**"
            value = f"{f.value:.4g} {f.unit}".strip()
            lines.append(f"| {section.name} | {f.label} | {value} | {f.target} | {met} | {f.note} |")
    return "\n".join(lines)


def to_dict(sections: Sequence[Section]) -> dict[str, object]:
    """The same for machines, items included; numbers that are not finite become None."""

    def number(value: float) -> float | None:
        return round(float(value), 6) if np.isfinite(value) else None

    return {
        s.name: {
            "figures": [
                {
                    "key": f.key, "label": f.label, "value": number(f.value), "unit": f.unit,
                    "target": f.target, "met": f.met, "note": f.note,
                }
                for f in s.figures
            ],
            "items": {n: {k: number(v) for k, v in row.items()} for n, row in s.items.items()},
        }
        for s in sections
    }  # fmt: skip


def pearson(a: F64 | Sequence[float], b: F64 | Sequence[float]) -> float:
    """Correlation of two series of equal length; 0 when one of them does not move."""
    x, y = (np.asarray(v, np.float64) - np.mean(v) for v in (a, b))
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 1e-12 else 0.0


def psnr_db(a: NDArray[np.floating], b: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """PSNR of pictures (H, W, C) in 0 … 255 over the pixels of `mask` (H, W); NaN for an empty mask."""
    if not mask.any():
        return float("nan")
    error = float(np.mean((a[mask].astype(np.float64) - b[mask].astype(np.float64)) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def share_percent(good: NDArray[np.bool_] | Sequence[bool]) -> float:
    """Percentage of true entries; NaN for none at all."""
    values = np.asarray(good, bool)
    return float(100 * values.mean()) if values.size else float("nan")


def worst(items: Mapping[str, Mapping[str, float]], key: str, count: int = 3, *, low: bool = False) -> str:
    """The `count` items with the highest (or lowest) `key`, by name with their value."""
    rows = [(row[key], name) for name, row in items.items() if key in row and np.isfinite(row[key])]
    rows.sort(reverse=not low)
    return ", ".join(f"{name} {value:.3g}" for value, name in rows[:count])


def column(items: Mapping[str, Mapping[str, float]], key: str) -> F64:
    """`key` of every item that has a finite one."""
    values = np.array([row[key] for row in items.values() if key in row], np.float64)
    return values[np.isfinite(values)]


def mean_of(values: F64, reduce: Callable[[F64], float] = lambda v: float(v.mean())) -> float:
    """`reduce` of the values; NaN for none."""
    return reduce(values) if len(values) else float("nan")


def spread(items: Sequence[Tracked], count: int) -> list[Tracked]:
    """`count` of them, spread evenly over the list, each of another person."""
    own = list({t.subject: t for t in reversed(items)}.values())[::-1]
    if len(own) <= count:
        return own
    return [own[int((k + 0.5) * len(own) / count)] for k in range(count)]


def code_digest(root: Path) -> str:
    """Twelve hex digits of what is measured: the sources of the product and its data files under `root`."""
    digest = hashlib.sha256()
    files = [f for part in ("engines", "calibration", "streamer") for f in (root / part).rglob("*")]
    for file in sorted(f for f in files if f.is_file() and (f.suffix == ".py" or f.parent.name == "data")):
        digest.update(f"{file.relative_to(root)}:".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


@cache
def enrolled(photo: Path | bytes) -> Enrollment:
    """A photo enrolled, once. Raises PhotoError when it cannot be."""
    return enroll(photo, name=photo.stem if isinstance(photo, Path) else "astronaut")


@cache
def astronaut_png() -> bytes:
    """Portrait of an astronaut (NASA, public domain) that comes with scikit-image, as PNG."""
    from skimage import data

    out = BytesIO()
    Image.fromarray(np.asarray(data.astronaut(), np.uint8)).save(out, "PNG")
    return out.getvalue()
