"""Motions of many frames at once are those of each frame alone."""

from __future__ import annotations

import numpy as np
import pytest

from engines.geometry import Camera, align_similarity, rotation_matrix
from engines.head.fit import (
    ExpressionFit,
    fit_driver,
    measure_closure,
    measure_gaze,
    openings,
    openings_of_many,
)
from engines.head.model import load_head_model
from engines.motion import Motion
from engines.motion_descriptor import describe
from scripts.generators.motions import Track, align_many, clip_motions, motion_of, rest_openings

MODEL = load_head_model()
FIT = ExpressionFit(MODEL)
NEUTRAL = np.asarray(MODEL.landmarks(MODEL.mean_hu), np.float32)
REST = np.array([0.02, 0.3, 0.3])


@pytest.fixture(scope="module")
def track() -> Track:
    """Twelve frames of the mean head, turned, moved and expressive, with noise."""
    rng = np.random.default_rng(0)
    points, scores = [], []
    for _ in range(12):
        beta = np.clip(rng.normal(0, 0.4, 52), 0, 1).astype(np.float32)
        turn = rotation_matrix(rng.normal(0, 0.3, 3))
        shape = 90 * (NEUTRAL + FIT.offset(beta)) @ turn.T + rng.uniform(200, 300, 3)
        points.append(shape + rng.normal(0, 0.5, shape.shape))
        scores.append(np.clip(beta + rng.normal(0, 0.1, 52), 0, 1))
    seen = np.array(points, np.float32).astype(np.float64)
    return Track(np.arange(12, dtype=np.int32), seen, np.array(scores, np.float32))


def test_many_are_each_alone(track: Track) -> None:
    found, is_face = clip_motions(FIT, NEUTRAL, track, REST)
    assert is_face.all()
    for row, points, scores in zip(found, track.points_px, track.scores, strict=True):
        frame = fit_driver(FIT, NEUTRAL, points.astype(np.float32), scores)
        motion = Motion(
            expression=frame.expression,
            gaze_rad=measure_gaze(frame.unposed_hu),
            closure=measure_closure(frame.unposed_hu, REST),
        )
        assert np.allclose(row, describe(motion, frame.pose), atol=1e-4)


def test_no_face_is_told(track: Track) -> None:
    points = track.points_px.copy()
    points[3] = np.random.default_rng(1).uniform(100, 400, points[3].shape)
    _, is_face = clip_motions(FIT, NEUTRAL, Track(track.number, points, track.scores), REST)
    assert is_face.tolist() == [k != 3 for k in range(12)]


def test_a_descriptor_is_a_motion_again(track: Track) -> None:
    camera = Camera(512, 512)
    for row in clip_motions(FIT, NEUTRAL, track, REST)[0]:
        assert np.allclose(describe(*motion_of(row, camera)), row, atol=2e-3)


def test_alignments_and_openings_of_many(track: Track) -> None:
    shapes = np.repeat(NEUTRAL[None].astype(np.float64), 12, 0)
    poses = align_many(shapes, track.points_px, MODEL.fit_weight)
    for k, points in enumerate(track.points_px):
        one = align_similarity(NEUTRAL, points, MODEL.fit_weight)
        assert np.isclose(poses.scale[k], one.scale)
        assert np.allclose(poses.rotation[k], one.rotation)
        assert np.allclose(poses.shift[k], one.shift)
        assert np.allclose(poses.invert(track.points_px)[k], one.invert(points))
        assert np.allclose(openings_of_many(track.points_px)[k], openings(points))


def test_rest_is_that_of_the_calmest_quarter(track: Track) -> None:
    scores = np.ones_like(track.scores)
    scores[[2, 5, 7]] = 0
    calm = rest_openings(MODEL, Track(track.number, track.points_px, scores))
    own = [
        openings(align_similarity(NEUTRAL, p, MODEL.fit_weight).invert(p)) for p in track.points_px[[2, 5, 7]]
    ]
    assert np.allclose(calm, np.median(own, 0))
