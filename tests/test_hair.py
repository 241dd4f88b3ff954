"""Hair: the scalp grows out to the matte's edge, the face stays, and no background means no guess."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.hair import REACH_HU, inflate_hair, scalp_weight
from engines.enrollment import Enrollment
from engines.geometry import Camera, Similarity, rotation_from_degrees
from engines.head.landmark_names import LIPS_OUTER, OVAL
from engines.head.model import Part, load_head_model
from engines.raster.gbuffer import HeadMesh, Viewport, rasterise
from engines.raster.pose import photo_viewport, pose_head, pose_in_viewport

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
MODEL = load_head_model()
SIDE = 400
VIEW = Viewport(0, 0, 1, SIDE, SIDE)


def pose(yaw: float = 0) -> Similarity:
    return Camera(SIDE, SIDE).to_similarity(rotation_from_degrees(yaw, 0, 0), np.array([0, 0.1, 7.5]))


def silhouette(shape: F32, at: Similarity) -> U8:
    """(SIDE, SIDE) 0 or 1: what the head covers."""
    mesh = HeadMesh(at.apply(shape).astype(np.float32), at)
    return (rasterise(MODEL, mesh, VIEW, SIDE).part > 0).astype(np.uint8)


def matte_of(reach_px: int, at: Similarity) -> U8:
    """The mean head's own matte with hair of `reach_px` all around."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach_px + 1,) * 2)
    return np.asarray(cv2.dilate(silhouette(MODEL.mean_hu, at) * np.uint8(255), kernel), np.uint8)


def test_hair_grows_on_the_skull_and_not_in_the_face() -> None:
    weight = scalp_weight(MODEL)
    assert weight.shape == (MODEL.vertex_count,)
    assert weight.min() == 0
    assert weight.max() == 1
    marks = MODEL.landmark_vertices
    assert weight[marks[list(LIPS_OUTER)]].max() == 0
    assert weight[marks[[4, 152, 468, 473]]].max() == 0
    assert weight[marks[:468]].max() < 0.6
    crown = MODEL.mean_hu[:, 1] < MODEL.landmarks(MODEL.mean_hu)[10, 1] - 0.35
    assert weight[crown].min() > 0.95
    for part in (Part.EYE, Part.TEETH, Part.TONGUE):
        assert weight[np.unique(MODEL.triangles[MODEL.part == part])].max() == 0
    assert weight[MODEL.rigidity < 0.9].max() == 0  # the neck


def test_scalp_is_one_across_seams() -> None:
    weight = scalp_weight(MODEL)
    assert np.abs(weight - weight[MODEL.weld]).max() < 1e-3


@pytest.mark.parametrize("yaw", [0, 20])
@pytest.mark.parametrize("reach_px", [10, 25])
def test_the_head_grows_out_to_the_matte(yaw: float, reach_px: int) -> None:
    at = pose(yaw)
    matte = matte_of(reach_px, at)
    grown = inflate_hair(MODEL, MODEL.mean_hu, at, matte)
    assert grown.shape == MODEL.mean_hu.shape
    before, after = (silhouette(s, at) for s in (MODEL.mean_hu, MODEL.mean_hu + grown))
    above = slice(0, int(at.apply(MODEL.landmarks(MODEL.mean_hu)[[10]])[0, 1]))  # what lies over the forehead
    wanted = matte[above] > 128
    ratio = [float((s[above] & wanted).sum() / wanted.sum()) for s in (before, after)]
    assert ratio[0] < 0.93
    assert ratio[1] > 0.97
    # and hardly beyond
    margin = cv2.dilate(matte, np.ones((9, 9), np.uint8))
    assert (after[above] & (margin[above] < 128)).sum() < 0.01 * wanted.sum()


