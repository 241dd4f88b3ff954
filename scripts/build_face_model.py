"""Build `engines/data/face_model.safetensors` from a folder of talking-face clips.

    python scripts/build_face_model.py CLIPS -o engines/data/face_model.safetensors [--tracks CACHE]

1. Track every clip (478 landmarks and 52 scores per frame; cached in --tracks).
2. Un-pose each frame by Procrustes against the person's own mean face.
3. Expression basis by ridge regression of un-posed landmarks on scores, every clip also mirrored.
4. Refine: fit β per frame by boxed least squares with the scores as prior, regress the basis on β; three times.
5. Add the shell: rings around the face oval that carry hair and neck.

The mean's scale is MediaPipe's canonical face (10 cm = 1 head unit). People whose clip id hashes into the
held-out fifth are not used; the residual on them is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tqdm import tqdm

from engines.face_model import EYE_LEFT, EYE_RIGHT, LANDMARK_COUNT, LIPS_INNER, LIPS_OUTER, OVAL, Part
from engines.geometry import align_similarity
from engines.landmarks import LandmarkDetector
from engines.models import find_model
from engines.motion import ARKIT_NAMES, EXPRESSION_COUNT

F64 = NDArray[np.float64]

FITTED = EXPRESSION_COUNT - 1  # tongueOut has no score to learn from and stays zero
ROUNDS = 3
PRIOR_STRENGTH = 0.1
HALF_FACE_HU = 0.8
# The shell, ring by ring outwards: how far out (times the oval), how far back, how rigidly it follows the
# head at the sides and below the chin, how much expression reaches it, and its place in the atlas.
RING_REACH = (1.18, 1.45, 1.9, 2.8)
RING_DEPTH_HU = (0.12, 0.35, 0.45, 0.3)
RING_RIGID_SIDE = (1.0, 0.8, 0.35, 0.0)
RING_RIGID_NECK = (0.85, 0.45, 0.12, 0.0)
RING_EXPRESSION = (0.6, 0.25, 0.06, 0.0)
RING_UV = (1.22, 1.45, 1.7, 1.98)
FACE_UV_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Clip:
    """One tracked clip: `points_px` (F, 478, 3), `scores` (F, 51)."""

    name: str
    points_px: F64
    scores: F64

    @property
    def held_out(self) -> bool:
        """Whether this person belongs to the validation fifth (decided by the name before the last `_`)."""
        subject = self.name.rpartition("_")[0] or self.name
        return int(hashlib.sha256(subject.encode()).hexdigest(), 16) % 5 == 0


@dataclass(frozen=True, slots=True)
class Canonical:
    """MediaPipe's own mesh: `vertices_hu` (468, 3), `uv` (468, 2), `triangles` (898, 3)."""

    vertices_hu: F64
    uv: F64
    triangles: NDArray[np.int32]


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Top-level protobuf fields as (number, payload)."""
    i = 0

    def varint() -> int:
        nonlocal i
        value = shift = 0
        while True:
            byte = data[i]
            i += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while i < len(data):
        key = varint()
        number, kind = key >> 3, key & 7
        if kind == 0:
            yield number, varint()
        elif kind in (2, 5):
            size = 4 if kind == 5 else varint()
            yield number, data[i : i + size]
            i += size
        else:
            raise ValueError(f"unexpected protobuf wire type {kind}")


def canonical_mesh() -> Canonical:
    """The canonical face inside `face_landmarker.task`, in head units and our axes (y down, z away)."""
    with zipfile.ZipFile(find_model("face_landmarker.task")) as task:
        metadata = task.read("geometry_pipeline_metadata_landmarks.binarypb")
    mesh = next(v for n, v in _fields(metadata) if n == 1 and isinstance(v, bytes))
    floats = [struct.unpack("<f", v)[0] for n, v in _fields(mesh) if n == 3 and isinstance(v, bytes)]
    indices = [v for n, v in _fields(mesh) if n == 4 and isinstance(v, int)]
    vertices = np.array(floats).reshape(-1, 5)
    xyz = vertices[:, :3] * (0.1, -0.1, -0.1)
    return Canonical(xyz, vertices[:, 3:], np.array(indices, np.int32).reshape(-1, 3))


def track(path: Path, stride: int = 2) -> Clip:
    """Landmarks and scores of every `stride`-th frame that shows a face."""
    detector = LandmarkDetector(video=True)
    points: list[F64] = []
    scores: list[F64] = []
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % stride:
                continue
            image = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
            faces = detector.detect(image, index * 40)
            if faces:
                points.append(faces[0].points_px.astype(np.float64))
                scores.append(faces[0].scores[:FITTED].astype(np.float64))
    detector.close()
    return Clip(path.stem, np.array(points), np.array(scores))


def load_clips(folder: Path, cache: Path) -> list[Clip]:
    """Track every clip under `folder`, keeping tracks in `cache`."""
    cache.mkdir(parents=True, exist_ok=True)
    clips: list[Clip] = []
    for path in tqdm(sorted(folder.rglob("*.mp4")), desc="tracking"):
        kept = cache / f"{path.stem}.npz"
        if not kept.exists():
            clip = track(path)
            np.savez(kept, points_px=clip.points_px.astype(np.float32), scores=clip.scores.astype(np.float32))
        data = np.load(kept)
        if len(data["scores"]) >= 10:
            clips.append(
                Clip(path.stem, data["points_px"].astype(np.float64), data["scores"].astype(np.float64))
            )
    if not clips:
        raise SystemExit(f"no clip with a face under {folder}; give a folder of .mp4 files of talking people")
    return clips


def mirror_of(mean: F64) -> NDArray[np.int64]:
    """Index of each landmark's mirror image across the face."""
    image = mean * (-1, 1, 1)
    distance = ((mean[:, None] - image[None]) ** 2).sum(-1)
    # irises lie close to lids: match them among themselves
    distance[LANDMARK_COUNT - 10 :, : LANDMARK_COUNT - 10] = np.inf
    distance[: LANDMARK_COUNT - 10, LANDMARK_COUNT - 10 :] = np.inf
    mirror = distance.argmin(1)
    if not (mirror[mirror] == np.arange(len(mirror))).all():
        raise ValueError("the landmarks do not mirror one to one")
    return mirror


