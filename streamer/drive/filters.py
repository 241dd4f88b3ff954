"""One-Euro smoothing of motion: steady when the face is still, quick when it moves (Casiez et al. 2012)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engines.geometry import rotation_matrix, rotation_vector
from engines.motion import EXPRESSION_COUNT, Motion

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OneEuroConfig:
    """`min_cutoff_hz` at rest, opening by `beta` hertz per unit of speed (units per second)."""

    min_cutoff_hz: float
    beta: float
    derivative_cutoff_hz: float = 1.0


@dataclass(frozen=True, slots=True)
class OneEuroState:
    """The last input time, filtered value and filtered speed, (D,) each."""

    time_s: float
    value: F64
    speed: F64


def _alpha(cutoff_hz: F64 | float, step_s: float) -> F64:
    rate = 2 * np.pi * np.asarray(cutoff_hz, np.float64) * step_s
    return rate / (rate + 1)


def one_euro(config: OneEuroConfig, state: OneEuroState | None, time_s: float, value: F64) -> OneEuroState:
    """Filter one sample (D,); every dimension on its own. A first sample, or time going back, starts anew.

    Vectorised over D, which the authors' package is not; tested equal to it.
    """
    if state is None or time_s <= state.time_s or len(value) != len(state.value):
        return OneEuroState(time_s, value.astype(np.float64), np.zeros(len(value)))
    step_s = time_s - state.time_s
    speed = (value - state.value) / step_s
    a = _alpha(config.derivative_cutoff_hz, step_s)
    speed = a * speed + (1 - a) * state.speed
    b = _alpha(config.min_cutoff_hz + config.beta * np.abs(speed), step_s)
    return OneEuroState(time_s, b * value + (1 - b) * state.value, speed)


# Chosen on real tracks: still-face jitter falls to less than a half while the lag of moving
# parts stays under one frame at 25 fps (measured by scripts/benchmark.py).
EXPRESSION = OneEuroConfig(min_cutoff_hz=3.0, beta=12.0)
POSE = OneEuroConfig(min_cutoff_hz=2.0, beta=14.0)
GAZE = OneEuroConfig(min_cutoff_hz=2.0, beta=8.0)


@dataclass(frozen=True, slots=True)
class CentredConfig:
    """Changes well below these pass for noise: expression, rotation (rad), position (hu), gaze (rad)."""

    expression: float = 0.03
    rotation_rad: float = 0.006
    translation_hu: float = 0.01
    gaze_rad: float = 0.04


def centred(before: Motion, now: Motion, after: Motion, config: CentredConfig | None = None) -> Motion:
    """`now` averaged with its neighbours where they differ by noise, untouched where the face moves.

    A bilateral filter over three frames: no lag at all, for work that can look one frame ahead.
    """
    c = config or CentredConfig()

    def mean(key: Callable[[Motion], F32 | F64], sigma: float) -> F64:
        b, x, a = (key(m).astype(np.float64) for m in (before, now, after))
        wb, wa = np.exp(-(((b - x) / sigma) ** 2)), np.exp(-(((a - x) / sigma) ** 2))
        return (wb * b + x + wa * a) / (wb + 1 + wa)

    r = rotation_matrix(now.rotation_rad)
    turn = mean(lambda m: rotation_vector(rotation_matrix(m.rotation_rad) @ r.T), c.rotation_rad)
    return replace(
        now,
        expression=mean(lambda m: m.expression, c.expression).astype(np.float32),
        rotation_rad=rotation_vector(rotation_matrix(turn) @ r).astype(np.float32),
        translation_hu=mean(lambda m: m.translation_hu, c.translation_hu).astype(np.float32),
        gaze_rad=mean(lambda m: m.gaze_rad, c.gaze_rad).astype(np.float32),
    )


class MotionFilter:
    """One-Euro over a stream of `Motion`; holds one filter state for each of expression, pose and gaze."""

    def __init__(self) -> None:
        self._expression: OneEuroState | None = None
        self._pose: OneEuroState | None = None
        self._gaze: OneEuroState | None = None
        self._anchor = np.eye(3)

    def reset(self) -> None:
        """Forget the past: the next motion passes as it is."""
        self._expression = self._pose = self._gaze = None

    def __call__(self, motion: Motion) -> Motion:
        """The smoothed motion."""
        r = rotation_matrix(motion.rotation_rad)
        if self._pose is None:
            self._anchor = r
        # rotation vectors about the first pose: far from the half turn where they jump
        turn = rotation_vector(r @ self._anchor.T)
        pose = np.concatenate([turn, motion.translation_hu.astype(np.float64)])
        t = motion.time_s
        self._expression = one_euro(EXPRESSION, self._expression, t, motion.expression.astype(np.float64))
        self._pose = one_euro(POSE, self._pose, t, pose)
        self._gaze = one_euro(GAZE, self._gaze, t, motion.gaze_rad.astype(np.float64).ravel())
        rotation = rotation_vector(rotation_matrix(self._pose.value[:3]) @ self._anchor)
        return replace(
            motion,
            expression=self._expression.value.astype(np.float32)[:EXPRESSION_COUNT],
            rotation_rad=rotation.astype(np.float32),
            translation_hu=self._pose.value[3:].astype(np.float32),
            gaze_rad=self._gaze.value.astype(np.float32).reshape(2, 2),
        )
