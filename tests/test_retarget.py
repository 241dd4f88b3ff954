"""Retargeting: nothing moves nothing, strengths scale, limits hold, closed stays closed, and no identity leaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from engines.geometry import rotation_from_degrees, rotation_matrix, rotation_vector
from engines.motion import ARKIT_INDEX, ARKIT_NAMES, EXPRESSION_COUNT, Motion
from engines.presets import PRESET_NAMES, parts_lips, preset_motion
from engines.retarget import (
    CALM,
    CHOICES,
    REGION_OF,
    STRENGTHS,
    Controls,
    ControlsError,
    MotionMode,
    Region,
    emotion_motion,
    retarget,
    soft_limit,
)

F32 = NDArray[np.float32]
MODES: tuple[MotionMode, ...] = ("relative", "absolute")
REGIONS: tuple[Region, ...] = ("all", "exp", "pose", "lip", "eyes")
FREE: dict[str, Any] = {"keep_lips": False, "keep_blink": False}
OPPOSED = (
    ("mouthLeft", "mouthRight"),
    ("jawLeft", "jawRight"),
    ("eyeLookUpLeft", "eyeLookDownLeft"),
    ("eyeLookInRight", "eyeLookOutRight"),
)


def beta(**sizes: float) -> F32:
    out = np.zeros(EXPRESSION_COUNT, np.float32)
    for name, size in sizes.items():
        out[ARKIT_INDEX[name]] = size
    return out


def closed(lips: float = 0, right: float = 0, left: float = 0) -> F32:
    return np.array([lips, right, left], np.float32)


def motion(seed: int, turn_deg: float = 15, most: float = 0.6) -> Motion:
    rng = np.random.default_rng(seed)
    return Motion(
        time_s=float(rng.uniform(0, 9)),
        expression=rng.uniform(0, most, EXPRESSION_COUNT).astype(np.float32),
        rotation_rad=rotation_from_degrees(*rng.uniform(-turn_deg, turn_deg, 3)).astype(np.float32),
        translation_hu=(rng.uniform(-0.3, 0.3, 3) + np.array([0, 0, rng.uniform(5, 12)])).astype(np.float32),
        gaze_rad=rng.uniform(-0.2, 0.2, (2, 2)).astype(np.float32),
        confidence=float(rng.uniform()),
        closure=rng.uniform(0, 1, 3).astype(np.float32),
    )


UNOPPOSED = np.array(
    [
        "Look" not in name
        and not name.startswith(("mouthSmile", "mouthFrown", "eyeWide", "eyeBlink", "jaw"))
        and name not in ("mouthLeft", "mouthRight", "mouthClose")
        for name in ARKIT_NAMES
    ]
)


def near(rest: Motion, seed: int, size: float = 1.0) -> Motion:
    """A small movement away from `rest`, within all limits."""
    rng = np.random.default_rng(seed)
    turn = rotation_matrix(rng.uniform(-0.08, 0.08, 3) * size)
    return replace(
        rest,
        expression=(rest.expression + rng.uniform(0, 0.2, EXPRESSION_COUNT) * size).astype(np.float32),
        rotation_rad=rotation_vector(turn @ rotation_matrix(rest.rotation_rad)).astype(np.float32),
        translation_hu=(rest.translation_hu + rng.uniform(-0.2, 0.2, 3) * size).astype(np.float32),
        gaze_rad=(rest.gaze_rad + rng.uniform(-0.04, 0.04, (2, 2)) * size).astype(np.float32),
    )


def angle_deg(a: F32, b: F32) -> float:
    return float(np.degrees(np.linalg.norm(rotation_vector(rotation_matrix(a) @ rotation_matrix(b).T))))


def assert_same(a: Motion, b: Motion, tolerance: float = 2e-5) -> None:
    assert np.allclose(a.expression, b.expression, atol=tolerance)
    assert angle_deg(a.rotation_rad, b.rotation_rad) < 0.01
    assert np.allclose(a.translation_hu, b.translation_hu, atol=tolerance)
    assert np.allclose(a.gaze_rad, b.gaze_rad, atol=tolerance)
    assert np.allclose(a.closure, b.closure, atol=tolerance)


def only(got: Motion, source: Motion, moved: set[str]) -> None:
    """`got` is `source` but for the parts named in `moved`."""
    for region in ("lips", "eyes", "brows"):
        if region not in moved:
            own = np.array([REGION_OF[n] == region for n in ARKIT_NAMES])
            assert np.allclose(got.expression[own], source.expression[own], atol=1e-6), region
    if "lips" not in moved:
        assert got.closure[0] == pytest.approx(source.closure[0], abs=1e-6)
    if "eyes" not in moved:
        assert np.allclose(got.closure[1:], source.closure[1:], atol=1e-6)
    if "gaze" not in moved:
        assert np.allclose(got.gaze_rad, source.gaze_rad, atol=1e-6)
    if "head" not in moved:
        assert angle_deg(got.rotation_rad, source.rotation_rad) < 0.01
    if "position" not in moved:
        assert np.allclose(got.translation_hu, source.translation_hu, atol=1e-5)


seeds = st.integers(0, 2**32 - 1)
strengths = st.floats(0, 2)
any_controls = st.builds(
    Controls,
    **dict.fromkeys(STRENGTHS, strengths),
    region=st.sampled_from(REGIONS),
    motion=st.sampled_from(MODES),
    place_absolutely=st.booleans(),
    keep_lips=st.booleans(),
    keep_blink=st.booleans(),
    preset=st.sampled_from(CHOICES["preset"]),
)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
any_motion = st.builds(
    Motion,
    time_s=st.floats(0, 1e6),
    expression=arrays(np.float32, EXPRESSION_COUNT, elements=finite, fill=finite),
    rotation_rad=arrays(np.float32, 3, elements=finite),
    translation_hu=arrays(np.float32, 3, elements=finite),
    gaze_rad=arrays(np.float32, (2, 2), elements=finite),
    closure=arrays(np.float32, 3, elements=finite),
)


# --- nothing, and what the driver does ---------------------------------------------------------------


@given(seeds, seeds, any_controls)
def test_a_driver_at_rest_shows_the_photo_exactly(source: int, neutral: int, controls: Controls) -> None:
    """Whatever the strengths, and whatever odd expression the photo has."""
    s, n = motion(source, most=1.5), motion(neutral)
    controls = replace(controls, motion="relative", preset="none", **FREE)
    assert_same(retarget(n, n, s, controls), s, 1e-6)


@given(seeds, seeds)
def test_at_rest_the_photo_shows_with_lips_and_blinks_kept_too(source: int, neutral: int) -> None:
    """Unless the driver's lips or lids are more closed than the photo's: those close."""
    s, n = motion(source), motion(neutral)
    n = replace(n, closure=(n.closure * s.closure).astype(np.float32))
    assert_same(retarget(n, n, s, Controls()), s, 1e-6)


@given(seeds, seeds, seeds)
def test_relative_adds_what_the_driver_does(source: int, neutral: int, moved: int) -> None:
    s, n = motion(source), motion(neutral)
    s = replace(s, closure=closed())
    n = replace(n, closure=closed())
    d = near(n, moved)
    got = retarget(d, n, s, Controls())
    added = s.expression + d.expression - n.expression
    assert np.allclose(got.expression[UNOPPOSED], added[UNOPPOSED], atol=1e-6)
    assert np.allclose(got.gaze_rad, s.gaze_rad + d.gaze_rad - n.gaze_rad, atol=1e-6)
    turn = rotation_matrix(d.rotation_rad) @ rotation_matrix(n.rotation_rad).T
    assert np.allclose(rotation_matrix(got.rotation_rad), turn @ rotation_matrix(s.rotation_rad), atol=1e-6)
    assert got.translation_hu[2] / s.translation_hu[2] == pytest.approx(
        d.translation_hu[2] / n.translation_hu[2], rel=1e-4
    )
    # the same shift on the picture as at the photo's own distance
    shown = got.translation_hu[:2] / got.translation_hu[2] - s.translation_hu[:2] / s.translation_hu[2]
    assert np.allclose(shown * s.translation_hu[2], d.translation_hu[:2] - n.translation_hu[:2], atol=1e-5)
    assert got.time_s == d.time_s
    assert got.confidence == d.confidence


@given(seeds, seeds, seeds)
def test_absolute_in_place_is_exactly_the_driver(source: int, neutral: int, moved: int) -> None:
    s = motion(source, 8)
    d = replace(near(s, moved), translation_hu=motion(moved).translation_hu)
    got = retarget(d, motion(neutral), s, Controls(motion="absolute", place_absolutely=True))
    assert np.allclose(got.expression[UNOPPOSED], d.expression[UNOPPOSED], atol=1e-6)
    assert angle_deg(got.rotation_rad, d.rotation_rad) < 0.01
    assert np.allclose(got.translation_hu, d.translation_hu, atol=1e-5)
    assert np.allclose(got.gaze_rad, d.gaze_rad, atol=1e-6)
    assert np.allclose(got.closure, d.closure, atol=1e-6)


@given(seeds, seeds, seeds, seeds)
def test_the_drivers_own_face_does_not_leak(source: int, one: int, other: int, moved: int) -> None:
    """Two drivers with other resting faces, poses and places, doing the same: the same picture."""
    s, a, b = motion(source), motion(one), motion(other)
    a = replace(a, closure=closed())
    b = replace(
        b,
        translation_hu=np.array([*b.translation_hu[:2], a.translation_hu[2]], np.float32),
        closure=closed(),
    )
    assert_same(retarget(near(a, moved), a, s, Controls()), retarget(near(b, moved), b, s, Controls()), 1e-4)


# --- strengths and regions ---------------------------------------------------------------------------

SCALES = {
    "expression": {"gaze", "head", "position"},
    "lips": {"eyes", "brows", "gaze", "head", "position"},
    "eyes": {"lips", "brows", "gaze", "head", "position"},
    "brows": {"lips", "eyes", "gaze", "head", "position"},
    "gaze": {"lips", "eyes", "brows", "head", "position"},
    "head": {"lips", "eyes", "brows", "gaze", "position"},
    "position": {"lips", "eyes", "brows", "gaze", "head"},
}  # fmt: skip
THROUGH: dict[Region, set[str]] = {
    "all": {"lips", "eyes", "brows", "gaze", "head", "position"},
    "exp": {"lips", "eyes", "brows", "gaze"},
    "pose": {"head", "position"},
    "lip": {"lips"},
    "eyes": {"eyes", "gaze"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCALES)
@given(seeds, seeds, seeds, st.sampled_from(MODES))
def test_strength_zero_shows_the_photo_there(
    name: str, source: int, neutral: int, moved: int, mode: MotionMode
) -> None:
    s = motion(source)
    controls = replace(Controls(motion=mode, place_absolutely=True, **FREE), **{name: 0.0})
    only(retarget(motion(moved), motion(neutral), s, controls), s, SCALES[name])


@pytest.mark.slow
@pytest.mark.parametrize("region", REGIONS)
@given(seeds, seeds, seeds, st.sampled_from(MODES))
def test_a_region_lets_only_its_own_through(
    region: Region, source: int, neutral: int, moved: int, mode: MotionMode
) -> None:
    """Kept lips and blinks are the driver's too: a region that is not theirs lets them not through."""
    s, d, n = motion(source), motion(moved), motion(neutral)
    got = retarget(d, n, s, Controls(region=region, motion=mode, place_absolutely=True))
    only(got, s, THROUGH[region])
    whole = retarget(d, n, s, Controls(motion=mode, place_absolutely=True))
    if "lips" in THROUGH[region]:
        own = np.array([REGION_OF[name] == "lips" for name in ARKIT_NAMES])
        assert np.allclose(got.expression[own], whole.expression[own], atol=1e-6)


