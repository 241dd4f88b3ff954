"""Faces that nobody has: the head model with a random identity, painted and lit like a portrait.

    python -m scripts.head.clay -o FILE.png [--seed 1] [--size 640]

Colours are laid on the mean head (a pixel of the picture knows where on the mean head it lies, which is what
the PNCC of paper 003 says), so that brows, lips and hairline sit right on every identity.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibration.enroll import person_of
from calibration.hair import scalp_weight
from engines.geometry import Similarity, rotation_from_degrees, rotation_matrix
from engines.head.fit import SourceFit
from engines.head.landmark_names import LIPS_INNER, LIPS_OUTER
from engines.head.model import HeadModel, Part, close_gaps, load_head_model
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT
from engines.raster.gbuffer import draw_triangles, front_facing

F32 = NDArray[np.float32]
Floats = NDArray[np.floating]
U8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]

SIGMA_LIMIT = 1.5  # no identity mode goes further from the mean
DEFAULT_SIZE_PX = 640
_SUPERSAMPLE = 2
_FACE_SHARE = 0.245  # of the picture's side: one head unit
_CENTRE_Y = 0.49

_BROWS = ((70, 63, 105, 66, 107), (336, 296, 334, 293, 300))
_UPPER_LIDS = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (263, 466, 388, 387, 386, 385, 384, 398, 362))
_IRIS_HU, _PUPIL_HU = 0.058, 0.024
# half-widths in head units: brows, the line of the upper lashes
_BROW_HU, _LASH_HU = 0.032, 0.014
_LIGHT = np.array([-0.45, -0.55, -0.75])  # direction towards the key light, up and left of the camera
_FILL = np.array([0.75, -0.1, -0.65])


@dataclass(frozen=True, slots=True)
class Looks:
    """Colours of a face, linear RGB 0 … 1."""

    skin: tuple[float, float, float]
    lips: tuple[float, float, float]
    hair: tuple[float, float, float]
    iris: tuple[float, float, float]
    shirt: tuple[float, float, float]
    wall: tuple[float, float, float]


LOOKS: tuple[Looks, ...] = (
    Looks((0.56, 0.31, 0.21), (0.40, 0.12, 0.10), (0.045, 0.022, 0.012), (0.10, 0.045, 0.02),
          (0.05, 0.09, 0.16), (0.42, 0.45, 0.47)),
    Looks((0.66, 0.41, 0.31), (0.47, 0.17, 0.15), (0.16, 0.085, 0.04), (0.10, 0.17, 0.22),
          (0.20, 0.05, 0.06), (0.36, 0.40, 0.36)),
    Looks((0.235, 0.105, 0.06), (0.20, 0.06, 0.05), (0.010, 0.007, 0.006), (0.035, 0.016, 0.008),
          (0.42, 0.38, 0.30), (0.30, 0.34, 0.42)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Seen:
    """What each pixel shows (h, w[, 3]): place on the mean head, unit normal, `Part`, hair 0 … 1, depth, coverage."""

    place_hu: F32
    normal: F32
    part: NDArray[np.uint8]
    hair: F32
    depth_px: F32
    covered: Mask


def random_identity(model: HeadModel, seed: int) -> F32:
    """α (K,) of a person that the model's statistics make likely, every mode within ±1.5 standard deviations."""
    draws = np.random.default_rng(seed).standard_normal(len(model.identity_hu))
    return np.clip(draws, -SIGMA_LIMIT, SIGMA_LIMIT).astype(np.float32)


