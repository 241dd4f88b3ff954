"""The trace file: one JSON line for each frame and event, written without waiting, read back with care."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from engines.errors import VisavisError
from engines.files import write_whole
from streamer.frame import STAGES, LatencyTrace

log = logging.getLogger(__name__)

TRACE_FORMAT = "visavis-trace"
TRACE_VERSION = 1

_MAX_LINE_BYTES = 1 << 20
_MAX_PENDING_LINES = 4096  # over a minute of video: a disk that stalls longer loses lines, not memory
_CLOSE_TIMEOUT_S = 1.0  # a server has 3 s to end, and a dead network disk must not eat them


class TraceError(VisavisError):
    """A latency trace or a report of it cannot be read or written."""


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


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One shown frame of a trace; `shown_ns` is when the ledger was told of it.

    `skew_ms`: how much later than its sound it is seen (> 0), or sooner; None without sound.
    """

    sequence: int
    pts_s: float | None
    capture_ns: int | None
    trace: LatencyTrace
    fresh: bool
    shown_ns: int
    skew_ms: float | None = None


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


def write_export(out: Path, data: bytes) -> None:
    """Write what was made of a trace, whole or not at all; raises TraceError when that cannot be."""
    try:
        write_whole(out, data)
    except OSError as error:
        raise TraceError(
            f"cannot write {out}: {error.strerror or error}; name a file in a folder that exists, "
            "that you may write to and that has room"
        ) from error


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
    fresh = data.get("fresh")
    if not isinstance(fresh, bool):
        raise ValueError("'fresh' is not true or false")
    return FrameRecord(
        sequence=_integer(data, "seq"),
        pts_s=_number(data, "pts_s", "seconds"),
        capture_ns=None if data.get("capture_ns") is None else _integer(data, "capture_ns"),
        trace=trace,
        fresh=fresh,
        shown_ns=_integer(data, "ns"),
        skew_ms=_number(data, "skew_ms", "milliseconds"),
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


def _number(data: Mapping[str, object], key: str, of: str) -> float | None:
    value = data.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise ValueError(f"{key!r} is not a number of {of}")
    return float(value)


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
