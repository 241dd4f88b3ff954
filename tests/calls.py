"""Calls without a browser: a WebRTC client in the test's own process, and an avatar that only paints.

Every picture carries an eight-bit number in its top half (a row of black and white stripes) and a plain
colour below, so that a test can tell which camera frame an answer belongs to and whose avatar it shows.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import aioice.ice
import av
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError, MediaStreamTrack
from fakes import AT_LAST_S
from numpy.typing import NDArray

from calibration.neutral import NeutralReport
from engines.enrollment import Enrollment
from engines.motion import Motion
from engines.retarget import Controls
from scripts.measure.flash import nobody
from streamer import pipeline
from streamer.avatar import Driven, Shown
from streamer.clock import SystemClock
from streamer.drive.driver import Drive
from streamer.frame import Frame, LatencyTrace, Moment
from streamer.options import AvatarOptions
from streamer.webrtc.media import video_frame_of
from streamer.webrtc.session import Session

U8 = NDArray[np.uint8]
WIDTH_PX, HEIGHT_PX = 128, 96
BITS = 8
RED, GREEN, BLUE = (210, 40, 40), (40, 190, 60), (40, 60, 210)


def numbered(number: int, colour: tuple[int, int, int]) -> U8:
    """(96, 128, 3): `number` mod 256 as stripes, most significant first, above `colour`."""
    image = np.empty((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    image[:] = colour
    bits = [(number >> (BITS - 1 - k)) & 1 for k in range(BITS)]
    image[: HEIGHT_PX // 2] = np.repeat(np.array(bits, np.uint8) * 255, WIDTH_PX // BITS)[None, :, None]
    return image


def number_in(image: U8) -> int:
    """The number in a picture of `numbered`, after any codec."""
    row = image[8 : HEIGHT_PX // 2 - 8].mean((0, 2))
    middles = row.reshape(BITS, -1)[:, 4:-4].mean(1)
    return int("".join("1" if v > 128 else "0" for v in middles), 2)


def colour_in(image: U8) -> tuple[int, int, int]:
    """The colour in a picture of `numbered`."""
    r, g, b = image[HEIGHT_PX // 2 + 12 : -4, 8:-8].mean((0, 1))
    return int(r), int(g), int(b)


def near(colour: tuple[int, int, int], wanted: tuple[int, int, int], within: int = 30) -> bool:
    return max(abs(a - b) for a, b in zip(colour, wanted, strict=True)) <= within


def plain_enrollment(colour: tuple[int, int, int] = RED, name: str = "plain") -> Enrollment:
    """An enrollment of nobody: a photo of one colour."""
    photo = np.empty((64, 64, 3), np.uint8)
    photo[:] = colour
    return replace(nobody(), name=name, photo=photo)


@dataclass(frozen=True, slots=True)
class PaintedFigure:
    """What a `Painter` shows."""

    enrollment: Enrollment
    options: AvatarOptions
    notice: str | None = None


class Painter:
    """Stands in for `Avatar`: shows the enrolled colour and the number of the camera frame it answers.

    `gate` cleared holds every picture; `error` set is raised instead of it. `generator_name` draws, for `notice`.
    """

    notice: str | None = None
    generator_name = "painter"

    def __init__(self, session: Session, *, landmarks: bool = False) -> None:
        r, g, b = (int(v) for v in session.enrollment.photo[0, 0])
        self.colour = (r, g, b)
        self.controls = Controls()
        self.recalibrated = 0
        self.driver = SimpleNamespace(
            recalibrate=self._recalibrate,
            neutral_report=NeutralReport("taken", (), 1),
            driver_neutral=None,
        )
        self.gate = threading.Event()
        self.gate.set()
        self.making = threading.Event()
        self.making.set()
        self.unmakeable: Exception | None = None
        self.asked_for: list[AvatarOptions] = []
        self.figure = PaintedFigure(session.enrollment, session.options)
        self._next: deque[tuple[PaintedFigure, Callable[[], None]]] = deque()
        self.error: Exception | None = None
        self.closed = 0
        self.idle_steps = 0
        self.stepped: list[int] = []
        self._clock = session.clock
        self._points = np.full((478, 3), (WIDTH_PX, HEIGHT_PX / 2, 0), np.float32) if landmarks else None

    def _recalibrate(self) -> None:
        self.recalibrated += 1

    def figure_of(self, enrollment: Enrollment, options: AvatarOptions) -> PaintedFigure:
        """As `Avatar.figure_of`; `making` cleared holds it."""
        self.asked_for.append(options)
        self.making.wait(AT_LAST_S)
        if self.unmakeable is not None:
            raise self.unmakeable
        return PaintedFigure(enrollment, options)

    def become(self, figure: PaintedFigure, begun: Callable[[], None] = lambda: None) -> None:
        self._next.append((figure, begun))

    def _change(self) -> None:
        while self._next:
            self.figure, begun = self._next.popleft()
            r, g, b = (int(v) for v in self.figure.enrollment.photo[0, 0])
            self.colour = (r, g, b)
            self.generator_name = self.figure.options.generator
            begun()

    def track(self, moment: Moment) -> Driven:
        return Driven(
            moment.mark("tracked", self._clock.now_ns()),
            Drive(Motion(), Motion(), "tracking", True, self._points),
        )

    def track_idle(self, time_s: float, sequence: int) -> Driven:
        now_ns = self._clock.now_ns()
        moment = Moment(time_s, now_ns, LatencyTrace({"captured": now_ns}), sequence)
        return Driven(moment, Drive(Motion(), Motion(), "idle", False))

    def show_drive(self, drive: Drive, moment: Moment) -> Shown:
        self.gate.wait(AT_LAST_S)
        self._change()
        if self.error is not None:
            raise self.error
        number = number_in(moment.image) if isinstance(moment, Frame) else moment.sequence
        if drive.state == "tracking":
            self.stepped.append(number)
        else:
            self.idle_steps += 1
        generated = moment.mark("generated", self._clock.now_ns())
        return Shown(generated.with_image(numbered(number, self.colour)), drive)

    def close(self) -> None:
        self.closed += 1


class Camera(MediaStreamTrack):
    """A camera of numbered blue pictures at 30 fps; `sent_s[k]` is when picture k left."""

    kind = "video"
    FPS = 30
    TICKS = 3000

    def __init__(self) -> None:
        super().__init__()
        self.sent_s: list[float] = []
        self.late_s = 0.0  # how long it takes to wake up
        self._start_s: float | None = None
        self._ended = False

    def end(self) -> None:
        """Unplug it."""
        self._ended = True

    async def recv(self) -> av.VideoFrame:
        count = len(self.sent_s)
        self._start_s = time.monotonic() + self.late_s if self._start_s is None else self._start_s
        await asyncio.sleep(max(0.0, self._start_s + count / self.FPS - time.monotonic()))
        if self._ended:
            self.stop()
            raise MediaStreamError
        frame = video_frame_of(numbered(count, BLUE), count * self.TICKS)
        self.sent_s.append(time.monotonic())
        return frame


@dataclass(frozen=True, slots=True)
class Received:
    """One picture that reached the client."""

    at_s: float
    pts: int
    number: int
    colour: tuple[int, int, int]


class Mute:
    """A socket from which nothing leaves."""

    def __init__(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def sendto(self, *_: object) -> None:
        """Lost."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Client:
    """The page's side of a call: sends a camera (and silence as sound), keeps what comes back."""

    def __init__(self, camera: Camera | None = None, *, audio: bool = False, video: bool = True) -> None:
        self.camera = camera
        self.frames: list[Received] = []
        self.messages: list[dict[str, Any]] = []
        self.audio_frames = 0
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel = self.pc.createDataChannel("visavis", ordered=False, maxRetransmits=0)
        self._readers: list[asyncio.Task[None]] = []
        if camera is not None:
            self.pc.addTrack(camera)
        elif video:
            self.pc.addTransceiver("video", direction="recvonly")
        if audio:
            self.pc.addTrack(AudioStreamTrack())
        self.channel.on("message", lambda text: self.messages.append(json.loads(text)))
        self.pc.on("track", lambda track: self._readers.append(asyncio.ensure_future(self._read(track))))

    async def _read(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame = await track.recv()
                if isinstance(frame, av.VideoFrame):
                    image = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                    whole = image.shape[:2] == (HEIGHT_PX, WIDTH_PX)
                    number = self._unwrapped(number_in(image)) if whole else -1
                    colour = colour_in(image) if whole else (0, 0, 0)
                    self.frames.append(Received(time.monotonic(), int(frame.pts or 0), number, colour))
                else:
                    self.audio_frames += 1
        except MediaStreamError:
            return

    def _unwrapped(self, number: int) -> int:
        """The camera's newest frame that has `number` as its last eight bits."""
        newest = len(self.camera.sent_s) - 1 if self.camera is not None else -1
        return newest - (newest - number) % 2**BITS if newest >= 0 else number

    async def offer(self) -> str:
        """The SDP to offer, with all candidates."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self.pc.localDescription.sdp

    async def accept(self, answer: str) -> None:
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))

    def silence(self) -> None:
        """From now on nothing leaves the page, as if its computer were gone."""

        silence(self.pc)

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [m for m in self.messages if m["type"] == kind]

    async def close(self) -> None:
        await asyncio.wait_for(self.pc.close(), AT_LAST_S)
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)


def silence(pc: RTCPeerConnection) -> None:
    """From now on nothing leaves `pc`."""
    transports: set[Any] = {t.receiver.transport.transport for t in pc.getTransceivers()}
    for transport in transports:
        for protocol in transport._connection._protocols:
            protocol.transport = Mute(protocol.transport)


async def until(condition: Callable[[], object], what: str, timeout_s: float = AT_LAST_S) -> None:
    """Wait for `condition`; fails the test when it does not come true in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            pytest.fail(f"waited {timeout_s:.0f} s in vain: {what}")
        await asyncio.sleep(0.01)


class JumpingClock(SystemClock):
    """The computer's clock, which a test may put forward."""

    def __init__(self) -> None:
        self._ahead_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self._ahead_ns

    def jump(self, seconds: float) -> None:
        self._ahead_ns += round(seconds * 1e9)


class Sleepers:
    """An event loop's `sleep` that ends when it is told to, and not before."""

    def __init__(self) -> None:
        self._asleep: list[tuple[float, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asleep.append((seconds, future))
        await future

    @property
    def count(self) -> int:
        """How many sleep."""
        return len(self._asleep)

    def let_pass(self, seconds: float) -> None:
        """Wake all who sleep no longer than that."""
        due = [f for wanted, f in self._asleep if wanted <= seconds]
        self._asleep = [(wanted, f) for wanted, f in self._asleep if wanted > seconds]
        for future in due:
            if not future.done():
                future.set_result(None)


def always_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However seldom a busy computer lets the camera run, it is never away: no idle life beside it."""
    monkeypatch.setattr(pipeline, "IDLE_AFTER_S", 10 * AT_LAST_S)


def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep this process's calls on 127.0.0.1."""
    monkeypatch.setattr(
        aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"] if use_ipv4 else []
    )
