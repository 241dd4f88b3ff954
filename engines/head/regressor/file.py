"""The regressor's weights file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from engines.compile.network import Network
from engines.compile.weights import (
    F32,
    NetworkKind,
    WeightsHeader,
    arrays_of,
    build_network,
    save_weights,
)
from engines.digest import digest_of
from engines.head.regressor.crop import INPUT_PX
from engines.head.regressor.network import NetShape, RegressorNet, without_norm

WEIGHTS_PATH = Path(__file__).parents[2] / "data" / "regressor.safetensors"
KIND = NetworkKind("regressor", 1, "scripts.train_regressor")


def save_regressor(path: Path, net: RegressorNet, licence: str, notes: Mapping[str, object]) -> None:
    """Write the weights as float16; `notes` (how they came about) go into the header. Raises OSError."""
    header = WeightsHeader(KIND.name, KIND.version, asdict(net.shape), licence, notes=notes)
    save_weights(path, arrays_of(without_norm(net), np.float16), header)


def load_regressor(path: Path = WEIGHTS_PATH) -> RegressorNet:
    """The committed network in eval mode. Raises WeightsError with the fix for a file that does not fit."""
    return build_network(path, KIND, _build)[0].eval()


def regressor_network(net: RegressorNet) -> Network:
    """`net` as engines take it."""
    example = (torch.zeros(1, 3, INPUT_PX, INPUT_PX),)
    return Network.of(KIND.name, net, example, digest_of(arrays_of(net, np.float32)))


def _build(tensors: dict[str, F32], header: WeightsHeader) -> RegressorNet:
    c = header.config
    numbers = (int(c[name]) for name in ("detail", "hidden", "identity_count"))
    net = RegressorNet(NetShape(tuple(c["widths"]), tuple(c["blocks"]), *numbers))
    net.load_state_dict({name: torch.from_numpy(t) for name, t in tensors.items()})
    return net
