"""Lips stay lips under the widest mouths: neither the mesh nor the picture turns them inside out, and nothing of the
mouth's inside shows outside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray

from calibration.enroll import enroll
from calibration.uv_maps import with_uv_maps
from engines.edit import Edit, apply_edit
from engines.enrollment import Enrollment
from engines.generators.geometric.generator import GeometricCache, GeometricGenerator
from engines.generators.geometric.mouth import lit_share
from engines.generators.geometric.open_mouth import open_mouth
from engines.geometry import yaw_pitch_roll_deg
from engines.head.landmark_names import LIPS_INNER, LIPS_OUTER, LOWER_LIP, UPPER_LIP
from engines.head.lips import hold_lips
from engines.head.model import Part, load_head_model
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT, Motion
from engines.motion_window import MotionWindow
from engines.raster.gbuffer import GBuffer, HeadMesh, rasterise
from engines.raster.pose import head_viewport, photo_viewport, pose_head
from engines.retarget import Controls, retarget
from scripts.mouth_sheet import mouth_motions

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]
MODEL = load_head_model()
SIZE, GRID = 512, 160
WIDE = [c for c in mouth_motions() if c != "photo"]
MOTIONS = {**mouth_motions(0.5), **mouth_motions(1.0)}
GREEN, MAGENTA = np.array([0, 220, 0], np.float32), np.array([255, 0, 255], np.float32)
# the upper lip without its corners, from one side to the other, as places in both rings
UPPER = [18, 17, 16, 15, 14, 13, 12]


@dataclass(frozen=True)
class Painted:
    """Somebody with green lips, and whatever is drawn inside the mouth magenta."""

    person: Enrollment
    cache: GeometricCache

    def drive(self, caption: str, yaw: float | None = None) -> Motion:
        own = self.person.motion
        motion = retarget(MOTIONS[caption], Motion(), own, Controls())
        if yaw is None:
            return motion
        turned = apply_edit(own, Edit(yaw_deg=float(yaw_pitch_roll_deg(own.rotation_rad)[0]) + yaw))
        return replace(motion, rotation_rad=turned.rotation_rad, translation_hu=turned.translation_hu)

    def inside(self, colour: F32) -> Painted:
        """The same with another colour inside the mouth."""
        teeth = tuple(np.broadcast_to(colour, t.shape).astype(np.float32) for t in self.cache.mouth.teeth)
        mouth = replace(
            self.cache.mouth, cavity_rgb=colour, tongue_rgb=colour, teeth=cast("tuple[F32, F32]", teeth),
            photo=np.zeros_like(self.cache.mouth.photo),
        )  # fmt: skip
        return replace(self, cache=replace(self.cache, mouth=mouth))

    def draw(self, motion: Motion, grid: int = GRID) -> tuple[U8, GBuffer]:
        viewport = head_viewport(self.person, SIZE)
        mesh = pose_head(MODEL, self.person, motion, viewport)
        gbuffer = rasterise(MODEL, mesh, viewport, grid)
        return GeometricGenerator(MODEL).render(self.cache, gbuffer, MotionWindow.of(motion))[
            ..., :3
        ], gbuffer


def painted(person: Enrollment) -> Painted:
    """Lips green wherever the photo shows them, the seam and what it shows between them too."""
    points = pose_head(MODEL, person, person.motion, photo_viewport(person)).landmarks_px
    photo = person.photo.copy()
    outer = points[list(LIPS_OUTER), :2].astype(np.float64)
    # a little wider: the contour itself is half lip
    outer = outer.mean(0) + (outer - outer.mean(0)) * (1.06, 1.12)
    cv2.fillPoly(photo, [np.rint(outer * 16 - 8).astype(np.int32)], GREEN.tolist(), cv2.LINE_8, 4)
    person = with_uv_maps(MODEL, replace(person, photo=photo))
    cache = GeometricGenerator(MODEL).prepare(person, head_viewport(person, SIZE))
    return Painted(person, cache).inside(MAGENTA)


@lru_cache(maxsize=1)
def admiral() -> Enrollment:
    """Lips closed, in black and white; US Navy, public domain."""
    return enroll(Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False))))


@pytest.fixture(scope="module", params=["smiling", "closed"])
def face(request: pytest.FixtureRequest, astronaut: Enrollment) -> Painted:
    return painted(astronaut if request.param == "smiling" else admiral())


def rings(mesh: HeadMesh) -> tuple[F64, F64]:
    """Inner and outer contour (20, 2) in pixels of the picture."""
    points = mesh.landmarks_px[:, :2].astype(np.float64)
    return points[list(LIPS_INNER)], points[list(LIPS_OUTER)]


def inside(ring: F64, grow_px: float = 0.0, size: int = SIZE) -> Mask:
    """(size, size) within a contour, grown by some pixels."""
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.rint(ring * 16 - 8).astype(np.int32)], 1, cv2.LINE_8, 4)
    if grow_px:
        side = 2 * round(abs(grow_px)) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        mask = np.asarray(cv2.dilate(mask, kernel) if grow_px > 0 else cv2.erode(mask, kernel), np.uint8)
    return mask > 0


def is_green(picture: U8) -> Mask:
    r, g, b = (picture[..., k].astype(int) for k in range(3))
    return (g > r + 40) & (g > b + 40)


def is_magenta(picture: U8) -> Mask:
    r, g, b = (picture[..., k].astype(int) for k in range(3))
    return (r > g + 40) & (b > g + 40)


def thickness(e: Enrollment, motion: Motion) -> F64:
    """(7,) of the upper lip, in px, the head not turned: how far its outer contour lies outside the inner one."""
    upright = replace(motion, rotation_rad=np.zeros(3, np.float32))
    inner, outer = rings(pose_head(MODEL, e, upright, head_viewport(e, SIZE)))
    hole = inner[:, None].astype(np.float32)
    return np.array([-cv2.pointPolygonTest(hole, (float(p[0]), float(p[1])), True) for p in outer[UPPER]])


# --- the mesh


@pytest.mark.parametrize("caption", WIDE)
def test_the_upper_lip_of_the_mesh_keeps_its_thickness(face: Painted, caption: str) -> None:
    now, rest = (thickness(face.person, m) for m in (face.drive(caption), face.person.motion))
    assert now.mean() > 0.4 * rest.mean()
    assert (now > 0.2 * rest).all()


def _shape(expression: F32) -> F32:
    shape = MODEL.decode(MODEL.mean_hu, expression)
    hold_lips(MODEL, shape, MODEL.mean_hu, expression, np.zeros(EXPRESSION_COUNT, np.float32))
    return shape


def _expression(**values: float) -> F32:
    out = np.zeros(EXPRESSION_COUNT, np.float32)
    for name, value in values.items():
        out[ARKIT_INDEX[name]] = value
    return out


@pytest.mark.parametrize(
    "values",
    [{}, {"jawOpen": 0.15}, {"mouthSmileLeft": 0.4, "mouthSmileRight": 0.4}, {"mouthPucker": 1.0},
     {"mouthUpperUpLeft": 0.6, "mouthUpperUpRight": 0.6}, {"mouthClose": 0.4, "jawOpen": 0.3}],
)  # fmt: skip
def test_a_usual_mouth_is_as_the_basis_has_it(values: dict[str, float]) -> None:
    expression = _expression(**values)
    difference = np.abs(_shape(expression) - MODEL.decode(MODEL.mean_hu, expression))
    assert difference.max() < 0.002  # 0.2 mm


def test_lips_that_roll_in_may_be_thin() -> None:
    for strength in (0.5, 1.0):
        expression = _expression(mouthRollUpper=strength, mouthRollLower=strength)
        difference = np.abs(_shape(expression) - MODEL.decode(MODEL.mean_hu, expression))
        assert difference.max() < 0.02


def test_an_opening_jaw_opens_the_mouth_on_and_on() -> None:
    """The lips are held by and by: no step as a jaw falls, and never a smaller mouth for a larger strength."""
    gaps: list[float] = []
    for jaw in np.linspace(0, 1.3, 27):
        points = MODEL.landmarks(_shape(_expression(jawOpen=float(jaw))))
        gaps.append(float(points[LOWER_LIP, 1] - points[UPPER_LIP, 1]))
    steps = np.diff(gaps)
    assert (steps > 0).all()
    assert steps.max() < 2 * steps.min()


def test_the_photos_own_lips_are_not_moved(face: Painted) -> None:
    """Even lips that are thinner in the photo than without its expression: at rest the picture is the photo."""
    thin = face.person.motion.expression + _expression(jawOpen=0.8)
    shape = MODEL.decode(face.person.neutral_hu, thin)
    before = shape.copy()
    hold_lips(MODEL, shape, face.person.neutral_hu, thin, thin)
    assert np.array_equal(shape, before)


# --- the picture


@pytest.mark.parametrize("yaw", [None, -20.0, 20.0])
@pytest.mark.parametrize("caption", WIDE)
def test_the_upper_lip_is_lip_from_side_to_side(face: Painted, caption: str, yaw: float | None) -> None:
    # what is bright inside would shine into the soft edge of thin lips
    picture, gbuffer = face.inside(0 * MAGENTA).draw(face.drive(caption, yaw))
    inner, outer = rings(gbuffer.mesh)
    green = is_green(picture)
    count, lip = 60, 0
    for place in np.linspace(0, len(UPPER) - 1.001, count):
        low, share = int(place), place % 1
        ends = [ring[UPPER[low]] * (1 - share) + ring[UPPER[low + 1]] * share for ring in (outer, inner)]
        x, y = ends[0] * 0.5 + ends[1] * 0.5
        lip += int(green[int(y), int(x)])
    assert lip >= 0.8 * count


@pytest.mark.parametrize("yaw", [None, -20.0, 20.0])
@pytest.mark.parametrize("caption", WIDE)
def test_the_mouths_inside_stays_between_the_lips(face: Painted, caption: str, yaw: float | None) -> None:
    picture, gbuffer = face.draw(face.drive(caption, yaw))
    inner, outer = rings(gbuffer.mesh)
    magenta = is_magenta(picture)
    assert not (magenta & ~inside(outer)).any()
    assert (magenta & ~inside(inner, 2)).sum() <= 4


@pytest.mark.parametrize("caption", ["jawOpen", "jaw + funnel", "jaw + smile"])
def test_the_open_mouth_is_filled_up_to_its_edge(face: Painted, caption: str) -> None:
    caption = "jaw 1" if caption == "jawOpen" else f"{caption} 1"
    picture, gbuffer = face.draw(face.drive(caption))
    inner, _ = rings(gbuffer.mesh)
    hole = inside(inner, -3)
    assert hole.sum() > 500
    # shaded it may be, but no skin of the photo shows within
    r, g, b = (picture[..., k].astype(int)[hole] for k in range(3))
    assert (g <= np.maximum(r, b)).mean() > 0.99


@pytest.mark.parametrize("caption", WIDE)
def test_teeth_and_tongue_do_not_come_through_lip_or_chin(face: Painted, caption: str) -> None:
    _, gbuffer = face.draw(face.drive(caption))
    _, outer = rings(gbuffer.mesh)
    rows = gbuffer.part.shape[0]
    within = inside(outer * rows / SIZE, 1, rows)
    interior = np.isin(gbuffer.part, (Part.MOUTH, Part.TEETH, Part.TONGUE))
    assert not (interior & ~within).any()


def _chin_band(gbuffer: GBuffer) -> Mask:
    """Where the chin's lower edge is, some pixels to both sides."""
    points = gbuffer.mesh.landmarks_px[[172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397], :2]
    band = np.zeros((SIZE, SIZE), np.uint8)
    cv2.polylines(band, [np.rint(points * 16 - 8).astype(np.int32)], False, 1, 14, cv2.LINE_8, 4)
    return band > 0


