"""Which generator draws when none is named, and which there are; imports nothing slow, so that a command line may."""

from __future__ import annotations

from engines.generators.registry import GENERATORS
from engines.generators.weights_file import weights_file

DEFAULT_GENERATOR = "visavis"
FALLBACK_GENERATOR = "geometric"  # needs no weights
GENERATOR_NAMES = GENERATORS.keys()  # a view: whatever stands in the registry

# a page's browser works on the same cores: with fewer than this the networks leave it 16 pictures a second
CORES_FOR_CALLS = 4


def generator_for_calls(cores: int) -> str:
    """Which generator draws in a call when the page names none, on a computer with `cores`: a call must be fluent."""
    return DEFAULT_GENERATOR if cores >= CORES_FOR_CALLS else FALLBACK_GENERATOR


def generators_with_weights() -> list[str]:
    """Those that can draw: a generator whose networks nobody has trained yet has no weights here."""
    return [n for n, entry in GENERATORS.items() if entry.blueprint is None or weights_file(n).is_file()]


def generators_for_calls(cores: int) -> list[str]:
    """All generators that can draw, first the one that does when the page names none."""
    usual = generator_for_calls(cores)
    return [usual, *(name for name in generators_with_weights() if name != usual)]
