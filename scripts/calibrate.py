"""Between what ends each convolution's input lies, over prepared pairs: what eight-bit networks are compiled with.

python -m scripts.calibrate PAIRS --generator pncc        # as shipped: writes engines/data/pncc.ranges.json

Of the parts that the generator names for it (`Blueprint.eight_bits`); what is left out stays in the CPU's other
numbers: so does what makes a flow, which would move sharp edges.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engines.compile.int8 import ranges_path
from engines.errors import VisavisError
from engines.files import write_whole
from engines.generators.names import DEFAULT_GENERATOR
from engines.generators.networked.blueprint import Blueprint, load_networks
from engines.generators.networked.surface import HeadTables
from engines.generators.registry import GENERATORS
from engines.head.model import load_head_model
from scripts.generators.lessons import lesson_of
from scripts.generators.store import Store

_BATCH = 8
USUAL = 0.9


def blueprint_of(generator: str) -> type[Blueprint[Any]]:
    """Of one of `trainable()`."""
    opened = GENERATORS[generator].blueprint
    assert opened is not None
    return opened()


class Watch:
    """What goes into each convolution of `networks`, from here on."""

    def __init__(self, networks: nn.Module) -> None:
        self._ends: dict[str, list[tuple[float, float]]] = {}
        self._hooks = [
            module.register_forward_hook(self._seen(name))
            for name, module in networks.named_modules()
            if isinstance(module, nn.Conv2d)
        ]

    def _seen(self, name: str):  # what torch calls a hook
        def see(_: nn.Module, given: tuple[Tensor, ...], __: object) -> None:
            self._ends.setdefault(name, []).append((float(given[0].min()), float(given[0].max())))

        return see

    def ranges(self, share: float = USUAL) -> dict[str, tuple[float, float]]:
        """Least and most by convolution, as a `share` of all batches have them: the steps of eight bits are not made
        coarser for all by a few odd pictures, whose ends are cut off."""
        return {
            name: (
                min(0.0, float(np.quantile([least for least, _ in ends], 1 - share))),
                max(0.0, float(np.quantile([most for _, most in ends], share))),
            )
            for name, ends in self._ends.items()
        }

    def end(self) -> None:
        """Networks are as before."""
        for hook in self._hooks:
            hook.remove()


def calibrate(
    pairs: Path, generator: str, weights: Path | None, rows: int, share: float = USUAL
) -> tuple[dict[str, tuple[float, float]], str]:
    """(ranges by convolution, sha256 of the weights) over `rows` pairs of people that networks learn from; `share`: see
    `Watch.ranges`.

    Raises VisavisError when pairs or weights cannot be read.
    """
    kind = blueprint_of(generator)
    blueprint, networks, digest = load_networks(kind, weights or kind.weights_path())
    device = torch.device("cpu")
    store = Store(pairs, blueprint, device, say=lambda *_: None)
    tables = HeadTables.of(load_head_model(), device)
    chosen = store.train[np.linspace(0, len(store.train) - 1, rows).astype(int)]
    watch = Watch(networks)
    try:
        with torch.no_grad():
            for start in range(0, rows, _BATCH):
                lesson = lesson_of(store.gather(chosen[start : start + _BATCH], None), tables, blueprint)
                blueprint.make(networks, lesson.scene)
    finally:
        watch.end()
    return watch.ranges(share), digest


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pairs", type=Path, help="folder that scripts.generators.pairs made")
    parser.add_argument(
        "--generator",
        choices=[n for n, kind in GENERATORS.items() if kind.blueprint],
        default=DEFAULT_GENERATOR,
    )
    parser.add_argument("--weights", type=Path, help="of the networks (default: those that ship)")
    parser.add_argument("--only", default="", metavar="PART", help="the networks' part of this name instead")
    parser.add_argument("--rows", type=int, default=256, help="pairs looked at")
    parser.add_argument(
        "--share",
        type=float,
        default=USUAL,
        help=f"of the batches whose ends count ({USUAL}; 1: all of them)",
    )
    parser.add_argument("-o", "--output", type=Path, help="default: beside the weights")
    told = parser.parse_args(arguments)
    try:
        ranges, digest = calibrate(told.pairs, told.generator, told.weights, told.rows, told.share)
    except VisavisError as error:
        sys.exit(f"visavis: {error}")
    kind = blueprint_of(told.generator)
    path = told.output or ranges_path(told.weights or kind.weights_path())
    parts = (told.only,) if told.only else kind.eight_bits
    ranges = {n: ends for n, ends in ranges.items() if any(f"{n}.".startswith(f"{p}.") for p in parts)}
    if not ranges:
        sys.exit(
            f"visavis: {told.generator} has no part {', '.join(parts) or 'for eight bits'} with convolutions"
        )
    kept = {"weights": digest, "ranges": {n: [round(x, 4) for x in ends] for n, ends in ranges.items()}}
    write_whole(path, json.dumps(kept) + "\n")
    print(f"{len(ranges)} convolutions over {told.rows} pairs: {path}")


if __name__ == "__main__":
    main()
