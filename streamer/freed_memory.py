"""give_back_freed_memory: what this process has freed, given back to the system instead of kept by malloc."""

from __future__ import annotations

import ctypes
import threading
from functools import lru_cache

_one_at_a_time = threading.Lock()


def give_back_freed_memory() -> bool:
    """Whether it was done: only glibc keeps so much, and knows how (malloc_trim(3)).

    A call's pictures, networks and codecs come from many threads, and glibc keeps what each has freed for that
    thread's successors: 600 MB after a hundred calls. Takes some milliseconds, without the GIL; call it aside.
    """
    trim = _malloc_trim()
    if trim is None or not _one_at_a_time.acquire(blocking=False):
        return False
    try:
        trim(0)
    finally:
        _one_at_a_time.release()
    return True


@lru_cache(1)
def _malloc_trim() -> ctypes._NamedFuncPointer | None:  # pyright: ignore[reportPrivateUsage]
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return None
