"""`Summary`: a trace in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from streamer.frame import STAGES
from streamer.latency.percentiles import Percentiles, percentiles
from streamer.latency.trace import EventRecord, Trace


@dataclass(frozen=True, slots=True)
class Summary:
    """What the report's tables say; times in ms, over new pictures only.

    `fps` is new pictures per second between the first and the last shown frame, 0 with fewer than two.
    """

    frames: int
    late: int
    seconds: float
    fps: float
    total_ms: Percentiles | None
    stage_ms: dict[str, Percentiles]
    dropped: dict[str, int]
    faults: int


def summarise(trace: Trace) -> Summary:
    """The whole run in numbers."""
    start_ns = start_ns_of(trace)
    seconds = (max((f.shown_ns for f in trace.frames), default=start_ns) - start_ns) / 1e9
    fresh = [f for f in trace.frames if f.fresh]
    timed = [f.trace for f in fresh if len(f.trace.stamps_ns) > 1]
    per_frame = [t.stage_ms() for t in timed]
    stages = {s: percentiles(ms[s] for ms in per_frame if s in ms) for s in STAGES}
    dropped: Counter[str] = Counter()
    for event in events_of(trace, "drop"):
        dropped[event.stage] += event.count
    # The frame that starts the clock is not part of the time it starts, when it is a new picture.
    counted = sum(1 for f in fresh if f.shown_ns > start_ns)
    return Summary(
        frames=len(trace.frames),
        late=len(trace.frames) - len(fresh),
        seconds=seconds,
        fps=counted / seconds if seconds > 0 else 0.0,
        total_ms=percentiles(t.total_ms() for t in timed),
        stage_ms={s: p for s, p in stages.items() if p is not None},
        dropped=dict(dropped),
        faults=sum(e.count for e in events_of(trace, "fault")),
    )


def start_ns_of(trace: Trace) -> int:
    """When the first frame was shown; the trace's own start where none was."""
    return min((f.shown_ns for f in trace.frames), default=trace.started_ns)


def events_of(trace: Trace, kind: str) -> Iterator[EventRecord]:
    """The events of one kind: "drop", "fault" or "lost"."""
    return (e for e in trace.events if e.kind == kind)
