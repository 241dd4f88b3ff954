"""Whether a second of a face was calm: what was seen in its calmest frames, and why that is no rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64, rotation_matrix, rotation_vector, yaw_pitch_roll_deg
from engines.head.fit import openings
from engines.motion import ARKIT_INDEX, ARKIT_NAMES

F32 = NDArray[np.float32]

CALIBRATION_S = 1.0
CALM_SHARE = 0.5

# Coefficients that say "not at rest" (talking, smiling, blinking) wherever calm frames are chosen.
RESTLESS = [
    ARKIT_INDEX[name]
    for name in ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "mouthFunnel", "mouthPucker",
                 "eyeBlinkLeft", "eyeBlinkRight", "browInnerUp")
]  # fmt: skip

# What a face at rest stays below: above 95 of 100 of 92 people asked to look calm (all pucker or raise brows by
# nature more than one would think; none of them opens the mouth). Not named: whatever it is.
MOST_AT_REST: F64 = np.ones(len(ARKIT_NAMES))
for _prefix, _most in (
    ("jawOpen", 0.06), ("mouthSmile", 0.28), ("mouthFunnel", 0.11), ("mouthPucker", 0.3),
    ("mouthUpperUp", 0.1), ("mouthLowerDown", 0.08), ("mouthStretch", 0.12), ("mouthDimple", 0.11),
    ("cheekPuff", 0.07), ("eyeBlink", 0.22), ("eyeLookDown", 0.3), ("eyeWide", 0.2), ("eyeSquint", 0.5),
    ("browInnerUp", 0.5), ("browOuterUp", 0.45), ("browDown", 0.4), ("noseSneer", 0.1), ("tongueOut", 0.0),
):  # fmt: skip
    MOST_AT_REST[[k for k, name in enumerate(ARKIT_NAMES) if name.startswith(_prefix)]] = _most

_SMILES = [ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["mouthSmileRight"]]
_BLINKS = [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]
_WIDES = [ARKIT_INDEX["eyeWideLeft"], ARKIT_INDEX["eyeWideRight"]]
_BROW = ARKIT_INDEX["browInnerUp"]

_GAP_COUNTS = 4.0  # lips a tenth of the mouth's width apart are as restless as a smile of 0.4
_GAP, _SMILE, _BLINK, _WIDE, _BROWS = 0.05, 0.35, 0.4, 0.12, 0.62
_YAW_DEG, _PITCH_DEG, _ROLL_DEG = 20.0, 16.0, 18.0
GAZE_DOWN_RAD, GAZE_ASIDE_RAD = 0.12, 0.3  # at rest the irises' middles say −0.19: looking at the camera
_MOVING_DEG = 4.0
# Of a face that is livelier than most and yet may rest like that, the whole second has to be still.
_STILL_GAP, _STILL_SMILE, _STILL_DEG = 0.05, 0.15, 2.5


@dataclass(frozen=True, slots=True)
class Sample:
    """One tracked frame: `unposed_hu` (478, 3), `scores` (52,); `cut_off`: the picture shows a part of the face."""

    time_s: float
    unposed_hu: F64
    scores: F32
    rotation_rad: F64
    translation_hu: F64
    gaze_rad: F32
    cut_off: bool
    gap: float  # between the lips, over the mouth's width

    @property
    def lively(self) -> float:
        """How far from any rest the face is, by itself."""
        return float(self.scores[RESTLESS].sum()) + _GAP_COUNTS * self.gap


def sample_of(
    time_s: float,
    unposed_hu: F64,
    scores: F32,
    rotation_rad: F64,
    translation_hu: F64,
    gaze_rad: F32,
    cut_off: bool = False,
) -> Sample:
    """A frame with what is measured of it once."""
    gap = float(openings(unposed_hu)[0])
    return Sample(time_s, unposed_hu, scores, rotation_rad, translation_hu, gaze_rad, cut_off, gap)


def calmest(samples: Sequence[Sample], share: float = CALM_SHARE) -> list[Sample]:
    """The calm half: least speech, smile and blink, least turned from the median pose; calmest first."""
    turns = np.array([s.rotation_rad for s in samples])
    restless = np.array([s.lively for s in samples]) + np.linalg.norm(turns - np.median(turns, 0), axis=1)
    return [samples[i] for i in np.argsort(restless)[: max(1, round(share * len(samples)))]]


def mean_rotation(rotations: Sequence[F64]) -> F64:
    """The mean of rotation vectors (3,) that lie near each other, in the space tangent to the first."""
    middle = rotation_matrix(rotations[0])
    around = [rotation_vector(rotation_matrix(r) @ middle.T) for r in rotations]
    return rotation_vector(rotation_matrix(np.mean(around, 0)) @ middle)


def not_calm(samples: Sequence[Sample], slack: float = 1.0) -> tuple[str, ...]:
    """What of a second is no rest, in the words of `NeutralReport.why`; empty where its calm half is one.

    Absolute at `slack` 1: few people rest beyond these limits. They grow with `slack`, for who does (a natural
    smile, parted lips, narrow eyes, a camera at the side); then the whole second must be still.
    """
    calm = calmest(samples)
    # of each the most: a mean would pass a second of which the beginning was lively
    scores = np.max([s.scores for s in calm], 0)
    gap = max(s.gap for s in calm)
    gaps = [s.gap for s in samples]
    turns = np.array([yaw_pitch_roll_deg(s.rotation_rad) for s in calm])
    yaw, pitch, roll = np.abs(turns).max(0)
    gazes = np.array([s.gaze_rad.mean(0) for s in calm])
    gaze_yaw, gaze_pitch = np.abs(gazes[:, 0]).max(), gazes[:, 1].max()
    lively = slack > 1
    lips_move = float(np.ptp(gaps))
    why: list[str] = []
    if gap > _GAP * slack or (lively and lips_move > _STILL_GAP):
        why.append("talking" if lips_move > _STILL_GAP else "mouth_open")
    smiles = [float(s.scores[_SMILES].mean()) for s in samples]
    if scores[_SMILES].mean() > _SMILE * slack or (lively and np.ptp(smiles) > _STILL_SMILE):
        why.append("smiling")
    if scores[_BLINKS].max() > _BLINK * slack and gaze_pitch <= GAZE_DOWN_RAD * slack:
        why.append("eyes_shut")
    if scores[_BROW] > _BROWS * slack or scores[_WIDES].mean() > _WIDE * slack:
        why.append("brows_up")
    if yaw > _YAW_DEG * slack or roll > _ROLL_DEG * slack or gaze_yaw > GAZE_ASIDE_RAD * slack:
        why.append("turned")
    if pitch > _PITCH_DEG * slack or gaze_pitch > GAZE_DOWN_RAD * slack:
        why.append("turned" if turns[:, 1].mean() < -_PITCH_DEG * slack else "looking_down")
    if turns.std(0).max() > (_STILL_DEG if lively else _MOVING_DEG):
        why.append("moving")
    if sum(s.cut_off for s in samples) > len(samples) // 2:
        why.append("cut_off")
    return tuple(dict.fromkeys(why))