def clay_face(seed: int, size_px: int = DEFAULT_SIZE_PX, looks: Looks | None = None) -> U8:
    """A portrait (size, size, 3) uint8 sRGB of the person `seed`; the same seed gives the same picture."""
    model = load_head_model()
    rng = np.random.default_rng(seed)
    own = looks or LOOKS[seed % len(LOOKS)]
    side = size_px * _SUPERSAMPLE
    shape = _head(model, seed)
    scale = _FACE_SHARE * side
    yaw, pitch = (float(v) for v in rng.uniform(-4, 4, 2))
    turn = rotation_matrix(rotation_from_degrees(yaw, pitch, 0.0))
    pose = Similarity(scale, turn, np.array([side / 2, _CENTRE_Y * side, 0.0]))
    points = pose.apply(shape).astype(np.float32)
    seen = _see(model, points, model.normals(points), side)
    albedo, gloss = _paint(model, seen, own, rng)
    light = _light(seen, scale)
    head = albedo * light + gloss[..., None] * _highlight(seen)[..., None]
    picture = _backdrop(own, side, rng)
    picture = np.where(seen.covered[..., None], head, picture)
    picture = _dress(picture, model.landmarks(points)[152, :2], scale, own, seen.covered)
    picture = cv2.resize(picture.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_AREA)
    srgb = np.clip(picture, 0, 1) ** (1 / 2.2) * 255
    srgb += rng.normal(0, 1.2, srgb.shape)  # a sensor's grain: no surface is perfectly smooth
    return np.clip(srgb + 0.5, 0, 255).astype(np.uint8)


def _head(model: HeadModel, seed: int) -> F32:
    """(N, 3) a relaxed, faintly friendly face with closed lips and short hair."""
    identity = random_identity(model, seed)
    none = np.zeros((478, 3))
    still = Similarity(1.0, np.eye(3), np.zeros(3))
    # an enrolled person's eyes sit behind their lids: so do these
    neutral = person_of(model, SourceFit(still, identity, np.zeros(EXPRESSION_COUNT, np.float32), none))
    expression = np.zeros(EXPRESSION_COUNT, np.float32)
    for name, size in _RELAXED.items():
        expression[[ARKIT_INDEX[name + "Left"], ARKIT_INDEX[name + "Right"]]] = size
    shape = model.decode(neutral, expression)
    close_gaps(model, shape, np.array([1, 0, 0], np.float32))
    outwards = shape - (0, -0.2, 0.45)
    outwards /= np.maximum(np.linalg.norm(outwards, axis=1, keepdims=True), 1e-6)
    # fuller on top than at the sides
    volume = (0.08 + 0.06 * np.clip(-outwards[:, 1], 0, 1)) * _cap(model) ** 2
    return (shape + volume[:, None] * outwards).astype(np.float32)


_RELAXED = {"mouthSmile": 0.1, "eyeBlink": 0.16, "eyeSquint": 0.1}


def _cap(model: HeadModel) -> F32:
    """(N,) 0 … 1 where hair grows: the scalp without ears and nape."""
    x, y, z = np.abs(model.mean_hu[:, 0]), model.mean_hu[:, 1], model.mean_hu[:, 2]
    ear = _step(x, 0.64, 0.72) * _step(y, -0.52, -0.4) * (1 - _step(z, 0.85, 1.05))
    return (scalp_weight(model) * (1 - ear)).astype(np.float32)


def _step(x: Floats, low: float, high: float) -> F32:
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _see(model: HeadModel, points: F32, normals: F32, side: int) -> _Seen:
    """Draw the head three times, each with other numbers for colours."""
    facing = front_facing(points, model.triangles)
    triangles = model.triangles[facing]
    corners = points[triangles.reshape(-1)]

    def draw(values: Floats) -> tuple[F32, F32]:
        return draw_triangles(corners, np.asarray(values, np.float32).reshape(-1, 3), side, side)

    low, high = model.mean_hu.min(0), model.mean_hu.max(0)
    place, depth = draw(model.pncc()[triangles])
    normal, _ = draw(normals[triangles] / 2 + np.float32(0.5))
    extra = np.zeros((len(triangles), 3, 3), np.float32)
    extra[..., 0] = _cap(model)[triangles]
    extra[..., 1] = model.part[facing][:, None] / 8
    rest, _ = draw(extra)
    part = np.rint(rest[..., 1] * 8).astype(np.uint8)
    normal = normal * 2 - 1
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    return _Seen(place * (high - low) + low, normal, part, rest[..., 0], depth, part > 0)