def test_the_face_the_eyes_and_the_neck_stay() -> None:
    grown = np.linalg.norm(inflate_hair(MODEL, MODEL.mean_hu, pose(), matte_of(25, pose())), axis=1)
    assert grown.max() > 0.1
    assert grown[MODEL.eye_side > 0].max() == 0
    assert grown[MODEL.rigidity < 0.9].max() == 0
    inner = np.setdiff1d(np.arange(468), OVAL)
    assert np.percentile(grown[MODEL.landmark_vertices[inner]], 99) < 0.01
    assert grown.max() <= REACH_HU + 0.05


def test_more_hair_more_reach() -> None:
    crown = np.argmin(MODEL.mean_hu[:, 1])
    sizes = [
        np.linalg.norm(inflate_hair(MODEL, MODEL.mean_hu, pose(), matte_of(r, pose()))[crown])
        for r in (4, 12, 24)
    ]
    assert sizes[0] < sizes[1] < sizes[2]


def test_hair_is_no_spikes() -> None:
    """Neighbours move alike, though the matte's edge is ragged."""
    matte = matte_of(14, pose())
    rough = cv2.resize(np.random.default_rng(0).integers(0, 2, (50, 50)).astype(np.uint8), (SIDE, SIDE)) * 12
    ragged = np.where(cv2.dilate(matte, np.ones((13, 13), np.uint8)) > 0, matte + rough * 20, matte).astype(
        np.uint8
    )
    grown = np.linalg.norm(inflate_hair(MODEL, MODEL.mean_hu, pose(), ragged), axis=1)
    skull = scalp_weight(MODEL) > 0.95
    edges = np.concatenate([MODEL.triangles[:, k] for k in ([0, 1], [1, 2], [2, 0])])
    edges = edges[skull[edges].all(1)]
    length = np.linalg.norm(np.diff(MODEL.mean_hu[edges], axis=1)[:, 0], axis=-1)
    assert np.percentile(np.abs(np.diff(grown[edges], axis=1))[:, 0] / np.maximum(length, 0.02), 99) < 3


@pytest.mark.parametrize("matte", [255, 200])
def test_without_a_background_there_is_no_telling(matte: int) -> None:
    everywhere = np.full((SIDE, SIDE), matte, np.uint8)
    assert (inflate_hair(MODEL, MODEL.mean_hu, pose(), everywhere) == 0).all()


def test_without_a_person_nothing_grows() -> None:
    nobody = np.zeros((SIDE, SIDE), np.uint8)
    assert np.abs(inflate_hair(MODEL, MODEL.mean_hu, pose(), nobody)).max() < 0.02


def test_a_head_out_of_the_picture_grows_nothing() -> None:
    away = Similarity(80.0, np.eye(3), np.array([5000.0, -5000.0, 0.0]))
    assert np.abs(inflate_hair(MODEL, MODEL.mean_hu, away, matte_of(14, pose()))).max() < 0.02


def test_inputs_stay_as_they_are() -> None:
    shape, matte = MODEL.mean_hu.copy(), matte_of(14, pose())
    before = matte.copy()
    inflate_hair(MODEL, shape, pose(), matte)
    assert (shape == MODEL.mean_hu).all()
    assert (matte == before).all()


def test_her_hair_is_on_her_head(astronaut: Enrollment) -> None:
    """The enrolled head covers the hair down to the mouth, which the bare model does not."""
    view = photo_viewport(astronaut)
    mesh = pose_head(MODEL, astronaut, astronaut.motion, view)
    at = pose_in_viewport(astronaut, astronaut.motion, view)
    bare = HeadMesh(at.apply(MODEL.shape(astronaut.identity)).astype(np.float32), at)
    above = slice(0, int(astronaut.landmarks_px[13, 1]))
    person = astronaut.matte[above] > 128
    person[:, :130] = person[:, 330:] = False
    covered = [(rasterise(MODEL, m, view, 512).part > 0)[above] & person for m in (bare, mesh)]
    shares = [float(c.sum() / person.sum()) for c in covered]
    assert shares[0] < 0.9
    assert shares[1] > 0.95
