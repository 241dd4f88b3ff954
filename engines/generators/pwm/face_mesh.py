"""The part of our head that a face model such as BFM has: what paper 002's rows "(BFM)" are compared with."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.head.landmark_names import OVAL
from engines.head.model import HeadModel, Part

_PARTS = (Part.SKIN, Part.EYE, Part.SOCKET)  # no mouth behind the lips
_DEPTH_HU = 0.1  # behind the furthest point of the oval


def face_triangles(model: HeadModel) -> NDArray[np.bool_]:
    """(T,): skin, eyes and sockets within the oval of the face, from forehead to chin, seen from the front."""
    oval = model.landmarks(model.mean_hu)[list(OVAL)].astype(np.float32)
    middle = model.mean_hu[model.triangles].mean(1)
    outline = np.ascontiguousarray(oval[:, None, :2])
    inside = [cv2.pointPolygonTest(outline, (float(x), float(y)), False) >= 0 for x, y, _ in middle]
    front = middle[:, 2] < oval[:, 2].max() + _DEPTH_HU
    return np.array(inside) & front & np.isin(model.part, [int(p) for p in _PARTS])


def on_face(model: HeadModel, triangle: Tensor) -> Tensor:
    """(B, 1, h, w): 1 where the triangle that a pixel shows (B, h, w; −1: none) is one of the face."""
    table = _table(model, str(triangle.device))
    return table.index_select(0, triangle.flatten().long() + 1).reshape(triangle.shape)[:, None]


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # else training could not use it afterwards
def _table(model: HeadModel, device: str) -> Tensor:
    """(1 + T,): first for no triangle."""
    return torch.from_numpy(np.concatenate([[0], face_triangles(model)]).astype(np.float32)).to(device)
