"""Voice-only calls: sound alone makes pictures, off the event loop, and both reach the other side together."""

from __future__ import annotations

import asyncio
import time
import wave
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamTrack
from browser import PATIENCE_MS, find_chromium, flags, wait_for
from calls import HEIGHT_PX, WIDTH_PX, Camera, Client, Painter, only_loopback, plain_enrollment, until
from hearing import JAW, EchoSpeech

from engines.errors import WeightsError
from engines.motion import Motion
from engines.speech.speech_to_motion import SpeechToMotion
from scripts.measure.skew_page import WATCHES, serving
from streamer.avatar import Driven, Shown
from streamer.clock import SystemClock, VirtualClock
from streamer.drive.driver import Drive
from streamer.drive.voice import Voice
from streamer.frame import Frame, Moment
from streamer.serve.app import create_app
from streamer.serve.config import ServeSettings
from streamer.serve.store import AvatarStore
from streamer.sources.heard import HEARD_FPS
from streamer.webrtc import aiortc_fixes, hearing
from streamer.webrtc.call_options import MOST_TRIM_MS, CallOptions
from streamer.webrtc.call_sound import CallSound, block_of
from streamer.webrtc.media import video_frame_of
from streamer.webrtc.messages import MessageError, milliseconds_of
from streamer.webrtc.offer_sdp import OfferError
from streamer.webrtc.session import Session

LOUD = 0.1
RATE_HZ = 48_000
BEEP_S = 0.2
GAPS_S = (0.613, 0.738, 0.667, 0.791, 0.626)  # beeps meet the pictures' clock at every phase
CAMERA_GAPS_S = (0.625, 0.75, 0.6875, 0.8125, 0.625)  # beeps begin with a picture of `FlashCamera`
HALF_FRAME_MS = 500 / HEARD_FPS  # how late a picture shows what begins between two of them, in the mean


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    aiortc_fixes.apply()
    only_loopback(monkeypatch)
    monkeypatch.setattr(hearing, "shared_speech", lambda: EchoSpeech())


class FlashPainter(Painter):
    """White while the voice of the moment is loud, black otherwise."""

    def __init__(self, call: Session) -> None:
        super().__init__(call)
        self._voice: Voice | None = call.hearing.sound.voice if call.hearing.sound is not None else None

    def show_drive(self, drive: Drive, moment: Moment) -> Shown:
        heard = self._voice if drive.state == "tracking" else None
        spoken = heard.at(moment.sequence / HEARD_FPS) if heard is not None else None
        white = spoken is not None and spoken.answer[JAW] > LOUD
        return Shown(moment.mark("generated", time.monotonic_ns()).with_image(plain(white)), drive)


def plain(white: bool) -> np.ndarray[Any, Any]:
    """(96, 128, 3) uint8 of one colour."""
    return np.full((HEIGHT_PX, WIDTH_PX, 3), 255 if white else 0, np.uint8)


class CopyPainter(Painter):
    """White for a white picture of the camera, with the time that tracking and drawing take."""

    TRACK_S = DRAW_S = 0.05

    def track(self, moment: Moment) -> Driven:
        time.sleep(self.TRACK_S)
        return super().track(moment)

    def show_drive(self, drive: Drive, moment: Moment) -> Shown:
        time.sleep(self.DRAW_S)
        white = isinstance(moment, Frame) and drive.state == "tracking" and bool(moment.image.mean() > 127)
        return Shown(moment.mark("generated", time.monotonic_ns()).with_image(plain(white)), drive)


