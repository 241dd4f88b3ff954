"""What can be evaluated besides the product's generators: the source copy, variants for ablations, other weights.

A variant is a generator with a part switched off or with another head to draw, under a name of its own; other weights
are files that a training has left. Each can be named wherever the evaluation takes a generator's name, and the product
never knows of it.
"""

from __future__ import annotations

import json
from collections.abc import Generator as Yields
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open

from engines.errors import GeneratorError
from engines.generators.registry import GENERATORS, Entry

# shows the photo, whatever the driver does: the floor that every generator must beat; drawn by nobody
SOURCE_COPY = "source-copy"
# the head that is drawn has the driver's identity instead of the photo's, so that PNCC and all else looked up on it is
# the driver's own and not the rebuilt one: what papers 003 and 004 rebuild it for. Only somebody else's differs: cross
DRIVER_IDENTITY = "-driver-identity"


def variants(generators: Mapping[str, Entry] = GENERATORS) -> dict[str, Entry]:
    """Of every generator, each of its parts left out, and the driver's identity drawn: what the picture loses."""
    parts = {
        f"{name}-no-{part.replace('_', '-')}": replace(entry, open=partial(entry.open, without=(part,)))
        for name, entry in generators.items()
        for part in entry.switches
    }
    return parts | {f"{name}{DRIVER_IDENTITY}": entry for name, entry in generators.items()}


def with_weights(weights: Mapping[str, Path]) -> dict[str, Entry]:
    """Generators that draw with weights from files, by the names that they are to have in the tables.

    Which generator it is says the file. Raises GeneratorError for a file that is no weights of a generator, and for
    the name of a generator on another's weights.
    """
    out: dict[str, Entry] = {}
    for name, path in weights.items():
        kind = _network_of(path)
        if kind not in GENERATORS or (name in GENERATORS and name != kind):
            raise GeneratorError(
                f"{path} holds weights of {kind!r}, and cannot be judged as {name!r}; give another name or file"
            )
        entry = GENERATORS[kind]
        out[name] = replace(entry, open=partial(entry.open, weights=path))
    return out


def _network_of(path: Path) -> str:
    try:
        with safe_open(str(path), framework="numpy") as file:
            return str(json.loads((file.metadata() or {})["visavis"])["network"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise GeneratorError(f"{path} is no weights file; give one that scripts.train has written") from error


def known_names(weights: Mapping[str, Path] | None = None) -> list[str]:
    """Every name that can be evaluated, those of `weights` among them."""
    generators = {**GENERATORS, **with_weights(weights or {})}
    return sorted({SOURCE_COPY, *generators, *variants(generators)})


@contextmanager
def registered(names: Sequence[str], weights: Mapping[str, Path] | None = None) -> Yields[None]:
    """`Renderer` knows the variants and weights among `names` inside. Raises GeneratorError for a name nobody has."""
    for name in names:
        if name not in known_names(weights):
            raise GeneratorError(
                f"there is no generator {name!r}; choose of: {', '.join(known_names(weights))}"
            )
    brought = with_weights(weights or {})
    known = variants({**GENERATORS, **brought}) | brought
    before = dict(GENERATORS)
    GENERATORS.update({name: known[name] for name in names if name in known})
    try:
        yield
    finally:
        GENERATORS.clear()
        GENERATORS.update(before)
