"""`other_kind`: what a file that is no photo is, by its first bytes, and what to do instead."""

from __future__ import annotations

import re

SAVE_AS = "save it as JPEG or PNG and use that"

_VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".mpg", ".mpeg", ".ts", ".mts", ".3gp", ".flv")
)
_RAW_SUFFIXES = frozenset((".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw"))
_STILL_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")

# Pictures that Pillow knows and visavis does not open: hardly anybody has a photo in them, and each decoder is one
# more that hostile bytes could reach. JPEG 2000: 5 kB can ask for gigabytes.
_OTHER_PICTURES: tuple[tuple[bytes, str], ...] = (
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"8BPS", "a Photoshop file"),
    (b"%!PS", "a PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file"),
    (b"SIMPLE  =", "a FITS file"),
    (b"DDS ", "a DDS texture"),
    (b"icns", "an icon"),
    (b"\0\0\1\0", "an icon"),
    (b"\0\0\2\0", "a cursor"),
    (b"v/1\1", "an OpenEXR picture"),
    (b"#?RADIANCE", "a Radiance picture"),
    (b"gimp xcf", "a GIMP file"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
    (b"qoif", "a QOI picture"),
    (b"FLIF", "a FLIF picture"),
    (b"BPG\xfb", "a BPG picture"),
    *(
        (b"P%d" % digit + gap, "a PNM picture")
        for digit in range(1, 8)
        for gap in (b"\n", b" ", b"\r", b"\t")
    ),
)


def other_kind(data: bytes, suffix: str) -> str | None:
    """What a file that is no photo is, with the way out, judged by its first bytes, then by its suffix."""
    head = data[:1024]
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    video = "a video; save one frame of it as JPEG or PNG, or give it as the driver"
    raw = "a raw camera file; export it as JPEG from the camera's or your photo program"
    if b"%PDF-" in head:
        return f"a PDF; {SAVE_AS}"
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
    other = next((what for start, what in _OTHER_PICTURES if head.startswith(start)), None)
    if other is not None:
        return f"{other}; {SAVE_AS}"
    if suffix in _RAW_SUFFIXES or head[8:10] == b"CR" or head[:8] == b"FUJIFILM":
        # raw files are TIFFs whose first picture is a stamp-sized thumbnail: Pillow would open that
        return raw
    if suffix in _VIDEO_SUFFIXES and not looks_like_photo(head):
        return video
    return None


def looks_like_photo(head: bytes) -> bool:
    """Whether a file begins as one of the formats that visavis opens."""
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"BM")
    return head.startswith(starts) or head[8:12] == b"WEBP" or head[4:8] == b"ftyp"


_MARKER = re.compile(
    rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL
)  # within coded data 0xFF is followed by 0 or RSTn
_SOS, _EOI, _SOI = 0xDA, 0xD9, 0xD8


def count_scans(data: bytes) -> int:
    """How many scans a JPEG is made of (ITU-T T.81 § B.1.1): each is a pass over the whole picture."""
    count, at = 0, 2
    while (marker := _MARKER.search(data, at)) is not None and marker[1][0] != _EOI:
        count += marker[1][0] == _SOS
        at = marker.end()
        if marker[1][0] != _SOI:  # every other marker here has a length, itself included
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return count
