"""What the regressor learns from: augmented samples of the crop cache, and the losses of the thesis (§ 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from engines.geometry import F64, rotation_matrix
from engines.head.regressor.crop import INPUT_PX, SKIN_LANDMARKS, CropBox, face_extent, move_points
from engines.head.regressor.prediction import SCALE_PX_PER_HU, FaceBasis, Layout
from engines.motion import ARKIT_INDEX, ARKIT_NAMES
from scripts.regressor.crops import CACHE_PX, Crops, decode
from scripts.regressor.no_faces import invented, shuffled

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# thesis § 3.2: λ1 … λ4 of L_MeshPrediction
WEIGHT_3D, WEIGHT_PROJECTION, WEIGHT_SHAPE, WEIGHT_REGULARISATION = 50.0, 0.1, 1.0, 1.0
# ours: what the thesis's losses hardly see (a blink moves few vertices) or do not know (gaze, confidence)
WEIGHT_EXPRESSION, WEIGHT_GAZE, WEIGHT_CLOSURE, WEIGHT_CONFIDENCE = 8.0, 16.0, 12.0, 1.0

# How far off a crop may be: within `GOOD` the network must answer, beyond `BAD` it must say no.
GOOD_SHIFT, GOOD_PER_FACE = 0.3, (1.0, 2.2)
BAD_SHIFT, BAD_PER_FACE = 0.5, (0.55, 4.0)


@dataclass(frozen=True, slots=True)
class Labels:
    """Fits of F crops of M items, poses in pixels of the cached crop.

    `expression` (F, 52), `rotation_rad` (F, 3), `scale_px` (F,), `shift_px` (F, 2), `gaze_rad` (F, 2, 2),
    `closure` (F, 3), `residual` (F,) landmark misfit over face size, `identity` (M, K).
    """

    expression: F32
    rotation_rad: F32
    scale_px: F32
    shift_px: F32
    gaze_rad: F32
    closure: F32
    residual: F32
    identity: F32


def read_labels(path: Path) -> Labels:
    """What `scripts.regressor.crops label` wrote."""
    with np.load(path) as data:
        return Labels(**{name: data[name].astype(np.float32) for name in Labels.__slots__})


@dataclass(frozen=True, slots=True)
class Target:
    """What the network should say about one crop: pose in pixels of the crop, landmarks (478, 3) too."""

    expression: F32
    identity: F32
    rotation: F64
    centre_px: F64
    scale_px: float
    gaze_rad: F32
    closure: F32
    landmarks_px: F64


# --- mirroring -----------------------------------------------------------------------------------


def mirror_names(names: Sequence[str] = ARKIT_NAMES) -> NDArray[np.int64]:
    """Index of each coefficient's counterpart on the other side."""
    index = {name: i for i, name in enumerate(names)}

    def other(name: str) -> str:
        if name.endswith("Left"):
            return name[:-4] + "Right"
        return name[:-5] + "Left" if name.endswith("Right") else name

    return np.array([index[other(name)] for name in names])


def mirror_points(points: F32 | F64) -> NDArray[np.int64]:
    """Index of each point's counterpart for nearly symmetric points (N, 3) about x = 0.

    Raises ValueError when they do not pair up one to one.
    """
    flipped = points * np.array([-1, 1, 1])
    distance = ((flipped[:, None] - points[None]) ** 2).sum(-1)
    pairs = distance.argmin(1)
    if (np.sort(pairs) != np.arange(len(points))).any():
        from scipy.optimize import linear_sum_assignment  # nearly equal distances: assign all at once

        pairs = linear_sum_assignment(distance)[1]
    rows = np.arange(len(points))
    far = np.sqrt(distance[rows, pairs].max()) > 0.1 * (points.max(0) - points.min(0)).max()
    if far or (pairs[pairs] != rows).any():
        raise ValueError("points do not pair up left and right; is x = 0 their plane of symmetry?")
    return pairs


@dataclass(frozen=True, slots=True)
class Mirror:
    """How labels change when the picture is mirrored: permutations, and a map (K, K) of the identity."""

    names: NDArray[np.int64]
    landmarks: NDArray[np.int64]
    identity: F32

    def __call__(self, target: Target) -> Target:
        """The target of the mirrored crop; twice is the same again."""
        flip = np.diag([-1.0, 1.0, 1.0])
        gaze = target.gaze_rad[::-1] * np.array([-1, 1], np.float32)
        landmarks = target.landmarks_px[self.landmarks] * np.array([-1, 1, 1]) + np.array([INPUT_PX, 0, 0])
        return Target(
            expression=target.expression[self.names],
            identity=target.identity @ self.identity,
            rotation=flip @ target.rotation @ flip,
            centre_px=np.array([INPUT_PX - target.centre_px[0], target.centre_px[1]]),
            scale_px=target.scale_px,
            gaze_rad=gaze,
            closure=target.closure[[0, 2, 1]],
            landmarks_px=landmarks,
        )


