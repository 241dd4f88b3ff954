"""Enrolling: one public-domain person, photographed in every way that people send photos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import encoded
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from calibration.enroll import enroll
from calibration.face import head_crop
from engines.enrollment import Enrollment
from engines.errors import ModelMissing, PhotoError
from engines.geometry import yaw_pitch_roll_deg
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LIDS_LEFT, LIDS_RIGHT, MEETING
from engines.head.model import EYEBALL_RADIUS_HU, Part, load_head_model
from engines.head.names import OWN_HEAD_MODEL
from engines.head.open import HeadModelRef
from engines.motion import ARKIT_INDEX
from engines.picture.push_pull import push_pull
from engines.raster.gbuffer import rasterise
from engines.raster.pose import decode_head, head_viewport, photo_viewport, pose_head, pose_in_viewport
from engines.raster.resample import resample
from engines.renderer import Renderer

U8 = NDArray[np.uint8]
MODEL = load_head_model()
PERSON: U8 = data.astronaut()
HEAD: U8 = np.ascontiguousarray(PERSON[0:232, 110:342])


def shrunk(image: U8, scale: float) -> U8:
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)


def psnr_db(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)))


def own_picture(e: Enrollment) -> tuple[U8, U8, U8]:
    """(drawn, photo, matte) of the photo's own motion in the head crop."""
    renderer = Renderer(e, generator="geometric")
    photo = resample(e.photo, renderer.viewport, 0, (512, 512))
    matte = resample(e.matte, renderer.viewport, 0, (512, 512))
    return renderer.render(e.motion), photo, matte


def assert_usable(e: Enrollment, least_db: float = 35) -> None:
    """The crop is in the photo, the landmarks in the head, and the photo draws itself."""
    height, width = e.photo.shape[:2]
    left, top, side = e.crop_px
    assert 0 <= left <= left + side <= width
    assert 0 <= top <= top + side <= height
    inside = e.landmarks_px[:, :2] - (left, top)
    assert inside.min() > 0.02 * side
    assert inside.max() < 0.98 * side
    drawn, photo, matte = own_picture(e)
    assert psnr_db(drawn[matte > 250], photo[matte > 250]) >= least_db


def test_the_enrollment_of_a_portrait(astronaut: Enrollment, astronaut_photo: Path) -> None:
    e = astronaut
    assert_usable(e, 38)
    assert e.name == "astronaut"
    assert e.consent is not None
    assert e.consent.name == "public domain"
    assert e.notices == ()
    assert (e.photo == PERSON).all()
    assert e.landmarks_px.shape == (478, 3)
    assert e.neutral_hu.shape == (MODEL.vertex_count, 3)
    assert e.uv_visibility.shape == e.uv_position_px.shape[:2] == e.uv_colour.shape[:2] == e.uv_pncc.shape[:2]
    assert e.matte.shape == e.photo.shape[:2]
    # the face is where one sees it
    nose = e.landmarks_px[4, :2]
    assert np.linalg.norm(nose - (228, 118)) < 12
    assert max(abs(a) for a in yaw_pitch_roll_deg(e.motion.rotation_rad)) < 15
    # she smiles, with open eyes
    smile = e.motion.expression[[ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["mouthSmileRight"]]]
    assert smile.min() > 0.4
    assert e.motion.expression[ARKIT_INDEX["eyeBlinkLeft"]] < 0.4


def test_the_neutral_and_the_expression_make_the_photos_landmarks(astronaut: Enrollment) -> None:
    pose = pose_in_viewport(astronaut, astronaut.motion, photo_viewport(astronaut))
    shape = MODEL.decode(astronaut.neutral_hu, astronaut.motion.expression, astronaut.motion.gaze_rad)
    off = np.linalg.norm((pose.apply(MODEL.landmarks(shape)) - astronaut.landmarks_px)[:, :2], axis=1)
    assert off[:468].max() < 0.5  # hair begins at the outermost of them
    assert np.median(off[:468]) < 0.01
    assert off[468:].max() < 2.5  # the irises: eyeballs are round, and turn about their centre


