"""Editing a still: another expression, pose, gaze or shape of one enrolled face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.errors import VisavisError
from engines.geometry import rotation_from_degrees, yaw_pitch_roll_deg
from engines.head.model import HeadModel
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT, Motion
from engines.retarget import LIP_OPENERS

F32 = NDArray[np.float32]

LEAST, MOST = -0.3, 1.3  # of a coefficient
TURN_LIMIT_DEG = 60.0
GAZE_LIMIT_DEG = 35.0
SHAPE_LIMIT_SIGMA = 3.0


class EditError(VisavisError):
    """An edit names something that is not there or goes beyond what a face bears; the message names the range."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What to change of a photo's motion; None leaves the photo's own.

    - `expression`: ARKIT name → coefficient, -0.3 … 1.3; the others stay, or become 0 with `neutral`.
    - `yaw_deg`, `pitch_deg`, `roll_deg`: the head in the picture, within ±60; 0 looks straight at the camera.
    - `gaze_yaw_deg`, `gaze_pitch_deg`: both eyes against the head, within ±35.
    - `neutral`: no expression, lips closed, eyes open.
    """

    expression: Mapping[str, float] = field(default_factory=dict[str, float])
    yaw_deg: float | None = None
    pitch_deg: float | None = None
    roll_deg: float | None = None
    gaze_yaw_deg: float | None = None
    gaze_pitch_deg: float | None = None
    neutral: bool = False


FRONTAL = Edit(yaw_deg=0.0, pitch_deg=0.0, roll_deg=0.0)


def _within(name: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise EditError(f"{name} is {value:g}; give a number from {low:g} to {high:g}")
    return value


def apply_edit(source: Motion, edit: Edit) -> Motion:
    """The photo's motion `source`, edited. Raises EditError for an unknown coefficient or one out of range.

    What opens the mouth or sets an eyelid also undoes the closure that was measured in the photo: a mouth that is
    told to open opens.
    """
    expression = np.zeros(EXPRESSION_COUNT, np.float32) if edit.neutral else source.expression.copy()
    closure = np.array([1, 0, 0], np.float32) if edit.neutral else source.closure.copy()
    for name, value in edit.expression.items():
        if name not in ARKIT_INDEX:
            raise EditError(f"there is no coefficient {name!r}; choose one of: {', '.join(ARKIT_INDEX)}")
        expression[ARKIT_INDEX[name]] = _within(name, value, LEAST, MOST)
        if name in LIP_OPENERS and value > 0:
            closure[0] = 0
        elif name in ("eyeBlinkRight", "eyeWideRight"):
            closure[1] = 0
        elif name in ("eyeBlinkLeft", "eyeWideLeft"):
            closure[2] = 0
    rotation = source.rotation_rad
    told = (edit.yaw_deg, edit.pitch_deg, edit.roll_deg)
    if told != (None, None, None):
        own = yaw_pitch_roll_deg(source.rotation_rad)
        angles = [
            value if deg is None else _within(name, deg, -TURN_LIMIT_DEG, TURN_LIMIT_DEG)
            for name, deg, value in zip(("yaw", "pitch", "roll"), told, own, strict=True)
        ]
        rotation = rotation_from_degrees(*angles).astype(np.float32)
    gaze = source.gaze_rad.copy()
    for axis, (name, deg) in enumerate(
        (("gaze-yaw", edit.gaze_yaw_deg), ("gaze-pitch", edit.gaze_pitch_deg))
    ):
        if deg is not None:
            gaze[:, axis] = np.radians(_within(name, deg, -GAZE_LIMIT_DEG, GAZE_LIMIT_DEG))
    return replace(source, expression=expression, rotation_rad=rotation, gaze_rad=gaze, closure=closure)


def identity_change(model: HeadModel, sigmas: Mapping[int, float]) -> F32:
    """Change of identity dα (K,) in standard deviations: mode number (0 … K-1) → -3 … 3.

    Raises EditError for a mode that the model does not have or a change beyond that.
    """
    count = len(model.identity_hu)
    delta = np.zeros(count, np.float32)
    for index, sigma in sigmas.items():
        if not 0 <= index < count:
            raise EditError(f"there is no shape {index}; this head model has 0 to {count - 1}")
        delta[index] = _within(f"shape {index}", sigma, -SHAPE_LIMIT_SIGMA, SHAPE_LIMIT_SIGMA)
    return delta


def reshape(enrollment: Enrollment, model: HeadModel, delta_identity: F32) -> Enrollment:
    """The same photo on another head: α + dα and `neutral_hu + B_id dα`, for `delta_identity` (K,) or shorter.

    The photo, its landmarks and its UV maps stay: they say what is to be seen where on the head, and the renderer
    moves that along with the head. Raises EditError when there are more modes than the model has.
    """
    if len(delta_identity) > len(model.identity_hu):
        raise EditError(
            f"{len(delta_identity)} shapes were given; this head model has {len(model.identity_hu)}"
        )
    delta = np.zeros(len(model.identity_hu), np.float32)
    delta[: len(delta_identity)] = delta_identity
    identity = delta.copy()
    identity[: len(enrollment.identity)] += enrollment.identity
    moved = np.tensordot(delta, model.identity_hu, 1)
    return replace(
        enrollment, identity=identity, neutral_hu=(enrollment.neutral_hu + moved).astype(np.float32)
    )
