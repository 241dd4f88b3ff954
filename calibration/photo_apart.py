"""`open_photo_apart`: as `open_photo`, in a process of its own that has little memory and time and can be ended."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from calibration.photo import DEFAULT_MAX_SIDE_PX, FORMATS, MIN_SIDE_PX, Photo
from calibration.photo_kinds import SAVE_AS
from engines.errors import PhotoError

WITHIN_S = 4.5
_LOOK_EVERY_S = 0.05  # how soon a cancelled one is ended
_PIECE_BYTES = 1 << 18
_MAX_HEADER_BYTES = 1 << 14
_MAX_NOTICES, _MAX_NOTICE_CHARACTERS = 8, 300

_ROOT = Path(__file__).parents[1]


# isolated (-I): neither the current folder nor PYTHONPATH can put a module in front of ours; -B: nothing is written
def child_of(module: str) -> tuple[str, ...]:
    """The command that runs `main` of a module of ours."""
    code = f"import sys; sys.path.append(sys.argv[1]); from {module} import main; main()"
    return (sys.executable, "-I", "-B", "-c", code, str(_ROOT))


CHILD = child_of("calibration.photo_child")
# what it has to know of the environment, which holds the server's token; threads and arenas would only take memory
_KEPT = ("LD_LIBRARY_PATH", "PATH", "SYSTEMROOT")
_SET = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
OUT_OF_TIME = (-signal.SIGXCPU, -signal.SIGALRM)


class Cancelled(Exception):
    """Nobody waits for the photo any more."""


def open_photo_apart(
    file: BinaryIO,
    *,
    cancelled: threading.Event | None = None,
    max_side_px: int = DEFAULT_MAX_SIDE_PX,
    within_s: float | None = None,
    command: Sequence[str] = CHILD,
) -> Photo:
    """What `open_photo` gives for the bytes of `file` from its place on, or its error. Blocks.

    Nothing of it is decoded in this process, and the child is gone when this returns or raises. Raises PhotoError,
    also where the child takes longer than `within_s` (default: `WITHIN_S`), dies or answers nonsense; Cancelled once
    `cancelled` is set.
    """
    limit_s = WITHIN_S if within_s is None else within_s
    answer, ended, digest = ask_apart(
        file,
        (*command, str(max_side_px), str(limit_s + 1)),
        most_bytes=_MAX_HEADER_BYTES + 3 * max_side_px**2,
        within_s=limit_s,
        cancelled=cancelled,
    )
    if not answer and ended in OUT_OF_TIME:
        raise _too_long()
    return _photo(answer, digest, max_side_px)


def ask_apart(
    file: BinaryIO,
    command: Sequence[str],
    *,
    most_bytes: int,
    within_s: float,
    cancelled: threading.Event | None = None,
) -> tuple[bytearray, int, str]:
    """What `command` says of the bytes of `file` from its place on, its exit code, and their sha256. Blocks.

    The child is gone when this returns or raises. Raises PhotoError where it says more than `most_bytes` or takes
    longer than `within_s`; Cancelled once `cancelled` is set.
    """
    given = os.memfd_create("given")  # memory, not a pipe: neither side waits for the other
    try:
        digest = sha256()
        with open(given, "wb", closefd=False) as into:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
                into.write(piece)
        os.lseek(given, 0, os.SEEK_SET)
        child = subprocess.Popen(
            command,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _KEPT if name in os.environ} | _SET,
            cwd="/",
        )
    finally:
        os.close(given)
    assert child.stdout is not None
    with child.stdout as out:
        try:
            until_s = time.monotonic() + within_s
            answer = _read(out.fileno(), most_bytes, until_s, cancelled or threading.Event())
        finally:
            child.kill()
            ended = child.wait()
    return answer, ended, digest.hexdigest()


def _read(pipe: int, most_bytes: int, until_s: float, cancelled: threading.Event) -> bytearray:
    """All that comes out of `pipe`; raises PhotoError when that is too much or takes too long."""
    answer = bytearray()
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while True:
        if cancelled.is_set():
            raise Cancelled
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise _too_long()
        if not poll.poll(min(left_s, _LOOK_EVERY_S) * 1000):
            continue
        piece = os.read(pipe, _PIECE_BYTES)
        if not piece:
            return answer
        answer += piece
        if len(answer) > most_bytes:
            raise _nonsense()


def _photo(answer: bytearray, digest: str, max_side_px: int) -> Photo:
    """The child's answer, if it is one: it has read hostile bytes, and may say anything."""
    end = answer.find(b"\n", 0, _MAX_HEADER_BYTES)
    if end < 0:
        raise _nonsense()
    try:
        told = json.loads(answer[:end])
        if not isinstance(told, dict):
            raise TypeError("no object")
        header = cast("Mapping[str, object]", told)
        if "error" in header:
            raise PhotoError(_sentence(header["error"]))
        width, height = _size(header["size_px"])
        original = _size(header["original_size_px"])
        kind, notices = str(header["format"]), header["notices"]
        if kind not in FORMATS or not isinstance(notices, list) or len(notices) > _MAX_NOTICES:
            raise ValueError("no such format or notices")
        if not (min(width, height) >= MIN_SIDE_PX and max(width, height) <= max_side_px):
            raise ValueError("no such size")
        image = np.frombuffer(answer, np.uint8, offset=end + 1).reshape(height, width, 3)
        return Photo(image, original, digest, kind, tuple(_sentence(n) for n in notices))
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise _nonsense() from error


def _size(told: object) -> tuple[int, int]:
    if not isinstance(told, list) or len(told) != 2:
        raise TypeError("no size")
    width, height = (int(v) for v in told)
    if not 0 < min(width, height) <= max(width, height) < 1 << 20:
        raise ValueError("no size")
    return width, height


def _sentence(told: object) -> str:
    return " ".join(str(told).split())[:_MAX_NOTICE_CHARACTERS]


def _too_long() -> PhotoError:
    return PhotoError("the photo takes too long to open; save it smaller, as JPEG, and use that")


def _nonsense() -> PhotoError:
    # a decoder that its bytes have brought down
    return PhotoError(
        f"the photo is damaged or too large to open here; copy or download it again, or {SAVE_AS}"
    )
