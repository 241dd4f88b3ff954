"""The one exception family that reaches users: a sentence that says what is wrong and names the fix."""

from __future__ import annotations

from collections.abc import Iterable


class VisavisError(Exception):
    """A failure with a one-line message that names the fix; shown without a traceback."""


class ModelMissing(VisavisError):
    """A model file could not be found or does not have the pinned sha256."""


class PhotoError(VisavisError):
    """A photo cannot be enrolled; the message says why and what photo would work."""


class EnrollmentError(VisavisError):
    """An `.avatar` file is truncated, tampered with, or of another version."""


class DriverError(VisavisError):
    """A driving video, camera or motion file cannot be read."""


class SinkError(VisavisError):
    """A sink (file, virtual camera, window) cannot be opened or written."""


class GeneratorError(VisavisError):
    """A generator is unknown."""


class WeightsError(VisavisError):
    """A weights file is missing, damaged or of another version; the message names the file and the fix."""


class EngineError(VisavisError):
    """An engine refused a network, so that the next is tried; or a compiled one its inputs, or it failed in a call."""


class EngineFailed(EngineError):
    """A compiled network failed in a call, by no fault of its inputs: the next tier may serve."""


class ModelError(VisavisError):
    """A head model file is truncated, of another format, or lacks a field; the message names what was expected."""


def no_such(what: str, name: str, choices: Iterable[str]) -> str:
    """What every family says of a name that it does not have."""
    return f"there is no {what} {name!r:.80}; choose one of: {', '.join(choices)}"


def brief(error: BaseException) -> str:
    """One line of at most 300 characters: what another's library said, for a message of ours."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
