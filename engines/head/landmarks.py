"""MediaPipe's FaceLandmarker: 478 landmarks and 52 scores per face."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision
from numpy.typing import NDArray

from engines.head.landmark_names import LANDMARK_COUNT
from engines.model_files import find_model
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FaceLandmarks:
    """One detected face: `points_px` (478, 3) in picture pixels, `scores` (52,) in `ARKIT_NAMES` order."""

    points_px: F32
    scores: F32

    @property
    def box_px(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the landmarks."""
        low, high = self.points_px.min(0), self.points_px.max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


class LandmarkDetector:
    """The FaceLandmarker itself; `video=True` follows one face from frame to frame (times must rise)."""

    def __init__(self, *, video: bool, max_faces: int = 1, model: Path | None = None) -> None:
        path = find_model("face_landmarker.task", explicit=model)
        mode = vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE
        self._video = video
        self._last_ms = -1
        self._landmarker = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                # bytes, not a path: MediaPipe mishandles some non-ASCII paths
                base_options=BaseOptions(model_asset_buffer=path.read_bytes()),
                running_mode=mode,
                num_faces=max_faces,
                output_face_blendshapes=True,
            )
        )

        # also at exit: a graph that is found open while modules are torn down waits for ever
        self._close = weakref.finalize(self, _quietly, self._landmarker.close)

    def detect(self, image: NDArray[np.uint8], time_ms: int = 0) -> list[FaceLandmarks]:
        """Faces in `image` (H, W, 3) RGB, largest first; empty when there are none."""
        height, width = image.shape[:2]
        picture = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        if self._video:
            self._last_ms = max(self._last_ms + 1, time_ms)
            result = self._landmarker.detect_for_video(picture, self._last_ms)
        else:
            result = self._landmarker.detect(picture)
        faces: list[FaceLandmarks] = []
        for points, shapes in zip(result.face_landmarks, result.face_blendshapes, strict=True):
            xyz = np.array([(p.x, p.y, p.z) for p in points], np.float32)
            if len(xyz) != LANDMARK_COUNT or not np.isfinite(xyz).all():
                continue  # a broken detection is no detection
            scores = np.zeros(EXPRESSION_COUNT, np.float32)
            for shape in shapes:
                index = ARKIT_INDEX.get(str(shape.category_name))
                if index is not None:
                    scores[index] = shape.score
            faces.append(FaceLandmarks(xyz * np.array([width, height, width], np.float32), scores))

        def area(face: FaceLandmarks) -> float:
            left, top, right, bottom = face.box_px
            return (right - left) * (bottom - top)

        return sorted(faces, key=area, reverse=True)

    def close(self) -> None:
        """Free the graph; calling twice is harmless."""
        self._close()


def _quietly(close: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # at exit its own thread may have ended before
        close()
