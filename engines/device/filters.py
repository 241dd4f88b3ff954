"""Small linear filters as matrices over rows and columns: any border, any scale, one product on each side.

Each matrix is (to, from) float32 and does along one axis what OpenCV does. Minima and maxima of a neighbourhood too.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

F32 = NDArray[np.float32]


def area(count: int, to: int) -> F32:
    """`cv2.INTER_AREA` from `count` to fewer: each is the mean of what it covers."""
    edges = np.arange(to + 1) * (count / to)
    low, high = edges[:-1, None], edges[1:, None]
    own = np.arange(count)[None]
    covered = np.clip(np.minimum(high, own + 1) - np.maximum(low, own), 0, None)
    return (covered / covered.sum(1, keepdims=True)).astype(np.float32)


def linear(count: int, to: int) -> F32:
    """`cv2.INTER_LINEAR` from `count` to any number."""
    at = np.clip((np.arange(to) + 0.5) * (count / to) - 0.5, 0, count - 1)
    low = np.floor(at).astype(np.intp)
    out = np.zeros((to, count), np.float32)
    np.add.at(out, (np.arange(to), low), 1 - (at - low))
    np.add.at(out, (np.arange(to), np.minimum(low + 1, count - 1)), at - low)
    return out


def gaussian(count: int, sigma: float, side: int = 0) -> F32:
    """`cv2.GaussianBlur` of floats, the border mirrored; `side` 0: as wide as it takes then."""
    side = side or round(sigma * 8 + 1) | 1
    steps = np.arange(side) - side // 2
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    return banded(count, weights / weights.sum())


def mean(count: int, side: int) -> F32:
    """`cv2.blur`, the border mirrored."""
    return banded(count, np.full(side, 1 / side))


def banded(count: int, weights: NDArray[np.float64]) -> F32:
    """Any weights (odd) about each place, the border mirrored."""
    out = np.zeros((count, count))
    rows = np.arange(count)
    for step, weight in enumerate(weights):
        at = np.abs(rows + step - len(weights) // 2)
        at = np.where(at >= count, 2 * (count - 1) - at, at)
        np.add.at(out, (rows, np.clip(at, 0, count - 1)), weight)
    return out.astype(np.float32)


def filtered(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, C, h, w) by a matrix over its rows (h', h) and one over its columns (w', w)."""
    return rows @ values @ columns.T


def summed(values: Tensor, side: int) -> Tensor:
    """The mean of `side` × `side` places around each, nothing beyond the edge."""
    return functional.avg_pool2d(values, side, 1, side // 2)


def most(values: Tensor, side: int) -> Tensor:
    """`cv2.dilate` by a square: the most around each; of an even side that and those before it."""
    if side % 2:
        return functional.max_pool2d(values, side, 1, side // 2)
    before = functional.pad(values, (side // 2, side - 1 - side // 2) * 2, value=-torch.inf)
    return functional.max_pool2d(before, side, 1)


def least(values: Tensor, side: int) -> Tensor:
    """`cv2.erode` by a square; what lies beyond the edge does not count."""
    return -most(-values, side)


def ellipse_most(values: Tensor, spans: Tensor) -> Tensor:
    """`cv2.dilate` of (B, C, h, w) by each row's own shape: `spans` (B, 2 r + 1) how far it reaches sideways at each
    height from −r to r, below 0 not at all."""
    reach = spans.shape[1] // 2
    wide = torch.stack([functional.max_pool2d(values, (1, 2 * r + 1), 1, (0, r)) for r in range(reach + 1)])
    row = torch.arange(len(values), device=values.device)
    height = values.shape[2]
    out: Tensor | None = None
    for k in range(2 * reach + 1):
        span = spans[:, k]
        some = wide[span.clamp(0, reach).long(), row]
        some = torch.where(span[:, None, None, None] >= 0, some, -torch.inf)
        beyond = functional.pad(some, (0, 0, reach, reach), value=-torch.inf)[:, :, k : k + height]
        out = beyond if out is None else torch.maximum(out, beyond)
    assert out is not None
    return out
