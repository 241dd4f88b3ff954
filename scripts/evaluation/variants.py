"""What can be evaluated besides the product's generators: the source copy, and variants for ablations.

A variant is a generator with a part switched off or with another head to draw, under a name of its own. It can be
named wherever the evaluation takes a generator's name, and the product never knows of it.
"""

from __future__ import annotations

from collections.abc import Generator as Yields
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from engines.errors import GeneratorError
from engines.generators.registry import GENERATORS, Entry

# shows the photo, whatever the driver does: the floor that every generator must beat; drawn by nobody
SOURCE_COPY = "source-copy"
# the head that is drawn has the driver's identity instead of the photo's, so that PNCC and all else looked up on it is
# the driver's own and not the rebuilt one: what papers 003 and 004 rebuild it for. Only somebody else's differs: cross
DRIVER_IDENTITY = "-driver-identity"


def variants() -> dict[str, Entry]:
    """Of every generator, each of its parts left out, and the driver's identity drawn: what the picture loses."""
    parts = {
        f"{name}-no-{part.replace('_', '-')}": replace(entry, open=partial(entry.open, without=(part,)))
        for name, entry in GENERATORS.items()
        for part in entry.switches
    }
    return parts | {f"{name}{DRIVER_IDENTITY}": entry for name, entry in GENERATORS.items()}


def known_names() -> list[str]:
    """Every name that can be evaluated."""
    return sorted({SOURCE_COPY, *GENERATORS, *variants()})


@contextmanager
def registered(names: Sequence[str]) -> Yields[None]:
    """`Renderer` knows the variants among `names` inside; raises GeneratorError for a name that nobody has."""
    for name in names:
        if name not in known_names():
            raise GeneratorError(f"there is no generator {name!r}; choose of: {', '.join(known_names())}")
    known = variants()
    added = {name: known[name] for name in names if name in known}
    GENERATORS.update(added)
    try:
        yield
    finally:
        for name in added:
            del GENERATORS[name]
