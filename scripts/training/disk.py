"""Writing while a training goes on: a full disk ends it with a sentence, and what was there stays."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from scripts.training.errors import TrainingError


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Raises TrainingError where the block cannot write to `path`, or to another file that the error names."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{error.filename or path} cannot be written ({error.strerror}); make room and run the same again: it goes "
            "on from the last checkpoint, which is kept"
        ) from error
