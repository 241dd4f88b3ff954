"""`shared_library`: libraries that PyAV's wheels bring, for what libavcodec does not pass on of them."""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import av

logger = logging.getLogger(__name__)

# where wheels of Linux and Windows, and of macOS, keep them
_FOLDERS = ("../av.libs", ".dylibs")


def candidates(name: str, package: Path) -> Iterator[str]:
    """Where `name` ("opus") may lie: beside the `package` of PyAV, which has loaded it by then, else in the system."""
    for folder in _FOLDERS:
        yield from (str(p) for p in sorted((package / folder).glob(f"lib{name}[-.]*")) if p.is_file())
    # only where it is not there: this may run other programs
    found = ctypes.util.find_library(name)
    if found is not None:
        yield found


def declared(name: str, signatures: Mapping[str, tuple[object, Sequence[object]]]) -> ctypes.CDLL | None:
    """The library with (result, arguments) of its functions told; None where it, or one of them, is missing.

    Of variadic functions the fixed arguments alone are told, as the calling convention of Apple's arm64 wants it.
    """
    library = shared_library(name)
    if library is None:
        return None
    for function, (result, arguments) in signatures.items():
        found = getattr(library, function, None)
        if found is None:
            logger.warning("lib%s has no %s: calls go on without it", name, function)
            return None
        found.restype, found.argtypes = result, arguments
    return library


@cache
def shared_library(name: str) -> ctypes.CDLL | None:
    """The library; None, with a line in the log, where there is none."""
    for path in candidates(name, Path(av.__file__).parent):
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            logger.info("lib%s cannot be loaded from %s (%s)", name, path, error)
    logger.warning("there is no lib%s: calls go on without what only it can do", name)
    return None