def mirrored_scores() -> NDArray[np.int64]:
    """Index of each coefficient's left/right twin."""

    def twin(name: str) -> str:
        if "Left" in name:
            return name.replace("Left", "Right")
        return name.replace("Right", "Left")

    return np.array([ARKIT_NAMES.index(twin(n)) for n in ARKIT_NAMES[:FITTED]])


def fit_coefficients(basis: F64, unposed: F64, neutral: F64, prior: F64, weight: F64) -> F64:
    """β (F, 51) in 0 … 1 for a whole clip: the product's boxed least squares, for many frames at once."""
    root = np.sqrt(weight)[:, None]
    flat = (basis * root).reshape(FITTED, -1)
    target = ((unposed - neutral) * root).reshape(len(unposed), -1)
    energy = (basis**2).sum((1, 2))
    strength = np.diag(PRIOR_STRENGTH * np.maximum(energy, np.percentile(energy, 30)))
    gram = flat @ flat.T + strength
    right = target @ flat.T + prior @ strength
    rho = float(np.diag(gram).mean())
    inverse = np.linalg.inv(gram + rho * np.eye(FITTED))
    x = np.clip(prior, 0, 1)
    dual = np.zeros_like(x)
    for _ in range(60):
        free = (right + rho * (x - dual)) @ inverse
        x = np.clip(free + dual, 0, 1)
        dual += free - x
    return x


def fit_clip(basis: F64, unposed: F64, scores: F64, weight: F64) -> tuple[F64, F64]:
    """(β, neutral) of one clip, each estimated twice in turn."""
    beta = scores
    neutral = unposed.mean(0)
    for _ in range(2):
        neutral = unposed.mean(0) - np.tensordot(beta.mean(0), basis, 1)
        beta = fit_coefficients(basis, unposed, neutral, scores, weight)
    return beta, neutral


