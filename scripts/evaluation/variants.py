"""What can be evaluated besides the product's generators: the source copy, and variants for ablations.

A variant stands in `VARIANTS` under a name of its own: the same generator with a part switched off. It can be
named wherever the evaluation takes a generator's name, and the product never knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Generator as Yields
from contextlib import contextmanager
from typing import Any

from engines.errors import GeneratorError
from engines.generators.generator import Generator
from engines.generators.open import GENERATORS
from engines.head.model import HeadModel

# shows the photo, whatever the driver does: the floor that every generator must beat; drawn by nobody
SOURCE_COPY = "source-copy"


def _without(**off: bool) -> Callable[[HeadModel], Generator[Any]]:
    def make(model: HeadModel) -> Generator[Any]:
        from engines.generators.visavis.generator import Switches, VisavisGenerator

        return VisavisGenerator(model, switches=Switches(**off))

    return make


# one part of the trained networks switched off at a time: what the picture loses without it
VARIANTS: dict[str, Callable[[HeadModel], Generator[Any]]] = {
    "visavis-no-flow": _without(flow=False),
    "visavis-no-layers": _without(layers=False),
    "visavis-no-features": _without(features=False),
    "visavis-no-motion": _without(motion=False),
    "visavis-no-mouth": _without(mouth=False),
    "visavis-no-eyes": _without(eyes=False),
    "visavis-no-photo-crops": _without(photo_crops=False),
}
ABLATIONS = tuple(VARIANTS)


def known_names() -> list[str]:
    """Every name that can be evaluated."""
    return sorted({SOURCE_COPY, *GENERATORS, *VARIANTS})


@contextmanager
def registered(names: Sequence[str]) -> Yields[None]:
    """`Renderer` knows the variants among `names` inside; raises GeneratorError for a name that nobody has."""
    for name in names:
        if name not in known_names():
            raise GeneratorError(f"there is no generator {name!r}; choose of: {', '.join(known_names())}")
    added = {name: VARIANTS[name] for name in names if name in VARIANTS}
    GENERATORS.update(added)
    try:
        yield
    finally:
        for name in added:
            del GENERATORS[name]
