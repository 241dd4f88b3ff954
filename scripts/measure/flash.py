"""Beeps, and pictures that flash with them: what goes into a call, what draws, and what comes out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from numpy.typing import NDArray

from calibration.neutral import NeutralReport
from engines.enrollment import Enrollment
from engines.motion import ARKIT_INDEX, Motion
from engines.retarget import Controls
from engines.speech.features import RATE_HZ
from engines.speech.network import OUTPUT_COUNT
from engines.speech.speech_to_motion import SpeechState, SpeechToMotion, Spoken
from streamer.avatar import Driven, Shown
from streamer.drive.driver import Drive
from streamer.frame import Frame, LatencyTrace, Moment
from streamer.sources.heard import HEARD_FPS
from streamer.webrtc.media import video_frame_of
from streamer.webrtc.session import Session

F32, U8 = NDArray[np.float32], NDArray[np.uint8]

SOUND_HZ = 48_000
PACKET = 960
FPS = 30
SIZE_PX = (128, 96)
BEEP_S = 0.2
# beeps begin with a picture of a camera, and meet the moments of a voice at every phase
GAPS_S = (20 / 30, 23 / 30, 19 / 30, 26 / 30, 22 / 30)
APART_S = 0.3  # no flash belongs to a beep that is further away
HALF_MOMENT_MS = (
    500 / HEARD_FPS
)  # how late a picture shows what begins between two moments of a voice, in the mean
_LOUD = 0.1
_STEP = 320  # samples for one answer of the speech network
_AHEAD = 3  # answers that it looks ahead


def beeps(seconds: float) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """(S,) at 48 kHz with 1 kHz beeps, and when they begin in seconds."""
    t = np.arange(round(seconds * SOUND_HZ)) / SOUND_HZ
    begins: list[float] = []
    at = 0.5
    while at < seconds - 0.5:
        begins.append(at)
        at += GAPS_S[len(begins) % len(GAPS_S)]
    loud = np.zeros(len(t), bool)
    for begin in begins:
        loud |= (t >= begin) & (t < begin + BEEP_S)
    return (12_000 * np.sin(2 * np.pi * 1000 * t) * loud).astype(np.int16), np.array(begins)


def plain(is_white: bool) -> U8:
    """(H, W, 3) of one colour."""
    width, height = SIZE_PX
    return np.full((height, width, 3), 255 if is_white else 0, np.uint8)


def is_white_at(at_s: float, begins_s: NDArray[np.float64]) -> bool:
    """Whether there is a beep."""
    return bool(((at_s >= begins_s - 1e-6) & (at_s < begins_s + BEEP_S)).any())


class Tape(MediaStreamTrack):
    """Sound at its own pace: 20 ms a packet, there when its last sample is."""

    kind = "audio"

    def __init__(self, samples: NDArray[np.int16]) -> None:
        super().__init__()
        self.start_s: float | None = None
        self._samples = samples
        self._at = 0

    async def recv(self) -> av.AudioFrame:
        """The next packet, when it is due."""
        self.start_s = time.monotonic() if self.start_s is None else self.start_s
        await asyncio.sleep(max(0.0, self.start_s + (self._at + PACKET) / SOUND_HZ - time.monotonic()))
        piece = np.zeros(PACKET, np.int16)
        got = self._samples[self._at : self._at + PACKET]
        piece[: len(got)] = got
        frame = av.AudioFrame.from_ndarray(piece[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, self._at, Fraction(1, SOUND_HZ)
        self._at += PACKET
        return frame


class FlashCamera(MediaStreamTrack):
    """White while a tape beeps; its time is the tape's."""

    kind = "video"

    def __init__(self, tape: Tape, begins_s: NDArray[np.float64]) -> None:
        super().__init__()
        self._tape = tape
        self._begins_s = begins_s
        self._count = 0

    async def recv(self) -> av.VideoFrame:
        """The next picture, when it is due."""
        while self._tape.start_s is None:
            await asyncio.sleep(0.001)
        at_s = self._count / FPS
        await asyncio.sleep(max(0.0, self._tape.start_s + at_s - time.monotonic()))
        self._count += 1
        return video_frame_of(plain(is_white_at(at_s, self._begins_s)), round(at_s * 90_000))