def test_every_coefficient_has_its_region() -> None:
    assert set(REGION_OF) == set(ARKIT_NAMES)
    assert {n for n, r in REGION_OF.items() if r == "brows"} == {
        "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
        "noseSneerLeft", "noseSneerRight",
    }  # fmt: skip
    assert {n for n, r in REGION_OF.items() if r == "eyes"} == {
        n for n in ARKIT_NAMES if n.startswith(("eye", "cheekSquint"))
    }


@given(seeds, seeds, st.floats(0.1, 2))
def test_strengths_scale(neutral: int, moved: int, strength: float) -> None:
    s, n = Motion(), replace(motion(neutral), closure=closed())
    d = near(n, moved, 0.5)
    got = retarget(d, n, s, Controls(expression=strength, head=strength, gaze=strength))
    wanted = strength * (d.expression - n.expression)
    assert np.allclose(got.expression[UNOPPOSED], wanted[UNOPPOSED], atol=1e-5)
    assert angle_deg(got.rotation_rad, s.rotation_rad) == pytest.approx(
        strength * angle_deg(d.rotation_rad, n.rotation_rad), abs=0.02
    )
    assert np.allclose(got.gaze_rad, strength * (d.gaze_rad - n.gaze_rad), atol=1e-5)


def test_expression_multiplies_the_regions() -> None:
    d = replace(Motion(), expression=beta(mouthSmileLeft=0.4, browInnerUp=0.4, eyeSquintLeft=0.4))
    got = retarget(d, Motion(), Motion(), Controls(expression=0.5, lips=0.5, eyes=2.0, brows=1.0))
    sizes = [got.expression[ARKIT_INDEX[n]] for n in ("mouthSmileLeft", "eyeSquintLeft", "browInnerUp")]
    assert sizes == pytest.approx([0.1, 0.4, 0.2])


