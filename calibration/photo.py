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
from PIL import Image, ImageCms, TiffImagePlugin, UnidentifiedImageError

from engines.errors import PhotoError

MAX_FILE_BYTES = 60_000_000
MAX_PIXELS = 100_000_000
MIN_SIDE_PX = 64
DEFAULT_MAX_SIDE_PX = 2048
BACKGROUND_GREY = 224  # neutral and light: neither a dark nor a bright head drowns in it

# Only decoders of formats that people have photos in: Pillow knows forty more, some of which run other
# programs (EPS) or read other files, and none of which should see an upload. (MPO comes with JPEG.)
_WANTED = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF", "GIF", "TIFF", "BMP", "DIB", "JPEG2000", "PPM")

_VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".mpg", ".mpeg", ".ts", ".mts", ".3gp", ".flv")
)
_RAW_SUFFIXES = frozenset((".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw"))
_STILL_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
_SAVE_AS = "save it as JPEG or PNG and use that"
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

# One photo at a time: it bounds memory (a 100 MP picture with alpha takes 0.8 GB for a moment), and
# `warnings.catch_warnings` below is process-wide state.
_one_at_a_time = threading.Lock()

pillow_heif.register_heif_opener()
Image.init()
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
    if (kind := _other_kind(data, suffix)) is not None:
        raise PhotoError(f"{name} is {kind}")
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _decode(data, name, max_side_px)


def _too_large(name: str, size_bytes: int) -> PhotoError:
    limit_mb = MAX_FILE_BYTES / 1e6
    return PhotoError(f"{name} has {size_bytes / 1e6:.1f} MB, the limit is {limit_mb:.0f} MB; {_SAVE_AS}")


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


def _other_kind(data: bytes, suffix: str) -> str | None:
    """What a file that is no photo is, with the way out, judged by its first bytes, then by its suffix."""
    head = data[:1024]
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    video = "a video; save one frame of it as JPEG or PNG, or give it as the driver"
    raw = "a raw camera file; export it as JPEG from the camera's or your photo program"
    if b"%PDF-" in head:
        return f"a PDF; {_SAVE_AS}"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page, not a picture; open it and save the picture itself"
    if b"<svg" in text or (suffix in {".svg", ".svgz"} and text[:1] != b"\x89"):
        return "an SVG drawing; a photo is needed, as JPEG, PNG or HEIC"
    if head[4:8] == b"ftyp":
        if head[8:12] == b"crx ":
            return raw
        if not any(brand in head[8:64] for brand in _STILL_BRANDS):
            return video
    if head[:4] in {b"\x1aE\xdf\xa3", b"\x30\x26\xb2\x75", b"\x00\x00\x01\xba", b"OggS", b"FLV\x01"}:
        return video
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return video
    if head[:4] == b"8BPS":
        return f"a Photoshop file; {_SAVE_AS}"
    if head[:2] == b"\xff\x0a" or head[4:12] == b"JXL \r\n\x87\n":
        return f"a JPEG XL picture; {_SAVE_AS}"
    if suffix in _RAW_SUFFIXES or head[8:10] == b"CR" or head[:8] == b"FUJIFILM":
        # raw files are TIFFs whose first picture is a stamp-sized thumbnail: Pillow would open that
        return raw
    if suffix in _VIDEO_SUFFIXES and not _looks_like_photo(head):
        return video
    return None


def _looks_like_photo(head: bytes) -> bool:
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"BM", b"\0\0\0\x0cjP  ")
    return head.startswith(starts) or head[8:12] == b"WEBP" or head[4:8] == b"ftyp"


def _decode(data: bytes, name: str, max_side_px: int) -> Photo:
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PhotoError(
            f"{name} has more than {MAX_PIXELS // 1_000_000} million pixels; save it smaller"
        ) from error
    except UnidentifiedImageError as error:
        if _looks_like_photo(data[:64]):
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
    return PhotoError(f"{name} is damaged or cut off; copy or download it again, or {_SAVE_AS}")


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
    # an MPO's other pictures are the depth or the second eye of the same moment, not an animation
    if picture.format != "MPO" and getattr(picture, "is_animated", False):
        notices.append("first page taken" if kind == "TIFF" else "animated: first picture taken")
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
        notices.append(f"scaled from {original_size[0]}x{original_size[1]}")
    alpha = image.getchannel("A") if alpha_kept else None
    image = _to_srgb(image, profile, notices)
    if alpha is not None and _lowest(alpha) < 255:
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


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _lowest(band: Image.Image) -> int:
    return int(cast("tuple[int, int]", band.getextrema())[0])


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
        return Image.fromarray(_stretched(np.asarray(picture, np.float32))), False
    if mode == "P":
        return picture.convert("RGB"), False
    if mode in {"L", "RGB", "CMYK", "LAB"}:
        return picture, False
    return picture.convert("L" if mode == "1" else "RGB"), False


def _stretched(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """32-bit grey (H, W), whose file does not say what white is: the customary range that holds it."""
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    if low >= 0:
        low = 0.0
        high = next((white for white in (1.0, 255.0, 65535.0) if high <= white), high)
    scale = 255 / (high - low) if high > low else 0.0
    return ((finite - low) * scale + 0.5).astype(np.uint8)


def _to_srgb(image: Image.Image, profile: bytes | None, notices: list[str]) -> Image.Image:
    """RGB (without alpha) in sRGB, by the embedded ICC profile where it has a usable one."""
    if image.mode in {"LA", "RGBA"}:
        image = image.convert("L" if image.mode == "LA" else "RGB")
    if image.mode == "LAB":
        source = ImageCms.createProfile("LAB")
        return _through_profile(image, ImageCms.ImageCmsProfile(source))
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(source):
                return _through_profile(image, source)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            notices.append("its colour profile is unusable: taken as sRGB")
    elif image.mode == "CMYK":
        notices.append("print colours (CMYK) without a profile: colours are approximate")
    return image.convert("RGB")


def _through_profile(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    target = ImageCms.createProfile("sRGB")
    out = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    return cast("Image.Image", out)
