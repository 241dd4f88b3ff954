"""Tracking on MediaPipe's FaceLandmarker: landmarks fitted by our own 3DMM (its scores serve as a prior)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.neutral import DriverNeutral, NeutralEstimator
from engines.face_model import FaceModel, load_face_model
from engines.fit import ExpressionFit, fit_pose, measure_gaze
from engines.frame import Frame
from engines.geometry import F64, Camera
from engines.landmarks import FaceLandmarks, LandmarkDetector
from engines.motion import ARKIT_INDEX, Motion
from streamer.tracker import Track, Tracker

F32 = NDArray[np.float32]

_BLINKS = [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]


class MediaPipeTracker(Tracker):
    """Landmarks → pose by Procrustes → β by boxed least squares against the driver's own neutral."""

    def __init__(self, model: FaceModel | None = None) -> None:
        self._model = model or load_face_model()
        self._fit = ExpressionFit(self._model)
        self._detector = LandmarkDetector(video=True)
        self._estimator = NeutralEstimator(self._model)
        self._gaze: F32 = np.zeros((2, 2), np.float32)

    @property
    def neutral(self) -> Motion | None:
        current = self._estimator.current
        return current.motion if current else None

    def retake_neutral(self) -> None:
        self._estimator.restart()

    def use_neutral(self, neutral: DriverNeutral) -> None:
        """Skip the calibration: take a neutral computed before."""
        self._estimator.adopt(neutral)

    @property
    def driver_neutral(self) -> DriverNeutral | None:
        """Mesh and motion at rest."""
        return self._estimator.current

    def track(self, frame: Frame) -> Track:
        faces = self._detector.detect(frame.image, round(frame.pts_s * 1000))
        if not faces:
            return Track(None, calibrating=self._estimator.collecting)
        return self.fit(frame, faces[0])

    def fit(self, frame: Frame, face: FaceLandmarks) -> Track:
        """Motion of one detected face."""
        height, width = frame.image.shape[:2]
        camera = Camera(width, height)
        if not np.isfinite(face.scores).all():  # would spoil the neutral for good
            return Track(None, calibrating=self._estimator.collecting)
        current = self._estimator.current
        template = current.mesh_hu if current else self._model.mean_hu
        try:
            pose = fit_pose(self._model, template, face.points_px)
        except ValueError:
            return Track(None, calibrating=self._estimator.collecting)
        unposed: F64 = pose.invert(face.points_px)
        rotation, translation = camera.from_similarity(pose)
        self._estimator.add(frame.pts_s, unposed, face.scores, rotation, translation, measure_gaze(unposed))
        neutral = self._estimator.current
        assert neutral is not None  # add() just saw a face
        expression = self._fit.solve(unposed, neutral.mesh_hu, face.scores)
        # a closing lid drags the iris landmarks with it: hold the gaze through a blink
        if float(face.scores[_BLINKS].max()) < 0.5:
            self._gaze = measure_gaze(unposed)
        motion = Motion(
            time_s=frame.pts_s,
            expression=expression,
            rotation_rad=rotation.astype(np.float32),
            translation_hu=translation.astype(np.float32),
            gaze_rad=self._gaze.copy(),
            confidence=1.0,
        )
        if not motion.is_finite():
            return Track(None, calibrating=self._estimator.collecting)
        return Track(motion, face.points_px, self._estimator.collecting)

    def close(self) -> None:
        self._detector.close()
