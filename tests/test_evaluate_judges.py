"""Second opinions, and pictures without background, where the answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from test_head_models import FIELDS, write

from calibration import matte
from calibration.neutral import DriverNeutral
from engines.enrollment import Enrollment
from engines.errors import ModelError, ModelMissing
from engines.geometry import Similarity, rotation_from_degrees, rotation_matrix
from engines.head.fit import ExpressionFit
from engines.head.landmarks import FaceLandmarks, LandmarkDetector
from engines.head.model import load_head_model
from engines.motion import ARKIT_INDEX, Motion
from engines.raster.gbuffer import Viewport
from engines.raster.pose import head_viewport
from engines.raster.resample import resample
from engines.renderer import Renderer
from scripts.evaluation import metrics
from scripts.evaluation.eye import Face
from scripts.evaluation.judges import HeadJudge, RegressorJudge, open_judges
from scripts.evaluation.segment import cut_of
from scripts.evaluation.take import Shot, Take
from scripts.evaluation.truth import rest_shot

U8 = NDArray[np.uint8]
JAW_OPEN = ARKIT_INDEX["jawOpen"]
CHIN, FOREHEAD = 152, 10
NONE = np.zeros((1, 1, 3), np.uint8)


def seen(yaw_deg: float, jaw: float) -> FaceLandmarks:
    """Our own mean face turned and with an open jaw, as a perfect detector would see it at 256²."""
    model = load_head_model()
    beta = np.zeros(52, np.float32)
    beta[JAW_OPEN] = jaw
    pose = Similarity(80.0, rotation_matrix(rotation_from_degrees(yaw_deg, 0, 0)), np.array([128.0, 128, 0]))
    points = pose.apply(np.asarray(model.landmarks(model.mean_hu)) + ExpressionFit(model).offset(beta))
    return FaceLandmarks(points.astype(np.float32), beta)


@pytest.mark.slow
def test_another_head_model_reads_the_turn_and_the_jaw(tmp_path: Path) -> None:
    judges, reason = open_judges(f"bfm:{write(tmp_path, 'bfm', FIELDS['bfm']())}")
    assert reason == ""
    assert [j.name for j in judges] == ["regressor", "bfm"]
    judge = judges[1]
    assert isinstance(judge, HeadJudge)
    assert "bfm.npz" in judge.about
    look = judge.meet(NONE, seen(0, 0))
    rest, now = look(NONE, seen(0, 0)), look(NONE, seen(20, 0.5))
    # a coarse synthetic head: it agrees to a degree or so
    assert metrics.apd_deg(now.rotation_rad, rest.rotation_rad) == pytest.approx(20 / 3, abs=0.4)
    opened = now.expression - rest.expression
    # in space: the chin goes down, the forehead stays
    moved = judge.offset(opened)
    assert moved[CHIN, 1] > 0.1
    assert np.linalg.norm(moved[FOREHEAD]) < 0.2 * moved[CHIN, 1]
    assert opened[JAW_OPEN] == pytest.approx(0.5, abs=0.15)


def test_without_a_second_head_the_reason_is_given_and_a_wrong_file_is_refused(tmp_path: Path) -> None:
    judges, reason = open_judges(None)
    assert [j.name for j in judges] == ["regressor"]
    assert "--second-head" in reason
    (tmp_path / "ict.npz").write_bytes(b"no head at all")
    with pytest.raises(ModelError, match=r"ict\.npz is no ict head model"):
        open_judges(f"ict:{tmp_path / 'ict.npz'}")


@pytest.mark.slow
def test_the_regressor_sees_the_turn_in_the_pixels(astronaut: Enrollment) -> None:
    """Told the same landmarks for all, so that only the pixels can say it."""
    renderer = Renderer(astronaut, size_px=256)
    turned = replace(
        astronaut.motion,
        rotation_rad=(astronaut.motion.rotation_rad + rotation_from_degrees(15, 0, 0)).astype(np.float32),
    )
    opened = astronaut.motion.expression.copy()
    opened[JAW_OPEN] += 0.6
    jaw = replace(astronaut.motion, expression=opened)
    still, aside, wide = (renderer.render(m) for m in (astronaut.motion, turned, jaw))
    detector = LandmarkDetector(video=False)
    (face,) = detector.detect(still)
    detector.close()
    look = RegressorJudge().meet(still, face)
    rest, at_side, with_jaw = (look(picture, face) for picture in (still, aside, wide))
    assert metrics.apd_deg(at_side.rotation_rad, rest.rotation_rad) > 3
    assert with_jaw.expression[JAW_OPEN] - rest.expression[JAW_OPEN] > 0.2
    assert metrics.apd_deg(with_jaw.rotation_rad, rest.rotation_rad) < 3


def test_rest_is_the_frame_nearest_to_the_driver_s_own(astronaut: Enrollment) -> None:
    def face(yaw_deg: float, jaw: float) -> Face:
        found = seen(yaw_deg, jaw)
        return Face(
            found.points_px, np.zeros((478, 3)), found.scores, rotation_from_degrees(yaw_deg, 0, 0), 0
        )

    at_rest = Motion(
        time_s=0.0, expression=face(5, 0.2).expression,
        rotation_rad=np.asarray(rotation_from_degrees(5, 0, 0), np.float32),
        translation_hu=np.zeros(3, np.float32), gaze_rad=np.zeros((2, 2), np.float32),
    )  # fmt: skip
    faces = {1: face(5, 0.9), 2: face(6, 0.25), 3: face(40, 0.2), 4: None}
    shots = tuple(Shot(number, at_rest, 0.0, NONE) for number in faces)
    take = Take(
        "cross", "a+b", "a", astronaut, Viewport(0, 0, 1, 1, 1), NONE, np.zeros((478, 3)), shots, (),
        DriverNeutral(np.zeros((478, 3)), at_rest),
    )  # fmt: skip
    found = rest_shot(take, faces)
    assert found is not None
    assert found.number == 2
    assert rest_shot(take, dict.fromkeys(faces)) is None
    assert rest_shot(replace(take, rest=None), faces) is None


# --- without background --------------------------------------------------------------------------


def crop_of(astronaut: Enrollment) -> U8:
    return resample(astronaut.photo, head_viewport(astronaut, 192), 0, (192, 192))


def test_what_is_behind_the_person_does_not_count(astronaut: Enrollment) -> None:
    picture = crop_of(astronaut)
    cut, reason = cut_of(picture, None)
    assert reason == ""
    assert cut is not None
    assert 0.2 < cut.alpha.mean() < 0.9
    behind, face = picture.copy(), picture.copy()
    behind[cut.alpha == 0] = 255 - behind[cut.alpha == 0]
    face[80:110, 80:110] = 255 - face[80:110, 80:110]
    assert metrics.l1(picture, behind) > 5
    assert metrics.l1(cut.of(picture), cut.of(behind)) == 0
    assert metrics.l1(cut.of(picture), cut.of(face)) > 1
    assert not cut.of(picture)[cut.alpha == 0].any()
    np.testing.assert_array_equal(cut.of(picture)[cut.alpha == 1], picture[cut.alpha == 1])


def test_without_a_segmenter_the_reason_is_given(
    astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ModelMissing("selfie_segmenter.tflite is missing; run visavis doctor")

    monkeypatch.setattr(matte, "_segmenter", missing)
    cut, reason = cut_of(crop_of(astronaut), None)
    assert cut is None
    assert "selfie_segmenter.tflite is missing" in reason
