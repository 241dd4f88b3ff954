"""A kept neutral: the text gives back what was taken, and no forged text gives anything."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.kept_neutral import MAX_KEPT_CHARACTERS, NeutralError, read_kept, text_of
from calibration.neutral import DriverNeutral
from engines.head.model import load_head_model
from engines.motion import EXPRESSION_COUNT, Motion
from streamer.drive.trackers.names import TRACKER_NAMES

MODEL = load_head_model()
MESH = MODEL.landmarks(MODEL.mean_hu).astype(np.float64) * np.array([1.05, 0.97, 1.0]) + 0.01
MOTION = Motion(
    expression=np.linspace(-0.25, 1.25, EXPRESSION_COUNT).astype(np.float32),
    rotation_rad=np.array([0.2, -3.1, 0.05], np.float32),
    translation_hu=np.array([-0.7, 0.3, 7.25], np.float32),
    gaze_rad=np.array([[0.3, -0.2], [0.25, 1.1]], np.float32),
    closure=np.array([1, 0.25, 0], np.float32),
)
NEUTRAL = DriverNeutral(MESH, MOTION)
TEXT = text_of(NEUTRAL, "mediapipe")


def with_bytes(start: int, new: bytes) -> str:
    data = bytearray(base64.b64decode(TEXT))
    data[start : start + len(new)] = new
    return base64.b64encode(bytes(data)).decode()


@pytest.mark.parametrize("name", TRACKER_NAMES)
def test_what_was_kept_comes_back(name: str) -> None:
    text = text_of(NEUTRAL, name)
    assert len(text) <= MAX_KEPT_CHARACTERS
    kept = read_kept(text)
    assert kept.tracker == name
    assert np.abs(kept.neutral.mesh_hu - MESH).max() < 1e-4
    got = kept.neutral.motion
    assert np.allclose(got.expression, MOTION.expression, atol=1e-4)
    assert np.array_equal(got.rotation_rad, MOTION.rotation_rad)
    assert np.array_equal(got.translation_hu, MOTION.translation_hu)
    assert np.allclose(got.gaze_rad, MOTION.gaze_rad, atol=1e-3)
    assert np.array_equal(got.closure, MOTION.closure)
    assert text_of(kept.neutral, name) == text, "kept again, it is the same"


@pytest.mark.parametrize(
    ("why", "bad"),
    [
        ("size of a head", DriverNeutral(MESH * 0.2, MOTION)),
        ("size of a head", DriverNeutral(MESH * np.array([1, 1, 0.0]), MOTION)),
        ("size of a head", DriverNeutral(MESH * 3.5, MOTION)),
        ("where a head", DriverNeutral(MESH + 2, MOTION)),
        ("not finite", DriverNeutral(np.full_like(MESH, np.nan), MOTION)),
        ("not finite", DriverNeutral(MESH[:400], MOTION)),
        ("not finite", DriverNeutral(MESH, replace(MOTION, gaze_rad=np.full((2, 2), np.inf, np.float32)))),
        ("expression", DriverNeutral(MESH, replace(MOTION, expression=np.full(52, 1.5, np.float32)))),
        ("expression", DriverNeutral(MESH, replace(MOTION, expression=np.full(52, -0.4, np.float32)))),
        ("angles", DriverNeutral(MESH, replace(MOTION, rotation_rad=np.full(3, 5, np.float32)))),
        ("angles", DriverNeutral(MESH, replace(MOTION, gaze_rad=np.full((2, 2), -2, np.float32)))),
        ("far away", DriverNeutral(MESH, replace(MOTION, translation_hu=np.zeros(3, np.float32)))),
        ("far away", DriverNeutral(MESH, replace(MOTION, translation_hu=np.full(3, 1e9, np.float32)))),
        ("lids", DriverNeutral(MESH, replace(MOTION, closure=np.full(3, 2, np.float32)))),
    ],
)
def test_what_is_no_rest_is_not_kept(why: str, bad: DriverNeutral) -> None:
    with pytest.raises(NeutralError, match=why):
        text_of(bad, "mediapipe")


@pytest.mark.parametrize("name", ["", "x" * 33, "media pipe", "../up", "caf\u00e9", "A\x00"])
def test_only_a_plain_name_is_a_tracker(name: str) -> None:
    with pytest.raises(NeutralError, match="tracker"):
        text_of(NEUTRAL, name)


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("bytes|version", ""),
        ("base64", "no base64 at all!"),
        ("base64", "\u00e9\u00e9\u00e9\u00e9"),
        ("base64", TEXT[:-1]),
        ("longer", TEXT + "A" * 4096),
        ("version", with_bytes(0, b"\x02")),
        ("bytes", base64.b64encode(b"\x01abc").decode()),
        ("bytes", base64.b64encode(base64.b64decode(TEXT)[:3000]).decode()),
        ("bytes", base64.b64encode(base64.b64decode(TEXT) + b"x" * 30).decode()),
        ("size of a head", with_bytes(1, b"\x00" * 2868)),
        ("size of a head", with_bytes(1, b"\x7f\xff\x80\x00" * 717)),
        ("expression", with_bytes(2869, b"\x80\x00" * 52)),
        ("not finite", with_bytes(2869 + 104, b"\x7f\xc0\x00\x00" * 3)),
        ("not finite", with_bytes(2869 + 104 + 12, b"\x7f\x80\x00\x00" * 3)),
        ("not finite", with_bytes(2869 + 104 + 24, b"\x7c\x00" * 4)),
        ("angles", with_bytes(2869 + 104 + 24, b"\x7b\xff" * 4)),
        ("far away", with_bytes(2869 + 104 + 20, b"\x7f\x00\x00\x00")),
        ("tracker", with_bytes(2869 + 142, b"\xff\xfe")),
    ],
)
def test_a_forged_text_is_refused_with_what_to_do(why: str, text: str) -> None:
    with pytest.raises(NeutralError, match=why) as caught:
        read_kept(text)
    assert "recalibrate" in str(caught.value)


@given(st.binary(max_size=200), st.integers(0, 3020))
def test_no_bytes_give_anything_else_than_a_head_or_a_refusal(new: bytes, start: int) -> None:
    try:
        kept = read_kept(with_bytes(start, new))
    except NeutralError:
        return
    assert kept.neutral.motion.is_finite()
    assert np.isfinite(kept.neutral.mesh_hu).all()
    assert text_of(kept.neutral, kept.tracker)
