"""`Ledger`: what became of every frame, and the trace file it leaves behind (docs/latency.md)."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from streamer.frame import STAGES, LatencyTrace
from streamer.latency.account import Account
from streamer.latency.metrics import Metrics
from streamer.latency.percentiles import Percentiles, QuantileSketch, percentiles
from streamer.latency.trace import TRACE_FORMAT, TRACE_VERSION, TraceWriter

log = logging.getLogger(__name__)

_MAX_MESSAGE_CHARS = 500


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The ledger at one moment. Percentiles are over new pictures only; None where there are none yet.

    `fps` counts new pictures, `shown_fps` repeated ones too, both over the sliding window. `frames` is all
    that was shown, `late` those of them that repeated a picture. `stage_ms` and `total_ms` are over the
    window, `run_stage_ms` and `run_total_ms` over the whole run. `skew_ms`, over the window: how much later
    than its sound a picture is seen, negative where it is sooner. `trace_lost` lines never reached the trace
    file, and `trace_error` says why it stopped. `sound_s`: what became of the received sound, see `Ledger.sound_s`.
    """

    fps: float
    shown_fps: float
    total_ms: Percentiles | None
    stage_ms: Mapping[str, Percentiles]
    run_total_ms: Percentiles | None
    run_stage_ms: Mapping[str, Percentiles]
    elapsed_s: float
    frames: int
    late: int
    dropped: Mapping[str, int]
    faults: int
    fault_stages: Mapping[str, int]
    last_fault: str | None
    trace_lost: int
    trace_error: str | None
    sound_s: Mapping[str, float] = field(default_factory=dict[str, float])
    skew_ms: Percentiles | None = None


@dataclass(slots=True)
class _Tally:
    """What the ledger knows; guarded by the ledger's lock."""

    frames: int = 0
    late: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])
    faults: Counter[str] = field(default_factory=Counter[str])
    last_fault: str | None = None
    first_ns: int | None = None
    total: QuantileSketch = field(default_factory=QuantileSketch)
    stages: dict[str, QuantileSketch] = field(default_factory=dict[str, QuantileSketch])


