"""`Motion`: its JSON lines, its files and its blends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import DriverError
from engines.geometry import rotation_matrix
from engines.motion import (
    ARKIT_NAMES,
    EXPRESSION_COUNT,
    Motion,
    MotionTrack,
    blend,
    read_motion,
    write_motion,
)


def motion(seed: int, time_s: float = 0.0) -> Motion:
    rng = np.random.default_rng(seed)
    return Motion(
        time_s=time_s,
        expression=rng.uniform(-0.2, 1.2, EXPRESSION_COUNT).astype(np.float32),
        rotation_rad=rng.uniform(-1, 1, 3).astype(np.float32),
        translation_hu=(rng.normal(size=3) + np.array([0, 0, 8])).astype(np.float32),
        gaze_rad=rng.uniform(-0.5, 0.5, (2, 2)).astype(np.float32),
        confidence=float(rng.uniform()),
    )


motions = st.integers(0, 2**32 - 1).map(motion)


def assert_close(a: Motion, b: Motion, tolerance: float) -> None:
    for f in fields(Motion):
        assert np.allclose(getattr(a, f.name), getattr(b, f.name), atol=tolerance), f.name


def test_the_52_names_are_arkits() -> None:
    assert len(ARKIT_NAMES) == len(set(ARKIT_NAMES)) == 52
    assert [n for n in ARKIT_NAMES if n.endswith("Left") and n[:-4] + "Right" not in ARKIT_NAMES] == []


@given(motions, st.floats(0, 1e5))
def test_json_round_trip(m: Motion, time_s: float) -> None:
    line = replace(m, time_s=time_s).to_json()
    back = Motion.from_json(line)
    assert "\n" not in line
    assert_close(replace(m, time_s=time_s), back, 6e-4)
    assert np.abs(m.expression - back.expression).max() < 1e-5
    assert back.expression.dtype == np.float32
    assert back.gaze_rad.shape == (2, 2)


@pytest.mark.parametrize("name", [f.name for f in fields(Motion)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(name: str, bad: float) -> None:
    broken = replace(
        motion(1),
        **{
            name: np.full_like(getattr(motion(1), name), bad) if name not in ("time_s", "confidence") else bad
        },
    )
    assert motion(1).is_finite()
    assert not broken.is_finite()
    with pytest.raises(ValueError, match="finite"):
        Motion.from_json(broken.to_json())


@pytest.mark.slow
@given(
    st.one_of(
        st.text(),
        st.recursive(
            st.none() | st.floats() | st.text(),
            lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["t", "expression", "confidence"]), x),
        ).map(json.dumps),
    )
)
def test_anything_else_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any message)
        Motion.from_json(line)


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"t":' + "9" * 400 + "}", motion(1).to_json().replace("[", "[1,", 1)]
)
def test_hostile_lines_are_value_errors_too(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any message)
        Motion.from_json(line)


@given(motions, motions)
def test_a_blend_begins_and_ends_where_it_should(a: Motion, b: Motion) -> None:
    for weight, end in ((0, a), (1, b), (-3, a), (7, b)):
        got = blend(a, b, weight)
        assert np.allclose(rotation_matrix(got.rotation_rad), rotation_matrix(end.rotation_rad), atol=1e-5)
        assert_close(replace(got, rotation_rad=end.rotation_rad), end, 1e-6)


@given(motions, motions, st.floats(0, 1))
def test_a_blend_turns_along_the_shortest_arc(a: Motion, b: Motion, weight: float) -> None:
    def angle(x: Motion, y: Motion) -> float:
        cos = (np.trace(rotation_matrix(x.rotation_rad).T @ rotation_matrix(y.rotation_rad)) - 1) / 2
        return float(np.arccos(np.clip(cos, -1, 1)))

    middle = blend(a, b, weight)
    assert angle(a, middle) + angle(middle, b) == pytest.approx(angle(a, b), abs=2e-3)
    assert angle(a, middle) == pytest.approx(weight * angle(a, b), abs=2e-3)


def test_a_blend_across_the_half_turn_does_not_go_round() -> None:
    a = replace(motion(1), rotation_rad=np.array([0, 3.1, 0], np.float32))
    b = replace(motion(2), rotation_rad=np.array([0, -3.1, 0], np.float32))
    middle = rotation_matrix(blend(a, b, 0.5).rotation_rad)
    assert np.allclose(middle, rotation_matrix(np.array([0, np.pi, 0])), atol=1e-4)


def test_a_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    track = [motion(k, k / 25) for k in range(10)]
    write_motion(path, track, 25.0, motion(99))
    back = read_motion(path)
    assert back.fps == 25
    assert len(back.motions) == 10
    assert back.duration_s == pytest.approx(0.4)
    assert back.neutral is not None
    assert_close(back.neutral, motion(99), 6e-4)
    for a, b in zip(track, back, strict=True):
        assert_close(a, b, 6e-4)


def test_a_motion_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def breaking() -> Iterator[Motion]:
        yield motion(0)
        raise KeyboardInterrupt

    path = tmp_path / "m.jsonl"
    write_motion(path, [motion(1)], 25.0)
    old = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_motion(path, breaking(), 25.0)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_without_a_neutral_and_with_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_motion(path, [motion(0), motion(1)], 29.97)
    path.write_text(path.read_text().replace("\n", "\n\n"))
    back = read_motion(path)
    assert back.neutral is None
    assert back.fps == pytest.approx(29.97)
    assert len(back.motions) == 2


@pytest.mark.parametrize(
    "bad", ["{}", "half a li", "null", "[]", '{"t": 0.1, "expression": [1, 2]}', '{"t":' + "9" * 400 + "}"]
)
def test_a_broken_line_is_named(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "m.jsonl"
    write_motion(path, [motion(k) for k in range(5)], 25.0)
    lines = path.read_text().splitlines()
    lines[3] = bad
    path.write_text("\n".join(lines))
    with pytest.raises(DriverError, match=r"m\.jsonl line 4 is not a motion"):
        read_motion(path)


def test_a_file_cut_in_the_middle_of_a_line_names_that_line(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_motion(path, [motion(k) for k in range(5)], 25.0)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DriverError, match="line 6"):
        read_motion(path)


HEADER = '{"format":"visavis-motion","version":1,"fps":25}'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a visavis motion file"),
        (b"\n\n", "not a visavis motion file"),
        (b"hello", "not a visavis motion file"),
        (b"[]", "not a visavis motion file"),
        (b'{"format":"other","version":1,"fps":25}', "not a visavis motion file"),
        (HEADER.replace("25", "0").encode(), "outside 1"),
        (HEADER.replace("25", "NaN").encode(), "outside 1"),
        (HEADER.replace("25", '"x"').encode(), "not a visavis motion file"),
        (HEADER.replace("1", "2", 1).encode(), "version 2; this visavis reads 1"),
        (HEADER.replace(":1", ":1e999", 1).encode(), "not a visavis motion file"),
        (HEADER.replace("}", ',"neutral":{"t":NaN}}').encode(), "not a visavis motion file"),
        (HEADER.encode(), "holds no motion"),
        (b"\xff\xd8\xff\xe0 a picture", "cannot read"),
    ],
)
def test_other_files_are_one_clear_error(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(content)
    with pytest.raises(DriverError, match=says) as caught:
        read_motion(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(DriverError, match="cannot read"):
            read_motion(path)


def test_a_track_between_and_beyond_its_frames() -> None:
    a, b = (
        replace(motion(1), rotation_rad=np.zeros(3, np.float32)),
        replace(motion(2), rotation_rad=np.zeros(3, np.float32)),
    )
    track = MotionTrack(10.0, [a, b])
    assert np.allclose(track.at(0.05).expression, (a.expression + b.expression) / 2, atol=1e-6)
    assert np.allclose(track.at(-1).expression, a.expression)
    assert np.allclose(track.at(99).expression, b.expression)