def test_absolute_goes_from_the_photo_to_the_driver_and_beyond() -> None:
    s = replace(Motion(), expression=beta(mouthPucker=0.8))
    d = replace(Motion(), expression=beta(mouthPucker=0.4))
    sizes = [
        retarget(d, Motion(), s, Controls(motion="absolute", lips=lips)).expression[
            ARKIT_INDEX["mouthPucker"]
        ]
        for lips in (0, 0.5, 1, 1.5)
    ]
    assert sizes == pytest.approx([0.8, 0.6, 0.4, 0.6])


# --- closed lips and blinks --------------------------------------------------------------------------

OPEN_MOUTH = beta(jawOpen=0.6, mouthLowerDownLeft=0.3, mouthUpperUpRight=0.2, mouthSmileLeft=0.5)


@given(strengths, strengths, st.floats(0, 1), st.sampled_from(MODES), seeds)
def test_kept_lips_close_whatever_strength_and_photo(
    lips: float, expression: float, close: float, mode: MotionMode, source: int
) -> None:
    d = replace(Motion(), closure=closed(lips=close))
    controls = Controls(lips=lips, expression=expression, motion=mode)
    assert retarget(d, Motion(), motion(source), controls).closure[0] >= np.float32(close)
    photo = replace(Motion(), expression=OPEN_MOUTH)
    assert retarget(d, d, photo, controls).closure[0] == pytest.approx(close, abs=1e-6)


