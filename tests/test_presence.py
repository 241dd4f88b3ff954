"""A lost face: held, eased into idle life, and back in three frames, never with a jump."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.geometry import rotation_from_degrees, rotation_matrix, rotation_vector
from engines.motion import Motion
from streamer.drive.presence import EASE_S, HOLD_S, RECOVER_FRAMES, Presence, PresenceLabel, advance

FPS = 25.0
NEUTRAL = Motion(expression=np.full(52, 0.1, np.float32))
SMILE = Motion(
    expression=np.full(52, 0.8, np.float32),
    rotation_rad=rotation_from_degrees(25, -10, 5).astype(np.float32),
    translation_hu=np.array([0.4, 0.3, 7], np.float32),
    gaze_rad=np.full((2, 2), 0.3, np.float32),
)
BROKEN = replace(SMILE, expression=np.full(52, np.nan, np.float32))


def play(seen: Sequence[Motion | None]) -> tuple[list[Motion], list[PresenceLabel]]:
    state, shown, labels = Presence(), list[Motion](), list[PresenceLabel]()
    for k, s in enumerate(seen):
        t = k / FPS
        state, motion = advance(state, None if s is None else replace(s, time_s=t), t, NEUTRAL)
        shown.append(motion)
        labels.append(state.label)
    return shown, labels


def distance(a: Motion, b: Motion) -> float:
    """How far apart two motions look: the largest of expression, turn, and place and gaze in radians."""
    turn = rotation_vector(rotation_matrix(a.rotation_rad).T @ rotation_matrix(b.rotation_rad))
    place = np.abs(a.translation_hu - b.translation_hu).max()
    return float(
        max(
            np.abs(a.expression - b.expression).max(),
            np.linalg.norm(turn),
            place,
            np.abs(a.gaze_rad - b.gaze_rad).max(),
        )
    )


def same(a: Motion, b: Motion) -> bool:
    return distance(a, b) < 1e-5


def test_a_face_that_stays_is_shown_as_it_is() -> None:
    moving = [replace(SMILE, expression=np.full(52, k / 50, np.float32)) for k in range(20)]
    shown, labels = play(moving)
    assert all(same(a, b) for a, b in zip(moving, shown, strict=True))
    assert set(labels) == {"tracking"}


def test_a_short_loss_is_held_still() -> None:
    frames = int(HOLD_S * FPS)
    shown, labels = play([SMILE] * 3 + [None] * frames)
    assert all(same(m, SMILE) for m in shown)
    assert labels == ["tracking"] * 3 + ["holding"] * frames
    assert [m.confidence for m in shown] == [1.0] * 3 + [0.0] * frames


def test_a_long_loss_ends_in_idle_life_around_the_neutral() -> None:
    shown, labels = play([SMILE] * 3 + [None] * 200)
    end = shown[int((HOLD_S + EASE_S) * FPS) + 5 :]
    assert labels[-1] == "idle"
    assert len({m.to_json() for m in end}) == len(end)  # it lives
    # all but the blinking lids
    assert all(np.allclose(np.delete(m.expression, [8, 9]), 0.1) for m in end)
    assert any(m.expression[8] > 0.5 for m in end)
    assert all(np.allclose(m.translation_hu, NEUTRAL.translation_hu) for m in end)


def test_easing_goes_one_way_without_a_jump() -> None:
    shown, _ = play([SMILE] * 3 + [None] * int((HOLD_S + EASE_S + 0.2) * FPS))
    mouth = [float(m.expression[24]) for m in shown]
    assert mouth == sorted(mouth, reverse=True)
    assert np.abs(np.diff(mouth)).max() < 0.06


@pytest.mark.parametrize("lost", [1, 2, 5, 20, 100])
def test_recovery_takes_three_frames_and_never_jumps(lost: int) -> None:
    shown, labels = play([SMILE] * 3 + [None] * lost + [SMILE] * 5)
    back = 3 + lost
    assert labels[back] == "tracking"
    assert all(same(m, SMILE) for m in shown[back + RECOVER_FRAMES - 1 :])
    gap = distance(shown[back - 1], SMILE)
    steps = [distance(a, b) for a, b in zip(shown[back - 1 :], shown[back:], strict=False)][:RECOVER_FRAMES]
    assert max(steps) <= gap / RECOVER_FRAMES * 1.05 + 1e-6


def test_a_recovery_follows_a_face_that_moves_on() -> None:
    moving = [replace(SMILE, expression=np.full(52, 0.3 + k / 20, np.float32)) for k in range(6)]
    shown, _ = play([SMILE] + [None] * 50 + moving)
    for m, s in zip(shown[51 + RECOVER_FRAMES - 1 :], moving[RECOVER_FRAMES - 1 :], strict=True):
        assert same(m, s)


def test_motions_that_are_not_finite_count_as_lost() -> None:
    shown, labels = play([SMILE, BROKEN, BROKEN, SMILE, SMILE, SMILE])
    assert labels[1:3] == ["holding", "holding"]
    assert all(m.is_finite() for m in shown)
    assert same(shown[2], SMILE)
    later, _ = play([SMILE] + [BROKEN] * 100)
    assert np.allclose(later[-1].expression[24], 0.1)


def test_no_face_ever_is_idle_from_the_start() -> None:
    shown, labels = play([None] * 200)
    assert set(labels) == {"holding", "idle"} or set(labels) == {"idle"}
    assert all(np.allclose(np.delete(m.expression, [8, 9]), 0.1) for m in shown)
    assert any(m.expression[8] > 0.5 for m in shown)


def test_the_first_face_after_idling_is_eased_in_too() -> None:
    shown, _ = play([None] * 10 + [SMILE] * 5)
    steps = [distance(a, b) for a, b in pairwise(shown[9:])]
    assert max(steps) <= distance(shown[9], SMILE) / RECOVER_FRAMES * 1.05
    assert same(shown[12], SMILE)


@given(st.lists(st.booleans(), min_size=5, max_size=150))
def test_a_flickering_face_never_jumps(found: list[bool]) -> None:
    """A still face that comes and goes in any rhythm: no frame differs from the last by more than a third of
    the way between neutral and the face, and a blink (lids may move fast)."""
    shown, _ = play([SMILE if f else None for f in found])
    lids = [8, 9]

    def still(m: Motion) -> Motion:
        expression = m.expression.copy()
        expression[lids] = 0
        return replace(m, expression=expression)

    span = distance(still(SMILE), still(NEUTRAL))
    first = next((k for k, f in enumerate(found) if f), None)
    for k, (a, b) in enumerate(pairwise(shown)):
        if found[0] or k != first:
            assert distance(still(a), still(b)) <= span / RECOVER_FRAMES * 1.1
    assert all(m.is_finite() for m in shown)
    assert [m.time_s for m in shown] == pytest.approx([k / FPS for k in range(len(found))])


def test_a_new_neutral_while_idling_does_not_matter_while_held() -> None:
    state, _ = advance(Presence(), SMILE, 0.0, NEUTRAL)
    state, held = advance(state, None, 0.04, NEUTRAL)
    _, other = advance(state, None, 0.08, Motion(expression=np.ones(52, np.float32)))
    assert same(held, other)


def test_states_are_values() -> None:
    start = Presence()
    once = advance(start, SMILE, 0.0, NEUTRAL)
    assert start == Presence()
    assert same(advance(start, SMILE, 0.0, NEUTRAL)[1], once[1])
