"""The addresses that give numbers: /metrics for Prometheus, /metrics.json for everybody else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from streamer.latency.account import Counted
from streamer.latency.ledger import Snapshot
from streamer.latency.percentiles import Percentiles
from streamer.serve.errors import documented
from streamer.serve.requests import StrictRoute
from streamer.serve.service import Served

numbers = APIRouter(route_class=StrictRoute)


@numbers.get("/metrics", response_class=PlainTextResponse, responses=documented())
async def metrics(service: Served) -> Response:
    """For Prometheus."""
    body, content_type = service.metrics.render()
    return Response(body, media_type=content_type)


@numbers.get("/metrics.json", responses=documented())
async def metrics_json(service: Served) -> dict[str, object]:
    """The same as JSON: percentiles since the start, and of each call over its last ten seconds."""
    calls = [call_numbers(session.ledger.snapshot()) for session in service.calls.connected]
    return {**server_numbers(service.metrics.ever.read()), "calls": calls}


def server_numbers(counted: Counted) -> dict[str, object]:
    """All calls since the server's start."""
    return {
        "frames": counted.pictures + counted.late,
        "late_frames": counted.late,
        "latency_ms": _times(counted.total_ms),
        "stage_ms": _stages(counted.stage_ms),
        "dropped_frames": dict(counted.dropped),
        "faults": dict(counted.faults),
    }


def call_numbers(snapshot: Snapshot) -> dict[str, object]:
    """One call; its name, by which it could be changed, is not told."""
    return {
        "seconds": round(snapshot.elapsed_s, 1),
        "fps": round(snapshot.fps, 2),
        "frames": snapshot.frames,
        "late_frames": snapshot.late,
        "latency_ms": _times(snapshot.total_ms),
        "stage_ms": _stages(snapshot.stage_ms),
        "skew_ms": _times(snapshot.skew_ms),
        "dropped_frames": dict(snapshot.dropped),
        "faults": dict(snapshot.fault_stages),
        "sound_s": {name: round(seconds, 3) for name, seconds in snapshot.sound_s.items()},
    }


def _stages(stages: Mapping[str, Percentiles]) -> dict[str, object]:
    return {stage: _times(p) for stage, p in stages.items()}


def _times(p: Percentiles | None) -> dict[str, float] | None:
    return None if p is None else {name: round(value, 2) for name, value in asdict(p).items()}
