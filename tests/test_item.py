"""Items: what is written is read again, and what is damaged, foreign or of another version is refused with the fix."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from items import tiny_item
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from scripts.generators.item import (
    DamagedItem,
    ForeignFile,
    Item,
    decode_colour,
    decode_grey,
    files,
    grey_png,
    in_pixels,
    joined,
    jpeg,
    load_item,
    photo_files,
    read_about,
    rounded,
    save_item,
)
from scripts.training.errors import TrainingError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    out = tmp_path / "ada_01.safetensors"
    save_item(out, tiny_item(vertices=20))
    return out


def with_header(path: Path, **changed: object) -> None:
    """Write another header over an item, the digest of its tensors kept."""
    with safe_open(str(path), framework="numpy") as file:
        header = json.loads(file.metadata()["visavis"])
    save_file(load_file(path), path, metadata={"visavis": json.dumps(header | changed)})


def test_what_is_written_is_read_again(path: Path) -> None:
    item, written = load_item(path), tiny_item(vertices=20)
    for field in fields(Item):
        was, now = getattr(written, field.name), getattr(item, field.name)
        if isinstance(was, np.ndarray):
            assert now.dtype == was.dtype, field.name
            assert np.array_equal(now, was), field.name
        else:
            assert now == was, field.name
    about = read_about(path)
    assert (about.name, about.subject, about.held_out, about.clip) == ("ada_01", "ada", False, "0" * 64)


def test_pictures_are_parted_again(path: Path) -> None:
    item = load_item(path)
    assert [decode_colour(data).shape for data in files(item, "rgb")] == [(512, 512, 3)] * 3
    assert [decode_grey(data).shape for data in files(item, "matte")] == [(512, 512)] * 3
    assert [decode_colour(data).shape for data in files(item, "background")] == [(256, 256, 3)] * 3
    assert len(files(item, "picture")) == len(files(item, "alpha")) == len(item.source) == 6
    rgb, degraded = files(item, "rgb"), files(item, "degraded")
    assert [bool(data) for data in degraded] == [False, True, False]
    assert photo_files(item) == [rgb[0], degraded[1], rgb[2]]


def test_a_jpeg_keeps_colours_as_fine_as_light() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = (200, 60, 60)
    stripes[:, 1::2] = (60, 60, 200)
    assert np.abs(decode_colour(jpeg(stripes)).astype(int) - stripes).max() < 30


def test_nothing_stays_nothing_in_a_mask() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    mask[19, 20:40] = 3
    assert np.array_equal(decode_grey(grey_png(mask)), mask)


def test_vertices_are_within_a_64th_of_a_pixel_and_never_wrap() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-1000, 1000, (50, 3)).astype(np.float32)
    assert np.abs(in_pixels(rounded(points)) - points).max() <= 1 / 64 + 1e-4
    far = in_pixels(rounded(np.array([-5000, 5000], np.float32)))
    assert far[0] <= -1023
    assert far[1] >= 1023


def test_every_frame_is_found_among_the_motions(path: Path) -> None:
    item = load_item(path)
    assert np.array_equal(item.motion_number[item.row], item.number)


def test_a_missing_item_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no pairs at .*bob.*scripts\.generators\.pairs DATA"):
        load_item(tmp_path / "bob.safetensors")


@pytest.mark.parametrize("kept", [0, 5, 600, 0.5, 0.999])
def test_a_truncated_item_is_damaged_even_to_a_glance(path: Path, kept: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(kept if kept > 1 else kept * len(data))])
    for read in (load_item, read_about):
        with pytest.raises(DamagedItem, match=r"damaged .* make it again"):
            read(path)


def test_a_changed_byte_is_noticed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DamagedItem, match="sha256"):
        load_item(path)


def test_a_stranger_s_file_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": np.zeros(3, np.float32)}, path)
    with pytest.raises(ForeignFile, match=r"no pairs of visavis; move it away"):
        load_item(path)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"format": "visavis-avatar"}, "no pairs of visavis"),
        ({"version": 2}, "version 2, this visavis reads 3"),
        ({"version": None}, "version None"),
    ],
)
def test_another_kind_or_version_is_refused(path: Path, changed: dict[str, object], says: str) -> None:
    with_header(path, **changed)
    with pytest.raises(ForeignFile, match=says):
        load_item(path)


@pytest.mark.parametrize("changed", [{"name": None}, {"held_out": "no"}, {"sharpness": "much"}, {"clip": 3}])
def test_a_header_that_lacks_something_is_damaged(path: Path, changed: dict[str, object]) -> None:
    with_header(path, **changed)
    with pytest.raises(DamagedItem, match="header"):
        read_about(path)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"crop_px": np.zeros((2, 3), np.float32)}, "neutral_hu"),
        ({"crop_px": np.full((3, 3), np.nan, np.float32)}, "crop_px"),
        ({"motion": np.zeros((3, 4, 65), np.float32)}, "motion"),
        ({"target": np.array([0, 1, 2, 3, 0, 1], np.int32)}, "target"),
        ({"motion_number": np.array([0, 2, 1, 3, 4], np.int32)}, "motion_number"),
        ({"number": np.array([0, 1, 9], np.int32)}, "motion_number"),
        (joined("picture", [b"abc"] * 5), "picture_ends"),
        ({"rgb_ends": np.array([3, 2, 9], np.int64)}, "rgb_ends"),
    ],
)
def test_an_item_that_does_not_fit_together_is_not_written(
    tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        save_item(tmp_path / "x.safetensors", replace(tiny_item(vertices=20), **changed))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        save_item(tmp_path / "x.safetensors", tiny_item(vertices=20))
    assert not list(tmp_path.iterdir())


def test_reading_items_needs_little() -> None:
    """They are read on rented machines where nothing but torch, NumPy, OpenCV and safetensors is installed."""
    names = "matplotlib", "tqdm", "PIL", "av", "mediapipe", "openvino", "scipy", "platformdirs", "torch"
    code = f"import sys; sys.modules.update(dict.fromkeys({names})); import scripts.generators.item"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True)
