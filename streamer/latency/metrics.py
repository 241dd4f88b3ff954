"""Numbers about many frames: exact and sketched percentiles, and `Metrics` for Prometheus."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

# Dense around the 33 ms frame budget, because that is where a bucket edge has to tell good from bad.
_STAGE_BUCKETS_S = (0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.024, 0.033, 0.05, 0.1, 0.25, 1.0)
_TOTAL_BUCKETS_S = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds below which 50, 95 and 99 % of `count` samples lie."""

    p50: float
    p95: float
    p99: float
    count: int


def percentiles(values_ms: Iterable[float]) -> Percentiles | None:
    """`Percentiles` of the values, linearly interpolated; None when there are none."""
    values = np.fromiter(values_ms, dtype=np.float64)
    if values.size == 0:
        return None
    p50, p95, p99 = (float(p) for p in np.percentile(values, (50, 95, 99)))
    return Percentiles(p50, p95, p99, int(values.size))


class QuantileSketch:
    """Percentiles of any number of values in constant memory, each within 0.5 %.

    Logarithmic bins, as in DDSketch (Masson, Rim and Lee 2019): a bin is 1 % wide, so its middle is within
    0.5 % of whatever fell into it. Values are clamped to 1 µs ... 1000 s.
    """

    _LOW_MS, _HIGH_MS = 1e-3, 1e6
    _LOG_GAMMA = math.log(1.01)
    _LOG_LOW = math.log(_LOW_MS)
    _BINS = int((math.log(_HIGH_MS) - _LOG_LOW) / _LOG_GAMMA) + 1

    def __init__(self) -> None:
        self._counts = [0] * self._BINS  # a list: single increments are several times faster than numpy's
        self._total = 0

    def add(self, value_ms: float) -> None:
        """Count one value."""
        if value_ms <= self._LOW_MS:
            index = 0
        else:
            index = min(int((math.log(value_ms) - self._LOG_LOW) / self._LOG_GAMMA), self._BINS - 1)
        self._counts[index] += 1
        self._total += 1

    def copy(self) -> QuantileSketch:
        """An independent sketch of the same values."""
        twin = QuantileSketch()
        twin._counts, twin._total = self._counts.copy(), self._total
        return twin

    def percentiles(self) -> Percentiles | None:
        """`Percentiles` of everything added so far (nearest rank); None before the first value."""
        if self._total == 0:
            return None
        cumulative = np.cumsum(self._counts)
        ranks = np.ceil(np.array((0.50, 0.95, 0.99)) * self._total)
        middles = np.searchsorted(cumulative, ranks) + 0.5
        p50, p95, p99 = (float(v) for v in np.exp(middles * self._LOG_GAMMA + self._LOG_LOW))
        return Percentiles(p50, p95, p99, self._total)


class Metrics:
    """Counters and histograms of one process; many ledgers (one per session) may feed the same one.

    Nothing is registered globally: two `Metrics` never collide. Every method is thread-safe and never
    raises for a value it is given. Prometheus wants base units, so the histograms are in seconds.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Register everything in `registry` (a fresh one when None)."""
        self.registry = registry if registry is not None else CollectorRegistry()
        self._stage_s = Histogram(
            "visavis_stage_seconds",
            "Time from the stamp before to this stage's stamp, new pictures only",
            ["stage"],
            buckets=_STAGE_BUCKETS_S,
            registry=self.registry,
        )
        self._total_s = Histogram(
            "visavis_latency_seconds",
            "Time from a frame's first stamp to its last, new pictures only",
            buckets=_TOTAL_BUCKETS_S,
            registry=self.registry,
        )
        self._frames = Counter("visavis_frames", "Frames shown, late ones included", registry=self.registry)
        self._late = Counter(
            "visavis_late_frames", "Frames shown that repeated a picture", registry=self.registry
        )
        self._dropped = Counter(
            "visavis_dropped_frames",
            "Frames replaced by a newer one before this stage took them",
            ["stage"],
            registry=self.registry,
        )
        self._faults = Counter(
            "visavis_faults", "Errors survived, by stage", ["stage"], registry=self.registry
        )
        self._sessions = Gauge("visavis_sessions", "Sessions open now", registry=self.registry)
        # labels() takes a lock and builds a key on every call; the ledger calls this per frame and stage.
        self._stage_children: dict[str, Histogram] = {}

    def frame(self, stage_ms: Mapping[str, float], total_ms: float | None, *, fresh: bool) -> None:
        """Count one shown frame; observe its times when it is a new picture and has any.

        `total_ms` is None for a frame with fewer than two stamps, which has no latency to speak of.
        """
        self._frames.inc()
        if not fresh:
            self._late.inc()
            return
        if total_ms is None:
            return
        # A negative time (stages stamped out of order) would break the sum's monotonicity.
        self._total_s.observe(max(total_ms, 0.0) / 1e3)
        for stage, ms in stage_ms.items():
            child = self._stage_children.get(stage)
            if child is None:
                child = self._stage_children.setdefault(stage, self._stage_s.labels(stage))
            child.observe(max(ms, 0.0) / 1e3)

    def dropped(self, count: int, *, stage: str) -> None:
        """Count `count` frames dropped before `stage`."""
        self._dropped.labels(stage).inc(count)

    def fault(self, stage: str) -> None:
        """Count one fault in `stage`."""
        self._faults.labels(stage).inc()

    def session_opened(self) -> None:
        """One more session is open."""
        self._sessions.inc()

    def session_closed(self) -> None:
        """One session fewer is open."""
        self._sessions.dec()

    def render(self) -> tuple[bytes, str]:
        """(body, content type) for GET /metrics."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
