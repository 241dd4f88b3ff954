"""`SpeechStep`: the speech network in torch, one answer with its state as inputs and outputs, for export.

What runs in a call is `engines.speech.network`, in numpy; this gives the same numbers to engines elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.speech.features import MEL_COUNT, mfcc
from engines.speech.layer import STATES, Cell
from engines.speech.network import (
    FEATURE_SCALE,
    FEATURE_SHIFT,
    HOPS,
    INPUT_COUNT,
    MFCC_SCALE,
    MFCC_SHIFT,
    SpeechConfig,
)

F32 = NDArray[np.float32]
LAYERS = 2


class _Layer(nn.Module):
    """One recurrent layer of `engines.speech.layer`, a step of it."""

    def __init__(self, tensors: Mapping[str, F32], cell: Cell, number: int) -> None:
        super().__init__()
        self.cell = cell
        self.inward, self.onward = (
            _linear(
                tensors[f"{cell}.weight_{way}_l{number}"],
                tensors[f"{cell}.bias_{way}_l{number}"],
            )
            for way in ("ih", "hh")
        )

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        a, b = self.inward(x), self.onward(state[0])
        if self.cell == "gru":
            a_reset, a_update, a_new = a.chunk(3, 1)
            b_reset, b_update, b_new = b.chunk(3, 1)
            update = torch.sigmoid(a_update + b_update)
            new = torch.tanh(a_new + torch.sigmoid(a_reset + b_reset) * b_new)
            return ((1 - update) * new + update * state[0],)
        taken, kept, fresh, told = (a + b).chunk(4, 1)
        c = torch.sigmoid(kept) * state[1] + torch.sigmoid(taken) * torch.tanh(fresh)
        return torch.sigmoid(told) * torch.tanh(c), c


class SpeechStep(nn.Module):
    """(heard (B, INPUT_COUNT), *state (B, H) of both layers) → (answer (B, OUTPUT_COUNT), *state after it)."""

    def __init__(self, tensors: Mapping[str, F32], config: SpeechConfig) -> None:
        """Raises KeyError for tensors that are no such network."""
        super().__init__()
        self.config = config
        self.first = _linear(tensors["first.weight"], tensors["first.bias"])
        self.layers = nn.ModuleList(_Layer(tensors, config.cell, k) for k in range(LAYERS))
        self.head = _linear(tensors["head.weight"], tensors["head.bias"])
        if config.features == "mfcc":
            cosine = mfcc(np.eye(MEL_COUNT, dtype=np.float32)) * MFCC_SCALE
            self.register_buffer("cosine", torch.from_numpy(np.asarray(cosine, np.float32)))
            self.register_buffer("shift", torch.from_numpy(MFCC_SHIFT))

    def forward(self, heard: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        x = torch.relu(self.first(self._scaled(heard)))
        count, after = STATES[self.config.cell], list[Tensor]()
        for number, layer in enumerate(self.layers):
            after += layer(x, state[number * count : (number + 1) * count])
            x = after[number * count]
        return self.head(x), *after

    def example(self) -> tuple[Tensor, ...]:
        """Inputs of one stream that has heard nothing."""
        count = LAYERS * STATES[self.config.cell]
        return torch.zeros(1, INPUT_COUNT), *(torch.zeros(1, self.first.out_features) for _ in range(count))

    def _scaled(self, heard: Tensor) -> Tensor:
        if self.config.features == "log-mel":
            return heard * float(FEATURE_SCALE) + float(FEATURE_SHIFT)
        hops = heard.unflatten(-1, (HOPS, MEL_COUNT)) @ self.get_buffer("cosine")
        return (hops + self.get_buffer("shift")).flatten(-2)


def _linear(weight: F32, bias: F32) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    return layer
