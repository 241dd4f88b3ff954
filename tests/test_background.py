"""Backgrounds: which may be asked for, and how a picture fills a frame."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from calibration.photo import open_photo
from engines.enrollment import Enrollment
from engines.picture.background import KEEP, Background, BackgroundError, BackgroundMode, cover, read_colour
from engines.picture.composite import make_background
from engines.raster.pose import head_viewport
from streamer.look import AS_IS, as_background, read_background, read_picture, require_opaque

U8 = NDArray[np.uint8]


def test_colours_are_read() -> None:
    assert read_colour("#00ff7f") == (0, 255, 127)
    assert read_colour("#FA0") == (255, 170, 0)


@pytest.mark.parametrize("text", ["", "#", "#12", "#12345", "#gggggg", "00ff00", "#00ff00 ", "green", "#٣٣٣"])
def test_what_is_no_colour_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BackgroundError, match="#00ff00"):
        read_colour(text)


@pytest.mark.parametrize("size", [(63, 500), (500, 10)])
def test_small_pictures_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(BackgroundError, match="at least 64"):
        Background("picture", picture=np.zeros((*size, 3), np.uint8))


@pytest.mark.parametrize("size", [(100, 401), (401, 100)])
def test_strips_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(BackgroundError, match=r"strip of .*16:9"):
        Background("picture", picture=np.zeros((*size, 3), np.uint8))


def test_a_picture_is_needed_for_a_picture() -> None:
    with pytest.raises(BackgroundError, match="name a JPEG or PNG"):
        Background("picture")


@pytest.mark.parametrize("size", [(854, 480), (512, 512), (100, 300)])
@pytest.mark.parametrize("own", [(400, 100), (100, 400), (2000, 1000), (512, 512)])
def test_a_picture_fills_any_frame_undistorted(size: tuple[int, int], own: tuple[int, int]) -> None:
    y, x = np.mgrid[0 : own[1], 0 : own[0]]
    disc = ((x + 0.5 - own[0] / 2) ** 2 + (y + 0.5 - own[1] / 2) ** 2 < (min(own) / 4) ** 2).astype(
        np.uint8
    ) * 255
    out = cover(np.dstack([disc] * 3), *size)
    assert out.shape == (size[1], size[0], 3)
    rows, columns = np.flatnonzero((out[..., 0] > 127).any(1)), np.flatnonzero((out[..., 0] > 127).any(0))
    # a circle stays a circle, and in the middle, unless the frame cuts it
    if len(columns) < size[0] and len(rows) < size[1]:
        assert len(columns) == pytest.approx(len(rows), rel=0.03, abs=3)
    assert rows.mean() == pytest.approx(size[1] / 2, abs=2)
    assert columns.mean() == pytest.approx(size[0] / 2, abs=2)


def test_words_colours_and_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "wall.png"
    Image.fromarray(np.full((90, 160, 3), (10, 200, 90), np.uint8)).save(path)
    assert read_background("keep") is KEEP
    assert read_background("soft").mode == "soft"
    assert read_background("blur").mode == "blur"
    assert read_background("transparent").mode == "transparent"
    assert read_background("#0f0").colour == (0, 255, 0)
    picture = read_background(str(path))
    assert picture.mode == "picture"
    assert picture.picture is not None
    assert (picture.picture == (10, 200, 90)).all()
    assert AS_IS.background.keeps_photo


def test_huge_pictures_are_made_smaller(tmp_path: Path) -> None:
    path = tmp_path / "wall.png"
    Image.fromarray(np.zeros((1200, 4000, 3), np.uint8)).save(path)
    picture = read_picture(path).picture
    assert picture is not None
    assert max(picture.shape) <= 2048


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"hello", "not a picture"),
        (b"\x89PNG\r\n\x1a\nbroken", "damaged"),
        (b"%PDF-1.4 x", "PDF"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "wall.png"
    path.write_bytes(content)
    with pytest.raises(BackgroundError, match=f"no background: .*{says}"):
        read_picture(path)
    with pytest.raises(BackgroundError, match=f"no background: the background picture is .*{says}"):
        as_background(lambda: open_photo(content))


@pytest.mark.parametrize("text", ["nope", "", "no/such/file.png", "Keep"])
def test_an_unknown_background_lists_the_choices(text: str) -> None:
    with pytest.raises(BackgroundError, match=r"keep, soft, blur, transparent, a colour .* picture file"):
        read_background(text)


def test_transparency_is_refused_with_a_way_out() -> None:
    with pytest.raises(BackgroundError, match=r"a video call .*#00ff00.*animate.*\.mov"):
        require_opaque(Background("transparent"), "a video call")
    require_opaque(Background("colour"), "a video call")


def test_a_soft_background_is_between_the_photos_own_and_a_blur(astronaut: Enrollment) -> None:
    """Its lines are still there, less sharp."""
    viewport = head_viewport(astronaut, 256)

    def behind(mode: BackgroundMode) -> NDArray[np.float32]:
        return make_background(astronaut, viewport, Background(mode)).astype(np.float32)

    keep, soft, blur = behind("keep"), behind("soft"), behind("blur")
    lines = [float(np.abs(cv2.Laplacian(picture, cv2.CV_32F)).mean()) for picture in (keep, soft)]
    assert lines[0] > 2 * lines[1]
    assert 0 < 1.5 * np.abs(soft - keep).mean() < np.abs(blur - keep).mean()
