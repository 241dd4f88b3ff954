"""The neutral under an expression: learned from people seen both ways, told of one photo, and what a face rests in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from calibration.enroll import resting_controls
from calibration.usable import BEHIND_GLASS
from engines.enrollment import Enrollment
from engines.errors import ModelError
from engines.geometry import F64, Similarity, rotation_from_degrees, rotation_matrix
from engines.head.fit import EXPRESSION_HIGH, EXPRESSION_LOW, ExpressionFit, SourceFit, fit_photo
from engines.head.landmark_names import LIPS_INNER, LIPS_OUTER, SURFACE
from engines.head.model import load_head_model
from engines.head.neutral_prior import PRIOR_PATH, NeutralPrior, load_neutral_prior
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT, Motion
from engines.rest import resting
from engines.retarget import CALM, Controls, retarget
from scripts.build_neutral_prior import Example, Place, apart_percent, closed, learn, mirrored, prior_bytes
from scripts.head.learn import mirror_of, twins
from scripts.measure.smiles import calm_frames, lips_percent, smiling_pairs
from scripts.people.tracks import Tracked

MODEL = load_head_model()
PRIOR = load_neutral_prior()
BASIS = ExpressionFit(MODEL).basis
MEAN = np.asarray(MODEL.landmarks(MODEL.mean_hu), np.float64)
LIPS = [*LIPS_INNER, *LIPS_OUTER]
SMILE = {
    "mouthSmileLeft": 0.9, "mouthSmileRight": 0.9, "mouthUpperUpLeft": 0.5, "mouthUpperUpRight": 0.5,
    "mouthLowerDownLeft": 0.3, "mouthLowerDownRight": 0.3,
}  # fmt: skip


def beta(**values: float) -> np.ndarray:
    out = np.zeros(EXPRESSION_COUNT, np.float32)
    for name, value in values.items():
        out[ARKIT_INDEX[name]] = value
    return out


def somebody(seed: int, expression: np.ndarray) -> tuple[F64, F64]:
    """(neutral landmarks, landmarks with `expression`) of a made-up person in head units."""
    alpha = np.random.default_rng(seed).normal(0, 0.7, 20).astype(np.float32)
    neutral = np.asarray(MODEL.landmarks(MODEL.shape(alpha)), np.float64)
    return neutral, neutral + np.tensordot(expression.astype(np.float64), BASIS, 1)


def in_picture(points_hu: F64, roll_deg: float = 0.0, scale: float = 150.0) -> tuple[F64, Similarity]:
    pose = Similarity(
        scale, rotation_matrix(rotation_from_degrees(0, 0, roll_deg)), np.array([260.0, 240.0, 0.0])
    )
    return pose.apply(points_hu), pose


def rests_hu(fit: SourceFit) -> F64:
    """Where the fitted person's landmarks rest."""
    return np.asarray(MODEL.landmarks(MODEL.shape(fit.identity)), np.float64) + fit.left_hu


def lips_off(a: F64, b: F64) -> float:
    return float(np.linalg.norm(a[LIPS, :2] - b[LIPS, :2], axis=1).mean())


def test_a_smile_is_told_from_the_face_and_rest_from_a_smile() -> None:
    smile = beta(**SMILE)
    for seed in range(4):
        neutral, smiling = somebody(seed, smile)
        px, pose = in_picture(smiling)
        moved = PRIOR.displacement_px(px, smile) / pose.scale
        assert lips_off(smiling - moved, neutral) < 0.6 * lips_off(smiling, neutral)
        px, pose = in_picture(neutral)
        still = PRIOR.displacement_px(px, np.zeros(EXPRESSION_COUNT)) / pose.scale
        assert lips_off(neutral - still, neutral) < 0.3 * lips_off(smiling, neutral)


def test_what_it_tells_turns_and_grows_with_the_face() -> None:
    _, smiling = somebody(1, beta(**SMILE))
    px, pose = in_picture(smiling)
    turned, turned_pose = in_picture(smiling, roll_deg=25, scale=310)
    one, other = (PRIOR.displacement_px(p, beta(**SMILE)) for p in (px, turned))
    assert np.allclose(one @ pose.rotation / 150, other @ turned_pose.rotation / 310, atol=1e-6)
    # an iris goes with its eye
    assert np.isclose(
        np.linalg.norm(one[SURFACE:], axis=1).max(), np.linalg.norm(one[SURFACE:], axis=1)[[0, 5]].max()
    )


