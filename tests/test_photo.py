"""`open_photo`: every kind of picture a person would try, and everything that only looks like one."""

from __future__ import annotations

import pickle
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import encoded
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile

from calibration import photo as photo_module
from calibration.photo import BACKGROUND_GREY, MAX_FILE_BYTES, Photo, open_photo
from engines.errors import PhotoError

# Every test fails on a warning that gets out of the decoders.
pytestmark = pytest.mark.filterwarnings("error")

U8 = NDArray[np.uint8]
RED, GREEN, BLUE, YELLOW = (210, 40, 40), (40, 170, 60), (50, 60, 200), (220, 200, 50)


def quarters(width: int = 160, height: int = 120) -> U8:
    """Red and green above blue and yellow: every rotation and mirror of it looks different."""
    image = np.empty((height, width, 3), np.uint8)
    half_h, half_w = height // 2, width // 2
    image[:half_h, :half_w], image[:half_h, half_w:] = RED, GREEN
    image[half_h:, :half_w], image[half_h:, half_w:] = BLUE, YELLOW
    return image


def assert_quarters(image: U8, tolerance: int = 12) -> None:
    height, width = image.shape[:2]
    corners = [image[height * y // 4, width * x // 4] for y in (1, 3) for x in (1, 3)]
    assert np.abs(np.array(corners, int) - np.array([RED, GREEN, BLUE, YELLOW])).max() <= tolerance


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("PNG", {}),
        ("WEBP", {"quality": 95}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        ("HEIF", {"quality": 95}),
        ("AVIF", {"quality": 95}),
    ],
)
def test_every_format_gives_the_same_picture(kind: str, options: dict[str, object]) -> None:
    data = encoded(quarters(), kind, **options)
    photo = open_photo(data)
    assert photo.image.shape == (120, 160, 3)
    assert photo.image.dtype == np.uint8
    assert photo.image.flags.c_contiguous
    assert photo.image.flags.writeable
    assert_quarters(photo.image)
    assert photo.original_size_px == (160, 120)
    assert photo.format == kind
    assert photo.notices == ()
    assert photo.sha256 == sha256(data).hexdigest()


def test_a_path_and_its_bytes_give_the_same(tmp_path: Path) -> None:
    data = encoded(quarters(), "PNG")
    path = tmp_path / "wrong suffix.mp4"  # people rename things: the bytes decide
    path.write_bytes(data)
    a, b = open_photo(path), open_photo(data)
    assert a.sha256 == b.sha256
    assert (a.image == b.image).all()


# How a picture is stored for each EXIF orientation so that it is shown upright.
STORED: dict[int, Callable[[U8], U8]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "HEIF"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_undone_once(kind: str, orientation: int) -> None:
    stored = np.ascontiguousarray(STORED[orientation](quarters()))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = open_photo(encoded(stored, kind, exif=exif.tobytes()))
    assert photo.image.shape == (120, 160, 3)
    assert photo.original_size_px == (160, 120)
    assert_quarters(photo.image, 25)


def test_a_large_turned_photo_reports_its_upright_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.ascontiguousarray(STORED[6](quarters(1600, 1200)))
    photo = open_photo(encoded(stored, "JPEG", exif=exif.tobytes()), max_side_px=400)
    assert photo.image.shape == (300, 400, 3)
    assert photo.original_size_px == (1600, 1200)
    assert photo.notices == ("the photo's 1600 × 1200 pixels are more than it takes: a smaller copy is used",)
    assert_quarters(photo.image)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_nonsense_orientation_is_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_quarters(open_photo(encoded(quarters(), "JPEG", exif=exif.tobytes())).image)


def test_a_corrupt_exif_block_does_no_harm() -> None:
    junk = b"Exif\0\0II*\0" + b"\xff" * 60
    assert_quarters(open_photo(encoded(quarters(), "JPEG", exif=junk)).image)


def test_metadata_ends_here() -> None:
    exif = Image.Exif()
    exif[0x010F] = "MarkerOfMaker"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (48.0, 12.0, 34.0)
    data = encoded(quarters(), "JPEG", exif=exif.tobytes(), comment=b"MarkerOfComment")
    assert b"MarkerOfMaker" in data
    assert b"MarkerOfComment" in data
    everything = pickle.dumps({name: getattr(open_photo(data), name) for name in Photo.__slots__})
    assert b"Marker" not in everything
    assert b"Exif" not in everything


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_alpha_goes_on_light_grey(kind: str) -> None:
    rgba = np.dstack([quarters(), np.full((120, 160), 255, np.uint8)])
    rgba[:60, :80, 3] = 0
    rgba[60:, :80, 3] = 128
    photo = open_photo(encoded(rgba, kind))
    assert photo.notices == ("transparent parts put on light grey",)
    assert np.abs(photo.image[30, 40].astype(int) - BACKGROUND_GREY).max() <= 2
    half = (np.array(BLUE) + BACKGROUND_GREY) / 2
    assert np.abs(photo.image[90, 40] - half).max() <= 12
    assert np.abs(photo.image[30, 120].astype(int) - GREEN).max() <= 12


def test_hidden_colours_do_not_bleed_when_scaled() -> None:
    rgba = np.full((400, 400, 4), 255, np.uint8)
    rgba[:, 201:] = (255, 0, 0, 0)  # invisible red
    photo = open_photo(encoded(rgba, "PNG"), max_side_px=100)
    assert int(photo.image[..., 0].astype(int).max() - photo.image[..., 1].min()) <= 255 - BACKGROUND_GREY
    assert np.abs(photo.image[..., 0].astype(int) - photo.image[..., 1]).max() <= 1


def test_full_alpha_is_not_worth_a_notice() -> None:
    rgba = np.dstack([quarters(), np.full((120, 160), 255, np.uint8)])
    assert open_photo(encoded(rgba, "PNG")).notices == ()


def test_palette_with_and_without_transparency() -> None:
    palette = Image.fromarray(quarters()).quantize(8)
    assert_quarters(open_photo(encoded(palette, "PNG")).image)
    clear = palette.getpixel((5, 5))
    for kind in ("PNG", "GIF"):
        photo = open_photo(encoded(palette, kind, transparency=clear))
        assert photo.notices == ("transparent parts put on light grey",)
        assert (photo.image[30, 40] == BACKGROUND_GREY).all()
    some = bytes(0 if i == clear else 255 for i in range(8))  # one alpha per colour: Pillow warns about these
    assert (open_photo(encoded(palette, "PNG", transparency=some)).image[30, 40] == BACKGROUND_GREY).all()


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_becomes_three_equal_channels(mode: str) -> None:
    ramp = np.tile(np.linspace(0, 255, 128).astype(np.uint8), (96, 1))
    photo = open_photo(encoded(Image.fromarray(ramp).convert(mode), "PNG"))
    assert photo.image.shape == (96, 128, 3)
    assert (photo.image[..., 0] == photo.image[..., 2]).all()
    if mode != "1":
        assert np.abs(photo.image[0, :, 1].astype(int) - ramp[0]).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_is_scaled_not_clipped(suffix: str, channels: int) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    deep = np.repeat(np.tile(ramp, (80, 1))[..., None], channels, axis=2)
    ok, data = cv2.imencode(suffix, deep)
    assert ok
    photo = open_photo(data.tobytes())
    assert np.abs(photo.image[40, :, 0].astype(float) - np.arange(256)).max() <= 1


def test_32_bit_float_and_integer_grey() -> None:
    ramp = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (80, 1))
    for pixels in (ramp, ramp * 65535, (ramp * 65535).astype(np.int32), ramp * 1e6):
        photo = open_photo(encoded(Image.fromarray(pixels), "TIFF"))
        assert np.abs(photo.image[40, :, 0].astype(float) - np.arange(256)).max() <= 1.5
    holes = np.where(ramp > 0.9, np.nan, ramp).astype(np.float32)
    assert open_photo(encoded(Image.fromarray(holes), "TIFF")).image[0, 255].max() == 0


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_keeps_its_colours_and_says_so(kind: str) -> None:
    photo = open_photo(encoded(Image.fromarray(quarters()).convert("CMYK"), kind))
    assert_quarters(photo.image, 20)
    assert photo.notices == ("print colours (CMYK) without a profile: colours are approximate",)


def swapped_profile() -> bytes:
    """The sRGB profile with its red and green primaries exchanged, under another name."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    entries = {bytes(profile[i : i + 4]): i for i in range(132, 132 + 12 * profile[131], 12)}
    red, green = entries[b"rXYZ"] + 4, entries[b"gXYZ"] + 4
    profile[red : red + 8], profile[green : green + 8] = profile[green : green + 8], profile[red : red + 8]
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
def test_icc_profile_is_applied(kind: str) -> None:
    data = encoded(quarters(), kind, icc_profile=swapped_profile(), quality=95)
    photo = open_photo(data)
    expected = np.array(RED)[[1, 0, 2]]
    assert np.abs(photo.image[30, 40] - expected).max() <= 15
    assert photo.notices == ()


def test_icc_profile_and_alpha_together() -> None:
    rgba = np.dstack([quarters(), np.full((120, 160), 255, np.uint8)])
    rgba[:60, 80:, 3] = 0
    photo = open_photo(encoded(rgba, "PNG", icc_profile=swapped_profile()))
    assert (photo.image[30, 120] == BACKGROUND_GREY).all()  # the grey is ours, not to be converted
    assert np.abs(photo.image[30, 40] - np.array(RED)[[1, 0, 2]]).max() <= 4


def test_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (open_photo(encoded(quarters(), "PNG", icc_profile=profile)).image == quarters()).all()


@pytest.mark.parametrize("profile", [b"not a profile", swapped_profile()[:200]])
def test_unusable_profile_is_said(profile: bytes) -> None:
    photo = open_photo(encoded(quarters(), "PNG", icc_profile=profile))
    assert photo.notices == ("its colour profile is unusable: taken as sRGB",)
    assert (photo.image == quarters()).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animation_gives_its_first_picture(kind: str) -> None:
    first, second = Image.fromarray(quarters()), Image.fromarray(quarters()[::-1])
    data = encoded(first, kind, save_all=True, append_images=[second, first], duration=100)
    photo = open_photo(data)
    assert photo.notices == ("animated: first picture taken",)
    assert_quarters(photo.image, 25)


def test_second_page_of_a_tiff_is_left() -> None:
    pages = [Image.fromarray(quarters()), Image.fromarray(quarters()[::-1])]
    photo = open_photo(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert photo.notices == ("first page taken",)
    assert_quarters(photo.image)


def test_an_mpo_is_a_jpeg() -> None:
    pages = [Image.fromarray(quarters()), Image.fromarray(quarters()[::-1])]
    photo = open_photo(encoded(pages[0], "MPO", save_all=True, append_images=pages[1:], quality=95))
    assert (photo.format, photo.notices) == ("JPEG", ())
    assert_quarters(photo.image)


@pytest.mark.parametrize(("size", "limit"), [((1000, 750), 999), ((4000, 3000), 512), ((3000, 4000), 2048)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_scaled_to_the_limit(kind: str, size: tuple[int, int], limit: int) -> None:
    photo = open_photo(encoded(quarters(*size), kind, quality=90), max_side_px=limit)
    width, height = size
    assert max(photo.image.shape) == limit
    assert abs(min(photo.image.shape[:2]) - limit * min(size) / max(size)) <= 1
    assert photo.notices == (
        f"the photo's {width} × {height} pixels are more than it takes: a smaller copy is used",
    )
    assert_quarters(photo.image)


def test_scaling_averages_instead_of_skipping_pixels() -> None:
    checks = (np.indices((1024, 1024)).sum(0) % 2 * 255).astype(np.uint8)
    inner = open_photo(encoded(checks, "PNG"), max_side_px=128).image[8:-8, 8:-8]
    assert np.abs(inner.astype(int) - 127).max() <= 2


@pytest.mark.slow
def test_50_megapixel_jpeg_is_never_decoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 60, (577, 866, 3), np.uint8)
    texture = np.asarray(cv2.resize(noise, (8660, 5770), interpolation=cv2.INTER_LINEAR), np.uint8)
    for y in range(0, 5770, 577):  # in strips: the test itself should stay small
        texture[y : y + 577] += quarters(8660, 5770)[y : y + 577] // 2
    data = encoded(texture, "JPEG", quality=85)
    decoded: list[tuple[int, int]] = []
    load = JpegImageFile.load

    def noted(self: JpegImageFile) -> object:
        decoded.append(self.size)
        return load(self)

    monkeypatch.setattr(JpegImageFile, "load", noted)
    photo = open_photo(data)
    assert photo.image.shape == (1365, 2048, 3)
    assert photo.notices == ("the photo's 8660 × 5770 pixels are more than it takes: a smaller copy is used",)
    assert decoded[0] == (2165, 1443), "libjpeg scales by powers of two while it decodes"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises pixels and holds none: whoever decodes it finds it cut off."""
    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(10_100, 10_000), (30_000, 30_000), (1_000_000, 1_000_000)])
