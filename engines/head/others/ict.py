"""ICT-FaceKit (MIT): 53 expressions named as ARKit's, mouth interior, eyeballs, UVs. In cm, y up, z to the viewer.

`python -m engines.head.others.ict FACEXMODEL_FOLDER OUT.npz` packs the .obj files of ICT-FaceKit.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelError
from engines.geometry import F32, F64
from engines.head.landmark_names import LANDMARK_COUNT
from engines.head.model import HeadModel, Part
from engines.head.others.adapt import (
    IBUG_FROM,
    IBUG_TO_MEDIAPIPE,
    IDENTITY_MODES,
    TO_OUR_AXES,
    Embedding,
    RawHead,
    assemble,
    at_vertices,
)
from engines.head.others.files import SEE, Array, Shape, check, indices, read_npz
from engines.head.others.mesh import I64, Surface, UvBox, components, into_box
from engines.motion import ARKIT_NAMES

KIND = "ict"
EMBEDDING_FILE = "ict_mediapipe478.npz"  # looked for next to the model
HU_PER_CM = 0.1
FIELDS: dict[str, Shape] = {
    "neutral": ("n", 3),
    "identity_q": ("k", "n", 3),
    "identity_scale": ("k",),
    "expression_q": ("e", "n", 3),
    "expression_scale": ("e",),
    "expression_names": ("e",),
    "faces": ("t", 3),
    "uv": ("m", 2),
    "uv_faces": ("t", 3),
    "vertex_part": ("n",),
    "face_part": ("t",),
}
_EMBEDDING_FIELDS: dict[str, Shape] = {
    "verts": (LANDMARK_COUNT, 3),
    "bary": (LANDMARK_COUNT, 3),
    "dispersion": (LANDMARK_COUNT,),
}
# face, head and neck, mouth socket, left and right eye socket, gums and tongue, teeth, left and right eyeball
PARTS = np.array(
    [Part.SKIN, Part.SKIN, Part.MOUTH, Part.SOCKET, Part.SOCKET, Part.MOUTH, Part.TEETH, Part.EYE, Part.EYE],
    np.uint8,
)
GUMS_AND_TONGUE, EYE_LEFT, EYE_RIGHT = 5, 7, 8
# The first vertices of ICT-FaceKit in the order of its README: where each part ends.
FULL_COUNT = 24591
PART_ENDS = (9409, 11248, 13294, 13678, 14062, 17039, 21451, 23021, FULL_COUNT)
# eyeLook* move the lids only; the eyeballs turn about these points.
_EYES_CM = np.array([[-3.193, 3.617, 8.431], [3.193, 3.617, 8.431]])
_ON_TONGUE_CM = np.array([0.0, -3.2, 7.0])
# ICT-FaceKit spreads its UVs over four sheets side by side: here is where each goes in the one atlas.
_SHEETS: tuple[UvBox, ...] = (
    (0.005, 0.005, 0.595, 0.62),
    (0.605, 0.005, 0.995, 0.62),
    (0.41, 0.63, 0.70, 0.995),
    (0.71, 0.63, 0.995, 0.995),
)
_EYE_BOXES: tuple[UvBox, UvBox] = ((0.005, 0.63, 0.20, 0.825), (0.205, 0.63, 0.40, 0.825))
# iBUG's points 17 … 67 on the full mesh, from ICT-FaceKit's own list.
_IBUG_VERTICES = (
    268, 493, 1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509, 978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360,
    1507, 1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732, 5708, 5695, 2081, 0, 4275, 6200, 6213,
    6346, 6461, 5518, 5957, 5841, 5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966,
)  # fmt: skip
assert len(_IBUG_VERTICES) == len(IBUG_TO_MEDIAPIPE) == 68 - IBUG_FROM


def load(path: Path, reference: HeadModel) -> HeadModel:
    """An ICT-FaceKit .npz; with `ict_mediapipe478.npz` next to it the landmarks are measured, else estimated.

    Raises ModelError naming what was found and what was expected.
    """
    found = read_npz(path, KIND, FIELDS)
    counts = check(path, KIND, found, FIELDS)
    n = counts["n"]
    faces = indices(path, "faces", found["faces"], n)
    uv_faces = indices(path, "uv_faces", found["uv_faces"], counts["m"])
    vertex_part = indices(path, "vertex_part", found["vertex_part"], len(PARTS))
    face_part = indices(path, "face_part", found["face_part"], len(PARTS))
    vertices = np.asarray(found["neutral"], np.float64)
    expression = _arkit(path, found)

    is_tongue = _tongue(vertices, faces, uv_faces, face_part, counts["m"])
    expression[-1] = _tongue_out(vertices, np.unique(faces[is_tongue]))
    part = np.where(is_tongue, np.uint8(Part.TONGUE), PARTS[face_part])
    uv = np.asarray(found["uv"], np.float64)[uv_faces]
    keep = _outer(vertices, faces, face_part)
    eye_side = np.where(vertex_part == EYE_RIGHT, 1, np.where(vertex_part == EYE_LEFT, 2, 0))
    axes = (TO_OUR_AXES * HU_PER_CM).astype(np.float32)
    placed = vertices * TO_OUR_AXES * HU_PER_CM
    embedding, trust = _embedding(path, placed, faces[keep], part[keep])
    return assemble(
        RawHead(
            name=KIND,
            path=path,
            vertices_hu=placed,
            triangles=faces[keep],
            part=part[keep],
            eye_side=eye_side.astype(np.uint8),
            identity_hu=_scaled(found, "identity", IDENTITY_MODES) * axes,
            modes_hu=expression * axes,
            content=found,
            is_arkit=True,
            corner_uv=_one_atlas(path, uv)[keep],
            eye_boxes=_EYE_BOXES,
            embedding=embedding,
            anchors=at_vertices(np.array(IBUG_TO_MEDIAPIPE), np.array(_IBUG_VERTICES))
            if n == FULL_COUNT
            else None,
            landmark_trust=trust,
            eyes_hu=_EYES_CM * TO_OUR_AXES * HU_PER_CM,
        ),
        reference,
    )


def _scaled(found: dict[str, Array], name: str, limit: int | None = None) -> F32:
    scale = np.asarray(found[f"{name}_scale"], np.float32)[:limit]
    return np.asarray(found[f"{name}_q"], np.float32)[:limit] * scale[:, None, None]


def _arkit(path: Path, found: dict[str, Array]) -> F32:
    """The 52 expressions (52, n, 3) from those named; browInnerUp and cheekPuff come as halves, tongueOut not."""
    names = [str(n).replace("_L", "Left").replace("_R", "Right") for n in found["expression_names"]]
    native = dict(zip(names, _scaled(found, "expression"), strict=True))
    out = np.zeros((len(ARKIT_NAMES), *found["neutral"].shape), np.float32)
    missing: list[str] = []
    for k, name in enumerate(ARKIT_NAMES):
        if name in native:
            out[k] = native[name]
        elif f"{name}Left" in native and f"{name}Right" in native:
            out[k] = native[f"{name}Left"] + native[f"{name}Right"]
        elif name != "tongueOut":
            missing.append(name)
    if missing:
        raise ModelError(
            f"{path} is no {KIND} head model: expression_names lacks {', '.join(missing)}; found: "
            f"{', '.join(names[:5])} …; expected: ARKit's names with _L and _R; {SEE}"
        )
    return out


def _tongue(vertices: F64, faces: I64, uv_faces: I64, face_part: I64, uv_count: int) -> NDArray[np.bool_]:
    """The tongue's triangles: the UV island at the tongue's back. Gums and tongue hang together in space."""
    own = np.flatnonzero(face_part == GUMS_AND_TONGUE)
    if not len(own):
        return np.zeros(len(faces), bool)
    distance = np.linalg.norm(vertices[faces[own]].mean(1) - _ON_TONGUE_CM, axis=1)
    island = components(uv_faces, uv_count)[uv_faces[:, 0]]
    return (face_part == GUMS_AND_TONGUE) & (island == island[own[distance.argmin()]])


def _tongue_out(vertices: F64, tongue: I64) -> F32:
    """A tongueOut (n, 3) in cm for the model that has none: the tip comes out over the lower lip, the root stays."""
    out = np.zeros(vertices.shape, np.float32)
    if len(tongue):
        z = vertices[tongue, 2]
        along = (z - z.min()) / max(float(np.ptp(z)), 1e-9)
        out[tongue] = (along**2)[:, None] * np.array([0.0, -0.4, 2.8])
    return out


def _outer(vertices: F64, faces: I64, face_part: I64) -> NDArray[np.bool_]:
    """All triangles but the inner shell of each eyeball, which nobody sees and whose UVs overlap the outer's."""
    keep = np.ones(len(faces), bool)
    for part in (EYE_LEFT, EYE_RIGHT):
        own = np.flatnonzero(face_part == part)
        if not len(own):
            continue
        shell = components(faces, len(vertices))[faces[own, 0]]
        sizes = {
            int(s): np.ptp(vertices[faces[own[shell == s]]].reshape(-1, 3), 0).sum() for s in np.unique(shell)
        }
        keep[own] = shell == max(sizes, key=lambda s: sizes[s])
    return keep


