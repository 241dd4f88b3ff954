"""What large requests cost a call: how long the event loop is kept by them, in time of its own processor."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest
from fakes import AT_LAST_S
from raw import Running, answer_of, running

from streamer.serve.bodies import FORM, JSON, OFFER_BYTES

MOST_GAP_MS = 200.0
BEAT_S = 0.005
SIZE = 60_000_000


@contextmanager
def heartbeat(server: Running) -> Generator[Callable[[], float]]:
    """The longest time so far, in ms, for which the server's loop did nothing else."""
    longest_ms, stop = [0.0], threading.Event()

    async def beat() -> None:
        while not stop.is_set():
            began_s = time.thread_time()  # what others do on a busy computer does not count
            await asyncio.sleep(BEAT_S)
            longest_ms[0] = max(longest_ms[0], 1000 * (time.thread_time() - began_s))

    tasks: list[asyncio.Task[None]] = []
    server.run(lambda: tasks.append(asyncio.get_running_loop().create_task(beat())))
    yield lambda: longest_ms[0]
    stop.set()


def post(server: Running, head: bytes, body: bytes) -> int:
    with server.connect() as client:
        client.sendall(head)
        client.sendall(body)
        return answer_of(client).status


def json_of(item: bytes) -> bytes:
    return b"[" + item * ((OFFER_BYTES - 3) // len(item)) + b"1]"


BOUNDARY = b"b" * 70
PART = b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
CASES: dict[str, tuple[str, str, bytes, int, int]] = {
    "offers of 60 MB": ("/api/offer", JSON, b" " * SIZE, 6, 413),
    "JSON of dicts": ("/api/offer", JSON, json_of(b"{},"), 20, 400),
    "JSON of numbers": ("/api/offer", JSON, json_of(b"1,"), 20, 400),
    "JSON of one text": ("/api/offer", JSON, b'{"sdp":"' + b"\\u1234" * 43_000 + b'"}', 20, 422),
    "JSON of digits": ("/api/offer", JSON, json_of(b"9" * 4300 + b","), 20, 400),
    "nearly boundaries": (
        "/api/backgrounds", f"{FORM}; boundary={BOUNDARY.decode()}",
        PART + (b"\r\n--" + BOUNDARY + b"x") * (SIZE // 75), 4, 422,
    ),
}  # fmt: skip


@pytest.mark.timing
@pytest.mark.parametrize(("path", "kind", "body", "count", "status"), CASES.values(), ids=CASES)
def test_a_large_request_is_no_gap_in_a_call(
    path: str, kind: str, body: bytes, count: int, status: int
) -> None:
    answers: list[int] = []
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    with running() as server, heartbeat(server) as longest_ms:
        senders = [
            threading.Thread(target=lambda: answers.append(post(server, head.encode(), body)))
            for _ in range(count)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(AT_LAST_S)
        print(f"\n{count} × {len(body)} bytes to {path}: the loop was kept for {longest_ms():.0f} ms at most")
        assert answers == [status] * count
        assert longest_ms() < MOST_GAP_MS
