"""Time: the clock that everything timed is given, and the pacing rule of sinks that want a fixed rate."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass


class Clock(ABC):
    """Monotonic time for intervals, wall time for what leaves this computer. Thread-safe."""

    @abstractmethod
    def now_ns(self) -> int:
        """Monotonic nanoseconds; on Linux the same clock that cameras stamp their buffers with."""

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Wait; returns at once for zero or less."""

    @abstractmethod
    def wall_ms(self) -> float:
        """Milliseconds since the Unix epoch."""


class SystemClock(Clock):
    """The computer's own clocks."""

    def now_ns(self) -> int:
        """`time.monotonic_ns()`."""
        return time.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        """`time.sleep`, nothing for zero or less."""
        if seconds > 0:
            time.sleep(seconds)

    def wall_ms(self) -> float:
        """`time.time()` in milliseconds."""
        return time.time_ns() / 1e6


class VirtualClock(Clock):
    """A clock that moves only when slept on or told to: minutes of pacing are tested in microseconds."""

    def __init__(self, start_ns: int = 0, wall_start_ms: float = 0.0) -> None:
        self._now_ns = start_ns
        self._wall_offset_ms = wall_start_ms - start_ns / 1e6
        self._lock = threading.Lock()

    def now_ns(self) -> int:
        """The virtual time."""
        with self._lock:
            return self._now_ns

    def sleep(self, seconds: float) -> None:
        """Move the time forward by `seconds` and return at once."""
        self.advance(seconds)

    def wall_ms(self) -> float:
        """Wall time, moving along with the virtual time."""
        with self._lock:
            return self._wall_offset_ms + self._now_ns / 1e6

    def advance(self, seconds: float) -> None:
        """Move the time forward; zero or less does nothing."""
        with self._lock:
            self._now_ns += max(0, round(seconds * 1e9))


@dataclass(frozen=True, slots=True)
class PacingConfig:
    """A fixed rate, in frames per second."""

    fps: float

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 1000:
            raise ValueError(f"fps {self.fps} is outside 0 … 1000")


@dataclass(frozen=True, slots=True)
class PacingState:
    """The grid of due times: tick k is due at `origin_ns + k / fps`; `tick` is the next one.

    `origin_ns` is None before the first frame.
    """

    origin_ns: int | None = None
    tick: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """Wait `wait_s`, then send the newest picture, then go on with `state`.

    `due_ns` is the tick this frame fills, `skipped` how many ticks had already passed unfilled.
    """

    wait_s: float
    due_ns: int
    skipped: int
    state: PacingState


def next_due(config: PacingConfig, state: PacingState, now_ns: int) -> Decision:
    """When the next frame of a fixed-rate sink is due.

    Due times lie on one grid laid at the first frame, so rounding and jitter never add up. After a stall
    the passed ticks are skipped, not caught up: the frame goes out at once and the next keeps to the grid.
    """
    if state.origin_ns is None:
        return Decision(0.0, now_ns, 0, PacingState(now_ns, 1))
    period_ns = 1e9 / config.fps
    # Rounding may put `now` a fraction of a nanosecond before the tick that it fills.
    newest = int((now_ns - state.origin_ns + 0.5) // period_ns)
    tick = max(state.tick, newest)
    due_ns = state.origin_ns + round(tick * period_ns)
    wait_s = max(0, due_ns - now_ns) / 1e9
    return Decision(wait_s, due_ns, tick - state.tick, PacingState(state.origin_ns, tick + 1))


class Pacer:
    """`next_due` with a clock: call `wait()` before each frame. Not thread-safe: one loop owns it."""

    def __init__(self, fps: float, clock: Clock) -> None:
        self._config = PacingConfig(fps)
        self._state = PacingState()
        self._clock = clock
        self.skipped = 0

    def wait(self) -> int:
        """Sleep until the next tick; its time in monotonic ns. Ticks missed are added to `skipped`."""
        decision = next_due(self._config, self._state, self._clock.now_ns())
        self._state = decision.state
        self.skipped += decision.skipped
        self._clock.sleep(decision.wait_s)
        return decision.due_ns
