"""Libraries of earlier visavis versions, compilers and CPUs, removed from the cache unless somebody uses them.

A process that loads one holds a shared lock on it and touches its digest: the first tells that it is in use, the
second when it was last.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is compiled there
    fcntl = None

MOST_KEPT = 3  # beside the one in use: of an older version that one may go back to, of a shared home's other computers
LEAST_AGE_S = 86400.0  # what was used or made since is left: visavis before this one held no locks
_held: list[int] = []  # until the process ends, as the library is


def hold(path: Path) -> None:
    """Tell others that this process uses, or is about to use, the library at `path`; never raises."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        _held.append(descriptor)
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.utime(path.with_suffix(".sha256"))


def prune(own: Path, now_s: float) -> list[Path]:
    """Remove what nobody has used for long from the folder of the library `own`; what was removed. Never raises.

    `now_s`: in seconds since 1970.
    """
    with suppress(OSError):
        others = sorted((p for p in own.parent.glob("*.so") if p != own), key=_last_used_s, reverse=True)
        # half a library, which a process that ended left, is nothing to keep
        whole = [p for p in others if p.with_suffix(".sha256").is_file()]
        old = [p for p in others if p not in whole[:MOST_KEPT] and now_s - _last_used_s(p) > LEAST_AGE_S]
        left = [p for p in own.parent.glob("tmp*") if p.is_dir() and now_s - p.stat().st_mtime > LEAST_AGE_S]
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        return [p for p in old if _removed(p)] + left
    return []


def _last_used_s(path: Path) -> float:
    for file in (path.with_suffix(".sha256"), path):
        with suppress(OSError):
            return file.stat().st_mtime
    return 0.0


def _removed(path: Path) -> bool:
    if fcntl is None:
        return False
    with suppress(OSError):  # among it: another process holds it, or the file system knows no locks
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the digest first: a library without one is never loaded
            path.with_suffix(".sha256").unlink(missing_ok=True)
            path.unlink()
            return True
        finally:
            os.close(descriptor)
    return False