class Ledger:
    """Counts every frame shown, dropped or failed of one session; thread-safe, closes with `with`.

    Percentiles over the last `window_s` seconds are computed when a snapshot is asked for, so `frame` stays
    cheap enough for the live loop. With `trace_path` every frame also goes to that file.
    """

    def __init__(
        self,
        window_s: float = 10.0,
        trace_path: Path | None = None,
        metrics: Metrics | Account | None = None,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`clock_ns` must be the clock of the stamps. Raises TraceError when the trace cannot be opened."""
        if not window_s > 0:
            raise ValueError(f"window_s must be positive, not {window_s}")
        self._window_ns = int(window_s * 1e9)
        self._clock_ns = clock_ns
        self._metrics = metrics
        self._lock = threading.Lock()
        self._tally = _Tally()
        # (shown at, new picture?, total or None, stages), oldest first.
        self._window: deque[tuple[int, bool, float | None, dict[str, float]]] = deque()
        self._skews: deque[tuple[int, float]] = deque()
        self._writer: TraceWriter | None = None
        # gets each line of a trace as it comes, from any thread; may be set at any time
        self.copy_to: Callable[[Mapping[str, object]], None] | None = None
        # seconds of received sound by what became of them; a call tells how to learn them
        self.sound_s: Callable[[], Mapping[str, float]] = dict[str, float]
        if trace_path is not None:
            self._writer = TraceWriter(trace_path, self.trace_header(), clock_ns)

    def trace_header(self) -> dict[str, object]:
        """The first line of a trace that begins now."""
        return {
            "format": TRACE_FORMAT,
            "version": TRACE_VERSION,
            "started_utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "started_ns": self._clock_ns(),
        }

    def frame(
        self,
        trace: LatencyTrace,
        *,
        sequence: int,
        pts_s: float,
        fresh: bool,
        skew_ms: float | None = None,
    ) -> None:
        """Count one shown frame; `fresh=False` says it repeated a picture (counted as late).

        `skew_ms`: how much later than its sound it is seen (> 0), or sooner, where there is sound.
        """
        now_ns = self._clock_ns()
        stamps_ns = trace.stamps_ns
        stage_ms = trace.stage_ms() if fresh else {}
        total_ms = trace.total_ms() if fresh and len(stamps_ns) > 1 else None
        with self._lock:
            tally = self._tally
            tally.frames += 1
            tally.first_ns = now_ns if tally.first_ns is None else tally.first_ns
            if not fresh:
                tally.late += 1
            if total_ms is not None:
                tally.total.add(total_ms)
                for stage, ms in stage_ms.items():
                    sketch = tally.stages.get(stage)
                    if sketch is None:
                        sketch = tally.stages[stage] = QuantileSketch()
                    sketch.add(ms)
            self._window.append((now_ns, fresh, total_ms, stage_ms))
            if skew_ms is not None:
                self._skews.append((now_ns, skew_ms))
            self._forget(now_ns)
        if self._metrics is not None:
            self._metrics.frame(stage_ms, total_ms, fresh=fresh)
            if skew_ms is not None and isinstance(self._metrics, Metrics):
                self._metrics.skew(skew_ms)
        if self._traced:
            first_ns = next((stamps_ns[s] for s in STAGES if s in stamps_ns), None)
            self._trace(
                {
                    "seq": int(sequence),  # numpy integers are not JSON
                    "pts_s": float(pts_s) if math.isfinite(pts_s) else None,
                    "capture_ns": stamps_ns.get("captured", first_ns),
                    "stamps_ns": dict(stamps_ns),
                    "fresh": fresh,
                    "ns": now_ns,
                    **({} if skew_ms is None else {"skew_ms": round(skew_ms, 2)}),
                }
            )

    def dropped(self, count: int = 1, *, stage: str) -> None:
        """Count frames that a newer one replaced before `stage` took them; ValueError below 0."""
        if count < 0:
            raise ValueError(f"count must not be negative, not {count}")
        if count == 0:
            return
        with self._lock:
            self._tally.dropped[stage] += count
        if self._metrics is not None:
            self._metrics.dropped(count, stage=stage)
        if self._traced:
            self._trace({"event": "drop", "stage": stage, "ns": self._clock_ns(), "n": count})

    def fault(self, stage: str, error: BaseException) -> None:
        """Count an error that the loop survived; the last one's message is kept."""
        message = _one_line(error)
        with self._lock:
            self._tally.faults[stage] += 1
            self._tally.last_fault = f"{stage}: {message}"
        if self._metrics is not None:
            self._metrics.fault(stage)
        if self._traced:
            self._trace(
                {"event": "fault", "stage": stage, "ns": self._clock_ns(), "n": 1, "message": message}
            )

    def snapshot(self) -> Snapshot:
        """The numbers as they stand now."""
        now_ns = self._clock_ns()
        with self._lock:
            tally = self._tally
            self._forget(now_ns)
            window, skews = list(self._window), [ms for _, ms in self._skews]
            run_total = tally.total.copy()  # copied, so that the live loop does not wait for arithmetic
            run_stages = {s: tally.stages[s].copy() for s in STAGES if s in tally.stages}
            frames, late, last_fault = tally.frames, tally.late, tally.last_fault
            dropped, faults = dict(tally.dropped), dict(tally.faults)
            first_ns = tally.first_ns if tally.first_ns is not None else now_ns
        # Frames after an instant, over the time since it: unbiased from the first second on, and it falls
        # when frames stop coming, which a mean of the gaps between frames would not.
        since_ns = max(now_ns - self._window_ns, first_ns)
        seconds = (now_ns - since_ns) / 1e9
        shown = sum(1 for w in window if w[0] > since_ns)
        new = sum(1 for w in window if w[0] > since_ns and w[1])
        stages = {s: percentiles(w[3][s] for w in window if s in w[3]) for s in STAGES}
        whole_run = {s: sketch.percentiles() for s, sketch in run_stages.items()}
        writer = self._writer
        return Snapshot(
            fps=new / seconds if seconds > 0 else 0.0,
            shown_fps=shown / seconds if seconds > 0 else 0.0,
            total_ms=percentiles(w[2] for w in window if w[2] is not None),
            stage_ms={s: p for s, p in stages.items() if p is not None},
            run_total_ms=run_total.percentiles(),
            run_stage_ms={s: p for s, p in whole_run.items() if p is not None},
            elapsed_s=(now_ns - first_ns) / 1e9,
            frames=frames,
            late=late,
            dropped=dropped,
            faults=sum(faults.values()),
            fault_stages=faults,
            last_fault=last_fault,
            trace_lost=writer.lost if writer is not None else 0,
            trace_error=writer.error if writer is not None else None,
            sound_s=self.sound_s(),
            skew_ms=percentiles(skews),
        )

    def close(self) -> None:
        """Flush and close the trace file; counting goes on, and closing twice is harmless."""
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _traced(self) -> bool:
        return self._writer is not None or self.copy_to is not None

    def _trace(self, record: Mapping[str, object]) -> None:
        copy_to = self.copy_to
        if self._writer is not None:
            self._writer.put(record)
        if copy_to is not None:
            copy_to(record)

    def _forget(self, now_ns: int) -> None:
        oldest_ns = now_ns - self._window_ns
        while self._window and self._window[0][0] <= oldest_ns:
            self._window.popleft()
        while self._skews and self._skews[0][0] <= oldest_ns:
            self._skews.popleft()


def _one_line(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # an exception whose own __str__ fails is still a fault to count
        text = "(no message)"
    return f"{type(error).__name__}: {' '.join(text.split())}"[:_MAX_MESSAGE_CHARS]
