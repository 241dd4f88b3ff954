"""The head 3DMM: `V(α, β) = V̄ + B_id α + B_exp β + δ`, eyeballs turned by the gaze; posed by a similarity.

One interface for every basis: ours (`load_head_model`), ICT-FaceKit, FLAME and BFM (`engines.head.others`); which
one is asked for by its name (`engines.head.open`).
Axes: x right as seen, y down, z away from the camera; one head unit (hu) is 10 cm. "Right" and "left" are
the subject's: the right eye is at the picture's left.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from engines.digest import digest_of
from engines.errors import ModelError
from engines.geometry import rotation_from_degrees, rotation_matrix
from engines.head.landmark_names import LANDMARK_COUNT, MEETING
from engines.motion import EXPRESSION_COUNT

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]

MODEL_PATH = Path(__file__).parents[1] / "data" / "head_model.safetensors"
FORMAT, VERSION = "visavis-head-model", 1
EYEBALL_RADIUS_HU = 0.12  # 12 mm
LID_CLEARANCE_HU = 0.004


class Part(IntEnum):
    """What a G-buffer pixel shows."""

    NONE = 0
    SKIN = 1
    EYE = 2
    MOUTH = 3  # the wall of the mouth cavity
    TEETH = 4
    TONGUE = 5
    SOCKET = 6  # the inside of the lids
    BODY = 7  # what is not head: shoulders and long hair, a sheet behind it


@dataclass(frozen=True, slots=True)
class Joints:
    """Where things turn, in head units: `eyes` (2, 3) right and left, `jaw` (3,), `neck` (3,)."""

    eyes: F32
    jaw: F32
    neck: F32


@dataclass(frozen=True, slots=True, eq=False)
class HeadModel:
    """Shapes: N vertices (split at UV seams), T triangles, K identity modes, M vertices that lips and lids move.

    - `mean_hu` (N, 3), `identity_hu` (K, N, 3) one standard deviation each, `expression_hu` (52, N, 3) in
      `ARKIT_NAMES` order (eyeballs excepted: they turn by the gaze).
    - `triangles` (T, 3) wound so that `cross(b − a, c − a)` points outwards; `part` (T,) of `Part`;
      `uv` (N, 2) in 0 … 1, one atlas, y down; `weld` (N,): first vertex at the same place.
    - `landmark_vertices` (478, 3), `landmark_weights` (478, 3): MediaPipe's landmarks on the surface.
    - `fit_weight` (478,): weights of the rigid alignment, high where expressions move little.
    - `rigidity` (N,): how far a vertex follows the head's pose: 1 on the head, falling to 0 at the neck's base.
    - `eye_side` (N,): 1 on the right eyeball, 2 on the left, else 0.
    - `closing_vertices` (M,), `closing_weights` (46, M): a field for each landmark of `MEETING` (all uppers,
      then all lowers) that moves this landmark by 1 and its neighbours along; closes lips and lids exactly.
    - `digest`: sha256 of what was read, by which a model is known again; "" for one that no file holds.
    """

    name: str
    mean_hu: F32
    identity_hu: F32
    expression_hu: F32
    triangles: I32
    part: U8
    uv: F32
    weld: I32
    landmark_vertices: I32
    landmark_weights: F32
    fit_weight: F32
    rigidity: F32
    eye_side: U8
    closing_vertices: I32
    closing_weights: F32
    joints: Joints
    digest: str = ""

    @property
    def vertex_count(self) -> int:
        """N."""
        return len(self.mean_hu)

    def shape(self, identity: F32, delta_hu: F32 | None = None) -> F32:
        """A person's expressionless head (N, 3): `V̄ + B_id α + δ` for α (K,), δ (N, 3)."""
        out = self.mean_hu + np.tensordot(identity, self.identity_hu[: len(identity)], 1)
        return (out if delta_hu is None else out + delta_hu).astype(np.float32)

    def decode(self, neutral_hu: F32, expression: F32, gaze_rad: F32 | None = None) -> F32:
        """A person's head `neutral_hu` (N, 3) with β (52,) and gaze (2, 2), un-posed: (N, 3) head units.

        `gaze_rad` is (yaw, pitch) of the right and left eye against the neutral; None leaves the eyeballs.
        """
        offset = expression.astype(np.float32) @ self._flat_expression()
        out = np.asarray(neutral_hu + offset.reshape(-1, 3), np.float32)
        if gaze_rad is not None:
            turn_eyes(self, out, gaze_rad)
        return out

    def _flat_expression(self) -> F32:
        return self.expression_hu.reshape(EXPRESSION_COUNT, -1)

    def landmarks(self, vertices: NDArray[np.floating]) -> NDArray[np.floating]:
        """Vertices (N, C) → landmarks (478, C)."""
        return (vertices[self.landmark_vertices] * self.landmark_weights[..., None]).sum(1)

    def normals(self, vertices: F32) -> F32:
        """Unit normals (N, 3), outwards, shared across UV seams."""
        v = vertices[self.triangles]
        face = np.cross(v[:, 1] - v[:, 0], v[:, 2] - v[:, 0])
        out = np.zeros((self.vertex_count, 3), np.float32)
        for k in range(3):
            corner = self.weld[self.triangles[:, k]]
            for axis in range(3):
                out[:, axis] += np.bincount(corner, face[:, axis], self.vertex_count)
        out = out[self.weld]
        return (out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)).astype(np.float32)

    def joints_of(self, neutral_hu: F32) -> Joints:
        """Joints of a person: eyes moved with their eyeballs, the jaw with the face."""
        eyes = np.stack(
            [
                centre + (neutral_hu[own] - self.mean_hu[own]).mean(0) if len(own) else centre
                for centre, own in zip(self.joints.eyes, eyeballs(self), strict=True)
            ]
        )
        still = self.landmarks(neutral_hu - self.mean_hu)[:468].mean(0)
        return Joints(eyes, (self.joints.jaw + still).astype(np.float32), self.joints.neck)

    def pncc(self) -> F32:
        """Projected normalised coordinate code per vertex (N, 3) in 0 … 1: the mean head's own coordinates."""
        low, high = self.mean_hu.min(0), self.mean_hu.max(0)
        return ((self.mean_hu - low) / np.maximum(high - low, 1e-9)).astype(np.float32)


