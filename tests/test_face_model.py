"""The committed face model: shapes, symmetry, closing lids, an opening jaw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from engines.face_model import (
    CORNERS_LEFT,
    CORNERS_RIGHT,
    EYE_LEFT,
    EYE_RIGHT,
    LANDMARK_COUNT,
    LIDS_LEFT,
    LIDS_RIGHT,
    LIPS_INNER,
    LIPS_OUTER,
    LOWER_LIP,
    MEETING,
    OVAL,
    UPPER_LIP,
    Part,
    keep_apart,
    load_face_model,
)
from engines.motion import ARKIT_INDEX, ARKIT_NAMES, EXPRESSION_COUNT

F32 = NDArray[np.float32]
MODEL = load_face_model()
MIRROR_X = np.array([-1, 1, 1], np.float32)


def expression(**values: float) -> F32:
    beta = np.zeros(EXPRESSION_COUNT, np.float32)
    for name, value in values.items():
        beta[ARKIT_INDEX[name]] = value
    return beta


def face(**values: float) -> F32:
    return MODEL.decode(MODEL.mean_hu, expression(**values))


def lid_gap(shape: F32, lids: tuple[int, int], corners: tuple[int, int]) -> float:
    """Lid distance over eye width."""
    height = np.linalg.norm(shape[lids[0], :2] - shape[lids[1], :2])
    return float(height / np.linalg.norm(shape[corners[0], :2] - shape[corners[1], :2]))


def lip_gap(shape: F32) -> float:
    return float(shape[LOWER_LIP, 1] - shape[UPPER_LIP, 1])


def test_shapes_fit_together() -> None:
    n = MODEL.vertex_count
    assert n == LANDMARK_COUNT + 4 * len(OVAL)
    assert MODEL.mean_hu.shape == (n, 3)
    assert MODEL.expression_hu.shape == (52, n, 3)
    assert MODEL.rigidity.shape == (n,)
    assert MODEL.uv.shape == (n, 2)
    assert MODEL.fit_weight.shape == MODEL.mirror.shape == (LANDMARK_COUNT,)
    assert MODEL.part.shape == (len(MODEL.triangles),)
    assert MODEL.triangles.min() >= 0
    assert MODEL.triangles.max() < n
    assert set(np.unique(MODEL.part)) == {Part.SKIN, Part.EYE, Part.MOUTH, Part.SHELL}
    for array in (MODEL.mean_hu, MODEL.expression_hu, MODEL.rigidity, MODEL.uv, MODEL.fit_weight):
        assert np.isfinite(array).all()


def test_the_atlas_is_inside_the_texture_and_no_triangle_is_empty() -> None:
    assert MODEL.uv.min() >= 0
    assert MODEL.uv.max() <= 1
    a, b, c = (MODEL.uv[MODEL.triangles[:, k]].astype(np.float64) for k in range(3))
    twice_area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert np.abs(twice_area[MODEL.part != Part.MOUTH]).min() > 1e-7


def test_the_head_is_rigid_and_the_outer_ring_stays() -> None:
    rings = MODEL.rigidity[LANDMARK_COUNT:].reshape(-1, len(OVAL))
    assert (MODEL.rigidity[:LANDMARK_COUNT] == 1).all()
    assert (np.diff(rings, axis=0) <= 0).all()
    assert (rings[-1] == 0).all()


def test_the_mirror_map_is_an_involution_and_the_mean_is_symmetric() -> None:
    assert (MODEL.mirror[MODEL.mirror] == np.arange(LANDMARK_COUNT)).all()
    mean = MODEL.mean_hu[:LANDMARK_COUNT]
    assert np.allclose(mean[MODEL.mirror] * MIRROR_X, mean, atol=1e-5)
    for right, left in ((EYE_RIGHT, EYE_LEFT), (LIDS_RIGHT, LIDS_LEFT), (CORNERS_RIGHT, CORNERS_LEFT)):
        assert MODEL.mirror[list(right)].tolist() == list(left)


@pytest.mark.parametrize("name", ARKIT_NAMES)
def test_each_expression_mirrors_into_its_other_side(name: str) -> None:
    other = (
        name[:-4] + "Right"
        if name.endswith("Left")
        else name[:-5] + "Left"
        if name.endswith("Right")
        else name
    )
    if name in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):
        assert other in ("jawLeft", "jawRight", "mouthLeft", "mouthRight")
    own = MODEL.expression_hu[ARKIT_INDEX[name], :LANDMARK_COUNT]
    mirrored = MODEL.expression_hu[ARKIT_INDEX[other], :LANDMARK_COUNT][MODEL.mirror] * MIRROR_X
    assert np.allclose(own, mirrored, atol=1e-3)


def test_right_is_the_subjects_right_at_the_pictures_left() -> None:
    assert MODEL.mean_hu[list(EYE_RIGHT), 0].max() < 0 < MODEL.mean_hu[list(EYE_LEFT), 0].min()
    assert MODEL.mean_hu[list(EYE_LEFT), 1].mean() < MODEL.mean_hu[list(LIPS_OUTER), 1].mean()


def test_blinks_close_the_lids() -> None:
    rest, shut = face(), face(eyeBlinkLeft=1, eyeBlinkRight=1)
    for lids, corners in ((LIDS_LEFT, CORNERS_LEFT), (LIDS_RIGHT, CORNERS_RIGHT)):
        assert lid_gap(rest, lids, corners) > 0.35
        assert lid_gap(shut, lids, corners) < 0.08
    assert abs(lip_gap(shut) - lip_gap(rest)) < 0.02


def test_one_eye_can_blink() -> None:
    wink = face(eyeBlinkLeft=1)
    left, right = lid_gap(wink, LIDS_LEFT, CORNERS_LEFT), lid_gap(wink, LIDS_RIGHT, CORNERS_RIGHT)
    assert left < 0.5 * lid_gap(face(), LIDS_LEFT, CORNERS_LEFT)
    assert right > 1.8 * left


def test_the_jaw_opens_the_mouth_and_leaves_the_eyes() -> None:
    gaps = [lip_gap(face(jawOpen=v)) for v in (0, 0.25, 0.5, 0.75, 1)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > gaps[0] + 0.25  # 2.5 cm
    assert lid_gap(face(jawOpen=1), LIDS_LEFT, CORNERS_LEFT) == pytest.approx(
        lid_gap(face(), LIDS_LEFT, CORNERS_LEFT), rel=0.1
    )


def test_an_open_jaw_with_closed_mouth_has_closed_lips() -> None:
    assert lip_gap(face(jawOpen=1, mouthClose=1)) < 0.05


def test_smiles_pull_the_corners_outwards_and_up() -> None:
    moved = face(mouthSmileLeft=1, mouthSmileRight=1) - face()
    assert moved[308, 0] > 0.02 > -0.02 > moved[78, 0]  # the inner corners, left and right
    assert moved[[78, 308], 1].max() < -0.02


seeds = st.integers(0, 2**32 - 1)


@given(seeds)
def test_no_expression_makes_lids_or_lips_cross(seed: int) -> None:
    beta = np.random.default_rng(seed).uniform(-0.5, 1.5, EXPRESSION_COUNT).astype(np.float32)
    shape = MODEL.decode(MODEL.mean_hu, beta)
    for upper, lower in MEETING:
        assert shape[upper, 1] <= shape[lower, 1] + 1e-5


@given(seeds)
def test_keeping_apart_is_idempotent_and_touches_only_what_crossed(seed: int) -> None:
    shape = (MODEL.mean_hu + np.random.default_rng(seed).normal(size=MODEL.mean_hu.shape) * 0.03).astype(
        np.float32
    )
    once = keep_apart(shape.copy())
    assert np.allclose(keep_apart(once.copy()), once, atol=1e-6)
    moved = set(np.flatnonzero((once != shape).any(1)).tolist())
    crossed = [(u, v) for u, v in MEETING if shape[u, 1] > shape[v, 1]]
    assert moved == {i for pair in crossed for i in pair}
    for u, v in crossed:
        assert once[u, 1] == pytest.approx(once[v, 1], abs=1e-6)
        assert once[u, 1] + once[v, 1] == pytest.approx(shape[u, 1] + shape[v, 1], abs=1e-5)


def test_decoding_changes_neither_the_neutral_nor_the_mean() -> None:
    neutral = MODEL.mean_hu.copy()
    MODEL.decode(neutral, np.full(EXPRESSION_COUNT, 1.5, np.float32))
    assert (neutral == MODEL.mean_hu).all()
    assert np.allclose(face(), MODEL.mean_hu)


def test_gain_scales_the_displacement() -> None:
    beta = expression(jawOpen=0.5)
    doubled = MODEL.decode(MODEL.mean_hu, beta, np.full((MODEL.vertex_count, 1), 2, np.float32))
    assert np.allclose(doubled, MODEL.decode(MODEL.mean_hu, beta * 2), atol=1e-6)


def test_the_shell_of_the_mean_is_the_means() -> None:
    assert np.allclose(MODEL.extend_to_shell(MODEL.mean_hu[:LANDMARK_COUNT]), MODEL.mean_hu, atol=1e-6)


@given(st.floats(0.7, 1.4), seeds)
def test_the_shell_follows_size_and_place_of_a_face(scale: float, seed: int) -> None:
    shift = np.random.default_rng(seed).normal(size=3).astype(np.float32)
    own = (MODEL.mean_hu[:LANDMARK_COUNT] * scale + shift).astype(np.float32)
    extended = MODEL.extend_to_shell(own)
    assert (extended[:LANDMARK_COUNT] == own).all()
    assert np.allclose(extended, MODEL.mean_hu * scale + shift, atol=1e-4)


def test_contours_are_landmarks() -> None:
    for contour in (OVAL, EYE_RIGHT, EYE_LEFT, LIPS_INNER, LIPS_OUTER):
        assert len(set(contour)) == len(contour)
        assert max(contour) < 468


def test_files_that_are_no_face_model_are_named(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"x": np.zeros(1, np.float32)}, path)
    with pytest.raises(ValueError, match="not a visavis face model"):
        load_face_model(path)
    save_file(
        {"uv": np.zeros((1, 2), np.float32)}, path, metadata={"visavis": '{"format":"visavis-face-model"}'}
    )
    with pytest.raises(ValueError, match="lacks expression_hu, fit_weight"):
        load_face_model(path)
