"""What stops a training, with what to do about it."""

from __future__ import annotations

from engines.errors import VisavisError


class TrainingError(VisavisError):
    """Training cannot start or go on; the last good checkpoint is kept."""
