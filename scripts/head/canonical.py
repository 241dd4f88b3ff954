"""MediaPipe's canonical face: what gives the model its scale and frame."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64
from engines.model_files import find_model


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
