"""Uploads made to hurt: small files that ask a decoder for minutes or gigabytes, and files that are hardly pictures.

Each is made on the fly, in milliseconds and without ever holding the picture that it claims to be.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pillow_heif
from PIL import Image


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _flat(side: int = 256) -> Image.Image:
    return Image.new("RGB", (side, side), (90, 120, 150))


def _noise(side: int = 256) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def jpeg_of_many_scans(count: int = 3000, size: tuple[int, int] = (4000, 4000)) -> bytes:
    """A progressive JPEG whose last scan comes `count` times: every one is a pass over the whole picture."""
    data = jpeg_of_size(_saved(_flat(), "JPEG", progressive=True), size)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def jpeg_of_size(data: bytes, size: tuple[int, int]) -> bytes:
    """`data`, a JPEG, that claims to be of `size`."""
    width, height = size
    for start in (b"\xff\xc0", b"\xff\xc2"):  # SOF0, SOF2
        at = data.find(start)
        if at >= 0:
            return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]
    raise ValueError("no frame header")


def wide_progressive_jpeg() -> bytes:
    """Coefficients of 99 million pixels without subsampling: 600 MB before the first pixel."""
    return jpeg_of_size(_saved(_noise(), "JPEG", progressive=True, subsampling=0), (9900, 10_000))


def jpeg_2000() -> bytes:
    """A few kB that take gigabytes."""
    return _saved(_flat(1024), "JPEG2000")


def png_of_zeros(size: tuple[int, int] = (9900, 10_000), colour_type: int = 6, depth: int = 8) -> bytes:
    """Nearly 100 million transparent pixels in 400 kB."""
    width, height = size
    channels = {0: 1, 2: 3, 6: 4}[colour_type]
    row = b"\0" * (1 + width * channels * depth // 8)
    pack = zlib.compressobj(1)
    body = b"".join(pack.compress(row) for _ in range(height)) + pack.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _png_with(*chunks: bytes) -> bytes:
    data = _saved(_noise(), "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def _zeros(megabytes: int) -> bytes:
    pack = zlib.compressobj(1)
    return b"".join(pack.compress(bytes(1 << 20)) for _ in range(megabytes)) + pack.flush()


def png_with_a_text_bomb() -> bytes:
    """Compressed texts of 64 MB each."""
    return _png_with(*[_chunk(b"zTXt", b"Comment\0\0" + _zeros(64))] * 8)


def png_with_an_icc_bomb() -> bytes:
    """A colour profile of 64 MB."""
    return _png_with(_chunk(b"iCCP", b"x\0\0" + _zeros(64)))


def png_with_many_texts() -> bytes:
    """A million empty chunks."""
    return _png_with(_chunk(b"tEXt", b"a\0b") * 300_000)


def gif_of_many_pictures(count: int = 100_000) -> bytes:
    """All of them empty, none of them alike in size to the first."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1000, 1000, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    one = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return head + one * count + b";"