def _one_atlas(path: Path, uv: F64) -> F64:
    """Corner uv (T, 3, 2) of four sheets side by side, v up → one atlas, y down."""
    sheet = np.floor(uv.mean(1)[:, 0]).astype(int)
    if sheet.min() < 0 or sheet.max() >= len(_SHEETS):
        raise ModelError(
            f"{path}: uv runs over {int(sheet.max()) + 1} sheets, expected {len(_SHEETS)}; {SEE}"
        )
    out = np.zeros_like(uv)
    for number, box in enumerate(_SHEETS):
        own = sheet == number
        local = uv[own] - (number, 0)
        out[own] = into_box(np.stack([local[..., 0], 1 - local[..., 1]], -1), box)
    return out


def _embedding(
    path: Path, vertices: F64, faces: I64, part: NDArray[np.uint8]
) -> tuple[Embedding | None, F64 | None]:
    """The measured landmarks next to the model, and how far each can be trusted (478,) in 0 … 1."""
    beside = path.with_name(EMBEDDING_FILE)
    if not beside.is_file():
        return None, None
    found = read_npz(beside, "ict landmark", _EMBEDDING_FIELDS)
    check(beside, "ict landmark", found, _EMBEDDING_FIELDS)
    corners = indices(beside, "verts", found["verts"], len(vertices)).copy()
    weights = np.clip(np.asarray(found["bary"], np.float64), 0, 1)
    weights /= np.maximum(weights.sum(1, keepdims=True), 1e-9)
    # irises measured on the inner shell move to the outer
    seen = np.zeros(len(vertices), bool)
    seen[faces] = True
    lost = ~seen[corners].all(1)
    if lost.any():
        eyes = faces[part == Part.EYE]
        surface = Surface(vertices, eyes if len(eyes) else faces)
        triangle, weights[lost] = surface.nearest((vertices[corners[lost]] * weights[lost][..., None]).sum(1))
        corners[lost] = surface.triangles[triangle]
    scatter_cm = np.asarray(found["dispersion"], np.float64)
    return Embedding(np.arange(LANDMARK_COUNT), corners, weights), 1 / (1 + (scatter_cm / 0.5) ** 2)