def mirror_of(basis: FaceBasis, landmarks: NDArray[np.int64]) -> Mirror:
    """The mirror of a head model; α' is the least-squares fit to the mirrored shape."""
    modes = basis.identity_hu[:, : len(landmarks)]
    flipped = modes[:, landmarks] * np.array([-1, 1, 1], np.float32)
    count = len(modes)
    solution = np.linalg.lstsq(modes.reshape(count, -1).T, flipped.reshape(count, -1).T, rcond=None)[0]
    return Mirror(mirror_names(), landmarks, solution.T.astype(np.float32))


# --- samples -------------------------------------------------------------------------------------


def jitter(rng: np.random.Generator, loose: bool) -> tuple[float, float, float, float]:
    """(dx, dy in crop sides, crop side per face, roll in radians) of a crop that still counts as good."""
    if loose:  # as when a face is searched
        dx, dy = rng.uniform(-GOOD_SHIFT, GOOD_SHIFT, 2)
        return dx, dy, float(np.exp(rng.uniform(*np.log(GOOD_PER_FACE)))), float(rng.normal(0, 0.2))
    dx, dy = rng.normal(0, 0.035, 2)  # as when a face is followed
    return dx, dy, 1.4 * float(np.exp(rng.normal(0, 0.07))), float(np.clip(rng.normal(0, 0.17), -0.5, 0.5))


def bad_jitter(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """The same for a crop to which the network must say no."""
    per_face = 1.4 * float(np.exp(rng.normal(0, 0.2)))
    if rng.random() < 0.7:
        angle = rng.uniform(0, 2 * np.pi)
        reach = rng.uniform(BAD_SHIFT, 0.9) / max(abs(np.cos(angle)), abs(np.sin(angle)))
        return reach * np.cos(angle), reach * np.sin(angle), per_face, 0.0
    dx, dy = rng.uniform(-0.3, 0.3, 2)
    return dx, dy, float(rng.uniform(0.25, BAD_PER_FACE[0])), 0.0


def warp(image: U8, box: CropBox) -> U8:
    """A network's crop out of a cached crop, which is never much larger."""
    matrix = box.to_crop(INPUT_PX)
    matrix[:, 2] += matrix[:, :2] @ np.full(2, 0.5) - 0.5
    size = (INPUT_PX, INPUT_PX)
    out = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out, np.uint8)


def disturb(crop: U8, rng: np.random.Generator) -> U8:
    """Colour, light, blur, noise, compression and small covers, as webcams and hands make them."""
    gain = np.exp(rng.normal(0, 0.18)) * np.exp(rng.normal(0, 0.06, 3))
    gamma = np.exp(rng.normal(0, 0.2))
    ramp = np.arange(256)[:, None] / 255
    table = np.clip(ramp**gamma * gain + rng.normal(0, 0.04), 0, 1) * 255
    crop = np.asarray(cv2.LUT(crop, table.astype(np.uint8)[None]), np.uint8)
    if rng.random() < 0.1:
        crop = np.repeat(crop.mean(2, keepdims=True).astype(np.uint8), 3, 2)
    if rng.random() < 0.3:
        crop = np.asarray(cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.3, 1.6)), np.uint8)
    if rng.random() < 0.15:  # a low-resolution picture
        small = int(rng.integers(48, 110))
        crop = np.asarray(cv2.resize(cv2.resize(crop, (small, small)), (INPUT_PX, INPUT_PX)), np.uint8)
    if rng.random() < 0.4:
        noise = rng.normal(0, rng.uniform(2, 12), (*crop.shape[:2], 1 if rng.random() < 0.5 else 3))
        crop = np.clip(crop + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.15:
        _, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 80))])
        crop = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    if rng.random() < 0.08:
        crop = crop.copy()
        w, h = rng.integers(10, 40, 2)
        x, y = rng.integers(0, INPUT_PX - 10, 2)
        crop[y : y + h, x : x + w] = rng.integers(0, 255, 3)
    return crop


