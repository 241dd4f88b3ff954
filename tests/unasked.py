"""Nothing may be asked of the device while a step is done: what waits for an answer cannot be recorded as a graph."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# a number for Python, shapes that depend on numbers, and checks that look at them
_ASKING = (
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "_linalg_check_errors", "equal",
)  # fmt: skip


class Unasked(TorchDispatchMode):
    """While it is on, an operation that waits for the device raises AssertionError."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in _ASKING or (name in ("index", "index_put", "index_put_") and _by_mask(args[1])):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


def _by_mask(indices: Any) -> bool:
    return any(isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in indices)
