"""The eye that looks at every picture: always the same detector on single pictures, so that it favours nobody."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64, rotation_vector
from engines.head.fit import ExpressionFit, fit_driver, openings
from engines.head.landmarks import FaceLandmarks, LandmarkDetector
from engines.head.model import HeadModel
from scripts.people.recognition import Recogniser

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Face:
    """A face as a tracker sees it in a picture.

    `points_px` (478, 3) the landmarks, `unposed_hu` (478, 3) the same with the pose taken out, β (52,), rotation vector
    (3,), lip gap over the mouth's width.
    """

    points_px: F32
    unposed_hu: F64
    expression: F32
    rotation_rad: F64
    lip_gap: float


class Eye:
    """Sees faces in pictures."""

    def __init__(self, model: HeadModel, recognisers: Sequence[Recogniser]) -> None:
        self._fit = ExpressionFit(model)
        self._detector = LandmarkDetector(video=False)
        self._seen: dict[bytes, FaceLandmarks | None] = {}
        self._described: dict[bytes, dict[str, F32]] = {}
        self._recognisers = recognisers

    def detect(self, picture: U8) -> FaceLandmarks | None:
        """The largest face; each picture is looked at once."""
        key = _key(picture)
        if key not in self._seen:
            faces = self._detector.detect(picture)
            self._seen[key] = faces[0] if faces else None
        return self._seen[key]

    def forget(self) -> None:
        """Between takes: nothing seen before comes again."""
        self._seen.clear()
        self._described.clear()

    def face(self, picture: U8, neutral_hu: F64) -> Face | None:
        """The face, fitted against its person's neutral landmarks (478, 3); None when none is found."""
        found = self.detect(picture)
        if found is None:
            return None
        try:
            fitted = fit_driver(self._fit, neutral_hu, found.points_px, found.scores)
        except ValueError:  # landmarks that span nothing: as good as no face
            return None
        gap = float(openings(fitted.unposed_hu)[0])
        rotation = rotation_vector(fitted.pose.rotation)
        return Face(found.points_px, fitted.unposed_hu, fitted.expression, rotation, gap)

    def offset(self, expression: F32) -> F64:
        """`B β`: (478, 3), what an expression (52,) does to the landmarks in head units."""
        return self._fit.offset(expression)

    def descriptors(self, picture: U8, face: Face | None) -> dict[str, F32]:
        """Unit descriptors by net; none without a face."""
        if face is None:
            return {}
        key = _key(picture)
        if key not in self._described:
            self._described[key] = {
                r.spec.name: r.describe(picture, face.points_px) for r in self._recognisers
            }
        return self._described[key]

    def close(self) -> None:
        """Free the detector."""
        self._detector.close()


def _key(picture: U8) -> bytes:
    return hashlib.blake2b(picture.tobytes(), digest_size=16).digest()
