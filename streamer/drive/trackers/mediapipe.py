"""Tracking on MediaPipe's FaceLandmarker: landmarks fitted by our own 3DMM (its scores serve as a prior)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.calm import sample_of
from calibration.neutral import DriverNeutral, NeutralReport
from calibration.neutral_estimator import NeutralEstimator
from engines.geometry import F64, Camera
from engines.head.fit import ExpressionFit, fit_driver, measure_closure, measure_gaze, openings
from engines.head.landmarks import FaceLandmarks, LandmarkDetector
from engines.head.model import HeadModel, load_head_model
from engines.motion import ARKIT_INDEX, Motion
from streamer.drive.trackers.tracker import Track, Tracker, is_cut_off
from streamer.frame import Frame

F32 = NDArray[np.float32]

_BLINKS = [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]


class MediaPipeTracker(Tracker):
    """Landmarks → pose by Procrustes → β by boxed least squares against the driver's own neutral."""

    def __init__(self, model: HeadModel | None = None) -> None:
        self._model = model or load_head_model()
        self._fit = ExpressionFit(self._model)
        self._detector = LandmarkDetector(video=True)
        self._estimator = NeutralEstimator(self._model)
        self._gaze: F32 = np.zeros((2, 2), np.float32)
        self._mean: F64 = np.asarray(self._model.landmarks(self._model.mean_hu), np.float64)
        self._last: F32 | None = None
        self._rest: tuple[DriverNeutral, F64] | None = None

    @property
    def neutral(self) -> Motion | None:
        current = self._estimator.current
        return current.motion if current else None

    @property
    def neutral_report(self) -> NeutralReport:
        return self._estimator.report

    def retake_neutral(self) -> None:
        self._estimator.restart()

    def use_neutral(self, neutral: DriverNeutral, *, for_good: bool = False) -> None:
        self._estimator.adopt(neutral, for_good=for_good)

    @property
    def driver_neutral(self) -> DriverNeutral | None:
        """Mesh and motion at rest."""
        return self._estimator.target

    def track(self, frame: Frame) -> Track:
        faces = self._detector.detect(frame.image, round(frame.pts_s * 1000))
        if not faces:
            return Track(None, calibrating=self._estimator.collecting)
        height, width = frame.image.shape[:2]
        return self.fit(faces[0], (width, height), frame.pts_s)

    def fit(self, face: FaceLandmarks, size_px: tuple[int, int], time_s: float) -> Track:
        """Motion of one face, detected in a picture of this (width, height) at `time_s`."""
        camera = Camera(*size_px)
        if not np.isfinite(face.scores).all():  # would spoil the neutral for good
            return Track(None, calibrating=self._estimator.collecting)
        current = self._estimator.current
        template = current.mesh_hu if current else self._mean
        try:
            fitted = fit_driver(self._fit, template, face.points_px, face.scores, self._last)
        except ValueError:
            return Track(None, calibrating=self._estimator.collecting)
        rotation, translation = camera.from_similarity(fitted.pose)
        unposed = fitted.unposed_hu
        gaze = measure_gaze(unposed)
        cut_off = is_cut_off(face.points_px, *size_px)
        self._estimator.add(sample_of(time_s, unposed, face.scores, rotation, translation, gaze, cut_off))
        neutral = self._estimator.current
        assert neutral is not None  # add() just saw a face
        expression = fitted.expression if current else self._fit.solve(unposed, neutral.mesh_hu, face.scores)
        self._last = expression
        # a closing lid drags the iris landmarks with it: hold the gaze through a blink
        if float(face.scores[_BLINKS].max()) < 0.5:
            self._gaze = gaze
        motion = Motion(
            time_s=time_s,
            expression=expression,
            rotation_rad=rotation.astype(np.float32),
            translation_hu=translation.astype(np.float32),
            gaze_rad=self._gaze.copy(),
            closure=measure_closure(unposed, self._rest_openings(neutral)),
            confidence=1.0,
        )
        if not motion.is_finite():
            return Track(None, calibrating=self._estimator.collecting)
        return Track(motion, face.points_px, self._estimator.collecting)

    def _rest_openings(self, neutral: DriverNeutral) -> F64:
        """How open mouth and eyes are at the driver's rest; kept until the neutral changes."""
        if self._rest is None or self._rest[0] is not neutral:
            shape = neutral.mesh_hu + self._fit.offset(neutral.motion.expression)
            self._rest = (neutral, openings(shape))
        return self._rest[1]

    def close(self) -> None:
        self._detector.close()
