"""The generators, by name. A new one is selectable everywhere once it stands in `GENERATORS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engines.errors import GeneratorError, WeightsError
from engines.generator import Generator
from engines.generator_names import FALLBACK_GENERATOR
from engines.generators.geometric import GeometricGenerator
from engines.head.model import HeadModel


def _visavis(model: HeadModel) -> Generator[Any]:
    from engines.generators.visavis.generator import VisavisGenerator  # torch takes a second to import

    return VisavisGenerator(model)


GENERATORS: dict[str, Callable[[HeadModel], Generator[Any]]] = {
    "geometric": GeometricGenerator,
    "visavis": _visavis,
}


def generator_names() -> list[str]:
    """Names that `--generator` accepts."""
    return sorted(GENERATORS)


def make_generator(name: str, model: HeadModel) -> Generator[Any]:
    """The generator called `name`.

    Raises GeneratorError listing the names there are, or WeightsError when its weights do not load.
    """
    if name not in GENERATORS:
        raise GeneratorError(f"there is no generator {name!r}; choose one of: {', '.join(generator_names())}")
    return GENERATORS[name](model)


def make_or_fall_back(name: str, model: HeadModel) -> tuple[Generator[Any], str | None]:
    """The generator called `name`, or `geometric` and a sentence for the user when its weights do not load."""
    try:
        return make_generator(name, model), None
    except WeightsError as error:
        return make_generator(FALLBACK_GENERATOR, model), f"drawing with {FALLBACK_GENERATOR}: {error}"