@lru_cache(maxsize=8)
def eyeballs(model: HeadModel) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Vertices of the right and of the left eyeball."""
    return np.flatnonzero(model.eye_side == 1), np.flatnonzero(model.eye_side == 2)


def turn_eyes(model: HeadModel, vertices_hu: F32, gaze_rad: F32) -> None:
    """Turn each eyeball of un-posed `vertices_hu` (N, 3) about its centre by (yaw, pitch) in radians; in place."""
    for centre, own, (yaw, pitch) in zip(model.joints.eyes, eyeballs(model), gaze_rad, strict=True):
        if not len(own) or (yaw == 0 and pitch == 0):
            continue
        ball = vertices_hu[own]
        eye = centre + ball.mean(0) - model.mean_hu[own].mean(0)
        rotation = rotation_matrix(
            rotation_from_degrees(float(np.degrees(yaw)), float(np.degrees(pitch)), 0.0)
        ).astype(np.float32)
        vertices_hu[own] = eye + (ball - eye) @ rotation.T


def close_gaps(model: HeadModel, shape_hu: F32, closure: F32) -> None:
    """Bring lips and lids of an un-posed head (N, 3) together by `closure` (3,): lips, right, left eye; in place.

    Each pair of `MEETING` landmarks is moved towards each other along its own gap, lids mostly from above.
    Pairs that have crossed meet whatever the closure says: skin does not pass through skin.
    """
    upper = _points(model, shape_hu, MEETING_UPPER)
    lower = _points(model, shape_hu, MEETING_LOWER)
    gap = lower - upper
    share = np.where(gap[:, 1] < 0, 1.0, np.clip(closure[_PAIR_GROUP], 0, 1)).astype(np.float32)
    if not share.any():
        return
    move = np.concatenate(
        [gap * (share * _UPPER_SHARE)[:, None], -gap * (share * (1 - _UPPER_SHARE))[:, None]]
    )
    shape_hu[model.closing_vertices] += model.closing_weights.T @ move


def _points(model: HeadModel, vertices: F32, which: NDArray[np.intp]) -> F32:
    corners = vertices[model.landmark_vertices[which]]
    return (corners * model.landmark_weights[which][..., None]).sum(1)


def eye_centre(contour_hu: NDArray[np.floating], lids_hu: NDArray[np.floating]) -> NDArray[np.float64]:
    """Centre (3,) of an eyeball that touches the middle of both lids (2, 3) of an eye's contour (16, 3)."""
    xy = (contour_hu[:, :2].min(0) + contour_hu[:, :2].max(0)) / 2
    reach = EYEBALL_RADIUS_HU + LID_CLEARANCE_HU
    flat = np.minimum(((lids_hu[:, :2] - xy) ** 2).sum(1), reach**2 * 0.8)
    return np.array([xy[0], xy[1], float((lids_hu[:, 2] + np.sqrt(reach**2 - flat)).mean())])


# 7 pairs of the right eye, 7 of the left, 9 of the lips: their place in `closure`
_PAIR_GROUP = np.array([1] * 7 + [2] * 7 + [0] * 9)
_UPPER_SHARE = np.array([0.85] * 14 + [0.35] * 9, np.float32)
MEETING_UPPER = np.array([upper for upper, _ in MEETING])
MEETING_LOWER = np.array([lower for _, lower in MEETING])