def test_a_decompression_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(PhotoError, match="million"):
        open_photo(png_header(*size))
    with pytest.raises(PhotoError, match="damaged or cut off"):
        open_photo(png_header(1000, 1000))


def test_just_under_the_pixel_limit_is_opened_without_a_warning() -> None:
    photo = open_photo(encoded(Image.new("1", (9_900, 10_000), 1), "PNG"), max_side_px=256)
    assert photo.original_size_px == (9_900, 10_000)
    assert photo.image.min() == 255


@pytest.mark.parametrize("size", [(63, 200), (200, 63), (1, 1)])
def test_too_small(size: tuple[int, int]) -> None:
    with pytest.raises(PhotoError, match=r"only \d+x\d+ pixels; use a photo of at least 64"):
        open_photo(encoded(quarters(*size), "PNG"))
    assert open_photo(encoded(quarters(64, 64), "PNG")).image.shape == (64, 64, 3)


def test_a_strip_would_be_scaled_to_nothing() -> None:
    with pytest.raises(PhotoError, match="crop it"):
        open_photo(encoded(quarters(9000, 100), "PNG"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "HEIF", "AVIF", "BMP"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.7])
def test_a_truncated_file_is_an_error(kind: str, part: float, capfd: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (300, 400, 3), np.uint8)
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    data = encoded(noise, kind, **options)
    with pytest.raises(PhotoError, match="damaged or cut off") as caught:
        open_photo(data[: int(len(data) * part)])
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("a.pdf", b"%PDF-1.7\n", "PDF"),
        ("a.svg", b"<?xml version='1.0'?>\n<svg xmlns='x'></svg>", "SVG"),
        ("a.svgz", b"\x1f\x8b\x08\0", "SVG"),
        ("a.mp4", b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41", "video"),
        ("a", b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "video"),
        ("a.webm", b"\x1aE\xdf\xa3\x01\0\0\0", "video"),
        ("a.avi", b"RIFF\0\0\0\0AVI LIST", "video"),
        ("a.ts", b"G@\0\x10" * 50, "video"),
        ("a.cr3", b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "raw camera file"),
        ("a.NEF", b"MM\0*\0\0\0\x08", "raw camera file"),
        ("a.psd", b"8BPS\0\x01", "Photoshop"),
        ("a.jxl", b"\xff\x0a\0\0", "JPEG XL"),
        ("a.jpg", b"<!DOCTYPE html><html></html>", "web page"),
        ("a.jpg", b"once upon a time", "not a picture"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 200 200\n", "a PostScript file"),
        ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        ("a.jpg", b"\xff\x4f\xff\x51\0\x2f", "JPEG 2000"),
        ("a.fits", b"SIMPLE  =                    T", "FITS"),
        ("a.ppm", b"P6 64 64 255\n", "PNM"),
        ("a.ico", b"\0\0\1\0\1\0", "icon"),
        ("a.tga", b"\0\0\2\0\0\0\0\0\0\0\0\0\x40\0\x40\0\x18\0", "cursor"),
        ("a.png", b"", "empty"),
        ("a.png", b"\0" * 4096, "not a picture"),
    ],
)
def test_what_is_no_photo_is_called_by_its_name(tmp_path: Path, name: str, data: bytes, word: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(PhotoError, match=word) as caught:
        open_photo(path)
    assert str(path) in str(caught.value)
    assert ";" in str(caught.value)  # what is wrong; what to do
    assert "\n" not in str(caught.value)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="there is no file"):
        open_photo(tmp_path / "absent.jpg")
    with pytest.raises(PhotoError, match="is a folder"):
        open_photo(tmp_path)
    with pytest.raises(PhotoError, match="not a regular file"):
        open_photo(Path("/dev/zero"))
    with pytest.raises(PhotoError, match=r"cannot read|there is no file"):
        open_photo(tmp_path / "a\0b.jpg")


