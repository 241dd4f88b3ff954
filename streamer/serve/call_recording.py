"""The addresses of a call's recording: begun, fetched and forgotten by who knows the call's unguessable name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from fastapi import APIRouter, HTTPException
from fastapi.responses import Response, StreamingResponse

from streamer.serve.errors import documented
from streamer.serve.requests import StrictRoute
from streamer.serve.service import Served, Service
from streamer.webrtc.recorder import MOST_S, Recorder

LINES_AT_ONCE = 32  # in one piece of the answer

call_recording = APIRouter(route_class=StrictRoute)


class LinesResponse(StreamingResponse):
    """JSON lines."""

    media_type = "application/x-ndjson"


@call_recording.post("/api/calls/{session}/recording", responses=documented(404))
async def record(session: str, service: Served) -> dict[str, object]:
    """Record what drives a call, in memory."""
    service.calls.called(session).recorder.begin()
    return {"most_s": MOST_S}


@call_recording.get(
    "/api/calls/{session}/recording", response_class=LinesResponse, responses=documented(404, 409)
)
async def recorded_motion(session: str, service: Served) -> Response:
    """The recorded motion."""
    return _lines(_with_something(session, service).motion_lines(), "motion.jsonl", service)


@call_recording.get(
    "/api/calls/{session}/recording/trace", response_class=LinesResponse, responses=documented(404, 409)
)
async def recorded_trace(session: str, service: Served) -> Response:
    """The latency trace."""
    return _lines(_with_something(session, service).trace_lines(), "trace.jsonl", service)


@call_recording.delete("/api/calls/{session}/recording", status_code=204, responses=documented(404))
async def forget(session: str, service: Served) -> Response:
    """Stop and forget the recording."""
    service.calls.called(session).recorder.forget()
    return Response(status_code=204)


def _with_something(name: str, service: Service) -> Recorder:
    recorder = service.calls.called(name).recorder
    recorder.stop()
    if not recorder.frames:
        raise HTTPException(409, "nothing is recorded; begin a recording and fetch it while the call is up")
    return recorder


def _lines(lines: Iterator[str] | Iterator[bytes], name: str, service: Service) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return LinesResponse(in_turns(lines, service.calls.telling), headers=headers)


async def in_turns(lines: Iterator[str] | Iterator[bytes], turn: asyncio.Lock) -> AsyncIterator[bytes]:
    """`lines` in pieces. Each line takes a millisecond, and the calls go on before the next one is made.

    `turn`: shared by all that are being told, so that many at once take the event loop no more than one does.
    """
    piece: list[bytes] = []
    while True:
        async with turn:
            line = next(lines, None)
            await asyncio.sleep(0)
        if line is None:
            break
        piece.append(line.encode() if isinstance(line, str) else line)
        if len(piece) == LINES_AT_ONCE:
            yield b"".join(piece)
            piece.clear()
    yield b"".join(piece)
