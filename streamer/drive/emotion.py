"""An emotion over time: another one is eased in, and lips that are talking close through it. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from engines.mood import Mood, between
from engines.motion import Motion

EASE_S = 0.3  # from one emotion to another
PAUSE_S, REST_S = 0.5, 0.5  # lips closed for so long have stopped talking; within so long more they rest


@dataclass(frozen=True, slots=True)
class Felt:
    """Where a stream stands at `time_s`: the mood shown, on its way to `target` for `left_s` more.

    `talking`, 0 … 1: how much of what the driver's lips do is speech; they closed `quiet_s` ago.
    """

    time_s: float
    mood: Mood
    target: Mood
    left_s: float = 0.0
    talking: float = 0.0
    quiet_s: float = 0.0


def advance(state: Felt | None, target: Mood, driver: Motion, time_s: float) -> Felt:
    """The next of a stream; `state` None: its first, which has the mood at once. Time that goes back stands still."""
    parted = _parted(driver)
    if state is None:
        return Felt(time_s, target, target, talking=parted)
    step_s = max(time_s - state.time_s, 0.0)
    left_s = state.left_s if _same(target, state.target) else EASE_S
    mood = between(state.mood, target, step_s / left_s) if left_s > step_s else target
    quiet_s = state.quiet_s + step_s
    fallen = max(quiet_s - max(state.quiet_s, PAUSE_S), 0.0) / REST_S
    talking = max(state.talking - fallen, 0.0)
    if parted >= talking:
        talking, quiet_s = parted, 0.0
    return Felt(time_s, mood, target, max(left_s - step_s, 0.0), talking, quiet_s)


def _parted(driver: Motion) -> float:
    """How far the lips are parted, 0 … 1: the first half is not yet speech. Lips that rest apart always are."""
    return min(max(1 - 2 * float(driver.closure[0]), 0.0), 1.0)


def _same(one: Mood, other: Mood) -> bool:
    return one is other or (
        one.share == other.share
        and one.lips == other.lips
        and bool((one.expression == other.expression).all())
    )