def test_a_coarse_grid_draws_the_edge_of_a_fallen_chin_as_a_fine_one_does(astronaut: Enrollment) -> None:
    """No stairs, no line of what lies between chin and neck in the photo."""
    one = Painted(astronaut, GeometricGenerator(MODEL).prepare(astronaut, head_viewport(astronaut, SIZE)))
    motion = one.drive("jaw 1")
    coarse, gbuffer = one.draw(motion)
    fine, _ = one.draw(motion, SIZE)
    band = _chin_band(gbuffer)
    difference = np.abs(coarse.astype(int) - fine.astype(int)).max(-1)[band]
    assert difference.mean() < 7
    assert (difference > 60).mean() < 0.03


def test_a_photos_own_teeth_stay_one_row(astronaut: Enrollment) -> None:
    """A wide mouth shows them as the photo does, and none drawn below them."""
    cache = GeometricGenerator(MODEL).prepare(astronaut, head_viewport(astronaut, SIZE))
    assert cache.mouth.own_teeth
    one = Painted(astronaut, replace(cache, mouth=replace(cache.mouth, teeth=(
        np.broadcast_to(MAGENTA, cache.mouth.teeth[0].shape).astype(np.float32),
        cache.mouth.teeth[1],
    ))))  # fmt: skip
    for caption in ("jaw 1", "jaw + smile 1", "jaw + funnel 1"):
        picture, _ = one.draw(one.drive(caption))
        assert not is_magenta(picture).any()


