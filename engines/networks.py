"""`networks_of`: every network there is by its owner's name, as engines take it: generators, tracker, speech.

What runs in each frame (as `Blueprint.served` tells) and what runs once a photo, the generator's encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from engines.compile.network import Network
from engines.compile.weights import build_network
from engines.errors import EngineError, no_such
from engines.generators.networked.blueprint import Blueprint, load_networks
from engines.generators.networked.discriminators import folded
from engines.generators.registry import GENERATORS
from engines.head.regressor.file import load_regressor, regressor_network
from engines.speech.network import KIND, WEIGHTS, SpeechConfig
from engines.speech.step import SpeechStep


class EncodesPhoto(nn.Module):
    """What a generator's networks make of a photo once: `photo_inputs` → features."""

    def __init__(self, blueprint: Blueprint[Any], networks: nn.Module) -> None:
        super().__init__()
        self.networks = networks
        self._encode: Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]] = blueprint.encode

    def forward(self, *photo: Tensor) -> tuple[Tensor, ...]:
        return self._encode(self.networks, photo)


def owners() -> list[str]:
    """All that have networks: generators in the registry's order, then the tracker and speech."""
    return [*(name for name, entry in GENERATORS.items() if entry.blueprint), "regressor", "speech"]


def networks_of(owner: str) -> list[Network]:
    """The networks of a generator, of "regressor" or of "speech"; of a generator that nobody has trained fresh ones,
    the same each time. Raises EngineError for another name, WeightsError when the weights do not load."""
    if owner not in owners():
        raise EngineError(no_such("network", owner, owners()))
    if owner == "regressor":
        return [regressor_network(load_regressor())]
    if owner == "speech":
        return [_speech()]
    return _of_generator(owner)


def _of_generator(name: str) -> list[Network]:
    opened = GENERATORS[name].blueprint
    assert opened is not None
    kind = opened()
    if kind.weights_path().is_file():
        blueprint, networks, digest = load_networks(kind, kind.weights_path())
    else:
        blueprint, digest = kind(), "untrained"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            networks = folded(blueprint.networks()).eval()
    found = blueprint.compiled(networks, digest)
    photo = blueprint.photo_inputs(networks, blueprint.example())
    if photo:
        encoder = EncodesPhoto(blueprint, networks).eval()
        also, without = type(blueprint).__mro__, blueprint.without
        found.append(Network.of(f"{name}-encoder", encoder, photo, digest, also, without))
    return found


def _speech() -> Network:
    step, header = build_network(WEIGHTS, KIND, lambda t, h: SpeechStep(t, SpeechConfig(**h.config)))
    return Network.of("speech", step.eval(), step.example(), header.sha256)