def write_film(path: Path, samples: NDArray[np.int16], begins_s: NDArray[np.float64]) -> Path:
    """The same as a file (.mkv)."""
    with av.open(str(path), "w") as film:
        pictures = film.add_stream("libx264", rate=FPS)
        pictures.width, pictures.height = SIZE_PX
        pictures.pix_fmt = "yuv420p"
        sound = film.add_stream("pcm_s16le", rate=SOUND_HZ, layout="mono")
        for k in range(round(len(samples) / SOUND_HZ * FPS)):
            image = plain(is_white_at(k / FPS, begins_s))
            film.mux(pictures.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            piece = samples[k * SOUND_HZ // FPS : (k + 1) * SOUND_HZ // FPS]
            frame = av.AudioFrame.from_ndarray(piece[None], "s16", "mono")
            frame.sample_rate, frame.pts = SOUND_HZ, k * SOUND_HZ // FPS
            film.mux(sound.encode(frame))
        film.mux(pictures.encode())
        film.mux(sound.encode())
    return path


# --- in the avatar's place ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _LoudState(SpeechState):
    rest: F32 = field(default_factory=lambda: np.zeros(0, np.float32))
    ahead: tuple[float, ...] = ()
    count: int = 0


class LoudSpeech(SpeechToMotion):
    """Opens the jaw by how loud a moment is, known as late as the network's answers are."""

    def __init__(self) -> None:
        """Nothing is loaded."""

    @property
    def look_ahead_s(self) -> float:
        """How long it waits for more."""
        return _AHEAD * _STEP / RATE_HZ

    @property
    def latency_ms(self) -> float:
        """From a sound to its answer."""
        return 92.5

    def hear(self, samples: F32, state: SpeechState | None = None) -> tuple[list[Spoken], SpeechState]:
        """As the network."""
        before = state if isinstance(state, _LoudState) else _LoudState()
        sound = np.concatenate([before.rest, samples])
        ahead, count = before.ahead, before.count
        spoken: list[Spoken] = []
        for at in range(0, len(sound) - _STEP + 1, _STEP):
            ahead = (*ahead, float(np.abs(sound[at : at + _STEP]).max()))[-_AHEAD - 1 :]
            count += 1
            answer = np.zeros(OUTPUT_COUNT, np.float32)
            if len(ahead) > _AHEAD:
                answer[ARKIT_INDEX["jawOpen"]] = ahead[0]
            spoken.append(Spoken((count - _AHEAD) * _STEP / RATE_HZ, answer, 1.0))
        return spoken, _LoudState(rest=sound[len(sound) // _STEP * _STEP :], ahead=ahead, count=count)


class Flasher:
    """Stands in for `Avatar`: white for a camera's white picture, or while the voice of the moment is loud.

    It takes `work_ms` to track and draw, half each.
    """

    notice: str | None = None
    generator_name = "flash"

    def __init__(self, call: Session, work_ms: float) -> None:
        self.controls = Controls()
        self.driver = SimpleNamespace(
            recalibrate=lambda: None,
            neutral_report=NeutralReport("taken", (), 1),
            driver_neutral=None,
        )
        self.figure = SimpleNamespace(enrollment=call.enrollment, options=call.options, notice=None)
        self._call, self._work_s = call, work_ms / 1000

    def figure_of(self, enrollment: Enrollment, options: Any) -> Any:
        """Nothing can be changed."""
        return SimpleNamespace(enrollment=enrollment, options=options, notice=None)

    def become(self, figure: Any, begun: Callable[[], None] = lambda: None) -> None:
        """It looks alike."""
        self.figure = figure
        begun()

    def track(self, moment: Moment) -> Driven:
        """Half of the work."""
        time.sleep(self._work_s / 2)
        tracked = moment.mark("tracked", time.monotonic_ns())
        return Driven(tracked, Drive(Motion(), Motion(), "tracking", True))

    def track_idle(self, time_s: float, sequence: int) -> Driven:
        """Nothing came."""
        now_ns = time.monotonic_ns()
        moment = Moment(time_s, now_ns, LatencyTrace({"captured": now_ns}), sequence)
        return Driven(moment, Drive(Motion(), Motion(), "idle", False))

    def show_drive(self, drive: Drive, moment: Moment) -> Shown:
        """The other half."""
        time.sleep(self._work_s / 2)
        is_white = False
        if isinstance(moment, Frame):
            is_white = bool(moment.image.mean() > 127)
        elif drive.state == "tracking" and self._call.hearing.sound is not None:
            spoken = self._call.hearing.sound.voice.at(moment.sequence / HEARD_FPS)
            is_white = spoken is not None and spoken.answer[ARKIT_INDEX["jawOpen"]] > _LOUD
        return Shown(moment.mark("generated", time.monotonic_ns()).with_image(plain(is_white)), drive)

    def close(self) -> None:
        """Nothing to free."""


def nobody() -> Enrollment:
    """An enrollment that only a `Flasher` shows."""
    return Enrollment(
        name="flash",
        created_utc="2026-01-01T00:00:00+00:00",
        photo_sha256="0" * 64,
        photo=np.zeros((64, 64, 3), np.uint8),
        crop_px=(0.0, 0.0, 64.0),
        landmarks_px=np.zeros((478, 3), np.float32),
        identity=np.zeros(2, np.float32),
        neutral_hu=np.zeros((4, 3), np.float32),
        motion=Motion(),
        uv_position_px=np.zeros((4, 4, 2), np.float32),
        uv_visibility=np.zeros((4, 4), np.uint8),
        uv_colour=np.zeros((4, 4, 3), np.uint8),
        uv_pncc=np.zeros((4, 4, 3), np.uint8),
        matte=np.full((64, 64), 255, np.uint8),
        plate=np.zeros((8, 8, 3), np.uint8),
    )


# --- what comes out -------------------------------------------------------------------------------------


class Watcher:
    """Another aiortc that plays at once, and notes when beeps and flashes begin, in seconds of the monotonic clock."""

    def __init__(self, tracks: Sequence[MediaStreamTrack] = ()) -> None:
        """`tracks`: what it sends; without pictures or sound of its own it receives them alone."""
        self.flashes_s: list[float] = []
        self.beeps_s: list[float] = []
        self.pictures = 0
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel = self.pc.createDataChannel("visavis", ordered=False, maxRetransmits=0)
        for track in tracks:
            self.pc.addTrack(track)
        for kind in {"video", "audio"} - {track.kind for track in tracks}:
            self.pc.addTransceiver(kind, direction="recvonly")
        self._readers: list[asyncio.Task[None]] = []
        self._white, self._quiet_since_s = False, 0.0
        self.pc.on("track", lambda track: self._readers.append(asyncio.ensure_future(self._read(track))))

    async def _read(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame = await track.recv()
                if isinstance(frame, av.VideoFrame):
                    self.pictures += 1
                    self._see(bool(frame.to_ndarray(format="gray").mean() > 127), time.monotonic())
                elif isinstance(frame, av.AudioFrame):
                    self._hear(frame, time.monotonic())
        except MediaStreamError:
            return

    def _see(self, white: bool, now_s: float) -> None:
        if white and not self._white:
            self.flashes_s.append(now_s)
        self._white = white

    def _hear(self, frame: av.AudioFrame, now_s: float) -> None:
        channels = len(frame.layout.channels)
        loud = np.abs(frame.to_ndarray().reshape(-1, channels)[:, 0].astype(int)) > 1500
        if loud.any():
            if now_s - self._quiet_since_s > BEEP_S / 2:
                self.beeps_s.append(now_s + int(loud.argmax()) / frame.sample_rate)
            self._quiet_since_s = now_s

    async def close(self) -> None:
        """Hang up."""
        await self.pc.close()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)


def skews_ms(
    flashes_s: Sequence[float], beeps_s: Sequence[float], late_ms: float = 0.0
) -> NDArray[np.float64]:
    """How much later each flash comes than its beep, less `late_ms` that pictures cost anyway; no pair, no skew."""
    beeps_at = np.array(beeps_s)
    if not len(beeps_at):
        return np.zeros(0)
    apart_s = np.array([f - beeps_at[np.abs(beeps_at - f).argmin()] for f in flashes_s])
    return 1e3 * apart_s[np.abs(apart_s) < APART_S] - late_ms
