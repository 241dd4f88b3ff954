"""One recurrent layer of the speech network, GRU or LSTM, in numpy: PyTorch's equations and layout, state a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

Cell = Literal["gru", "lstm"]
# of a GRU h (B, H); of an LSTM h and c, (B, H) each; a row is one stream
LayerState = tuple[F32, ...]
GATES: dict[Cell, int] = {"gru": 3, "lstm": 4}
STATES: dict[Cell, int] = {"gru": 1, "lstm": 2}


def sigmoid(x: F32) -> F32:
    """Logits as probabilities; by tanh, which overflows nowhere."""
    return np.float32(0.5) * (np.tanh(np.float32(0.5) * x) + np.float32(1))


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights (I, G·H) and (H, G·H) and biases (G·H,) of G gates, in PyTorch's order of them."""

    cell: Cell
    inward: F32
    onward: F32
    inward_bias: F32
    onward_bias: F32

    @staticmethod
    def read(tensors: Mapping[str, F32], cell: Cell, number: int) -> Layer:
        """Layer `number` as PyTorch names its tensors. Raises KeyError, and ValueError for other shapes."""
        weights = (
            np.ascontiguousarray(tensors[f"{cell}.weight_{way}_l{number}"].T, np.float32)
            for way in ("ih", "hh")
        )
        biases = (tensors[f"{cell}.bias_{way}_l{number}"].astype(np.float32) for way in ("ih", "hh"))
        layer = Layer(cell, *weights, *biases)
        if layer.onward.shape != (layer.hidden, GATES[cell] * layer.hidden):
            raise ValueError(f"the tensors of layer {number} are no {cell}'s")
        return layer

    @property
    def hidden(self) -> int:
        """H."""
        return len(self.onward)

    def fresh(self, batch: int) -> LayerState:
        """State of `batch` streams that have heard nothing."""
        return tuple(np.zeros((batch, self.hidden), np.float32) for _ in range(STATES[self.cell]))

    def __call__(self, x: F32, state: LayerState) -> tuple[F32, LayerState]:
        """One step: x (B, I) → h (B, H), and the state after it.

        GRU: r, z = σ(a + b), n = tanh(a_n + r b_n), h' = (1 − z) n + z h.
        LSTM: i, f, o = σ(a + b), g = tanh(a_g + b_g), c' = f c + i g, h' = o tanh c'.
        """
        a = np.asarray(x @ self.inward + self.inward_bias, np.float32)
        b = np.asarray(state[0] @ self.onward + self.onward_bias, np.float32)
        after = _gru(a, b, state[0]) if self.cell == "gru" else _lstm(a + b, state[1])
        return after[0], after


def _gru(a: F32, b: F32, h: F32) -> LayerState:
    size = h.shape[1]
    reset = sigmoid(a[:, :size] + b[:, :size])
    update = sigmoid(a[:, size : 2 * size] + b[:, size : 2 * size])
    new = np.tanh(a[:, 2 * size :] + reset * b[:, 2 * size :])
    return (np.asarray((np.float32(1) - update) * new + update * h, np.float32),)


def _lstm(gates: F32, c: F32) -> LayerState:
    size = c.shape[1]
    taken, kept, told = (sigmoid(gates[:, k * size : (k + 1) * size]) for k in (0, 1, 3))
    c = np.asarray(kept * c + taken * np.tanh(gates[:, 2 * size : 3 * size]), np.float32)
    return np.asarray(told * np.tanh(c), np.float32), c