def beeps(seconds: float, gaps_s: tuple[float, ...] = GAPS_S) -> tuple[np.ndarray[Any, Any], list[float]]:
    """(S,) int16 at 48 kHz with 1 kHz beeps, and when they begin in seconds."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    begins, at = [], 0.5
    while at < seconds - 0.5:
        begins.append(at)
        at += gaps_s[len(begins) % len(gaps_s)]
    loud = np.zeros(len(t), bool)
    for begin in begins:
        loud |= (t >= begin) & (t < begin + BEEP_S)
    return (12_000 * np.sin(2 * np.pi * 1000 * t) * loud).astype(np.int16), begins


class Tape(MediaStreamTrack):
    """Sound at its own pace: 20 ms a packet, there when its last sample is."""

    kind = "audio"

    def __init__(self, samples: np.ndarray[Any, Any]) -> None:
        super().__init__()
        self._samples = samples
        self._at = 0
        self.start_s: float | None = None

    async def recv(self) -> av.AudioFrame:
        self.start_s = time.monotonic() if self.start_s is None else self.start_s
        await asyncio.sleep(max(0.0, self.start_s + (self._at + 960) / RATE_HZ - time.monotonic()))
        piece = np.zeros(960, np.int16)
        got = self._samples[self._at : self._at + 960]
        piece[: len(got)] = got
        frame = av.AudioFrame.from_ndarray(piece[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, self._at, Fraction(1, RATE_HZ)
        self._at += 960
        return frame


class FlashCamera(Camera):
    """White while a tape beeps, at a rate that `CopyPainter` keeps up with; its time is the tape's."""

    FPS = 16
    TICKS = 5625

    def __init__(self, tape: Tape, begins_s: list[float]) -> None:
        super().__init__()
        self._tape = tape
        self._begins_s = np.array(begins_s)

    async def recv(self) -> av.VideoFrame:
        while self._tape.start_s is None:
            await asyncio.sleep(0.001)
        self._start_s = self._tape.start_s
        at_s = len(self.sent_s) / self.FPS
        await super().recv()
        white = bool(((at_s >= self._begins_s) & (at_s < self._begins_s + BEEP_S)).any())
        return video_frame_of(plain(white), (len(self.sent_s) - 1) * self.TICKS)


class Listener(Client):
    """A client that speaks a tape, shows a camera if it has one, and notes when beeps and flashes begin."""

    def __init__(self, tape: Tape, camera: Camera | None = None) -> None:
        super().__init__(camera)
        self.pc.addTrack(tape)
        self.flashes_s: list[float] = []
        self.beeps_s: list[float] = []
        self._white = self._loud = False
        self._quiet_since_s = 0.0

    async def _read(self, track: MediaStreamTrack) -> None:
        while True:
            frame = await track.recv()
            now_s = time.monotonic()
            if isinstance(frame, av.VideoFrame):
                white = frame.to_ndarray(format="gray").mean() > 127
                if white and not self._white:
                    self.flashes_s.append(now_s)
                self._white = white
                self.frames.append(None)  # type: ignore[arg-type]
            elif isinstance(frame, av.AudioFrame):
                channels = len(frame.layout.channels)
                loud = np.abs(frame.to_ndarray().reshape(-1, channels)[:, 0].astype(int)) > 1500
                if loud.any():
                    if now_s - self._quiet_since_s > 0.1:
                        self.beeps_s.append(now_s + int(loud.argmax()) / frame.sample_rate)
                    self._quiet_since_s = now_s


def skews_ms(
    flashes_s: list[float], beeps_s: list[float], half_frame_ms: float = HALF_FRAME_MS
) -> list[float]:
    """How much later each flash comes than its beep, less the half frame that pictures cost anyway."""
    pairs = [(f, min(beeps_s, key=lambda b: abs(b - f))) for f in flashes_s]
    return [1e3 * (f - b) - half_frame_ms for f, b in pairs if abs(f - b) < 0.25]


async def measured_ms(
    options: CallOptions, avatar: type[Painter], client: Listener, beep_count: int, half_frame_ms: float
) -> np.ndarray[Any, Any]:
    """Skews of a call at another aiortc, whose sound waits no longer than its pictures."""
    call = Session(plain_enrollment(), options, make_avatar=avatar)  # type: ignore[arg-type]
    try:
        await client.accept(await call.answer(await client.offer()))
        await until(lambda: len(client.flashes_s) >= beep_count - 2, "the flashes")
    finally:
        await client.close()
        await call.close()
    skews = np.array(skews_ms(client.flashes_s[4:], client.beeps_s, half_frame_ms))
    print(f"\n{options.drive}: flash after beep: median {np.median(skews):.1f} ms, {np.round(skews, 0)}")
    return skews


