"""`ToldTracker`: follows a face that others track; its neutral is taken as a webcam's is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.calm import sample_of
from calibration.neutral import DriverNeutral, NeutralReport
from calibration.neutral_estimator import NeutralEstimator
from engines.geometry import F64
from engines.head.fit import ExpressionFit, closure_of_openings, openings
from engines.head.model import HeadModel, load_head_model
from engines.motion import Motion
from streamer.drive.told import Told
from streamer.drive.trackers.tracker import Track, Tracker
from streamer.frame import Frame

F32 = NDArray[np.float32]


class ToldTracker(Tracker):
    """Told coefficients on the mean head: how closed its lips and lids are is measured there.

    The mean head's lips rest a little apart, ARKit's 0 means closed ones: they close from there.
    """

    def __init__(self, model: HeadModel | None = None) -> None:
        model = model or load_head_model()
        self._fit = ExpressionFit(model)
        self._mean: F64 = np.asarray(model.landmarks(model.mean_hu), np.float64)
        self._apart = float(openings(self._mean)[0])
        self._estimator = NeutralEstimator(model, fits=False)
        self._rest: tuple[DriverNeutral, F64] | None = None

    @property
    def neutral(self) -> Motion | None:
        current = self._estimator.current
        return current.motion if current else None

    @property
    def neutral_report(self) -> NeutralReport:
        return self._estimator.report

    @property
    def driver_neutral(self) -> DriverNeutral | None:
        return self._estimator.target

    def retake_neutral(self) -> None:
        self._estimator.restart()

    def use_neutral(self, neutral: DriverNeutral, *, for_good: bool = False) -> None:
        self._estimator.adopt(neutral, for_good=for_good)

    def track(self, frame: Frame) -> Track:
        """Sees nothing of pictures."""
        return Track(None, calibrating=self._estimator.collecting)

    def told(self, moment: Told) -> Track:
        motion = moment.motion
        if motion is None or not motion.is_finite():
            return Track(None, calibrating=self._estimator.collecting)
        shape = self._mean + self._fit.offset(motion.expression)
        opened = self._opened(shape)
        sample = sample_of(
            motion.time_s,
            shape,
            motion.expression,
            motion.rotation_rad.astype(np.float64),
            motion.translation_hu.astype(np.float64),
            motion.gaze_rad,
        )
        self._estimator.add(replace(sample, gap=float(opened[0])))
        neutral = self._estimator.current
        assert neutral is not None  # add() just saw a face
        closure = closure_of_openings(opened, self._rest_openings(neutral))
        return Track(replace(motion, closure=closure), calibrating=self._estimator.collecting)

    def _opened(self, shape_hu: F64) -> F64:
        """How open mouth and eyes are (3,), lips counted from where the mean head's rest."""
        opened = openings(shape_hu)
        opened[0] = max(opened[0] - self._apart, 0.0)
        return opened

    def _rest_openings(self, neutral: DriverNeutral) -> F64:
        """How open they are at the driver's rest; kept until the neutral changes."""
        if self._rest is None or self._rest[0] is not neutral:
            self._rest = (neutral, self._opened(self._mean + self._fit.offset(neutral.motion.expression)))
        return self._rest[1]

    def close(self) -> None:
        return
