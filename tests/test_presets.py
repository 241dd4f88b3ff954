"""Emotions: the published action units, told in coefficients that exist, each face its own."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.motion import ARKIT_INDEX, ARKIT_NAMES, EXPRESSION_COUNT
from engines.presets import (
    ACTION_UNITS,
    EMOTIONS,
    PRESET_NAMES,
    PresetError,
    parts_lips,
    preset_motion,
    preset_names,
)

# Table 1 of Du, Tao & Martinez 2014: what more than 70 % showed, and what some showed
PUBLISHED: dict[str, tuple[set[int], set[int]]] = {
    "neutral": (set(), set()),
    "happy": ({12, 25}, {6}),
    "sad": ({4, 15}, {1, 6, 11, 17}),
    "fearful": ({1, 4, 20, 25}, {2, 5, 26}),
    "angry": ({4, 7, 24}, {10, 17, 23}),
    "surprised": ({1, 2, 25, 26}, {5}),
    "disgusted": ({9, 10, 17}, {4, 24}),
    "happily_surprised": ({1, 2, 12, 25}, {5, 26}),
    "happily_disgusted": ({10, 12, 25}, {4, 6, 9}),
    "sadly_fearful": ({1, 4, 20, 25}, {2, 5, 6, 15}),
    "sadly_angry": ({4, 15}, {6, 7, 11, 17}),
    "sadly_surprised": ({1, 4, 25, 26}, {2, 6}),
    "sadly_disgusted": ({4, 10}, {1, 6, 9, 11, 15, 17, 25}),
    "fearfully_angry": ({4, 20, 25}, {5, 7, 10, 11}),
    "fearfully_surprised": ({1, 2, 5, 20, 25}, {4, 10, 11, 26}),
    "fearfully_disgusted": ({1, 4, 10, 20, 25}, {2, 5, 6, 9, 15, 26}),
    "angrily_surprised": ({4, 25, 26}, {5, 7, 10}),
    "angrily_disgusted": ({4, 10, 17}, {7, 9, 24}),
    "disgustedly_surprised": ({1, 2, 5, 10}, {4, 9, 17, 24, 26}),
    "appalled": ({4, 10}, {6, 9, 17, 24}),
    "hatred": ({4, 10}, {7, 9, 17, 24}),
    "awed": ({1, 2, 5, 25}, {4, 20, 26}),
}


def test_the_emotions_are_the_papers_22() -> None:
    assert len(PRESET_NAMES) == 22
    assert set(PRESET_NAMES) == set(PUBLISHED)
    assert preset_names() == PRESET_NAMES
    assert "none" not in PRESET_NAMES


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_emotion_shows_its_published_action_units(name: str) -> None:
    always, some = PUBLISHED[name]
    emotion = EMOTIONS[name]
    assert set(emotion.always) == always
    assert set(emotion.often) <= some
    assert not set(emotion.often) & always


def test_all_22_look_different() -> None:
    """Each pair differs by a movement that can be seen, not only by a shade."""
    for a, b in combinations(PRESET_NAMES, 2):
        assert np.abs(preset_motion(a) - preset_motion(b)).max() > 0.3, (a, b)
        one, other = EMOTIONS[a], EMOTIONS[b]
        assert set(one.always + one.often) != set(other.always + other.often), (a, b)


def test_action_units_name_coefficients_that_exist() -> None:
    for unit, sizes in ACTION_UNITS.items():
        for name, size in sizes.items():
            sides = (name[:-1] + "Left", name[:-1] + "Right") if name.endswith("*") else (name,)
            assert set(sides) <= set(ARKIT_NAMES), (unit, name)
            assert 0 < size <= 1
    used = {unit for e in EMOTIONS.values() for unit in e.always + e.often}
    assert used <= set(ACTION_UNITS)


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_both_sides_of_the_face_do_the_same(name: str) -> None:
    expression = preset_motion(name)
    for left in (n for n in ARKIT_NAMES if n.endswith("Left") and n not in ("jawLeft", "mouthLeft")):
        right = left.removesuffix("Left") + "Right"
        assert expression[ARKIT_INDEX[left]] == expression[ARKIT_INDEX[right]], left


@given(st.sampled_from(PRESET_NAMES), st.floats(0, 2))
def test_strength_scales(name: str, strength: float) -> None:
    got = preset_motion(name, strength)
    assert got.shape == (EXPRESSION_COUNT,)
    assert got.dtype == np.float32
    assert np.allclose(got, strength * preset_motion(name), atol=1e-6)
    assert preset_motion(name).min() >= 0
    assert preset_motion(name).max() <= 1


def test_faces_anyone_would_name() -> None:
    def size(emotion: str, coefficient: str) -> float:
        return float(preset_motion(emotion)[ARKIT_INDEX[coefficient]])

    assert size("happy", "mouthSmileLeft") > 0.7
    assert size("sad", "mouthFrownLeft") > 0.7
    assert size("surprised", "jawOpen") > 0.4
    assert size("angry", "browDownLeft") > 0.7
    assert size("disgusted", "noseSneerLeft") > 0.7
    assert size("fearful", "browInnerUp") > size("fearful", "browDownLeft") > 0
    assert not preset_motion("neutral").any()
    assert not preset_motion("none").any()


def test_the_mouth_is_open_with_the_action_units_for_it() -> None:
    opened = {name for name, (always, _) in PUBLISHED.items() if always & {25, 26}}
    assert {name for name in PRESET_NAMES if parts_lips(name)} == opened
    assert not parts_lips("none")


def test_a_result_is_the_callers_own() -> None:
    preset_motion("happy")[:] = 9
    assert preset_motion("happy").max() <= 1
    assert preset_motion("neutral").max() == 0


def test_an_unknown_emotion_lists_the_known() -> None:
    with pytest.raises(PresetError, match=r"no emotion 'bored'; choose one of: neutral, happy.*awed"):
        preset_motion("bored")
