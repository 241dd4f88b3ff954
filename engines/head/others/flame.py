"""FLAME 2020 and 2023: shapes, expressions, a jaw and eyeballs. In metres, y up, z to the viewer.

Pickles are programs. This one is read by an unpickler that knows a handful of names and turns each into data of
our own: nothing from the file is imported or called, neither numpy's, scipy's nor chumpy's code.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from engines.errors import ModelError
from engines.geometry import F32, F64
from engines.head.model import HeadModel, Part
from engines.head.others.adapt import IDENTITY_MODES, TO_OUR_AXES, Embedding, RawHead, assemble
from engines.head.others.files import SEE, Array, Shape, check, indices, read_npz
from engines.head.others.mesh import I64, into_box

KIND = "flame"
HU_PER_M = 10.0
FIELDS: dict[str, Shape] = {
    "v_template": ("n", 3),
    "shapedirs": ("n", 3, "k"),
    "f": ("t", 3),
    "J_regressor": (5, "n"),
    "weights": ("n", 5),
    "kintree_table": (2, 5),
}
_OPTIONAL = ("posedirs", "eyelids", "vt", "ft")
IDENTITY_COUNT = 300  # of `shapedirs`; what follows are expressions
JAW, EYE_LEFT, EYE_RIGHT, NECK = 2, 3, 4, 1
JAW_OPEN_RAD, JAW_TURN_RAD = 0.35, 0.1  # what counts as one standard deviation of the jaw
TEXTURE_FILE = "FLAME_texture.npz"  # both are looked for next to the model
EMBEDDING_FILE = "mediapipe_landmark_embedding.npz"
EYELID_FILES = ("l_eyelid.npy", "r_eyelid.npy")


def load(path: Path, reference: HeadModel) -> HeadModel:
    """A FLAME .pkl or .npz; UVs, landmarks and eyelids are taken from the usual files next to it if there.

    Raises ModelError naming what was found and what was expected.
    """
    names = (*FIELDS, *_OPTIONAL)
    found = read_npz(path, KIND, names) if path.suffix.lower() == ".npz" else read_pickle(path, names)
    counts = check(path, KIND, found, FIELDS)
    n = counts["n"]
    faces = indices(path, "f", found["f"], n)
    vertices = np.asarray(found["v_template"], np.float64)
    weights = np.asarray(found["weights"], np.float64)
    joints = np.asarray(found["J_regressor"], np.float64) @ vertices
    if counts["k"] <= IDENTITY_COUNT:
        raise ModelError(
            f"{path} is no {KIND} head model: shapedirs has {counts['k']} modes, expected {IDENTITY_COUNT} of "
            f"identity and then those of expression; {SEE}"
        )
    directions = np.moveaxis(np.asarray(found["shapedirs"], np.float32), 2, 0)
    jaw = _jaw(path, found, vertices, weights[:, JAW], joints[JAW])
    modes = np.concatenate([directions[IDENTITY_COUNT:], jaw, _eyelids(path, found, n)])
    eye_side = np.where(weights[:, EYE_RIGHT] > 0.5, 1, np.where(weights[:, EYE_LEFT] > 0.5, 2, 0)).astype(
        np.uint8
    )
    part = np.where((eye_side[faces] > 0).all(1), np.uint8(Part.EYE), np.uint8(Part.SKIN))
    axes = TO_OUR_AXES * HU_PER_M
    return assemble(
        RawHead(
            name=KIND,
            path=path,
            vertices_hu=vertices * axes,
            triangles=faces,
            part=part,
            eye_side=eye_side,
            identity_hu=directions[:IDENTITY_MODES] * axes.astype(np.float32),
            modes_hu=modes * axes.astype(np.float32),
            content=found,
            corner_uv=_uv(path, found, len(faces)),
            anchors=_anchors(path, faces),
            eyes_hu=joints[[EYE_RIGHT, EYE_LEFT]] * axes,
            jaw_hu=joints[JAW] * axes,
            neck_hu=joints[NECK] * axes,
        ),
        reference,
    )


def _jaw(path: Path, found: dict[str, Array], vertices: F64, weights: F64, about: F64) -> F32:
    """The jaw opened and turned to a side as modes (2, n, 3): secants of the skinned rotation, in metres."""
    open_, side = (
        _turned(vertices, about, weights, axis, angle)
        for axis, angle in ((0, JAW_OPEN_RAD), (1, JAW_TURN_RAD))
    )
    if "posedirs" in found:
        check(path, KIND, found, {"v_template": ("n", 3), "posedirs": ("n", 3, 36)})
        # FLAME's pose correctives are linear in R − 1 of the four joints after the root; the jaw is the second
        posedirs = np.asarray(found["posedirs"], np.float64)
        for mode, axis, angle in ((open_, 0, JAW_OPEN_RAD), (side, 1, JAW_TURN_RAD)):
            feature = _turned(np.eye(3), np.zeros(3), np.ones(3), axis, angle).T.ravel()
            mode += posedirs[:, :, 9:18] @ feature
    return np.stack([open_, side]).astype(np.float32)


def _turned(vertices: F64, about: F64, weights: F64, axis: int, angle_rad: float) -> F64:
    """How far vertices (n, 3) move when a joint at `about` turns by `angle_rad` about `axis`, skinned; (n, 3)."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.eye(3)
    rotation[i, i], rotation[i, j], rotation[j, i], rotation[j, j] = c, -s, s, c
    offset = vertices - about
    return weights[:, None] * (offset @ rotation.T - offset)