@given(strengths, st.floats(0, 1), st.floats(0, 1), st.sampled_from(MODES))
def test_kept_blinks_close_each_eye_on_its_own(
    eyes: float, right: float, left: float, mode: MotionMode
) -> None:
    d = replace(Motion(), closure=closed(right=right, left=left))
    got = retarget(
        d, Motion(), replace(Motion(), expression=beta(eyeWideLeft=0.4)), Controls(eyes=eyes, motion=mode)
    )
    assert got.closure[1:] == pytest.approx([right, left], abs=1e-6)
    assert got.closure[0] == 0


def test_closing_lips_fold_the_photos_open_mouth() -> None:
    photo = replace(Motion(), expression=OPEN_MOUTH)
    opening = []
    for close in (0, 0.25, 0.5, 0.75, 1):
        d = replace(Motion(), closure=closed(lips=close))
        got = retarget(d, d, photo, Controls())
        opening.append(got.jaw)
        assert got.expression[ARKIT_INDEX["mouthSmileLeft"]] == pytest.approx(
            0.5
        )  # a closed smile is a smile
    assert opening == pytest.approx([0.6, 0.45, 0.3, 0.15, 0])


def test_lips_that_are_closed_in_the_photo_open_with_the_driver() -> None:
    photo = replace(Motion(), closure=closed(lips=1))
    rest = replace(Motion(), closure=closed(lips=1))
    talking = replace(Motion(), expression=beta(jawOpen=0.5))
    assert retarget(rest, rest, photo, Controls()).closure[0] == 1
    assert retarget(talking, rest, photo, Controls()).closure[0] == 0
    assert retarget(talking, rest, photo, Controls(**FREE)).closure[0] == 0
    # a driver whose lips rest apart opens them further
    assert retarget(Motion(), Motion(), photo, Controls()).closure[0] == 1
    assert retarget(talking, Motion(), photo, Controls()).closure[0] == 0
    assert retarget(talking, rest, photo, Controls(lips=0)).closure[0] == 1
    assert retarget(talking, rest, photo, Controls(motion="absolute")).closure[0] == 0


def test_chewing_keeps_the_jaw_moving_behind_closed_lips() -> None:
    rest = replace(Motion(), closure=closed(lips=1))
    chewing = replace(rest, expression=beta(jawOpen=0.2, mouthClose=0.2))
    got = retarget(chewing, rest, replace(Motion(), expression=OPEN_MOUTH), Controls())
    assert got.jaw == pytest.approx(0.2)
    assert got.expression[ARKIT_INDEX["mouthClose"]] == pytest.approx(0.2)
    assert got.closure[0] == 1


