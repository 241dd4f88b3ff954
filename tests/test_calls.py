"""Who may begin a call, and what an offer costs whose browser never comes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import httpx
import pytest
from calls import Camera, Client, Painter, Sleepers, only_loopback, plain_enrollment, until
from fakes import AT_LAST_S
from fastapi import HTTPException

from streamer.clock import SystemClock
from streamer.latency.metrics import Metrics
from streamer.serve.app import create_app
from streamer.serve.calls import MOST_WAITING, SAMPLE_EVERY_S, Calls
from streamer.serve.capacity import CallKind, Capacity, Reading
from streamer.serve.config import ServeSettings
from streamer.serve.store import AvatarStore
from streamer.webrtc import aiortc_fixes
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.session import (
    CONNECT_WITHIN_S,
    HEARD_WITHIN_S,
    LOOK_EVERY_S,
    QUIET_AFTER_S,
    RETRY_AFTER_S,
    Session,
)

pytestmark = pytest.mark.slow  # real calls, in real time


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    aiortc_fixes.apply()
    only_loopback(monkeypatch)


class House:
    """Calls whose waiting is told when it is over, and what was made for them."""

    def __init__(self, limit: int | None, capacity: Capacity | None = None) -> None:
        self.sleepers = Sleepers()
        self.painters: list[Painter] = []
        self.clock = SystemClock()
        self.calls = Calls(
            Metrics(),
            limit,
            capacity or Capacity(2),
            self._paint,  # type: ignore[arg-type]
            clock=self.clock,
            sleep=self.sleepers.sleep,
        )

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
async def housing(limit: int | None = 4, capacity: Capacity | None = None) -> AsyncGenerator[House]:
    house = House(limit, capacity)
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


async def test_a_call_of_which_nothing_is_heard_is_given_up() -> None:
    async with housing() as house:
        session, _ = await house.offered(await dead_offer())
        house.sleepers.let_pass(HEARD_WITHIN_S - 1)
        await asyncio.sleep(0)
        assert not session.ending
        house.sleepers.let_pass(HEARD_WITHIN_S)
        await until(lambda: session.closed, "the call to be given up")
        assert house.calls.sessions == []
        assert house.painters == []


async def test_a_call_that_is_heard_and_does_not_connect_is_given_up_later() -> None:
    async with housing() as house:
        session, _ = await house.offered(await dead_offer())
        session._peer._bounds.heard_ns = house.clock.now_ns()
        house.sleepers.let_pass(HEARD_WITHIN_S)
        await until(lambda: house.sleepers.count, "the rest of its time")
        assert not session.ending
        house.sleepers.let_pass(CONNECT_WITHIN_S - HEARD_WITHIN_S)
        await until(lambda: session.closed, "the call to be given up")


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
            await until(lambda: two.of_type("full"), "the second to be told")
            assert "hang one up" in two.of_type("full")[0]["text"]
            assert two.of_type("full")[0]["retry_after_s"] > 0
            house.sleepers.let_pass(CONNECT_WITHIN_S)
            await until(lambda: answers[1][0].closed, "the second to end")
            await until(lambda: one.frames, "pictures of the first")
            assert len(house.painters) == 1
        finally:
            await one.close()
            await two.close()


async def test_a_browser_that_went_silent_gives_its_place_to_one_that_comes() -> None:
    """It may be the same: who lost the connection asks again within seconds."""
    async with (
        housing(limit=1) as house,
        house.calling() as (silent, before),
    ):
        await until(lambda: before.frames, "pictures")
        with pytest.raises(HTTPException):
            await house.offered(await dead_offer())
        assert silent._worker is not None
        silent._worker.rest(True)
        async with house.calling() as (_, again):
            await until(lambda: again.frames, "pictures of the one that came")
            await until(lambda: silent.closed, "the silent one to end")


async def test_who_is_refused_hears_when_a_silent_call_would_be_known_to_be_dead() -> None:
    async with housing(limit=1) as house, house.calling() as (silent, before):
        await until(lambda: before.frames, "pictures")

        before.silence()
        dead, told = await dead_offer(), {0}

        async def tells(retry_after_s: int) -> bool:
            silent._peer._bounds.heard_ns = house.clock.now_ns() - 2_500_000_000
            with pytest.raises(HTTPException) as caught:
                await house.offered(dead)
            told.add(int((caught.value.headers or {})["Retry-After"]))
            return retry_after_s in told

        for _ in range(100):  # what was on its way may still come
            if await tells(RETRY_AFTER_S - 2):
                break
        assert RETRY_AFTER_S - 2 in told
        assert RETRY_AFTER_S >= QUIET_AFTER_S + LOOK_EVERY_S


async def test_a_call_that_is_about_to_end_takes_no_place() -> None:
    """A page that starts anew hangs up first, and asks before the server is done with that."""
    async with (
        housing(limit=1) as house,
        house.calling() as (first, before),
    ):
        await until(lambda: before.frames, "pictures")
        house.painters[0].gate.clear()  # its worker takes its time
        try:
            first.end("its page starts anew")
            assert not first.closed
            async with house.calling() as (_, again):
                await until(lambda: again.frames, "pictures of the next one")
        finally:
            house.painters[0].gate.set()


async def test_an_offer_that_is_broken_off_leaves_nothing() -> None:
    async with housing() as house:
        task = asyncio.create_task(house.offered(await dead_offer()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=AT_LAST_S)
        await until(lambda: not house.calls.sessions, "its session to close")


async def test_calls_are_counted_by_what_they_cost() -> None:
    capacity = Capacity(2)
    async with housing(None, capacity) as house:
        kind = CallKind.of(CallOptions(drive="demo"))
        assert capacity.cores_of(kind) < 2 < 2 * capacity.cores_of(kind), "one by one's guess, not two"
        async with house.calling() as (_, watcher):
            await until(lambda: watcher.frames, "pictures")
            with pytest.raises(HTTPException) as caught:
                await house.offered(await dead_offer())
            assert caught.value.status_code == 503
            for says in ("1 call up", "processor cores", "hang one up", "geometric", "VISAVIS_MAX_SESSIONS"):
                assert says in caught.value.detail
            assert int((caught.value.headers or {})["Retry-After"]) > 0
            # a call of the kind turns out to take a fifth of a core
            later_s = house.clock.now_ns() / 1e9 + 1000
            for k in range(20):
                reading = Reading(kind, 1 + 60 * k, 1 + 60 * k, 1.0 + k, None, 0)
                capacity.sample(later_s + 2 * k, 0.4 * k, {"one like it": reading})
            async with house.calling() as (_, second):
                await until(lambda: second.frames, "pictures of a second call")


async def test_calls_that_are_up_are_measured_and_measuring_ends_with_them() -> None:
    seen: list[Reading] = []

    class Watching(Capacity):
        def sample(
            self, now_s: float, cpu_s: float, readings: Mapping[str, Reading], *, is_alone: bool = True
        ) -> None:
            assert is_alone or not seen, "nothing else is done in this process"
            seen.extend(readings.values())

    async with housing(None, Watching(2)) as house:
        async with house.calling() as (session, watcher):

            def measured() -> bool:
                house.sleepers.let_pass(SAMPLE_EVERY_S)
                return len(seen) > 3 and seen[-1].drawn > seen[0].drawn

            await until(measured, "the call to be measured")
            assert seen[-1].kind == CallKind.of(session.options)
            assert seen[-1].busy_ms > 0
            assert watcher.frames
        await until(lambda: not house.calls.sessions, "the call to end")
        house.sleepers.let_pass(SAMPLE_EVERY_S)
        await until(lambda: house.calls._sampling is None, "the measuring to end")


async def test_a_number_wins_over_what_calls_cost() -> None:
    async with (
        housing(2, Capacity(0.1)) as house,
        house.calling() as (_, one),
        house.calling() as (_, two),
    ):
        await until(lambda: one.frames and two.frames, "pictures of both")
        with pytest.raises(HTTPException):
            await house.offered(await dead_offer())


async def test_a_page_is_told_why_it_has_to_wait() -> None:
    """Through the server, as the page asks."""
    store = AvatarStore()
    store.add_public(plain_enrollment())
    app = create_app(ServeSettings(), store, make_avatar=Painter)  # type: ignore[arg-type]
    app.state.service.calls.capacity = Capacity(0.5)
    one, offer = Client(), {"type": "offer", "drive": "demo"}
    base = "http://127.0.0.1"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base) as http:
        try:
            answer = await http.post("/api/offer", json={"sdp": await one.offer(), **offer})
            assert answer.status_code == 200, "the first call always may"
            await one.accept(answer.json()["sdp"])
            await until(lambda: one.frames, "pictures")
            answer = await http.post("/api/offer", json={"sdp": await dead_offer(), **offer})
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert "hang one up" in answer.json()["error"]
        finally:
            await one.close()
            await app.state.service.aclose()
