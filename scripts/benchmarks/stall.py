"""A live loop whose drawing is held for some seconds: how old the frames are that are shown next."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack

from engines.enrollment import Enrollment
from scripts.benchmarks.measured import Measured
from streamer.avatar import Avatar, Shown
from streamer.clock import Clock, SystemClock
from streamer.drive.driver import Drive
from streamer.drive.open import open_driver
from streamer.frame import Frame, LatencyTrace, Moment
from streamer.latency.ledger import Ledger
from streamer.live import LiveLoop
from streamer.options import AvatarOptions
from streamer.sinks.sink import Sink, SinkClosed, SinkInfo
from streamer.sources.source import Source, SourceInfo, SourceState

BEFORE_FRAMES, AFTER_FRAMES = 60, 4


class MemorySource(Source):
    """Frames from memory, in turn, at their own rate, for ever."""

    def __init__(self, clip: list[Frame], fps: float, clock: Clock) -> None:
        height_px, width_px = clip[0].image.shape[:2]
        self._clip = clip
        self._info = SourceInfo((width_px, height_px), fps, True, None, False, "memory")
        self._clock = clock
        self._count = 0
        self._state = SourceState.READY

    @property
    def info(self) -> SourceInfo:
        """Of the clip."""
        return self._info

    @property
    def state(self) -> SourceState:
        """Ready until it is closed."""
        return self._state

    def read(self, timeout_s: float | None = None) -> Frame | None:
        """The next frame, a period after the one before."""
        self._clock.sleep(1 / self._info.fps)
        k, self._count = self._count, self._count + 1
        now_ns = self._clock.now_ns()
        image = self._clip[k % len(self._clip)].image
        return Frame(k / self._info.fps, now_ns, LatencyTrace({"captured": now_ns}), k, image=image)

    def close(self) -> None:
        """No more frames."""
        self._state = SourceState.ENDED


class HeldAvatar(Avatar):
    """Draws while `gate` is open."""

    gate: threading.Event

    def show_drive(self, drive: Drive, moment: Moment, coming: Sequence[Drive] = ()) -> Shown:
        """As an avatar does, when it may."""
        self.gate.wait()
        return super().show_drive(drive, moment, coming)


class StallSink(Sink):
    """Closes the gate after some frames, and after it was opened again keeps the lag of the next ones."""

    def __init__(self, gate: threading.Event, held_s: float, clock: Clock) -> None:
        self.lag_ms: list[float] = []
        self._gate = gate
        self._held_s = held_s
        self._clock = clock
        self._count = 0

    def open(self, info: SinkInfo) -> None:
        """Nothing to open."""

    def write(self, frame: Frame) -> None:
        """Raises SinkClosed when enough was seen."""
        self._count += 1
        if self._count == BEFORE_FRAMES:
            self._gate.clear()
            threading.Timer(self._held_s, self._gate.set).start()
        elif self._count > BEFORE_FRAMES + 1:  # the first of them had been drawn before
            self.lag_ms.append((self._clock.now_ns() - frame.capture_time_ns) / 1e6)
            if len(self.lag_ms) == AFTER_FRAMES:
                raise SinkClosed("enough was seen")

    def close(self) -> None:
        """Nothing was kept."""


def measure_stall(
    enrollment: Enrollment,
    clip: list[Frame],
    fps: float,
    *,
    generator: str,
    size_px: int,
    held_s: float = 5.0,
) -> list[Measured]:
    """Lag of the frames after a stall, the one that was held first."""
    clock = SystemClock()
    gate = threading.Event()
    gate.set()
    with ExitStack() as stack:
        options = AvatarOptions(generator=generator, size_px=size_px)
        moving = open_driver(options.tracker)
        stack.callback(moving.close)
        avatar = HeldAvatar(enrollment, moving, options, clock=clock)
        avatar.gate = gate
        source = stack.enter_context(MemorySource(clip, fps, clock))
        sink = stack.enter_context(StallSink(gate, held_s, clock))
        ledger = stack.enter_context(Ledger())
        LiveLoop(source, avatar, sink, ledger=ledger, clock=clock).run()
    return [
        Measured(f"stall_{k}_ms", f"drawing held for {held_s:g} s: lag of frame {k + 1} after it", ms, "ms")
        for k, ms in enumerate(sink.lag_ms)
    ]
