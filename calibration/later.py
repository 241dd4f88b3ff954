"""Later evidence on a driver's neutral: a calmer face, where the person mostly looks, another person."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from calibration.calm import CALIBRATION_S, Sample, calmest, mean_rotation, not_calm
from calibration.neutral import DriverNeutral
from engines.geometry import F64, align_similarity, rotation_matrix, rotation_vector, yaw_pitch_roll_deg
from engines.head.fit import SURFACE, ExpressionFit
from engines.head.model import HeadModel
from engines.motion import ARKIT_INDEX, Motion

F32 = NDArray[np.float32]

APART_S = 10.0  # between two revisions: the avatar is not to wander
_CALMER = 0.2  # of a coefficient, by which the neutral has to be livelier than the face is now
_CALMER_SECONDS = 2
_USUAL_S, _POSE_STEP_S = 6.0, 0.25
_USUAL_DEG, _USUAL_SHARE = 6.0, 0.8
_FRONTAL_DEG, _STRAIGHT_RAD = 7.0, 0.15  # so much nearer to the camera a usual pose or gaze has to be
_AT_CAMERA_RAD = np.array([0.0, -0.19])  # what the irises' middles say of who looks into it
# Mean distance of two neutral meshes, in percent of half a face. Of one person, from any two seconds, 1.4, of 99 in
# 100 below 4 (talk and turns leave their mark); of two people 3.1. So it counts for much only after an absence.
_HALF_FACE_HU = 0.8
_OTHER_PERCENT, _OTHER_AFTER_ABSENCE_PERCENT = 5.5, 2.8
_FACING_DEG = 20.0

# What stretches an avatar where a neutral has it and the face at rest has not.
_LIVELY = [
    ARKIT_INDEX[name]
    for name in ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "mouthFunnel", "mouthUpperUpLeft", "mouthUpperUpRight",
                 "mouthLowerDownLeft", "mouthLowerDownRight", "mouthStretchLeft", "mouthStretchRight",
                 "eyeBlinkLeft", "eyeBlinkRight", "browInnerUp")
]  # fmt: skip

Choose = Callable[[Sequence[Sample]], DriverNeutral]
UsualPose = tuple[F32, F32, F32]  # rotation (3,), translation (3,), gaze (2, 2)


@dataclass(frozen=True, slots=True)
class Found:
    """The neutral to use from now on; `sure`: from a second that was calm by any measure."""

    neutral: DriverNeutral
    sure: bool
    is_new_person: bool = False


class Later:
    """Looks at each further second. One step a second at the most, and no two revisions within `APART_S`."""

    def __init__(self, model: HeadModel, *, fits: bool) -> None:
        """`fits`: see `calibration.neutral.choose_neutral`."""
        self._fit = ExpressionFit(model)
        self._fits = fits
        self._rigid = np.asarray(model.fit_weight, np.float64)
        self._poses: deque[tuple[float, F64, F64, F32]] = deque(maxlen=round(_USUAL_S / _POSE_STEP_S))
        self._sure = False
        self._is_back = False
        self._calmer = self._other = 0
        self._looked_s = self._revised_s = -np.inf

    def begin(self, *, sure: bool) -> None:
        """A neutral was taken, from a calm second or (not `sure`) from what there was."""
        self._sure, self._is_back = sure, False
        self._calmer = self._other = 0
        self._looked_s = -np.inf

    def was_away(self) -> None:
        """The face was away: whoever is there now may be somebody else."""
        self._poses.clear()
        self._is_back = True
        self._calmer = self._other = 0
        self._looked_s = self._revised_s = -np.inf

    def saw(self, sample: Sample) -> None:
        """Remember where the person looks."""
        if self._poses and 0 <= sample.time_s - self._poses[-1][0] < _POSE_STEP_S:
            return
        self._poses.append((sample.time_s, sample.rotation_rad, sample.translation_hu, sample.gaze_rad))

    def usual_pose(self) -> UsualPose | None:
        """Where the person mostly looked of late; None where that is not known, or nowhere in particular."""
        if len(self._poses) < (self._poses.maxlen or 0):
            return None
        turns = np.array([p[1] for p in self._poses])
        middle = np.median(turns, 0)
        near = np.array([_degrees_between(middle, t) <= _USUAL_DEG for t in turns])
        if near.mean() < _USUAL_SHARE:
            return None
        kept = [p for p, is_near in zip(self._poses, near, strict=True) if is_near]
        return (
            mean_rotation([p[1] for p in kept]).astype(np.float32),
            np.median([p[2] for p in kept], 0).astype(np.float32),
            np.median([p[3] for p in kept], 0).astype(np.float32),
        )

    def look(
        self, second: Sequence[Sample], now: DriverNeutral, time_s: float, choose: Choose
    ) -> Found | None:
        """What the last second says against the neutral `now`; `choose` takes one from it."""
        if 0 <= time_s - self._looked_s < CALIBRATION_S:
            return None
        self._looked_s = time_s
        chosen = cache(lambda: choose(second))  # it fits a face: once, and only where it is asked
        if self._is_other(second, now, chosen):
            return Found(chosen(), sure=False, is_new_person=True)
        if 0 <= time_s - self._revised_s < APART_S:
            return None
        is_calm = not not_calm(second)
        if is_calm and not self._sure:
            return self._revise(chosen(), now, time_s, sure=True)
        if (is_calm or not not_calm(second, 2.0)) and self._livelier_by(second, now) > _CALMER:
            self._calmer += 1
        else:
            self._calmer = 0
        if self._calmer >= _CALMER_SECONDS:
            return self._revise(chosen(), now, time_s, sure=is_calm)
        usual = self.usual_pose()
        if usual is None or not _is_nearer(usual, now.motion):
            return None
        self._revised_s = time_s
        rotation, translation, gaze = usual
        motion = replace(now.motion, rotation_rad=rotation, translation_hu=translation, gaze_rad=gaze)
        return Found(replace(now, motion=motion), self._sure)

    def _revise(self, found: DriverNeutral, now: DriverNeutral, time_s: float, *, sure: bool) -> Found:
        self._revised_s = time_s
        pose = (found.motion.rotation_rad, found.motion.translation_hu, found.motion.gaze_rad)
        if self._sure and not _is_nearer(pose, now.motion):  # a glance aside is no reason to turn
            old = now.motion
            motion = replace(
                found.motion,
                rotation_rad=old.rotation_rad,
                translation_hu=old.translation_hu,
                gaze_rad=old.gaze_rad,
            )
            found = replace(found, motion=motion)
        return Found(found, sure)

    def _livelier_by(self, second: Sequence[Sample], now: DriverNeutral) -> float:
        """By how much of a coefficient the neutral is livelier than the calm half: so far the avatar is stretched."""
        calm = calmest(second)
        scores = np.mean([s.scores for s in calm], 0).astype(np.float32)
        mean = np.mean([s.unposed_hu for s in calm], 0)
        seen = self._fit.solve(mean, now.mesh_hu, scores) if self._fits else scores
        return float((now.motion.expression - seen)[_LIVELY].max())

    def _is_other(
        self, second: Sequence[Sample], now: DriverNeutral, chosen: Callable[[], DriverNeutral]
    ) -> bool:
        """Whether this is clearly another face: at once after an absence, else after two seconds."""
        yaw, pitch, _ = np.abs(np.mean([yaw_pitch_roll_deg(s.rotation_rad) for s in second], 0))
        if max(yaw, pitch) > _FACING_DEG:
            return False
        apart = self._apart_percent(chosen().mesh_hu, now.mesh_hu)
        if self._is_back:
            self._is_back = False
            return apart > _OTHER_AFTER_ABSENCE_PERCENT
        self._other = self._other + 1 if apart > _OTHER_PERCENT else 0
        return self._other >= _CALMER_SECONDS

    def _apart_percent(self, a_hu: F64, b_hu: F64) -> float:
        laid = align_similarity(a_hu, b_hu, self._rigid).apply(a_hu)
        return float(100 * np.linalg.norm((laid - b_hu)[:SURFACE], axis=1).mean() / _HALF_FACE_HU)


def _degrees_between(a_rad: F64 | F32, b_rad: F64 | F32) -> float:
    return float(
        np.degrees(np.linalg.norm(rotation_vector(rotation_matrix(a_rad) @ rotation_matrix(b_rad).T)))
    )


def _is_nearer(pose: UsualPose, now: Motion) -> bool:
    """Whether head or eyes face the camera clearly more than at `now`'s rest."""
    rotation, _, gaze = pose
    straighter = np.degrees(np.linalg.norm(now.rotation_rad) - np.linalg.norm(rotation))
    eyes = np.linalg.norm(now.gaze_rad.mean(0) - _AT_CAMERA_RAD) - np.linalg.norm(
        gaze.mean(0) - _AT_CAMERA_RAD
    )
    return bool(straighter > _FRONTAL_DEG or (eyes > _STRAIGHT_RAD and straighter > -_FRONTAL_DEG / 2))
