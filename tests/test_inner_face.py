"""The inner face of the head model, and where a scene shows it."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from posed import STRAIGHT, scene_of_heads
from test_generator import moved

from engines.head.inner_face import inner_face
from engines.head.landmark_names import OVAL, SURFACE
from engines.head.model import Part, load_head_model

MODEL = load_head_model()
INNER = inner_face(MODEL)
MIDDLE = MODEL.mean_hu[MODEL.triangles].mean(1)


def test_the_oval_encloses_all_other_landmarks() -> None:
    """A triangle that holds a landmark within the oval is the face's."""
    within = [k for k in range(SURFACE) if k not in OVAL]
    holding = {tuple(sorted(t)): n for n, t in enumerate(MODEL.triangles.tolist())}
    found = [holding.get(tuple(sorted(MODEL.landmark_vertices[k].tolist()))) for k in within]
    known = [n for n in found if n is not None]
    assert len(known) > 350
    assert INNER[known].mean() > 0.99


def test_eyes_and_mouth_are_the_faces_and_the_rest_of_the_head_is_not() -> None:
    for part in (Part.EYE, Part.SOCKET, Part.MOUTH, Part.TEETH, Part.TONGUE):
        assert INNER[MODEL.part == part].all()
    skin = MODEL.part == Part.SKIN
    oval = MODEL.landmarks(MODEL.mean_hu)[list(OVAL)]
    x, y, z = MIDDLE.T
    for outside in (
        np.abs(x) > np.abs(oval[:, 0]).max() + 0.02,  # ears
        y < oval[:, 1].min() - 0.02,  # scalp
        y > oval[:, 1].max() + 0.02,  # neck
        z > oval[:, 2].max() + 0.1,  # the back
        (np.abs(x) < 0.3) & (y > 0.6) & (z > 0.1),  # the throat
    ):
        assert (skin & outside).sum() > 50
        assert not INNER[skin & outside].any()
    assert 0.4 < INNER[skin].mean() < 0.7
    contour = oval[:, None, :2].astype(np.float32)
    within = [
        cv2.pointPolygonTest(contour, (float(a), float(b)), measureDist=False) > 0 for a, b, _ in MIDDLE
    ]
    assert not INNER[skin & ~np.array(within)].any()


def test_a_scene_shows_it_in_one_piece_also_in_a_mirror() -> None:
    scene = scene_of_heads(96, moved(STRAIGHT, yaw=20))
    mask = scene.inner_face()
    assert mask.shape == (1, 1, 96, 96)
    triangle = scene.posed.triangle[0].numpy()
    expected = (triangle >= 0) & INNER[triangle]
    assert np.array_equal(mask[0, 0].numpy(), expected.astype(np.float32))
    assert bool((mask <= scene.covered()).all())
    _, _, stats, _ = cv2.connectedComponentsWithStats(expected.astype(np.uint8))
    assert stats[1:, cv2.CC_STAT_AREA].max() > 0.98 * expected.sum()
    mirrored = scene_of_heads(96, moved(STRAIGHT, yaw=20), flip=True).inner_face()
    assert torch.equal(mirrored, mask.flip(-1))
