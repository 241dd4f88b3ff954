"""Whatever is sent over the data channel: it is obeyed or answered in a sentence, and the call beside it goes on."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import fields
from typing import Any, TypeVar

import pytest
from calls import Client, Painter, only_loopback, plain_enrollment, until
from fakes import AT_LAST_S
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.retarget import Controls
from streamer.clock import SystemClock
from streamer.webrtc import aiortc_fixes
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.messages import MAX_ANSWER_CHARS, Command, Ping, Recalibrate, SetControls, SetSound
from streamer.webrtc.session import Session
from streamer.webrtc.talk import Talk

T = TypeVar("T")

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=8), inside, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from(["t", "trim_ms", "waits_ms", *(f.name for f in fields(Controls))]) | st.text(
    max_size=8
)
KINDS = st.sampled_from(["ping", "controls", "recalibrate", "sound", "notice", "__class__", ""]) | VALUES
SHAPED = st.builds(
    lambda kind, data: json.dumps({**data, "type": kind}), KINDS, st.dictionaries(NAMES, VALUES, max_size=4)
)
MESSAGES = (
    SHAPED
    | VALUES.map(json.dumps)
    | st.text(max_size=200)
    | st.binary(max_size=200)
    | st.builds(lambda text, cut: text[:cut], SHAPED, st.integers(0, 40))
    | st.integers(1, 20_000).map(lambda n: "[" * n)
)


class Page:
    """What is heard at the other end of a `Talk`, without a call."""

    readyState = "open"
    bufferedAmount = 0

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    def send(self, text: str) -> None:
        self.heard.append(json.loads(text, parse_constant=pytest.fail))

    def on(self, *_: object) -> None:
        """Its messages are given directly."""


@given(MESSAGES)
def test_every_message_is_obeyed_or_answered_once(message: str | bytes) -> None:
    page, obeyed = Page(), list[Command]()
    controls = [Controls()]

    def obey(command: Command) -> None:
        assert isinstance(command, SetControls | SetSound | Recalibrate)
        if isinstance(command, SetControls):
            controls[0] = Controls.from_dict(command.given, controls[0])
        obeyed.append(command)

    talk = Talk(SystemClock(), obey, pytest.fail)
    talk.open(page)  # type: ignore[arg-type]
    talk.heard(message)
    assert len(page.heard) + len(obeyed) == 1
    for answer in page.heard:
        assert answer["type"] in ("pong", "notice")
        if answer["type"] == "notice":
            assert 0 < len(answer["text"]) <= MAX_ANSWER_CHARS
            assert "\n" not in answer["text"]
            assert controls == [Controls()]


class Loop:
    """An event loop in a thread of its own, so that hypothesis can go on in this one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="loop of the fuzz")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(AT_LAST_S)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Fuzzed:
    """Two calls: one is sent anything, the other only watches."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.clients: list[Client] = []
        self.wrong: list[Any] = []
        self.count = 0

    async def open(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.wrong.append(context))
        for _ in range(2):
            client = Client()
            session = Session(
                plain_enrollment(),
                CallOptions(drive="demo"),
                make_avatar=Painter,  # type: ignore[arg-type]
            )
            await client.accept(await session.answer(await client.offer()))
            await until(lambda c=client: c.frames and c.of_type("frame"), "a picture and its message")
            self.clients.append(client)
            self.sessions.append(session)

    async def send(self, message: str | bytes) -> None:
        """Send it, and see that both calls go on."""
        attacker, victim = self.clients
        attacker.channel.send(message)
        self.count += 1
        # asked again: the channel does not resend
        pong = {"type": "pong", "t": float(-self.count)}
        for _ in range(50):
            attacker.channel.send(json.dumps({"type": "ping", "t": -self.count}))
            for _ in range(20):
                await asyncio.sleep(0.005)
                if pong in attacker.messages:
                    break
            else:
                continue
            break
        else:
            pytest.fail("no pong any more")
        seen = len(victim.frames)
        await until(lambda: len(victim.frames) > seen, "the call beside to go on")
        assert not any(session.ending for session in self.sessions)

    async def close(self) -> None:
        for client in self.clients:
            await client.close()
        for session in self.sessions:
            await asyncio.wait_for(session.close(), AT_LAST_S)


@pytest.fixture
def fuzzed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[tuple[Loop, Fuzzed]]:
    aiortc_fixes.apply()
    only_loopback(monkeypatch)
    loop, calls = Loop(), Fuzzed()
    with caplog.at_level(logging.WARNING):
        try:
            loop.run(calls.open())
            yield loop, calls
            pts = [frame.pts for frame in calls.clients[1].frames]
            assert pts == sorted(set(pts)), "the call beside lost its order"
            assert calls.clients[1].of_type("notice") == [], "it was told what is none of its business"
        finally:
            loop.run(calls.close())
            loop.close()
    assert calls.wrong == []
    told = [r.getMessage() for r in caplog.records]
    assert not [text for text in told if "Traceback" in text]
    assert not [r for r in caplog.records if r.exc_info]


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MESSAGES)
def test_whatever_is_sent_both_calls_go_on(fuzzed: tuple[Loop, Fuzzed], message: str | bytes) -> None:
    loop, calls = fuzzed
    loop.run(calls.send(message))


def test_a_ping_is_answered_with_its_own_number() -> None:
    page = Page()
    talk = Talk(SystemClock(), lambda _: pytest.fail("none"), pytest.fail)
    talk.open(page)  # type: ignore[arg-type]
    talk.heard(json.dumps({"type": "ping", "t": 3}))
    assert page.heard == [Ping(3).pong()]