def test_without_keeping_closure_scales() -> None:
    d = replace(Motion(), closure=closed(0.8, 0.6, 0.4))
    got = retarget(d, Motion(), Motion(), Controls(lips=0.5, eyes=0.5, **FREE))
    assert got.closure == pytest.approx([0.4, 0.3, 0.2])
    photo = replace(Motion(), closure=closed(0, 0.5, 0.5))
    got = retarget(d, Motion(), photo, Controls(expression=0.5, **FREE))
    assert got.closure == pytest.approx([0.4, 0.5, 0.5])


def test_closing_and_opening_are_continuous() -> None:
    photo = replace(Motion(), expression=OPEN_MOUTH, closure=closed(0.3, 0.2, 0.6))
    rest = replace(Motion(), closure=closed(lips=0.9))
    before = None
    for t in np.linspace(0, 1, 201):
        d = replace(
            Motion(),
            expression=beta(jawOpen=0.6 * t, eyeWideLeft=t, mouthSmileLeft=1 - t, mouthFrownLeft=t, eyeBlinkLeft=1 - t),
            closure=closed(0.9 - 0.9 * t, 1 - t, t),
        )  # fmt: skip
        got = retarget(d, rest, photo, Controls())
        now = np.concatenate([got.expression, got.closure])
        if before is not None:
            assert np.abs(now - before).max() < 0.05
        before = now


# --- presets -----------------------------------------------------------------------------------------


def sources() -> dict[str, Motion]:
    """Photos that show a face of their own: with what they show, and how closed lips and lids are."""
    smile = beta(
        mouthSmileLeft=0.7, mouthSmileRight=0.7, cheekSquintLeft=0.5, jawOpen=0.15, mouthUpperUpLeft=0.3
    )
    return {
        "smiling": replace(Motion(), expression=smile),
        "smiling, lips closed": replace(
            Motion(), expression=beta(mouthSmileLeft=0.8), closure=closed(1, 0.4, 0.3)
        ),
        "open mouth": replace(Motion(), expression=OPEN_MOUTH, closure=closed(0, 0.2, 0.2)),
        "closed": replace(Motion(), closure=closed(1)),
        "brows up, eyes shut": replace(Motion(), expression=beta(browInnerUp=0.9), closure=closed(0.5, 1, 1)),
        "any": motion(5, most=0.9),
    }


def calm(seed: int, lips: float = 1.0, lids: float = 0.0) -> Motion:
    """A driver at rest, whatever face and place that is."""
    return replace(motion(seed), closure=closed(lips, lids, lids))


@pytest.mark.parametrize("photo", sources())
@pytest.mark.parametrize("name", PRESET_NAMES)
def test_a_driver_at_rest_shows_an_emotion_as_the_sheet_does(name: str, photo: str) -> None:
    source = sources()[photo]
    for strength in (0.0, 0.5, 1.0, 1.5, 2.0):
        sheet = emotion_motion(source, name, strength)
        controls = Controls(preset=name, preset_strength=strength)
        for seed in range(3):
            got = retarget(calm(seed), calm(seed), source, controls)
            assert (got.expression == sheet.expression).all()
            assert (got.closure == sheet.closure).all()
            assert_same(got, sheet, 1e-6)
    controls = Controls(preset=name, expression=0.3, lips=1.7, eyes=0.4, brows=2, region="pose")
    got = retarget(calm(7), calm(7), source, controls)
    assert (got.expression == emotion_motion(source, name).expression).all(), "strengths are the driver's"
    assert (got.closure == emotion_motion(source, name).closure).all()


@pytest.mark.parametrize("photo", sources())
@pytest.mark.parametrize("name", PRESET_NAMES)
def test_from_strength_one_an_emotion_is_itself_whatever_photo_and_rest(name: str, photo: str) -> None:
    source = sources()[photo]
    for lips, lids in ((1, 0), (0, 0), (0.6, 0.3), (0.95, 0.5)):
        got = retarget(calm(1, lips, lids), calm(1, lips, lids), source, Controls(preset=name))
        assert (got.expression == preset_motion(name)).all()
        assert list(got.closure) == [0.0 if parts_lips(name) else 1.0, 0, 0]
        strong = retarget(calm(1, lips), calm(1, lips), source, Controls(preset=name, preset_strength=1.5))
        plain = retarget(calm(1, lips), calm(1, lips), Motion(), Controls(preset=name, preset_strength=1.5))
        assert (strong.expression == plain.expression).all()
        assert strong.expression.max() <= 1.3


