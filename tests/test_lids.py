"""A falling upper lid is skin without lashes, soft at its fold, dark along its edge, whichever way a head is turned."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from test_generator import moved

from engines.enrollment import Enrollment
from engines.generators.geometric.eyes import (
    EYES,
    LID_SKIN,
    EyePlate,
    FallingLid,
    eye_patches,
    falling_lid,
    make_eyes,
)
from engines.geometry import Similarity
from engines.head.model import load_head_model
from engines.picture.composite import still_person
from engines.raster.gbuffer import HeadMesh
from engines.raster.pose import head_viewport, pose_head

U8 = NDArray[np.uint8]
MODEL = load_head_model()
SIDE_PX = 512


@pytest.fixture(scope="module")
def photo(astronaut: Enrollment) -> tuple[U8, HeadMesh]:
    viewport = head_viewport(astronaut, SIDE_PX)
    return still_person(astronaut, viewport), pose_head(MODEL, astronaut, astronaut.motion, viewport)


@pytest.fixture(scope="module")
def plates(photo: tuple[U8, HeadMesh]) -> tuple[EyePlate, EyePlate]:
    canvas, mesh = photo
    return make_eyes(canvas, mesh.landmarks_px[:, :2])


def blinking(e: Enrollment, blink: float) -> HeadMesh:
    motion = moved(e.motion, eyeBlinkLeft=blink, eyeBlinkRight=blink)
    return pose_head(MODEL, e, motion, head_viewport(e, SIDE_PX))


def lid_of(plate: EyePlate, k: int, mesh: HeadMesh, photo_pose: Similarity) -> FallingLid | None:
    points = mesh.landmarks_px[:, :2].astype(np.float64)
    rings = [points[list(ring)] for ring in LID_SKIN[k]]
    contour, corners, _ = EYES[k]
    outline, at = points[list(contour)], points[list(corners)]
    return falling_lid(plate, rings, outline, at, photo_pose, mesh.pose, (SIDE_PX, SIDE_PX))


@pytest.mark.slow
@pytest.mark.parametrize("k", [0, 1])
def test_a_closed_lid_is_skin(
    astronaut: Enrollment, photo: tuple[U8, HeadMesh], plates: tuple[EyePlate, EyePlate], k: int
) -> None:
    """As smooth and as bright as the skin above it; what lay there, stretched, would be neither."""
    canvas, mesh = photo
    lid = lid_of(plates[k], k, blinking(astronaut, 1.0), mesh.pose)
    assert lid is not None
    drawn = np.ascontiguousarray(canvas[..., :3])
    closed = blinking(astronaut, 1.0)
    nowhere = np.zeros((2, 2), np.float32)
    for patch in eye_patches(plates, closed, mesh.pose, nowhere, (SIDE_PX, SIDE_PX))[k]:
        patch.over(drawn)
    x0, y0, x1, y1 = lid.box
    whole = (lid.mask > 0.98)[..., 0] & (lid.line < 0.02)[..., 0]
    assert whole.sum() > 40
    around = mesh.landmarks_px[[*LID_SKIN[k][1][2:7], *LID_SKIN[k][2][2:7]], :2].round().astype(int)
    skin = canvas[around[:, 1], around[:, 0], :3].mean(0)
    covered = drawn[y0:y1, x0:x1].astype(np.float32)
    assert np.abs(covered[whole].mean(0) - skin).max() < 30
    across = np.abs(np.diff(covered, axis=1)).max(2)[whole[:, 1:] & whole[:, :-1]]
    assert across.max() < 6
    # the eye was there before
    assert np.abs(canvas[y0:y1, x0:x1, :3].astype(int) - covered)[whole].max() > 40


@pytest.mark.slow
def test_a_lid_is_soft_at_its_fold_and_ends_in_the_corners(
    astronaut: Enrollment, photo: tuple[U8, HeadMesh], plates: tuple[EyePlate, EyePlate]
) -> None:
    mesh = blinking(astronaut, 0.9)
    lid = lid_of(plates[0], 0, mesh, photo[1].pose)
    assert lid is not None
    mask = lid.mask[..., 0]
    assert mask.max() > 0.99
    steps = np.abs(np.diff(mask, axis=1))
    assert steps.max() < 0.75
    height = (mask > 0.5).sum(0)
    ends = np.flatnonzero(height)
    assert height[ends[0]] <= height.max() / 2
    assert height[ends[-1]] <= height.max() / 2
    middle = mask[:, height.argmax()]
    assert np.diff(middle).max() < 0.4  # from the fold down; the edge may be sharp
    assert lid.line.max() > 0.3


@pytest.mark.slow
def test_a_lid_falls_by_degrees_from_the_photos_own_opening(
    astronaut: Enrollment, photo: tuple[U8, HeadMesh], plates: tuple[EyePlate, EyePlate]
) -> None:
    assert lid_of(plates[0], 0, photo[1], photo[1].pose) is None
    most = [0.0]
    for blink in np.linspace(0.2, 0.9, 29):
        lid = lid_of(plates[0], 0, blinking(astronaut, float(blink)), photo[1].pose)
        most.append(0.0 if lid is None else float(lid.mask.max()))
    assert most[-1] > 0.99
    assert max(np.diff(most)) < 0.2
    assert min(np.diff(most)) > -0.02


@pytest.mark.slow
def test_a_head_that_lies_on_its_side_has_the_same_lids(
    astronaut: Enrollment, photo: tuple[U8, HeadMesh], plates: tuple[EyePlate, EyePlate]
) -> None:
    mesh = blinking(astronaut, 0.9)
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]], np.float64)
    middle = np.array([SIDE_PX / 2, SIDE_PX / 2, 0])
    pose = replace(
        mesh.pose,
        rotation=quarter @ mesh.pose.rotation,
        shift=(mesh.pose.shift - middle) @ quarter.T + middle,
    )
    lying = HeadMesh(
        ((mesh.vertices_px - middle) @ quarter.T + middle).astype(np.float32),
        pose,
        ((mesh.landmarks_px - middle) @ quarter.T + middle).astype(np.float32),
    )
    upright, turned = (lid_of(plates[0], 0, m, photo[1].pose) for m in (mesh, lying))
    assert upright is not None
    assert turned is not None
    assert turned.mask.sum() == pytest.approx(upright.mask.sum(), rel=0.05)

    def shown(lid: FallingLid) -> NDArray[np.float32]:
        x0, y0, x1, y1 = lid.box
        skin = cv2.warpAffine(
            plates[0].lid, lid.affine, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        return np.asarray(skin[lid.mask[..., 0] > 0.9].mean(0), np.float32)

    assert np.abs(shown(turned) - shown(upright)).max() < 3
