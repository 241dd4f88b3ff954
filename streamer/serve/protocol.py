"""`WatchedProtocol`: uvicorn's HTTP/1.1, which says how far a client is, and answers what is no HTTP as all else."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from streamer.serve.connections import BODY_STEP_BYTES, Connections, Phase, Stage
from streamer.serve.headers import raw_answer


class WatchedProtocol(H11Protocol):
    """One client's HTTP/1.1. What is said of its progress, `Connections` asks for."""

    def __init__(self, watching: Connections, /, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.access_log = False  # an address may hold the token; uvicorn goes by whether somebody listens
        self._watching = watching
        self._received_bytes = 0
        self._answers = 0
        self._drained = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """TLS, where there is any, is up."""
        super().connection_made(transport)
        self._watching.follow(transport.get_extra_info("socket").fileno(), self.stage, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Some of a request."""
        self._received_bytes += len(data)
        super().data_received(data)

    def on_response_complete(self) -> None:
        """An answer is given, though perhaps not read."""
        self._answers += 1
        super().on_response_complete()

    def resume_writing(self) -> None:
        """The client has read some of an answer."""
        self._drained += 1
        super().resume_writing()

    def stage(self) -> Stage:
        """Where the client is."""
        if self.flow.write_paused:
            return Stage(Phase.ANSWER, self._drained)
        if self.transport.is_closing():
            return Stage(Phase.ENDING, self._answers)
        in_body = self.conn.their_state is h11.SEND_BODY
        if self.cycle and not self.cycle.response_complete:
            return (
                Stage(Phase.BODY, self._received_bytes // BODY_STEP_BYTES) if in_body else Stage(Phase.WORK)
            )
        return Stage(Phase.ENDING if in_body else Phase.HEAD, self._answers)

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        if self.cycle and not self.cycle.response_complete:
            # the route hears that the client has gone, and what it answers goes nowhere
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(
                raw_answer(HTTPStatus.BAD_REQUEST, "this is no HTTP/1.1; send a request of it")
            )
        self.transport.close()
