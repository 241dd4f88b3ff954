"""Glasses are rigid: the skin that their frames cover goes with the skull; only lids and eyes move behind them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT
from engines.head.model import HeadModel, Part
from engines.motion import ARKIT_NAMES

F32 = NDArray[np.float32]

# a frame on the mean head seen from the front: half its width and height around an eye's middle, and how it fades
_HALF_WIDTH_HU, _HALF_HEIGHT_HU, _BELOW_HU, _FADE_HU = 0.3, 0.185, 0.015, 0.12
_BRIDGE_HALF_HEIGHT_HU = 0.12
_DEEP_HU = 0.45  # so far behind the eyes it is the back of the head
_LIDS = np.array([name.startswith("eye") for name in ARKIT_NAMES])  # what moves behind the glass


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """`vertices` (M,) that the frames cover; `effect` (52, 3 M): what each coefficient does there, as far as they cover
    it, 0 for lids."""

    vertices: NDArray[np.intp]
    effect: F32


def hold_glasses(model: HeadModel, shape_hu: F32, change: F32) -> None:
    """Take from un-posed `shape_hu` (N, 3), in place, what `change` (52,), β less the photo's, does to the skin under a
    pair of glasses; lids still open and close."""
    frame = _frame(model)
    shape_hu[frame.vertices] -= (change.astype(np.float32) @ frame.effect).reshape(-1, 3)


def covered(model: HeadModel) -> F32:
    """(N,) 0 … 1: how far glasses cover each vertex of the face."""
    mean = model.mean_hu
    points = model.landmarks(mean)
    right, left = (points[list(ring)].mean(0) for ring in (EYE_RIGHT, EYE_LEFT))
    # a rectangle around either eye, and the bridge between them
    half = (_HALF_WIDTH_HU, _HALF_HEIGHT_HU)
    boxes = [(np.add(eye[:2], (0, _BELOW_HU)), half) for eye in (right, left)]
    boxes.append(((right + left)[:2] / 2, (abs(right[0] - left[0]) / 2, _BRIDGE_HALF_HEIGHT_HU)))
    away = np.min(
        [np.linalg.norm(np.maximum(np.abs(mean[:, :2] - at) - size, 0), axis=1) for at, size in boxes], axis=0
    )
    skin = np.zeros(len(mean), bool)
    skin[model.triangles[np.isin(model.part, (Part.SKIN, Part.SOCKET))].ravel()] = True
    before = mean[:, 2] < max(right[2], left[2]) + _DEEP_HU
    return np.where(skin & before, np.clip(1 - away / _FADE_HU, 0, 1), 0).astype(np.float32)


@lru_cache(maxsize=4)
def _frame(model: HeadModel) -> _Frame:
    share = covered(model)
    vertices = np.flatnonzero(share > 0)
    effect = model.expression_hu[:, vertices] * share[vertices, None]
    effect[_LIDS] = 0
    return _Frame(vertices, np.ascontiguousarray(effect.reshape(len(effect), -1), np.float32))
