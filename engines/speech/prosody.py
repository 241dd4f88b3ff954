"""Head motion from prosody: a nod on stressed syllables, another bearing with every phrase. State is a value.

People move the head with the loudness and rhythm of what they say; a squared-error network answers with the mean
of all that they might do, which is stillness. So rules give what the network cannot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NOD_HZ, TURN_HZ = 1.8, 0.45  # how fast the head follows
STRESS_S = 1.0  # loudness counts against its mean over this long
PAUSE_S = 0.25  # a silence of this length ends a phrase
NOD_RAD = np.radians(3.0)
BEARING_RAD = np.radians([1.2, 3.5, 1.6])
_QUIET, _LOUD = -2.5, 0.3  # logarithms of power against the speaker's level


@dataclass(frozen=True, slots=True)
class Follower:
    """A value on its way to a target: position and speed of a critically damped spring."""

    value: float = 0.0
    speed: float = 0.0

    def towards(self, target: float, natural_hz: float, step_s: float) -> Follower:
        """After `step_s`; exact for a target that stays, so stable for any step."""
        w = 2 * np.pi * natural_hz
        gap = self.value - target
        decay = float(np.exp(-w * step_s))
        rate = self.speed + w * gap
        return Follower(target + (gap + rate * step_s) * decay, (self.speed - w * rate * step_s) * decay)


@dataclass(frozen=True, slots=True)
class HeadState:
    """Nod, bearing (pitch, yaw, roll), mean loudness, seconds since the last voice, phrases begun."""

    nod: Follower = Follower()
    bearing: tuple[Follower, Follower, Follower] = (Follower(), Follower(), Follower())
    loudness: float = 0.0
    silent_s: float = PAUSE_S
    phrases: int = 0

    @property
    def turn_rad(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """(3,) rotation about the head's x (nod), y and z axes."""
        turn = np.array([f.value for f in self.bearing]) * BEARING_RAD
        turn[0] += NOD_RAD * self.nod.value
        return turn.astype(np.float32)


def advance(state: HeadState, level: float, voice: float, step_s: float) -> HeadState:
    """After `step_s` of sound: `level`, its log power against the speaker's; `voice` 0 … 1."""
    loud = voice * float(np.clip((level - _QUIET) / (_LOUD - _QUIET), 0, 1.3))
    mean = state.loudness + (loud - state.loudness) * min(1.0, step_s / STRESS_S)
    speaking = voice > 0.5
    begins = speaking and state.silent_s >= PAUSE_S
    phrases = state.phrases + begins
    # where the head turns in the phrase: any repeatable numbers, the rest position without a voice
    aims = np.random.default_rng(phrases).uniform(-1, 1, 3) * voice
    return HeadState(
        state.nod.towards(loud - mean, NOD_HZ, step_s),
        (
            state.bearing[0].towards(float(aims[0]), TURN_HZ, step_s),
            state.bearing[1].towards(float(aims[1]), TURN_HZ, step_s),
            state.bearing[2].towards(float(aims[2]), TURN_HZ, step_s),
        ),
        mean,
        0.0 if speaking else state.silent_s + step_s,
        phrases,
    )
