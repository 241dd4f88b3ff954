"""The generators, by name. A new one is selectable everywhere once it stands in `GENERATORS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engines.errors import GeneratorError
from engines.generator import Generator
from engines.generators.geometric import GeometricGenerator
from engines.head_model import HeadModel

GENERATORS: dict[str, Callable[[HeadModel], Generator[Any]]] = {"geometric": GeometricGenerator}


def generator_names() -> list[str]:
    """Names that `--generator` accepts."""
    return sorted(GENERATORS)


def make_generator(name: str, model: HeadModel) -> Generator[Any]:
    """The generator called `name`; raises GeneratorError listing the names there are."""
    if name not in GENERATORS:
        raise GeneratorError(f"there is no generator {name!r}; choose one of: {', '.join(generator_names())}")
    return GENERATORS[name](model)
