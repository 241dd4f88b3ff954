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

from engines.landmark_names import *  # noqa: F403
from engines.landmark_names import LANDMARK_COUNT, MEETING, OVAL
from engines.motion import EXPRESSION_COUNT

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

MODEL_PATH = Path(__file__).parent / "data" / "face_model.safetensors"

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