def pack(folder: Path, out: Path) -> None:
    """The .obj files of ICT-FaceKit's `FaceXModel` folder as the .npz that `load` reads, int16 · scale.

    Raises ModelError naming the .obj that is missing or does not fit.
    """
    vertices, uv, polygons = _read_obj(folder / "generic_neutral_mesh.obj")
    n = PART_ENDS[-1]
    if len(vertices) < n:
        raise ModelError(
            f"{folder}/generic_neutral_mesh.obj has {len(vertices)} vertices, expected {n} or more"
        )
    fans = [
        ([p[0][0], p[k][0], p[k + 1][0]], [p[0][1], p[k][1], p[k + 1][1]])
        for p in polygons
        if max(v for v, _ in p) < n
        for k in range(1, len(p) - 1)
    ]
    faces = np.array([f for f, _ in fans])
    vertex_part = np.searchsorted(np.array(PART_ENDS), np.arange(n), side="right").astype(np.uint8)
    identities = sorted(folder.glob("identity*.obj"))
    known = {f"{name}{half}" for name in ARKIT_NAMES for half in ("", "Left", "Right")}
    expressions = [
        f
        for f in sorted(folder.glob("*.obj"))
        if f.stem.replace("_L", "Left").replace("_R", "Right") in known
    ]
    arrays: dict[str, Array] = {
        "neutral": vertices[:n].astype(np.float32),
        "expression_names": np.array([f.stem for f in expressions]),
        "faces": faces,
        "uv": uv.astype(np.float32),
        "uv_faces": np.array([t for _, t in fans]),
        "vertex_part": vertex_part,
        "face_part": vertex_part[faces[:, 0]],
    }
    for name, files in (("identity", identities[:IDENTITY_MODES]), ("expression", expressions)):
        if not files:
            raise ModelError(f"{folder} holds no {name} .obj; point at the FaceXModel folder of ICT-FaceKit")
        quantised = np.zeros((len(files), n, 3), np.int16)
        scale = np.zeros(len(files), np.float32)
        for k, file in enumerate(files):
            moved = _read_obj(file)[0]
            if len(moved) < n:
                raise ModelError(f"{file} has {len(moved)} vertices, expected {len(vertices)}")
            offset = moved[:n] - vertices[:n]
            scale[k] = max(float(np.abs(offset).max()), 1e-9) / 32767
            quantised[k] = np.rint(offset / scale[k])
        arrays[f"{name}_q"], arrays[f"{name}_scale"] = quantised, scale
    np.savez_compressed(out, allow_pickle=False, **arrays)


def _read_obj(file: Path) -> tuple[F64, F64, list[list[tuple[int, int]]]]:
    vertices: list[list[float]] = []
    uvs: list[list[float]] = []
    polygons: list[list[tuple[int, int]]] = []
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                kind, _, rest = line.partition(" ")
                if kind == "v":
                    vertices.append([float(w) for w in rest.split()[:3]])
                elif kind == "vt":
                    uvs.append([float(w) for w in rest.split()[:2]])
                elif kind == "f":
                    corners = [w.split("/") for w in rest.split()]
                    polygons.append([(int(c[0]) - 1, int(c[1]) - 1) for c in corners])
    except (OSError, ValueError, IndexError) as error:
        raise ModelError(f"{file} cannot be read as .obj with uv: {error}") from error
    return np.array(vertices), np.array(uvs), polygons


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m engines.head.others.ict FACEXMODEL_FOLDER OUT.npz")
    try:
        pack(Path(sys.argv[1]), Path(sys.argv[2]))
    except ModelError as failure:
        sys.exit(str(failure))
