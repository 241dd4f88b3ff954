"""What stops a training, with what to do about it."""

from __future__ import annotations

from engines.errors import VisavisError


class TrainingError(VisavisError):
    """Training cannot start or go on; the last good checkpoint is kept."""


class TrainingEnded(TrainingError):
    """A signal, `number`, ended a training before its budget was spent; its checkpoint is written."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number
