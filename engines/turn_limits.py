"""How far a photo's head may turn: eased to a limit that is nearer where the photo shows less."""

from __future__ import annotations

import numpy as np

from engines.geometry import F64, yaw_pitch_roll_deg

KNEE_DEG, LIMIT_DEG = 20.0, 32.0  # of a turn away from a frontal photo's pose
TURNED_DEG = 30.0  # a photo turned so far to the side …
BACK_SHARE = 0.5  # … turns back by this share of it: its far cheek was never seen
FURTHEST_DEG = 45.0  # to the side, the photo's own turn included: beyond, no photo shows a nose's other side
LEAST_DEG = 10.0  # room that there always is


def turn_limits_deg(own_rotation_rad: F64, turn_rad: F64) -> tuple[float, float]:
    """(knee, limit) for a turn (3,), a rotation vector, of a head whose photo has it at `own_rotation_rad` (3,).

    Up to the knee a head turns as it is told to; nothing goes beyond the limit. Both depend on where the turn
    leads, in equal measure, so they are continuous but where nothing turns.
    """
    own_yaw = yaw_pitch_roll_deg(own_rotation_rad)[0]
    angle = float(np.linalg.norm(turn_rad))
    if angle == 0:
        return KNEE_DEG, LIMIT_DEG
    # −1 … 1: whether the turn goes back from the photo's own, or further
    further = float(-turn_rad[1] / angle) * float(np.sign(own_yaw))
    share = min(abs(own_yaw) / TURNED_DEG, 1.0)
    back = 1 - BACK_SHARE * share * max(-further, 0.0)
    room = max(LEAST_DEG, FURTHEST_DEG - abs(own_yaw))
    on = 1 - max(further, 0.0) * (1 - min(1.0, room / LIMIT_DEG))
    return KNEE_DEG * back * on, LIMIT_DEG * back * on


def bears_deg(yaw_deg: float) -> tuple[float, float]:
    """The limits of turning back and of turning on, for a photo whose head is turned by `yaw_deg` to the side."""
    own, one = (
        np.array([0.0, -np.radians(yaw_deg), 0.0]),
        np.array([0.0, -1.0, 0.0]) * np.sign(yaw_deg or 1.0),
    )
    return turn_limits_deg(own, -one)[1], turn_limits_deg(own, one)[1]