def test_the_neutral_is_the_models_plus_what_the_photo_adds(astronaut: Enrollment) -> None:
    assert astronaut.identity.shape == (len(MODEL.identity_hu),)
    assert np.abs(astronaut.identity).max() < 4  # standard deviations
    assert astronaut.model == HeadModelRef(OWN_HEAD_MODEL, MODEL.digest)
    # seams stay shut, eyeballs round and of their size
    assert np.abs(astronaut.neutral_hu - astronaut.neutral_hu[MODEL.weld]).max() < 1e-4
    for side, centre in enumerate(MODEL.joints_of(astronaut.neutral_hu).eyes):
        ball = astronaut.neutral_hu[MODEL.eye_side == side + 1]
        assert np.allclose(np.linalg.norm(ball - centre, axis=1), EYEBALL_RADIUS_HU, atol=1e-4)
    # and behind the lids: no white bulges through the skin of the face
    viewport = head_viewport(astronaut, 512)
    gbuffer = rasterise(MODEL, pose_head(MODEL, astronaut, astronaut.motion, viewport), viewport, 512)
    y, x = np.nonzero(gbuffer.part == Part.EYE)
    eyes = [gbuffer.mesh.landmarks_px[list(contour), :2] for contour in (EYE_RIGHT, EYE_LEFT)]
    low = np.min([e.min(0) for e in eyes], 0) - 3
    high = np.max([e.max(0) for e in eyes], 0) + 3
    assert len(y) > 200
    assert (x > low[0]).all()
    assert (x < high[0]).all()
    assert (y > low[1]).all()
    assert (y < high[1]).all()


def test_the_matte_holds_the_person_and_not_the_wall(astronaut: Enrollment) -> None:
    assert astronaut.matte[118, 228] > 250  # nose
    assert astronaut.matte[40, 230] > 250  # hair
    assert astronaut.matte[400, 200] > 250  # chest
    assert astronaut.matte[20, 120] < 5  # wall
    assert astronaut.matte[60, 350] < 5
    # the plate has no person left in it: grey where her face was
    height, width = astronaut.plate.shape[:2]
    behind = astronaut.plate[int(118 / 512 * height), int(228 / 512 * width)].astype(int)
    assert np.ptp(behind) < 30


def test_the_uv_maps_show_the_face(astronaut: Enrollment) -> None:
    visible = astronaut.uv_visibility > 0
    assert 0.15 < visible.mean() < 0.9  # a full head: its back is in no photo
    size = visible.shape[0]
    places = MODEL.landmarks(MODEL.uv)
    for landmark in (4, 50, 280, 151):
        u, v = (places[landmark] * size).astype(int)
        assert visible[v, u]
        assert np.linalg.norm(astronaut.uv_position_px[v, u] - astronaut.landmarks_px[landmark, :2]) < 1.5
        x, y = np.floor(astronaut.uv_position_px[v, u]).astype(int)
        around = astronaut.photo[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).astype(int)
        assert (astronaut.uv_colour[v, u] >= around.min(0) - 12).all()
        assert (astronaut.uv_colour[v, u] <= around.max(0) + 12).all()


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.5, 0.8])
@pytest.mark.parametrize("larger_first", [True, False])
def test_of_two_faces_the_larger_is_taken_and_said(scale: float, larger_first: bool) -> None:
    small = shrunk(HEAD, scale)
    side = small.shape[0]
    both = np.full((232, 232 + side, 3), 128, np.uint8)
    both[:, :232] = HEAD
    both[-side:, 232:] = small
    if not larger_first:
        both[:, side:] = HEAD
        both[:, :side] = 128
        both[-side:, :side] = small
    e = enroll(encoded(both))
    assert e.notices == ("2 faces found: took the largest",)
    assert e.landmarks_px[4, 0] == pytest.approx(118 + (0 if larger_first else side), abs=12)
    assert_usable(e)


def refused(image: U8, says: str) -> None:
    with pytest.raises(PhotoError, match=says) as caught:
        enroll(encoded(image))
    assert "use a" in str(caught.value) or "crop closer" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_no_face() -> None:
    refused(np.full((300, 300, 3), 128, np.uint8), "no face found")
    refused(np.random.default_rng(0).integers(0, 255, (300, 300, 3)).astype(np.uint8), "no face found")
    refused(data.chelsea(), "no face found")  # a cat


def test_a_face_too_small() -> None:
    refused(shrunk(PERSON, 0.4), r"too small \(4\d px high, 60 needed\)")