@pytest.mark.parametrize("name", ["angry", "surprised", "sad"])
def test_a_smile_in_the_photo_gives_way(name: str) -> None:
    source = sources()["smiling"]
    smile = ARKIT_INDEX["mouthSmileLeft"]
    shown = [
        float(retarget(CALM, CALM, source, Controls(preset=name, preset_strength=s)).expression[smile])
        for s in (0, 0.25, 0.5, 1, 2)
    ]
    assert shown[0] == pytest.approx(0.7)
    assert shown == sorted(shown, reverse=True)
    assert shown[3:] == [0, 0]


def test_neutral_is_neutral_on_every_photo() -> None:
    for source in sources().values():
        got = retarget(CALM, CALM, source, Controls(preset="neutral"))
        assert not got.expression.any()
        assert list(got.closure) == [1, 0, 0]


@pytest.mark.parametrize("photo", sources())
@pytest.mark.parametrize("name", PRESET_NAMES)
def test_strength_zero_is_none_and_nothing_jumps_on_the_way(name: str, photo: str) -> None:
    source, d, n = sources()[photo], near(motion(8), 9), motion(8)
    none = retarget(d, n, source, Controls())
    zero = retarget(d, n, source, Controls(preset=name, preset_strength=0))
    assert (zero.expression == none.expression).all()
    assert (zero.closure == none.closure).all()
    before = zero
    for strength in np.linspace(0, 2, 101)[1:]:
        now = retarget(d, n, source, Controls(preset=name, preset_strength=float(strength)))
        assert np.abs(now.expression - before.expression).max() < 0.06, strength
        assert np.abs(now.closure - before.closure).max() < 0.06, strength
        before = now


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_the_driver_moves_on_top_of_an_emotion(name: str) -> None:
    d = replace(CALM, expression=beta(cheekPuff=0.3, browOuterUpLeft=0.2, mouthPucker=0.2))
    for source in sources().values():
        rest = retarget(CALM, CALM, source, Controls(preset=name))
        got = retarget(d, CALM, source, Controls(preset=name))
        for coefficient, moved in (("cheekPuff", 0.3), ("browOuterUpLeft", 0.2), ("mouthPucker", 0.2)):
            index = ARKIT_INDEX[coefficient]
            assert got.expression[index] - rest.expression[index] == pytest.approx(moved, abs=1e-5)
    smiling = replace(CALM, expression=beta(mouthSmileLeft=0.5))
    got = retarget(smiling, CALM, sources()["smiling"], Controls(preset="angry"))
    assert got.expression[ARKIT_INDEX["mouthSmileLeft"]] == pytest.approx(0.5)


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_a_blink_and_a_talking_drivers_closed_lips_win_over_an_emotion(name: str) -> None:
    """p, b and m: the lips are as closed as at rest, and only what came before tells them apart."""
    for source in sources().values():
        shut = replace(CALM, closure=closed(1, 1, 1))
        got = retarget(shut, CALM, source, Controls(preset=name, preset_strength=2), talking=1)
        assert list(got.closure) == [1, 1, 1]
        assert got.expression[ARKIT_INDEX["eyeWideLeft"]] == pytest.approx(0)
        if parts_lips(name):
            for opener in ("jawOpen", "mouthLowerDownLeft", "mouthUpperUpLeft"):
                assert got.expression[ARKIT_INDEX[opener]] == pytest.approx(0), opener
        free = Controls(preset=name, keep_lips=False)
        assert retarget(CALM, CALM, source, free, talking=1).closure[0] == (0 if parts_lips(name) else 1)
        # no tracker's neutral says that lips rest closed
        assert retarget(CALM, Motion(), source, Controls(preset=name), talking=1).closure[0] == 1
        at_rest = retarget(CALM, Motion(), source, Controls(preset=name))
        assert at_rest.closure[0] == (0 if parts_lips(name) else 1)


def test_talking_opens_the_lips_that_an_emotion_closes() -> None:
    d = replace(CALM, expression=beta(jawOpen=0.4), closure=closed())
    for name in ("angry", "disgusted", "neutral"):
        got = retarget(d, CALM, sources()["smiling"], Controls(preset=name))
        assert got.closure[0] == 0
        assert got.jaw == pytest.approx(0.4)


def test_an_emotion_stays_on_an_absolute_driver() -> None:
    for source in sources().values():
        got = retarget(CALM, CALM, source, Controls(motion="absolute", preset="surprised"))
        assert (got.expression == preset_motion("surprised")).all()
        assert list(got.closure) == [0, 0, 0]


