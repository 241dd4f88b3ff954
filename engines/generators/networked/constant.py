"""`constant`: small fixed numbers on a device, put there once: a step on a GPU must not wait for them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """(n,) of the kind of `like`, on its device; not to be changed."""
    return _kept(tuple(values), like.device, like.dtype)


def indices(values: Sequence[int], like: Tensor) -> Tensor:
    """(n,) int64 on the device of `like`; not to be changed."""
    return _kept(tuple(values), like.device, torch.int64)


@cache  # never dropped: a recorded drawing or step reads them where they lie
def _kept(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    # what is made in inference mode could not be used in training afterwards
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
