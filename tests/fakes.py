"""Stand-ins for devices and time, and small pictures, videos and disks made on the spot."""

from __future__ import annotations

import collections.abc
import io
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from calibration.neutral import DriverNeutral, NeutralReport
from engines.enrollment import Enrollment
from engines.generators.generator import Generator, GeneratorConfig
from engines.generators.registry import Entry
from engines.head.model import HeadModel
from engines.motion import Motion
from engines.motion_window import MotionWindow
from engines.raster.gbuffer import GBuffer, Viewport
from streamer.clock import Clock, SystemClock
from streamer.clock import VirtualClock as FakeClock
from streamer.drive.trackers.tracker import Track, Tracker
from streamer.frame import Frame, LatencyTrace
from streamer.sinks.sink import Sink, SinkInfo
from streamer.sources.source import Source, SourceInfo, SourceState
from streamer.sources.video import VideoSource

__all__ = [
    "FakeClock",
    "FakeGenerator",
    "FakeSink",
    "FakeSource",
    "FakeTracker",
    "GlancedClock",
    "StepSource",
    "encoded",
    "entry",
    "picture",
    "read_all",
    "set_display_matrix",
    "sine",
    "small_disk",
    "write_video",
]

U8 = NDArray[np.uint8]

# for waits that only keep a broken program from hanging the tests: no computer is so busy
AT_LAST_S = 120.0


class GlancedClock(FakeClock):
    """A virtual clock that every look moves by a microsecond: what comes later is later."""

    def now_ns(self) -> int:
        """The virtual time, different each time."""
        self.advance(1e-6)
        return super().now_ns()


class CountingGate(threading.Event):
    """A gate that counts who came to it; open at first."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = 0
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Until it opens."""
        self.arrived += 1
        return super().wait(timeout)


class FakeSource(Source):
    """Frames made from `images` in turn at `fps`, `count` of them (None: for ever).

    As a live source it can be unplugged: set `lost` and `read` gives None after its timeout, with time
    going on by `clock`.
    """

    def __init__(
        self,
        images: Sequence[U8] | None = None,
        *,
        count: int | None = None,
        fps: float = 30.0,
        is_live: bool = False,
        clock: Clock | None = None,
        notice: str | None = None,
    ) -> None:
        self.images = list(images) if images is not None else [picture(k) for k in range(4)]
        self.count = count
        self.clock = clock or SystemClock()
        self.lost = False
        self.closed = False
        self.sequence = 0
        self._notice = notice
        height, width = self.images[0].shape[:2]
        duration_s = None if count is None or is_live else count / fps
        self._info = SourceInfo((width, height), fps, is_live, duration_s, False, "fake")

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def state(self) -> SourceState:
        if self.closed or (self.count is not None and self.sequence >= self.count):
            return SourceState.ENDED
        return SourceState.LOST if self.lost else SourceState.READY

    @property
    def notices(self) -> tuple[str, ...]:
        return (self._notice,) if self._notice else ()

    def read(self, timeout_s: float | None = None) -> Frame | None:
        if self.state is SourceState.ENDED:
            return None
        if self.lost:
            self.clock.sleep(timeout_s or 0.0)
            return None
        if self._info.is_live:
            self.clock.sleep(1 / self._info.fps)
        now_ns = self.clock.now_ns()
        k, self.sequence = self.sequence, self.sequence + 1
        trace = LatencyTrace({"captured": now_ns, "decoded": now_ns})
        return Frame(k / self._info.fps, now_ns, trace, k, image=self.images[k % len(self.images)])

    def close(self) -> None:
        self.closed = True


class StepSource(FakeSource):
    """Gives one frame for every `step`, at its clock's time."""

    def __init__(
        self,
        *,
        count: int | None = None,
        fps: float = 30.0,
        is_live: bool = False,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(count=count, fps=fps, is_live=is_live, clock=clock)
        self._steps = threading.Semaphore(0)

    def step(self) -> None:
        """Let one more frame out."""
        self._steps.release()

    def read(self, timeout_s: float | None = None) -> Frame | None:
        if not self._steps.acquire(timeout=timeout_s):
            return None
        return super().read(timeout_s)


class FakeSink(Sink):
    """Keeps what is written. `fail_at` raises `error` at that frame; `gate`, when set, holds `write`."""

    def __init__(
        self,
        *,
        fail_at: int | None = None,
        error: BaseException | None = None,
        on_write: Callable[[Frame], None] | None = None,
    ) -> None:
        self.info: SinkInfo | None = None
        self.frames: list[Frame] = []
        self.outcome: str | None = None  # "closed" or "aborted"
        self.gate = threading.Event()
        self.gate.set()
        self._fail_at = fail_at
        self._error = error or RuntimeError("the fake sink was told to fail")
        self._on_write = on_write

    def open(self, info: SinkInfo) -> None:
        self.info = info

    def write(self, frame: Frame) -> None:
        self.gate.wait()
        if self._fail_at == len(self.frames):
            raise self._error
        self.frames.append(frame)
        if self._on_write is not None:
            self._on_write(frame)

    def close(self) -> None:
        self.outcome = self.outcome or "closed"

    def abort(self) -> None:
        self.outcome = self.outcome or "aborted"


class FakeTracker(Tracker):
    """Plays `script`, one entry a frame and the last one for ever: a motion, None (no face) or an error.

    A motion's time is set to its frame's. `retakes` counts the asked re-takes of the neutral, `given` are the
    neutrals that it was to use; `report` is what it says of its own.
    """

    def __init__(
        self,
        script: Sequence[Motion | Track | BaseException | None] = (Motion(),),
        *,
        neutral: Motion | None = None,
    ) -> None:
        self.script = list(script)
        self.calls = 0
        self.retakes = 0
        self.closed = False
        self._neutral = neutral
        self.report = NeutralReport("taken", (), 1)
        self.given: list[DriverNeutral] = []

    def track(self, frame: Frame) -> Track:
        answer = self.script[min(self.calls, len(self.script) - 1)]
        self.calls += 1
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Track):
            return answer
        return Track(None if answer is None else replace(answer, time_s=frame.pts_s))

    @property
    def neutral(self) -> Motion | None:
        return self._neutral

    @property
    def neutral_report(self) -> NeutralReport:
        return self.report

    @property
    def driver_neutral(self) -> DriverNeutral | None:
        return self.given[-1] if self.given else None

    def use_neutral(self, neutral: DriverNeutral, *, for_good: bool = False) -> None:
        self.given.append(neutral)

    def retake_neutral(self) -> None:
        self.retakes += 1

    def close(self) -> None:
        self.closed = True