@dataclass(frozen=True)
class Samples:
    """Draws network inputs and targets from a cache. `basis` decides the face's middle, `mirror` its sides."""

    crops: Crops
    labels: Labels
    basis: FaceBasis
    mirror: Mirror

    def target(self, row: int, box: CropBox) -> Target:
        """The label of crop `row` seen through `box` (in pixels of the cached crop)."""
        labels = self.labels
        matrix = box.to_crop(INPUT_PX)
        scale = float(labels.scale_px[row])
        rotation = rotation_matrix(labels.rotation_rad[row])
        centre = (scale * rotation @ self.basis.anchor_hu)[:2] + labels.shift_px[row]
        return Target(
            expression=labels.expression[row],
            identity=labels.identity[self.crops.item[row]][: len(self.basis.identity_hu)],
            rotation=rotation_matrix(np.array([0, 0, -box.roll_rad])) @ rotation,
            centre_px=move_points(matrix, centre[None])[0],
            scale_px=scale * INPUT_PX / box.side_px,
            gaze_rad=labels.gaze_rad[row],
            closure=labels.closure[row],
            landmarks_px=move_points(matrix, self.crops.points_px[row]),
        )

    def box(self, row: int, move: tuple[float, float, float, float]) -> CropBox:
        """The network's crop within cached crop `row` for a jitter (dx, dy, side per face, roll)."""
        x, y, face = face_extent(self.crops.points_px[row])
        dx, dy, per_face, roll = move
        side = face * per_face
        return CropBox(x + dx * side, y + dy * side, side, roll)

    def face(self, row: int, rng: np.random.Generator) -> tuple[U8, Target]:
        """A disturbed crop that shows the face, and its target."""
        box = self.box(row, jitter(rng, rng.random() < 0.25))
        crop, target = disturb(warp(decode(self.crops.jpegs[row]), box), rng), self.target(row, box)
        if rng.random() < 0.5:
            return np.ascontiguousarray(crop[:, ::-1]), self.mirror(target)
        return crop, target

    def no_face(self, row: int, rng: np.random.Generator) -> U8:
        """A disturbed crop to which the network must say no."""
        kind = rng.random()
        if kind < 0.35 and self.crops.backgrounds:
            picture = decode(self.crops.backgrounds[int(rng.integers(len(self.crops.backgrounds)))])
            side = CACHE_PX * rng.uniform(0.3, 1)
            x, y = rng.uniform(side / 2, CACHE_PX - side / 2 + 1e-6, 2)
            return disturb(warp(picture, CropBox(x, y, side, rng.uniform(-1.5, 1.5))), rng)
        if kind < 0.65:
            return disturb(invented(INPUT_PX, rng), rng)
        if kind < 0.75:
            crop = warp(decode(self.crops.jpegs[row]), self.box(row, jitter(rng, loose=False)))
            crop = shuffled(crop, rng) if rng.random() < 0.7 else crop[::-1]  # or upside down
            return disturb(np.ascontiguousarray(crop), rng)
        crop = disturb(warp(decode(self.crops.jpegs[row]), self.box(row, bad_jitter(rng))), rng)
        return np.ascontiguousarray(crop[:, ::-1]) if rng.random() < 0.5 else crop


# --- losses --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Batch:
    """B targets as tensors; the first `faces` rows show faces, in pairs of one person: (0, 1), (2, 3), …"""

    faces: int
    expression: Tensor
    identity: Tensor
    rotation: Tensor
    centre_px: Tensor
    scale_px: Tensor
    gaze_rad: Tensor
    closure: Tensor
    landmarks_px: Tensor


def collate(targets: Sequence[Target]) -> Batch:
    """Targets of the faces of a batch."""

    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([np.asarray(getattr(t, name), np.float32) for t in targets]))

    names = [n for n in Batch.__slots__ if n != "faces"]
    return Batch(len(targets), **{name: stack(name) for name in names})


@dataclass(frozen=True, slots=True)
class TorchBasis:
    """`FaceBasis` as tensors, points flattened: `mean` (P, 3), `identity` (K, 3 P), `expression` (52, 3 P)."""

    mean: Tensor
    identity: Tensor
    expression: Tensor
    anchor: Tensor

    @staticmethod
    def of(basis: FaceBasis, device: torch.device) -> TorchBasis:
        """On `device`; the irises, which the gaze turns, are left out."""
        keep = np.r_[:SKIN_LANDMARKS, SKIN_LANDMARKS + 10 : len(basis.mean_hu)]

        def tensor(x: F32) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(device)

        return TorchBasis(
            tensor(basis.mean_hu[keep]),
            tensor(basis.identity_hu[:, keep].reshape(len(basis.identity_hu), -1)),
            tensor(basis.expression_hu[:, keep].reshape(len(basis.expression_hu), -1)),
            tensor(basis.anchor_hu),
        )

    def posed(self, identity: Tensor, expression: Tensor, rotation: Tensor) -> Tensor:
        """(B, P, 3): decoded points, turned about the anchor, in head units."""
        offset = identity @ self.identity + expression @ self.expression
        shape = self.mean + offset.reshape(len(offset), -1, 3) - self.anchor
        return shape @ rotation.transpose(1, 2)