def test_the_photo_is_met_and_the_smile_is_all_expression() -> None:
    smile = beta(**SMILE)
    for seed in range(4):
        neutral, smiling = somebody(seed, smile)
        px, pose = in_picture(smiling)
        moved = (smiling - neutral) * pose.scale
        fit = fit_photo(MODEL, px, smile, moved)
        whole = rests_hu(fit) + np.tensordot(fit.expression.astype(np.float64), BASIS, 1)
        assert np.abs(fit.pose.apply(whole) - px).max() < 1e-2
        assert (fit.expression >= EXPRESSION_LOW - 1e-6).all()
        assert (fit.expression <= EXPRESSION_HIGH + 1e-6).all()
        assert lips_off(rests_hu(fit), neutral) < 0.2 * lips_off(smiling, neutral)
        # told that nothing has moved, nothing is expression
        calm = fit_photo(MODEL, px, np.zeros(EXPRESSION_COUNT, np.float32), np.zeros((478, 3)))
        assert np.abs(calm.expression).max() < 1e-3


@pytest.mark.parametrize("wrong", ["truncated", "version", "shape", "not finite", "missing"])
def test_a_wrong_file_is_named(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "prior.safetensors"
    tensors = load_file(PRIOR_PATH)
    meta = {"format": "visavis-neutral-prior", "version": "1"}
    if wrong == "version":
        meta["version"] = "2"
    elif wrong == "shape":
        tensors["out"] = tensors["out"][:, :-3].copy()
    elif wrong == "not finite":
        tensors["always"][0] = np.nan
    elif wrong == "missing":
        del tensors["middle"]
    save_file(tensors, path, metadata=meta)
    if wrong == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match="build_neutral_prior"):
        load_neutral_prior(path)


# --- learning it --------------------------------------------------------------------------------


PLACE = Place(MEAN, MODEL.fit_weight.astype(np.float64))


def examples() -> list[Example]:
    out: list[Example] = []
    for seed in range(24):
        strength = 0.2 + 0.8 * (seed % 5) / 4
        smile = (beta(**SMILE) * strength).astype(np.float32)
        neutral, smiling = somebody(seed, smile)
        face = PLACE.unposed(smiling)
        out.append(
            Example(f"p{seed}", "smile", False, face, smile.astype(np.float64), PLACE.onto(face, neutral))
        )
    return out


def test_learning_finds_the_rule_of_made_up_people(tmp_path: Path) -> None:
    mirror, twin = mirror_of(MEAN), twins()
    known, new = examples()[:20], examples()[20:]
    prior = learn(PLACE, [*known, *(mirrored(e, mirror, twin) for e in known)])
    path = tmp_path / "p.safetensors"
    path.write_bytes(prior_bytes(prior))
    kept = load_neutral_prior(path)
    for example in new:
        for told in (prior, kept):
            rest = example.face_hu - told.displacement_px(example.face_hu, example.scores)
            seen = apart_percent(example.face_hu, example.rests_hu, LIPS)
            assert apart_percent(rest, example.rests_hu, LIPS) < 0.35 * seen
    twice = mirrored(mirrored(known[0], mirror, twin), mirror, twin)
    assert np.allclose(twice.face_hu, known[0].face_hu)
    assert np.allclose(twice.scores, known[0].scores)
    assert isinstance(kept, NeutralPrior)


def portrait(name: str, smile: float) -> Tracked:
    scores = beta(mouthSmileLeft=smile, mouthSmileRight=smile)[None].astype(np.float64)
    return Tracked(
        name, name.partition("_")[0], Path(name), MEAN[None] * 100, scores, np.zeros(1), (512, 512)
    )


def test_pairs_are_one_person_at_rest_and_smiling() -> None:
    people = [
        portrait("a_1", 0.7), portrait("a_2", 0.1), portrait("b_1", 0.1), portrait("b_2", 0.15), portrait("c_1", 0.9),
        portrait("d_1", 0.5), portrait("d_2", 0.9),
    ]  # fmt: skip
    assert [(r.name, s.name) for r, s in smiling_pairs(people)] == [("a_2", "a_1")]


def test_rest_is_looked_for_in_a_clip() -> None:
    def clip(smile: np.ndarray) -> Tracked:
        scores = np.stack([beta(mouthSmileLeft=s, mouthSmileRight=s) for s in smile]).astype(np.float64)
        points = np.repeat(closed(MEAN)[None] * 100, len(smile), 0)
        return Tracked(
            "c_1", "c", Path("c"), points, scores, np.arange(len(smile), dtype=np.float64), (512, 512)
        )

    frames = calm_frames(clip(np.linspace(0.8, 0.0, 40)))
    assert frames is not None
    assert sorted(frames) == [37, 38, 39]
    assert calm_frames(clip(np.full(40, 0.6))) is None, "a smile through the whole clip is no rest"
    assert calm_frames(clip(np.zeros(5))) is None, "too short"


