"""`Metrics`: numbers about the frames of a whole process, for Prometheus, as JSON and for a line a minute."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from streamer.latency.account import Account

# Dense around the 33 ms frame budget, because that is where a bucket edge has to tell good from bad.
_STAGE_BUCKETS_S = (0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.024, 0.033, 0.05, 0.1, 0.25, 1.0)
# around what people begin to see: 45 ms (sound first) and 125 ms (picture first), ITU-R BT.1359
_SKEW_BUCKETS_S = (0.005, 0.01, 0.02, 0.03, 0.045, 0.06, 0.08, 0.125, 0.25, 0.5)
_TOTAL_BUCKETS_S = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)


class Metrics:
    """Counters and histograms of one process; many ledgers (one per session) may feed the same one.

    Nothing is registered globally: two `Metrics` never collide. Every method is thread-safe and never
    raises for a value it is given. Prometheus wants base units, so the histograms are in seconds. `ever` counts the
    same since the start, `minute` since it was last read anew.
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
        self._skew_s = Gauge(
            "visavis_skew_seconds",
            "How much later than its sound the newest picture is seen; negative where it is sooner",
            registry=self.registry,
        )
        self._skew_size_s = Histogram(
            "visavis_skew_size_seconds",
            "How far pictures are from their sound, either way",
            buckets=_SKEW_BUCKETS_S,
            registry=self.registry,
        )
        self._sessions = Gauge("visavis_sessions", "Sessions open now", registry=self.registry)
        self.ever, self.minute = Account(), Account()
        # labels() takes a lock and builds a key on every call; the ledger calls this per frame and stage.
        self._stage_children: dict[str, Histogram] = {}

    def frame(self, stage_ms: Mapping[str, float], total_ms: float | None, *, fresh: bool) -> None:
        """Count one shown frame; observe its times when it is a new picture and has any.

        `total_ms` is None for a frame with fewer than two stamps, which has no latency to speak of.
        """
        for account in (self.ever, self.minute):
            account.frame(stage_ms, total_ms, fresh=fresh)
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

    def skew(self, skew_ms: float) -> None:
        """How much later than its sound a picture that has left is seen (> 0), or sooner."""
        self._skew_s.set(skew_ms / 1e3)
        self._skew_size_s.observe(abs(skew_ms) / 1e3)

    def dropped(self, count: int, *, stage: str) -> None:
        """Count `count` frames dropped before `stage`."""
        self.ever.dropped(count, stage=stage)
        self.minute.dropped(count, stage=stage)
        self._dropped.labels(stage).inc(count)

    def fault(self, stage: str) -> None:
        """Count one fault in `stage`."""
        self.ever.fault(stage)
        self.minute.fault(stage)
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
