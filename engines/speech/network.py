"""The causal network of `SpeechToMotion`: two recurrent layers over log-mel or MFCC, in numpy, its state a value.

IFaceUV § 3.5 maps MFCC to expression and pose by an LSTM: one `SpeechConfig`. What ships is the other, a GRU over
log-mel (whose cosine transform MFCC are): the same form with a quarter fewer weights. Two hops of features at a time:
50 answers a second say all that lips do, for half the work. Numpy, because twenty milliseconds of sound are six small
products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engines.compile.weights import NetworkKind, WeightsHeader, build_network
from engines.motion import EXPRESSION_COUNT
from engines.speech.features import FRAME_HZ, MEL_COUNT, MFCC_COUNT, mfcc
from engines.speech.layer import GATES, Cell, Layer, LayerState

F32 = NDArray[np.float32]

Features = Literal["log-mel", "mfcc"]
KIND = NetworkKind("speech", 2, "scripts.train_speech")
HOPS = 2  # of features, for one answer
INPUT_COUNT = HOPS * MEL_COUNT  # log-mel that one answer is given, whatever is made of it
ANSWER_HZ = FRAME_HZ / HOPS
FEATURE_COUNTS: dict[Features, int] = {"log-mel": MEL_COUNT, "mfcc": MFCC_COUNT}
# brings log-mel (−10 … 3) to about −1 … 1.6
FEATURE_SCALE, FEATURE_SHIFT = np.float32(0.2), np.float32(1.0)
# the first of the MFCC is √40 times the mean of log-mel: to the same range; the others are about 0 (deviation 1 … 6)
MFCC_SCALE = np.where(np.arange(MFCC_COUNT) == 0, 0.2 / np.sqrt(MEL_COUNT), 0.2).astype(np.float32)
MFCC_SHIFT = np.where(np.arange(MFCC_COUNT) == 0, 1.0, 0.0).astype(np.float32)
WEIGHTS = Path(__file__).parents[1] / "data" / "speech.safetensors"
# what one answer holds, in this order: expression (52), rotation (3), closure of the lips and voice (logits)
ROTATION = slice(EXPRESSION_COUNT, EXPRESSION_COUNT + 3)
CLOSURE = EXPRESSION_COUNT + 3
VOICE = EXPRESSION_COUNT + 4
OUTPUT_COUNT = EXPRESSION_COUNT + 5


@dataclass(frozen=True, slots=True)
class SpeechConfig:
    """What a network hears by, how it remembers, and how many hops after a moment it answers for it.

    It is the `config` in the header of its weights; what a header does not say is as in the weights that ship.
    """

    look_ahead_hops: int
    features: Features = "log-mel"
    cell: Cell = "gru"

    def __post_init__(self) -> None:
        """Raises ValueError for what no network is built of."""
        if self.features not in FEATURE_COUNTS or self.cell not in GATES:
            raise ValueError(f"no speech network has {self.features!r} and {self.cell!r}")
        if self.look_ahead_hops not in range(int(FRAME_HZ)):
            raise ValueError(f"no speech network looks {self.look_ahead_hops!r} hops ahead")

    @property
    def input_count(self) -> int:
        """Numbers that the first layer sees for one answer."""
        return HOPS * FEATURE_COUNTS[self.features]

    def __str__(self) -> str:
        return f"{self.cell.upper()} on {'MFCC' if self.features == 'mfcc' else self.features}"


@dataclass(frozen=True, slots=True)
class NetworkState:
    """State of both layers; a row is one stream."""

    layers: tuple[LayerState, LayerState]


def scaled(heard: F32, features: Features) -> F32:
    """(…, INPUT_COUNT) log-mel of `HOPS` hops → (…, input_count) features in the range that networks learn in."""
    if features == "log-mel":
        return np.asarray(heard * FEATURE_SCALE + FEATURE_SHIFT, np.float32)
    hops = heard.reshape(*heard.shape[:-1], HOPS, MEL_COUNT)
    return (mfcc(hops) * MFCC_SCALE + MFCC_SHIFT).reshape(*heard.shape[:-1], -1)


class SpeechNetwork:
    """Log-mel (B, INPUT_COUNT) of `HOPS` hops → answer (B, OUTPUT_COUNT)."""

    def __init__(self, tensors: Mapping[str, F32], config: SpeechConfig) -> None:
        """Raises KeyError or ValueError for tensors that are no such network."""
        self.config = config
        self._layers = Layer.read(tensors, config.cell, 0), Layer.read(tensors, config.cell, 1)
        self._first = np.ascontiguousarray(tensors["first.weight"].T, np.float32)
        self._first_bias = tensors["first.bias"].astype(np.float32)
        self._head = np.ascontiguousarray(tensors["head.weight"].T, np.float32)
        self._head_bias = tensors["head.bias"].astype(np.float32)
        hidden = self._layers[0].hidden
        shapes = [w.shape for w in (self._first, *(n.inward for n in self._layers), self._head)]
        wide = (hidden, GATES[config.cell] * hidden)
        if shapes != [(config.input_count, hidden), wide, wide, (hidden, OUTPUT_COUNT)]:
            raise ValueError("the tensors have other shapes than this version's network")

    def fresh(self, batch: int = 1) -> NetworkState:
        """State of `batch` streams that have heard nothing."""
        return NetworkState((self._layers[0].fresh(batch), self._layers[1].fresh(batch)))

    def __call__(self, heard: F32, state: NetworkState) -> tuple[F32, NetworkState]:
        """One step for B streams at once."""
        x = scaled(heard, self.config.features) @ self._first + self._first_bias
        x, first = self._layers[0](np.maximum(x, np.float32(0)), state.layers[0])
        x, second = self._layers[1](x, state.layers[1])
        return x @ self._head + self._head_bias, NetworkState((first, second))


def load_network(path: Path | None = None) -> SpeechNetwork:
    """The trained network. Raises WeightsError when the file is missing, damaged or of another version."""
    return build_network(path or WEIGHTS, KIND, _build)[0]


def _build(tensors: dict[str, F32], header: WeightsHeader) -> SpeechNetwork:
    return SpeechNetwork(tensors, SpeechConfig(**header.config))
