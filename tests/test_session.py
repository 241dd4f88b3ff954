"""Whole calls over loopback with a painting avatar: what goes in comes out, whatever breaks in between."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
from calls import (
    BLUE,
    GREEN,
    RED,
    Camera,
    Client,
    JumpingClock,
    Painter,
    Received,
    Sleepers,
    always_in_time,
    near,
    only_loopback,
    plain_enrollment,
    until,
)
from fakes import AT_LAST_S

from engines.enrollment import Enrollment
from engines.retarget import Controls
from streamer.clock import Clock
from streamer.webrtc import aiortc_fixes
from streamer.webrtc.call_options import CallOptions, DrivenBy
from streamer.webrtc.lip_sync import LipSync
from streamer.webrtc.offer_sdp import OfferError
from streamer.webrtc.session import GONE_AFTER_S, LOOK_EVERY_S, MESH_PERIOD_S, QUIET_AFTER_S, Session
from streamer.webrtc.work import Tally

pytestmark = pytest.mark.slow  # real calls, in real time


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    aiortc_fixes.apply()
    only_loopback(monkeypatch)


class Call:
    """Both ends of a call."""

    def __init__(self, session: Session, client: Client, painters: list[Painter]) -> None:
        self.session = session
        self.client = client
        self._painters = painters

    @property
    def painter(self) -> Painter:
        return self._painters[0]


@asynccontextmanager
async def calling(
    client: Client,
    options: CallOptions | None = None,
    colour: tuple[int, int, int] = RED,
    *,
    enrollment: Enrollment | None = None,
    clock: Clock | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[Call]:
    painters: list[Painter] = []

    def make_avatar(session: Session) -> Painter:
        painters.append(Painter(session, landmarks=True))
        return painters[0]

    enrollment = enrollment or plain_enrollment(colour)
    session = Session(
        enrollment,
        options or CallOptions(),
        clock=clock,
        sleep=sleep,
        make_avatar=make_avatar,  # type: ignore[arg-type]
    )
    try:
        await client.accept(await session.answer(await client.offer()))
        await until(lambda: client.frames, "the first picture")
        yield Call(session, client, painters)
    finally:
        await client.close()
        await asyncio.wait_for(session.close(), AT_LAST_S)


async def test_the_avatar_follows_the_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    always_in_time(monkeypatch)
    camera = Camera()
    async with calling(Client(camera, audio=True)) as call:
        client = call.client
        await until(lambda: len({f.number for f in client.frames[15:]}) > 30, "30 different pictures")
        await until(lambda: client.audio_frames > 20, "sound")
        await until(lambda: len(client.of_type("frame")) > 40, "what is told of them")
        settled = client.frames[15:]
        assert all(near(f.colour, RED) for f in settled), "only the avatar is seen, never the camera"
        numbers = [f.number for f in settled]
        assert numbers == sorted(numbers)
        # each message tells of one picture: matched by one constant, and its time is the camera's own
        messages = client.of_type("frame")
        told = {m["pts"] for m in messages}
        new = [b for a, b in itertools.pairwise(settled) if b.number != a.number]
        offset, _ = Counter(p - f.pts for p in told for f in new).most_common(1)[0]
        assert sum(f.pts + offset in told for f in new) >= 20
        # a picture of a camera's frame has its time, exactly; only one that comes after a repetition may not
        origins = Counter(f.pts - f.number * Camera.TICKS for f in new)
        assert origins.most_common(1)[0][1] > len(new) / 2
        fresh = [m for m in messages if m["state"] == "tracking"]
        assert {"decoded", "tracked", "waited", "generated"} <= set(fresh[-1]["stage_ms"])
        assert fresh[-1]["face"] is True
        assert all(ms >= 0 for m in fresh for ms in m["stage_ms"].values())
        assert fresh[-1]["dropped"] >= 0


@pytest.mark.timing
async def test_lag_and_rate_of_a_call() -> None:
    """A painted answer comes within 150 ms, most pictures are new, and a demo runs at its own rate."""
    camera = Camera()
    async with calling(Client(camera)) as call:
        await until(lambda: len(call.client.frames) >= 75, "75 pictures")
        settled = call.client.frames[15:]
        lag_ms = np.array([1e3 * (f.at_s - camera.sent_s[f.number]) for f in settled])
        new = len({f.number for f in settled}) / len(settled)
    async with calling(Client(), CallOptions(drive="demo")) as call:
        await until(lambda: len(call.client.frames) >= 75, "75 pictures of the demo")
        begin, end = call.client.frames[10], call.client.frames[-1]
        took_s = end.at_s - begin.at_s
        fps = (len(call.client.frames) - 11) / took_s
        media_s = (end.pts - begin.pts) / 90_000
    print(f"\nlag p50 {np.median(lag_ms):.0f} ms, {100 * new:.0f} % new, demo {fps:.1f} fps")
    assert np.median(lag_ms) < 150
    assert new > 0.7
    assert 20 < fps < 40
    assert media_s == pytest.approx(took_s, abs=0.15), "media time is real time"


async def test_capture_times_are_the_senders_clock() -> None:
    camera, begin_ms = Camera(), time.time() * 1000
    async with calling(Client(camera)) as call:
        client = call.client

        def stamped() -> list[float]:
            return [m["capture_ms"] for m in client.of_type("frame") if m["capture_ms"] is not None]

        await until(lambda: len(stamped()) > 10, "frames after the first sender report")
        # a report is as late as the computer is busy: what counts is whose clock it is
        assert all(begin_ms - 10_000 < c < time.time() * 1000 + 10_000 for c in stamped())
        steps = [b - a for a, b in itertools.pairwise(stamped())]
        assert sum(s >= 0 for s in steps) > len(steps) / 2, (
            "they rise, but for corrections by the next report"
        )


async def test_the_mesh_is_told_at_most_ten_times_a_second() -> None:
    begin_s = time.monotonic()
    async with calling(Client(Camera())) as call:
        await until(lambda: len(call.client.of_type("mesh")) > 5, "meshes")
        mesh = call.client.of_type("mesh")
        assert len(mesh) <= 1 + (time.monotonic() - begin_s) / MESH_PERIOD_S
        assert len(mesh[0]["points"]) == 2 * 478
        assert mesh[0]["points"][:2] == [4095, 2048]


# message → what its answer names
NONSENSE: dict[str | bytes, str] = {
    "": "not JSON", "{": "not JSON", "[]": "no JSON object", "7": "no JSON object", "null": "no JSON object",
    '"x"': "no JSON object", "\x00" * 100: "not JSON", "[" * 4000: "not JSON",
    '{"no":"type"}': "controls, recalibrate, sound, ping", '{"type":[]}': "controls, recalibrate, sound, ping",
    '{"type":{}}': "controls, recalibrate, sound, ping",
    '{"type":"' + "x" * 4000 + '"}': "controls, recalibrate, sound, ping",
    '{"type":"controls","expression":"NaN"}': "expression", '{"type":"controls","head":1e999}': "head",
    '{"type":"controls","expression":null}': "expression", '{"type":"controls","head":[1]}': "head",
    '{"type":"controls","lips":true}': "lips", '{"type":"controls","position":-0.1}': "position",
    '{"type":"controls","gaze":2.01}': "0 to 2", f'{{"type":"controls","head":{10**400}}}': "head",
    '{"type":"controls","motion":"sideways"}': "relative, absolute", '{"type":"controls","motion":[]}': "motion",
    '{"type":"controls","region":"nose"}': "all, exp, pose",
    '{"type":"controls","keep_lips":1}': "keep_lips",
    '{"type":"controls","preset":"furious"}': "awed", '{"type":"controls","mirror":true}': "'mirror'",
    '{"type":"controls","head":0.2,"brows":3}': "brows",
    '{"type":"ping"}': "ping", '{"type":"ping","t":NaN}': "ping", '{"type":"ping","t":{}}': "ping",
    f'{{"type":"ping","t":{10**400}}}': "ping",
    '{"type":"recalibrate"}' + " " * 5000: "4096", b'{"type":"recalibrate"}': "no text",
}  # fmt: skip


async def test_nonsense_is_answered_by_what_would_be_right_and_changes_nothing() -> None:
    async with calling(Client(Camera())) as call:
        channel, painter = call.client.channel, call.painter
        await until(lambda: call.client.of_type("frame"), "the data channel")
        before = painter.controls
        for nonsense, named in NONSENSE.items():
            told = len(call.client.of_type("notice"))
            channel.send(nonsense)
            await until(
                lambda told=told: len(call.client.of_type("notice")) > told, f"an answer to {nonsense!r:.60}"
            )
            notice = call.client.of_type("notice")[-1]
            assert notice["level"] == "error"
            assert named in notice["text"], (nonsense[:60], notice["text"])
            assert len(notice["text"]) <= 600
            assert "\n" not in notice["text"]
        assert painter.controls is before, "also where the rest of a message was right"
        assert painter.recalibrated == 0
        channel.send('{"type":"ping","t":12.5}')
        await until(lambda: {"type": "pong", "t": 12.5} in call.client.messages, "a pong")
        assert len(call.client.of_type("pong")) == 1
        assert len(call.client.of_type("notice")) == len(NONSENSE)


async def test_commands_reach_the_avatar_while_it_runs() -> None:
    async with calling(Client(Camera())) as call:
        channel, painter = call.client.channel, call.painter
        await until(lambda: call.client.of_type("frame"), "the data channel")
        channel.send('{"type":"controls","expression":0,"head":0.5,"motion":"absolute","keep_blink":false}')
        wanted = Controls(expression=0, head=0.5, motion="absolute", keep_blink=False)
        await until(lambda: painter.controls == wanted, "the controls")
        channel.send('{"type":"controls","preset":"happy","preset_strength":2,"region":"exp"}')
        wanted = replace(wanted, preset="happy", preset_strength=2.0, region="exp")
        await until(lambda: painter.controls == wanted, "more controls, on top of those before")
        whole = json.dumps({"type": "controls", **Controls().to_dict()})
        channel.send(whole)
        await until(lambda: painter.controls == Controls(), "all controls, back at their defaults")
        channel.send('{"type":"recalibrate"}')
        await until(lambda: painter.recalibrated == 1, "the recalibration")
        assert call.client.of_type("notice") == [], "the page says by itself what to do"
        seen = len(call.client.frames)
        await until(lambda: len(call.client.frames) > seen + 5, "pictures after it all")


async def test_a_call_starts_with_the_controls_saved_with_its_avatar() -> None:
    saved = Controls(head=0.4, preset="awed")
    async with calling(Client(Camera()), enrollment=replace(plain_enrollment(), controls=saved)) as call:
        await until(lambda: call.client.of_type("frame"), "the data channel")
        assert call.painter.controls == saved
        call.client.channel.send('{"type":"controls","head":1}')
        await until(lambda: call.painter.controls == replace(saved, head=1.0), "a change of one of them")


async def test_controls_sent_while_the_avatar_is_being_made_are_not_lost() -> None:
    ready = threading.Event()
    painters: list[Painter] = []

    def make_avatar(session: Session) -> Painter:
        ready.wait(AT_LAST_S)
        painters.append(Painter(session))
        return painters[0]

    client = Client(Camera())
    session = Session(plain_enrollment(), CallOptions(), make_avatar=make_avatar)  # type: ignore[arg-type]
    try:
        await client.accept(await session.answer(await client.offer()))
        await until(lambda: client.channel.readyState == "open", "the data channel")
        client.channel.send('{"type":"controls","head":0.25}')
        client.channel.send('{"type":"ping","t":1}')
        await until(lambda: client.of_type("pong"), "a pong")
        assert painters == []
        ready.set()
        await until(lambda: client.frames, "the first picture")
        assert painters[0].controls == Controls(head=0.25)
    finally:
        ready.set()
        await client.close()
        await asyncio.wait_for(session.close(), AT_LAST_S)


async def test_a_camera_that_vanishes_leaves_an_idle_avatar() -> None:
    camera = Camera()
    async with calling(Client(camera)) as call:
        await until(lambda: len(call.client.frames) > 20, "pictures")
        camera.end()
        await until(lambda: call.painter.idle_steps > 10, "idle life")
        seen = len(call.client.frames)
        await until(lambda: len(call.client.frames) > seen + 20, "idle pictures")
        tail = call.client.frames[-15:]
        assert all(near(f.colour, RED) for f in tail)
        assert call.client.of_type("frame")[-1]["state"] == "idle"
        pts = [f.pts for f in call.client.frames]
        assert pts == sorted(set(pts)), "time never goes back"


async def test_a_failing_avatar_is_counted_and_the_picture_stays() -> None:
    async with calling(Client(Camera())) as call:
        await until(lambda: len(call.client.frames) > 10, "pictures")
        call.painter.error = ValueError("broken on purpose")
        await until(lambda: call.session.ledger.snapshot().faults > 5, "counted faults")
        broken_at_s = time.monotonic()

        def during() -> list[Received]:
            return [f for f in call.client.frames if f.at_s > broken_at_s]

        await until(lambda: len(during()) >= 3, "repetitions of the last picture")
        assert all(near(f.colour, RED) for f in during())
        assert "broken on purpose" in (call.session.ledger.snapshot().last_fault or "")
        call.painter.error = None
        last = call.painter.stepped[-1]
        await until(lambda: call.client.frames[-1].number != last, "new pictures again")


async def test_an_avatar_that_cannot_be_made_is_told_to_the_page() -> None:
    def make_avatar(_: Session) -> Painter:
        raise RuntimeError("no model\nno avatar")

    client = Client(Camera())
    session = Session(plain_enrollment(), CallOptions(), make_avatar=make_avatar)  # type: ignore[arg-type]
    try:
        await client.accept(await session.answer(await client.offer()))
        await until(lambda: client.of_type("notice"), "a notice")
        notice = client.of_type("notice")[0]
        assert notice["level"] == "error"
        assert "no model no avatar" in notice["text"]
        assert session.ledger.snapshot().fault_stages == {"prepared": 1}
        assert session.resting, "it keeps nobody out"
    finally:
        await client.close()
        await asyncio.wait_for(session.close(), AT_LAST_S)


async def test_each_frame_names_the_generator_at_work_and_a_fallback_is_told_once() -> None:
    made: list[Painter] = []

    def make_avatar(session: Session) -> Painter:
        made.append(Painter(session))
        made[0].notice = "drawing with geometric: the weights of visavis are of another version"
        made[0].generator_name = "geometric"
        return made[0]

    client = Client(Camera())
    session = Session(plain_enrollment(), CallOptions(), make_avatar=make_avatar)  # type: ignore[arg-type]
    try:
        await client.accept(await session.answer(await client.offer()))
        await until(lambda: len(client.of_type("frame")) > 20, "frames")
        assert {m["generator"] for m in client.of_type("frame")} == {"geometric"}
        assert client.of_type("notice") == [{"type": "notice", "level": "error", "text": made[0].notice}]
    finally:
        await client.close()
        await asyncio.wait_for(session.close(), AT_LAST_S)


async def test_a_slow_avatar_drops_between_tracking_and_drawing_and_it_is_counted() -> None:
    async with calling(Client(Camera())) as call:
        await until(lambda: len(call.client.frames) > 10, "pictures")
        assert "waited" in call.client.of_type("frame")[-1]["stage_ms"]
        call.painter.gate.clear()
        await until(lambda: call.session.ledger.snapshot().dropped.get("fitted", 0) >= 5, "counted drops")
        call.painter.gate.set()
        await until(lambda: call.client.of_type("frame")[-1]["dropped"] >= 5, "the page to hear of it")


async def test_after_a_stall_the_newest_picture_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    always_in_time(monkeypatch)
    camera = Camera()
    async with calling(Client(camera)) as call:
        client, painter = call.client, call.painter
        await until(lambda: len({f.number for f in client.frames}) > 10, "a settled call")
        painter.gate.clear()
        stalled = len(client.frames)
        dropped = call.session.ledger.snapshot().dropped.get("fitted", 0)
        await until(lambda: call.session.ledger.snapshot().dropped.get("fitted", 0) > dropped + 45, "drops")
        await until(lambda: len(client.frames) >= stalled + 6, "pictures that go on meanwhile")
        sent = len(camera.sent_s)
        painter.gate.set()
        await until(lambda: client.frames[-1].number >= sent, "pictures after the stall")
        numbers = [f.number for f in client.frames[stalled:]]
        assert numbers == sorted(numbers)
        steps = [b - a for a, b in itertools.pairwise(numbers)]
        assert max(steps) > 40, "what was overtaken is shown all the same"
        pts = [f.pts for f in client.frames]
        assert pts == sorted(set(pts))


async def test_two_calls_never_see_each_other() -> None:
    async with (
        calling(Client(Camera()), colour=RED) as one,
        calling(Client(Camera()), colour=GREEN) as two,
    ):
        for call in (one, two):
            await until(lambda c=call: len(c.client.frames) > 45, "pictures in both")
        # the first pictures may still be blurred by a bitrate that is only finding its level
        assert all(near(f.colour, RED) for f in one.client.frames[5:])
        assert all(near(f.colour, GREEN) for f in two.client.frames[5:])
        assert one.session.name != two.session.name
        one.client.channel.send('{"type":"controls","head":0}')
        await until(lambda: one.painter.controls.head == 0, "the first call's control")
        assert two.painter.controls.head == 1


async def test_echo_returns_the_input() -> None:
    camera = Camera()
    async with calling(Client(camera, audio=True), CallOptions(mode="echo")) as call:
        client = call.client
        await until(lambda: len(client.frames) > 40, "echoed pictures")
        await until(lambda: client.audio_frames > 10, "echoed sound")
        assert all(near(f.colour, BLUE) for f in client.frames[5:])
        settled = client.frames[10:]
        origin = settled[0].pts - settled[0].number * Camera.TICKS
        assert all(f.pts - f.number * Camera.TICKS == origin for f in settled)
        assert call.session.ledger.snapshot().frames > 30
        await until(lambda: client.of_type("frame"), "what is told of its frames")


async def test_the_demo_plays_to_a_page_that_only_watches() -> None:
    begin_ms = time.time() * 1000
    async with calling(Client(), CallOptions(drive="demo")) as call:
        await until(lambda: len(call.client.frames) > 40, "pictures")
        await until(lambda: call.client.of_type("frame"), "what is told of them")
        pts = [f.pts for f in call.client.frames]
        assert pts == sorted(set(pts))
        message = next(m for m in call.client.of_type("frame") if m["capture_ms"] is not None)
        assert begin_ms <= message["capture_ms"] <= time.time() * 1000
        assert call.client.of_type("mesh") == []


async def test_closing_frees_everything() -> None:
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    closed: list[Session] = []
    painters: list[Painter] = []

    def make_avatar(session: Session) -> Painter:
        painters.append(Painter(session))
        return painters[-1]

    session = Session(
        plain_enrollment(),
        CallOptions(),
        on_closed=closed.append,
        make_avatar=make_avatar,  # type: ignore[arg-type]
    )
    client = Client(Camera(), audio=True)
    await client.accept(await session.answer(await client.offer()))
    await until(lambda: len(client.frames) > 10, "pictures")
    await asyncio.wait_for(asyncio.gather(session.close(), session.close()), AT_LAST_S)
    assert closed == [session], "told once"
    assert painters[0].closed == 1
    await session.close()
    assert closed == [session]
    await until(lambda: client.pc.connectionState == "closed", "the client to hear of it")
    await client.close()

    def left() -> set[object]:
        idle = {t for t in threading.enumerate() if t.name.startswith("asyncio_")}  # the loop's own executor
        return {
            *(t for t in asyncio.all_tasks() - tasks if not t.done()),
            *(set(threading.enumerate()) - threads - idle),
        }

    await until(lambda: not left(), f"tasks and threads gone: {left()}")


async def test_whoever_closes_second_waits_too() -> None:
    """Or the server would end while a call is half closed, and its decoder threads would keep it alive."""
    async with calling(Client(Camera())) as call:
        first = asyncio.ensure_future(call.session.close())
        await asyncio.sleep(0)
        await asyncio.wait_for(call.session.close(), AT_LAST_S)
        assert call.session.closed
        assert call.painter.closed == 1
        await first


async def test_a_page_that_goes_away_ends_its_call() -> None:
    async with calling(Client(Camera())) as call:
        await call.client.close()
        await until(lambda: call.session.closed, "the session to end")
        assert call.painter.closed == 1


@pytest.mark.parametrize("drive", ["demo", "webcam"])
async def test_nothing_is_drawn_for_a_browser_that_has_gone_silent(drive: DrivenBy) -> None:
    clock, sleepers = JumpingClock(), Sleepers()
    watcher = Client() if drive == "demo" else Client(Camera())
    async with calling(watcher, CallOptions(drive=drive), clock=clock, sleep=sleepers.sleep) as call:
        painter = call.painter

        def drawn() -> int:
            return len(painter.stepped) + painter.idle_steps

        clock.jump(QUIET_AFTER_S + 1)
        await until(lambda: call.session._peer.quiet_s < 1, "the browser to be heard again")
        sleepers.let_pass(LOOK_EVERY_S)
        await until(lambda: sleepers.count == 2, "the look")
        before = drawn()
        await until(lambda: drawn() > before + 10, "pictures for a browser that is heard")
        watcher.silence()

        def rests() -> bool:
            if call.session._peer.quiet_s <= QUIET_AFTER_S:  # what was on its way has come since
                clock.jump(QUIET_AFTER_S + 1)
            sleepers.let_pass(LOOK_EVERY_S)
            return call.session._worker is not None and call.session._worker.resting

        await until(rests, "the worker to rest")
        sent = call.session.work.drawn
        resting, before = 0, drawn()
        while resting < 10:  # repeated pictures go on being sent, and none of them is new
            repeats = call.session.ledger.snapshot().late
            await until(lambda r=repeats: call.session.ledger.snapshot().late > r, "a repeated picture")
            resting += 1
        assert drawn() - before <= 2, "what was in work when it fell silent"
        assert call.session.work.drawn - sent <= 2
        clock.jump(GONE_AFTER_S)

        def gone() -> bool:
            sleepers.let_pass(LOOK_EVERY_S)
            return call.session.closed

        await until(gone, "the call of a browser that is gone to end")
        assert painter.closed == 1


async def test_a_browser_that_comes_back_is_drawn_for_again() -> None:
    clock, sleepers = JumpingClock(), Sleepers()
    async with calling(Client(), CallOptions(drive="demo"), clock=clock, sleep=sleepers.sleep) as call:
        worker = call.session._worker
        assert worker is not None
        worker.rest(True)
        seen = call.session.work.drawn
        await until(lambda: call.session.ledger.snapshot().late > 5, "repeated pictures")
        assert call.session.work.drawn - seen <= 2

        def drawn_again() -> bool:
            sleepers.let_pass(LOOK_EVERY_S)
            return call.session.work.drawn > seen + 10

        await until(drawn_again, "new pictures")


async def test_a_camera_that_comes_late_is_followed_in_its_own_time() -> None:
    camera = Camera()
    camera.late_s = 1.0
    async with calling(Client(camera)) as call:
        await until(lambda: call.painter.idle_steps > 8, "idle life")
        await until(lambda: len(call.painter.stepped) > 30, "the camera")
        pts = [f.pts for f in call.client.frames]
        assert pts == sorted(set(pts))
        origins = Counter(f.pts - f.number * Camera.TICKS for f in call.client.frames)
        origin, count = origins.most_common(1)[0]
        assert count > 10, "the camera's own steps are kept"
        assert origin > pts[8], "its time begins where idle life has got to"


@pytest.mark.parametrize(
    "sdp", ["", "nonsense", "v=0\r\n", "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\nm=video", "\x00" * 50]
)
async def test_an_offer_that_makes_no_sense_is_one_sentence(sdp: str) -> None:
    closed: list[Session] = []
    session = Session(plain_enrollment(), CallOptions(), on_closed=closed.append)
    with pytest.raises(OfferError) as caught:
        await session.answer(sdp)
    assert "\n" not in str(caught.value)
    assert "()" not in str(caught.value)
    assert closed == [session]


async def test_an_offer_without_video_is_refused() -> None:
    client = Client(audio=True, video=False)
    closed: list[Session] = []
    session = Session(plain_enrollment(), CallOptions(), on_closed=closed.append)
    try:
        with pytest.raises(OfferError, match="video"):
            await session.answer(await client.offer())
        assert closed == [session]
    finally:
        await client.close()


def test_what_a_peer_s_network_costs_it_was_not_asked_of_this_computer() -> None:
    tally, lip_sync = Tally(), LipSync(CallOptions())
    tally.drop(30, "received")
    tally.drop(2, "decoded")
    tally.drop(1, "fitted")
    assert tally.dropped == 33
    assert tally.work(lip_sync).asked == 3
