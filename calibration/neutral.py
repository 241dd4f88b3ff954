"""The driver's neutral: the face at rest, mesh and motion; how it stands, and what of a lively face may be rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibration.calm import (
    CALM_SHARE,
    GAZE_ASIDE_RAD,
    GAZE_DOWN_RAD,
    MOST_AT_REST,
    Sample,
    calmest,
    mean_rotation,
)
from engines.geometry import F64, rotation_from_degrees, yaw_pitch_roll_deg
from engines.head.fit import fit_photo, fit_source
from engines.head.model import HeadModel
from engines.head.neutral_prior import lips_moved, load_neutral_prior
from engines.motion import ARKIT_NAMES, Motion

F32 = NDArray[np.float32]
NeutralState = Literal["waiting", "taken"]  # waiting: not calm yet, a provisional one serves

_PROVISIONAL_DEG = np.array([15.0, 12.0, 10.0])  # yaw, pitch, roll; what is beyond passes for movement


@dataclass(frozen=True, slots=True)
class DriverNeutral:
    """`mesh_hu` (478, 3): the expressionless face; `motion`: pose, expression and gaze at rest."""

    mesh_hu: F64
    motion: Motion


@dataclass(frozen=True, slots=True)
class NeutralReport:
    """How the neutral stands: what is not calm (`why`, empty when taken), and which neutral it is.

    `why`: "talking", "mouth_open", "smiling", "eyes_shut", "brows_up", "turned", "looking_down", "moving",
    "cut_off" (not all of the face is in the picture), "new_person". `revision` grows whenever the neutral
    in use begins to become another: first taken, re-taken, revised by later evidence.
    """

    state: NeutralState = "waiting"
    why: tuple[str, ...] = ()
    revision: int = 0


def choose_neutral(
    model: HeadModel, samples: Sequence[Sample], share: float = CALM_SHARE, *, fits: bool = True
) -> DriverNeutral:
    """Neutral from the calmest `share` of the frames.

    `fits`: the scores only hint at the expression, and what of the rest is this person's face and what is
    expression is told apart by the model's priors; else the scores are the expression.
    """
    calm = calmest(samples, share)
    scores = np.mean([s.scores for s in calm], 0).astype(np.float32)
    mean = np.mean([s.unposed_hu for s in calm], 0)
    rest = _rest_of(model, mean, scores) if fits else scores
    mesh = mean - np.asarray(model.landmarks(np.tensordot(rest, model.expression_hu, 1)), np.float64)
    motion = Motion(
        expression=rest,
        rotation_rad=mean_rotation([s.rotation_rad for s in calm]).astype(np.float32),
        translation_hu=np.mean([s.translation_hu for s in calm], 0).astype(np.float32),
        gaze_rad=np.mean([s.gaze_rad for s in calm], 0).astype(np.float32),
    )
    return DriverNeutral(mesh, motion)


# of the face's height, how far lips are from rest: below the first a driver is at rest, from the second on it smiles
_SMILES_FROM, _SMILES_FULL = 0.01, 0.02
_SMILING = np.array(
    [
        name.startswith(
            (
                "mouthSmile",
                "mouthUpperUp",
                "mouthLowerDown",
                "mouthDimple",
                "mouthStretch",
                "cheek",
                "jawOpen",
            )
        )
        for name in ARKIT_NAMES
    ]
)


def _rest_of(model: HeadModel, mean_hu: F64, scores: F32) -> F32:
    """β (52,) of the calm landmarks (478, 3). Who rests in a smile is told apart as a photo that smiles is, so that
    absolute motion means the same on both faces."""
    alone = fit_source(model, mean_hu, scores).expression
    moved_hu = load_neutral_prior().displacement_px(mean_hu, scores)
    weight = (lips_moved(mean_hu, moved_hu) - _SMILES_FROM) / (_SMILES_FULL - _SMILES_FROM)
    if weight <= 0:
        return alone
    told = fit_photo(model, mean_hu, scores, moved_hu).expression
    return np.where(_SMILING, alone + min(weight, 1.0) * (told - alone), alone).astype(np.float32)


def provisional(neutral: DriverNeutral) -> DriverNeutral:
    """What of a face that is not calm may be rest: beyond what people show at rest it is movement, to be shown."""
    motion = neutral.motion
    angles = np.clip(yaw_pitch_roll_deg(motion.rotation_rad), -_PROVISIONAL_DEG, _PROVISIONAL_DEG)
    low, high = np.array([-GAZE_ASIDE_RAD, -1.0]), np.array([GAZE_ASIDE_RAD, GAZE_DOWN_RAD])
    calm = replace(
        motion,
        expression=np.minimum(motion.expression, MOST_AT_REST).astype(np.float32),
        rotation_rad=rotation_from_degrees(*(float(a) for a in angles)).astype(np.float32),
        gaze_rad=np.clip(motion.gaze_rad, low, high).astype(np.float32),
    )
    return replace(neutral, motion=calm)


def blend_neutral(a: DriverNeutral, b: DriverNeutral, weight: float) -> DriverNeutral:
    """A neutral on the way from `a` (weight 0) to `b` (weight 1)."""

    def mix(x: F32, y: F32) -> F32:
        return ((1 - weight) * x + weight * y).astype(np.float32)

    motion = replace(
        b.motion,
        expression=mix(a.motion.expression, b.motion.expression),
        rotation_rad=mix(a.motion.rotation_rad, b.motion.rotation_rad),
        translation_hu=mix(a.motion.translation_hu, b.motion.translation_hu),
        gaze_rad=mix(a.motion.gaze_rad, b.motion.gaze_rad),
    )
    return DriverNeutral((1 - weight) * a.mesh_hu + weight * b.mesh_hu, motion)
