"""What an error means to whoever typed the command: an exit code and one line."""

from __future__ import annotations

import errno

import typer

from engines.errors import VisavisError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
# Newer typers carry a click of their own, so the class is named through what typer exports.
UsageError = typer.BadParameter.__mro__[1]


def explain(error: Exception) -> tuple[int, str]:
    """Exit code and the one line for `error`."""
    if isinstance(error, UsageError):
        context = error.ctx  # pyright: ignore[reportAttributeAccessIssue]
        command = context.command_path if context else "visavis"
        return 2, f"{_one_line(error.format_message()).rstrip('.')}; see `{command} --help`"  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(error, VisavisError):
        return 1, _one_line(str(error))
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        where = error.filename or "a file, or what was to be printed,"
        return 1, _one_line(f"{where} cannot be written ({error.strerror}); free some space there")
    what = _one_line(f"{type(error).__name__}: {error}")
    return 70, f"something broke ({what}); run it again as `visavis --debug …` and report the traceback"


def _one_line(text: str) -> str:
    return " ".join(text.split())
