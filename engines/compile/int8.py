"""Networks in whole numbers of eight bits: where each convolution's input lies, and an exported network told so."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from engines.compile.openvino_import import load_openvino

Ranges = Mapping[
    str, tuple[float, float]
]  # least and most of each convolution's input, by its name in the network

_CONVOLUTION = re.compile(r"__module\.(.+)/aten::_convolution")
_SMALLEST = 1e-8


def ranges_path(weights: Path) -> Path:
    """Where the ranges of networks with these weights lie: beside them."""
    return weights.with_suffix(".ranges.json")


def read_ranges(path: Path, weights_digest: str) -> Ranges | None:
    """The ranges kept at `path` for weights of this sha256, or None: there are none, or of other weights."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["weights"] != weights_digest:
            return None
        return {str(name): (float(least), float(most)) for name, (least, most) in kept["ranges"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def ranges_of(served: nn.Module, networks: Ranges) -> dict[str, tuple[float, float]]:
    """Ranges by the names that convolutions have in `served`, of those told by their names in all networks."""
    out: dict[str, tuple[float, float]] = {}
    for name, module in served.named_modules():
        if isinstance(module, nn.Conv2d):
            told = [k for k in networks if name == k or name.endswith(f".{k}") or k.endswith(f".{name}")]
            if told:
                out[name] = networks[max(told, key=len)]
    return out


def know_ranges(module: nn.Module, ranges: Ranges) -> None:
    """Have `module` carry the ranges of its convolutions: copies of it carry them too."""
    vars(module)["activation_ranges"] = dict(ranges)  # no parameter, no state


def known_ranges(module: nn.Module) -> Ranges:
    """What `know_ranges` was told; {} of other modules."""
    told: Ranges = getattr(module, "activation_ranges", {})
    return told


def quantise(network: Any, ranges: Ranges) -> int:
    """Have the convolutions of an OpenVINO network that `ranges` tell of count in eight bits, in place; how many do.

    Inputs in 256 steps of one size with 0 among them, weights in 255 about 0 for each output channel: OpenVINO's CPU
    plugin then multiplies whole numbers. Convolutions that share an input share its steps.
    """
    load_openvino()
    from openvino import opset13 as op

    made: dict[tuple[str, int], Any] = {}
    count = 0
    for node in network.get_ordered_ops():
        named = _CONVOLUTION.match(node.get_friendly_name())
        if node.get_type_name() != "Convolution" or named is None or named[1] not in ranges:
            continue
        weight = node.input_value(1)
        if weight.get_node().get_type_name() != "Constant":
            continue
        most = np.abs(weight.get_node().data).max((1, 2, 3), keepdims=True).clip(_SMALLEST).astype(np.float32)
        ends = op.constant(-most), op.constant(most)
        given = node.input_value(0)
        place = given.get_node().get_friendly_name(), given.get_index()
        if place not in made:
            steps = [op.constant(np.full((1, 1, 1, 1), x, np.float32)) for x in _steps(*ranges[named[1]])]
            made[place] = op.fake_quantize(given, *steps, *steps, 256)
        node.input(0).replace_source_output(made[place].output(0))
        node.input(1).replace_source_output(op.fake_quantize(weight, *ends, *ends, 255).output(0))
        count += 1
    return count


def _steps(least: float, most: float) -> tuple[float, float]:
    """Ends of 256 steps that hold `least` … `most`, 0 exactly one of them."""
    least, most = min(least, 0.0), max(most, 0.0)
    step = max(most - least, _SMALLEST) / 255
    below = round(-least / step)
    return -below * step, (255 - below) * step
