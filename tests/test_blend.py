"""Webcam and microphone together: the voice has the mouth while no face is seen, and only the mouth."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import FakeTracker

from engines.motion import ARKIT_INDEX, Motion
from streamer.drive.driver import Driver
from streamer.drive.share import Share
from streamer.drive.voice_helps import FADE_S, Said, with_voice
from streamer.frame import Frame

JAW, BLINK = ARKIT_INDEX["jawOpen"], ARKIT_INDEX["eyeBlinkLeft"]


def moved(**values: float) -> Motion:
    expression = np.zeros(52, np.float32)
    for name, value in values.items():
        expression[ARKIT_INDEX[name]] = value
    return Motion(expression=expression)


def test_the_voice_has_the_mouth_and_nothing_else() -> None:
    seen, said = moved(jawOpen=0.1, eyeBlinkLeft=0.8), moved(jawOpen=0.5, eyeBlinkLeft=0.2)
    assert with_voice(seen, said, 0.0) is seen
    half = with_voice(seen, said, 0.5)
    assert half.expression[JAW] == pytest.approx(0.3)
    assert half.expression[BLINK] == pytest.approx(0.8)
    assert with_voice(seen, said, 1.0).expression[JAW] == pytest.approx(0.5)


def test_fades_take_their_time_and_stop_at_the_ends() -> None:
    share = Share(FADE_S, 0.0, 0.0).towards(True, FADE_S / 2)
    assert share.value == pytest.approx(0.5)
    assert share.towards(True, 10.0).value == 1.0
    assert share.towards(False, FADE_S).value == pytest.approx(0.0)
    assert Share(FADE_S).towards(True, 5.0).value == 1.0  # nothing was shown before
    assert share.towards(True, 0.0).value == share.value  # a clock that went back


def frame(time_s: float) -> Frame:
    return Frame(time_s, 0, image=np.zeros((4, 4, 3), np.uint8))


def test_a_driver_without_a_face_speaks_by_voice_and_goes_back_to_the_camera() -> None:
    seen = [moved(jawOpen=0.1)] * 5 + [None] * 20 + [moved(jawOpen=0.1)] * 20
    driver = Driver(FakeTracker(seen), smooth=False, said=lambda _: Said(moved(jawOpen=0.6), 7))
    jaws = [driver.drive(frame(k / 25)).motion.expression[JAW] for k in range(len(seen))]
    assert jaws[:5] == pytest.approx([0.1] * 5)
    assert jaws[24] == pytest.approx(0.6)
    assert jaws[-1] == pytest.approx(0.1)
    assert np.abs(np.diff(jaws)).max() < 0.15  # nothing jumps


def test_a_mouth_that_the_voice_moves_says_when_that_was_said() -> None:
    seen = [moved(jawOpen=0.1)] * 5 + [None] * 20 + [moved(jawOpen=0.1)] * 20
    driver = Driver(FakeTracker(seen), smooth=False, said=lambda _: Said(moved(jawOpen=0.6), 7))
    heard_ns = [driver.drive(frame(k / 25)).heard_ns for k in range(len(seen))]
    assert heard_ns[:6] == [None] * 6, "the camera's, and what fades in of the voice is little"
    assert heard_ns[24] == 7
    assert heard_ns[-1] is None


def test_a_silent_microphone_leaves_the_picture_alone() -> None:
    with_silence = Driver(FakeTracker([None] * 3), said=lambda _: None)
    without = Driver(FakeTracker([None] * 3))
    for k in range(3):
        a, b = with_silence.drive(frame(k / 25)).motion, without.drive(frame(k / 25)).motion
        assert np.array_equal(a.expression, b.expression)
