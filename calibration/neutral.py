"""The driver's neutral: the face at rest, taken from the calmest frames of a second; re-takeable."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64, rotation_matrix, rotation_vector
from engines.head.fit import fit_source
from engines.head.model import HeadModel
from engines.motion import ARKIT_INDEX, Motion

F32 = NDArray[np.float32]
NeutralState = Literal["waiting", "taken"]  # waiting: not calm yet, a provisional one serves

CALIBRATION_S = 1.0
EASE_S = 0.5  # a re-taken neutral is eased in: the avatar never jumps
CALM_SHARE = 0.5

# Coefficients that say "not at rest" (talking, smiling, blinking) wherever calm frames are chosen.
RESTLESS = [
    ARKIT_INDEX[name]
    for name in ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "mouthFunnel", "mouthPucker",
                 "eyeBlinkLeft", "eyeBlinkRight", "browInnerUp")
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class DriverNeutral:
    """`mesh_hu` (478, 3): the expressionless face; `motion`: pose, expression and gaze at rest."""

    mesh_hu: F64
    motion: Motion


@dataclass(frozen=True, slots=True)
class NeutralReport:
    """How the neutral stands: what is not calm (`why`, empty when taken), and which neutral it is.

    `why`: "talking", "mouth_open", "smiling", "eyes_shut", "brows_up", "turned", "looking_down",
    "moving", "cut_off". `revision` grows whenever the neutral in use begins to become another: first taken,
    re-taken, revised by later evidence.
    """

    state: NeutralState = "waiting"
    why: tuple[str, ...] = ()
    revision: int = 0


@dataclass(frozen=True, slots=True)
class _Sample:
    time_s: float
    unposed_hu: F64
    scores: F32
    rotation_rad: F64
    translation_hu: F64
    gaze_rad: F32


def choose_neutral(model: HeadModel, samples: list[_Sample]) -> DriverNeutral:
    """Neutral from the calmest half: least speech, smile and blink, least turned from the median pose."""
    lively = np.array([s.scores[RESTLESS] for s in samples])
    turns = np.array([s.rotation_rad for s in samples])
    restless = lively.sum(1) + np.linalg.norm(turns - np.median(turns, 0), axis=1)
    calm = [samples[i] for i in np.argsort(restless)[: max(1, round(CALM_SHARE * len(samples)))]]
    scores = np.mean([s.scores for s in calm], 0).astype(np.float32)
    mean = np.mean([s.unposed_hu for s in calm], 0)
    # what of the rest is this person's face and what is expression: told apart by the model's priors
    rest = fit_source(model, mean, scores).expression
    mesh = mean - np.asarray(model.landmarks(np.tensordot(rest, model.expression_hu, 1)), np.float64)
    middle = calm[0].rotation_rad
    around = [rotation_vector(rotation_matrix(s.rotation_rad) @ rotation_matrix(middle).T) for s in calm]
    rotation = rotation_vector(rotation_matrix(np.mean(around, 0)) @ rotation_matrix(middle))
    motion = Motion(
        expression=rest,
        rotation_rad=rotation.astype(np.float32),
        translation_hu=np.mean([s.translation_hu for s in calm], 0).astype(np.float32),
        gaze_rad=np.mean([s.gaze_rad for s in calm], 0).astype(np.float32),
    )
    return DriverNeutral(mesh, motion)


class NeutralEstimator:
    """Collects a second of frames; until then (and while re-taking) a provisional neutral serves."""

    def __init__(self, model: HeadModel) -> None:
        self._model = model
        self._samples: list[_Sample] = []
        self._current: DriverNeutral | None = None
        self._from: DriverNeutral | None = None
        self._to: DriverNeutral | None = None
        self._ease_start_s = 0.0
        self._collecting = True
        self._revision = 0

    @property
    def report(self) -> NeutralReport:
        """How it stands after the last frame."""
        return NeutralReport("waiting" if self._collecting else "taken", (), self._revision)

    @property
    def target(self) -> DriverNeutral | None:
        """The neutral that `current` is being eased into: the one to keep."""
        return self._to or self._current

    @property
    def collecting(self) -> bool:
        """Whether the second is still being watched."""
        return self._collecting

    @property
    def current(self) -> DriverNeutral | None:
        """The neutral to use now, or None before the first face."""
        return self._current

    def restart(self) -> None:
        """Take the neutral anew; the old one serves meanwhile."""
        self._samples = []
        self._collecting = True

    def adopt(self, neutral: DriverNeutral) -> None:
        """Use `neutral` at once and stop collecting."""
        self._samples, self._collecting = [], False
        self._current, self._to = neutral, None
        self._revision += 1

    def add(
        self,
        time_s: float,
        unposed_hu: F64,
        scores: F32,
        rotation_rad: F64,
        translation_hu: F64,
        gaze_rad: F32,
    ) -> None:
        """One tracked frame."""
        if self._collecting:
            if self._samples and not 0 <= time_s - self._samples[-1].time_s <= CALIBRATION_S:
                self._samples = []  # the driver's clock went back, a new clip; or the face was away
            sample = _Sample(time_s, unposed_hu, scores, rotation_rad, translation_hu, gaze_rad)
            self._samples.append(sample)
            if self._current is None:
                self._current = choose_neutral(self._model, self._samples)
            elif self._samples[-1].time_s - self._samples[0].time_s >= CALIBRATION_S:
                self._from, self._to = self._current, choose_neutral(self._model, self._samples)
                self._ease_start_s = time_s
                self._samples, self._collecting = [], False
                self._revision += 1
        if self._to is not None and self._from is not None:
            weight = float(np.clip((time_s - self._ease_start_s) / EASE_S, 0, 1))
            self._current = _blend_neutral(self._from, self._to, weight)
            if weight >= 1:
                self._to = None


def _blend_neutral(a: DriverNeutral, b: DriverNeutral, weight: float) -> DriverNeutral:
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
