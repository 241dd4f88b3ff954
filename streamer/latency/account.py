"""`Account`: how many frames of many ledgers there were, and how long they took."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streamer.frame import STAGES
from streamer.latency.percentiles import Percentiles, QuantileSketch


@dataclass(frozen=True, slots=True)
class Counted:
    """What happened in `seconds`, counted from the first frame. `pictures`: new ones; `late`: those shown again."""

    seconds: float
    pictures: int
    late: int
    total_ms: Percentiles | None
    stage_ms: Mapping[str, Percentiles]
    dropped: Mapping[str, int]
    faults: Mapping[str, int]


class Account:
    """Counts frames like a ledger, of many of them, in constant memory; thread-safe."""

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._first_ns: int | None = None
        self._pictures = self._late = 0
        self._total = QuantileSketch()
        self._stages: dict[str, QuantileSketch] = {}
        self._dropped: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()

    def frame(self, stage_ms: Mapping[str, float], total_ms: float | None, *, fresh: bool) -> None:
        """As `Metrics.frame`."""
        now_ns = self._clock_ns()
        with self._lock:
            if self._first_ns is None:
                self._first_ns = now_ns
            if not fresh:
                self._late += 1
                return
            self._pictures += 1
            if total_ms is None:
                return
            self._total.add(total_ms)
            for stage, ms in stage_ms.items():
                self._stages.setdefault(stage, QuantileSketch()).add(ms)

    def dropped(self, count: int, *, stage: str) -> None:
        """As `Metrics.dropped`."""
        with self._lock:
            self._dropped[stage] += count

    def fault(self, stage: str) -> None:
        """As `Metrics.fault`."""
        with self._lock:
            self._faults[stage] += 1

    def read(self, *, anew: bool = False) -> Counted:
        """All of it so far; `anew`: and begin again."""
        now_ns = self._clock_ns()
        with self._lock:
            first_ns = now_ns if self._first_ns is None else self._first_ns
            total = self._total.copy()
            stages = {stage: self._stages[stage].copy() for stage in STAGES if stage in self._stages}
            counts = self._pictures, self._late, dict(self._dropped), dict(self._faults)
            if anew:
                self._begin()
        pictures, late, dropped, faults = counts
        times = {stage: sketch.percentiles() for stage, sketch in stages.items()}
        stage_ms = {stage: p for stage, p in times.items() if p is not None}
        return Counted(
            (now_ns - first_ns) / 1e9, pictures, late, total.percentiles(), stage_ms, dropped, faults
        )
