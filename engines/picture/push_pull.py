"""Smooth filling of holes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


def push_pull(image: F32, weight: F32) -> F32:
    """Fill where `weight` (h, w) is 0 from ever coarser averages (Gortler et al. 1996); (h, w, C) float32."""
    height, width = weight.shape
    if min(height, width) <= 2:
        total = float(weight.sum())
        mean = (image * weight[..., None]).sum((0, 1)) / max(total, 1e-6)
        return np.broadcast_to(mean, image.shape).astype(np.float32)
    size = ((width + 1) // 2, (height + 1) // 2)
    w = weight[..., None]
    weighted = np.asarray(image * w, np.float32)
    coarse_weight = np.asarray(cv2.resize(weight, size, interpolation=cv2.INTER_AREA), np.float32)
    coarse = np.asarray(cv2.resize(weighted, size, interpolation=cv2.INTER_AREA), np.float32)
    coarse /= np.maximum(coarse_weight, 1e-6)[..., None]
    filled = push_pull(coarse, np.minimum(coarse_weight * 2, 1))
    below = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
    below = np.asarray(cv2.GaussianBlur(below, (0, 0), 1.0), np.float32)
    below *= 1 - w
    below += weighted
    return below
