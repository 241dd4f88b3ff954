"""Four hundred silent clients beside a call and an honest visitor, by the clock on the wall."""

from __future__ import annotations

import socket
import time

import pytest
from raw import running
from test_schema import TOKEN, Victim

from streamer.serve.connections import MOST_CONNECTIONS

CROWD = 400
GONE_WITHIN_S = 20.0
HEALTH = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
SAID = (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"\x16\x03\x01")


@pytest.mark.soak
def test_four_hundred_silent_clients_are_gone_in_time() -> None:
    with running(token=TOKEN) as server:
        victim = Victim(server.port)
        try:
            victim.more(30)
            crowd: list[socket.socket] = []
            began_s = time.monotonic()
            for k in range(CROWD):
                client = server.connect()
                client.sendall(SAID[k % len(SAID)])
                client.setblocking(False)
                crowd.append(client)
            opened_s = time.monotonic()
            assert len(server.connections) <= MOST_CONNECTIONS
            slowest_s, frames, asked = 0.0, victim.frames, 0
            while crowd and time.monotonic() < opened_s + GONE_WITHIN_S:
                asked_s = time.monotonic()
                assert server.say(HEALTH).status == 200
                slowest_s, asked = max(slowest_s, time.monotonic() - asked_s), asked + 1
                crowd = [client for client in crowd if not is_ended(client)]
                time.sleep(0.2)
            took_s = time.monotonic() - opened_s
            fps = (victim.frames - frames) / took_s
            print(
                f"\n{CROWD} opened in {opened_s - began_s:.2f} s, gone after {took_s:.1f} s; {asked} honest requests, "
                f"the slowest {1000 * slowest_s:.0f} ms; the call at {fps:.1f} fps"
            )
            assert not crowd
            assert len(server.connections) == 0
            victim.more(5)
        finally:
            victim.close()


def is_ended(client: socket.socket) -> bool:
    """Whether the server has ended it; then it is closed here too."""
    try:
        while client.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    client.close()
    return True
