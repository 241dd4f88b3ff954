"""Who may begin a call, and what an offer costs whose browser never comes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from calls import Camera, Client, Painter, Sleepers, only_loopback, plain_enrollment, until
from fakes import AT_LAST_S
from fastapi import HTTPException

from streamer.latency.metrics import Metrics
from streamer.serve.calls import MOST_WAITING, Calls
from streamer.webrtc import aiortc_fixes
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.session import CONNECT_WITHIN_S, Session

pytestmark = pytest.mark.slow  # real calls, in real time


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    aiortc_fixes.apply()
    only_loopback(monkeypatch)


class House:
    """Calls whose waiting is told when it is over, and what was made for them."""

    def __init__(self, limit: int) -> None:
        self.sleepers = Sleepers()
        self.painters: list[Painter] = []
        self.calls = Calls(Metrics(), limit, self._paint, sleep=self.sleepers.sleep)  # type: ignore[arg-type]

    def _paint(self, session: Session) -> Painter:
        self.painters.append(Painter(session))
        return self.painters[-1]

    async def offered(self, sdp: str) -> tuple[Session, str]:
        return await self.calls.begin(plain_enrollment(), CallOptions(drive="demo"), sdp)

    @asynccontextmanager
    async def calling(self, client: Client | None = None) -> AsyncGenerator[tuple[Session, Client]]:
        client = client or Client()
        try:
            session, answer = await self.offered(await client.offer())
            await client.accept(answer)
            yield session, client
        finally:
            await client.close()


@asynccontextmanager
async def housing(limit: int = 4) -> AsyncGenerator[House]:
    house = House(limit)
    try:
        yield house
    finally:
        await house.calls.close_all()


async def dead_offer() -> str:
    """The offer of a browser that is not there any more."""
    client = Client(Camera(), audio=True)
    try:
        return await client.offer()
    finally:
        await client.close()


def avatar_threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name in ("avatar", "drawing")}


async def test_offers_that_never_connect_cost_no_thread_and_take_no_place() -> None:
    """50 of them, an honest call at the beginning, amidst them and after them; then all are given up."""
    before, dead = avatar_threads(), await dead_offer()
    async with housing() as house:
        async with house.calling() as (first, watcher):
            await until(lambda: watcher.frames, "the first honest call's pictures")
            for k in range(50):
                await house.offered(dead)
                assert len(house.calls.sessions) <= MOST_WAITING + 2 + 1, "one may be about to close"
                if k == 25:
                    async with house.calling() as (_, amidst):
                        await until(lambda c=amidst: c.frames, "pictures of a call amidst the dead offers")
                    await until(lambda: len(avatar_threads() - before) <= 2, "the call amidst them to end")
            assert len(house.painters) == 2, "an avatar was made for nobody"
            assert not first.ending
            seen = len(watcher.frames)
            await until(lambda: len(watcher.frames) > seen + 5, "the first call to go on")
        await until(lambda: first.closed, "the first call to end")
        assert len(house.calls.sessions) <= MOST_WAITING
        house.sleepers.let_pass(CONNECT_WITHIN_S)
        await until(lambda: not house.calls.sessions, "the dead offers to be given up")
        async with house.calling() as (_, last):
            await until(lambda: last.frames, "pictures of a call after them")
        await until(lambda: not house.calls.sessions, "the last call to end")
    await until(lambda: avatar_threads() <= before, "the threads to end")


async def test_a_call_that_does_not_connect_in_time_is_given_up() -> None:
    async with housing() as house:
        session, _ = await house.offered(await dead_offer())
        house.sleepers.let_pass(CONNECT_WITHIN_S - 1)
        await asyncio.sleep(0)
        assert not session.ending
        house.sleepers.let_pass(CONNECT_WITHIN_S)
        await until(lambda: session.closed, "the call to be given up")
        assert house.calls.sessions == []
        assert house.painters == []


async def test_only_calls_whose_browser_is_there_count() -> None:
    dead = await dead_offer()
    async with housing(limit=1) as house:
        for _ in range(3):
            await house.offered(dead)
        async with house.calling() as (_, one):
            await until(lambda: one.frames, "pictures")
            with pytest.raises(HTTPException) as caught:
                await house.offered(dead)
            assert caught.value.status_code == 503
            assert int((caught.value.headers or {})["Retry-After"]) > 0
            assert "1 call" in caught.value.detail
            assert len(house.calls.sessions) == 4


async def test_of_two_calls_that_connect_at_once_only_as_many_stay_as_may() -> None:
    """Both were answered while there was room."""
    async with housing(limit=1) as house:
        one, two = Client(), Client()
        try:
            offers = [await one.offer(), await two.offer()]
            answers = [await house.offered(sdp) for sdp in offers]
            await one.accept(answers[0][1])
            await until(lambda: answers[0][0].connected, "the first to connect")
            await two.accept(answers[1][1])
            await until(lambda: two.of_type("notice"), "the second to be told")
            assert "hang one up" in two.of_type("notice")[0]["text"]
            house.sleepers.let_pass(CONNECT_WITHIN_S)
            await until(lambda: answers[1][0].closed, "the second to end")
            await until(lambda: one.frames, "pictures of the first")
            assert len(house.painters) == 1
        finally:
            await one.close()
            await two.close()


async def test_an_offer_that_is_broken_off_leaves_nothing() -> None:
    async with housing() as house:
        task = asyncio.create_task(house.offered(await dead_offer()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=AT_LAST_S)
        await until(lambda: not house.calls.sessions, "its session to close")
