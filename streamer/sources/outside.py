"""`length_notice`: a file that is longer or shorter than the recording it begins with, of which FFmpeg says nothing."""

from __future__ import annotations

import struct
from contextlib import suppress
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO

_MOST_BOXES = 100_000
_STREAMED = 0x7FFFFF00  # written by a program that did not know the length


def length_notice(path: Path, container: str) -> str | None:
    """One sentence when a second recording lies behind the first (`cat a.mp4 b.mp4`), or the end of a .wav is missing.

    `container` is FFmpeg's name for what `path` is.
    """
    with suppress(OSError, struct.error), path.open("rb") as file:
        end, size = _end_of_first(file, container), path.stat().st_size
        if end is None or end == size:
            return None
        if end > size:
            return f"{path.name} was cut off: {100 * (1 - size / end):.0f} % of it are missing"
        return (
            f"{path.name} holds a second recording behind the first (joined by cat?); only the first "
            f"{100 * end / size:.0f} % of it was used: join them with an editor"
        )
    return None


def _end_of_first(file: BinaryIO, container: str) -> int | None:
    """Where a second file begins, or where a file that was cut off would end; None for all others."""
    if container.startswith("mov"):
        return _second_ftyp(file)
    if container == "caf":
        return _second_caf(file)
    if container in ("wav", "aiff"):
        magic, size = struct.unpack(">4sI" if container == "aiff" else "<4sI", file.read(8))
        if magic not in (b"RIFF", b"FORM") or not 0 < size < _STREAMED:
            return None
        end = 8 + size + size % 2
        cut_off = file.seek(0, SEEK_END) < end - 1
        file.seek(end)
        return end if cut_off or file.read(4) == magic else None
    return None


def _second_ftyp(file: BinaryIO) -> int | None:
    """ISO/IEC 14496-12 § 4.2: boxes of size and type, one behind the other; `ftyp` opens a file."""
    at = 0
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return None
        size, kind = struct.unpack(">I4s", head[:8])
        if kind == b"ftyp" and at > 0:
            return at
        if size == 1:
            size = struct.unpack(">Q", head[8:16])[0]
        if size < 8:  # 0: up to the end
            return None
        at += size
    return None


def _second_caf(file: BinaryIO) -> int | None:
    """Apple's Core Audio Format: a header of 8 bytes, then chunks of type and size."""
    at = 8
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(12)
        if head[:4] == b"caff":
            return at
        if len(head) < 12:
            return None
        size = struct.unpack(">q", head[4:12])[0]
        if size < 0:
            return None
        at += 12 + size
    return None
