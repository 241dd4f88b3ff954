"""Colours of every kind of file come out as they were meant: HDR, wide gamuts, gamma, print, grey, palettes."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from fakes import encoded
from numpy.typing import NDArray
from PIL import Image, ImageCms

from calibration.colour import Primaries, between, signal_of, signal_of_boxes, signal_of_png
from calibration.photo import Photo, open_photo

U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]

# skin, lips, leaves, sky, grey: what a face photo is made of; none so bright that it is pressed below white
COLOURS = np.array([(203, 160, 140), (170, 80, 85), (60, 110, 50), (90, 130, 190), (128, 128, 128)], np.uint8)
PATCH = 64

SRGB: Primaries = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), (0.3127, 0.3290))
BT2020: Primaries = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), (0.3127, 0.3290))
P3: Primaries = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290))
ADOBE: Primaries = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060), (0.3127, 0.3290))
PROPHOTO: Primaries = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3457, 0.3585))


def light(srgb: NDArray[np.generic]) -> F64:
    values = srgb.astype(np.float64) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def in_primaries(target: Primaries) -> F64:
    return np.clip(light(COLOURS) @ between(SRGB, target).T, 0, None)


def pq(shown: F64) -> F64:
    """Of light where 1 is a white of 203 cd/m²."""
    y = (shown * 203 / 10_000) ** (2610 / 16384)
    c1, c2, c3, m2 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32, 2523 / 4096 * 128
    return ((c1 + c2 * y) / (1 + c3 * y)) ** m2


def hlg(shown: F64) -> F64:
    """Of light where 1 is a white of 203 cd/m² on a screen of 1 000: the inverse OOTF, then the OETF."""
    screen = shown * 0.203
    luminance = screen @ np.array([0.2627, 0.6780, 0.0593])
    scene = screen * luminance[..., None] ** ((1 - 1.2) / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def picture_of(values: F64) -> U8:
    """Patches (64, 320, 3) of values 0 … 1."""
    row = np.repeat((np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8), PATCH, axis=0)
    return np.repeat(row[None], PATCH, axis=0)


def colours_in(photo: Photo) -> NDArray[np.int_]:
    return np.array([photo.image[32, PATCH * k + 32].astype(int) for k in range(len(COLOURS))])


def assert_as_meant(photo: Photo, tolerance: int) -> None:
    off = np.abs(colours_in(photo) - COLOURS.astype(int))
    assert off.max() <= tolerance, f"{colours_in(photo).tolist()} instead of {COLOURS.tolist()}"


def avif(values: F64, primaries: int, transfer: int) -> bytes:
    data = bytearray(encoded(picture_of(values), "AVIF", quality=100, subsampling="4:4:4"))
    at = data.index(b"colrnclx") + 8
    data[at : at + 4] = struct.pack(">HH", primaries, transfer)
    return bytes(data)


def heif(values: F64, primaries: int, transfer: int) -> bytes:
    return encoded(
        picture_of(values),
        "HEIF",
        quality=100,
        chroma=444,
        color_primaries=primaries,
        transfer_characteristics=transfer,
    )


def png(values: F64, *chunks: tuple[bytes, bytes], depth: int = 8) -> bytes:
    if depth == 16:
        import cv2

        deep = np.repeat(
            np.repeat((np.clip(values, 0, 1) * 65535 + 0.5).astype(np.uint16), PATCH, 0)[None], PATCH, 0
        )
        _, out = cv2.imencode(".png", deep[..., ::-1])
        data = out.tobytes()
    else:
        data = encoded(picture_of(values), "PNG")
    made = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return data[:33] + made + data[33:]


@pytest.mark.parametrize("transfer", [16, 18], ids=["PQ", "HLG"])
@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "PNG", "PNG16"])
def test_hdr_is_brought_to_srgb(kind: str, transfer: int) -> None:
    values = (pq if transfer == 16 else hlg)(in_primaries(BT2020))
    if kind == "AVIF":
        data = avif(values, 9, transfer)
    elif kind == "HEIF":
        data = heif(values, 9, transfer)
    else:
        data = png(values, (b"cICP", bytes((9, transfer, 0, 1))), depth=16 if kind == "PNG16" else 8)
    photo = open_photo(data)
    assert photo.notices == ("HDR: its brightest parts are darkened to what any screen shows",)
    assert_as_meant(photo, 14)


def test_highlights_of_hdr_keep_their_hue_and_stay_below_white() -> None:
    ramp = np.linspace(0.05, 20, len(COLOURS))[:, None] * np.array([[1.0, 0.7, 0.5]])
    shown = colours_in(open_photo(png(pq(ramp @ between(SRGB, BT2020).T), (b"cICP", bytes((9, 16, 0, 1))))))
    assert (np.diff(shown[:, 0]) >= 0).all(), "brighter stays brighter"
    assert shown.max() <= 255
    share = light(shown[1:, 1]) / light(shown[1:, 0])
    assert share == pytest.approx(0.7, abs=0.06), "no channel burns out alone"


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "PNG"])
def test_a_wide_gamut_told_by_code_points(kind: str) -> None:
    values = light_to_srgb(in_primaries(P3))
    data = (
        {"AVIF": avif, "HEIF": heif}[kind](values, 12, 13)
        if kind != "PNG"
        else png(values, (b"cICP", bytes((12, 13, 0, 1))))
    )
    photo = open_photo(data)
    assert photo.notices == ()
    assert_as_meant(photo, 6)


def light_to_srgb(values: F64) -> F64:
    values = np.clip(values, 0, 1)
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@pytest.mark.parametrize(("primaries", "transfer"), [(1, 13), (2, 2), (1, 1), (0, 0), (999, 999)])
def test_ordinary_and_unknown_code_points_change_nothing(kind: str, primaries: int, transfer: int) -> None:
    if kind == "HEIF" and primaries in (0, 999):
        pytest.skip("the encoder writes no such thing")
    values = COLOURS / 255
    assert_as_meant(open_photo((avif if kind == "AVIF" else heif)(values, primaries, transfer)), 4)


def test_linear_light() -> None:
    assert_as_meant(open_photo(png(light(COLOURS), (b"cICP", bytes((1, 8, 0, 1))))), 5)
    assert_as_meant(open_photo(png(light(COLOURS), (b"gAMA", struct.pack(">I", 100_000)))), 5)


def chrm(p: Primaries) -> bytes:
    red, green, blue, white = p
    return struct.pack(">8I", *(round(v * 100_000) for xy in (white, red, green, blue) for v in xy))


def test_a_png_with_gamma_and_chromaticities() -> None:
    values = np.clip(in_primaries(ADOBE), 0, 1) ** (1 / 1.8)
    data = png(values, (b"gAMA", struct.pack(">I", round(100_000 / 1.8))), (b"cHRM", chrm(ADOBE)))
    assert_as_meant(open_photo(data), 4)


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"gAMA", struct.pack(">I", 45455))],
        [(b"gAMA", struct.pack(">I", 45455)), (b"cHRM", chrm(SRGB))],
        [(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000))],
        [(b"gAMA", struct.pack(">I", 0))],
        [(b"gAMA", struct.pack(">I", 2**31))],
        [(b"cHRM", bytes(32))],
        [(b"cHRM", chrm(((0.3, 0.3), (0.3, 0.3), (0.3, 0.3), (0.3, 0.3))))],
        [(b"cICP", bytes((1, 13, 0, 1)))],
        [(b"cICP", bytes((255, 255, 255, 255)))],
    ],
)
def test_chunks_that_say_srgb_or_nonsense_change_nothing(chunks: list[tuple[bytes, bytes]]) -> None:
    assert_as_meant(open_photo(png(COLOURS / 255, *chunks)), 0)


def icc_of(primaries: Primaries, gamma: float, name: str) -> bytes:
    """A matrix profile of version 2: sRGB's, with other primaries, another curve and another name (ICC.1:2001)."""
    cols = columns_d50(primaries)
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name.encode() + b"\0" * 79,
        b"wtpt": xyz_tag((0.9642, 1.0, 0.8249)),
        b"rXYZ": xyz_tag(cols[:, 0]),
        b"gXYZ": xyz_tag(cols[:, 1]),
        b"bXYZ": xyz_tag(cols[:, 2]),
        b"rTRC": curve_tag(gamma),
        b"gTRC": curve_tag(gamma),
        b"bTRC": curve_tag(gamma),
        b"cprt": b"text\0\0\0\0none\0",
    }
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for key, tag in tags.items():
        padded = tag + b"\0" * (-len(tag) % 4)
        table += key + struct.pack(">II", start + len(body), len(tag))
        body += padded
    head = bytearray(128)
    head[0:4] = struct.pack(">I", start + len(body))
    head[8:12] = b"\x02\x10\0\0"
    head[12:24] = b"mntrRGB XYZ "
    head[36:40] = b"acsp"
    head[68:80] = struct.pack(">3i", round(0.9642 * 65536), 65536, round(0.8249 * 65536))
    return bytes(head) + struct.pack(">I", len(tags)) + table + body


