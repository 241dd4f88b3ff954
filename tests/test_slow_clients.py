"""Clients that keep the server waiting: each ends in time, and however many there are, an honest one gets through."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from fakes import AT_LAST_S
from fastapi import FastAPI
from fastapi.responses import Response
from raw import Running, answer_of, running, write_certificate

from streamer.serve.connections import BODY_STEP_BYTES, WAIT_S, Connections, Phase, Stage
from streamer.serve.headers import HEADERS

HEALTH = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
OFFER = b"POST /api/offer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LARGE_BYTES = 64 << 20
MOST = 6


def wait_for(condition: Callable[[], object], otherwise: Callable[[], str] = lambda: "in vain") -> None:
    """Until `condition` is true, which the server brings about."""
    deadline_s = time.monotonic() + AT_LAST_S
    while not condition():
        if time.monotonic() > deadline_s:
            pytest.fail(otherwise())
        time.sleep(0.005)


class Time:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Bench:
    """A server in a time of its own, with a route that waits and one whose answer is large."""

    def __init__(self, server: Running, clock: Time, leave: threading.Event) -> None:
        self.server, self.clock, self.leave = server, clock, leave

    @property
    def connections(self) -> Connections:
        return self.server.connections

    def phases(self) -> list[Phase]:
        """Of those that are open, looked at in the server's loop."""
        found: list[Phase] = []

        def look() -> None:
            for connection in self.connections._open.values():
                connection.update(self.clock())
                found.append(connection.stage.phase)

        self.in_loop(look)
        return sorted(found)

    def in_loop(self, work: Callable[[], object]) -> None:
        """Do `work` there, and wait until it is done."""
        done = threading.Event()
        self.server.run(lambda: (work(), done.set()))
        assert done.wait(AT_LAST_S)

    def at(self, *phases: Phase) -> None:
        """Wait until those that are open are at `phases`."""
        wait_for(lambda: self.phases() == sorted(phases), lambda: f"{self.phases()} and never {phases}")

    def later(self, seconds: float) -> None:
        """What the server does after so long."""
        self.in_loop(lambda: None)  # what has come is read
        self.clock.now_s += seconds
        self.in_loop(self.connections.sweep)


def add_routes(app: FastAPI, leave: threading.Event) -> None:
    @app.get("/large")
    async def large() -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(bytes(LARGE_BYTES))

    @app.get("/wait")
    async def wait() -> str:  # pyright: ignore[reportUnusedFunction]
        while not leave.is_set():
            await asyncio.sleep(0.01)
        return "at last"


@pytest.fixture
def bench() -> Iterator[Bench]:
    clock, leave = Time(), threading.Event()
    connections = Connections(MOST, clock)
    with running(connections, lambda app: add_routes(app, leave)) as server:
        yield Bench(server, clock, leave)
        leave.set()


def ended(client: socket.socket) -> bool:
    """Whether the server ends it, once it has nothing more to say."""
    try:
        while client.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass
    return True


