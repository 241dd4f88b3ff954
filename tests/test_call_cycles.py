"""Calls that come and go: nothing of them stays. By counts in the default run; by the memory of 200 with `-m soak`."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
from calls import Camera, Client, JumpingClock, Painter, Sleepers, only_loopback, plain_enrollment, until

from engines.enrollment import Enrollment
from streamer.avatar import Avatar
from streamer.freed_memory import give_back_freed_memory
from streamer.latency.metrics import Metrics
from streamer.serve.calls import Calls
from streamer.serve.capacity import Capacity
from streamer.webrtc import aiortc_fixes
from streamer.webrtc.build_avatar import build_avatar
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.session import GONE_AFTER_S, LOOK_EVERY_S, Session


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    aiortc_fixes.apply()
    only_loopback(monkeypatch)


class Cycles:
    """Calls one after the other; `alive` are weak references to what each was made of."""

    def __init__(self, enrollment: Enrollment, options: CallOptions, *, real: bool) -> None:
        self.clock, self.sleepers = JumpingClock(), Sleepers()
        self.avatars: list[weakref.ref[Avatar | Painter]] = []
        self.sessions: list[weakref.ref[Session]] = []
        self._enrollment = enrollment
        self._options = options
        self._real = real
        self.calls = Calls(
            Metrics(),
            4,
            Capacity(2),
            self._make,  # type: ignore[arg-type]
            clock=self.clock,
            sleep=self.sleepers.sleep,
        )

    def _make(self, session: Session) -> Avatar | Painter:
        avatar = build_avatar(session) if self._real else Painter(session)
        self.avatars.append(weakref.ref(avatar))
        return avatar

    async def one(self, *, killed: bool = False) -> None:
        """A call that shows some pictures; its browser hangs up, or is gone without a word."""
        client = Client(Camera(), audio=True)
        session, answer = await self.calls.begin(self._enrollment, self._options, await client.offer())
        self.sessions.append(weakref.ref(session))
        await client.accept(answer)
        await until(lambda: len(client.frames) > 3, "pictures")
        if killed:
            client.silence()

            def gone() -> bool:
                if session._peer.quiet_s <= GONE_AFTER_S:  # what was on its way has come since
                    self.clock.jump(GONE_AFTER_S + 1)
                self.sleepers.let_pass(LOOK_EVERY_S)
                return session.closed

            await until(gone, "the call to end by itself")
        await client.close()
        await until(lambda: session.closed, "the call to end")
        assert self.calls.sessions == []
        self.sleepers.let_pass(1000)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Nothing is freed but what nobody holds any more."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def idle_threads() -> set[threading.Thread]:
    """All but those of the loop's own executor, which stay for the next call."""
    return {t for t in threading.enumerate() if not t.name.startswith("asyncio_")}


@pytest.mark.slow
async def test_nothing_of_a_call_stays() -> None:
    before = idle_threads()
    cycles = Cycles(plain_enrollment(), CallOptions(), real=False)
    for k in range(8):
        await cycles.one(killed=k % 4 == 3)
    await until(lambda: idle_threads() <= before, f"threads to end: {idle_threads() - before}")
    assert len(cycles.sessions) == len(cycles.avatars) == 8

    def left() -> int:
        gc.collect()
        return sum(reference() is not None for reference in [*cycles.sessions, *cycles.avatars])

    await until(lambda: left() == 0, "sessions and avatars to be freed")


@pytest.mark.slow
@pytest.mark.usefixtures("no_collector")
async def test_a_real_avatar_is_freed_with_its_call_and_not_when_circles_are_collected(
    astronaut: Enrollment,
) -> None:
    options = CallOptions(generator="geometric", tracker="regressor", size_px=128, voice_helps=False)
    cycles = Cycles(astronaut, options, real=True)
    for _ in range(2):
        await cycles.one()
    await until(lambda: not [r for r in cycles.avatars if r() is not None], "the avatars to be freed")
    assert len(cycles.avatars) == 2


@pytest.mark.slow
async def test_avatars_whose_browsers_left_are_not_made() -> None:
    """Two are being made and hold on; of those that come and go meanwhile none is begun."""
    ready, made = threading.Event(), list[str]()

    def make(session: Session) -> Painter:
        made.append(session.name)
        ready.wait(60)
        return Painter(session)

    before = idle_threads()
    calls = Calls(Metrics(), 10, Capacity(2), make, sleep=Sleepers().sleep)  # type: ignore[arg-type]
    clients: list[Client] = []
    try:
        for k in range(5):
            client = Client()
            clients.append(client)
            session, answer = await calls.begin(
                plain_enrollment(), CallOptions(drive="demo"), await client.offer()
            )
            await client.accept(answer)
            await until(lambda s=session: s.connected, "the call to connect")
            if k < 2:
                await until(lambda n=k + 1: len(made) == n, "an avatar to be begun")
        for client in clients:
            await client.close()
        await until(lambda: not calls.sessions, "the calls to end")
        ready.set()
        await until(lambda: idle_threads() <= before, "their threads to end")
        assert len(made) == 2
    finally:
        ready.set()
        await calls.close_all()


def test_freed_memory_is_given_back_where_it_is_kept() -> None:
    if not give_back_freed_memory():
        pytest.skip("this system's malloc keeps nothing")
    process = psutil.Process()
    kept = [
        np.ones(3000, np.uint8) for _ in range(50_000)
    ]  # 150 MB in pieces that malloc does not map by themselves
    full = process.memory_info().rss
    last = kept[-1]
    del kept
    give_back_freed_memory()
    assert process.memory_info().rss < full - 100e6
    assert last[0] == 1


@pytest.mark.soak
async def test_two_hundred_calls_leave_the_memory_of_one(astronaut: Enrollment) -> None:
    """20 of them are killed. RSS at most 1.3 times that of one call, threads as at the start."""
    process, before = psutil.Process(), idle_threads()
    cycles = Cycles(astronaut, CallOptions(generator="geometric"), real=True)
    await cycles.one()
    one_mb = process.memory_info().rss / 1e6
    highest_mb = 0.0
    for k in range(200):
        await cycles.one(killed=k % 10 == 9)
        if k % 10 == 9:
            now_mb = process.memory_info().rss / 1e6
            highest_mb = max(highest_mb, now_mb)
            print(f"{k + 1} calls: {now_mb:.0f} MB, one: {one_mb:.0f} MB", flush=True)
        await asyncio.sleep(0)
    await until(lambda: idle_threads() <= before, "threads to end")
    assert highest_mb <= 1.3 * one_mb
