"""Head models from a user's own files behind `HeadModel`: ICT-FaceKit, FLAME, BFM. See docs/head-models.md."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Protocol, cast

from engines.errors import ModelError
from engines.head.model import HeadModel, load_head_model


class _Reader(Protocol):
    def load(self, path: Path, reference: HeadModel) -> HeadModel: ...


KINDS = ("ict", "flame", "bfm")
CHOICES = "ict:FILE.npz, flame:FILE.pkl or .npz, bfm:FILE.h5, .mat or .npz"


@cache
def load_model(spec: str | None = None) -> HeadModel:
    """The head model that `spec` names: None or "" our own, else `KIND:PATH` of `KINDS`; read once per process.

    Raises ModelError for an unknown kind, a file that is not there, and a file that is not of the kind.
    """
    if not spec:
        return load_head_model()
    kind, colon, place = spec.partition(":")
    if kind not in KINDS or not colon or not place:
        raise ModelError(
            f"no head model is called {spec!r}; leave it out for visavis's own, or give {CHOICES}"
        )
    path = Path(place).expanduser()
    if not path.is_file():
        raise ModelError(
            f"{path}, the {kind} head model, is not there; docs/head-models.md says where to get it"
        )
    try:
        # only those who bring their own model need scipy
        reader = cast(_Reader, importlib.import_module(f"{__name__}.{kind}"))
    except ImportError as error:
        raise ModelError(
            f"reading {kind} head models needs scipy ({error}); type: pip install scipy"
        ) from error
    return reader.load(path, load_head_model())
