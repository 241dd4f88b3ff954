"""A measured number, and how numbers come about."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from streamer.frame import STAGES


@dataclass(frozen=True, slots=True)
class Measured:
    """One number with its label: the unit is in `unit`, `key` is stable for machines."""

    key: str
    label: str
    value: float
    unit: str


def time_s(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def percentiles_of(times_ms: dict[str, list[float]], key: str, label: str) -> list[Measured]:
    """p50 and p95 of each stage, in the order a frame passes them."""
    out: list[Measured] = []
    for stage in (s for s in (*STAGES, "total") if s in times_ms):
        p50, p95 = (float(v) for v in np.percentile(times_ms[stage], [50, 95]))
        out.append(Measured(f"{key}{stage}_p50_ms", f"{label}, {stage}: p50", p50, "ms"))
        out.append(Measured(f"{key}{stage}_p95_ms", f"{label}, {stage}: p95", p95, "ms"))
    return out
