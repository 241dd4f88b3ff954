"""`mirrored`: motion descriptors as the mirrored picture shows them, in torch, without a product of matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from engines.generators.networked.constant import constant, indices
from engines.motion_descriptor import mirror_matrix

_MIRROR = mirror_matrix()
_SOURCE = abs(_MIRROR).argmax(0).tolist()
_SIGN = _MIRROR.sum(0).tolist()


def mirrored(descriptors: Tensor, flip: Tensor) -> Tensor:
    """Descriptors (B, …, 65) told in the window, in the rows where `flip` (B,) says so: `d @ mirror_matrix()`."""
    turned = descriptors.index_select(-1, indices(_SOURCE, descriptors)) * constant(_SIGN, descriptors)
    return torch.where(flip.reshape(-1, *[1] * (descriptors.ndim - 1)), turned, descriptors)
