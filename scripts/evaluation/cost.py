"""What networks cost, whatever they have learned: GFLOP of a frame and of a photo, what a photo keeps, milliseconds."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from engines.generators.networked.base import NetworkedGenerator
from engines.generators.networked.blueprint import Blueprint, Served
from engines.generators.open import open_generator
from engines.generators.registry import GENERATORS
from engines.head.model import HeadModel

_KEPT_BYTES = 2  # an avatar keeps features as fp16


@dataclass(frozen=True, slots=True)
class Work:
    """GFLOP of a frame and of a photo, once, by torch's counter (a multiply-add counts two); what an avatar keeps."""

    frame_gflop: float
    once_gflop: float
    kept_mb: float


def gflop(run: Callable[[], object]) -> float:
    """Of whatever `run` computes."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        run()
    return counter.get_total_flops() / 1e9


def opened_work(model: HeadModel, name: str) -> Work | None:
    """Of the generator called `name` with its weights; all 0 for one without networks. Raises WeightsError.

    A generator with networks lists them as `networks`: (module, example inputs) of one frame each. None when one
    does not run on its example.
    """
    generator = open_generator(name, model)
    networks: Any = getattr(generator, "networks", None) or ()
    try:
        frame = sum(gflop(lambda m=module, x=inputs: m(*x)) for module, inputs in networks)
    except (RuntimeError, TypeError):
        return None
    if not isinstance(generator, NetworkedGenerator):
        return Work(frame, 0.0, 0.0)
    return Work(frame, *_once(generator.blueprint, generator.nets))


def work_of(blueprint: Blueprint[Any]) -> Work:
    """What a generator of this configuration costs; nothing is computed, however wide it is."""
    networks = blueprint.networks().eval()
    scene = blueprint.example()
    with torch.no_grad():
        photo, inputs = blueprint.photo_inputs(networks, scene), blueprint.inputs(networks, scene)
    counted = copy.deepcopy(networks).to("meta")
    kept: list[tuple[Tensor, ...]] = []
    once = gflop(lambda: kept.append(blueprint.encode(counted, _shapes(photo))))
    frame = gflop(lambda: blueprint.draw(counted, _shapes(inputs), kept[0]))
    return Work(frame, once, _mb(kept[0]))


def _shapes(values: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(v.to("meta") for v in values)


def shipped_work(name: str) -> Work | None:
    """Of the generator called `name` as it ships, whether it has learned anything or not; None without networks."""
    make = GENERATORS[name].blueprint
    if make is None:
        return None
    blueprint = make()()
    networks = blueprint.networks().eval()
    frame = sum(gflop(lambda s=s: s.module(*s.example)) for s in blueprint.served(networks))
    return Work(frame, *_once(blueprint, networks))


def _once(blueprint: Blueprint[Any], networks: nn.Module) -> tuple[float, float]:
    """GFLOP of a photo, and MB that it keeps."""
    with torch.no_grad():
        photo = blueprint.photo_inputs(networks, blueprint.example())
    kept: list[tuple[Tensor, ...]] = []
    once = gflop(lambda: kept.append(blueprint.encode(networks, photo)))
    return once, _mb(kept[0])


def _mb(features: Sequence[Tensor]) -> float:
    return sum(f.numel() for f in features) * _KEPT_BYTES / 1e6


def width_one(name: str) -> Blueprint[Any] | None:
    """The generator called `name` as large as its paper has it; None where there is no such thing, or a part is out."""
    make = GENERATORS[name].blueprint
    return None if make is None else make().width_one()


def width_one_ms(name: str) -> float | None:
    """Milliseconds of a frame at width 1, which may take minutes to find out; None where there is no width 1."""
    blueprint = width_one(name)
    return None if blueprint is None else frame_ms(blueprint.served(blueprint.networks().eval()))


def frame_ms(served: Sequence[Served], frames: int = 3) -> float:
    """Median milliseconds of a frame's modules with torch, eagerly, after one that does not count."""
    taken: list[float] = []
    with torch.inference_mode():
        for _ in range(frames + 1):
            begun = time.perf_counter()
            for one in served:
                one.module(*one.example)
            taken.append(1000 * (time.perf_counter() - begun))
    return float(np.median(taken[1:]))
