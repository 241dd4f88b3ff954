"""The `geometric` generator on a real person: it draws the photo, moves what it is told to, and only that."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from fakes import FakeGenerator, entry
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.errors import GeneratorError
from engines.generators.generator import Generator
from engines.generators.geometric.eyes import opening_ratio
from engines.generators.geometric.generator import GeometricGenerator
from engines.generators.open import open_generator
from engines.generators.registry import GENERATORS
from engines.geometry import rotation_from_degrees, rotation_matrix, rotation_vector
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LIPS_OUTER, OVAL
from engines.head.landmarks import LandmarkDetector
from engines.head.model import load_head_model
from engines.motion import ARKIT_INDEX, Motion
from engines.motion_window import MotionWindow
from engines.raster.gbuffer import rasterise
from engines.raster.pose import head_viewport, photo_viewport, pose_head
from engines.raster.resample import resample
from engines.renderer import Renderer

U8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]
MODEL = load_head_model()
SIZE = 512


@pytest.fixture(scope="module")
def head(astronaut: Enrollment) -> Renderer:
    return Renderer(astronaut, generator="geometric")


@pytest.fixture(scope="module")
def rest(head: Renderer, astronaut: Enrollment) -> U8:
    return head.render(astronaut.motion)


def moved(source: Motion, *, yaw: float = 0, pitch: float = 0, gaze: float = 0, **values: float) -> Motion:
    """The photo's motion with a turn of the head, of the eyes, and coefficients set."""
    turn = rotation_matrix(rotation_from_degrees(yaw, pitch, 0)) @ rotation_matrix(source.rotation_rad)
    expression = source.expression.copy()
    for name, value in values.items():
        expression[ARKIT_INDEX[name]] = value
    gaze_rad = source.gaze_rad + np.array([gaze, 0], np.float32)
    return replace(
        source,
        rotation_rad=rotation_vector(turn).astype(np.float32),
        expression=expression,
        gaze_rad=gaze_rad,
    )


def psnr_db(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def region(e: Enrollment, landmarks: tuple[int, ...], grow: float, size: int = SIZE) -> Mask:
    """Where some landmarks are in the head crop, grown by `grow` of their width."""
    viewport = head_viewport(e, size)
    points = viewport.from_photo(e.landmarks_px[list(landmarks)])[:, :2]
    mask = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(points).astype(np.int32)), 1)
    reach = round(float(np.ptp(points[:, 0])) * grow)
    return cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))) > 0


def lids_open(e: Enrollment, renderer: Renderer, motion: Motion, contour: tuple[int, ...]) -> float:
    """How far an eye of the posed mesh is open."""
    points = pose_head(MODEL, e, motion, renderer.viewport).landmarks_px[list(contour), :2]
    return opening_ratio(points.astype(np.float64))


def changed(a: U8, b: U8) -> Mask:
    return np.abs(a.astype(int) - b.astype(int)).max(-1) > 24


def change(a: U8, b: U8, where: Mask) -> float:
    """Mean difference of two pictures in a region, in grey levels."""
    return float(np.abs(a.astype(int) - b.astype(int)).max(-1)[where].mean())


# --- the photo draws itself


def test_the_photos_own_motion_draws_the_photo(astronaut: Enrollment, head: Renderer, rest: U8) -> None:
    photo = resample(astronaut.photo, head.viewport, 0, (SIZE, SIZE))
    matte = resample(astronaut.matte, head.viewport, 0, (SIZE, SIZE))
    inside = psnr_db(rest[matte > 250], photo[matte > 250])
    print(
        f"the photo's own motion: {inside:.1f} dB inside the matte, {psnr_db(rest, photo):.1f} dB over the crop"
    )
    assert inside >= 35
    assert psnr_db(rest, photo) >= 32


@pytest.mark.parametrize("size", [96, 256, 720])
def test_it_does_so_at_any_size(astronaut: Enrollment, size: int) -> None:
    renderer = Renderer(astronaut, generator="geometric", size_px=size)
    photo = resample(astronaut.photo, renderer.viewport, 0, (size, size))
    matte = resample(astronaut.matte, renderer.viewport, 0, (size, size))
    picture = renderer.render(astronaut.motion)
    assert picture.shape == (size, size, 3)
    assert psnr_db(picture[matte > 250], photo[matte > 250]) >= 33