def test_lips_that_just_part_shade_the_teeth() -> None:
    """Between lips that part a little it is as dark as the cavity; the wider they are, the more the teeth shine."""
    person = admiral()
    cache = GeometricGenerator(MODEL).prepare(person, head_viewport(person, SIZE))
    face, white = Painted(person, cache), np.full(3, 255, np.float32)
    teeth = tuple(np.broadcast_to(white, t.shape).astype(np.float32) for t in cache.mouth.teeth)
    black = face.inside(0 * white)
    bright = replace(
        black,
        cache=replace(black.cache, mouth=replace(black.cache.mouth, teeth=cast("tuple[F32, F32]", teeth))),
    )
    brightest: list[int] = []
    for jaw in (0.1, 0.2, 0.35, 0.6):
        motion = retarget(Motion(expression=_expression(jawOpen=jaw)), Motion(), person.motion, Controls())
        dark, gbuffer = black.draw(motion)
        picture, _ = bright.draw(motion)
        inner, _ = rings(gbuffer.mesh)
        off = (picture.astype(int) - dark)[inside(inner, 1)]
        assert len(off)
        brightest.append(int(off.max()))
    assert brightest == sorted(set(brightest))
    assert brightest[0] < 0.45 * brightest[-1]
    assert brightest[-1] > 150


