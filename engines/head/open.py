"""`open_head_model`: a head model by its name. A new kind stands here and in `names`, and can be chosen everywhere.

An avatar keeps a `HeadModelRef` of the model that it was fitted with, and `open_again` opens that one or none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from engines.errors import ModelError, no_such
from engines.head.model import HeadModel, load_head_model
from engines.head.names import HEAD_MODEL_CHOICES, HEAD_MODEL_KINDS, HEAD_MODEL_SETTING, OWN_HEAD_MODEL

_MOST_SHOWN = 200  # characters

Reader = Callable[[Path, HeadModel], HeadModel]


# Imported when asked for: only those who bring their own model need scipy.
def _ict() -> Reader:
    from engines.head.others import ict

    return ict.load


def _flame() -> Reader:
    from engines.head.others import flame

    return flame.load


def _bfm() -> Reader:
    from engines.head.others import bfm

    return bfm.load


READERS: dict[str, Callable[[], Reader]] = {"ict": _ict, "flame": _flame, "bfm": _bfm}


@dataclass(frozen=True, slots=True)
class HeadModelRef:
    """Which head model something was made with: `spec` as a user names it, its file by an absolute path, and the
    model's `digest`; "" where that was not written down (avatars of version 2, all of them on our own)."""

    spec: str = OWN_HEAD_MODEL
    digest: str = ""

    @property
    def is_own(self) -> bool:
        """Whether it is visavis's own."""
        return self.spec == OWN_HEAD_MODEL


OWN = HeadModelRef()


def open_head_model(spec: str | None = None) -> HeadModel:
    """The head model that `spec` names: None, "" or `visavis` our own, else `KIND:FILE`; read once per process.

    Raises ModelError for an unknown kind, a file that is not there, and a file that is not of the kind.
    """
    kind, path = _parted(spec)
    if path is None:
        return load_head_model()
    if not _is_there(path):
        raise ModelError(
            f"{_shown(path)}, the {kind} head model, is not there; correct --head-model or {HEAD_MODEL_SETTING} "
            "(docs/head-models.md says where to get one)"
        )
    status = path.stat()
    return _read(kind, path, status.st_mtime_ns, status.st_size)


def _is_there(path: Path) -> bool:
    """Whether it is a file; what cannot even be looked at (a name longer than names may be) is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _shown(place: Path | str | None) -> str:
    """`place` in a sentence: of a very long one both ends, and nothing that a terminal would obey."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f]", "�", str(place))
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN // 2]}…{text[-_MOST_SHOWN // 2 :]}"


@lru_cache(maxsize=4)
def _read(kind: str, path: Path, _mtime_ns: int, _size: int) -> HeadModel:
    try:
        reader = READERS[kind]()
    except ImportError as error:
        raise ModelError(
            f"reading {kind} head models needs scipy ({error}); type: pip install scipy"
        ) from error
    return reader(path, load_head_model())


def _parted(spec: str | None) -> tuple[str, Path | None]:
    """Kind and file of a spec; no file for our own. Raises ModelError."""
    if not spec or spec == OWN_HEAD_MODEL:
        return OWN_HEAD_MODEL, None
    kind, colon, place = spec.partition(":")
    if kind not in HEAD_MODEL_KINDS or not colon or not place:
        raise ModelError(no_such("head model", _shown(spec), [HEAD_MODEL_CHOICES]))
    path = Path(place)
    with suppress(RuntimeError):  # nobody's home
        path = path.expanduser()
    return kind, Path(os.path.abspath(path))  # noqa: PTH100 (a link stays a link)


def ref_of(spec: str | None) -> HeadModelRef:
    """What an avatar fitted with the model of `spec` has to remember. Raises ModelError as `open_head_model`."""
    kind, path = _parted(spec)
    return HeadModelRef(kind if path is None else f"{kind}:{path}", open_head_model(spec).digest)


def open_again(ref: HeadModelRef, place: str | None = None) -> HeadModel:
    """The very model of `ref`: where it was then, else where `place`, a spec, says (default: the setting's).

    Raises ModelError when neither is that model any more, with what can be done.
    """
    return open_head_model(find_again(ref, place).spec)


def find_again(ref: HeadModelRef, place: str | None = None) -> HeadModelRef:
    """`ref` with the place where its model is now: its own, else `place`. Raises ModelError as `open_again`."""
    if ref.is_own:
        if ref.digest not in ("", load_head_model().digest):
            raise ModelError(
                "the avatar was fitted with the head model of another version of visavis; enroll the photo again: "
                "visavis enroll PHOTO"
            )
        return ref
    place = os.environ.get(HEAD_MODEL_SETTING) if place is None else place
    kind, path = _parted(ref.spec)
    try:
        if open_head_model(ref.spec).digest == ref.digest:
            return ref
        why = f"{_shown(path)} is no longer the {kind} head model that the avatar was fitted with"
    except ModelError as error:
        if path is not None and _is_there(path):
            why = str(error)
        else:
            why = f"{_shown(path)}, the {kind} head model that the avatar was fitted with, is gone"
    if place and place != ref.spec:
        moved = ref_of(place)
        if moved.digest == ref.digest:
            return moved
        why += f", and {_shown(place)} is another one"
    raise ModelError(
        f"{why}; put it back, say where it is now with {HEAD_MODEL_SETTING}={kind}:FILE, "
        "or enroll the photo again: visavis enroll PHOTO"
    )
