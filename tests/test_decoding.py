"""Frames of a clip: the same by PyAV and by OpenCV, and a clip that ends early is told from one that ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes import write_video

from scripts.people import decoding
from scripts.people.decoding import ClipError, clip_info, decode

BOTH = pytest.mark.parametrize("has_av", [True, False], ids=["av", "cv2"])


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames that grow brighter, the index at the front."""
    rng = np.random.default_rng(0)
    frames = (np.clip(rng.normal(8 * k, 20, (96, 128, 3)), 0, 255).astype(np.uint8) for k in range(30))
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return write_video(path, frames, fps=25, audio=None, options={"movflags": "faststart"})


@BOTH
def test_all_frames_or_those_wanted(film: Path, has_av: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "HAS_AV", has_av)
    info = clip_info(film)
    assert (info.width_px, info.height_px, info.frames) == (128, 96, 30)
    assert info.fps == pytest.approx(25)
    everything = dict(decode(film))
    assert list(everything) == list(range(30))
    some = dict(decode(film, {3, 17}))
    assert list(some) == [3, 17]
    assert all(np.array_equal(some[k], everything[k]) for k in some)
    assert list(decode(film, ())) == []


def test_both_see_the_same(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for has_av in (True, False):
        monkeypatch.setattr(decoding, "HAS_AV", has_av)
        seen.append(np.array([image for _, image in decode(film)], int))
    assert np.abs(seen[0] - seen[1]).mean() < 1


@BOTH
def test_what_ends_early_gives_what_came_and_says_so(
    film: Path, has_av: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "HAS_AV", has_av)
    path = tmp_path / "cut.mp4"
    path.write_bytes(film.read_bytes()[: int(0.6 * film.stat().st_size)])
    came: list[int] = []
    with pytest.raises(ClipError, match=r"cut\.mp4 ends early, after \d+ frames"):
        came.extend(number for number, _ in decode(path))
    assert 5 < len(came) < 30
    with pytest.raises(ClipError, match="ends early"):
        list(decode(path, {29}))


@BOTH
@pytest.mark.parametrize("content", [b"", b"no clip", b"\0" * 5000])
def test_what_is_no_clip_says_so(
    content: bytes, has_av: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "HAS_AV", has_av)
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(ClipError, match=r"x\.mp4 is no clip or is cut off"):
        list(decode(path))
    with pytest.raises(ClipError, match="copy or download"):
        clip_info(path)
