"""`open_avatar_apart`: as `load_enrollment`, of a stranger's file, tried in a process of its own before it is read."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from calibration.photo import DEFAULT_MAX_SIDE_PX
from calibration.photo_apart import OUT_OF_TIME, ask_apart, child_of
from engines.enrollment import UV_POSITION_SIDE_PX, Enrollment, head_model_of, load_enrollment
from engines.errors import EnrollmentError, ModelError, PhotoError
from engines.head.open import find_again, ref_of

MAX_AVATAR_BYTES = 64_000_000  # the largest photo makes 30 MB
WITHIN_S = 15.0  # the child imports what draws before it looks at anything
CHILD = child_of("calibration.avatar_child")
CALLED = "this file"
_MAX_ANSWER_BYTES = 1 << 12
_MAX_MAP_PX = 2 * UV_POSITION_SIDE_PX
# safetensors reads its header in one go, in which no call gets its turn; an avatar's takes a few kB
_MAX_HEADER_BYTES = 1 << 18
_AGAIN = "make the avatar again from its photo"


def open_avatar_apart(
    file: BinaryIO,
    head_model: str | None = None,
    *,
    cancelled: threading.Event | None = None,
    command: Sequence[str] = CHILD,
    within_s: float | None = None,
) -> Enrollment:
    """The avatar that the bytes of `file` are, from its place on, on the server's `head_model` (a spec). Blocks.

    The child reads and draws it first, with little memory and time; only what it has survived is read here. Raises
    EnrollmentError or ModelError; Cancelled once `cancelled` is set.
    """
    limit_s = WITHIN_S if within_s is None else within_s
    start = file.tell()
    try:
        answer, ended, _ = ask_apart(
            file,
            (*command, head_model or "", str(limit_s + 1)),
            most_bytes=_MAX_ANSWER_BYTES,
            within_s=limit_s,
            cancelled=cancelled,
        )
    except PhotoError as error:
        raise EnrollmentError(f"{CALLED} takes too long to open; {_AGAIN}") from error
    if not answer:
        why = "takes too long to open" if ended in OUT_OF_TIME else "is damaged"
        raise EnrollmentError(f"{CALLED} {why}; {_AGAIN}")
    try:
        told = json.loads(answer)
        said = str(told.get("error", "")) if isinstance(told, dict) else "?"
    except (ValueError, RecursionError):
        said = "?"
    if said:
        raise EnrollmentError(_plain(said) if said != "?" else f"{CALLED} is damaged; {_AGAIN}")
    # a copy that the child had no hand on
    file.seek(start)
    given = os.memfd_create("avatar")
    try:
        with open(given, "wb", closefd=False) as into:
            shutil.copyfileobj(file, into)
        return read_bounded(Path(f"/proc/self/fd/{given}"), head_model)
    finally:
        os.close(given)


def read_bounded(path: Path, head_model: str | None) -> Enrollment:
    """An avatar no larger than those that are enrolled here, on the server's own `head_model`.

    The path of a head model that the file names is never opened: it is whoever's made the file. Raises
    EnrollmentError or ModelError.
    """
    if _header_bytes(path) > _MAX_HEADER_BYTES:
        raise EnrollmentError(f"{CALLED} is not an avatar or is truncated; {_AGAIN}")
    enrollment = load_enrollment(path, CALLED)
    sides = enrollment.photo.shape[:2]
    if max(sides) > DEFAULT_MAX_SIDE_PX or max(enrollment.plate.shape[:2]) > DEFAULT_MAX_SIDE_PX:
        raise EnrollmentError(f"{CALLED} holds a larger picture than avatars have; {_AGAIN}")
    if max(enrollment.uv_visibility.shape) > _MAX_MAP_PX:
        raise EnrollmentError(f"{CALLED} holds larger maps than avatars have; {_AGAIN}")
    try:
        if enrollment.model.is_own:
            model = find_again(enrollment.model, "")
        else:
            model = ref_of(head_model)
            if model.digest != enrollment.model.digest:
                raise ModelError("another one")
    except ModelError as error:
        raise ModelError(
            f"{CALLED} was made with another head model than this server uses; add its photo here instead"
        ) from error
    enrollment = replace(enrollment, model=model)
    head_model_of(enrollment)
    return enrollment


def _header_bytes(path: Path) -> int:
    """What the file says of its header's length: eight bytes, little-endian."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(8), "little")


def _plain(told: str) -> str:
    """A sentence of `load_enrollment` for somebody who sees a page and no terminal."""
    return " ".join(told.split())[:300].replace("enroll the photo again: visavis enroll PHOTO", _AGAIN)
