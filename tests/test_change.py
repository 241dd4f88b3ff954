"""A call that changes while it runs: what is shown, what is refused, what stays, and what it may cost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from calls import (
    GREEN,
    RED,
    Camera,
    Client,
    Painter,
    near,
    only_loopback,
    plain_enrollment,
    until,
)
from fakes import AT_LAST_S
from pydantic import ValidationError

from calibration.kept_neutral import read_kept, text_of
from calibration.neutral import DriverNeutral, NeutralReport
from engines.enrollment import Enrollment
from engines.motion import Motion
from engines.picture.background import Background
from engines.retarget import Controls
from streamer.avatar import Avatar
from streamer.clock import SystemClock
from streamer.drive.driver import Drive, Driver
from streamer.drive.open import open_driver
from streamer.figure import Figure
from streamer.frame import LatencyTrace, Moment
from streamer.look import Look
from streamer.options import AvatarOptions
from streamer.serve.app import create_app
from streamer.serve.capacity import Capacity
from streamer.serve.config import ServeSettings
from streamer.serve.offer import Offer, options_of
from streamer.serve.store import AvatarStore
from streamer.webrtc import aiortc_fixes
from streamer.webrtc.build_avatar import build_avatar
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.neutral_news import NeutralNews
from streamer.webrtc.session import CHANGES_AT_ONCE, CHANGES_PER_S, Session
from streamer.webrtc.wish import Wish
from streamer.webrtc.workshop import Workshop


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    aiortc_fixes.apply()
    only_loopback(monkeypatch)


class StillClock(SystemClock):
    """Time passes when a test says so."""

    ns = 0

    def now_ns(self) -> int:
        return self.ns


class House:
    """A server asked as the page asks it, whose avatars paint."""

    def __init__(self, http: httpx.AsyncClient, app: Any, painters: list[Painter]) -> None:
        self.http = http
        self.calls = app.state.service.calls
        self.store: AvatarStore = app.state.service.store
        self.backgrounds = app.state.service.backgrounds
        self.painters = painters

    @asynccontextmanager
    async def calling(self, client: Client | None = None, **offer: object) -> AsyncGenerator[Call]:
        client = client or Client()
        try:
            body = {"type": "offer", "drive": "demo", "sdp": await client.offer(), **offer}
            answer = await self.http.post("/api/offer", json=body)
            assert answer.status_code == 200, answer.text
            await client.accept(answer.json()["sdp"])
            await until(lambda: client.frames, "the first picture")
            yield Call(self, client, answer.json()["session"])
        finally:
            await client.close()


class Call:
    """One of its calls."""

    def __init__(self, house: House, client: Client, name: str) -> None:
        self._house = house
        self.client = client
        self.name = name
        self.session: Session = house.calls.called(name)
        self.painter = house.painters[-1]

    async def ask(self, **change: object) -> httpx.Response:
        return await self._house.http.patch(f"/api/calls/{self.name}", json=change)

    async def change(self, **change: object) -> int:
        answer = await self.ask(**change)
        assert answer.status_code == 200, answer.text
        return answer.json()["change"]

    async def shows(self, change: int) -> None:
        """Until the page hears that it does."""
        await until(
            lambda: (self.client.of_type("frame") or [{"change": -1}])[-1]["change"] >= change,
            f"change {change}",
        )


@asynccontextmanager
async def serving(**settings: Any) -> AsyncGenerator[House]:
    store = AvatarStore()
    store.add_public(plain_enrollment(RED, "red"))
    store.add_public(replace(plain_enrollment(GREEN, "green"), controls=Controls(head=0.5)))
    painters: list[Painter] = []

    def make_avatar(session: Session) -> Painter:
        painters.append(Painter(session))
        return painters[-1]

    app = create_app(ServeSettings(**settings), store, make_avatar=make_avatar)  # type: ignore[arg-type]
    base = "http://127.0.0.1"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base) as http:
        try:
            yield House(http, app, painters)
        finally:
            await app.state.service.aclose()


@pytest.mark.slow
async def test_everything_a_page_may_change_changes_in_the_running_call() -> None:
    async with serving(max_sessions=1) as house, house.calling(Client(Camera()), drive="webcam") as call:
        connections = len(house.calls.sessions)
        await call.shows(0)
        number = await call.change(background="#0000ff", aspect="16:9", generator="geometric")
        await call.shows(number)
        look = call.painter.figure.options.look
        assert (look.background.colour, look.aspect) == ((0, 0, 255), "16:9")
        assert call.session.options.generator == "geometric"

        answer = await call.ask(avatar="green")
        assert answer.json()["controls"] == Controls(head=0.5).to_dict()
        await call.shows(answer.json()["change"])
        await until(lambda: near(call.client.frames[-1].colour, GREEN), "the other face")
        assert call.painter.controls == Controls(head=0.5)
        look = call.painter.figure.options.look
        assert (look.background.colour, look.aspect) == ((0, 0, 255), "16:9"), "what was not named stays"

        made = len(call.painter.asked_for)
        number = await call.change(voice_helps=False, trim_ms=-40)
        await call.shows(number)
        assert call.session.hearing.sound is None
        await call.shows(await call.change(voice_helps=True))
        assert call.session.hearing.sound is not None
        assert len(call.painter.asked_for) == made, "nothing had to be made for that"

        await call.shows(await call.change(background=None, aspect=None, generator=None))
        look = call.painter.figure.options.look
        assert (look.background.mode, look.aspect) == ("keep", "1:1"), "as the server was started"
        assert len(house.painters) == connections == len(house.calls.sessions) == 1
        assert call.painter.recalibrated == 0


@pytest.mark.slow
async def test_the_newest_of_several_changes_wins_and_the_old_picture_goes_on_meanwhile() -> None:
    async with serving(max_sessions=1) as house, house.calling() as call:
        call.painter.making.clear()
        await call.change(background="#ff0000")
        await until(lambda: call.painter.asked_for, "the first to be in work")
        await call.change(background="#00ff00")
        await call.change(aspect="16:9")
        last = await call.change(background="#0000ff")
        drawn = call.session.work.drawn
        await until(lambda: call.session.work.drawn > drawn + 5, "pictures while it is made")
        assert call.painter.figure.options.look.background.mode == "keep"
        call.painter.making.set()
        await call.shows(last)
        look = call.painter.figure.options.look
        assert (look.background.colour, look.aspect) == ((0, 0, 255), "16:9")
        assert len(call.painter.asked_for) == 2, "those in between were never made"


@pytest.mark.slow
async def test_controls_are_for_the_face_that_was_asked_for_last() -> None:
    async with serving(max_sessions=1) as house, house.calling() as call:
        await call.shows(0)
        call.painter.making.clear()
        number = await call.change(avatar="green")
        call.client.channel.send('{"type":"controls","lips":0.2}')
        call.client.channel.send('{"type":"ping","t":1}')
        await until(lambda: call.client.of_type("pong"), "both to be heard")
        assert call.painter.controls == Controls(), "the face before goes on as it was"
        call.painter.making.set()
        await call.shows(number)
        assert call.painter.controls == Controls(head=0.5, lips=0.2)


@pytest.mark.slow
async def test_a_face_that_nobody_wants_any_more_is_not_shown() -> None:
    async with serving(max_sessions=1) as house, house.calling() as call:
        call.painter.making.clear()
        await call.change(avatar="green")
        await until(lambda: call.painter.asked_for, "the other face to be in work")
        last = await call.change(avatar="red")
        call.painter.making.set()
        await call.shows(last)
        assert call.session.enrollment.name == "red"
        assert not any(near(f.colour, GREEN) for f in call.client.frames)


@pytest.mark.slow
async def test_a_face_that_is_deleted_while_it_is_made_is_not_shown() -> None:
    async with serving(max_sessions=1) as house, house.calling() as call:
        name = house.store.add_upload(plain_enrollment(GREEN), "green")
        call.painter.making.clear()
        await call.change(avatar=name)
        await until(lambda: call.painter.asked_for, "the other face to be in work")
        assert (await house.http.delete(f"/api/avatars/{name}")).status_code == 204
        call.painter.making.set()
        assert call.session.ending
        assert not any(near(f.colour, GREEN) for f in call.client.frames)


@pytest.mark.slow
async def test_a_change_that_cannot_be_made_leaves_the_call_as_it_is_and_says_why() -> None:
    async with serving(max_sessions=1) as house, house.calling() as call:
        await call.shows(await call.change(background="#112233"))
        call.painter.unmakeable = RuntimeError("no model\nno avatar")
        number = await call.change(avatar="green", background="#445566")
        await until(lambda: call.client.of_type("unchanged"), "word of it")
        told = call.client.of_type("unchanged")[0]
        assert (told["change"], told["kept"]) == (number, 1)
        assert "no model no avatar" in told["text"]
        assert call.session.asked.enrollment.name == call.session.enrollment.name == "red"
        assert call.session.ledger.snapshot().fault_stages == {"changed": 1}
        await until(
            lambda: len(call.client.of_type("unchanged")) > 1, "it to be said again: messages get lost"
        )
        call.painter.unmakeable = None
        last = await call.change(aspect="16:9")
        assert last > number
        await call.shows(last)
        look = call.painter.figure.options.look
        assert (look.background.colour, look.aspect) == ((0x11, 0x22, 0x33), "16:9")
        assert near(call.client.frames[-1].colour, RED)


@pytest.mark.slow
async def test_what_cannot_be_changed_is_refused_with_words_and_costs_nothing() -> None:
    async with serving(max_sessions=1) as house, house.calling() as call:
        for body, status, says in (
            ({"avatar": "nobody"}, 404, "choose another"),
            ({"background": "b-gone"}, 410, "choose it again"),
            ({"background": "/etc/passwd"}, 400, "no background"),
            ({"background": "transparent"}, 400, "cannot be transparent"),
            ({"generator": "magic"}, 400, "geometric"),
            ({"aspect": "4:3"}, 422, "aspect"),
            ({"trim_ms": 301}, 422, "trim_ms"),
            ({"tracker": "regressor"}, 422, "tracker"),
            ({"voice_helps": None}, 422, "voice_helps"),
        ):
            answer = await call.ask(**body)
            assert answer.status_code == status, (body, answer.text)
            assert says in answer.json()["error"]
            assert answer.json().get("what") == ("avatar" if status == 404 else None)
        assert call.painter.asked_for == []
        assert call.session.asked.number == 0
        gone = await house.http.patch("/api/calls/nobody", json={"background": "blur"})
        assert (gone.status_code, gone.json()["what"]) == (404, "call")
        call.session.end("on purpose")
        gone = await call.ask(background="blur")
        assert (gone.status_code, gone.json()["what"]) == (404, "call")


@pytest.mark.slow
async def test_who_changes_without_end_is_told_to_wait_and_others_go_on() -> None:
    async with (
        serving(max_sessions=2) as house,
        house.calling() as quiet,
        house.calling() as call,
    ):
        call.session.clock = StillClock()
        call.painter.making.clear()
        answers = [await call.ask(background=f"#{k:06x}") for k in range(100)]
        accepted = [a for a in answers if a.status_code == 200]
        refused = [a for a in answers if a.status_code == 429]
        assert len(accepted) + len(refused) == 100
        assert len(accepted) == CHANGES_AT_ONCE
        assert all(int(a.headers["retry-after"]) > 0 for a in refused)
        assert (await quiet.ask(trim_ms=5)).status_code == 200, "the other call has patience of its own"
        seen = len(quiet.client.frames)
        await until(lambda: len(quiet.client.frames) > seen + 5, "the other call to go on")
        call.painter.making.set()
        await call.shows(accepted[-1].json()["change"])
        assert len(call.painter.asked_for) <= 2, "of all of these the first and the last were made"
        assert call.painter.figure.options.look.background.colour == (0, 0, CHANGES_AT_ONCE - 1)


@pytest.mark.slow
async def test_a_dearer_generator_needs_room() -> None:
    async with serving() as house:
        house.calls.capacity = Capacity(3)
        async with house.calling(None, generator="geometric") as call:
            await call.shows(await call.change(generator="visavis"))
            async with house.calling(None, generator="geometric"):
                assert (await call.ask(background="blur")).status_code == 200, "no dearer than before"
                assert (await call.ask(generator="geometric")).status_code == 200, (
                    "what costs less always may"
                )
                house.calls.capacity = Capacity(1.5)
                answer = await call.ask(generator="visavis")
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) > 0
                for says in ("1 other call", "visavis", "processor cores", "stay with geometric"):
                    assert says in answer.json()["error"]
                assert call.session.asked.options.generator == "geometric"
            await until(lambda: len(house.calls.sessions) == 1, "the other call to end")
            assert (await call.ask(generator="visavis")).status_code == 200, "a call alone always may"


@pytest.mark.slow
async def test_a_change_from_before_the_avatar_is_made_is_not_lost() -> None:
    ready = threading.Event()
    painters: list[Painter] = []

    def make_avatar(session: Session) -> Painter:
        painter = Painter(session)
        ready.wait(AT_LAST_S)
        painters.append(painter)
        return painter

    client, red, green = Client(), plain_enrollment(RED), plain_enrollment(GREEN)
    session = Session(red, CallOptions(drive="demo"), make_avatar=make_avatar)  # type: ignore[arg-type]
    try:
        await client.accept(await session.answer(await client.offer()))
        await until(lambda: session.connected, "the connection")
        session.change(green, session.asked.options)
        ready.set()
        await until(
            lambda: client.frames and near(client.frames[-1].colour, GREEN), "the face asked for last"
        )
        assert session.enrollment is green
    finally:
        ready.set()
        await client.close()
        await asyncio.wait_for(session.close(), AT_LAST_S)


@pytest.mark.slow
async def test_a_call_that_ends_while_a_change_is_made_leaves_nothing() -> None:
    before = set(threading.enumerate())
    async with serving(max_sessions=1) as house:
        async with house.calling() as call:
            call.painter.making.clear()
            await call.change(background="blur")
            await until(lambda: call.painter.asked_for, "the change to be in work")
        await until(lambda: not house.calls.sessions, "the call to end")
        call.painter.making.set()
        await until(
            lambda: not [t for t in set(threading.enumerate()) - before if t.name in ("change", "avatar")],
            "its threads to end",
        )


# --- the avatar itself, without a call ------------------------------------------------------------------


SMALL = AvatarOptions(generator="geometric", size_px=96)


def drawn(avatar: Avatar, enrollment: Enrollment) -> np.ndarray:
    moment = Moment(0.0, 0, LatencyTrace({"captured": 0}))
    shown = avatar.show_drive(Drive(enrollment.motion, enrollment.motion, "tracking", True), moment)
    assert shown.drive.state == "tracking"
    return shown.frame.image


def test_an_avatar_becomes_another_between_two_pictures_as_if_it_had_been_it_from_the_start(
    astronaut: Enrollment,
) -> None:
    wide = replace(SMALL, look=Look(Background("colour", colour=(0, 200, 0)), "16:9"))
    driver = open_driver(None)
    avatar = Avatar(astronaut, driver, SMALL)
    square = drawn(avatar, astronaut)
    figure = avatar.figure_of(astronaut, wide)
    assert np.array_equal(drawn(avatar, astronaut), square), "made, and not shown yet"
    begun: list[tuple[int, int]] = []
    avatar.become(figure, lambda: begun.append(avatar.size_px))
    assert avatar.size_px == (96, 96)
    assert drawn(avatar, astronaut).shape == (96, 170, 3)
    assert begun == [(170, 96)], "told once, by the thread that draws"
    assert np.array_equal(
        drawn(avatar, astronaut), drawn(Avatar(astronaut, open_driver(None), wide), astronaut)
    )
    assert avatar.driver is driver
    avatar.close()


def test_after_a_change_a_fault_eases_into_the_new_picture(
    astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch
) -> None:
    avatar = Avatar(astronaut, open_driver(None), SMALL)
    drawn(avatar, astronaut)
    figure = avatar.figure_of(astronaut, replace(SMALL, look=Look(aspect="16:9")))
    avatar.become(figure)
    monkeypatch.setattr(figure.renderer, "render", lambda *_: 1 // 0)
    for time_s in (0.0, 0.5, 2.0):
        drive = Drive(astronaut.motion, astronaut.motion, "tracking", True)
        shown = avatar.show_drive(drive, Moment(time_s, 0, LatencyTrace({"captured": 0})))
        assert shown.drive.state == "fault"
        assert shown.frame.image.shape == (96, 170, 3), "at its size from the first picture on"
    avatar.close()


def test_a_change_of_background_opens_no_generator_anew(
    astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its networks would be compiled again, and slow until they are."""
    from engines.generators import kept

    opened: list[str] = []
    real = kept.open_generator_or_fallback
    monkeypatch.setattr(kept, "open_generator_or_fallback", lambda n, m: (opened.append(n), real(n, m))[1])
    avatar = Avatar(astronaut, open_driver(None), SMALL)
    for background in (Background("blur"), Background("colour", colour=(1, 2, 3))):
        avatar.become(avatar.figure_of(astronaut, replace(SMALL, look=Look(background))))
        drawn(avatar, astronaut)
    assert opened == ["geometric"]
    avatar.close()