def test_lips_are_compared_whatever_the_pose() -> None:
    turned = in_picture(MEAN, roll_deg=20, scale=90)[0]
    assert lips_percent(MEAN, turned, PLACE.rigid) < 1e-6
    other = turned.copy()
    other[LIPS, 0] += 0.01 * np.linalg.norm(turned[10, :2] - turned[152, :2])
    assert lips_percent(MEAN, other, PLACE.rigid) == pytest.approx(
        1.0, abs=0.1
    )  # the lips have some say in the pose


# --- what a face rests in ------------------------------------------------------------------------


PHOTO = Motion(
    expression=beta(**SMILE, eyeLookDownLeft=0.3, jawOpen=0.2),
    rotation_rad=np.array([0.1, 0.2, 0.0], np.float32),
    gaze_rad=np.full((2, 2), 0.1, np.float32),
    closure=np.array([0, 0.4, 0], np.float32),
)


def test_all_of_the_photo_or_none_of_its_expression() -> None:
    assert resting(PHOTO, 1.0) is PHOTO
    calm = resting(PHOTO, 0.0)
    assert calm.expression[ARKIT_INDEX["eyeLookDownLeft"]] == PHOTO.expression[ARKIT_INDEX["eyeLookDownLeft"]]
    assert np.count_nonzero(calm.expression) == 1
    assert calm.closure.tolist() == [1, 0, 0]
    assert (calm.rotation_rad == PHOTO.rotation_rad).all()
    assert (calm.gaze_rad == PHOTO.gaze_rad).all()
    half = resting(PHOTO, 0.5)
    assert half.expression[ARKIT_INDEX["mouthSmileLeft"]] == pytest.approx(0.45)
    assert half.closure.tolist() == pytest.approx([0.5, 0.2, 0])


def test_lids_behind_dark_glass_stay_as_they_are() -> None:
    shut = replace(PHOTO, expression=beta(eyeBlinkLeft=0.6, mouthSmileLeft=0.9))
    dark = retarget(CALM, CALM, shut, replace(BEHIND_GLASS, rest=0))
    assert dark.expression[ARKIT_INDEX["eyeBlinkLeft"]] == pytest.approx(0.6)
    assert dark.expression[ARKIT_INDEX["mouthSmileLeft"]] == 0
    assert dark.closure[1] == pytest.approx(0.4)
    clear = retarget(CALM, CALM, shut, Controls(rest=0, keep_blink=False))
    assert clear.expression[ARKIT_INDEX["eyeBlinkLeft"]] == 0
    assert clear.closure[1] == 0


def test_a_driver_moves_on_top_of_what_the_face_rests_in() -> None:
    for rest in (0.0, 0.35, 1.0):
        shown = retarget(Motion(), Motion(), PHOTO, Controls(rest=rest))
        wanted = resting(PHOTO, rest)
        assert np.allclose(shown.expression, wanted.expression, atol=1e-6)
        assert np.allclose(shown.closure[1:], wanted.closure[1:])
    serious = retarget(CALM, CALM, PHOTO, Controls(rest=0))
    assert serious.closure[0] == 1
    smiles = replace(CALM, expression=beta(mouthSmileLeft=0.5, mouthSmileRight=0.5))
    left = ARKIT_INDEX["mouthSmileLeft"]
    assert retarget(smiles, CALM, PHOTO, Controls(rest=0)).expression[left] == pytest.approx(0.5)
    opens = replace(CALM, expression=beta(jawOpen=0.5), closure=np.zeros(3, np.float32))
    assert retarget(opens, CALM, PHOTO, Controls(rest=0)).closure[0] == 0


def test_a_wide_smile_is_not_what_a_face_rests_in() -> None:
    px, _ = in_picture(MEAN)
    high = np.linalg.norm(px[10, :2] - px[152, :2])

    def moved(percent: float) -> F64:
        out = np.zeros((478, 3))
        out[LIPS, 0] = percent / 100 * high
        return out

    points = px.astype(np.float32)
    assert resting_controls(None, points, moved(0.9)) is None
    wide = resting_controls(None, points, moved(4.0))
    assert wide == Controls(rest=0.25)
    assert resting_controls(BEHIND_GLASS, points, moved(2.0)) == replace(BEHIND_GLASS, rest=0.5)
    assert resting_controls(BEHIND_GLASS, points, moved(0.5)) == BEHIND_GLASS


def test_an_enrolled_smile_rests_slighter(astronaut: Enrollment) -> None:
    from calibration.enroll import enroll
    from scripts.measure.figures import astronaut_png

    found = enroll(astronaut_png()).controls
    assert found is not None
    assert 0.1 < found.rest < 0.9
    assert found == Controls(rest=found.rest)
    assert astronaut.controls is None, "the tests' own rests as in the photo"
