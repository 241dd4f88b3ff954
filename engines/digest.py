"""`digest_of`: one sha256 by which arrays are known again, in avatars, weights and head models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def digest_of(arrays: Mapping[str, NDArray[np.generic]], *before: str) -> str:
    """sha256 of names, dtypes, shapes and bytes, in the order of the names, behind the texts `before` them."""
    digest = hashlib.sha256("\n".join(before).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype}:{array.shape};".encode())
        digest.update(array.data)
    return digest.hexdigest()