def _eyelids(path: Path, found: dict[str, Array], n: int) -> F32:
    """Eyelid modes (0 or 2, n, 3), a later addition to FLAME that comes in files of its own."""
    if "eyelids" in found:
        check(path, KIND, found, {"eyelids": (2, n, 3)})
        return np.asarray(found["eyelids"], np.float32)
    files = [path.with_name(name) for name in EYELID_FILES]
    if not all(file.is_file() for file in files):
        return np.zeros((0, n, 3), np.float32)
    lids: list[F32] = []
    for file in files:
        try:
            lid = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ModelError(f"{file} is no .npy or is truncated: {error}; {SEE}") from error
        check(file, "flame eyelid", {"eyelid": lid}, {"eyelid": (n, 3)})
        lids.append(np.asarray(lid, np.float32))
    return np.stack(lids)


def _uv(path: Path, found: dict[str, Array], face_count: int) -> F64 | None:
    """Corner uv (T, 3, 2), y down, of `vt` and `ft`: in the file itself or in FLAME's texture file next to it."""
    beside = path.with_name(TEXTURE_FILE)
    source, place = (found, path) if "vt" in found else ({}, beside)
    if not source and beside.is_file():
        source = read_npz(beside, "flame texture", ("vt", "ft"))
    if not source:
        return None
    counts = check(place, "flame texture", source, {"vt": ("m", 2), "ft": (face_count, 3)})
    uv = np.asarray(source["vt"], np.float64)[indices(place, "ft", source["ft"], counts["m"])]
    # the eyeballs get islands of their own below
    return into_box(np.stack([uv[..., 0], 1 - uv[..., 1]], -1), (0.005, 0.005, 0.995, 0.80))


def _anchors(path: Path, faces: I64) -> Embedding | None:
    """The 105 MediaPipe landmarks that FLAME's site offers, when they lie next to the model."""
    beside = path.with_name(EMBEDDING_FILE)
    if not beside.is_file():
        return None
    fields: dict[str, Shape] = {"landmark_indices": ("a",), "lmk_face_idx": ("a",), "lmk_b_coords": ("a", 3)}
    found = read_npz(beside, "flame landmark", fields)
    check(beside, "flame landmark", found, fields)
    face = indices(beside, "lmk_face_idx", found["lmk_face_idx"], len(faces))
    ids = indices(beside, "landmark_indices", found["landmark_indices"], 468)
    return Embedding(ids, faces[face], np.asarray(found["lmk_b_coords"], np.float64))


# ---- the restricted unpickler -------------------------------------------------------------------------------


class _Bag:
    """An object of the file as its attributes: a chumpy array, a scipy matrix."""

    state: dict[str, Any]

    def __new__(cls, *_: object) -> _Bag:
        bag = super().__new__(cls)
        bag.state = {}
        return bag

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.state = cast(dict[str, Any], state)


class _Dtype:
    """A numpy dtype by its letters; only plain numbers can be made real."""

    def __init__(self, letters: object = "", *_: object) -> None:
        self.letters, self.order = str(letters), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])

    def real(self) -> np.dtype[Any]:
        kind = np.dtype(self.letters)
        if kind.kind not in "fiub":
            raise pickle.UnpicklingError(f"an array of {self.letters}")
        return kind.newbyteorder("=" if self.order == "|" else self.order)  # type: ignore[arg-type]