def _noise(shape: tuple[int, int], step_px: float, rng: np.random.Generator) -> F32:
    """(h, w) smooth noise of about unit size with blobs of `step_px`."""
    small = (max(2, round(shape[1] / step_px)), max(2, round(shape[0] / step_px)))
    seed = rng.standard_normal(small[::-1]).astype(np.float32)
    return np.asarray(cv2.resize(seed, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _blob(place: F32, centre: Floats, radius_hu: float) -> F32:
    return np.exp(-((place - centre) ** 2).sum(-1) / (2 * radius_hu**2)).astype(np.float32)


_MAP_PX_PER_HU = 400.0


def _front_map(place: F32, lines: Sequence[F32], width_hu: float, closed: bool) -> F32:
    """(h, w) 0 … 1: what is painted from the front on the mean head, lines (P, 2) or closed areas, looked up."""
    size = round(2 * _MAP_PX_PER_HU)
    sheet = np.zeros((size, size), np.uint8)
    for line in lines:
        corners = [np.rint((line + 1) * _MAP_PX_PER_HU * 16).astype(np.int32)]
        if closed:
            cv2.fillPoly(sheet, corners, 255, cv2.LINE_AA, 4)
        else:
            thick = max(1, round(2 * width_hu * _MAP_PX_PER_HU))
            cv2.polylines(sheet, corners, False, 255, thick, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(sheet, (0, 0), _MAP_PX_PER_HU * 0.011).astype(np.float32) / 255
    where = (place[..., :2] + 1) * np.float32(_MAP_PX_PER_HU)
    found = cv2.remap(soft, where[..., 0], where[..., 1], cv2.INTER_LINEAR)
    return np.where(place[..., 2] < 0.1, found, 0).astype(np.float32)


def _curve(points: F32, count: int = 40) -> F32:
    """A smooth line (count, 2) through points (P, 2)."""
    t = np.linspace(0, len(points) - 1, count)
    rows = np.arange(len(points))
    line = np.stack([np.interp(t, rows, points[:, k]) for k in range(2)], 1)
    soft = cv2.GaussianBlur(line.astype(np.float32), (1, 9), 2.5, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(soft, np.float32)


def _paint(model: HeadModel, seen: _Seen, looks: Looks, rng: np.random.Generator) -> tuple[F32, F32]:
    """Albedo (h, w, 3) and gloss (h, w)."""
    place, shape = seen.place_hu, seen.part.shape
    marks = model.landmarks(model.mean_hu)
    hair = np.asarray(looks.hair, np.float32)
    skin = np.asarray(looks.skin, np.float32)
    mottle = (
        1 + 0.035 * _noise(shape, 40, rng) + 0.03 * _noise(shape, 7, rng) + 0.03 * _noise(shape, 2.5, rng)
    )
    albedo = skin * mottle[..., None]
    # blood shows in cheeks, nose and ears, less light comes out of the eyes' hollows
    red = sum((0.5 * _blob(place, marks[k], 0.2) for k in (205, 425)), 0.4 * _blob(place, marks[1], 0.12))
    red = red + 0.4 * _step(np.abs(place[..., 0]), 0.72, 0.8)
    albedo = albedo * (1 - red[..., None] * np.array([0.02, 0.22, 0.2], np.float32))
    hollow = sum(
        (_blob(place, marks[k] + (0, 0.02, 0), 0.08) for k in (230, 450)), np.zeros(shape, np.float32)
    )
    albedo = albedo * (1 - 0.18 * hollow[..., None])
    gloss = np.full(shape, 0.05, np.float32)
    gloss += 0.05 * _blob(place, marks[1], 0.1) + 0.05 * _blob(place, marks[151], 0.2)

    lips = _front_map(place, [marks[list(LIPS_OUTER), :2]], 0, True)
    seam = _front_map(place, [(marks[list(LIPS_INNER), :2])[k : k + 11] for k in (0, 10)], 0.006, False)
    wrinkle = 1 + 0.08 * _noise((shape[0], shape[1]), 5, rng)
    albedo = _mix(albedo, np.asarray(looks.lips, np.float32) * wrinkle[..., None], 0.85 * lips)
    albedo = albedo * (1 - 0.55 * (lips * seam)[..., None])
    gloss += 0.06 * lips

    brow = [_curve(marks[list(b), :2] + np.array([0, -0.005])) for b in _BROWS]
    strands = np.clip(0.95 + 0.22 * cv2.GaussianBlur(_noise(shape, 2.5, rng), (15, 1), 4.0) * 2, 0, 1)
    albedo = _mix(albedo, hair + 0.03 * skin, 0.95 * _front_map(place, brow, _BROW_HU, False) * strands)
    lash = [_curve(marks[list(lid), :2]) for lid in _UPPER_LIDS]
    albedo = _mix(
        albedo, np.array([0.02, 0.014, 0.012], np.float32), 0.8 * _front_map(place, lash, _LASH_HU, False)
    )

    strand = _strands(place, rng)
    cap = (
        _step(seen.hair + 0.3 * (strand - 1), 0.25, 0.6)
        * _step(seen.hair, 0.02, 0.2)
        * (seen.part == Part.SKIN)
    )
    albedo = _mix(albedo, hair * strand[..., None], cap)
    gloss = gloss * (1 - cap) + 0.035 * cap

    eye = seen.part == Part.EYE
    if eye.any():
        albedo[eye] = _eye(model, place[eye], looks, rng)
        gloss[eye] = 0.9
    wet = np.isin(seen.part, (Part.SOCKET, Part.MOUTH))
    albedo[wet] = skin * np.array([0.75, 0.45, 0.42], np.float32)
    albedo[seen.part == Part.MOUTH] *= 0.3
    return albedo.astype(np.float32), gloss


def _mix(under: Floats, over: Floats, weight: Floats) -> F32:
    return np.asarray(under + (over - under) * weight[..., None], np.float32)


def _strands(place: F32, rng: np.random.Generator) -> F32:
    """(h, w) brightness of hair combed back: fine in the angle about the skull, slow along it."""
    around = np.arctan2(place[..., 0], 0.5 - place[..., 2]) / np.pi * 0.5 + 0.5
    along = np.clip((place[..., 1] + 1.6) / 2.6, 0, 1)
    sheet = rng.standard_normal((24, 900)).astype(np.float32)
    sheet += cv2.resize(
        rng.standard_normal((6, 150)).astype(np.float32), (900, 24), interpolation=cv2.INTER_CUBIC
    )
    found = cv2.remap(
        sheet, (around * 899).astype(np.float32), (along * 23).astype(np.float32), cv2.INTER_LINEAR
    )
    return np.clip(1 + 0.3 * np.asarray(found, np.float32), 0.35, 2.2)


def _eye(model: HeadModel, place: F32, looks: Looks, rng: np.random.Generator) -> F32:
    """(P, 3) albedo of eyeball pixels at `place` (P, 3) on the mean head."""
    left = place[:, 0] > 0
    centre = model.joints.eyes[left.astype(int)]
    offset = place[:, :2] - centre[:, :2]
    radius = np.linalg.norm(offset, axis=1)
    angle = np.arctan2(offset[:, 1], offset[:, 0])
    rays = np.interp(angle, np.linspace(-np.pi, np.pi, 160), rng.uniform(0.7, 1.35, 160))
    white = np.array([0.62, 0.57, 0.54], np.float32) * (1 - 0.12 * _step(radius, 0.07, 0.12))[:, None]
    iris = np.asarray(looks.iris, np.float32) * (rays * (0.8 + 5 * np.clip(radius - 0.025, 0, 0.04)))[:, None]
    iris *= (1 - 0.7 * _step(radius, _IRIS_HU * 0.85, _IRIS_HU))[:, None]
    out = _mix(iris, white, _step(radius, _IRIS_HU - 0.004, _IRIS_HU + 0.004))
    out = _mix(np.full_like(out, 0.004), out, _step(radius, _PUPIL_HU - 0.003, _PUPIL_HU + 0.003))
    # the upper lid shades the ball
    shade = 1 - 0.45 * _step(-offset[:, 1], 0.02, 0.07)
    return np.asarray(out * shade[:, None], np.float32)


def _light(seen: _Seen, scale: float) -> F32:
    """(h, w, 3) light that arrives: key, fill and sky, less of it in hollows; soft as skin is."""
    key = _wrapped(seen.normal @ _unit(_LIGHT), 0.3)
    fill = _wrapped(seen.normal @ _unit(_FILL), 0.4)
    sky = 0.5 - 0.5 * seen.normal[..., 1]
    open_ = _openness(seen, scale)
    light = key[..., None] * np.array([1.22, 1.12, 1.02]) + fill[..., None] * np.array([0.30, 0.33, 0.37])
    light = light * (0.35 + 0.65 * open_[..., None])
    return (light + (sky * open_)[..., None] * np.array([0.36, 0.38, 0.42])).astype(np.float32)


def _unit(v: Floats) -> F32:
    return (v / np.linalg.norm(v)).astype(np.float32)


def _wrapped(cosine: F32, wrap: float) -> F32:
    return (np.clip((cosine + wrap) / (1 + wrap), 0, 1) ** 1.3).astype(np.float32)


def _openness(seen: _Seen, scale: float) -> F32:
    """(h, w) 0 … 1: how little of the sky the surroundings hide, from depth alone, at three sizes."""
    inside = seen.covered.astype(np.float32)
    depth = np.where(seen.covered, seen.depth_px, 0).astype(np.float32)
    out = np.ones(depth.shape, np.float32)
    for sigma_hu, strength in ((0.03, 0.3), (0.09, 0.35), (0.28, 0.4)):
        sigma = sigma_hu * scale
        near = cv2.GaussianBlur(depth, (0, 0), sigma) / np.maximum(
            cv2.GaussianBlur(inside, (0, 0), sigma), 1e-3
        )
        behind = (depth - near) / sigma
        out *= 1 - strength * np.clip(behind, 0, 1.2) / 1.2
    return np.where(seen.covered, out, 1).astype(np.float32)


def _highlight(seen: _Seen) -> F32:
    """(h, w) mirror light of the key, seen from the front; sharp on the wet eyes."""
    half = _unit(_unit(_LIGHT) + np.array([0, 0, -1]))
    facing = np.clip(seen.normal @ half, 0, 1)
    return np.where(seen.part == Part.EYE, facing**300, facing**14).astype(np.float32)


def _backdrop(looks: Looks, side: int, rng: np.random.Generator) -> F32:
    """(side, side, 3) a plain wall, a little brighter behind the head."""
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    glow = 1.08 - 0.55 * (x**2 + (y + 0.05) ** 2) + 0.01 * _noise((side, side), side / 6, rng)
    return (np.asarray(looks.wall) * glow[..., None]).astype(np.float32)


def _dress(picture: F32, chin_px: Floats, scale: float, looks: Looks, covered: Mask) -> F32:
    """Shoulders behind the neck and a round collar before its base."""
    side = picture.shape[0]
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    across, down = (x - chin_px[0]) / scale, (y - chin_px[1]) / scale
    slope = 0.24 + 0.35 * np.clip(np.abs(across) - 0.5, 0, None) ** 1.1
    slope += 1.2 * np.clip(np.abs(across) - 1.55, 0, None) ** 2
    torso = _step(down - slope, 0.0, 0.02)
    neckline = 0.35 - 0.37 * np.clip(np.abs(across) / 0.62, 0, 1) ** 2.2
    front = _step(down - neckline, 0.0, 0.012) * _step(down - slope + 0.05, 0.0, 0.02)
    cloth = (
        np.asarray(looks.shirt, np.float32) * (1.15 - 0.3 * np.clip(across / 1.6 + 0.5, 0, 1.4))[..., None]
    )
    rib = np.clip(1 - np.abs(down - neckline - 0.045) / 0.045, 0, 1)
    cloth = cloth * (1 - 0.25 * np.clip(down - neckline, 0, 0.1)[..., None] * 4) * (1 + 0.12 * rib[..., None])
    weight = np.where(covered, front, np.maximum(torso, front)).astype(np.float32)
    return _mix(picture, cloth, weight)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=DEFAULT_SIZE_PX, help="side of the picture in pixels")
    arguments = parser.parse_args()
    Image.fromarray(clay_face(arguments.seed, arguments.size)).save(arguments.output)


if __name__ == "__main__":
    main()