STALLS: dict[str, tuple[bytes, Phase]] = {
    "silent": (b"", Phase.HEAD),
    "half a head": (b"GET / HT", Phase.HEAD),
    "a head without its end": (HEALTH[:-2], Phase.HEAD),
    "idle after an answer": (HEALTH, Phase.HEAD),
    "half a body": (OFFER + b"Content-Length: 99\r\n\r\n{", Phase.BODY),
    "no body": (OFFER + b"Content-Length: 99\r\n\r\n", Phase.BODY),
    "half a picture": (
        b"POST /api/avatars HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: 9999999\r\n\r\n"
        b"--b\r\nContent-Disposition: form-data; name=photo; filename=a\r\n\r\n" + bytes(100_000),
        Phase.BODY,
    ),
    "the rest of a body that was refused": (OFFER + b"Content-Length: 9999999\r\n\r\n{", Phase.ENDING),
    "an answer that is not read": (b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n", Phase.ANSWER),
    "one that it wanted to be the last": (
        b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", Phase.ANSWER
    ),
    "many questions at once": (b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50, Phase.ANSWER),
}  # fmt: skip


@pytest.mark.parametrize(("said", "phase"), STALLS.values(), ids=STALLS)
def test_who_keeps_the_server_waiting_is_ended(bench: Bench, said: bytes, phase: Phase) -> None:
    with bench.server.connect() as client:
        client.sendall(said)
        if said == HEALTH:
            assert answer_of(client).status == 200
        bench.at(phase)
        if phase is Phase.BODY:
            wait_for(lambda: received(bench) == [len(said)])
        bench.later(WAIT_S - 0.01)
        bench.at(phase)
        bench.later(0.02)
        bench.at()
        assert ended(client)


@pytest.mark.parametrize(
    "said", [HEALTH, OFFER + b"Content-Length: 99\r\n\r\n" + b"{" * 99], ids=["head", "body"]
)
def test_a_byte_a_second_is_no_progress(bench: Bench, said: bytes) -> None:
    first = said.find(b"{") + 1
    with bench.server.connect() as client:
        client.sendall(said[:first])
        bench.at(Phase.BODY if first else Phase.HEAD)
        for k in range(int(WAIT_S)):
            client.sendall(said[first + k : first + k + 1])
            bench.later(1.0)
        bench.at()
        assert ended(client)


def test_a_slow_line_is_waited_for(bench: Bench) -> None:
    size = 10 * BODY_STEP_BYTES
    with bench.server.connect() as client:
        client.sendall(OFFER + b"Content-Length: %d\r\n\r\n" % size)
        for k in range(10):
            read = (k + 1) * BODY_STEP_BYTES
            client.sendall(bytes(BODY_STEP_BYTES))
            wait_for(lambda read=read: [n >= read for n in received(bench)] == [True])
            bench.later(WAIT_S - 0.1)
        assert answer_of(client).status == 400


def received(bench: Bench) -> list[int]:
    return [
        c.look.__self__._received_bytes  # type: ignore[union-attr]
        for c in bench.connections._open.values()
        if c.look is not None
    ]


def test_questions_one_after_another_are_progress(bench: Bench) -> None:
    with bench.server.connect() as client:
        for _ in range(5):
            client.sendall(HEALTH)
            assert answer_of(client).status == 200
            bench.later(WAIT_S - 0.1)
        bench.at(Phase.HEAD)


def test_the_servers_own_work_may_take_long(bench: Bench) -> None:
    with bench.server.connect() as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        bench.at(Phase.WORK)
        for _ in range(10):
            bench.later(WAIT_S)
        bench.at(Phase.WORK)
        bench.leave.set()
        assert answer_of(client).status == 200


# --- how many


def test_an_honest_client_gets_through_however_many_are_silent(bench: Bench) -> None:
    silent = [bench.server.connect() for _ in range(4 * MOST)]
    try:
        assert bench.server.say(HEALTH).status == 200
        assert len(bench.connections) <= MOST
        for client in silent[: 3 * MOST]:
            assert ended(client), "the oldest went"
        assert bench.server.say(HEALTH).status == 200
    finally:
        for client in silent:
            client.close()


def test_those_at_work_stay_and_then_the_server_is_full(bench: Bench) -> None:
    working = [bench.server.connect() for _ in range(MOST)]
    try:
        for client in working:
            client.sendall(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        bench.at(*[Phase.WORK] * MOST)
        with bench.server.connect() as client:
            answer = answer_of(client)
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "busy" in answer.sentence
        for name, value in HEADERS.items():
            assert answer.headers[name.lower()] == value
        bench.leave.set()
        for client in working:
            assert answer_of(client).status == 200
        assert bench.server.say(HEALTH).status == 200
    finally:
        for client in working:
            client.close()


def test_who_goes_first_for_a_new_one() -> None:
    clock, gone = Time(), list[int]()
    connections = Connections(len(Phase), clock)
    phases = [Phase.WORK, Phase.BODY, Phase.HEAD, Phase.ANSWER, Phase.ENDING]
    for descriptor, phase in enumerate(phases):
        assert connections.admit(descriptor, lambda descriptor=descriptor: gone.append(descriptor))
        connections.follow(
            descriptor,
            lambda phase=phase: Stage(phase),
            lambda descriptor=descriptor: gone.append(descriptor),
        )
        clock.now_s += 0.1
    for descriptor in range(10, 15):
        assert connections.admit(descriptor, lambda descriptor=descriptor: gone.append(descriptor))
        connections.follow(descriptor, lambda: Stage(Phase.WORK), lambda: gone.append(99))
    assert gone == [2, 4, 3, 1]
    assert not connections.admit(20, lambda: None), "all are at work"
    connections.forget(10)
    assert connections.admit(20, lambda: gone.append(20))
    assert connections.admit(21, lambda: None)
    assert gone[-1] == 20


def test_of_a_burst_the_first_go_first() -> None:
    """An honest client's request comes at once: so the newest stays, before its handshake too."""
    gone: list[int] = []
    connections = Connections(MOST, Time())
    for descriptor in range(MOST):
        assert connections.admit(descriptor, lambda descriptor=descriptor: gone.append(descriptor))
        if descriptor % 2:
            connections.follow(
                descriptor,
                lambda: Stage(Phase.HEAD),
                lambda descriptor=descriptor: gone.append(descriptor),
            )
    for descriptor in range(MOST, 2 * MOST):
        assert connections.admit(descriptor, lambda descriptor=descriptor: gone.append(descriptor))
    assert gone == [*range(MOST)]


def test_of_two_the_longer_silent_one_goes() -> None:
    clock, gone, asked = Time(), list[str](), 0
    connections = Connections(2, clock)
    connections.admit(1, lambda: None)
    connections.follow(1, lambda: Stage(Phase.HEAD, asked), lambda: gone.append("older, but it asks"))
    clock.now_s += 1
    connections.admit(2, lambda: None)
    connections.follow(2, lambda: Stage(Phase.HEAD), lambda: gone.append("younger, and it is silent"))
    clock.now_s += 1
    asked += 1
    assert connections.admit(3, lambda: None)
    assert gone == ["younger, and it is silent"]


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost's own, and its key."""
    return write_certificate(tmp_path_factory.mktemp("tls"))


def test_a_handshake_that_never_ends_is_ended(certificate: tuple[Path, Path]) -> None:
    clock = Time()
    cert, key = certificate
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.load_verify_locations(cert)
    with running(Connections(MOST, clock), tls_cert=cert, tls_key=key) as server:
        bench = Bench(server, clock, threading.Event())
        for said in (b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"):
            with server.connect() as client:
                client.sendall(said)
                bench.at(Phase.HELLO)
                bench.later(WAIT_S + 0.1)
                bench.at()
                assert ended(client)
        with trusting.wrap_socket(server.connect()) as client:
            bench.at(Phase.HEAD)
            bench.later(WAIT_S + 0.1)
            bench.at()
        silent = [server.connect() for _ in range(3 * MOST)]
        with trusting.wrap_socket(server.connect()) as client:
            client.sendall(HEALTH)
            assert answer_of(cast(socket.socket, client)).status == 200
        for one in silent:
            one.close()
        with server.connect() as client:
            client.sendall(HEALTH)  # no TLS
            assert ended(client)
        bench.at()