@pytest.mark.slow
def test_a_small_face_in_a_large_photo_is_searched_for() -> None:
    wide = np.full((1600, 2000, 3), 100, np.uint8)
    wide[1100:1332, 1500:1732] = HEAD
    e = enroll(encoded(wide, "JPEG", quality=95))
    assert np.linalg.norm(e.landmarks_px[4, :2] - (1618, 1218)) < 12
    assert_usable(e)


@pytest.mark.parametrize("cut", [PERSON[:, 200:], PERSON[100:], PERSON[:155]], ids=["left", "top", "bottom"])
def test_a_face_cut_off(cut: U8) -> None:
    refused(np.ascontiguousarray(cut), "cut off by the edge of the photo")


@pytest.mark.slow
def test_a_face_that_fills_the_photo_is_fine() -> None:
    assert_usable(enroll(encoded(np.ascontiguousarray(PERSON[40:215, 150:310]))), 30)


def same_face(e: Enrollment, reference: Enrollment, scale: float = 1.0, tolerance_px: float = 3) -> None:
    off = np.linalg.norm(e.landmarks_px[:468, :2] / scale - reference.landmarks_px[:468, :2], axis=1)
    assert off.mean() < tolerance_px


@pytest.mark.slow
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_photo_turned_by_exif(astronaut: Enrollment, orientation: int) -> None:
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(PERSON, {3: 2, 6: 1, 8: 3}[orientation])))
    exif = Image.Exif()
    exif[0x0112] = orientation
    e = enroll(encoded(turned, "JPEG", quality=97, exif=exif))
    same_face(e, astronaut)
    assert_usable(e)


@pytest.mark.slow
def test_a_grey_photo(astronaut: Enrollment) -> None:
    e = enroll(encoded(np.asarray(cv2.cvtColor(PERSON, cv2.COLOR_RGB2GRAY), np.uint8)))
    same_face(e, astronaut)
    assert_usable(e)
    drawn = own_picture(e)[0].astype(int)
    assert np.ptp(drawn, axis=2).max() < 60  # only the drawn mouth may have colour


@pytest.mark.slow
def test_a_photo_with_transparency(astronaut: Enrollment) -> None:
    alpha = np.where(astronaut.matte > 128, 255, 0).astype(np.uint8)
    e = enroll(encoded(np.dstack([PERSON, alpha])))
    assert "transparent parts put on light grey" in e.notices
    same_face(e, astronaut)
    assert_usable(e)