def regress(
    coefficients: list[F64], shapes: list[F64], mirror: NDArray[np.int64], start: F64, ridge: float
) -> F64:
    """Ridge regression of shapes on coefficients towards `start`, each clip centred, weighted equally, mirrored."""
    twin = mirrored_scores()
    xs: list[F64] = []
    ys: list[F64] = []
    for x, y in zip(coefficients, shapes, strict=True):
        dx, dy = x - x.mean(0), y - y.mean(0)
        xs += [dx, dx[:, twin]]
        ys += [dy, dy[:, mirror] * (-1, 1, 1)]
    x, y = np.concatenate(xs), np.concatenate(ys).reshape(sum(map(len, ys)), -1)
    begin = start.reshape(FITTED, -1)
    gain = np.linalg.solve(x.T @ x + ridge * len(x) * np.eye(FITTED), x.T @ (y - x @ begin))
    return (begin + gain).reshape(FITTED, LANDMARK_COUNT, 3)


def build(clips: list[Clip], canonical: Canonical) -> dict[str, NDArray[np.generic]]:
    """The model's tensors."""
    train = [c for c in clips if not c.held_out]
    held = [c for c in clips if c.held_out]
    weights = np.ones(468)
    shapes = [_unpose_all(c.points_px, canonical.vertices_hu, weights) for c in train]
    mirror = mirror_of(np.mean([s.mean(0) for s in shapes], 0))
    basis = np.zeros((FITTED, LANDMARK_COUNT, 3))
    template = np.zeros((LANDMARK_COUNT, 3))
    rigid = np.ones(LANDMARK_COUNT)
    for _ in range(ROUNDS):
        basis = regress([c.scores for c in train], shapes, mirror, np.zeros_like(basis), 1e-4)
        neutral = np.mean(
            [
                s.mean(0) - np.tensordot(c.scores.mean(0), basis, 1)
                for s, c in zip(shapes, train, strict=True)
            ],
            0,
        )
        neutral = (neutral + neutral[mirror] * (-1, 1, 1)) / 2
        # landmarks that expressions move tell little about the pose
        spread = np.mean([s.var(0).sum(-1) for s in shapes], 0)
        rigid = 1 / (spread + np.percentile(spread, 20))
        rigid = (rigid + rigid[mirror]) / 2
        rigid[LANDMARK_COUNT - 10 :] = 0
        rigid /= rigid.sum()
        template = align_similarity(neutral[:468], canonical.vertices_hu, rigid[:468]).apply(neutral)
        shapes = [
            _unpose_by_self(s, c.points_px, template, rigid) for s, c in zip(shapes, train, strict=True)
        ]

    weight = np.ones(LANDMARK_COUNT)
    weight[[*LIPS_INNER, *LIPS_OUTER, *EYE_LEFT, *EYE_RIGHT]] = 3
    weight[LANDMARK_COUNT - 10 :] = 0
    for _ in range(ROUNDS):
        betas = [fit_clip(basis, s, c.scores, weight)[0] for s, c in zip(shapes, train, strict=True)]
        basis = regress(betas, shapes, mirror, basis, 0.002)
    _report(basis, held, template, rigid, weight)
    return _with_shell(template, basis, rigid, mirror, canonical)


def _unpose_all(points_px: F64, template: F64, weights: F64) -> F64:
    n = len(weights)
    return np.stack([align_similarity(template[:n], p[:n], weights).invert(p) for p in points_px])


def _unpose_by_self(shapes: F64, points_px: F64, template: F64, rigid: F64) -> F64:
    """Un-pose against the person's own mean face, brought to the template's frame."""
    own = shapes.mean(0)
    own = align_similarity(own, template, rigid).apply(own)
    return _unpose_all(points_px, own, rigid)


