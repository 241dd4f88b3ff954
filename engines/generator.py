"""The `Generator` contract and its registry: enrollment once, G-buffer and motion per frame, RGBA out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.errors import GeneratorError
from engines.face_model import FaceModel
from engines.gbuffer import GBuffer, Viewport
from engines.motion import Motion

CacheT = TypeVar("CacheT")


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """What a caller must know: the G-buffer grid it wants, and where its weights come from (None: none)."""

    name: str
    grid_px: int
    weights: str | None = None


class Generator(ABC, Generic[CacheT]):
    """Draws one person. Stateless between calls: all state of a person is in the cache."""

    config: GeneratorConfig

    @abstractmethod
    def prepare(self, enrollment: Enrollment, viewport: Viewport) -> CacheT:
        """Once per person and viewport: encoder features, UV maps, textures."""

    @abstractmethod
    def render(self, cache: CacheT, gbuffer: GBuffer, motion: Motion) -> NDArray[np.uint8]:
        """Per frame: premultiplied RGBA (H, W, 4) uint8 of the person, background transparent."""


_REGISTRY: dict[str, Callable[[FaceModel], Generator[Any]]] = {}


def register(name: str, factory: Callable[[FaceModel], Generator[Any]]) -> None:
    """Make a generator selectable by `name` everywhere."""
    _REGISTRY[name] = factory


def generator_names() -> list[str]:
    """Names that `--generator` accepts."""
    import_module("engines.generators")  # registers the built-in ones; they import this module

    return sorted(_REGISTRY)


def make_generator(name: str, model: FaceModel) -> Generator[Any]:
    """The generator called `name`; raises GeneratorError listing the names there are."""
    if name not in generator_names():
        raise GeneratorError(f"there is no generator {name!r}; choose one of: {', '.join(generator_names())}")
    return _REGISTRY[name](model)
