"""Glasses: told from a photo, and held on the skull while lids and brows move."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray
from safetensors.numpy import save_file
from test_generator import moved

from calibration.enroll import enroll
from calibration.face import find_face
from calibration.glasses import (
    COUNT,
    FORMAT,
    GLASSES_PATH,
    LEAST_SCORE,
    STRIP_PX,
    VERSION,
    Classifier,
    classifier_bytes,
    eye_strip,
    gradients,
    load_classifier,
    wears_glasses,
)
from calibration.photo import open_photo
from engines.enrollment import Enrollment, load_enrollment, save_enrollment
from engines.errors import ModelError
from engines.head.glasses import covered, hold_glasses
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LIDS_RIGHT
from engines.head.model import load_head_model
from engines.raster.pose import decode_head
from scripts.build_glasses import Example, learn, told_rightly, views

F32 = NDArray[np.float32]
MODEL = load_head_model()
BROWS = [105, 66, 334, 296]


@pytest.fixture(scope="module")
def admiral_photo() -> Path:
    """Rear Admiral Grace Hopper, who wears glasses; US Navy, public domain."""
    return Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))


# --- told from a photo ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_glasses_are_told(astronaut_photo: Path, admiral_photo: Path, tmp_path: Path) -> None:
    person = enroll(admiral_photo)
    assert person.glasses
    assert not enroll(astronaut_photo).glasses
    path = tmp_path / "a.avatar"
    save_enrollment(person, path)
    assert load_enrollment(path).glasses
    save_enrollment(replace(person, glasses=False), path)
    assert not load_enrollment(path).glasses


def test_a_strip_has_the_eyes_where_it_always_has_them() -> None:
    """Of a face of any size and tilt, near the picture's edge too."""
    for middle, apart, tilt in (((300, 200), 100, 0.0), ((300, 200), 400, 0.3), ((40, 30), 60, -0.2)):
        photo = np.zeros((500, 700, 3), np.uint8)
        points = np.zeros((478, 3), np.float32)
        along = np.array([np.cos(tilt), np.sin(tilt)]) * apart / 2
        for ring, at, colour in ((EYE_RIGHT, middle - along, 0), (EYE_LEFT, middle + along, 1)):
            points[list(ring), :2] = at
            y, x = np.mgrid[0:500, 0:700] + 0.5
            photo[np.hypot(x - at[0], y - at[1]) < apart / 8, colour] = 255
        strip = eye_strip(photo, points)
        assert strip.shape == (STRIP_PX[1], STRIP_PX[0], 3)
        for colour, x in ((0, 38), (1, 122)):
            seen = strip[..., colour].astype(float)
            if seen.sum() == 0:
                continue  # beyond the picture
            rows, columns = seen.sum(1), seen.sum(0)
            assert abs(float(rows @ np.arange(80)) / seen.sum() - 34) < 2.5
            assert abs(float(columns @ np.arange(160)) / seen.sum() - x) < 2.5


