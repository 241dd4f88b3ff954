"""Memory of a training: kept between steps, and whether an error says that it ran out."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Generator
from contextlib import contextmanager

import torch

_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")


# of glibc's malloc.h: when memory is given back, how much more is asked for than is needed, how many blocks may be
# pages of their own, and in how many heaps
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed, for the next step takes the same again; whether it listens.

    Else every large block goes back to the system when it is freed, and its next use waits for the system to clear
    each of its pages: on a CPU half of a step at 256 px went there.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    told = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**29), (_ARENA_MAX, 1))
    done = [mallopt(name, value) for name, value in told]  # each, whatever became of the one before
    return all(done)


@contextmanager
def denormals_flushed() -> Generator[None]:
    """Numbers below the smallest normal one are 0 meanwhile: a CPU takes a hundred times as long in them.

    In this thread, and for good in those that torch begins meanwhile; others of the process compute as before.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def is_out_of_memory(error: BaseException) -> bool:
    """Of a GPU or of the computer."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)