def columns_d50(primaries: Primaries) -> F64:
    """What the profile's primaries are in XYZ, white brought to D50 (Bradford)."""

    def xyz(xy: tuple[float, float]) -> F64:
        return np.array([xy[0] / xy[1], 1.0, (1 - xy[0] - xy[1]) / xy[1]])

    columns = np.stack([xyz(p) for p in primaries[:3]], 1)
    columns = columns * np.linalg.solve(columns, xyz(primaries[3]))
    cone = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    scale = np.diag((cone @ np.array([0.9642, 1.0, 0.8249])) / (cone @ xyz(primaries[3])))
    return np.linalg.inv(cone) @ scale @ cone @ columns


def xyz_tag(values: F64 | tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(v) * 65536) for v in values))


def curve_tag(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


@pytest.mark.parametrize(
    ("primaries", "gamma", "name"),
    [
        (ADOBE, 2.2, "Adobe RGB (1998)"),
        (P3, 2.2, "Display P3"),
        (PROPHOTO, 1.8, "ProPhoto RGB"),
        (SRGB, 1.0, "Linear sRGB"),
        (P3, 1.0, "sRGB IEC61966-2.1"),  # names lie
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "HEIF"])
def test_colour_profiles(primaries: Primaries, gamma: float, name: str, kind: str) -> None:
    values = np.clip(in_primaries(primaries), 0, 1) ** (1 / gamma)
    options = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
        "HEIF": {"quality": 100},
    }
    data = encoded(
        picture_of(values), kind, icc_profile=icc_of(primaries, gamma, name), **options.get(kind, {})
    )
    photo = open_photo(data)
    assert photo.notices == ()
    assert_as_meant(photo, 10 if gamma == 1.0 or primaries is PROPHOTO else 6)