def unit_cube(points: Tensor) -> Tensor:
    """φ of the thesis: points (B, P, 3) moved and scaled into the unit cube."""
    low, high = points.amin(1, keepdim=True), points.amax(1, keepdim=True)
    return (points - (low + high) / 2) / (high - low).amax(2, keepdim=True) + 0.5


def rotation_from_6d_torch(six: Tensor) -> Tensor:
    """(B, 6) → (B, 3, 3), columns by Gram and Schmidt."""
    x = F.normalize(six[:, :3], dim=1)
    y = F.normalize(six[:, 3:] - (x * six[:, 3:]).sum(1, keepdim=True) * x, dim=1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], 2)


def losses(
    raw: Tensor, layout: Layout, batch: Batch, basis: TorchBasis, expression_spread: Tensor
) -> dict[str, Tensor]:
    """Each loss, weighted; `raw` (B, D) whose first rows are `batch`, the others show no face."""
    p = {name: raw[: batch.faces, layout.part(name)] for name in layout.sizes}
    rotation = rotation_from_6d_torch(p["rotation"])
    centre = (p["place"][:, :2] + 1) * INPUT_PX / 2
    scale = SCALE_PX_PER_HU * p["place"][:, 2].clamp(-3, 3).exp()
    got = basis.posed(p["identity"], p["expression"], rotation)
    want = basis.posed(batch.identity, batch.expression, batch.rotation)
    # eq. of § 3.2.1: |φ(v_pred) − φ(v_gt)|₂
    loss_3d = (unit_cube(got) - unit_cube(want)).norm(dim=2).mean()
    # § 3.2.2: L1 in the picture; where landmarks were tracked they are the truth, the rest is the label's
    want_px = batch.scale_px[:, None, None] * want[..., :2] + batch.centre_px[:, None]
    want_px = torch.cat([batch.landmarks_px[:, :SKIN_LANDMARKS, :2], want_px[:, SKIN_LANDMARKS:]], 1)
    got_px = scale[:, None, None] * got[..., :2] + centre[:, None]
    loss_projection = (got_px - want_px).abs().mean()
    # § 3.2.3: one person, one shape
    loss_shape = (p["identity"][0::2] - p["identity"][1::2]).abs().mean()
    # § 3.2.4: small parameters; α is in standard deviations, β in 0 … 1
    loss_small = p["identity"].square().mean() + p["expression"].square().mean()
    yes = torch.zeros(len(raw), device=raw.device)
    yes[: batch.faces] = 1
    # Huber and squares, not L1, where the interesting values are rare: L1 would settle on open eyes
    off = F.smooth_l1_loss(p["expression"] / expression_spread, batch.expression / expression_spread)
    gaze_off = (p["gaze"].reshape(-1, 2, 2) - batch.gaze_rad).abs()
    return {
        "3d": WEIGHT_3D * loss_3d,
        "projection": WEIGHT_PROJECTION * loss_projection,
        "shape": WEIGHT_SHAPE * loss_shape,
        "small": WEIGHT_REGULARISATION * loss_small,
        "expression": WEIGHT_EXPRESSION * off,
        "gaze": WEIGHT_GAZE
        * (gaze_off * (1 - batch.closure[:, 1:, None])).mean(),  # a closed eye looks nowhere
        "closure": WEIGHT_CLOSURE * (p["closure"] - batch.closure).square().mean(),
        "confidence": WEIGHT_CONFIDENCE
        * F.binary_cross_entropy_with_logits(raw[:, layout.part("confidence")][:, 0], yes),
    }


# Frames that are rare and matter are drawn more often.
_BLINKS = [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]


def frame_weights(labels: Labels) -> F64:
    """(F,): turned heads, blinks and strong expressions weigh up to several times an idle face; misfits nothing."""
    turned = np.linalg.norm(labels.rotation_rad, axis=1) / 0.25
    lively = np.abs(labels.expression).sum(1) / 4 + labels.expression[:, _BLINKS].max(1)
    weight = 1 + np.minimum(turned**2, 6) + np.minimum(lively, 3)
    return np.where(labels.residual < 0.06, weight, 0.0)