_FIELDS: dict[str, tuple[type[np.generic], int]] = {
    "mean_hu": (np.float32, 2),
    "identity_hu": (np.float32, 3),
    "expression_hu": (np.float32, 3),
    "triangles": (np.int32, 2),
    "part": (np.uint8, 1),
    "uv": (np.float32, 2),
    "weld": (np.int32, 1),
    "landmark_vertices": (np.int32, 2),
    "landmark_weights": (np.float32, 2),
    "fit_weight": (np.float32, 1),
    "rigidity": (np.float32, 1),
    "eye_side": (np.uint8, 1),
    "closing_vertices": (np.int32, 1),
    "closing_weights": (np.float32, 2),
    "joints_hu": (np.float32, 2),
}
_AGAIN = "install visavis again, or in a checkout rebuild it: python -m scripts.build_head_model --help"


@cache
def load_head_model(path: Path = MODEL_PATH) -> HeadModel:
    """The committed model; raises ModelError naming the field when a file does not fit.

    Bases are stored as int16 with a float32 `NAME_scale` per mode: `value = int16 · scale`.
    """
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            t: dict[str, NDArray[np.generic]] = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
        header = json.loads(metadata.get("visavis", "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no head model or is truncated; {_AGAIN}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT or header.get("version") != VERSION:
        raise ModelError(f"{path} is not a {FORMAT} of version {VERSION}; {_AGAIN}")
    missing = sorted(set(_FIELDS) - set(t))
    if missing:
        raise ModelError(f"{path} lacks {', '.join(missing)} (expected: {', '.join(_FIELDS)}); {_AGAIN}")
    digest = digest_of(t)
    for name, (_, dimensions) in _FIELDS.items():
        if t[name].ndim != dimensions:
            raise ModelError(f"{path}: {name} has {t[name].ndim} dimensions, expected {dimensions}; {_AGAIN}")
        scale = t.get(f"{name}_scale")
        if scale is not None:
            if dimensions != 3 or scale.shape != t[name].shape[:1]:
                raise ModelError(f"{path}: {name}_scale does not fit {name}; {_AGAIN}")
            t[name] = t[name].astype(np.float32) * scale.astype(np.float32)[:, None, None]
        t[name] = np.ascontiguousarray(t[name], _FIELDS[name][0])
    return build_model(str(header.get("name", "visavis")), t, path, digest)


def build_model(name: str, t: dict[str, NDArray[np.generic]], path: Path, digest: str) -> HeadModel:
    """A model from its tensors (names of `HeadModel`, joints as `joints_hu` (4, 3): eyes, jaw, neck).

    Raises ModelError naming the first field that does not fit the others.
    """
    n, count = len(t["mean_hu"]), len(t["triangles"])
    k, m = len(t["identity_hu"]), len(t["closing_vertices"])
    expected: dict[str, tuple[int, ...]] = {
        "mean_hu": (n, 3), "identity_hu": (k, n, 3), "expression_hu": (EXPRESSION_COUNT, n, 3),
        "triangles": (count, 3), "part": (count,), "uv": (n, 2), "weld": (n,),
        "landmark_vertices": (LANDMARK_COUNT, 3), "landmark_weights": (LANDMARK_COUNT, 3),
        "fit_weight": (LANDMARK_COUNT,), "rigidity": (n,), "eye_side": (n,),
        "closing_vertices": (m,), "closing_weights": (2 * len(MEETING), m), "joints_hu": (4, 3),
    }  # fmt: skip
    for field, shape in expected.items():
        if t[field].shape != shape:
            raise ModelError(f"{path}: {field} is {t[field].shape}, expected {shape}; {_AGAIN}")
    for field in ("triangles", "weld", "landmark_vertices", "closing_vertices"):
        index = t[field].astype(np.int64)
        if index.size and (int(index.min()) < 0 or int(index.max()) >= n):
            raise ModelError(f"{path}: {field} points at a vertex that is not there ({n} vertices); {_AGAIN}")
    floats = {f: np.asarray(t[f], np.float32) for f, (kind, _) in _FIELDS.items() if kind is np.float32}
    for field, value in floats.items():
        if not np.isfinite(value).all():
            raise ModelError(f"{path}: {field} holds a number that is not finite; {_AGAIN}")
    ints = {f: np.asarray(t[f], np.int32) for f, (kind, _) in _FIELDS.items() if kind is np.int32}
    joints = floats["joints_hu"]
    return HeadModel(
        name=name,
        mean_hu=floats["mean_hu"],
        identity_hu=floats["identity_hu"],
        expression_hu=floats["expression_hu"],
        triangles=ints["triangles"],
        part=np.asarray(t["part"], np.uint8),
        uv=floats["uv"],
        weld=ints["weld"],
        landmark_vertices=ints["landmark_vertices"],
        landmark_weights=floats["landmark_weights"],
        fit_weight=floats["fit_weight"],
        rigidity=floats["rigidity"],
        eye_side=np.asarray(t["eye_side"], np.uint8),
        closing_vertices=ints["closing_vertices"],
        closing_weights=floats["closing_weights"],
        joints=Joints(joints[:2], joints[2], joints[3]),
        digest=digest,
    )
