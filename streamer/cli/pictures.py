"""Pictures of an avatar: drawing one, and writing PNG files whole or not at all."""

from __future__ import annotations

import io
import os
import secrets
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.enrollment import Enrollment, load_enrollment, with_head_model_found
from engines.errors import SinkError

U8 = NDArray[np.uint8]
AVATAR_SUFFIX = ".avatar"


def require_png(path: Path) -> None:
    """Raise SinkError when no PNG can be written to `path`: known before the work, not after it."""
    if path.suffix.lower() != ".png":
        raise SinkError(f"{path} is no picture file; name one that ends in .png")
    if path.is_dir():
        raise SinkError(f"{path} is a folder; name a file in it, such as {path / 'out.png'}")
    require_folder(path.parent)


def require_folder(folder: Path) -> None:
    """Raise SinkError when `folder` is missing or may not be written."""
    if not folder.is_dir():
        raise SinkError(f"the folder {folder} does not exist; make it with `mkdir -p {folder}`")
    if not os.access(folder, os.W_OK):
        raise SinkError(f"the folder {folder} may not be written; choose another with -o")


def write_png(path: Path, picture: U8) -> None:
    """Write `picture`, RGB (H, W, 3) or with straight alpha (H, W, 4).

    Raises SinkError; a failure leaves the old file or none.
    """
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    part = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        part.write_bytes(data.getvalue())
        part.replace(path)
    except OSError as error:
        raise SinkError(
            f"cannot write {path} ({error.strerror}); free some space or choose another place with -o"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def enrollment_of(path: Path, head_model: str | None = None) -> Enrollment:
    """An .avatar file, or any other file as a photo that is enrolled in memory only, on the head of `head_model`.

    Of an avatar `head_model` says where its own may have moved. Raises EnrollmentError, PhotoError or ModelError.
    """
    if path.suffix.lower() == AVATAR_SUFFIX:
        return with_head_model_found(load_enrollment(path), head_model)
    from calibration.enroll import enroll

    return enroll(path, head_model=head_model)