def test_what_a_fault_eases_into_is_the_rest_however_it_was_made(astronaut: Enrollment) -> None:
    avatar = Avatar(astronaut, open_driver(None), replace(SMALL, size_px=128))
    first, again = (avatar.figure_of(astronaut, replace(SMALL, size_px=128)) for _ in range(2))
    assert isinstance(first, Figure)
    rendered = again.renderer.render(astronaut.motion).astype(int)
    assert np.abs(again.rest_picture.astype(int) - rendered).mean() < 3
    avatar.close()


def test_wishes_look_alike_unless_something_must_be_made_anew() -> None:
    person, options = plain_enrollment(), CallOptions()
    wish = Wish(person, options)
    assert wish.looks_like(Wish(person, options.but(voice_helps=False, trim_ms=9.0), 3))
    assert wish.looks_like(Wish(person, options.but(look=Look(Background("keep")))))
    picture = Background("picture", picture=np.zeros((64, 64, 3), np.uint8))
    for other in (
        Wish(plain_enrollment(), options),
        Wish(person, options.but(generator="geometric")),
        Wish(person, options.but(look=Look(aspect="16:9"))),
        Wish(person, options.but(look=Look(Background("blur")))),
        Wish(person, options.but(look=Look(picture))),
    ):
        assert not wish.looks_like(other)
        assert other.looks_like(other)


