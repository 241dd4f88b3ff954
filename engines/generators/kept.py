"""`KeptGenerators`: the generators that one call has had, each opened once, so that its networks are compiled once."""

from __future__ import annotations

import threading
from typing import Any

from engines.generators.generator import Generator
from engines.generators.open import open_generator_or_fallback
from engines.head.model import HeadModel


class KeptGenerators:
    """Opens by name, as `open_generator_or_fallback` does, and gives again what it has opened. Thread-safe.

    A generator holds nothing of a person, so the next one is drawn with the same. One of each name is kept, for the
    head model it was last opened for: no choice of a page makes them more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[HeadModel, Generator[Any], str | None]] = {}

    def holds(self, name: str, model: HeadModel) -> bool:
        """Whether that one is open already; another thread may be drawing with it."""
        kept = self._kept.get(name)
        return kept is not None and kept[0] is model

    def open(self, name: str, model: HeadModel) -> tuple[Generator[Any], str | None]:
        """The generator and, where it is not the one asked for, a sentence for the user."""
        with self._lock:
            if not self.holds(name, model):
                self._kept[name] = model, *open_generator_or_fallback(name, model)
            return self._kept[name][1:]
