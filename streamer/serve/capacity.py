"""`Capacity`: what calls cost this computer, learnt from those that run, and whether one more may begin."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engines.generators.names import FALLBACK_GENERATOR
from streamer.webrtc.call_options import CallOptions, DrivenBy, Mode

FULL_FPS = 30.0
LEAST_FPS = 24.0
MOST_LAG_MS = 150.0
# of all cores: what is between two pictures in time cannot be made up for afterwards
USABLE_SHARE = 0.9
FALLBACK_DRAWING_MS = 15.0  # of 512 px
TRANSPORT_MS = 10.0  # a picture's coding and sending, which no stage of its drawing counts
_FOLLOW = 0.3  # of each new sample
_MOST_KINDS = 64


@dataclass(frozen=True, slots=True)
class CallKind:
    """What decides a call's cost."""

    generator: str
    size_px: int
    drive: DrivenBy
    mode: Mode
    tracker: str

    @classmethod
    def of(cls, options: CallOptions) -> CallKind:
        """The kind of call that `options` ask for."""
        return cls(options.generator, options.size_px, options.drive, options.mode, options.tracker)

    @classmethod
    def watching(cls, options: CallOptions) -> CallKind:
        """Who watches such a call beside its page: one encoder more, which an echo has too."""
        return cls("", options.size_px, "demo", "echo", "")

    @property
    def guessed_cores(self) -> float:
        """What it takes at 30 pictures a second on two cores of an AMD EPYC, roughly: README's stages, and codecs.

        How fast this computer is instead is measured at the start; what the call takes, as soon as it runs.
        """
        if self.mode == "echo":
            return 0.3
        drawing_ms = FALLBACK_DRAWING_MS if self.generator == FALLBACK_GENERATOR else 40.0
        tracking_ms = 12.0 if self.drive == "webcam" else 2.0
        area = (self.size_px / 512) ** 2
        return FULL_FPS * (tracking_ms + (drawing_ms + TRANSPORT_MS) * (0.3 + 0.7 * area)) / 1000


@dataclass(frozen=True, slots=True)
class Reading:
    """One call's counters at one moment: see `Work`."""

    kind: CallKind
    drawn: int
    asked: int
    busy_ms: float
    lag_ms: float | None
    timed: int

    @property
    def begun(self) -> bool:
        """Whether it costs what it usually does: its avatar is made. An echo has none."""
        return self.drawn > 0 or self.kind.mode == "echo"


@dataclass(frozen=True, slots=True)
class _Measured:
    """One call between two samples."""

    cores: float
    fps: float
    asked_fps: float
    lag_ms: float | None

    @property
    def starved(self) -> str | None:
        """What is wrong with it already."""
        if self.fps < LEAST_FPS <= self.asked_fps:
            return f"gets {self.fps:.0f} pictures a second"
        if self.lag_ms is not None and self.lag_ms > MOST_LAG_MS:
            return f"is {self.lag_ms:.0f} ms late"
        return None


