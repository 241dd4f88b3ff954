"""Emotions over time: eased in without a jump, closed for p, b and m of who talks, and live as on the sheet."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import streamer.avatar as avatar_module
from engines.enrollment import Enrollment
from engines.mood import NO_MOOD, Mood, between, mood_of
from engines.motion import ARKIT_INDEX, Motion
from engines.presets import PRESET_NAMES, PresetError
from engines.retarget import CALM, Controls, emotion_motion, retarget
from streamer.avatar import Avatar
from streamer.drive.driver import Drive, Driver
from streamer.drive.emotion import EASE_S, PAUSE_S, REST_S, Felt, advance
from streamer.frame import LatencyTrace, Moment
from streamer.options import AvatarOptions
from tests.fakes import FakeTracker

STEP_S = 1 / 30
PARTED = replace(CALM, closure=np.zeros(3, np.float32))


def play(wanted: list[Mood], driver: list[Motion]) -> list[Felt]:
    """One state for each of `wanted` and `driver`, 30 a second."""
    felt: list[Felt] = []
    for index, (target, motion) in enumerate(zip(wanted, driver, strict=True)):
        felt.append(advance(felt[-1] if felt else None, target, motion, index * STEP_S))
    return felt


def distance(one: Mood, other: Mood) -> float:
    return float(
        max(
            np.abs(one.expression - other.expression).max(),
            abs(one.share - other.share),
            abs(one.lips - other.lips),
        )
    )


def test_a_mood_is_the_emotion_and_how_much_of_the_photo_it_leaves() -> None:
    assert distance(mood_of("none", 2), NO_MOOD) == 0
    sad, happy = mood_of("sad", 0.5), mood_of("happy", 2)
    assert (sad.share, sad.lips, sad.lips_closed) == (0.5, 0.5, 1.0)
    assert (happy.share, happy.lips, happy.lips_closed) == (1.0, 0.0, 0.0)
    assert distance(between(sad, happy, 0), sad) == 0
    assert between(sad, happy, 1) is happy
    assert between(NO_MOOD, happy, 0.25).share == 0.25
    with pytest.raises(PresetError, match="no emotion 'bored'"):
        mood_of("bored", 1)


def test_a_stream_begins_with_its_emotion() -> None:
    angry = mood_of("angry", 1)
    assert play([angry], [CALM])[0].mood is angry


@pytest.mark.parametrize("strength", [0.5, 1, 2])
@pytest.mark.parametrize("before", ["none", "happy", "angry"])
@pytest.mark.parametrize("name", ["none", *PRESET_NAMES])
def test_another_emotion_is_eased_in_and_then_there_exactly(name: str, before: str, strength: float) -> None:
    one, other = mood_of(before, 1), mood_of(name, strength)
    felt = play([one, *[other] * 12], [CALM] * 13)
    shown = [f.mood for f in felt]
    assert distance(shown[-1], other) == 0
    whole = distance(one, other)
    steps = [distance(a, b) for a, b in pairwise(shown)]
    assert max(steps) <= whole * STEP_S / EASE_S + 1e-9
    assert sum(s > 0 for s in steps) in (0, 9, 10), "0.3 s of 30 a second"


def test_a_slider_that_is_dragged_is_followed_and_reached() -> None:
    dragged = [mood_of("happy", k / 30) for k in range(31)]
    felt = play([*dragged, *[dragged[-1]] * 10], [CALM] * 41)
    shares = [f.mood.share for f in felt]
    assert shares == sorted(shares)
    assert shares[30] > 0.6, "followed meanwhile"
    assert distance(felt[-1].mood, dragged[-1]) == 0
    assert max(np.diff(shares)) < 0.12


def test_time_that_stops_goes_back_or_leaps_does_no_harm() -> None:
    one, other = mood_of("sad", 1), mood_of("happy", 1)
    felt = advance(advance(None, one, CALM, 5.0), other, CALM, 5.0)
    assert distance(felt.mood, one) == 0
    felt = advance(felt, other, CALM, 1.0)
    assert distance(felt.mood, one) == 0
    felt = advance(felt, other, CALM, 1.15)
    assert felt.mood.expression == pytest.approx((one.expression + other.expression) / 2)
    assert advance(felt, other, CALM, 99.0).mood is other


def test_lips_that_part_are_talking_until_they_have_rested() -> None:
    pause, rest = round(PAUSE_S / STEP_S), round(REST_S / STEP_S)
    driver = [CALM, PARTED, *[CALM] * (pause + rest + 2)]
    levels = [f.talking for f in play([NO_MOOD] * len(driver), driver)]
    assert levels[0] == 0
    assert levels[1 : 1 + pause] == [1] * pause
    assert 0 < levels[2 + pause + rest // 2] < 1
    assert levels[-1] == 0
    assert max(-np.diff(levels)) < 0.08
    # each closing of somebody who goes on talking is a closing
    driver = [CALM, *([PARTED] * 3 + [CALM] * 5) * 6]
    assert min(f.talking for f in play([NO_MOOD] * len(driver), driver)[1:]) == 1


def test_lips_that_only_tremble_are_not_talking_and_those_that_rest_apart_always_are() -> None:
    tremble = [replace(CALM, closure=np.array([c, 0, 0], np.float32)) for c in (1, 0.8, 0.95, 0.6, 1)]
    assert [f.talking for f in play([NO_MOOD] * 5, tremble)] == [0] * 5
    assert {f.talking for f in play([NO_MOOD] * 90, [PARTED] * 90)} == {1}


def test_a_surprised_face_opens_at_rest_and_closes_for_the_m_of_who_talks() -> None:
    photo, controls = emotion_motion(Motion(), "neutral"), Controls(preset="surprised")
    ah = replace(PARTED, expression=emotion_motion(Motion(), "surprised", 0.5).expression)
    rest = Motion()  # no tracker's neutral says that lips rest closed
    driver = [*[CALM] * 3, ah, ah, CALM, CALM, ah, *[CALM] * 40]
    felt = play([mood_of("surprised", 1)] * len(driver), driver)
    lips = [
        float(retarget(d, rest, photo, controls, mood=f.mood, talking=f.talking).closure[0])
        for d, f in zip(driver, felt, strict=True)
    ]
    assert lips[:5] == [0] * 5
    assert lips[5:7] == [1, 1], "m"
    assert lips[7] == 0
    assert lips[8] == 1
    assert lips[-1] == 0, "at rest it is surprised again"
    assert max(-np.diff(lips[8:])) < 0.08, "and eased into it"


def test_lips_that_the_driver_closes_stay_closed_in_an_emotion_that_closes_them() -> None:
    restless = replace(CALM, expression=emotion_motion(Motion(), "surprised", 0.5).expression)
    shown = retarget(restless, Motion(), PARTED, Controls(preset="angry"), talking=0.0)
    assert shown.closure[0] == 1, "though the jaw is not quite where the neutral has it"


def test_opening_lips_hardly_close_a_face_that_an_emotion_opens() -> None:
    driver = [replace(CALM, closure=np.array([c, 0, 0], np.float32)) for c in np.linspace(1, 0, 31)]
    felt = play([mood_of("surprised", 1)] * 31, driver)
    lips = [
        retarget(d, Motion(), Motion(), Controls(preset="surprised"), mood=f.mood, talking=f.talking).closure[
            0
        ]
        for d, f in zip(driver, felt, strict=True)
    ]
    assert max(lips) < 0.13


def test_an_avatar_eases_what_its_controls_say(
    astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Motion] = []

    def seen(*arguments: object, **named: object) -> Motion:
        asked.append(retarget(*arguments, **named))  # pyright: ignore[reportArgumentType]
        return asked[-1]

    monkeypatch.setattr(avatar_module, "retarget", seen)
    options = AvatarOptions(generator="geometric", size_px=64, controls=Controls())
    avatar = Avatar(astronaut, Driver(FakeTracker([CALM], neutral=CALM)), options)
    with_smile = ARKIT_INDEX["mouthSmileLeft"]

    def show(index: int) -> Motion:
        moment = Moment(index * STEP_S, 0, LatencyTrace({}), index)
        avatar.show_drive(Drive(CALM, CALM, "tracking", face=True), moment)
        return asked[-1]

    smiles = [float(show(0).expression[with_smile])]
    assert smiles[0] > 0.2, "this photo smiles"
    avatar.controls = Controls(preset="angry")
    smiles += [float(show(index).expression[with_smile]) for index in range(1, 12)]
    assert smiles == sorted(smiles, reverse=True)
    assert max(-np.diff(smiles)) < 0.12 * smiles[0]
    assert smiles[-1] == 0
    assert (asked[-1].expression == emotion_motion(astronaut.motion, "angry").expression).all()
    assert (asked[-1].closure == emotion_motion(astronaut.motion, "angry").closure).all()
    avatar.close()