# --- the workshop ---------------------------------------------------------------------------------------


async def test_one_thing_is_made_at_a_time_and_what_nobody_waits_for_is_not_begun() -> None:
    shop, gate, begun = Workshop(), threading.Event(), threading.Event()
    order: list[str] = []

    def hold() -> str:
        begun.set()
        gate.wait(AT_LAST_S)
        order.append("first")
        return "first"

    assert shop.done == 0
    first = asyncio.create_task(shop.make(hold))
    await until(begun.is_set, "the first to begin")
    second = asyncio.create_task(shop.make(lambda: order.append("second")))
    third = asyncio.create_task(shop.make(lambda: order.append("third")))
    await asyncio.sleep(0)
    assert shop.done is None
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    gate.set()
    assert (await first)[0] == "first"
    await third
    await until(lambda: shop.done == 3, "all to be done")
    assert order == ["first", "third"]


async def test_what_goes_wrong_in_the_workshop_reaches_who_asked() -> None:
    shop = Workshop()
    with pytest.raises(ZeroDivisionError):
        await shop.make(lambda: 1 // 0)
    assert (await shop.make(lambda: 7))[0] == 7


async def test_a_call_has_patience_again_after_a_while() -> None:
    clock = StillClock()
    session = Session(plain_enrollment(), CallOptions(drive="demo"), clock=clock)
    assert sum(session.may_change() for _ in range(200)) == CHANGES_AT_ONCE
    clock.ns += 1_000_000_000
    assert sum(session.may_change() for _ in range(200)) == CHANGES_PER_S
    await session.close()


# --- the driver's neutral, from one call to the next ------------------------------------------------------


@pytest.fixture(scope="module")
def kept(astronaut: Enrollment) -> str:
    """A neutral as a page keeps it."""
    mesh_hu = np.zeros((478, 3))
    mesh_hu[:, 0], mesh_hu[:, 1], mesh_hu[:, 2] = (np.linspace(-0.7, 0.7, 478) for _ in range(3))
    return text_of(
        DriverNeutral(mesh_hu, Motion(translation_hu=np.array([0, 0, 6], np.float32))), "mediapipe"
    )


def offered(**more: Any) -> Offer:
    return Offer.model_validate({"sdp": "v=0", "type": "offer", **more})


def test_a_call_begins_with_the_neutral_that_the_page_kept(kept: str) -> None:
    service = create_app(ServeSettings(), AvatarStore()).state.service
    neutral = options_of(offered(neutral=kept), service).neutral
    assert neutral is not None
    assert neutral.motion.translation_hu[2] == 6
    for other in (
        {"tracker": "regressor"},
        {"drive": "voice"},
        {"drive": "demo"},
        {"neutral": kept[:-8]},
        {"neutral": ""},
        {"neutral": "é"},
    ):
        assert options_of(offered(**{"neutral": kept, **other}), service).neutral is None, other
    with pytest.raises(ValidationError):
        offered(neutral="A" * 4097)


def test_the_avatar_of_a_call_uses_the_neutral_that_came_with_the_offer(
    astronaut: Enrollment, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[DriverNeutral] = []
    monkeypatch.setattr(Driver, "use_neutral", lambda _, neutral: used.append(neutral))
    neutral = read_kept(kept).neutral
    options = CallOptions(generator="geometric", size_px=64, drive="demo", neutral=neutral)
    hearing, ledger = SimpleNamespace(said=lambda _: None), SimpleNamespace(fault=print)
    call = SimpleNamespace(
        enrollment=astronaut, options=options, clock=SystemClock(), hearing=hearing, ledger=ledger
    )
    build_avatar(call).close()  # type: ignore[arg-type]
    assert used == [neutral]


def test_the_page_is_told_of_the_neutral_when_it_is_another(kept: str) -> None:
    driver = SimpleNamespace(neutral_report=NeutralReport(), driver_neutral=read_kept(kept).neutral)
    news = NeutralNews("mediapipe")

    def told() -> Any:
        return news.of(driver)  # type: ignore[arg-type]

    assert told() == {"type": "neutral", "state": "waiting", "why": [], "revision": 0, "kept": None}
    assert told() is None
    driver.neutral_report = NeutralReport("waiting", ("talking",), 0)
    assert told()["why"] == ["talking"]
    driver.neutral_report = NeutralReport("taken", (), 1)
    assert told()["kept"] == kept
    assert told() is None
    driver.neutral_report, driver.driver_neutral = NeutralReport("taken", (), 2), None
    assert (told() or {})["kept"] is None


@pytest.mark.slow
async def test_news_of_the_neutral_is_said_more_than_once_and_survives_changes() -> None:
    async with serving(max_sessions=1) as house, house.calling(Client(Camera()), drive="webcam") as call:
        await until(lambda: len(call.client.of_type("neutral")) > 1, "the neutral, twice: messages get lost")
        assert {m["revision"] for m in call.client.of_type("neutral")} == {1}
        await call.shows(await call.change(avatar="green", background="blur"))
        call.painter.driver.neutral_report = NeutralReport("taken", (), 2)
        await until(lambda: call.client.of_type("neutral")[-1]["revision"] == 2, "the next one")