@pytest.mark.slow
@pytest.mark.parametrize("drive", ["voice", "webcam"])
async def test_beeps_arrive_and_so_do_their_flashes(drive: Any) -> None:
    samples, begins = beeps(30.0, CAMERA_GAPS_S)
    tape = Tape(samples)
    client = Listener(tape, FlashCamera(tape, begins) if drive == "webcam" else None)
    avatar = CopyPainter if drive == "webcam" else FlashPainter
    call = Session(plain_enrollment(), CallOptions(drive=drive), make_avatar=avatar)  # type: ignore[arg-type]
    try:
        await client.accept(await call.answer(await client.offer()))
        await until(lambda: min(len(client.flashes_s), len(client.beeps_s)) >= 3, "beeps and flashes")
    finally:
        await client.close()
        await call.close()


@pytest.mark.timing
async def test_beep_and_flash_arrive_together() -> None:
    """Voice alone: ±20 ms in the median."""
    samples, begins = beeps(16.0)
    client = Listener(Tape(samples))
    skews = await measured_ms(CallOptions(drive="voice"), FlashPainter, client, len(begins), HALF_FRAME_MS)
    assert len(skews) >= 12
    assert abs(np.median(skews)) <= 20


@pytest.mark.timing
async def test_beep_and_flash_of_a_camera_arrive_together() -> None:
    """A picture of 100 ms: the sound that came with it waits for it, ±20 ms."""
    samples, begins = beeps(16.0, CAMERA_GAPS_S)
    tape = Tape(samples)
    client = Listener(tape, FlashCamera(tape, begins))
    skews = await measured_ms(CallOptions(), CopyPainter, client, len(begins), 0.0)
    assert len(skews) >= 12
    assert abs(np.median(skews)) <= 20


async def test_a_picture_of_the_voice_says_when_its_moment_was_heard() -> None:
    """On this computer's clock: there is no camera whose sender could tell."""
    begin_ms = SystemClock().wall_ms()
    samples, _ = beeps(30.0)
    client = Listener(Tape(samples))
    call = Session(plain_enrollment(), CallOptions(drive="voice"), make_avatar=FlashPainter)  # type: ignore[arg-type]

    def told() -> list[float]:
        return [
            m["capture_ms"]
            for m in client.of_type("frame")
            if m["state"] == "tracking" and m["capture_ms"] is not None
        ]

    try:
        await client.accept(await call.answer(await client.offer()))
        await until(lambda: len(told()) > 10, "pictures that say when they were heard")
        heard_ms = told()
        assert begin_ms < min(heard_ms)
        assert max(heard_ms) < SystemClock().wall_ms()
        assert sorted(heard_ms) == heard_ms
    finally:
        await client.close()
        await call.close()


async def test_sound_that_stops_leaves_a_living_picture() -> None:
    call = Session(plain_enrollment(), CallOptions(drive="voice"), make_avatar=FlashPainter)  # type: ignore[arg-type]
    client = Client()  # sends no sound at all
    try:
        await client.accept(await call.answer(await client.offer()))
        await until(lambda: len(client.frames) > 20, "idle pictures")
        assert client.of_type("frame")[-1]["state"] in ("idle", "holding")
    finally:
        await client.close()
        await call.close()


def test_packets_of_every_kind_become_samples() -> None:
    stereo = av.AudioFrame.from_ndarray(
        np.tile(np.array([16384, -16384], np.int16), (1, 960)), "s16", "stereo"
    )
    stereo.sample_rate = RATE_HZ
    block = block_of(stereo, 5)
    assert block.samples.shape == (960, 2)
    assert block.samples[0].tolist() == [0.5, -0.5]
    planar = av.AudioFrame.from_ndarray(np.full((1, 480), 0.25, np.float32), "fltp", "mono")
    planar.sample_rate = 24_000
    assert block_of(planar, 5).samples.max() == np.float32(0.25)


def test_a_worker_that_is_late_keeps_the_newest_two_seconds() -> None:
    sound = CallSound(Voice(EchoSpeech()))
    packet = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), "s16", "mono")
    packet.sample_rate = RATE_HZ
    for _ in range(1000):  # 20 s unread
        sound.put(packet)
    frame = sound.read(0.0)
    assert frame is not None
    assert 19.5 < frame.pts_s <= 20.0  # what was lost is time passed all the same
    sound.close()
    assert sound.read(0.0) is None


def test_missing_weights_refuse_the_voice_and_spare_the_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> SpeechToMotion:
        raise WeightsError("the weights are missing; install visavis again")

    monkeypatch.setattr(hearing, "shared_speech", missing)

    async def opened(drive: Any) -> Session:
        return Session(plain_enrollment(), CallOptions(drive=drive))

    with pytest.raises(OfferError, match="install visavis again"):
        asyncio.run(opened("voice"))
    assert asyncio.run(opened("webcam")).hearing.sound is None


