"""The face 3DMM: 478 MediaPipe landmarks plus a shell of rings around them, one UV atlas, 52 expressions.

`V(β) = V̄ + B_exp β` in head units (x right, y down, z away); the numbers live in
`engines/data/face_model.safetensors`, made by `scripts/build_face_model.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from engines.motion import EXPRESSION_COUNT

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

LANDMARK_COUNT = 478
MODEL_PATH = Path(__file__).parent / "data" / "face_model.safetensors"

# Contours by MediaPipe landmark number; "right" is the subject's right, at the picture's left.
OVAL: tuple[int, ...] = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
EYE_RIGHT: tuple[int, ...] = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
EYE_LEFT: tuple[int, ...] = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
LIPS_INNER: tuple[int, ...] = (
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191,
)  # fmt: skip
LIPS_OUTER: tuple[int, ...] = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
)  # fmt: skip
# (upper, lower) lid pairs at the middle of each eye, and the (outer, inner) corners.
LIDS_RIGHT, CORNERS_RIGHT = (159, 145), (33, 133)
LIDS_LEFT, CORNERS_LEFT = (386, 374), (263, 362)
IRIS_RIGHT, IRIS_LEFT = 468, 473
UPPER_LIP, LOWER_LIP = 13, 14
# (upper, lower) landmarks that meet when an eye or the mouth closes
MEETING: tuple[tuple[int, int], ...] = (
    (246, 7), (161, 163), (160, 144), (159, 145), (158, 153), (157, 154), (173, 155),
    (466, 249), (388, 390), (387, 373), (386, 374), (385, 380), (384, 381), (398, 382),
    (191, 95), (80, 88), (81, 178), (82, 87), (13, 14), (312, 317), (311, 402), (310, 318), (415, 324),
)  # fmt: skip


class Part(IntEnum):
    """What a G-buffer pixel shows."""

    NONE = 0
    SKIN = 1
    EYE = 2
    MOUTH = 3
    SHELL = 4


@dataclass(frozen=True, slots=True)
class FaceModel:
    """Shapes: N vertices (478 landmarks, then rings of 36 from the face outwards), T triangles.

    - `mean_hu` (N, 3), `expression_hu` (52, N, 3): head units.
    - `rigidity` (N,): how far a vertex follows the head's pose, 1 on the head … 0 at the outer ring.
    - `fit_weight` (478,): weights of the rigid alignment, high where expressions move little.
    - `uv` (N, 2) in 0 … 1; `triangles` (T, 3); `part` (T,) of `Part`; `mirror` (478,) landmark mirror map.
    """

    mean_hu: F32
    expression_hu: F32
    rigidity: F32
    fit_weight: F32
    uv: F32
    triangles: I32
    part: NDArray[np.uint8]
    mirror: I32

    @property
    def vertex_count(self) -> int:
        """N."""
        return len(self.mean_hu)

    def decode(self, neutral_hu: F32, expression: F32, gain: F32 | None = None) -> F32:
        """`neutral + B_exp β` (N, 3) in head units for one person's neutral (N, 3) and β (52,).

        `gain` (N, 1) scales the displacement per vertex: a person's own lids close though they open wider
        than the mean's.
        """
        offset = np.tensordot(expression, self.expression_hu, 1)
        shape = (neutral_hu + (offset if gain is None else offset * gain)).astype(np.float32)
        return keep_apart(shape)

    def extend_to_shell(self, landmarks_hu: F32) -> F32:
        """Landmarks (478, 3) → all vertices (N, 3): rings keep their mean offset from the person's oval."""
        oval = list(OVAL)
        own, mean = landmarks_hu[oval], self.mean_hu[oval]
        size = float(np.linalg.norm(own[:, :2] - own[:, :2].mean(0), axis=1).mean())
        size /= float(np.linalg.norm(mean[:, :2] - mean[:, :2].mean(0), axis=1).mean())
        rings = self.mean_hu[LANDMARK_COUNT:].reshape(-1, len(oval), 3)
        shell = own[None] + (rings - mean[None]) * size
        return np.concatenate([landmarks_hu, shell.reshape(-1, 3)]).astype(np.float32)


_UPPER, _LOWER = (np.array(side) for side in zip(*MEETING, strict=True))


def keep_apart(shape_hu: F32) -> F32:
    """Lids and lips that have crossed meet halfway instead: skin does not pass through skin. In place."""
    overlap = shape_hu[_UPPER, 1] - shape_hu[_LOWER, 1]
    half = np.maximum(overlap, 0) / 2
    shape_hu[_UPPER, 1] -= half
    shape_hu[_LOWER, 1] += half
    return shape_hu


@cache
def load_face_model(path: Path = MODEL_PATH) -> FaceModel:
    """The committed model; raises ValueError naming the field when a file does not fit."""
    with safe_open(str(path), framework="numpy") as file:
        header = json.loads((file.metadata() or {}).get("visavis", "{}"))
        if header.get("format") != "visavis-face-model":
            raise ValueError(
                f"{path} is not a visavis face model; rebuild it with scripts/build_face_model.py"
            )
        names = ("mean_hu", "expression_hu", "rigidity", "fit_weight", "uv", "triangles", "part", "mirror")
        missing = set(names) - set(file.keys())
        if missing:
            raise ValueError(
                f"{path} lacks {', '.join(sorted(missing))}; rebuild it with scripts/build_face_model.py"
            )
        t = {name: file.get_tensor(name) for name in names}
    model = FaceModel(
        mean_hu=t["mean_hu"].astype(np.float32),
        expression_hu=t["expression_hu"].astype(np.float32),
        rigidity=t["rigidity"].astype(np.float32),
        fit_weight=t["fit_weight"].astype(np.float32),
        uv=t["uv"].astype(np.float32),
        triangles=t["triangles"].astype(np.int32),
        part=t["part"].astype(np.uint8),
        mirror=t["mirror"].astype(np.int32),
    )
    n = model.vertex_count
    if model.expression_hu.shape != (EXPRESSION_COUNT, n, 3) or model.uv.shape != (n, 2):
        raise ValueError(f"{path}: expression_hu or uv does not match mean_hu ({n} vertices)")
    return model
