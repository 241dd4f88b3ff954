"""Hair is told from skin and clothes, hangs from the head beside the neck, and is made ready to turn."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.hair import curtain_weight, drape_hair, inflate_hair
from calibration.hair_mask import hair_mask
from engines.geometry import Camera, Similarity
from engines.head.landmark_names import OVAL
from engines.head.model import Part, load_head_model
from engines.raster.gbuffer import HeadMesh, Viewport, rasterise

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
MODEL = load_head_model()
SIDE = 400
SKIN, BROWN, BLUE, GREY = (205, 160, 135), (60, 40, 28), (40, 60, 150), (190, 190, 190)


@dataclass(frozen=True)
class Painted:
    """A head painted from the model: `photo`, `matte`, where `hair` was painted, `pose`."""

    photo: U8
    matte: U8
    hair: NDArray[np.bool_]
    pose: Similarity


def painted(length_hu: float, hair_rgb: tuple[int, int, int] = BROWN) -> Painted:
    """Hair that reaches `length_hu` below the model's middle, 0.45 wide on either side; a blue shirt."""
    at = Camera(SIDE, SIDE).to_similarity(np.zeros(3), np.array([0, 0.1, 9.0]))
    points = at.apply(MODEL.mean_hu).astype(np.float32)
    head = rasterise(MODEL, HeadMesh(points, at), Viewport(0, 0, 1, SIDE, SIDE), SIDE).part > 0
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    middle, low = at.apply(np.zeros((1, 3)))[0, :2], at.apply(np.array([[0.0, length_hu, 0.0]]))[0, 1]
    crown = points[:, 1].min() - 0.15 * at.scale
    wide = (np.abs(x - middle[0]) < 1.2 * at.scale) & (y > crown) & (y < low)
    oval = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(oval, [np.rint(MODEL.landmarks(points)[list(OVAL), :2]).astype(np.int32)], 1)
    throat = head & (y > middle[1]) & (np.abs(x - middle[0]) < 0.45 * at.scale)
    hair = wide & (oval == 0) & ~throat
    shirt = y > at.apply(np.array([[0.0, 1.2, 0.0]]))[0, 1]
    photo = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    photo[shirt], photo[head], photo[hair] = BLUE, SKIN, hair_rgb
    noise = np.random.default_rng(0).integers(-9, 10, photo.shape)
    matte = (head | hair | shirt).astype(np.uint8) * np.uint8(255)
    return Painted(np.clip(photo + noise, 0, 255).astype(np.uint8), matte, hair, at)


def mask_of(face: Painted) -> U8:
    return hair_mask(MODEL, face.photo, face.matte, (0.0, 0.0, float(SIDE)), MODEL.mean_hu, face.pose)


def test_hair_is_told_from_skin_and_shirt() -> None:
    face = painted(1.0)
    found = mask_of(face)
    assert found.dtype == np.uint8
    assert found.shape == face.matte.shape
    both = ((found > 128) & face.hair).sum()
    assert both > 0.9 * face.hair.sum()
    assert both > 0.9 * (found > 128).sum()


def test_a_bald_head_has_none() -> None:
    assert mask_of(painted(1.0, SKIN)).max() == 0


def test_nobody_has_none() -> None:
    face = painted(1.0)
    nobody = np.zeros_like(face.matte)
    out = hair_mask(MODEL, face.photo, nobody, (0.0, 0.0, float(SIDE)), MODEL.mean_hu, face.pose)
    assert out.max() == 0


def test_the_mask_is_the_same_every_time() -> None:
    face = painted(1.0)
    assert (mask_of(face) == mask_of(face)).all()


def covered(shape: F32, face: Painted) -> NDArray[np.bool_]:
    mesh = HeadMesh(face.pose.apply(shape).astype(np.float32), face.pose)
    return rasterise(MODEL, mesh, Viewport(0, 0, 1, SIDE, SIDE), SIDE).part > 0


def test_long_hair_hangs_from_the_head() -> None:
    """Beside the neck the mesh covers the hair that it leaves to the body when it is not told of it."""
    face = painted(0.9)
    beside = face.hair & (np.mgrid[0:SIDE, 0:SIDE][0] > face.pose.apply(np.array([[0.0, 0.4, 0.0]]))[0, 1])
    shares = [
        float(
            covered(MODEL.mean_hu + inflate_hair(MODEL, MODEL.mean_hu, face.pose, face.matte, hair), face)[
                beside
            ].mean()
        )
        for hair in (None, face.hair.astype(np.uint8) * np.uint8(255))
    ]
    assert shares[0] < 0.3
    assert shares[1] > 0.7


def test_a_face_stays_under_long_hair() -> None:
    face = painted(0.9)
    hair = face.hair.astype(np.uint8) * np.uint8(255)
    moved = inflate_hair(MODEL, MODEL.mean_hu, face.pose, face.matte, hair)
    assert np.abs(MODEL.landmarks(MODEL.mean_hu + moved) - MODEL.landmarks(MODEL.mean_hu))[:468].max() < 1e-4


def test_no_hair_hangs_from_face_or_throat() -> None:
    weight = curtain_weight(MODEL)
    assert 0 == weight.min() < weight.max() == 1
    assert weight[MODEL.landmark_vertices[[4, 152, 50, 280]]].max() == 0
    throat = (MODEL.mean_hu[:, 2] < 0.1) & (np.abs(MODEL.mean_hu[:, 0]) < 0.2)
    assert weight[throat].max() == 0


@pytest.mark.parametrize("length_hu", [0.0, 0.9])
def test_what_is_draped_stays_in_the_picture_and_lies_less_deep(length_hu: float) -> None:
    face = painted(length_hu)
    hair = face.hair.astype(np.uint8) * np.uint8(255)
    grown = MODEL.mean_hu + inflate_hair(MODEL, MODEL.mean_hu, face.pose, face.matte, hair)
    draped = drape_hair(MODEL, grown, MODEL.mean_hu, face.pose)
    before, after = face.pose.apply(grown), face.pose.apply(draped)
    assert np.abs((after - before)[:, :2]).max() < 1e-3  # pixels
    skin = np.unique(MODEL.triangles[MODEL.part == Part.SKIN])
    marks = MODEL.landmark_vertices[:468].ravel()
    assert np.abs((after - before)[marks, 2]).max() < 0.15 * face.pose.scale
    deep = [float(np.ptp(shape[skin, 2])) for shape in (before, after)]
    assert deep[1] < 0.75 * deep[0]
    # nothing but skin is moved: eyes, teeth and tongue stay
    others = np.setdiff1d(np.arange(MODEL.vertex_count), skin)
    assert np.abs((after - before)[others]).max() < 1e-3


def test_draping_leaves_its_inputs() -> None:
    shape = MODEL.mean_hu.copy()
    drape_hair(MODEL, shape, shape, painted(0.9).pose)
    assert (shape == MODEL.mean_hu).all()