@pytest.mark.parametrize("value", [None, "5", True, 301, -1e9, float("nan")])
def test_a_trim_that_makes_no_sense_is_told(value: object) -> None:
    with pytest.raises(MessageError, match="-300 to 300"):
        milliseconds_of("trim_ms", value, MOST_TRIM_MS)
    assert milliseconds_of("trim_ms", -120, MOST_TRIM_MS) == -120.0


# --- a real browser -------------------------------------------------------------------------------


@contextmanager
def serving_flashes() -> Generator[str]:
    """A server in this process whose avatars flash."""
    store = AvatarStore()
    store.add_public(plain_enrollment())
    app = create_app(ServeSettings(max_sessions=4), store, make_avatar=FlashPainter)  # type: ignore[arg-type]
    with serving(app) as url:
        yield url


@pytest.fixture
def voice_page(tmp_path: Path) -> Iterator[Any]:
    """Chromium whose microphone beeps, and a page of it."""
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api")
    sound = tmp_path / "beeps.wav"
    samples, _ = beeps(30.0)
    with wave.open(str(sound), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes(samples.tobytes())
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, headless=True, args=flags(tmp_path, sound))
        context = browser.new_context(viewport={"width": 1280, "height": 800}, bypass_csp=True)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        yield page
        browser.close()
        assert problems == []


@contextmanager
def voice_only(page: Any) -> Generator[None]:
    """A page that listens, with its beeps and flashes being noted; it goes back to the demo afterwards."""
    with serving_flashes() as url:
        page.goto(f"{url}/?audio=raw&hud=1")
        page.get_by_role("button", name="Voice only").click()
        wait_for(page, "document.querySelector('#status-text').textContent === 'Listening'")
        wait_for(
            page, "!document.querySelector('#level').hidden && document.querySelector('#level').value > 0.3"
        )
        page.evaluate(WATCHES)
        yield
        page.get_by_role("button", name="Stop voice").click()
        wait_for(page, "document.querySelector('#status-text').textContent === 'Demo is playing'")


@pytest.mark.browser
def test_voice_only_plays_sound_and_makes_pictures_of_it(voice_page: Any) -> None:
    with voice_only(voice_page):
        wait_for(voice_page, "Math.min(window.beeps.length, window.flashes.length) >= 3")


@pytest.mark.browser
@pytest.mark.timing
def test_beep_and_flash_in_a_browser(voice_page: Any) -> None:
    """Press "Voice only": the page plays sound and picture within ±20 ms."""
    with voice_only(voice_page):
        time.sleep(20)
        found = voice_page.evaluate("({beeps: window.beeps, flashes: window.flashes})")
    skews = np.array(skews_ms(found["flashes"][5:], found["beeps"]))
    print(f"\nflash after beep in the page: median {np.median(skews):.1f} ms, {np.round(skews, 0)}")
    assert len(skews) >= 12
    assert abs(np.median(skews)) <= 20


@pytest.mark.browser
def test_a_refused_microphone_is_explained(voice_page: Any) -> None:
    page = voice_page
    page.add_init_script(
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', 'NotAllowedError'))"
    )
    with serving_flashes() as url:
        page.goto(url)
        page.get_by_role("button", name="Voice only").click()
        wait_for(
            page, "document.querySelector('.notice')?.textContent.includes('may not use the microphone')"
        )


def test_sound_that_knows_its_capture_drives_by_it() -> None:
    """Not by when its packets came: those jitter."""
    sound = CallSound(Voice(EchoSpeech()), VirtualClock(10**12))
    packet = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), "s16", "mono")
    packet.sample_rate = RATE_HZ
    for k in range(50):
        sound.put(packet, 1e9 + k * 20e6)
    moment = sound.read(0.0)
    assert moment is not None
    assert moment.capture_time_ns == pytest.approx(1e9 + moment.pts_s * 1e9, abs=2e6)
    said = sound.said(Motion())
    assert said is not None
    answered_s = sound.voice.answered_s
    assert answered_s is not None
    assert said.captured_ns == pytest.approx(1e9 + answered_s * 1e9, abs=2e6)