class Capacity:
    """Fed with numbers; knows no clock. Keys are the names of calls: the calls themselves it must not keep alive."""

    def __init__(self, cores: float) -> None:
        self._cores = cores
        self._learnt: OrderedDict[CallKind, float] = OrderedDict()
        self._slowness = 1.0  # of this computer, compared with the one of the guesses
        self._before: tuple[float, float, Mapping[str, Reading]] | None = None
        self._measured: dict[str, _Measured] = {}

    def cores_of(self, kind: CallKind) -> float:
        """How many cores a call of `kind` takes at 30 pictures a second."""
        return self._learnt.get(kind, kind.guessed_cores * self._slowness)

    def calibrate(self, drawing_ms: float) -> None:
        """What a picture of the fallback generator takes here, in processor time at 512 px, before any call has run."""
        self._slowness = drawing_ms / FALLBACK_DRAWING_MS

    def sample(
        self, now_s: float, cpu_s: float, readings: Mapping[str, Reading], *, is_alone: bool = True
    ) -> None:
        """Learn from all calls that are up: `cpu_s` is what this process has used so far, on all cores.

        Not `is_alone`: some of that went into something else, and no call's cost can be told.
        """
        before, self._before = self._before, (now_s, cpu_s, dict(readings))
        self._measured = {}
        if before is None or now_s <= before[0]:
            return
        elapsed_s, used = now_s - before[0], (cpu_s - before[1]) / (now_s - before[0])
        pairs = {
            key: (before[2][key], now)
            for key, now in readings.items()
            if key in before[2] and before[2][key].begun
        }
        work_ms = {key: _work_ms(earlier, now) for key, (earlier, now) in pairs.items()}
        all_ms = sum(work_ms.values())
        # what a call was before it changed costs something else
        is_steady = all(earlier.kind == now.kind for earlier, now in pairs.values())
        learns = is_alone and is_steady and len(pairs) == len(readings) == len(before[2])
        for key, (earlier, now) in pairs.items():
            share = work_ms[key] / all_ms if all_ms > 0 else 1 / len(pairs)
            measured = self._measured[key] = _Measured(
                used * share,
                (now.drawn - earlier.drawn) / elapsed_s,
                (now.asked - earlier.asked) / elapsed_s,
                now.lag_ms if now.timed > earlier.timed else None,
            )
            # of a starved call half the cost is what was dropped; of one that rests there is none
            if learns and measured.fps >= max(LEAST_FPS / 2, 0.8 * measured.asked_fps):
                self._learn(now.kind, measured.cores * FULL_FPS / measured.fps)

    def _learn(self, kind: CallKind, cores: float) -> None:
        before = self._learnt.pop(kind, cores)
        self._learnt[kind] = before + _FOLLOW * (cores - before)
        if len(self._learnt) > _MOST_KINDS:
            self._learnt.popitem(last=False)
        if kind.mode == "avatar":  # an echo says nothing of how fast this computer draws
            self._slowness += _FOLLOW * (self._learnt[kind] / kind.guessed_cores - self._slowness)

    def change_refusal(self, others: Mapping[str, CallKind], before: CallKind, asked: CallKind) -> str | None:
        """Why a call may not become one of the kind `asked` beside the `others`, or None. What costs no more may."""
        if not others or self.cores_of(asked) <= self.cores_of(before):
            return None
        needed = sum(self.cores_of(kind) for kind in others.values()) + self.cores_of(asked)
        if needed <= USABLE_SHARE * self._cores and not self._starved(others):
            return None
        also = f"{len(others)} other call{'s' * (len(others) > 1)}"
        return (
            f"with {also} up, {asked.generator} would take {needed:.1f} of {self._cores:.3g} processor cores and slow "
            f"all down; stay with {before.generator}, or hang one up"
        )

    def _starved(self, running: Mapping[str, CallKind]) -> str | None:
        return next((m.starved for key in running if (m := self._measured.get(key)) and m.starved), None)

    def refusal(self, running: Mapping[str, CallKind], asked: CallKind) -> str | None:
        """Why a call of the kind `asked` may not begin beside those that run, or None. The first one always may."""
        if not running:
            return None
        starved = self._starved(running)
        if starved is not None:
            return f"a call that is up {starved} already; {_help(asked)}"
        needed = sum(self.cores_of(kind) for kind in running.values()) + self.cores_of(asked)
        if needed <= USABLE_SHARE * self._cores:
            return None
        up = f"{len(running)} call{'s' * (len(running) > 1)}"
        return (
            f"with {up} up, one more would take {needed:.1f} of {self._cores:.3g} processor cores and slow all down; "
            f"{_help(asked)}"
        )


def _work_ms(earlier: Reading, now: Reading) -> float:
    """What a call's pictures took between two readings, all of them together."""
    return now.busy_ms - earlier.busy_ms + TRANSPORT_MS * (now.drawn - earlier.drawn)


def _help(asked: CallKind) -> str:
    lighter = "" if asked.generator == FALLBACK_GENERATOR else f" or the generator {FALLBACK_GENERATOR}"
    return f"hang one up, choose a smaller size{lighter}, or let more in with VISAVIS_MAX_SESSIONS"


def cores_here() -> float:
    """How many processor cores this process may use: those it may run on, or a container's share of them."""
    cores = float(len(os.sched_getaffinity(0)))
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, int(quota) / int(period))
    return cores