def moving_region(e: Enrollment, reach_hu: float = 1.1) -> Mask:
    """The part of the photo that the head covers, and the body near it that moves along."""
    viewport = photo_viewport(e)
    mesh = pose_head(MODEL, e, e.motion, viewport)
    free = (rasterise(MODEL, mesh, viewport, 512).part == 0).astype(np.uint8)
    return cv2.distanceTransform(free, cv2.DIST_L2, 5) < reach_hu * mesh.pose.scale


@pytest.mark.parametrize("yaw", [0, 20])
def test_in_the_photos_framing_everything_else_is_the_photo(astronaut: Enrollment, yaw: float) -> None:
    picture = Renderer(astronaut, generator="geometric", framing="photo").render(
        moved(astronaut.motion, yaw=yaw, jawOpen=0.8)
    )
    assert picture.shape == astronaut.photo.shape
    away = ~moving_region(astronaut)
    assert away.mean() > 0.5
    off = np.abs(picture.astype(int) - astronaut.photo.astype(int)).max(-1)[away]
    sure = (astronaut.matte[away] == 0) | (astronaut.matte[away] == 255)
    assert off[sure].max() == 0
    assert off.max() <= 2  # where the matte is soft two roundings add up
    # and the head does move
    assert (changed(picture, astronaut.photo) & ~away).sum() > 2000 * (yaw > 0)


# --- what is told to move does, and nothing else


def test_a_turn_moves_the_head_and_not_the_corners(astronaut: Enrollment, head: Renderer, rest: U8) -> None:
    left, right = (head.render(moved(astronaut.motion, yaw=v)) for v in (-15, 15))
    face = region(astronaut, OVAL, 0)
    for picture in (left, right):
        assert (changed(picture, rest) & face).sum() > 0.2 * face.sum()
        for corner in (np.s_[:24, :24], np.s_[:24, -24:]):
            assert np.abs(picture[corner].astype(int) - rest[corner].astype(int)).max() <= 2


@pytest.mark.parametrize(("axis", "yaw", "pitch"), [(0, 12, 0), (0, -12, 0), (1, 0, 10), (1, 0, -10)])
def test_the_drawn_face_lies_where_its_mesh_is(
    astronaut: Enrollment, head: Renderer, axis: int, yaw: float, pitch: float
) -> None:
    """Detected again in the drawn picture: the landmarks have moved as the mesh says."""
    motion = moved(astronaut.motion, yaw=yaw, pitch=pitch)
    detector = LandmarkDetector(video=False)
    try:
        before, after = (detector.detect(head.render(m))[0].points_px for m in (astronaut.motion, motion))
    finally:
        detector.close()
    told = [pose_head(MODEL, astronaut, m, head.viewport).landmarks_px for m in (astronaut.motion, motion)]
    nose = [1, 4, 5, 195]
    seen_px = (after - before)[nose, axis].mean()
    told_px = (told[1] - told[0])[nose, axis].mean()
    assert abs(told_px) > 10
    assert seen_px == pytest.approx(told_px, rel=0.35)


def test_the_jaw_opens_the_mouth_only(astronaut: Enrollment, head: Renderer, rest: U8) -> None:
    picture = head.render(moved(astronaut.motion, jawOpen=0.8))
    mouth = region(astronaut, LIPS_OUTER, 0.1)
    eyes = region(astronaut, EYE_LEFT, 0.1) | region(astronaut, EYE_RIGHT, 0.1)
    assert changed(picture, rest)[mouth].mean() > 0.4
    assert change(picture, rest, mouth) > 2.5 * change(picture, rest, eyes)
    assert change(picture, rest, mouth) > 8 * change(picture, rest, ~region(astronaut, OVAL, 0.1))
    # dark inside, not stretched skin
    opened = pose_head(MODEL, astronaut, moved(astronaut.motion, jawOpen=0.8), head.viewport).landmarks_px
    assert opened[14, 1] - opened[13, 1] > 20
    x, y = ((opened[13, :2] + 3 * opened[14, :2]) / 4).astype(int)
    cx, cy = head.viewport.from_photo(astronaut.landmarks_px[[50]])[0, :2].astype(int)
    cheek = rest[cy - 5 : cy + 6, cx - 5 : cx + 6].mean()
    assert picture[y - 2 : y + 3, x - 3 : x + 4].mean() < cheek * 0.7