class _Array:
    """A numpy array as its raw bytes."""

    value: Array

    def __init__(self, *_: object) -> None:
        self.value = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("an array without a dtype")
        raw = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(raw, bytes):
            raise pickle.UnpicklingError("an array of objects")
        value = np.frombuffer(raw, dtype.real())
        self.value = value.reshape(shape, order="F" if is_fortran else "C")


def _reconstructor(cls: object, *_: object) -> object:
    if cls is not _Bag:
        raise pickle.UnpicklingError("an object of a class of its own")
    return _Bag()


def _encode(text: object, *_: object) -> bytes:
    return str(text).encode("latin1")


def _scalar(dtype: _Dtype, data: object) -> Array:
    raw = data.encode("latin1") if isinstance(data, str) else cast(bytes, data)
    return np.frombuffer(raw, dtype.real())[:1].reshape(())


def _set(*_: object) -> None:
    """Chumpy's bookkeeping, not wanted."""


class _Unpickler(pickle.Unpickler):
    """Names → data of our own; any other name ends the reading before anything runs."""

    _NAMES: ClassVar[dict[str, Callable[..., object]]] = {
        "numpy.ndarray": _Array,
        "numpy.dtype": _Dtype,
        "chumpy.ch.Ch": _Bag,
        "copy_reg._reconstructor": _reconstructor,
        "copyreg._reconstructor": _reconstructor,
        "_codecs.encode": _encode,
        "collections.OrderedDict": dict,
        **{f"{b}.object": _Bag for b in ("__builtin__", "builtins")},
        **{f"{b}.set": _set for b in ("__builtin__", "builtins")},
        **{f"numpy.{core}.multiarray._reconstruct": _Array for core in ("core", "_core")},
        **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
        **{
            f"scipy.sparse.{u}{kind}.{kind}_matrix": _Bag for u in ("", "_") for kind in ("csc", "csr", "coo")
        },
    }

    def find_class(self, module: str, name: str) -> Any:
        known = self._NAMES.get(f"{module}.{name}")
        if known is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no FLAME model needs")
        return known


def read_pickle(path: Path, names: tuple[str, ...]) -> dict[str, Array]:
    """Those of `names` that a pickled dict holds, as arrays; never runs what the pickle says.

    Raises ModelError for a pickle that asks for anything but numpy arrays, scipy sparse matrices and chumpy
    arrays, for a truncated one, and for what is not a pickled dict.
    """
    try:
        with path.open("rb") as file:
            top = _Unpickler(file, encoding="latin1").load()
        if not isinstance(top, dict):
            raise pickle.UnpicklingError(f"it holds a {type(top).__name__}, not a dict")
        fields = cast(dict[object, object], top)
        return {name: _real(fields[name]) for name in names if name in fields}
    # a broken pickle can end in almost any of Python's errors; none of them is a bug of ours
    except Exception as error:
        raise ModelError(
            f"{path} is no {KIND} head model or is truncated: {error or type(error).__name__}; expected a pickled "
            f"dict with {', '.join(FIELDS)}; {SEE}"
        ) from error


def _real(value: object) -> Array:
    """An array out of the data that stands for it."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, _Bag):
        if "x" in value.state:  # chumpy
            return _real(value.state["x"])
        return _dense(value.state)
    return np.asarray(value)


def _dense(state: dict[str, Any]) -> Array:
    """A scipy sparse matrix, of which the file holds the parts."""
    data = _real(state["data"])
    rows, columns = (int(np.asarray(_real(s))) for s in (state.get("_shape") or state["shape"]))
    if rows > 64 or columns > 1_000_000:
        raise pickle.UnpicklingError(f"a sparse matrix of {rows} × {columns}")
    out = np.zeros((rows, columns))
    if "indptr" in state:
        inner = _real(state["indices"]).astype(np.int64)
        starts = _real(state["indptr"]).astype(np.int64)
        outer = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        # a column pointer for every column, or a row pointer for every row
        at = (inner, outer) if len(starts) == columns + 1 else (outer, inner)
    else:
        at = (_real(state["row"]).astype(np.int64), _real(state["col"]).astype(np.int64))
    np.add.at(out, at, data)
    return out
