"""The Basel Face Model: 2017 (.h5) and the 2009 face with expressions of Deep3DFaceReconstruction (.mat).

A face without eyeballs, teeth or neck. y up, z to the viewer. Files come in µm, mm and 10 cm: told by the size.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np

from engines.errors import ModelError
from engines.geometry import F32
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

KIND = "bfm"
FIELDS: dict[str, Shape] = {
    "meanshape": (1, "3n"),
    "idBase": ("3n", "k"),
    "exBase": ("3n", "e"),
    "tri": ("t", 3),
}
_OPTIONAL = ("keypoints", "meantex")
H5_FIELDS: dict[str, Shape] = {
    "shape/model/mean": ("3n",),
    "shape/model/pcaBasis": ("3n", "k"),
    "shape/model/pcaVariance": ("k",),
    "expression/model/mean": ("3n",),
    "expression/model/pcaBasis": ("3n", "e"),
    "expression/model/pcaVariance": ("e",),
    "shape/representer/cells": (3, "t"),
}
# The longest side of a face's or head's box lies in this decade, in head units: so its unit can be told.
_SMALLEST_HU = 0.8


def load(path: Path, reference: HeadModel) -> HeadModel:
    """A BFM .h5, .mat or .npz. Raises ModelError naming what was found and what was expected."""
    found = _from_h5(path) if path.suffix.lower() in (".h5", ".hdf5") else _from_mat(path)
    counts = check(path, KIND, found, FIELDS)
    if counts["3n"] % 3:
        raise ModelError(
            f"{path} is no {KIND} head model: meanshape has {counts['3n']} numbers, not x, y, z; {SEE}"
        )
    n = counts["3n"] // 3
    vertices = np.asarray(found["meanshape"], np.float64).reshape(n, 3)
    axes = TO_OUR_AXES * hu_per_unit(path, float(np.ptp(vertices, axis=0).max()))

    def modes(name: str, limit: int | None = None) -> F32:
        return np.asarray(found[name][:, :limit], np.float32).T.reshape(-1, n, 3) * axes.astype(np.float32)

    faces = indices(path, "tri", found["tri"], n, first=1)
    return assemble(
        RawHead(
            name=KIND,
            path=path,
            vertices_hu=vertices * axes,
            triangles=faces,
            part=np.full(len(faces), Part.SKIN, np.uint8),
            eye_side=np.zeros(n, np.uint8),
            identity_hu=modes("idBase", IDENTITY_MODES),
            modes_hu=modes("exBase"),
            content=found,
            anchors=_anchors(path, found, n),
        ),
        reference,
    )


def hu_per_unit(path: Path, extent: float) -> float:
    """Head units in one of the file's units, which is a power of ten: from the longest side of the mean face."""
    if not extent > 0:
        raise ModelError(f"{path}: all vertices of meanshape are at one place; {SEE}")
    power = int(np.floor(np.log10(extent / _SMALLEST_HU)))
    if not -1 <= power <= 6:
        raise ModelError(
            f"{path}: the mean face is {extent:g} units large; in m, 10 cm, cm, mm or µm it would be "
            f"about 0.2, 2, 20, 200 or 200000; {SEE}"
        )
    return 10.0**-power


def _from_mat(path: Path) -> dict[str, Array]:
    names = (*FIELDS, *_OPTIONAL)
    found = read_npz(path, KIND, names) if path.suffix.lower() == ".npz" else _loadmat(path, names)
    for name in ("meanshape", "keypoints"):
        if name in found:
            found[name] = found[name].reshape(1, -1)
    return found


def _loadmat(path: Path, names: Iterable[str]) -> dict[str, Array]:
    from scipy.io import loadmat

    try:
        held = cast(dict[str, Any], loadmat(path, variable_names=list(names)))
    except NotImplementedError as error:
        raise ModelError(
            f"{path} is a MATLAB 7.3 file; save it again with `save -v7` or as .npz; {SEE}"
        ) from error
    except Exception as error:  # scipy's reader meets a broken file with almost any error
        raise ModelError(f"{path} is no {KIND} head model or is truncated: {error}; {SEE}") from error
    return {name: np.asarray(value) for name, value in held.items() if not name.startswith("__")}


def _from_h5(path: Path) -> dict[str, Array]:
    """BFM 2017 as the fields of the .mat: means added, bases times their standard deviations, indices from 1."""
    try:
        h5py: Any = importlib.import_module("h5py")
    except ImportError as error:
        raise ModelError(f"{path}: .h5 files are read with h5py; type: pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            held = {name: np.asarray(file[name]) for name in H5_FIELDS if name in file}
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise ModelError(f"{path} is no {KIND} head model or is truncated: {error}; {SEE}") from error
    return from_basel_2017(path, held)


def from_basel_2017(path: Path, held: dict[str, Array]) -> dict[str, Array]:
    """The arrays of a BFM 2017 file, named as in it, as the fields of the .mat. Raises ModelError."""
    check(path, KIND, held, H5_FIELDS)

    def basis(name: str) -> F32:
        deviation = np.sqrt(np.maximum(np.asarray(held[f"{name}/pcaVariance"], np.float64), 0))
        return (np.asarray(held[f"{name}/pcaBasis"]) * deviation).astype(np.float32)

    mean = np.asarray(held["shape/model/mean"], np.float64) + np.asarray(
        held["expression/model/mean"], np.float64
    )
    return {
        "meanshape": mean[None],
        "idBase": basis("shape/model"),
        "exBase": basis("expression/model"),
        "tri": np.asarray(held["shape/representer/cells"]).T.astype(np.int64) + 1,
    }


def _anchors(path: Path, found: dict[str, Array], n: int) -> Embedding | None:
    """The 68 points that the file knows by vertex, as far as MediaPipe has them."""
    points = found.get("keypoints")
    if points is None or points.size != 68:
        return None
    vertices = indices(path, "keypoints", points.ravel(), n, first=1)
    return at_vertices(np.array(IBUG_TO_MEDIAPIPE), vertices[IBUG_FROM:])
