"""Idle life: blinks, a slow sway of the head and small saccades, as a pure function of time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engines.geometry import rotation_matrix, rotation_vector
from engines.motion import ARKIT_INDEX, Motion

IDLE_AFTER_S = 0.25  # no driving frame for this long: idle life at IDLE_FPS
IDLE_FPS = 25.0

BLINK_RATE_HZ = 0.25
BLINK_S = 0.16
_SLOT_S = 1 / BLINK_RATE_HZ
_SWAY_RAD = np.radians([0.8, 1.2, 0.6])
_SWAY_HZ = np.array([0.11, 0.083, 0.067])


def _noise(slot: int, salt: int) -> float:
    """A repeatable random number in 0 … 1 for a time slot (so that idle life needs no state)."""
    return float(np.random.default_rng([slot & 0xFFFFFFFF, salt]).random())


def blink_at(time_s: float) -> float:
    """Lid closure 0 … 1: one blink at a random moment of each 4 s."""
    slot = int(np.floor(time_s / _SLOT_S))
    start_s = (slot + 0.1 + 0.75 * _noise(slot, 1)) * _SLOT_S
    x = (time_s - start_s) / BLINK_S
    # lids fall faster than they rise
    return float(np.clip(np.minimum(x / 0.35, (1 - x) / 0.65), 0, 1)) if 0 <= x <= 1 else 0.0


def saccade_at(time_s: float) -> tuple[float, float]:
    """(yaw, pitch) of the gaze in radians: rests, then jumps a little, about once in 1.5 s."""
    slot = int(np.floor(time_s / 1.5))
    return 0.06 * (_noise(slot, 2) - 0.5), 0.03 * (_noise(slot, 3) - 0.5)


def with_idle(rest: Motion, time_s: float, strength: float = 1.0) -> Motion:
    """`rest` with idle life added: what an avatar does when nobody drives it."""
    expression = rest.expression.copy()
    blink = strength * blink_at(time_s)
    for name in ("eyeBlinkLeft", "eyeBlinkRight"):
        index = ARKIT_INDEX[name]
        expression[index] = max(float(expression[index]), blink)
    sway = strength * _SWAY_RAD * np.sin(2 * np.pi * _SWAY_HZ * time_s)
    rotation = rotation_vector(rotation_matrix(sway) @ rotation_matrix(rest.rotation_rad))
    gaze = rest.gaze_rad + strength * np.asarray(saccade_at(time_s), np.float32)
    return replace(
        rest,
        time_s=time_s,
        expression=expression,
        rotation_rad=rotation.astype(np.float32),
        gaze_rad=gaze.astype(np.float32),
    )