@pytest.mark.parametrize(
    ("name", "contour", "other"),
    [("eyeBlinkLeft", EYE_LEFT, EYE_RIGHT), ("eyeBlinkRight", EYE_RIGHT, EYE_LEFT)],
)
def test_a_wink_shuts_one_eye(
    astronaut: Enrollment,
    head: Renderer,
    rest: U8,
    name: str,
    contour: tuple[int, ...],
    other: tuple[int, ...],
) -> None:
    motion = moved(astronaut.motion, **{name: 1.0})
    picture = head.render(motion)
    eye = change(picture, rest, region(astronaut, contour, 0))
    assert changed(picture, rest)[region(astronaut, contour, 0)].mean() > 0.4
    assert eye > 1.2 * change(
        picture, rest, region(astronaut, other, 0)
    )  # who winks squints with the other eye
    assert eye > 3 * change(picture, rest, region(astronaut, LIPS_OUTER, 0))
    assert eye > 5 * change(picture, rest, ~region(astronaut, OVAL, 0))
    winking, open_, rested = (
        lids_open(astronaut, head, m, c)
        for m, c in ((motion, contour), (motion, other), (astronaut.motion, contour))
    )
    assert winking < 0.4 * rested < 0.6 * rested < open_


def test_a_blink_shuts_both_eyes(astronaut: Enrollment, head: Renderer) -> None:
    def white(picture: U8, contour: tuple[int, ...]) -> float:
        """How bright the brightest part of an eye is against its surroundings: the white, or skin."""
        return float(np.percentile(picture[region(astronaut, contour, 0)].min(-1), 5))

    blink = moved(astronaut.motion, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)
    for contour in (EYE_LEFT, EYE_RIGHT):
        open_, shut = (lids_open(astronaut, head, m, contour) for m in (astronaut.motion, blink))
        assert shut < 0.25 * open_
        # the pupil is gone
        assert white(head.render(blink), contour) > white(head.render(astronaut.motion), contour)


@pytest.mark.parametrize("turn", [-0.3, 0.3])
def test_gaze_moves_the_eyeballs_only(astronaut: Enrollment, head: Renderer, rest: U8, turn: float) -> None:
    picture = head.render(moved(astronaut.motion, gaze=turn))
    eyes = region(astronaut, EYE_LEFT, 0.1) | region(astronaut, EYE_RIGHT, 0.1)
    assert changed(picture, rest)[eyes].sum() > 0.05 * eyes.sum()
    # the rasteriser's camera stands off the mean depth, eyeballs included: elsewhere a rounding, no more
    off = np.abs(picture.astype(int) - rest.astype(int)).max(-1)[~eyes]
    assert off.max() <= 3
    assert (off > 0).mean() < 0.001


@pytest.mark.parametrize("turn", [-0.3, 0.3])
def test_gaze_moves_the_irises_the_right_way(astronaut: Enrollment, head: Renderer, turn: float) -> None:
    def dark_x(picture: U8, contour: tuple[int, ...]) -> float:
        inside = region(astronaut, contour, 0)
        weight = np.where(inside, np.clip(110 - picture.mean(-1), 0, None), 0)
        return float((weight * np.arange(SIZE)).sum() / weight.sum())

    for contour in (EYE_LEFT, EYE_RIGHT):
        x0 = dark_x(head.render(astronaut.motion), contour)
        x1 = dark_x(head.render(moved(astronaut.motion, gaze=turn)), contour)
        assert np.sign(x1 - x0) == np.sign(turn)
        assert abs(x1 - x0) > 0.5


# --- whatever comes


