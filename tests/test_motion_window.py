"""Windows of motions: what a generator sees of the moments around the one it draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engines.geometry import Similarity, rotation_matrix
from engines.motion import ARKIT_INDEX, Motion
from engines.motion_descriptor import (
    CLOSURE,
    DESCRIPTOR_SIZE,
    GAZE,
    ROTATION,
    SCALE,
    SHIFT,
    describe,
    in_window,
    mirror_matrix,
)
from engines.motion_window import WINDOW_HZ, MotionHistory, MotionWindow


def at(time_s: float) -> Motion:
    return Motion(time_s=time_s)


def times(window: MotionWindow) -> list[float]:
    return [round(m.time_s, 3) for m in window.motions]


def test_a_generator_that_looks_at_one_moment_gets_one() -> None:
    history = MotionHistory(0)
    for t in (0.0, 0.1, 5.0):
        window = history.window(at(t), [at(t + 1)])
        assert times(window) == [t]
        assert window.now.time_s == t


def test_before_the_first_motion_there_is_the_first() -> None:
    history = MotionHistory(2)
    assert times(history.window(at(1.0))) == [1.0, 1.0, 1.0]
    assert times(history.window(at(1.04))) == [1.0, 1.0, 1.04]
    assert times(history.window(at(1.08))) == [1.0, 1.04, 1.08]
    assert times(history.window(at(1.12))) == [1.04, 1.08, 1.12]


@pytest.mark.parametrize("fps", [15.0, 24.0, 25.0, 30.0, 50.0, 60.0])
def test_a_window_spans_the_same_time_at_any_rate(fps: float) -> None:
    history = MotionHistory(5)
    window = MotionWindow.of(at(0))
    for k in range(60):
        window = history.window(at(k / fps))
    told = [window.now.time_s - m.time_s for m in window.motions]
    wanted = [k / WINDOW_HZ for k in range(5, -1, -1)]
    assert max(abs(a - b) for a, b in zip(told, wanted, strict=True)) <= 1 / fps + 1e-9
    assert sorted(told, reverse=True) == told


def test_memory_is_bounded_by_the_window() -> None:
    history = MotionHistory(3)
    for k in range(10_000):
        history.window(at(k / 60))
    kept: list[Motion] = list(history._kept)  # pyright: ignore[reportPrivateUsage]
    assert len(kept) <= 3 * 60 / WINDOW_HZ + 3


@pytest.mark.parametrize("to_s", [0.2, 9.0])
def test_time_that_runs_back_or_jumps_begins_anew(to_s: float) -> None:
    history = MotionHistory(2)
    for k in range(30):
        history.window(at(1 + k * 0.04))
    assert times(history.window(at(to_s))) == [to_s] * 3


def test_a_reset_forgets_and_a_moment_told_anew_replaces_itself() -> None:
    history = MotionHistory(1)
    history.window(at(0))
    history.reset()
    assert times(history.window(at(0.04))) == [0.04, 0.04]
    other = replace(at(0.04), confidence=0.5)
    window = history.window(other)
    assert [m.confidence for m in window.motions] == [0.5, 0.5]


def test_a_file_looks_ahead_and_live_does_not() -> None:
    history = MotionHistory(1, 2)
    first = history.window(at(0.0), [at(0.04), at(0.08), at(0.12)])
    assert times(first) == [0.0, 0.0, 0.04, 0.08]
    assert first.now.time_s == 0.0
    assert times(history.window(at(0.04), [at(0.08)])) == [0.0, 0.04, 0.08, 0.08]  # the file ends
    assert times(history.window(at(0.08))) == [0.04, 0.08, 0.08, 0.08]
    assert times(history.window(at(0.12), [at(7.0)])) == [0.08, 0.12, 0.12, 0.12]  # after a cut


def told(motion: Motion, turn: tuple[float, float, float] = (0.1, -0.2, 0.3)) -> Similarity:
    return Similarity(40.0, rotation_matrix(np.array(turn)), np.array([130.0, 90.0, 7.0]))


def test_the_descriptor_holds_what_the_picture_shows() -> None:
    motion = replace(
        Motion(),
        closure=np.array([0.1, 0.2, 0.3], np.float32),
        gaze_rad=np.array([[0.1, 0.2], [0.3, 0.4]], np.float32),
    )
    found = describe(motion, told(motion))
    assert found.shape == (DESCRIPTOR_SIZE,) == (65,)
    assert found[CLOSURE].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert found[GAZE].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert found[ROTATION].tolist() == pytest.approx([0.1, -0.2, 0.3])
    assert found[SCALE] == 40
    assert found[SHIFT].tolist() == [130, 90]


def test_in_a_window_it_is_the_same_whatever_the_pixels() -> None:
    motion = Motion()
    small = told(motion)
    large = Similarity(small.scale * 3, small.rotation, small.shift * 3)
    half = np.array([128.0, 128.0], np.float32)
    one = in_window(describe(motion, small), half, np.array(256, np.float32))
    three = in_window(describe(motion, large), half * 3, np.array(768, np.float32))
    assert one == pytest.approx(three, abs=1e-6)
    assert one[SCALE] == pytest.approx(np.log(40 / 256))
    assert one[SHIFT].tolist() == pytest.approx([2 / 128, -38 / 128])


def test_a_mirrored_descriptor_is_that_of_the_mirrored_motion() -> None:
    motion = Motion()
    motion.expression[ARKIT_INDEX["eyeBlinkLeft"]] = 1
    motion.closure[:] = (0.1, 0.2, 0.3)
    motion.gaze_rad[:] = ((0.1, 0.2), (0.3, 0.4))
    descriptor = in_window(
        describe(motion, told(motion)), np.array([128, 128], np.float32), np.array(256, np.float32)
    )
    found = descriptor @ mirror_matrix()
    assert found[ARKIT_INDEX["eyeBlinkRight"]] == 1
    assert found[ARKIT_INDEX["eyeBlinkLeft"]] == 0
    assert found[CLOSURE].tolist() == pytest.approx([0.1, 0.3, 0.2])
    assert found[GAZE].tolist() == pytest.approx([-0.3, 0.4, -0.1, 0.2])
    # a mirror turns yaw and roll about, not pitch
    flip = np.diag([-1.0, 1, 1])
    assert rotation_matrix(found[ROTATION]) == pytest.approx(
        flip @ rotation_matrix(descriptor[ROTATION]) @ flip, abs=1e-6
    )
    assert found[SHIFT].tolist() == pytest.approx([-descriptor[SHIFT][0], descriptor[SHIFT][1]])
    assert found @ mirror_matrix() == pytest.approx(descriptor)
