"""Retargeting: the driver's motion, told relative to its neutral, becomes motion of the source photo's head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from engines.geometry import F64, rotation_matrix, rotation_vector
from engines.motion import EXPRESSION_COUNT, Motion

MotionMode = Literal["relative", "absolute"]

ZERO_EXPRESSION = np.zeros(EXPRESSION_COUNT, np.float32)


@dataclass(frozen=True, slots=True)
class Controls:
    """What a user may change while it runs.

    `expression` and `head` are strengths (1 = as the driver does it). `place_absolutely` also takes the
    head's position from the driver's picture (absolute motion in the photo's own framing).
    """

    expression: float = 1.0
    head: float = 1.0
    motion: MotionMode = "relative"
    place_absolutely: bool = False


def _soft_limit(value: float, knee: float, limit: float) -> float:
    """`value` below `knee`, then easing towards ±`limit`: no driver turns the head beyond the photo."""
    size = abs(value)
    if size <= knee:
        return value
    room = limit - knee
    return float(np.sign(value) * (knee + room * np.tanh((size - knee) / room)))


def _limit_rotation(turn: F64, knee_rad: float, limit_rad: float) -> F64:
    angle = float(np.linalg.norm(turn))
    return turn if angle <= knee_rad else turn / angle * _soft_limit(angle, knee_rad, limit_rad)


ROTATION_KNEE_RAD, ROTATION_LIMIT_RAD = np.radians(20.0), np.radians(32.0)
SHIFT_KNEE_HU, SHIFT_LIMIT_HU = 0.3, 0.6
ZOOM_KNEE, ZOOM_LIMIT = 0.15, 0.3  # of log distance


def retarget(driver: Motion, neutral: Motion, source: Motion, controls: Controls) -> Motion:
    """Motion for the photo's head, in the photo's own camera.

    `driver` and `neutral` are in the driver's camera, `source` is the photo's own motion. Relative:
    `source + strength · (driver − neutral)`. Absolute: the driver's own expression and rotation.
    """
    absolute = controls.motion == "absolute"
    base = ZERO_EXPRESSION if absolute else source.expression
    rest = ZERO_EXPRESSION if absolute else neutral.expression
    expression = base + controls.expression * (driver.expression - rest)
    gaze_base, gaze_rest = source.gaze_rad, neutral.gaze_rad
    gaze = gaze_base + controls.expression * (driver.gaze_rad - gaze_rest)

    r_source = rotation_matrix(source.rotation_rad)
    r_driver = rotation_matrix(driver.rotation_rad)
    # the turn that leads away from the photo's own pose
    turn = r_driver @ (r_source if absolute else rotation_matrix(neutral.rotation_rad)).T
    turn_rad = _limit_rotation(
        rotation_vector(turn) * controls.head, float(ROTATION_KNEE_RAD), float(ROTATION_LIMIT_RAD)
    )
    rotation = rotation_vector(rotation_matrix(turn_rad) @ r_source)

    if absolute and controls.place_absolutely:
        translation = driver.translation_hu.astype(np.float64)
    else:
        zoom = np.log(
            max(float(driver.translation_hu[2]), 1e-3) / max(float(neutral.translation_hu[2]), 1e-3)
        )
        grow = float(np.exp(_soft_limit(controls.head * float(zoom), ZOOM_KNEE, ZOOM_LIMIT)))
        shift = controls.head * (driver.translation_hu[:2] - neutral.translation_hu[:2])
        shift = np.array([_soft_limit(float(v), SHIFT_KNEE_HU, SHIFT_LIMIT_HU) for v in shift])
        # the head moves by `shift` as seen at the photo's scale, whatever its distance becomes
        xy = (source.translation_hu[:2] + shift) * grow
        translation = np.array([xy[0], xy[1], source.translation_hu[2] * grow])
    return Motion(
        time_s=driver.time_s,
        expression=np.clip(expression, -0.5, 1.5).astype(np.float32),
        rotation_rad=rotation.astype(np.float32),
        translation_hu=translation.astype(np.float32),
        gaze_rad=np.clip(gaze, -0.8, 0.8).astype(np.float32),
        confidence=driver.confidence,
    )
