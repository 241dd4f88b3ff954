"""Posing: at rest the head is the photo's, its neck stays in the photo, the rest turns as one piece."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.geometry import rotation_from_degrees, rotation_matrix, rotation_vector
from engines.head.model import MEETING_LOWER, MEETING_UPPER, load_head_model
from engines.motion import ARKIT_INDEX, Motion
from engines.raster.gbuffer import Viewport
from engines.raster.pose import (
    closure_of,
    decode_head,
    head_viewport,
    photo_viewport,
    pose_head,
    pose_in_viewport,
)

F32 = NDArray[np.float32]
MODEL = load_head_model()
HEAD = MODEL.rigidity == 1
BASE = MODEL.rigidity <= np.percentile(MODEL.rigidity, 0.5)  # the lowest of the neck


def turned(source: Motion, yaw: float = 0, pitch: float = 0, roll: float = 0) -> Motion:
    turn = rotation_matrix(rotation_from_degrees(yaw, pitch, roll)) @ rotation_matrix(source.rotation_rad)
    return replace(source, rotation_rad=rotation_vector(turn).astype(np.float32))


def with_beta(source: Motion, **values: float) -> Motion:
    expression = source.expression.copy()
    for name, value in values.items():
        expression[ARKIT_INDEX[name]] = value
    return replace(source, expression=expression)


@pytest.mark.parametrize("size", [None, 96, 512])
def test_at_rest_it_is_on_the_photos_landmarks(astronaut: Enrollment, size: int | None) -> None:
    viewport = photo_viewport(astronaut) if size is None else head_viewport(astronaut, size)
    mesh = pose_head(MODEL, astronaut, astronaut.motion, viewport)
    wanted = viewport.from_photo(astronaut.landmarks_px)[:, :2]
    off = np.linalg.norm(mesh.landmarks_px[:, :2] - wanted, axis=1) / viewport.scale
    assert off[:468].max() < 0.5
    assert np.median(off[:468]) < 0.01
    assert off[468:].max() < 2.5
    assert np.allclose(mesh.landmarks_px, MODEL.landmarks(mesh.vertices_px), atol=1e-3)
    assert mesh.vertices_px.dtype == mesh.landmarks_px.dtype == np.float32


def test_a_viewport_is_a_window_of_the_photo(astronaut: Enrollment) -> None:
    motion = turned(astronaut.motion, 20, 10)
    whole = pose_head(MODEL, astronaut, motion, photo_viewport(astronaut))
    window = Viewport(30.5, -12.25, 2.5, 400, 300)
    got = pose_head(MODEL, astronaut, motion, window)
    assert np.allclose(got.vertices_px, window.from_photo(whole.vertices_px), atol=0.01)
    assert got.pose.scale == pytest.approx(2.5 * whole.pose.scale)


@given(st.floats(-40, 40), st.floats(-30, 30), st.floats(-30, 30))
@settings(max_examples=25)
def test_the_head_turns_as_one_piece(astronaut: Enrollment, yaw: float, pitch: float, roll: float) -> None:
    viewport = head_viewport(astronaut, 512)
    mesh = pose_head(MODEL, astronaut, turned(astronaut.motion, yaw, pitch, roll), viewport)
    shape = decode_head(MODEL, astronaut, astronaut.motion)
    assert np.abs(mesh.pose.invert(mesh.vertices_px)[HEAD] - shape[HEAD]).max() < 1e-4


@pytest.mark.parametrize("angles", [(40, 0, 0), (0, 25, 0), (-30, -15, 20)])
def test_the_necks_base_stays_in_the_photo(astronaut: Enrollment, angles: tuple[float, float, float]) -> None:
    viewport = head_viewport(astronaut, 512)
    rest = pose_head(MODEL, astronaut, astronaut.motion, viewport).vertices_px
    # not only turned: moved, nearer, and with every expression
    motion = replace(
        turned(astronaut.motion, *angles),
        expression=np.full(52, 0.5, np.float32),
        translation_hu=(astronaut.motion.translation_hu * 0.9 + (0.3, -0.2, 0)).astype(np.float32),
    )
    mesh = pose_head(MODEL, astronaut, motion, viewport)
    moved = np.linalg.norm(mesh.vertices_px - rest, axis=1)
    whole = mesh.pose.apply(decode_head(MODEL, astronaut, motion))  # were the neck as rigid as the head
    would = np.linalg.norm(whole - rest, axis=1)
    assert BASE.sum() > 5
    assert np.median(moved[HEAD]) > 30
    assert (moved[BASE] < 0.15 * would[BASE] + 1).all()


def test_the_neck_lies_between_the_photo_and_the_head(astronaut: Enrollment) -> None:
    """`P = (1 − r) P_photo + r S_t(V)`, with no step where the neck begins."""
    viewport = head_viewport(astronaut, 512)
    motion = turned(astronaut.motion, 30, 10)
    got = pose_head(MODEL, astronaut, motion, viewport)
    still = pose_in_viewport(astronaut, astronaut.motion, viewport).apply(astronaut.neutral_hu)
    whole = got.pose.apply(decode_head(MODEL, astronaut, motion))
    r = MODEL.rigidity[:, None]
    assert np.abs(got.vertices_px - ((1 - r) * still + r * whole))[~HEAD].max() < 0.01
    edges = np.concatenate([MODEL.triangles[:, k] for k in ([0, 1], [1, 2], [2, 0])])
    length = np.linalg.norm(MODEL.mean_hu[edges[:, 0]] - MODEL.mean_hu[edges[:, 1]], axis=1)
    steep = np.abs(np.diff(MODEL.rigidity[edges], axis=1))[:, 0] / np.maximum(length, 0.02)
    assert steep.max() < 5  # let go over a fifth of a head unit or more


def test_the_photos_framing_and_motion_say_where_the_pose_is(astronaut: Enrollment) -> None:
    pose = pose_in_viewport(astronaut, astronaut.motion, photo_viewport(astronaut))
    assert np.linalg.norm(pose.apply(np.zeros((1, 3)))[0, :2] - astronaut.landmarks_px[:, :2].mean(0)) < 40
    near = replace(astronaut.motion, translation_hu=astronaut.motion.translation_hu * np.float32(0.5))
    assert pose_in_viewport(astronaut, near, photo_viewport(astronaut)).scale == pytest.approx(2 * pose.scale)


# --- closing


def gaps(shape: F32) -> NDArray[np.floating]:
    points = MODEL.landmarks(shape)
    return points[MEETING_LOWER] - points[MEETING_UPPER]


def test_closure_is_what_was_measured_or_what_the_blink_says() -> None:
    measured = np.array([0.4, 0.3, 0.6], np.float32)
    assert np.allclose(closure_of(Motion(closure=measured)), measured)
    blink = replace(with_beta(Motion(), eyeBlinkRight=1.0), closure=measured)
    assert np.allclose(closure_of(blink), [0.4, 1, 0.6])
    half = with_beta(Motion(), eyeBlinkLeft=0.6)
    assert np.allclose(closure_of(half), 0)  # as far as β itself closes it
    rising = [closure_of(with_beta(Motion(), eyeBlinkLeft=v))[2] for v in np.linspace(0, 1.2, 25)]
    assert (np.diff(rising) >= 0).all()
    assert rising[-1] == 1


@pytest.mark.parametrize("jaw", [0.0, 0.6, 1.0])
def test_lips_that_are_measured_closed_are_closed(astronaut: Enrollment, jaw: float) -> None:
    motion = with_beta(astronaut.motion, jawOpen=jaw)
    shut = decode_head(MODEL, astronaut, replace(motion, closure=np.array([1, 0, 0], np.float32)))
    lips, lids = gaps(shut)[14:], gaps(shut)[:14]
    assert np.linalg.norm(lips, axis=1).max() < 1e-3
    assert np.abs(lids - gaps(decode_head(MODEL, astronaut, motion))[:14]).max() < 2e-3
    assert np.linalg.norm(gaps(decode_head(MODEL, astronaut, motion))[14:], axis=1).max() > 0.03


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_this_persons_skin_never_crosses(astronaut: Enrollment, seed: int) -> None:
    rng = np.random.default_rng(seed)
    motion = Motion(
        expression=rng.uniform(-0.2, 1.2, 52).astype(np.float32),
        closure=rng.uniform(0, 1, 3).astype(np.float32),
        gaze_rad=rng.uniform(-0.5, 0.5, (2, 2)).astype(np.float32),
    )
    shape = decode_head(MODEL, astronaut, motion)
    assert gaps(shape)[:, 1].min() > -1e-3
    assert np.isfinite(shape).all()


def test_decoding_changes_nothing_of_the_enrollment(astronaut: Enrollment) -> None:
    before = astronaut.neutral_hu.copy()
    motion = replace(with_beta(astronaut.motion, jawOpen=1), closure=np.ones(3, np.float32))
    first = pose_head(MODEL, astronaut, motion, head_viewport(astronaut, 64))
    first.vertices_px[:] = 0
    assert (astronaut.neutral_hu == before).all()
    assert np.ptp(pose_head(MODEL, astronaut, motion, head_viewport(astronaut, 64)).vertices_px) > 10
