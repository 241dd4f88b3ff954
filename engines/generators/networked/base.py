"""`NetworkedGenerator`: weights, engines and kept features of a generator with networks, whatever it draws."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.compile.background_engine import BackgroundEngine
from engines.compile.engine import Engine
from engines.compile.int8 import know_ranges, ranges_of, ranges_path, read_ranges
from engines.enrollment import Enrollment
from engines.errors import WeightsError
from engines.generators.generator import Generator, GeneratorConfig
from engines.generators.networked.blueprint import Blueprint, load_networks
from engines.head.model import HeadModel
from engines.head.names import OWN_HEAD_MODEL

F32 = NDArray[np.float32]
CacheT = TypeVar("CacheT")


class NetworkedGenerator(Generator[CacheT]):
    """Serves with torch at once, with the best engine as soon as it is built.

    Raises WeightsError when the weights do not load, or learnt another head than `model`.
    """

    def __init__(
        self,
        blueprint: type[Blueprint[Any]],
        model: HeadModel,
        *,
        weights: Path | None = None,
        without: Collection[str] = (),
        engines: Sequence[Engine] | None = None,
        grid_px: int = 0,
    ) -> None:
        """`without`: switches of the blueprint; `engines` (None: the declared order) are tried in turn."""
        # the networks read PNCC and parts, and both are this one head's
        if model.name != OWN_HEAD_MODEL:
            raise WeightsError(
                f"the weights of {blueprint.kind.name} were trained on its own head model, not on {model.name}; "
                "enroll the photo with --head-model visavis to draw with them"
            )
        weights = weights or blueprint.weights_path()
        self.model = model
        self.blueprint, self.nets, digest = load_networks(blueprint, weights, without)
        self.config = GeneratorConfig(
            blueprint.kind.name, grid_px, weights.name, past=blueprint.past, ahead=blueprint.ahead
        )
        self._features_name = f"{blueprint.kind.name}/{digest[:16]}"
        self.compiled = self.blueprint.compiled(self.nets, digest)
        ranges = read_ranges(ranges_path(weights), digest)
        for network in self.compiled if ranges else ():
            know_ranges(network.module, ranges_of(network.module, ranges or {}))
        self._order = engines
        self._built: tuple[BackgroundEngine, ...] | None = None

    @property
    def networks(self) -> list[tuple[nn.Module, tuple[Tensor, ...]]]:
        """(module, example inputs) of all that runs in a frame."""
        return [(n.module, n.example) for n in self.compiled]

    def wait_until_compiled(self, timeout_s: float) -> bool:
        return all(engine.wait(timeout_s) for engine in self.engines())

    def engines(self) -> tuple[BackgroundEngine, ...]:
        """Of each served module, in order; building begins when the first person is prepared, not before."""
        if self._built is None:
            self._built = tuple(
                BackgroundEngine(n.module, n.example, n.key, order=self._order) for n in self.compiled
            )
        return self._built

    @property
    def networks_key(self) -> str:
        """Of two generators that draw alike it is the same."""
        return "+".join(n.key for n in self.compiled)

    @property
    def engine_name(self) -> str:
        """The tier that runs the networks now."""
        return self.engines()[0].tier_name

    # --- what a photo gives once ----------------------------------------------------------------------

    @abstractmethod
    def encode(self, enrollment: Enrollment) -> list[F32]:
        """What the networks make of a photo, the same for every viewport; [] for networks that keep nothing."""

    def features_of(self, enrollment: Enrollment) -> Mapping[str, NDArray[np.generic]]:
        """What an avatar file keeps: what `encode` gives, named after the weights that gave it."""
        return {self._kept(k): f.astype(np.float16) for k, f in enumerate(self.encode(enrollment))}

    def features(self, enrollment: Enrollment) -> list[Tensor]:
        """(1, …) float32 of what `encode` gives; as the avatar kept it, where it did."""
        shapes = self.blueprint.feature_shapes(self.nets)
        found = [enrollment.features.get(self._kept(k)) for k in range(len(shapes))]
        # an avatar file may be forged
        kept = [f for f, shape in zip(found, shapes, strict=True) if f is not None and f.shape == shape]
        if len(kept) < len(shapes):
            return [torch.from_numpy(f[None]) for f in self.encode(enrollment)]
        return [torch.from_numpy(f.astype(np.float32)[None]) for f in kept]

    def _kept(self, number: int) -> str:
        return self._features_name + (f"/{number}" if number else "")