class FakeGenerator(Generator[tuple[int, int]]):
    """Fills the picture with `colour`, opaque. `error`, when set, is raised; `gate`, when clear, holds."""

    def __init__(self, colour: tuple[int, int, int] = (200, 40, 40), past: int = 0, ahead: int = 0) -> None:
        self.config = GeneratorConfig("fake", grid_px=32, past=past, ahead=ahead)
        self.colour = colour
        self.error: BaseException | None = None
        self.motions: list[Motion] = []
        self.windows: list[MotionWindow] = []
        self.gate = threading.Event()
        self.gate.set()

    def prepare(self, enrollment: Enrollment, viewport: Viewport) -> tuple[int, int]:
        return viewport.height_px, viewport.width_px

    def render(self, cache: tuple[int, int], gbuffer: GBuffer, motions: MotionWindow) -> U8:
        self.gate.wait()
        self.motions.append(motions.now)
        self.windows.append(motions)
        if self.error is not None:
            raise self.error
        return np.full((*cache, 4), (*self.colour, 255), np.uint8)


def entry(make: Callable[[HeadModel], Generator[Any]]) -> Entry:
    """A generator for the registry that has no parts to leave out."""

    def opened(
        model: HeadModel, *, without: Collection[str] = (), weights: Path | None = None
    ) -> Generator[Any]:
        assert not without
        assert weights is None
        return make(model)

    return Entry(opened)


def picture(seed: int = 0, width: int = 64, height: int = 48) -> U8:
    """(height, width, 3): red, green, blue and white quadrants, and a bar that moves with `seed`."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (200, 30, 30)
    image[: height // 2, width // 2 :] = (30, 200, 30)
    image[height // 2 :, : width // 2] = (30, 30, 200)
    image[height // 2 :, width // 2 :] = (220, 220, 220)
    x = seed * 4 % width
    image[height // 4 : 3 * height // 4, x : x + 4] = 255
    return image


def encoded(image: U8 | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """A picture as a file of `kind`, with Pillow's options for it."""
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


def sine(
    seconds: float, rate_hz: int = 48000, tone_hz: float = 440.0, start_s: float = 0.0
) -> NDArray[np.float32]:
    """(1, N) float32: silence until `start_s`, then a tone."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * tone_hz * t) * (t >= start_s))[None].astype(np.float32)


def write_video(
    path: Path,
    images: Iterable[U8],
    *,
    fps: float | Fraction = 30,
    times_s: Sequence[float] | None = None,
    audio: NDArray[np.float32] | None = None,
    audio_codec: str = "aac",
    audio_rate_hz: int = 48000,
    options: dict[str, str] | None = None,
    codec: str = "libx264",
    gop: int = 12,
    tags: Callable[[av.VideoStream], None] | None = None,
) -> Path:
    """A video at `path` (container by suffix) of `images` at `fps`, or at `times_s` exactly; mono `audio`."""
    rate = Fraction(fps).limit_denominator(1001)
    tick = Fraction(1, 90000)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate))
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gop
        stream.time_base = stream.codec_context.time_base = tick
        sound = None
        if audio is not None:
            sound = cast(av.AudioStream, container.add_stream(audio_codec, rate=audio_rate_hz))
            sound.layout = "mono"
        if tags is not None:
            tags(stream)
        for k, image in enumerate(images):
            if k == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            seconds = k / rate if times_s is None else Fraction(times_s[k])
            frame.pts, frame.time_base = round(seconds / tick), tick
            for packet in stream.encode(frame):
                packet.duration = packet.duration or round(1 / rate / tick)
                container.mux(packet)
        for packet in stream.encode(None):
            packet.duration = packet.duration or round(1 / rate / tick)
            container.mux(packet)
        if sound is not None and audio is not None:
            for begin in range(0, audio.shape[1], 960):
                piece = np.ascontiguousarray(audio[:, begin : begin + 960])
                chunk = av.AudioFrame.from_ndarray(piece, "fltp", "mono")
                chunk.sample_rate = audio_rate_hz
                chunk.pts, chunk.time_base = begin, Fraction(1, audio_rate_hz)
                container.mux(sound.encode(chunk))
            container.mux(sound.encode(None))
    return path


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write the rotation (a, b; c, d) into the first track header of the MP4 at `path`."""
    data = bytearray(path.read_bytes())
    # ISO/IEC 14496-12 § 8.3.2, version 0: the matrix begins 40 bytes after the version field.
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def read_all(source: VideoSource | FakeSource) -> list[Frame]:
    """All frames until the end of a source of pictures."""
    frames: list[Frame] = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    return frames


@contextmanager
def small_disk(folder: Path, size: str) -> collections.abc.Generator[Path]:
    """A real file system of `size` ("48k") mounted at `folder`, a new one; skips where nothing may be mounted."""
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
