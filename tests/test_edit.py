"""Editing a still: what is told changes, everything else stays; shapes are modes of the head model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.edit import FRONTAL, Edit, EditError, apply_edit, identity_change, reshape
from engines.enrollment import Enrollment
from engines.geometry import rotation_from_degrees, yaw_pitch_roll_deg
from engines.head.model import HeadModel
from engines.motion import ARKIT_INDEX, ARKIT_NAMES, EXPRESSION_COUNT, Motion


def photo_motion() -> Motion:
    rng = np.random.default_rng(5)
    return Motion(
        expression=rng.uniform(0, 0.5, EXPRESSION_COUNT).astype(np.float32),
        rotation_rad=rotation_from_degrees(12, -6, 4).astype(np.float32),
        translation_hu=np.array([0.3, -0.2, 7], np.float32),
        gaze_rad=np.array([[0.1, 0.05], [0.12, 0.04]], np.float32),
        closure=np.array([0.2, 0.3, 0.4], np.float32),
    )


def same(a: Motion, b: Motion) -> bool:
    return a.to_json() == b.to_json()


def test_an_empty_edit_changes_nothing() -> None:
    assert same(apply_edit(photo_motion(), Edit()), photo_motion())


@given(st.floats(-60, 60), st.floats(-60, 60), st.floats(-60, 60))
def test_angles_are_those_that_were_told(yaw: float, pitch: float, roll: float) -> None:
    got = apply_edit(photo_motion(), Edit(yaw_deg=yaw, pitch_deg=pitch, roll_deg=roll))
    assert yaw_pitch_roll_deg(got.rotation_rad) == pytest.approx((yaw, pitch, roll), abs=0.01)
    assert same(replace(got, rotation_rad=photo_motion().rotation_rad), photo_motion())


def test_an_angle_that_is_not_told_stays() -> None:
    got = apply_edit(photo_motion(), Edit(pitch_deg=10))
    assert yaw_pitch_roll_deg(got.rotation_rad) == pytest.approx((12, 10, 4), abs=0.01)


def test_frontal_looks_straight_and_keeps_the_face() -> None:
    got = apply_edit(photo_motion(), FRONTAL)
    assert np.allclose(got.rotation_rad, 0, atol=1e-6)
    assert (got.expression == photo_motion().expression).all()
    assert (got.translation_hu == photo_motion().translation_hu).all()


def test_neutral_has_no_expression_but_what_is_told() -> None:
    got = apply_edit(photo_motion(), Edit(expression={"jawOpen": 0.4}, neutral=True))
    assert got.jaw == pytest.approx(0.4)
    assert np.count_nonzero(got.expression) == 1
    assert not got.closure.any()
    closed = apply_edit(photo_motion(), Edit(expression={"mouthSmileLeft": 0.4}, neutral=True))
    assert list(closed.closure) == [1, 0, 0]


def test_coefficients_are_set_not_added() -> None:
    got = apply_edit(photo_motion(), Edit(expression={"mouthSmileLeft": 0.7, "browInnerUp": -0.1}))
    others = [i for n, i in ARKIT_INDEX.items() if n not in ("mouthSmileLeft", "browInnerUp")]
    assert got.expression[ARKIT_INDEX["mouthSmileLeft"]] == pytest.approx(0.7)
    assert got.expression[ARKIT_INDEX["browInnerUp"]] == pytest.approx(-0.1)
    assert (got.expression[others] == photo_motion().expression[others]).all()


def test_a_mouth_that_is_told_to_open_opens_and_so_does_an_eye() -> None:
    got = apply_edit(photo_motion(), Edit(expression={"jawOpen": 0.5, "eyeWideLeft": 0.3}))
    assert got.closure == pytest.approx([0, 0.3, 0])
    brows = apply_edit(
        photo_motion(), Edit(expression={"browInnerUp": 0.5, "mouthFrownLeft": 0.3, "jawOpen": 0})
    )
    assert (brows.closure == photo_motion().closure).all()


def test_gaze_turns_both_eyes() -> None:
    got = apply_edit(photo_motion(), Edit(gaze_yaw_deg=15))
    assert np.degrees(got.gaze_rad[:, 0]) == pytest.approx([15, 15], abs=1e-4)
    assert (got.gaze_rad[:, 1] == photo_motion().gaze_rad[:, 1]).all()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"expression": {"smile": 1.0}}, r"no coefficient 'smile'; choose one of: browDownLeft"),
    ({"expression": {"jawOpen": 1.5}}, r"jawOpen is 1\.5; give a number from -0\.3 to 1\.3"),
    ({"expression": {"jawOpen": float("nan")}}, r"jawOpen is nan"),
    ({"yaw_deg": 61.0}, r"yaw is 61; give a number from -60 to 60"),
    ({"roll_deg": -90.0}, r"roll is -90"),
    ({"gaze_pitch_deg": 40.0}, r"gaze-pitch is 40; give a number from -35 to 35"),
]


@pytest.mark.parametrize(("what", "says"), WRONG, ids=[str(w) for w, _ in WRONG])
def test_a_wrong_edit_names_the_range(what: dict[str, Any], says: str) -> None:
    with pytest.raises(EditError, match=says):
        apply_edit(photo_motion(), Edit(**what))


def test_nothing_is_changed_in_place() -> None:
    source = photo_motion()
    got = apply_edit(source, Edit(expression=dict.fromkeys(ARKIT_NAMES, 0.1), gaze_yaw_deg=3))
    got.gaze_rad[:] = 9
    got.expression[:] = 9
    assert same(source, photo_motion())


@dataclass(frozen=True)
class Shaped:
    """What `reshape` needs of an enrollment."""

    identity: np.ndarray
    neutral_hu: np.ndarray
    name: str = "a"


def model_with_modes(count: int = 4, vertices: int = 6) -> HeadModel:
    modes = np.random.default_rng(2).normal(size=(count, vertices, 3)).astype(np.float32)

    class Modes:
        identity_hu = modes

    return cast(HeadModel, Modes())


def shaped(identity: int = 4) -> Enrollment:
    rng = np.random.default_rng(3)
    return cast(
        Enrollment,
        Shaped(
            identity=rng.normal(size=identity).astype(np.float32),
            neutral_hu=rng.normal(size=(6, 3)).astype(np.float32),
        ),
    )


def test_a_shape_moves_the_head_by_its_mode() -> None:
    model, before = model_with_modes(), shaped()
    after = reshape(before, model, identity_change(model, {1: 2.0, 3: -1.0}))
    wanted = before.neutral_hu + 2 * model.identity_hu[1] - model.identity_hu[3]
    assert np.allclose(after.neutral_hu, wanted, atol=1e-5)
    assert np.allclose(after.identity - before.identity, [0, 2, 0, -1], atol=1e-6)
    assert after.neutral_hu.dtype == after.identity.dtype == np.float32
    assert after.name == before.name


def test_shapes_go_there_and_back() -> None:
    model, before = model_with_modes(), shaped()
    delta = identity_change(model, {0: 1.5, 2: -0.5})
    back = reshape(reshape(before, model, delta), model, -delta)
    assert np.allclose(back.neutral_hu, before.neutral_hu, atol=1e-5)
    assert np.allclose(back.identity, before.identity, atol=1e-6)


def test_an_enrollment_with_fewer_modes_is_filled_up() -> None:
    model, before = model_with_modes(), shaped(identity=2)
    after = reshape(before, model, np.array([0, 0, 1], np.float32))
    assert np.allclose(after.identity, [*before.identity, 1, 0])


def test_a_shape_that_is_not_there_or_too_much_is_named() -> None:
    model = model_with_modes()
    with pytest.raises(EditError, match="no shape 4; this head model has 0 to 3"):
        identity_change(model, {4: 1.0})
    with pytest.raises(EditError, match="no shape -1"):
        identity_change(model, {-1: 1.0})
    with pytest.raises(EditError, match=r"shape 0 is 3\.5; give a number from -3 to 3"):
        identity_change(model, {0: 3.5})
    with pytest.raises(EditError, match="5 shapes were given; this head model has 4"):
        reshape(shaped(), model, np.zeros(5, np.float32))
