"""The yardstick asks of a face what it says it asks, and draws it in lines."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.enrollment import Enrollment, save_enrollment
from engines.geometry import rotation_matrix
from engines.motion import ARKIT_INDEX, Motion, MotionTrack
from scripts import yardstick
from scripts.yardstick import EXPRESSIONS, TURNS_DEG, asked, lines_of, row_of, turned


def test_a_turn_is_from_where_the_photo_has_the_head() -> None:
    rest = Motion(rotation_rad=np.array([0.1, -0.2, 0.05], np.float32))
    for yaw, pitch in TURNS_DEG.values():
        turn = rotation_matrix(turned(rest, yaw, pitch).rotation_rad) @ rotation_matrix(rest.rotation_rad).T
        degrees = np.degrees(np.arccos((np.trace(turn) - 1) / 2))
        assert degrees == pytest.approx(abs(yaw) + abs(pitch), abs=0.01)


def test_all_is_asked() -> None:
    """Turns, expressions, the neutral face, and of each driver the moments that tell most."""
    smiling = np.zeros(52, np.float32)
    smiling[[ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["mouthSmileRight"]]] = 0.6
    rest = Motion(expression=smiling)
    motions = asked(rest, [])
    assert list(motions) == ["at rest", *TURNS_DEG, *EXPRESSIONS, "neutral", "neutral, pucker"]
    assert motions["at rest"] is rest
    assert motions["neutral"].expression.max() < 0.05
    assert motions["neutral, pucker"].expression[ARKIT_INDEX["mouthPucker"]] == pytest.approx(0.9)
    assert motions["jaw 0.9, teeth"].expression[ARKIT_INDEX["jawOpen"]] > 0.5
    wide = np.zeros(52, np.float32)
    wide[ARKIT_INDEX["jawOpen"]] = 0.8
    track = MotionTrack(25, [Motion(), Motion(time_s=0.04, expression=wide), Motion(time_s=0.08)])
    more = asked(rest, [track, track])
    assert set(motions) < set(more)
    assert {name.split(":")[0] for name in more if ":" in name} == {"1", "2"}


def test_lines_are_full() -> None:
    row = {str(k): np.zeros((2, 2, 3), np.uint8) for k in range(9)}
    lines = lines_of(row, 7)
    assert [list(line) for line in lines] == [list("0123456"), list("78")]


@pytest.mark.slow
def test_a_face_is_drawn(
    astronaut: Enrollment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = row_of(astronaut, [], "geometric")
    assert len(row) == 1 + len(TURNS_DEG) + len(EXPRESSIONS) + 2
    assert len({picture.tobytes() for picture in row.values()}) == len(row)
    avatar, out = tmp_path / "ada.avatar", tmp_path / "sheet"
    save_enrollment(astronaut, avatar)
    told = ["yardstick", "-o", str(out), "--photo", str(avatar), "--generator", "geometric", "--cell", "40"]
    monkeypatch.setattr(sys, "argv", told)
    yardstick.main()
    assert capsys.readouterr().out.split() == [str(out / "ada.png")]
    sheet = np.asarray(Image.open(out / "ada.png").convert("RGB"))
    assert sheet.shape[1] > 7 * 40
    assert sheet.std() > 20