def _report(basis: F64, held: list[Clip], template: F64, rigid: F64, weight: F64) -> None:
    fitted: list[float] = []
    scored: list[float] = []
    for clip in held:
        shapes = _unpose_by_self(
            _unpose_all(clip.points_px, template, rigid), clip.points_px, template, rigid
        )
        beta, neutral = fit_clip(basis, shapes, clip.scores, weight)
        rest = shapes.mean(0) - np.tensordot(clip.scores.mean(0), basis, 1)
        fitted.append(float(np.linalg.norm(shapes - neutral - np.tensordot(beta, basis, 1), axis=-1).mean()))
        scored.append(
            float(np.linalg.norm(shapes - rest - np.tensordot(clip.scores, basis, 1), axis=-1).mean())
        )
    if held:
        print(
            f"held out: {len(held)} clips; residual {100 * np.mean(fitted) / HALF_FACE_HU:.2f} % of the half-face "
            f"(worst clip {100 * np.max(fitted) / HALF_FACE_HU:.2f} %), "
            f"with scores as β {100 * np.mean(scored) / HALF_FACE_HU:.2f} %"
        )


def _with_shell(
    template: F64, basis: F64, rigid: F64, mirror: NDArray[np.int64], canonical: Canonical
) -> dict[str, NDArray[np.generic]]:
    oval = np.array(OVAL)
    basis = np.concatenate([basis, np.zeros((1, LANDMARK_COUNT, 3))])
    face_uv = np.concatenate([canonical.uv, np.full((LANDMARK_COUNT - 468, 2), 0.5)])
    face_uv = 0.5 + (face_uv - 0.5) * FACE_UV_SHARE
    rim, rim_uv = template[oval], face_uv[oval]
    # 0 at the temples, 1 at the chin: the neck follows the head less than the hair does
    low = np.clip((rim[:, 1] - 0.2) / 0.6, 0, 1)
    low = low * low * (3 - 2 * low)
    vertices, expressions, rigidity, uv = [template], [basis], [np.ones(LANDMARK_COUNT)], [face_uv]
    rings = zip(
        RING_REACH, RING_DEPTH_HU, RING_RIGID_SIDE, RING_RIGID_NECK, RING_EXPRESSION, RING_UV, strict=True
    )
    for ring, (reach, depth, side, neck, share, place) in enumerate(rings):
        points = rim.copy()
        points[:, :2] *= reach
        points[:, 2] = rim[:, 2] * (0.75 - 0.25 * ring) + depth
        vertices.append(points)
        expressions.append(basis[:, oval] * share)
        rigidity.append(side * (1 - low) + neck * low)
        uv.append(0.5 + (rim_uv - 0.5) * place)
    part = np.full(len(canonical.triangles), Part.SKIN, np.uint8)
    for index, triangle in enumerate(canonical.triangles):
        corners = set(triangle.tolist())
        if corners <= set(EYE_LEFT) or corners <= set(EYE_RIGHT):
            part[index] = Part.EYE
        elif corners <= set(LIPS_INNER):
            part[index] = Part.MOUTH
    loops = [oval] + [LANDMARK_COUNT + len(oval) * k + np.arange(len(oval)) for k in range(len(RING_REACH))]
    shell: list[tuple[int, int, int]] = []
    for inner, outer in pairwise(loops):
        for j in range(len(oval)):
            n = (j + 1) % len(oval)
            shell += [(inner[j], outer[j], outer[n]), (inner[j], outer[n], inner[n])]
    return {
        "mean_hu": np.concatenate(vertices).astype(np.float32),
        "expression_hu": np.concatenate(expressions, 1).astype(np.float16),
        "rigidity": np.concatenate(rigidity).astype(np.float32),
        "fit_weight": rigid.astype(np.float32),
        "uv": np.concatenate(uv).astype(np.float32),
        "triangles": np.concatenate([canonical.triangles, np.array(shell)]).astype(np.int16),
        "part": np.concatenate([part, np.full(len(shell), Part.SHELL, np.uint8)]),
        "mirror": mirror.astype(np.int16),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, help="folder of .mp4 clips, one person each")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--tracks", type=Path, default=Path("runs/tracks"), help="where tracks are kept")
    arguments = parser.parse_args()
    clips = load_clips(arguments.clips, arguments.tracks)
    print(f"{len(clips)} clips, {sum(len(c.scores) for c in clips)} frames")
    tensors = build(clips, canonical_mesh())
    header = {"format": "visavis-face-model", "version": 1, "licence": "MIT"}
    save_file(tensors, str(arguments.output), metadata={"visavis": json.dumps(header)})
    print(f"{arguments.output}: {arguments.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
