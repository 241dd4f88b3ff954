"""The set of emotions: each drawn once from a resting face, and a sheet where each name is under its face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engines.errors import SinkError
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT, Motion
from engines.presets import PRESET_NAMES, preset_motion
from engines.retarget import ControlsError, emotion_motion
from streamer.cli.pictures import require_png, write_png
from streamer.emotions import LABEL_PX, draw_emotions, sheet_of

SMILING = Motion(
    expression=np.full(EXPRESSION_COUNT, 0.4, np.float32),
    rotation_rad=np.array([0.1, 0.2, 0], np.float32),
    closure=np.ones(3, np.float32),
)


def flat(value: int, side: int = 64) -> NDArray[np.uint8]:
    return np.full((side, side, 3), value, np.uint8)


def test_an_emotion_replaces_the_photos_own_expression_and_keeps_the_pose() -> None:
    got = emotion_motion(SMILING, "angry")
    assert np.allclose(got.expression, preset_motion("angry"))
    assert list(got.closure) == [1, 0, 0]
    assert np.allclose(got.rotation_rad, SMILING.rotation_rad, atol=1e-6)
    assert (got.translation_hu == SMILING.translation_hu).all()
    with pytest.raises(ControlsError, match="choose one of"):
        emotion_motion(SMILING, "bored")


def test_half_an_emotion_leaves_half_of_the_photos_own_face() -> None:
    got = emotion_motion(SMILING, "awed", 0.5)
    smile = ARKIT_INDEX["mouthDimpleLeft"]
    assert got.expression[smile] == pytest.approx(0.2)


def test_lips_are_closed_unless_the_emotion_parts_them() -> None:
    assert [emotion_motion(SMILING, n).closure[0] for n in ("neutral", "sad", "happy", "surprised")] == [
        1,
        1,
        0,
        0,
    ]
    grown = [emotion_motion(SMILING, "surprised", s).closure[0] for s in (0, 0.25, 0.5, 1, 2)]
    assert grown == [1, 0.75, 0.5, 0, 0]


def test_every_emotion_is_drawn_once_in_order() -> None:
    seen: list[Motion] = []
    told: list[tuple[int, int | None]] = []

    def draw(motion: Motion) -> NDArray[np.uint8]:
        seen.append(motion)
        return flat(len(seen))

    motions = {name: emotion_motion(SMILING, name) for name in PRESET_NAMES}
    pictures = draw_emotions(draw, motions, lambda done, total: told.append((done, total)))
    assert tuple(pictures) == PRESET_NAMES
    assert [int(p[0, 0, 0]) for p in pictures.values()] == list(range(1, 23))
    assert told[-1] == (22, 22)
    for name, motion in zip(PRESET_NAMES, seen, strict=True):
        assert np.allclose(motion.expression, preset_motion(name))


def test_the_sheet_shows_every_face_above_its_name() -> None:
    pictures = {name: flat(100 + index) for index, name in enumerate(PRESET_NAMES)}
    sheet = sheet_of(pictures)
    assert sheet.shape == (4 * (256 + LABEL_PX), 6 * 256, 3)
    for index in range(len(PRESET_NAMES)):
        x, y = index % 6 * 256, index // 6 * (256 + LABEL_PX)
        assert (sheet[y : y + 256, x : x + 256] == 100 + index).all()
        label = sheet[y + 256 : y + 256 + LABEL_PX, x : x + 256]
        assert label.min() < 100, "nothing is written"
        assert (label == 255).mean() > 0.5


def test_the_longest_name_fits_under_its_face() -> None:
    sheet = sheet_of({"disgustedly_surprised": flat(10, 512), "happy": flat(20, 512)})
    assert sheet.shape == (256 + LABEL_PX, 512, 3)
    label = np.any(sheet[256:, :256] < 200, axis=(0, 2))
    assert label.any()
    assert not label[:4].any()
    assert not label[-4:].any()


def test_a_png_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "o.png"
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    write_png(path, picture)
    assert (np.asarray(Image.open(path)) == picture).all()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SinkError, match="No space left on device"):
        write_png(path, flat(1))
    assert [p.name for p in tmp_path.iterdir()] == ["o.png"]
    assert (np.asarray(Image.open(path)) == picture).all()


def test_a_place_where_no_png_can_go_is_named(tmp_path: Path) -> None:
    (tmp_path / "d.png").mkdir()
    with pytest.raises(SinkError, match=r"ends in \.png"):
        require_png(tmp_path / "o.jpg")
    with pytest.raises(SinkError, match="is a folder"):
        require_png(tmp_path / "d.png")
    with pytest.raises(SinkError, match="mkdir -p"):
        require_png(tmp_path / "no" / "o.png")
    require_png(tmp_path / "o.PNG")
