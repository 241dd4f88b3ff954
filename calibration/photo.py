"""`open_photo`: any photo a person would try → upright 8-bit sRGB of a workable size, decoded defensively."""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from calibration.colour import (
    ADOBE_RGB,
    Signal,
    signal_of,
    signal_of_boxes,
    signal_of_png,
    stretched,
    to_srgb,
)
from calibration.photo_kinds import SAVE_AS, count_scans, looks_like_photo, other_kind
from engines.errors import PhotoError

MAX_FILE_BYTES = 60_000_000
MAX_PIXELS = 100_000_000
MIN_SIDE_PX = 64
DEFAULT_MAX_SIDE_PX = 2048
BACKGROUND_GREY = 224  # neutral and light: neither a dark nor a bright head drowns in it

# Only decoders of formats that people have photos in: Pillow knows forty more, some of which run other
# programs (EPS) or read other files, and none of which should see an upload. (MPO comes with JPEG.)
_WANTED = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF", "GIF", "TIFF", "BMP")
# imported, they are registered: `Image.init` would import all forty
_PLUGINS = (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

_MAX_SCANS = 100  # progressive JPEGs have about ten; 187 kB with 3 000 take a minute
# an animation that begins empty is searched for a picture that is not, as long as that is quick
_MAX_PICTURES, _MAX_PICTURE_PIXELS = 64, 64_000_000
_EMPTY_RANGE = 16
_IN_TURN = ("GIF", "WEBP", "PNG", "AVIF", "TIFF")  # a HEIF names its main picture

_TAG_ORIENTATION = 0x0112
# EXIF 2.32 § 4.6.4 A: what undoes each orientation
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TAG_DNG_VERSION = 50706
_IFD_INTEROP, _TAG_INTEROP_INDEX = 0xA005, 0x0001

# One photo at a time: it bounds memory (a 100 MP picture with alpha takes 0.8 GB for a moment), and
# `warnings.catch_warnings` below is process-wide state.
_one_at_a_time = threading.Lock()

pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)  # some builds of Pillow lack AVIF


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded photo; pixels only, so that EXIF, GPS and every other metadatum end here.

    - `image`: (H, W, 3) uint8 sRGB, upright, C-contiguous.
    - `original_size_px`: (width, height) of the upright original.
    - `sha256`: hex digest of the original file's bytes.
    - `format`: Pillow's name, e.g. "JPEG".
    - `notices`: what was done to it that its owner may want to know, one phrase each.
    """

    image: NDArray[np.uint8]
    original_size_px: tuple[int, int]
    sha256: str
    format: str
    notices: tuple[str, ...] = ()


def open_photo(source: Path | bytes, *, max_side_px: int = DEFAULT_MAX_SIDE_PX) -> Photo:
    """Decode the photo at a path, or given as bytes, scaled down so that its longer side ≤ `max_side_px`.

    Raises PhotoError, one line that names the fix, for anything that is not a usable photo; ValueError for
    a `max_side_px` under `MIN_SIDE_PX`.
    """
    if max_side_px < MIN_SIDE_PX:
        raise ValueError(f"max_side_px must be at least {MIN_SIDE_PX}")
    if isinstance(source, bytes):
        name, suffix, data = "the photo", "", source
    else:
        name, suffix, data = str(source), source.suffix.lower(), _read(source)
    if not data:
        raise PhotoError(f"{name} is empty; copy or download the photo again")
    if len(data) > MAX_FILE_BYTES:
        raise _too_large(name, len(data))
    if (kind := other_kind(data, suffix)) is not None:
        raise PhotoError(f"{name} is {kind}")
    if data.startswith(b"\xff\xd8") and (scans := count_scans(data)) > _MAX_SCANS:
        raise PhotoError(f"{name} is a JPEG of {scans} scans, which takes minutes to open; {SAVE_AS}")
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _decode(data, name, max_side_px)


def _too_large(name: str, size_bytes: int) -> PhotoError:
    limit_mb = MAX_FILE_BYTES / 1e6
    return PhotoError(f"{name} has {size_bytes / 1e6:.1f} MB, the limit is {limit_mb:.0f} MB; {SAVE_AS}")


def _read(path: Path) -> bytes:
    """Bytes of a regular file, never more than the limit and one; raises PhotoError."""
    try:
        if path.is_dir():
            raise PhotoError(f"{path} is a folder; name a photo in it")
        if not path.exists():
            raise PhotoError(f"there is no file {path}; check the spelling")
        if not path.is_file():
            raise PhotoError(f"{path} is not a regular file; name a photo")
        size_bytes = path.stat().st_size
        if size_bytes > MAX_FILE_BYTES:
            raise _too_large(str(path), size_bytes)
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise PhotoError(f"cannot read {path} ({reason}); check that you may read it") from error


def _decode(data: bytes, name: str, max_side_px: int) -> Photo:
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PhotoError(
            f"{name} has more than {MAX_PIXELS // 1_000_000} million pixels; save it smaller"
        ) from error
    except UnidentifiedImageError as error:
        if looks_like_photo(data[:64]):
            raise _damaged(name) from error
        raise PhotoError(f"{name} is not a picture; use a JPEG, PNG, WebP, HEIC or TIFF photo") from error
    except Exception as error:  # hostile bytes make decoders raise anything
        raise _damaged(name) from error
    with picture:
        _check_size(picture.size, name, max_side_px)
        if isinstance(picture, TiffImagePlugin.TiffImageFile) and _TAG_DNG_VERSION in picture.tag_v2:
            raise PhotoError(f"{name} is a raw camera file; export it as JPEG")
        try:
            return _develop(picture, data, max_side_px)
        except MemoryError as error:
            raise PhotoError(f"{name} does not fit in memory; save it smaller and use that") from error
        except Exception as error:
            raise _damaged(name) from error


def _damaged(name: str) -> PhotoError:
    return PhotoError(f"{name} is damaged or cut off; copy or download it again, or {SAVE_AS}")


def _check_size(size: tuple[int, int], name: str, max_side_px: int) -> None:
    """Refuse by the header alone, before a pixel is decoded."""
    width, height = size
    short, long = sorted(size)
    if width * height > MAX_PIXELS:
        limit = f"{MAX_PIXELS // 1_000_000} million"
        raise PhotoError(f"{name} has {width}x{height} pixels, more than {limit}; save it smaller")
    if short < MIN_SIDE_PX:
        raise PhotoError(
            f"{name} is only {width}x{height} pixels; use a photo of at least {MIN_SIDE_PX} on each side, "
            "better 512"
        )
    if long > max_side_px and short * max_side_px / long < MIN_SIDE_PX:
        raise PhotoError(f"{name} is a strip of {width}x{height} pixels; crop it to the person")


def _develop(picture: Image.Image, data: bytes, max_side_px: int) -> Photo:
    notices: list[str] = []
    kind = "JPEG" if picture.format == "MPO" else str(picture.format)
    original_size: tuple[int, int] = picture.size
    profile = cast("bytes | None", picture.info.get("icc_profile"))
    signal = _signal(picture, data)
    # an MPO's other pictures are the depth or the second eye of the same moment, not an animation
    if picture.format != "MPO" and getattr(picture, "is_animated", False):
        index = _first_shown(picture) if kind in _IN_TURN else 0
        what = "page" if kind == "TIFF" else "picture"
        animated = "" if kind == "TIFF" else "animated: "
        notices.append(
            f"{animated}{what} {index + 1} taken, as nothing is in those before"
            if index
            else f"{animated}first {what} taken"
        )
    width, height = picture.size
    shrink = max_side_px / max(width, height)
    if kind == "JPEG" and shrink < 1:
        # libjpeg then decodes at 1/2, 1/4 or 1/8, never below the size asked for
        picture.draft(None, _scaled(picture.size, shrink))
    picture.load()
    orientation = _orientation(picture)
    # (a TIFF is upright already: Pillow turns those itself, from the header on)
    if orientation in (5, 6, 7, 8):
        original_size = original_size[1], original_size[0]

    image, alpha_kept = _eight_bit(picture)
    shrink = max_side_px / max(image.size)
    if shrink < 1:
        image = image.resize(_scaled(image.size, shrink), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if max(original_size) > max_side_px:
        notices.append(
            f"the photo's {original_size[0]} × {original_size[1]} pixels are more than it takes: a smaller copy is used"
        )
    alpha = image.getchannel("A") if alpha_kept else None
    image = to_srgb(image, profile, signal, notices)
    if alpha is not None and _range(alpha)[0] < 255:
        grey = Image.new("RGB", image.size, (BACKGROUND_GREY,) * 3)
        image = Image.composite(image, grey, alpha)
        notices.append("transparent parts put on light grey")
    if orientation != 1:
        image = image.transpose(_UPRIGHT[orientation])
    return Photo(
        image=np.array(image, np.uint8),
        original_size_px=original_size,
        sha256=hashlib.sha256(data).hexdigest(),
        format=kind,
        notices=tuple(notices),
    )


def _signal(picture: Image.Image, data: bytes) -> Signal | None:
    """What a file says about its colours besides an ICC profile."""
    info = picture.info
    if picture.format == "PNG":
        signal = signal_of_png(data, info.get("gamma"), info.get("chromaticity"))
        return signal if signal is None or signal.gamma is None or "icc_profile" not in info else None
    if "icc_profile" in info:
        return None
    if picture.format == "AVIF":
        return signal_of_boxes(data)
    if picture.format == "HEIF" and (told := info.get("nclx_profile")):
        return signal_of(int(told["color_primaries"]), int(told["transfer_characteristics"]))
    if picture.format in {"JPEG", "MPO"} and _is_adobe_rgb(picture):
        return ADOBE_RGB
    return None


def _is_adobe_rgb(picture: Image.Image) -> bool:
    """As cameras say it without a profile (DCF 2.0: the interoperability index R03)."""
    try:
        index = picture.getexif().get_ifd(_IFD_INTEROP).get(_TAG_INTEROP_INDEX, "")
    except Exception:  # malformed EXIF raises anything; the pixels are still good
        return False
    return str(index).startswith("R03")


def _first_shown(picture: Image.Image) -> int:
    """The first picture of an animation that is not all one colour, which it is left at; 0 where all are."""
    width, height = picture.size
    for index in range(min(_MAX_PICTURES, max(1, _MAX_PICTURE_PIXELS // (width * height)))):
        try:
            picture.seek(index)
            if not _is_empty(picture):
                return index
        except Exception:  # the end, or damage behind pictures that were whole
            break
    picture.seek(0)
    return 0


def _is_empty(picture: Image.Image) -> bool:
    image = picture.convert("RGBA")
    *colours, alpha = (_range(band) for band in image.split())
    return alpha[1] == 0 or (
        all(high - low <= _EMPTY_RANGE for low, high in colours) and alpha[1] - alpha[0] <= _EMPTY_RANGE
    )


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _range(band: Image.Image) -> tuple[int, int]:
    return cast("tuple[int, int]", band.getextrema())


def _orientation(picture: Image.Image) -> int:
    """EXIF (or XMP) orientation that is still to be undone; 1, upright, for none or a corrupt one."""
    try:
        value = picture.getexif().get(_TAG_ORIENTATION, 1)
    except Exception:  # malformed EXIF raises anything; the pixels are still good
        return 1
    return int(value) if value in _UPRIGHT else 1


def _eight_bit(picture: Image.Image) -> tuple[Image.Image, bool]:
    """The picture in mode L, RGB, CMYK, LAB, LA or RGBA, and whether it carries alpha."""
    mode = picture.mode
    if mode in {"LA", "RGBA"}:
        return picture, True
    # a colour key on 16-bit grey is not honoured: no photo has one
    if picture.has_transparency_data and not mode.startswith("I"):
        return picture.convert("RGBA"), True
    if mode.startswith("I;16"):
        # Pillow clips 16 to 8 bits; keep the high byte as it does itself for 16-bit RGB
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)), False
    if mode in {"I", "F"}:
        return Image.fromarray(stretched(np.asarray(picture, np.float32))), False
    if mode == "P":
        return picture.convert("RGB"), False
    if mode in {"L", "RGB", "CMYK", "LAB"}:
        return picture, False
    return picture.convert("L" if mode == "1" else "RGB"), False
