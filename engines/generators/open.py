"""`open_generator`: a generator by its name."""

from __future__ import annotations

from typing import Any

from engines.errors import GeneratorError, WeightsError, no_such
from engines.generators.generator import Generator
from engines.generators.names import FALLBACK_GENERATOR
from engines.generators.registry import GENERATORS
from engines.head.model import HeadModel


def open_generator(name: str, model: HeadModel) -> Generator[Any]:
    """The generator called `name`.

    Raises GeneratorError listing the names there are, or WeightsError when its weights do not load.
    """
    if name not in GENERATORS:
        raise GeneratorError(no_such("generator", name, GENERATORS))
    return GENERATORS[name].open(model)


def open_generator_or_fallback(name: str, model: HeadModel) -> tuple[Generator[Any], str | None]:
    """The generator called `name`, or `geometric` and a sentence for the user when its weights do not load."""
    try:
        return open_generator(name, model), None
    except WeightsError as error:
        return open_generator(FALLBACK_GENERATOR, model), f"drawing with {FALLBACK_GENERATOR}: {error}"