@pytest.mark.slow
@pytest.mark.parametrize("turn_deg", [-30, 0, 30])
def test_a_small_photo_with_a_tilted_head(turn_deg: float) -> None:
    to_centre = cv2.getRotationMatrix2D((116, 116), turn_deg, 200 / 232)
    to_centre[:, 2] += 100 - 116
    small = cv2.warpAffine(HEAD, to_centre, (200, 200), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    e = enroll(encoded(small.astype(np.uint8)))
    assert_usable(e, 33)
    assert yaw_pitch_roll_deg(e.motion.rotation_rad)[2] == pytest.approx(3 - turn_deg, abs=6)


@pytest.mark.slow
def test_a_24_megapixel_photo(astronaut: Enrollment) -> None:
    large = cv2.resize(PERSON, (4899, 4899), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    photo = encoded(large, "JPEG", quality=85)
    e = enroll(photo)
    assert e.photo.shape == (2048, 2048, 3)
    assert e.notices == ("the photo's 4899 × 4899 pixels are more than it takes: a smaller copy is used",)
    same_face(e, astronaut, 4)
    assert_usable(e)


@pytest.mark.slow
def test_enrolling_twice_is_the_same(astronaut: Enrollment, astronaut_photo: Path) -> None:
    same_face(enroll(astronaut_photo), astronaut, tolerance_px=0.01)


@pytest.mark.slow
def test_names_are_safe_and_never_empty(tmp_path: Path) -> None:
    photo = encoded(HEAD)
    for stem, expected in (("Ann & Bob", "Ann-Bob"), ("../x", "x"), ("日本", None)):
        path = tmp_path / (Path(stem).name + ".png")
        path.write_bytes(photo)
        name = enroll(path).name
        assert name == expected if expected else name.startswith("face-")
    assert enroll(photo).name.startswith("face-")
    assert enroll(photo, name="given").name == "given"


def test_no_consent_is_recorded_as_none() -> None:
    assert enroll(encoded(HEAD)).consent is None


@pytest.mark.slow
def test_without_the_segmenter_the_photo_is_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModelMissing("the model file selfie_segmenter.tflite is missing")

    monkeypatch.setattr("calibration.matte._segmenter", missing)
    e = enroll(encoded(HEAD))
    assert (e.matte == 255).all()
    assert any("no background separation" in n for n in e.notices)
    assert_usable(e)


def test_the_crop_stays_a_square_in_the_photo() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        width, height = rng.integers(70, 900, 2)
        points = rng.normal(size=(478, 3)).astype(np.float32) * rng.uniform(5, 200) + rng.uniform(-50, 900, 3)
        left, top, side = head_crop(points.astype(np.float32), int(width), int(height))
        assert side > 0
        assert left >= 0
        assert top >= 0
        assert left + side <= width
        assert top + side <= height


def lids_gap_hu(e: Enrollment, pair: tuple[int, int], **values: float) -> float:
    """How far the lids' middles are apart on the decoded head (negative: crossed)."""
    beta = np.zeros(52, np.float32)
    for name, value in values.items():
        beta[ARKIT_INDEX[name]] = value
    points = MODEL.landmarks(decode_head(MODEL, e, replace(e.motion, expression=beta)))
    return float(points[pair[1], 1] - points[pair[0], 1])


@pytest.mark.parametrize("eye", ["Left", "Right"])
def test_this_persons_lids_close(astronaut: Enrollment, eye: str) -> None:
    own, other = (LIDS_LEFT, LIDS_RIGHT) if eye == "Left" else (LIDS_RIGHT, LIDS_LEFT)
    rest = lids_gap_hu(astronaut, own)
    assert rest > 0.05
    assert abs(lids_gap_hu(astronaut, own, **{f"eyeBlink{eye}": 1})) < 1e-3
    assert lids_gap_hu(astronaut, other, **{f"eyeBlink{eye}": 1}) > 0.5 * lids_gap_hu(astronaut, other)
    gaps = [lids_gap_hu(astronaut, own, **{f"eyeBlink{eye}": v}) for v in np.linspace(0, 1, 11)]
    assert (np.diff(gaps) <= 1e-4).all()
    assert min(gaps) > -1e-3


@pytest.mark.parametrize("share", [-0.3, 0.0, 0.4])
def test_lids_that_are_wide_or_narrow_by_nature_close_too(astronaut: Enrollment, share: float) -> None:
    neutral = astronaut.neutral_hu.copy()
    points = MODEL.landmarks(neutral)
    wider = [(points[low] - points[up]) * share / 2 * (k < 14) for k, (up, low) in enumerate(MEETING)]
    moves = np.array([*(-w for w in wider), *wider], np.float32)
    neutral[MODEL.closing_vertices] += MODEL.closing_weights.T @ moves
    person = replace(astronaut, neutral_hu=neutral)
    for pair in (LIDS_RIGHT, LIDS_LEFT):
        assert np.sign(round(lids_gap_hu(person, pair) - lids_gap_hu(astronaut, pair), 3)) == np.sign(share)
        assert abs(lids_gap_hu(person, pair, eyeBlinkLeft=1, eyeBlinkRight=1)) < 1e-3


def test_push_pull_keeps_what_is_known_and_fills_smoothly() -> None:
    image = np.zeros((64, 48, 3), np.float32)
    image[:, :, 0] = np.linspace(0, 200, 48)
    known = np.ones((64, 48), np.float32)
    known[20:44, 16:32] = 0
    filled = push_pull(image * known[..., None], known)
    assert np.allclose(filled[known > 0], image[known > 0], atol=1e-3)
    assert np.abs(filled - image)[20:44, 16:32, 0].max() < 40
    assert push_pull(np.ones((1, 1, 3), np.float32), np.zeros((1, 1), np.float32)).shape == (1, 1, 3)


def test_a_head_viewport_is_the_crop(astronaut: Enrollment) -> None:
    viewport = head_viewport(astronaut, 512)
    left, top, side = astronaut.crop_px
    corners = viewport.from_photo(np.array([[left, top], [left + side, top + side]]))
    assert np.allclose(corners, [[0, 0], [512, 512]])