def test_a_profile_comes_before_code_points_and_gamma() -> None:
    values = np.clip(in_primaries(ADOBE), 0, 1) ** (1 / 2.2)
    profile = icc_of(ADOBE, 2.2, "Adobe RGB (1998)")
    data = encoded(picture_of(values), "PNG", icc_profile=profile)
    gamma = b"\0\0\0\4gAMA" + struct.pack(">I", 100_000)
    data = data[:33] + gamma + struct.pack(">I", zlib.crc32(gamma[4:])) + data[33:]
    assert_as_meant(open_photo(data), 4)


def test_a_camera_that_says_adobe_rgb_in_its_exif() -> None:
    def directory(tag: int, kind: int, count: int, value: bytes) -> bytes:
        return struct.pack("<HHHI", 1, tag, kind, count) + value + bytes(4)

    # EXIF 2.32 § 4.6.3: the first directory names the second, that the third
    exif = b"Exif\0\0II*\0\x08\0\0\0" + b"".join(
        (
            directory(0x8769, 4, 1, struct.pack("<I", 26)),
            directory(0xA005, 4, 1, struct.pack("<I", 44)),
            directory(0x0001, 2, 4, b"R03\0"),
        )
    )
    values = np.clip(in_primaries(ADOBE), 0, 1) ** (1 / 2.2)
    data = encoded(picture_of(values), "JPEG", quality=100, subsampling=0, exif=exif)
    assert_as_meant(open_photo(data), 5)
    plain = encoded(
        picture_of(COLOURS / 255), "JPEG", quality=100, subsampling=0, exif=exif.replace(b"R03", b"R98")
    )
    assert_as_meant(open_photo(plain), 5)


def test_grey_with_alpha_and_16_bit() -> None:
    ramp = np.tile(np.linspace(0, 255, 256).astype(np.uint8), (64, 1))
    both = Image.merge("LA", (Image.fromarray(ramp), Image.new("L", (256, 64), 255)))
    assert (open_photo(encoded(both, "PNG")).image[0, :, 1] == ramp[0]).all()
    assert_as_meant(open_photo(png(COLOURS / 255, depth=16)), 1)


def test_print_colours_with_a_profile_are_not_said_to_be_approximate() -> None:
    cmyk = Image.fromarray(picture_of(COLOURS / 255)).convert("CMYK")
    for kind in ("JPEG", "TIFF"):
        photo = open_photo(encoded(cmyk, kind))
        assert photo.notices == ("print colours (CMYK) without a profile: colours are approximate",)
        assert_as_meant(photo, 12)
    wrong = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()  # of three channels, not four
    photo = open_photo(encoded(cmyk, "JPEG", icc_profile=wrong))
    assert photo.notices == ("its colour profile is unusable: taken as sRGB",)
    assert_as_meant(photo, 12)


def test_code_points() -> None:
    assert signal_of(1, 13) is None
    assert signal_of(2, 2) is None
    hdr = signal_of(9, 16)
    assert hdr is not None
    assert hdr.is_hdr
    wide = signal_of(12, 13)
    assert wide is not None
    assert not wide.is_hdr
    for data in (b"", b"colrnclx", b"1234colrnclx", b"1234colrnclx\0\1\0"):
        assert signal_of_boxes(data) is None
    for data in (b"", b"\0\0\0\4cICP", b"\0\0\0\4cICPIDAT"):
        assert signal_of_png(data, None, None) is None
    assert between(SRGB, SRGB) == pytest.approx(np.eye(3), abs=1e-9)
    assert between(BT2020, SRGB) @ np.ones(3) == pytest.approx(np.ones(3), abs=1e-6), "white stays white"
