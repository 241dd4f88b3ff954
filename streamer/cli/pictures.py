"""Pictures of an avatar: drawing one, and writing PNG files whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.enrollment import Enrollment, load_enrollment, with_head_model_found
from engines.errors import SinkError
from engines.files import require_writable, write_whole

U8 = NDArray[np.uint8]
AVATAR_SUFFIX = ".avatar"


def require_png(path: Path) -> None:
    """Raise SinkError when no PNG can be written to `path`: known before the work, not after it."""
    if path.suffix.lower() != ".png":
        raise SinkError(f"{path} is no picture file; name one that ends in .png")
    require_writable(path, "-o", "out.png")


def write_png(path: Path, picture: U8) -> None:
    """Write `picture`, RGB (H, W, 3) or with straight alpha (H, W, 4).

    Raises SinkError; a failure leaves the old file or none.
    """
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    try:
        write_whole(path, data.getvalue())
    except OSError as error:
        raise SinkError(
            f"cannot write {path} ({error.strerror}); free some space or choose another place with -o"
        ) from error


def enrollment_of(path: Path, head_model: str | None = None) -> Enrollment:
    """An .avatar file, or any other file as a photo that is enrolled in memory only, on the head of `head_model`.

    Of an avatar `head_model` says where its own may have moved. Raises EnrollmentError, PhotoError or ModelError.
    """
    if path.suffix.lower() == AVATAR_SUFFIX:
        return with_head_model_found(load_enrollment(path), head_model)
    from calibration.enroll import enroll

    return enroll(path, head_model=head_model)