def test_the_file_limit_is_read_from_the_size_alone(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(50 * MAX_FILE_BYTES)  # sparse: 3 GB that must not be read
    with pytest.raises(PhotoError, match="the limit is 60 MB"):
        open_photo(path)
    with pytest.raises(PhotoError, match="the limit is 60 MB"):
        open_photo(bytes(MAX_FILE_BYTES + 1))


def test_a_decoder_out_of_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr(photo_module, "_eight_bit", fail)
    with pytest.raises(PhotoError, match="memory"):
        open_photo(encoded(quarters(), "PNG"))


def test_hostile_bytes_only_ever_raise_photo_errors() -> None:
    random = np.random.default_rng(2)
    for kind in ("JPEG", "PNG", "TIFF", "GIF", "WEBP", "HEIF"):
        good = encoded(quarters(), kind)
        for _ in range(40):
            bad = bytearray(good)
            for at in random.integers(0, len(bad), 8):
                bad[at] = random.integers(256)
            try:
                photo = open_photo(bytes(bad))
            except PhotoError:
                continue
            assert photo.image.ndim == 3


def test_many_threads_leave_the_warning_filters_as_they_were() -> None:
    data = encoded(quarters(400, 300), "JPEG")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        photos = list(pool.map(open_photo, [data] * 24))
    assert all((p.image == photos[0].image).all() for p in photos)
    assert list(warnings.filters) == before


def test_a_limit_below_the_smallest_photo_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="at least 64"):
        open_photo(encoded(quarters(), "PNG"), max_side_px=32)