def test_a_mirrored_face_wears_what_it_wore(admiral_photo: Path) -> None:
    found = find_face(open_photo(admiral_photo).image)
    strip = eye_strip(found.image, found.face.points_px)
    ours = load_classifier()
    assert ours.score(strip) > LEAST_SCORE
    assert ours.score(np.ascontiguousarray(strip[:, ::-1])) == pytest.approx(ours.score(strip), abs=1e-3)
    assert wears_glasses(found.image, found.face.points_px)


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        (None, None),
        ({"weights": np.zeros(COUNT, np.float16)}, {"format": FORMAT, "version": VERSION}),
        ({"weights": np.zeros(9, np.float16), "bias": np.zeros(1, np.float32)}, {"format": FORMAT, "version": VERSION}),
        (
            {"weights": np.full(COUNT, np.nan, np.float16), "bias": np.zeros(1, np.float32)},
            {"format": FORMAT, "version": VERSION},
        ),
        ({"weights": np.zeros(COUNT, np.float16), "bias": np.zeros(1, np.float32)}, {"format": FORMAT, "version": "9"}),
    ],
)  # fmt: skip
def test_a_broken_classifier_is_told(
    tensors: dict[str, NDArray[np.generic]] | None, metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    path = tmp_path / "glasses.safetensors"
    if tensors is None:
        path.write_bytes(GLASSES_PATH.read_bytes()[:200])
    else:
        save_file(tensors, path, metadata)
    with pytest.raises(ModelError, match="build_glasses"):
        load_classifier(path)


def test_a_classifier_is_learned_and_kept(tmp_path: Path) -> None:
    """Strips with a bright bar over the eyes, and without."""
    random = np.random.default_rng(0)
    examples: list[Example] = []
    for k in range(24):
        strip = random.integers(60, 120, (80, 160, 3), np.uint8)
        if k % 3 == 0:
            strip[20:24, 10:150] = 230
        examples.append(Example(str(k), str(k), strip, k % 3 == 0))
    seen = [np.stack(list(views(e.strip))) for e in examples]
    assert all(s.shape == (14, COUNT) for s in seen)
    assert np.array_equal(seen[0][0], gradients(examples[0].strip))
    worn = np.concatenate([np.full(14, e.glasses) for e in examples[6:]])
    found = learn(np.concatenate(seen[6:]), worn)
    path = tmp_path / "glasses.safetensors"
    path.write_bytes(classifier_bytes(found))
    again = load_classifier(path)
    scores = np.array([again.score(e.strip) for e in examples[:6]], np.float32)
    assert told_rightly(examples[:6], scores) == "2 of 2 with glasses, 4 of 4 without"
    none = Classifier(np.zeros(COUNT, np.float32), -1)
    scores = np.array([none.score(e.strip) for e in examples[:6]], np.float32)
    assert told_rightly(examples[:6], scores) == "0 of 2 with glasses, 4 of 4 without"


# --- held on the skull -----------------------------------------------------------------------------------


def at(share: F32, landmarks: list[int]) -> F32:
    """Of values (N,) or (N, 3) at landmarks."""
    weights = MODEL.landmark_weights[landmarks]
    values = share[MODEL.landmark_vertices[landmarks]]
    return (values * weights.reshape(*weights.shape, *[1] * (values.ndim - 2))).sum(1)


def test_glasses_cover_the_eyes_and_the_bridge() -> None:
    share = covered(MODEL)
    assert (at(share, [*EYE_RIGHT, *EYE_LEFT, 168, 6]) > 0.99).all()
    assert (at(share, [10, 152, 13, 61, 291]) == 0).all()  # forehead, chin, mouth
    assert (at(share, [50, 280, 4]) < 0.25).all()  # cheeks, tip of the nose
    behind = MODEL.mean_hu[:, 2] > 0.6
    assert behind.any()
    assert (share[behind] == 0).all()


def test_nothing_but_lids_moves_behind_them(astronaut: Enrollment) -> None:
    with_them = replace(astronaut, glasses=True)
    rest = decode_head(MODEL, astronaut, astronaut.motion)
    assert np.array_equal(decode_head(MODEL, with_them, astronaut.motion), rest)
    raised = moved(astronaut.motion, browInnerUp=1, browOuterUpLeft=1, browOuterUpRight=1, cheekSquintLeft=1)
    bare, held = (decode_head(MODEL, person, raised) for person in (astronaut, with_them))
    whole = covered(MODEL) > 0.999
    assert np.abs(bare - rest)[whole].max() > 0.05
    assert np.abs(held - rest)[whole].max() < 1e-4
    # above the frame brows rise, by less; nothing changes where no frame is
    rise = [float(at(rest - shape, BROWS)[:, 1].mean()) for shape in (held, bare)]
    assert 0 <= rise[0] < rise[1]
    none = covered(MODEL) == 0
    assert np.array_equal(held[none], bare[none])
    blinking = moved(astronaut.motion, eyeBlinkLeft=1, eyeBlinkRight=1)
    gap = [
        float(np.ptp(at(decode_head(MODEL, with_them, m), list(LIDS_RIGHT))[:, 1]))
        for m in (astronaut.motion, blinking)
    ]
    assert gap[1] < 0.2 * gap[0]


def test_half_a_change_is_half_taken_back() -> None:
    shape = MODEL.mean_hu.copy()
    change = np.zeros(52, np.float32)
    change[:] = 0.5
    hold_glasses(MODEL, shape, change)
    once = MODEL.mean_hu - shape
    shape = MODEL.mean_hu.copy()
    hold_glasses(MODEL, shape, 2 * change)
    assert np.abs(MODEL.mean_hu - shape - 2 * once).max() < 1e-4
    assert np.abs(once).max() > 0.01
