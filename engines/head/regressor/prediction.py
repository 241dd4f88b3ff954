"""What the regressor's numbers mean: layout, the prediction they hold, and the head that it describes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64, Similarity, rotation_from_degrees, rotation_matrix
from engines.head.landmark_names import IRIS_LEFT, IRIS_RIGHT
from engines.head.model import HeadModel
from engines.head.regressor.crop import INPUT_PX, SKIN_LANDMARKS, CropBox, move_points
from engines.motion import EXPRESSION_COUNT

F32 = NDArray[np.float32]

SCALE_PX_PER_HU = 55.0  # what a face that fills its crop as it should measures; only a starting point
IDENTITY_MODES = 40


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each parameter lies in the network's output (D,)."""

    identity_count: int = IDENTITY_MODES

    @property
    def sizes(self) -> dict[str, int]:
        """Length of each part, in order."""
        return {
            "expression": EXPRESSION_COUNT,
            "identity": self.identity_count,
            "rotation": 6,  # two columns of the matrix (Zhou et al. 2019): no jump anywhere
            "place": 3,  # face centre from the crop's, in half crops, and log of the scale
            "gaze": 4,
            "closure": 3,
            "confidence": 1,  # logit
        }

    @property
    def length(self) -> int:
        """D."""
        return sum(self.sizes.values())

    def part(self, name: str) -> slice:
        """Where part `name` lies."""
        start = 0
        for key, size in self.sizes.items():
            if key == name:
                return slice(start, start + size)
            start += size
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One face, read from one crop.

    `expression` (52,), `identity` (K,) standard deviations, `rotation` (3, 3), `gaze_rad` (2, 2), `closure`
    (3,) 0 … 1, `confidence` 0 … 1; in pixels of the crop the middle of the face `centre_px` (2,) and the
    length of a head unit `scale_px`.
    """

    expression: F32
    identity: F32
    rotation: F64
    centre_px: F64
    scale_px: float
    gaze_rad: F32
    closure: F32
    confidence: float


def read_output(raw: F32, layout: Layout) -> Prediction:
    """The network's numbers (D,) as a prediction; never fails, whatever they are, if they are finite."""
    p = {name: raw[layout.part(name)].astype(np.float64) for name in layout.sizes}
    place = p["place"]
    return Prediction(
        expression=np.clip(p["expression"], -0.25, 1.25).astype(np.float32),
        identity=np.clip(p["identity"], -4, 4).astype(np.float32),
        rotation=rotation_from_6d(p["rotation"]),
        centre_px=(np.clip(place[:2], -2, 2) + 1) * INPUT_PX / 2,
        scale_px=float(SCALE_PX_PER_HU * np.exp(np.clip(place[2], -2, 2))),
        gaze_rad=p["gaze"].reshape(2, 2).astype(np.float32),
        closure=np.clip(p["closure"], 0, 1).astype(np.float32),
        confidence=float(1 / (1 + np.exp(-np.clip(p["confidence"][0], -30, 30)))),
    )


def rotation_from_6d(six: F64) -> F64:
    """Two vectors (6,) → the rotation (3, 3) whose first columns they span, by Gram and Schmidt.

    None at all when they span nothing.
    """
    a, b = six[:3], six[3:]
    length = float(np.linalg.norm(a))
    if length < 1e-9:
        return np.eye(3)
    x = a / length
    b = b - (x @ b) * x
    length = float(np.linalg.norm(b))
    if length < 1e-9:
        return np.eye(3)
    y = b / length
    return np.column_stack([x, y, np.cross(x, y)])


@dataclass(frozen=True, slots=True)
class FaceBasis:
    """The head model where the network is compared: P points, the 478 landmarks first.

    `mean_hu` (P, 3), `identity_hu` (K, P, 3), `expression_hu` (52, P, 3), `anchor_hu` (3,) the middle of the
    mean face, `eyes_hu` (2, 3) right and left eyeball.
    """

    mean_hu: F32
    identity_hu: F32
    expression_hu: F32
    anchor_hu: F32
    eyes_hu: F32

    def shape(self, identity: F32) -> F32:
        """Expressionless points (P, 3) of a person."""
        return self.mean_hu + np.tensordot(identity, self.identity_hu[: len(identity)], 1)

    def decode(self, prediction: Prediction) -> F32:
        """Un-posed points (P, 3) in head units, irises turned by the gaze."""
        neutral = self.shape(prediction.identity)
        out = neutral + np.tensordot(prediction.expression, self.expression_hu, 1)
        for side, first in enumerate((IRIS_RIGHT, IRIS_LEFT)):
            iris = slice(first, first + 5)
            eye = self.eyes_hu[side] + (neutral[iris] - self.mean_hu[iris]).mean(0)
            yaw, pitch = np.degrees(prediction.gaze_rad[side])
            turn = rotation_matrix(rotation_from_degrees(float(yaw), float(pitch), 0.0))
            out[iris] = eye + (neutral[iris] - eye) @ turn.T
        return out.astype(np.float32)


def face_basis(model: HeadModel, modes: int = IDENTITY_MODES, more: int = 0) -> FaceBasis:
    """Landmarks of `model` and `more` vertices spread over its head, with its first `modes` identity modes."""
    head = np.flatnonzero((model.rigidity > 0.99) & (model.eye_side == 0))
    extra = head[np.linspace(0, len(head) - 1, more).astype(int)] if more else head[:0]

    def points(field: F32) -> F32:
        return np.concatenate([model.landmarks(field), field[extra]]).astype(np.float32)

    mean = points(model.mean_hu)
    return FaceBasis(
        mean_hu=mean,
        identity_hu=np.stack([points(mode) for mode in model.identity_hu[:modes]]),
        expression_hu=np.stack([points(mode) for mode in model.expression_hu]),
        anchor_hu=mean[:SKIN_LANDMARKS].mean(0),
        eyes_hu=model.joints.eyes,
    )


def place_head(prediction: Prediction, box: CropBox, anchor_hu: F32) -> Similarity:
    """Head units → pixels of the picture that the crop `box` was cut from (z in pixels too)."""
    to_picture = box.to_picture(INPUT_PX)
    x, y = move_points(to_picture, prediction.centre_px[None])[0]
    roll = rotation_matrix(np.array([0.0, 0.0, box.roll_rad]))
    rotation = roll @ prediction.rotation
    scale = prediction.scale_px * box.side_px / INPUT_PX
    shift = np.array([x, y, 0.0]) - scale * rotation @ anchor_hu.astype(np.float64) * np.array([1, 1, 0])
    return Similarity(scale, rotation, shift)
