"""A trace in Chrome's JSON format, for ui.perfetto.dev or chrome://tracing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from streamer.frame import STAGES
from streamer.latency.trace import Trace, write_export


def write_perfetto(trace: Trace, out: Path) -> None:
    """Write the trace to `out`, whole or not at all; raises TraceError when that cannot be.

    Stages are asynchronous slices, because two frames may be in one stage's queue at the same time, which
    slices of a thread cannot show.
    """

    def at_us(ns: int) -> float:
        return (ns - trace.started_ns) / 1e3

    common: dict[str, object] = {"pid": 1, "tid": 1}
    events: list[dict[str, object]] = [
        {"ph": "M", "name": "process_name", "args": {"name": f"visavis {trace.name}"}, **common}
    ]
    for index, frame in enumerate(trace.frames):
        stamps = [(s, frame.trace.stamps_ns[s]) for s in STAGES if s in frame.trace.stamps_ns]
        args = {"sequence": frame.sequence, "pts_s": frame.pts_s, "fresh": frame.fresh}
        if not frame.fresh:
            # Its stamps are those of the picture that it repeats; drawing them again would be a lie.
            events.append(
                {"ph": "i", "name": "late", "s": "p", "ts": at_us(frame.shown_ns), "args": args, **common}
            )
            continue
        for (_, start_ns), (stage, end_ns) in itertools.pairwise(stamps):
            slice_ = {"cat": stage, "name": stage, "id": f"{stage}-{index}", **common}
            events.append({"ph": "b", "ts": at_us(start_ns), "args": args, **slice_})
            events.append({"ph": "e", "ts": at_us(max(end_ns, start_ns)), **slice_})
        if len(stamps) > 1:
            total = {"total_ms": frame.trace.total_ms()}
            events.append(
                {"ph": "C", "name": "latency", "ts": at_us(frame.shown_ns), "args": total, **common}
            )
        if frame.skew_ms is not None:
            skew = {"skew_ms": frame.skew_ms}
            events.append({"ph": "C", "name": "skew", "ts": at_us(frame.shown_ns), "args": skew, **common})
    for event in trace.events:
        args = {"stage": event.stage, "count": event.count, "message": event.message}
        events.append(
            {"ph": "i", "name": event.kind, "s": "p", "ts": at_us(event.at_ns), "args": args, **common}
        )
    document = {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"started_utc": trace.started_utc},
    }
    write_export(out, json.dumps(document, separators=(",", ":")).encode())
