"""The causal network of `SpeechToMotion`: two GRU layers over log-mel, in numpy, with its state as a value.

IFaceUV § 3.5 maps MFCC to expression and pose by an LSTM; a GRU over log-mel (whose cosine transform MFCC are)
has the same form with a quarter fewer weights. Two hops of features at a time: 50 answers a second say all that
lips do, for half the work. Numpy, because twenty milliseconds of sound are six small products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.compile.weights import NetworkKind, WeightsHeader, build_network
from engines.motion import EXPRESSION_COUNT
from engines.speech.features import FRAME_HZ, MEL_COUNT

F32 = NDArray[np.float32]

KIND = NetworkKind("speech", 2, "scripts.train_speech")
HOPS = 2  # of features, for one answer
INPUT_COUNT = HOPS * MEL_COUNT
ANSWER_HZ = FRAME_HZ / HOPS
# brings log-mel (−10 … 3) to about −1 … 1.6
FEATURE_SCALE, FEATURE_SHIFT = np.float32(0.2), np.float32(1.0)
WEIGHTS = Path(__file__).parents[1] / "data" / "speech.safetensors"
# what one answer holds, in this order: expression (52), rotation (3), closure of the lips and voice (logits)
ROTATION = slice(EXPRESSION_COUNT, EXPRESSION_COUNT + 3)
CLOSURE = EXPRESSION_COUNT + 3
VOICE = EXPRESSION_COUNT + 4
OUTPUT_COUNT = EXPRESSION_COUNT + 5


@dataclass(frozen=True, slots=True)
class NetworkState:
    """Hidden values of both layers, (B, H) each; a row is one stream."""

    layers: tuple[F32, F32]

    @staticmethod
    def fresh(hidden: int, batch: int = 1) -> NetworkState:
        """State of streams that have heard nothing."""
        return NetworkState((np.zeros((batch, hidden), np.float32), np.zeros((batch, hidden), np.float32)))


def scaled(features: F32) -> F32:
    """Log-mel (…, INPUT_COUNT) in the range that the network is trained on."""
    return np.asarray(features * FEATURE_SCALE + FEATURE_SHIFT, np.float32)


def sigmoid(x: F32) -> F32:
    """Logits as probabilities; by tanh, which overflows nowhere."""
    return np.float32(0.5) * (np.tanh(np.float32(0.5) * x) + np.float32(1))


class SpeechNetwork:
    """Features (B, INPUT_COUNT) of `HOPS` hops → answer (B, OUTPUT_COUNT); PyTorch's GRU equations and layout."""

    def __init__(self, tensors: Mapping[str, F32], look_ahead_hops: int) -> None:
        """Raises KeyError or ValueError for tensors that are no such network."""
        self.look_ahead_hops = look_ahead_hops
        self._input = tuple(
            np.ascontiguousarray(tensors[f"gru.weight_ih_l{n}"].T, np.float32) for n in (0, 1)
        )
        self._hidden = tuple(
            np.ascontiguousarray(tensors[f"gru.weight_hh_l{n}"].T, np.float32) for n in (0, 1)
        )
        self._input_bias = tuple(tensors[f"gru.bias_ih_l{n}"].astype(np.float32) for n in (0, 1))
        self._hidden_bias = tuple(tensors[f"gru.bias_hh_l{n}"].astype(np.float32) for n in (0, 1))
        self._first = np.ascontiguousarray(tensors["first.weight"].T, np.float32)
        self._first_bias = tensors["first.bias"].astype(np.float32)
        self._head = np.ascontiguousarray(tensors["head.weight"].T, np.float32)
        self._head_bias = tensors["head.bias"].astype(np.float32)
        self.hidden = len(self._hidden[0])
        shapes = [w.shape for w in (self._first, *self._input, self._head)]
        wide = (self.hidden, 3 * self.hidden)
        if shapes != [(INPUT_COUNT, self.hidden), wide, wide, (self.hidden, OUTPUT_COUNT)]:
            raise ValueError("the tensors have other shapes than this version's network")

    def __call__(self, features: F32, state: NetworkState) -> tuple[F32, NetworkState]:
        """One step for B streams at once."""
        x = np.maximum(scaled(features) @ self._first + self._first_bias, np.float32(0))
        after: list[F32] = []
        for n, h in enumerate(state.layers):
            a = np.asarray(x @ self._input[n] + self._input_bias[n], np.float32)
            b = np.asarray(h @ self._hidden[n] + self._hidden_bias[n], np.float32)
            size = self.hidden
            reset = sigmoid(a[:, :size] + b[:, :size])
            update = sigmoid(a[:, size : 2 * size] + b[:, size : 2 * size])
            new = np.tanh(a[:, 2 * size :] + reset * b[:, 2 * size :])
            x = np.asarray((np.float32(1) - update) * new + update * h, np.float32)
            after.append(x)
        return x @ self._head + self._head_bias, NetworkState((after[0], after[1]))


def load_network(path: Path | None = None) -> SpeechNetwork:
    """The trained network. Raises WeightsError when the file is missing, damaged or of another version."""
    return build_network(path or WEIGHTS, KIND, _build)[0]


def _build(tensors: dict[str, F32], header: WeightsHeader) -> SpeechNetwork:
    return SpeechNetwork(tensors, int(header.config["look_ahead_hops"]))