def test_teeth_come_out_of_the_shade_as_people_s_do() -> None:
    """What was measured between lips, as a share of what there is between the darkest, 0.4, and teeth, 0.95."""
    for gap, width, seen in ((0.035, 1.0, 0.47), (0.07, 1.0, 0.54), (0.15, 1.0, 0.70), (0.07, 1.3, 0.92)):
        assert 0.4 + 0.55 * lit_share(gap, width) == pytest.approx(seen, abs=0.06)
    assert lit_share(0, 1.5) == 0
    assert lit_share(0.5, 0.7) == 1
    for width in (0.8, 1.1, 1.3):
        steps = np.diff([lit_share(gap, width) for gap in np.linspace(0, 0.4, 41)])
        assert (steps >= 0).all()


def test_lower_teeth_show_in_a_wide_mouth() -> None:
    person = admiral()
    cache = GeometricGenerator(MODEL).prepare(person, head_viewport(person, SIZE))
    face, white = Painted(person, cache).inside(0 * MAGENTA), np.full(3, 255, np.float32)
    teeth = face.cache.mouth.teeth
    lower = replace(
        face,
        cache=replace(
            face.cache,
            mouth=replace(face.cache.mouth, teeth=(teeth[0], np.broadcast_to(white, teeth[1].shape).copy())),
        ),
    )
    shown: list[int] = []
    for jaw in (0.05, 0.6):
        motion = retarget(Motion(expression=_expression(jawOpen=jaw)), Motion(), person.motion, Controls())
        shown.append(int((lower.draw(motion)[0].astype(int) - face.draw(motion)[0] > 60).any(2).sum()))
    assert shown[0] == 0
    assert shown[1] > 40


def test_closed_lips_have_no_teeth_of_their_own() -> None:
    person = admiral()
    mouth = GeometricGenerator(MODEL).prepare(person, head_viewport(person, SIZE)).mouth
    assert not mouth.own_teeth


def test_the_photos_own_teeth_are_not_shaded_at_rest(astronaut: Enrollment) -> None:
    """They are as the photo lit them; where lips come together they go into the shade."""
    view = head_viewport(astronaut, SIZE)
    mouth = GeometricGenerator(MODEL).prepare(astronaut, view).mouth
    pose = pose_head(MODEL, astronaut, astronaut.motion, view)
    at_rest = open_mouth(mouth, pose, pose.pose, SIZE, SIZE)
    assert at_rest is not None
    assert at_rest.own_lit == 1
    closing = replace(
        astronaut.motion,
        expression=(astronaut.motion.expression * np.float32(0.3)).astype(np.float32),
        closure=np.array([0.6, 0, 0], np.float32),
    )
    mesh = pose_head(MODEL, astronaut, closing, view)
    closed = open_mouth(mouth, mesh, pose.pose, SIZE, SIZE)
    assert closed is not None
    assert closed.own_lit < 0.8