def wide_gif() -> bytes:
    """A canvas of 65535 × 1500 and no picture to fill it."""
    return b"GIF89a" + struct.pack("<HHBBB", 65535, 1500, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff;"


def animated_webp() -> bytes:
    """A canvas of 9900 × 10000: two of them are kept while it plays."""
    frames = [Image.new("RGB", (64, 64), (k, k, k)) for k in range(8)]
    data = bytearray(_saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (9899).to_bytes(3, "little") + (9999).to_bytes(3, "little")
    return bytes(data)


def heic_that_claims(size: tuple[int, int] = (16_000, 6_000)) -> bytes:
    """A HEIC whose header claims another size than its picture has."""
    data = bytearray(_saved(_noise(), "HEIF"))
    at = 0
    while (at := data.find(b"ispe", at + 1)) > 0:
        data[at + 8 : at + 16] = struct.pack(">II", *size)
    return bytes(data)


def heic_grid() -> bytes:
    """A grid whose tiles are all there, and whose header claims many more."""
    out = io.BytesIO()
    pillow_heif.from_pillow(_noise(512)).save(out, tile_size=128, quality=20)
    data = out.getvalue()
    # ISO/IEC 23008-12 § 6.6.2.3: version, flags, rows - 1, columns - 1, then width and height of 16 bits
    at = data.find(b"\0\0\3\3" + struct.pack(">HH", 512, 512))
    if at < 0:
        return heic_that_claims((32_000, 3_000))
    return data[:at] + b"\0\0\xff\xff" + struct.pack(">HH", 9_900, 9_900) + data[at + 8 :]


def avif_that_claims() -> bytes:
    """An AVIF whose header claims another size than its picture has."""
    data = bytearray(_saved(_noise(), "AVIF"))
    at = data.index(b"ispe")
    data[at + 8 : at + 16] = struct.pack(">II", 9_900, 9_900)
    return bytes(data)


def tiff_of_zeros() -> bytes:
    """99 million pixels in one deflated strip."""
    strip = _zeros(9900 * 10_000 * 3 >> 20)
    tags = [
        (256, 4, 9900),
        (257, 4, 10_000),
        (258, 3, 8),
        (259, 3, 8),  # Adobe deflate
        (262, 3, 2),
        (273, 4, 200),
        (277, 3, 3),
        (278, 4, 10_000),
        (279, 4, len(strip)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"
    return (b"II*\0\x08\0\0\0" + directory).ljust(200, b"\0") + strip


def tiff_in_a_circle() -> bytes:
    """A TIFF whose next page is the page itself."""
    data = bytearray(_saved(_noise(), "TIFF"))
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    end = start + 2 + 12 * count
    data[end : end + 4] = struct.pack("<I", start)
    return bytes(data)


def bmp_that_claims() -> bytes:
    """A run-length coded BMP of 60 bytes that claims 9900 × 10000 pixels."""
    data = bytearray(_saved(_flat(64).convert("P"), "BMP"))
    data[18:26] = struct.pack("<ii", 9900, 10_000)
    data[30:34] = struct.pack("<I", 1)  # BI_RLE8
    return bytes(data)


def mpo_of_many_pages() -> bytes:
    """An MPO of a hundred pages."""
    page = _noise(64)
    return _saved(page, "MPO", save_all=True, append_images=[page] * 100)


def jpeg_with_a_huge_exif() -> bytes:
    """EXIF full of tags that each claim four thousand million values."""
    entries = b"".join(struct.pack("<HHII", 0x9000 + k, 2, 0xFFFFFFFF, 8) for k in range(5000))
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 5000) + entries
    return _saved(_noise(), "JPEG", exif=exif)


def jpeg_with_many_comments() -> bytes:
    """Ten thousand comments of 4 kB."""
    data = _saved(_noise(), "JPEG")
    return data[:2] + (b"\xff\xfe" + struct.pack(">H", 4098) + bytes(4096)) * 10_000 + data[2:]


def half_a_jpeg() -> bytes:
    """Cut off in the middle."""
    data = _saved(_noise(1024), "JPEG")
    return data[: len(data) // 2]


def postscript() -> bytes:
    """A program for an interpreter that must not be started."""
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 200 200\n{} loop\n"


pillow_heif.register_heif_opener()

BOMBS: dict[str, Callable[[], bytes]] = {
    make.__name__: make
    for make in (
        jpeg_of_many_scans,
        wide_progressive_jpeg,
        jpeg_2000,
        png_of_zeros,
        png_with_a_text_bomb,
        png_with_an_icc_bomb,
        png_with_many_texts,
        gif_of_many_pictures,
        wide_gif,
        animated_webp,
        heic_that_claims,
        heic_grid,
        avif_that_claims,
        tiff_of_zeros,
        tiff_in_a_circle,
        bmp_that_claims,
        mpo_of_many_pages,
        jpeg_with_a_huge_exif,
        jpeg_with_many_comments,
        half_a_jpeg,
        postscript,
    )
}