# --- limits ------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=60)
@given(any_motion, any_motion, seeds, any_controls)
def test_whatever_comes_in_is_drawable(
    driver: Motion, neutral: Motion, source: int, controls: Controls
) -> None:
    s = motion(source)
    got = retarget(driver, neutral, s, controls)
    assert got.is_finite()
    arrays_of = (got.expression, got.rotation_rad, got.translation_hu, got.gaze_rad, got.closure)
    assert all(a.dtype == np.float32 for a in arrays_of)
    assert got.expression.min() >= -0.3001
    assert got.expression.max() <= 1.3001
    assert np.abs(got.gaze_rad[:, 0]).max() <= 0.5501
    assert np.abs(got.gaze_rad[:, 1]).max() <= 0.4001
    assert 0 <= got.closure.min() <= got.closure.max() <= 1
    assert angle_deg(got.rotation_rad, s.rotation_rad) <= 32.01
    zoom = got.translation_hu[2] / s.translation_hu[2]
    assert 0.33 < zoom < 3.01
    assert np.abs(got.translation_hu[:2] / got.translation_hu[2]).max() <= 0.401


def test_a_smile_and_a_frown_together_are_width() -> None:
    """A fit tells how wide a mouth is by both at once: neither takes from the other."""
    wide = beta(mouthSmileLeft=0.5, mouthSmileRight=0.5, mouthFrownLeft=0.4, mouthFrownRight=0.4)
    got = retarget(replace(Motion(), expression=wide), Motion(), Motion(), Controls())
    for name in ("mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight"):
        assert got.expression[ARKIT_INDEX[name]] == pytest.approx(wide[ARKIT_INDEX[name]], abs=0.05)


@settings(max_examples=60)
@given(any_motion, seeds, any_controls)
def test_movements_that_undo_each_other_are_tamed(driver: Motion, source: int, controls: Controls) -> None:
    s = motion(source)
    got = retarget(driver, Motion(), s, controls)

    def both(m: Motion, one: str, other: str) -> float:
        return float(min(m.expression[ARKIT_INDEX[one]], m.expression[ARKIT_INDEX[other]]))

    for one, other in OPPOSED:
        assert both(got, one, other) <= max(both(s, one, other), 0) + 1e-5, one
    for side in ("Left", "Right"):
        if got.expression[ARKIT_INDEX[f"eyeBlink{side}"]] >= 1:
            assert got.expression[ARKIT_INDEX[f"eyeWide{side}"]] < 1e-5
    own = max(float(s.expression[ARKIT_INDEX["mouthClose"]]) - s.jaw, 0)
    assert got.expression[ARKIT_INDEX["mouthClose"]] <= max(got.jaw, 0) + own + 1e-5


@given(st.floats(-90, 90), st.floats(-60, 60), st.floats(-90, 90), strengths, st.sampled_from(MODES))
def test_the_head_never_turns_beyond_what_the_photo_bears(
    yaw: float, pitch: float, roll: float, head: float, mode: MotionMode
) -> None:
    d = replace(Motion(), rotation_rad=rotation_from_degrees(yaw, pitch, roll).astype(np.float32))
    got = retarget(d, Motion(), Motion(), Controls(head=head, motion=mode))
    assert angle_deg(got.rotation_rad, Motion().rotation_rad) <= 32.01


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(0.01, 1e3), strengths)
def test_the_head_never_leaves(x: float, y: float, z: float, position: float) -> None:
    d = replace(Motion(), translation_hu=np.array([x, y, z], np.float32))
    got = retarget(d, Motion(), Motion(), Controls(position=position))
    zoom = got.translation_hu[2] / Motion().translation_hu[2]
    assert np.exp(-0.301) <= zoom <= np.exp(0.301)
    assert np.abs(got.translation_hu[:2] / zoom).max() <= 0.601


def test_limits_are_soft_and_monotone() -> None:
    def yaw(value: float) -> float:
        d = replace(Motion(), rotation_rad=rotation_from_degrees(value, 0, 0).astype(np.float32))
        return angle_deg(retarget(d, Motion(), Motion(), Controls()).rotation_rad, Motion().rotation_rad)

    steps = [yaw(v) for v in np.arange(0, 90, 1.0)]
    grown = np.diff(steps)
    assert (grown > 0).all()
    assert grown.max() < 1.01
    assert np.abs(np.diff(grown)).max() < 0.1  # no kink to be seen
    assert yaw(15) == pytest.approx(15, abs=0.01)


