"""AdamW in the form that is quickest on a device, and its state, which may come from another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

# how this machine does it, whatever the machine did that wrote the state
_OWN = ("fused", "foreach", "capturable", "lr")


def fused_adamw(
    parameters: Iterable[nn.Parameter],
    rate: float,
    device: torch.device,
    *,
    betas: tuple[float, float],
    weight_decay: float,
) -> torch.optim.AdamW:
    """AdamW whose step is one kernel over all parameters; on a GPU it can be recorded as a graph.

    With `weight_decay` 0 it is Adam.
    """
    on_gpu = device.type == "cuda"
    # a graph repeats numbers and reads tensors
    kept = torch.tensor(rate, dtype=torch.float32, device=device) if on_gpu else rate
    return torch.optim.AdamW(
        parameters, kept, betas=betas, weight_decay=weight_decay, fused=True, capturable=on_gpu
    )


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of all parameters, without waiting for the device."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def load_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Moments and step counts of `state`; the rate and how it is computed stay this optimiser's own."""
    groups = [
        {**saved, **{name: group[name] for name in _OWN if name in group}}
        for saved, group in zip(state["param_groups"], optimiser.param_groups, strict=True)
    ]
    optimiser.load_state_dict({**state, "param_groups": groups})
