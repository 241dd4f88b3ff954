"""`Ledger`: what became of every frame, and the trace file it leaves behind (docs/latency.md)."""

from __future__ import annotations

import json
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
from typing import BinaryIO, cast

from engines.errors import VisavisError
from engines.frame import STAGES, LatencyTrace
from streamer.metrics import Metrics, Percentiles, QuantileSketch, percentiles

log = logging.getLogger(__name__)

TRACE_FORMAT = "visavis-trace"
TRACE_VERSION = 1

_MAX_MESSAGE_CHARS = 500
_MAX_LINE_BYTES = 1 << 20
_MAX_PENDING_LINES = 4096  # over a minute of video: a disk that stalls longer loses lines, not memory
_CLOSE_TIMEOUT_S = 1.0  # a server has 3 s to end, and a dead network disk must not eat them


class TraceError(VisavisError):
    """A latency trace or a report of it cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The ledger at one moment. Percentiles are over new pictures only; None where there are none yet.

    `fps` counts new pictures, `shown_fps` repeated ones too, both over the sliding window. `frames` is all
    that was shown, `late` those of them that repeated a picture. `stage_ms` and `total_ms` are over the
    window, `run_stage_ms` and `run_total_ms` over the whole run. `trace_lost` lines never reached the trace
    file, and `trace_error` says why it stopped.
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


class TraceWriter:
    """Writes dicts as JSON lines from a thread of its own, so that `put` never waits for a disk.

    A failing disk ends the file with one logged warning; a stalled one loses lines, which are counted and
    noted in the file (`{"event": "lost"}`) when it comes back.
    """

    def __init__(self, path: Path, header: Mapping[str, object], clock_ns: Callable[[], int]) -> None:
        """Create (or empty) `path`; raises TraceError when that is not possible."""
        try:
            # Unbuffered: what one batch wrote is in the file even if the process is killed next.
            self._file: BinaryIO = path.open("wb", buffering=0)
        except OSError as error:
            raise TraceError(
                f"cannot write the trace {path}: {error.strerror or error}; name a file in a folder "
                "that exists and that you may write to"
            ) from error
        self.path = path
        self.lost = 0
        self.error: str | None = None
        self._clock_ns = clock_ns
        self._pending: list[Mapping[str, object]] = [header]
        self._closing = False
        self._wake = threading.Condition()
        # Daemon: a writer stuck in a dead disk must not keep the process alive; close() does the flushing.
        self._thread = threading.Thread(target=self._run, name="visavis-trace", daemon=True)
        self._thread.start()

    def put(self, record: Mapping[str, object]) -> None:
        """Queue one line; counted as lost when the disk is too far behind or has failed."""
        with self._wake:
            if self._closing:
                return
            if self.error is not None or len(self._pending) >= _MAX_PENDING_LINES:
                self.lost += 1
                return
            self._pending.append(record)
            self._wake.notify()

    def close(self) -> None:
        """Write what is queued and close the file; waits at most a second for a stalled disk."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(_CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            log.warning("the disk of %s does not answer; the trace's last lines may be missing", self.path)

    def _run(self) -> None:
        noted = 0
        try:
            while True:
                with self._wake:
                    self._wake.wait_for(lambda: bool(self._pending) or self._closing)
                    batch, self._pending = self._pending, []
                    lost, closing = self.lost, self._closing
                if lost > noted:
                    event = {"event": "lost", "stage": "trace", "ns": self._clock_ns(), "n": lost - noted}
                    batch.append(event)
                    noted = lost
                self._write(b"".join(json.dumps(r, separators=(",", ":")).encode() + b"\n" for r in batch))
                if closing:
                    break
            self._file.close()
        except Exception as error:  # whatever it is, it may cost the trace but never the call
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            with self._wake:
                self.error = f"cannot write the trace {self.path}: {reason}"
                self.lost += len(self._pending)
                self._pending = []
            log.warning("%s; the run goes on without it", self.error)
            try:
                self._file.close()
            except OSError:
                log.debug("closing the trace failed too", exc_info=True)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


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
        metrics: Metrics | None = None,
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
        self._writer: TraceWriter | None = None
        if trace_path is not None:
            header = {
                "format": TRACE_FORMAT,
                "version": TRACE_VERSION,
                "started_utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "started_ns": clock_ns(),
            }
            self._writer = TraceWriter(trace_path, header, clock_ns)

    def frame(self, trace: LatencyTrace, *, sequence: int, pts_s: float, fresh: bool) -> None:
        """Count one shown frame; `fresh=False` says it repeated a picture (counted as late)."""
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
            self._forget(now_ns)
        if self._metrics is not None:
            self._metrics.frame(stage_ms, total_ms, fresh=fresh)
        if self._writer is not None:
            first_ns = next((stamps_ns[s] for s in STAGES if s in stamps_ns), None)
            self._writer.put(
                {
                    "seq": int(sequence),  # numpy integers are not JSON
                    "pts_s": float(pts_s) if math.isfinite(pts_s) else None,
                    "capture_ns": stamps_ns.get("captured", first_ns),
                    "stamps_ns": dict(stamps_ns),
                    "fresh": fresh,
                    "ns": now_ns,
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
        if self._writer is not None:
            self._writer.put({"event": "drop", "stage": stage, "ns": self._clock_ns(), "n": count})

    def fault(self, stage: str, error: BaseException) -> None:
        """Count an error that the loop survived; the last one's message is kept."""
        message = _one_line(error)
        with self._lock:
            self._tally.faults[stage] += 1
            self._tally.last_fault = f"{stage}: {message}"
        if self._metrics is not None:
            self._metrics.fault(stage)
        if self._writer is not None:
            self._writer.put(
                {"event": "fault", "stage": stage, "ns": self._clock_ns(), "n": 1, "message": message}
            )

    def snapshot(self) -> Snapshot:
        """The numbers as they stand now."""
        now_ns = self._clock_ns()
        with self._lock:
            tally = self._tally
            self._forget(now_ns)
            window = list(self._window)
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

    def _forget(self, now_ns: int) -> None:
        oldest_ns = now_ns - self._window_ns
        while self._window and self._window[0][0] <= oldest_ns:
            self._window.popleft()


def _one_line(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # an exception whose own __str__ fails is still a fault to count
        text = "(no message)"
    return f"{type(error).__name__}: {' '.join(text.split())}"[:_MAX_MESSAGE_CHARS]


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One shown frame of a trace; `shown_ns` is when the ledger was told of it."""

    sequence: int
    pts_s: float | None
    capture_ns: int | None
    trace: LatencyTrace
    fresh: bool
    shown_ns: int


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something that is not a shown frame: `kind` is "drop", "fault" or "lost", `count` how many."""

    kind: str
    stage: str
    at_ns: int
    count: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace file in memory, in the order it was written; `notices` say what was odd about it."""

    name: str
    started_utc: str
    started_ns: int
    frames: tuple[FrameRecord, ...]
    events: tuple[EventRecord, ...]
    notices: tuple[str, ...] = ()


def read_trace(path: Path) -> Trace:
    """Read a trace file; raises TraceError with the line at fault.

    A last line cut short (the process was killed, the disk was full) is left out, with a notice.
    """
    if not path.is_file():
        raise TraceError(f"no trace file at {path}; `visavis animate --trace FILE.jsonl` writes one")
    frames: list[FrameRecord] = []
    events: list[EventRecord] = []
    notices: list[str] = []
    try:
        with path.open("rb") as file:
            header = _header(path, file.readline(_MAX_LINE_BYTES))
            number = 1
            while line := file.readline(_MAX_LINE_BYTES):
                number += 1
                try:
                    record = _record(line)
                except ValueError as error:
                    if not line.endswith(b"\n") and len(line) < _MAX_LINE_BYTES:
                        notices.append(f"line {number}, the last, is cut short and was left out")
                        break
                    raise TraceError(f"{path}, line {number}: {error}; record the trace again") from error
                if isinstance(record, FrameRecord):
                    frames.append(record)
                else:
                    events.append(record)
    except OSError as error:
        raise TraceError(
            f"cannot read {path}: {error.strerror or error}; check the file and its mode"
        ) from error
    lost = sum(e.count for e in events if e.kind == "lost")
    if lost:
        notices.append(f"{lost} lines are missing, because the disk was slower than the frames came")
    return Trace(
        name=path.name,
        started_utc=header[0],
        started_ns=header[1],
        frames=tuple(frames),
        events=tuple(events),
        notices=tuple(notices),
    )


def _header(path: Path, line: bytes) -> tuple[str, int]:
    try:
        data = _object(line)
        if data.get("format") != TRACE_FORMAT:
            raise ValueError("no visavis-trace header")
        version = _integer(data, "version")
        started_utc, started_ns = _text(data, "started_utc"), _integer(data, "started_ns")
    except ValueError as error:
        raise TraceError(
            f"{path} is not a visavis latency trace ({error}); `visavis animate --trace FILE` writes one"
        ) from error
    if version != TRACE_VERSION:
        raise TraceError(
            f"{path} is of trace version {version}, this visavis reads {TRACE_VERSION}; update it"
        )
    return started_utc, started_ns


def _record(line: bytes) -> FrameRecord | EventRecord:
    data = _object(line)
    if "event" in data:
        kind = _text(data, "event")
        if kind not in ("drop", "fault", "lost"):
            raise ValueError(f"unknown event {kind[:40]!r}")
        count = _integer(data, "n")
        if count < 1:
            raise ValueError("'n' is not a positive integer")
        message = _text(data, "message") if "message" in data else ""
        return EventRecord(kind, _text(data, "stage"), _integer(data, "ns"), count, message)
    stamps = data.get("stamps_ns")
    if not isinstance(stamps, dict):
        raise ValueError("'stamps_ns' is not an object")
    stamps_ns = cast("dict[str, object]", stamps)
    if unknown := [s for s in stamps_ns if s not in STAGES]:
        raise ValueError(f"unknown stage {unknown[0][:40]!r}")
    trace = LatencyTrace({stage: _integer(stamps_ns, stage) for stage in stamps_ns})
    fresh, pts = data.get("fresh"), data.get("pts_s")
    if not isinstance(fresh, bool):
        raise ValueError("'fresh' is not true or false")
    if pts is not None and (isinstance(pts, bool) or not isinstance(pts, int | float) or not abs(pts) < 1e12):
        raise ValueError("'pts_s' is not a number of seconds")
    return FrameRecord(
        sequence=_integer(data, "seq"),
        pts_s=None if pts is None else float(pts),
        capture_ns=None if data.get("capture_ns") is None else _integer(data, "capture_ns"),
        trace=trace,
        fresh=fresh,
        shown_ns=_integer(data, "ns"),
    )


def _object(line: bytes) -> dict[str, object]:
    try:
        data: object = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    except ValueError as error:  # UnicodeDecodeError included
        raise ValueError("not JSON") from error
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return cast("dict[str, object]", data)


def _integer(data: Mapping[str, object], key: str) -> int:
    value = data.get(key)
    # The bound keeps differences of two stamps inside numpy's int64.
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 62:
        raise ValueError(f"{key!r} is not an integer")
    return value


def _text(data: Mapping[str, object], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key!r} is not a text")
    return value