def test_the_same_motion_draws_the_same_picture(astronaut: Enrollment, head: Renderer) -> None:
    motion = moved(astronaut.motion, yaw=10, gaze=0.1, jawOpen=0.5, eyeBlinkLeft=0.6)
    first = head.render(motion)
    head.render(moved(astronaut.motion, yaw=-20, jawOpen=1))  # nothing is kept from frame to frame
    assert (head.render(motion) == first).all()
    assert (Renderer(astronaut, generator="geometric").render(motion) == first).all()


def test_pictures_are_not_shared(astronaut: Enrollment, head: Renderer, rest: U8) -> None:
    before = rest.copy()
    head.render(astronaut.motion)[:] = 0
    assert (head.render(astronaut.motion) == before).all()


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["head", "photo"])
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_extreme_motions_draw_a_picture(astronaut: Enrollment, framing: str, seed: int) -> None:
    renderer = _renderers.setdefault(
        framing, Renderer(astronaut, generator="geometric", framing="photo" if framing == "photo" else "head")
    )
    rng = np.random.default_rng(seed)
    wild = Motion(
        expression=rng.uniform(-0.5, 1.5, 52).astype(np.float32),
        rotation_rad=rng.uniform(-np.pi, np.pi, 3).astype(np.float32),
        translation_hu=(
            rng.normal(size=3) * rng.choice([1, 20]) + np.array([0, 0, rng.choice([1, 10, 100])])
        ).astype(np.float32),
        gaze_rad=rng.uniform(-0.8, 0.8, (2, 2)).astype(np.float32),
    )
    picture = renderer.render(wild)
    height, width = renderer.viewport.height_px, renderer.viewport.width_px
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8


_renderers: dict[str, Renderer] = {}


@pytest.mark.parametrize("z", [0.0, -5.0, 1e-6, 1e6])
def test_absurd_distances_draw_a_picture(astronaut: Enrollment, head: Renderer, z: float) -> None:
    far = replace(astronaut.motion, translation_hu=np.array([0, 0, z], np.float32))
    assert head.render(far).shape == (SIZE, SIZE, 3)


def test_alpha_is_premultiplied(astronaut: Enrollment) -> None:
    viewport = head_viewport(astronaut, 256)
    generator = GeometricGenerator(MODEL)
    cache = generator.prepare(astronaut, viewport)
    for yaw in (0, 15):
        motion = moved(astronaut.motion, yaw=yaw)
        mesh = pose_head(MODEL, astronaut, motion, viewport)
        rgba = generator.render(cache, rasterise(MODEL, mesh, viewport, 256), MotionWindow.of(motion))
        assert rgba.shape == (256, 256, 4)
        assert rgba.dtype == np.uint8
        assert (rgba[..., :3].max(-1).astype(int) <= rgba[..., 3].astype(int) + 2).mean() > 0.999
        assert rgba[4, 4, 3] < 10  # wall
        assert rgba[150, 128, 3] > 250  # face


def test_marks_come_in_order(astronaut: Enrollment, head: Renderer) -> None:
    marks: list[str] = []
    head.render(astronaut.motion, marks.append)
    assert marks == ["fitted", "rasterised", "generated", "composited"]


# --- the registry


def test_an_unknown_generator_names_the_choices(astronaut: Enrollment) -> None:
    assert "geometric" in GENERATORS
    with pytest.raises(GeneratorError, match=r"there is no generator 'nope'; choose one of: .*geometric"):
        open_generator("nope", MODEL)
    with pytest.raises(GeneratorError, match="choose one of"):
        Renderer(astronaut, generator="nope")


def test_a_registered_generator_is_used_by_name(
    astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeGenerator((10, 200, 30))

    def make(_: object) -> Generator[object]:
        return fake  # pyright: ignore[reportReturnType]

    monkeypatch.setitem(GENERATORS, "fake", entry(make))
    renderer = Renderer(astronaut, generator="fake", size_px=64)
    assert renderer.generator_name == "fake"
    assert (renderer.render(astronaut.motion) == (10, 200, 30)).all()
    assert fake.motions == [astronaut.motion]