@given(st.floats(-10, 10), st.floats(0.01, 2), st.floats(0.01, 2))
def test_a_soft_limit_keeps_the_middle_and_never_passes(value: float, knee: float, room: float) -> None:
    got = float(soft_limit(value, knee, knee + room))
    assert abs(got) <= knee + room
    assert got == value if abs(value) <= knee else abs(got) >= knee
    assert float(soft_limit(-value, knee, knee + room)) == -got


def test_limits_make_room_for_what_the_photo_shows() -> None:
    """A photo that looks far aside, or shows an extreme face, is still shown as it is, and not driven far beyond."""
    s = replace(
        Motion(), expression=beta(mouthPucker=1.4), gaze_rad=np.array([[0.6, 0.45], [0.5, 0.35]], np.float32)
    )
    assert_same(retarget(Motion(), Motion(), s, Controls()), s, 1e-6)
    d = replace(Motion(), expression=beta(mouthPucker=1), gaze_rad=np.full((2, 2), 0.5, np.float32))
    got = retarget(d, Motion(), s, Controls())
    assert 1.4 <= got.expression.max() < 1.43
    assert np.all(
        (got.gaze_rad >= s.gaze_rad) & (got.gaze_rad <= np.maximum(s.gaze_rad + 0.021, [0.551, 0.401]))
    )


def test_a_driver_at_distance_zero_does_no_harm() -> None:
    d = replace(Motion(), translation_hu=np.zeros(3, np.float32))
    assert retarget(d, d, Motion(), Controls()).is_finite()
    assert retarget(Motion(), d, Motion(), Controls()).is_finite()


def test_nothing_is_changed_in_place() -> None:
    d, n, s = motion(1), motion(2), motion(3)
    before = [m.to_json() for m in (d, n, s)]
    for controls in (Controls(), Controls(motion="absolute", place_absolutely=True), Controls(preset="awed")):
        got = retarget(d, n, s, controls)
        for a in (got.expression, got.translation_hu, got.rotation_rad, got.gaze_rad, got.closure):
            a[:] = 9
    assert [m.to_json() for m in (d, n, s)] == before
    assert preset_motion("awed").max() <= 1


def test_a_blink_blinks_whatever_the_photo() -> None:
    d, s = replace(Motion(), expression=beta(eyeBlinkLeft=0.9)), motion(4)
    got = retarget(d, Motion(), s, Controls())
    index = ARKIT_INDEX["eyeBlinkLeft"]
    assert got.expression[index] >= 0.9
    assert got.expression[ARKIT_INDEX["eyeWideLeft"]] <= s.expression[ARKIT_INDEX["eyeWideLeft"]]


# --- the controls themselves -------------------------------------------------------------------------


@given(any_controls)
def test_controls_survive_a_dictionary(controls: Controls) -> None:
    assert Controls.from_dict(controls.to_dict()) == controls


def test_a_dictionary_changes_only_what_it_names() -> None:
    base = Controls(lips=0.5, preset="sad")
    assert Controls.from_dict({"eyes": 1}, base) == replace(base, eyes=1.0)
    assert Controls.from_dict({}) == Controls()


WRONG: list[tuple[dict[str, object], str]] = [
    ({"lips": 2.01}, "lips is 2.01; give a number from 0 to 2"),
    ({"head": -0.1}, "head is -0.1; .* 0 to 2"),
    ({"gaze": float("nan")}, "gaze is nan; .* 0 to 2"),
    ({"eyes": "1"}, "eyes is '1'; give a number"),
    ({"brows": True}, "brows is True; give a number"),
    ({"position": None}, "position is None"),
    ({"preset_strength": 10**400}, "preset_strength is .*; give a number from 0 to 2"),
    ({"keep_lips": 1}, "keep_lips is 1; give true or false"),
    ({"region": "mouth"}, "region is 'mouth'; choose one of: all, exp, pose, lip, eyes"),
    ({"motion": []}, "motion is .*relative, absolute"),
    ({"preset": "bored"}, "preset is 'bored'; choose one of: none, neutral, happy,.* awed"),
    ({"strength": 1.0}, "no setting 'strength'; choose one of: expression, lips"),
]


@pytest.mark.parametrize(("data", "says"), WRONG, ids=[str(d)[:40] for d, _ in WRONG])
def test_a_wrong_setting_is_named_with_its_range(data: dict[str, object], says: str) -> None:
    with pytest.raises(ControlsError, match=says) as raised:
        Controls.from_dict(data)
    assert len(str(raised.value)) < 400
