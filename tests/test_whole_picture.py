"""The head in the whole picture: no seam, the rest untouched, other backgrounds, wide frames."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.edit import Edit, apply_edit
from engines.enrollment import Enrollment
from engines.geometry import Camera
from engines.head.model import load_head_model
from engines.motion import Motion
from engines.picture.background import Background, BackgroundError
from engines.picture.composite import composite, straight
from engines.picture.moving_box import Box, moving_box, whole
from engines.picture.outpaint import Pad, missing, moved, outpaint
from engines.raster.pose import head_viewport, photo_viewport, pose_head, pose_in_viewport, wide_viewport
from engines.renderer import Renderer, frame_size, range_of_motion

pytestmark = pytest.mark.slow  # every one draws or enrolls

U8 = NDArray[np.uint8]
MODEL = load_head_model()
POSES = {
    "rest": Edit(),
    "right": Edit(yaw_deg=20),
    "left": Edit(yaw_deg=-20),
    "down": Edit(pitch_deg=12),
    "up": Edit(pitch_deg=-12),
    "open": Edit(expression={"jawOpen": 0.8}),
}


def posed(e: Enrollment, name: str) -> Motion:
    return apply_edit(e.motion, POSES[name])


@pytest.fixture(scope="module")
def small_head(astronaut: Enrollment) -> Enrollment:
    """The astronaut in a photo that is much larger than her head."""
    return outpaint(astronaut, Pad(500, 200, 400, 0))


@pytest.fixture(scope="module")
def in_photo(small_head: Enrollment) -> Renderer:
    return Renderer(small_head, generator="geometric", framing="photo")


@pytest.fixture(scope="module")
def wide(astronaut: Enrollment) -> Renderer:
    return Renderer(astronaut, generator="geometric", aspect="16:9", size_px=360)


def ring(box: Box, shape: tuple[int, ...], width: int = 2) -> NDArray[np.bool_]:
    """(H, W) the pixels of `box` along those of its sides that lie within the frame."""
    out = np.zeros(shape[:2], bool)
    out[box.top : box.bottom, box.left : box.right] = True
    inner = np.zeros_like(out)
    inner[
        box.top + width * (box.top > 0) : box.bottom - width * (box.bottom < shape[0]),
        box.left + width * (box.left > 0) : box.right - width * (box.right < shape[1]),
    ] = True
    return out & ~inner


def test_a_small_head_is_drawn_in_a_small_box(small_head: Enrollment, in_photo: Renderer) -> None:
    box, (height, width) = in_photo.box, small_head.photo.shape[:2]
    assert (box.right - box.left) * (box.bottom - box.top) < 0.15 * height * width
    # with all of the head in it, as it turns
    for name in POSES:
        points = pose_head(MODEL, small_head, posed(small_head, name), photo_viewport(small_head)).vertices_px
        assert (points[:, :2] >= (box.left, box.top)).all()
        assert (points[:, :2] <= (box.right, box.bottom)).all()


@pytest.mark.parametrize("name", list(POSES))
def test_there_is_no_seam_where_the_moving_box_ends(
    small_head: Enrollment, in_photo: Renderer, name: str
) -> None:
    picture = in_photo.render(posed(small_head, name)).astype(int)
    off = np.abs(picture - small_head.photo).max(-1)
    border = ring(in_photo.box, picture.shape)
    assert border.sum() > 1000
    sure = (small_head.matte == 0) | (small_head.matte == 255)
    assert off[border & sure].max() == 0
    assert off[border].max() <= 2
    outside = np.ones(picture.shape[:2], bool)
    box = in_photo.box
    outside[box.top : box.bottom, box.left : box.right] = False
    assert off[outside & sure].max() == 0
    assert off[outside].max() <= 2


def test_small_motions_leave_no_edge_on_the_way_to_the_shoulders(
    small_head: Enrollment, in_photo: Renderer
) -> None:
    """How far the picture moves from the photo fades steadily with the distance from the head."""
    small = apply_edit(small_head.motion, Edit(yaw_deg=3, pitch_deg=2))
    off = np.abs(in_photo.render(small).astype(int) - small_head.photo).max(-1)
    from engines.raster.gbuffer import rasterise

    frame = photo_viewport(small_head)
    rest = pose_head(MODEL, small_head, small_head.motion, frame)
    covered = rasterise(MODEL, rest, frame, 1 << 12).part > 0
    distance_hu = cv2.distanceTransform((~covered).astype(np.uint8), cv2.DIST_L2, 5) / rest.pose.scale
    near, far = (
        off[(distance_hu > 0.05) & (distance_hu < 0.3)],
        off[(distance_hu > 0.75) & (distance_hu < 0.95)],
    )
    assert near.mean() > 10 * far.mean()
    assert np.percentile(far, 99) <= 3
    assert off[distance_hu > 1.05].max() <= 2


def test_a_head_that_leaves_the_box_is_still_drawn_whole(small_head: Enrollment, in_photo: Renderer) -> None:
    """Absolute motion may put it anywhere."""
    away = small_head.motion.translation_hu + np.array([3.5, 0, 0], np.float32)
    far = replace(small_head.motion, translation_hu=away.astype(np.float32))
    picture = in_photo.render(far)
    frame = photo_viewport(small_head)
    mesh = pose_head(MODEL, small_head, far, frame)
    x, y = mesh.landmarks_px[4, :2].astype(int)
    nose = pose_head(MODEL, small_head, small_head.motion, frame).landmarks_px[4, :2].astype(int)
    assert x > in_photo.box.right
    there, here = picture[y - 10 : y + 10, x - 10 : x + 10], small_head.photo[nose[1] - 10 : nose[1] + 10, nose[0] - 10 : nose[0] + 10]  # fmt: skip # noqa: E501
    assert np.abs(there.astype(int) - here).mean() < 12
    # and the next frame is back in the box, as if nothing had been
    assert (in_photo.render(small_head.motion)[0] == small_head.photo[0]).all()


def test_the_box_is_the_frame_when_the_head_fills_it(astronaut: Enrollment) -> None:
    frame = head_viewport(astronaut, 256)
    assert Renderer(astronaut, generator="geometric", size_px=256).box == whole(frame)


def test_a_box_is_a_part_of_its_frame(small_head: Enrollment) -> None:
    frame = photo_viewport(small_head)
    rest = pose_head(MODEL, small_head, small_head.motion, frame)
    meshes = [pose_head(MODEL, small_head, m, frame) for m in range_of_motion(small_head.motion)]
    box = moving_box(MODEL, frame, rest, meshes)
    inner = box.of(frame)
    own = pose_head(MODEL, small_head, small_head.motion, inner)
    assert np.allclose(own.vertices_px[:, 0] + box.left, rest.vertices_px[:, 0], atol=1e-2)
    assert np.allclose(own.vertices_px[:, 1] + box.top, rest.vertices_px[:, 1], atol=1e-2)
    assert box.holds(own, frame)
    gone = replace(own, vertices_px=own.vertices_px + np.array([-600, 0, 0], np.float32))
    assert not box.holds(gone, frame)
    # beyond the frame itself nothing can be seen
    assert whole(frame).holds(gone, frame)


# --- wide frames


@pytest.mark.parametrize(("height", "width"), [(720, 1280), (480, 854), (512, 910), (64, 114)])
def test_frames_are_even_and_wide(height: int, width: int) -> None:
    assert frame_size(height, "16:9") == (width, height)
    assert frame_size(height, "1:1") == (height, height)


def test_a_wide_frame_shows_the_photo_around_the_head(astronaut: Enrollment, wide: Renderer) -> None:
    picture = wide.render(astronaut.motion)
    assert picture.shape == (360, 640, 3)
    view = wide.viewport
    assert not missing(astronaut, view).any
    # her surroundings, where she is not: the same pixels that the photo has there
    affine = view.affine_from_photo()
    size = (view.width_px, view.height_px)
    exact = cv2.warpAffine(
        astronaut.photo, affine, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    nobody = cv2.warpAffine(astronaut.matte, affine, size)
    clear = cv2.dilate(nobody, np.ones((61, 61), np.uint8)) == 0
    assert clear.mean() > 0.2
    assert np.abs(picture.astype(int) - exact).max(-1)[clear].max() <= 2
    centre = astronaut.crop_px[0] + astronaut.crop_px[2] / 2
    assert (centre - view.origin_x_px) * view.scale == pytest.approx(320, abs=1e-6)


def test_wide_and_square_show_the_head_at_the_same_size(astronaut: Enrollment) -> None:
    square, broad = head_viewport(astronaut, 480), wide_viewport(astronaut, 854, 480)
    assert broad.scale == pytest.approx(square.scale)
    assert broad.origin_y_px == pytest.approx(square.origin_y_px)


def test_a_wide_frame_never_looks_below_the_photo(astronaut: Enrollment) -> None:
    left, _top, side = astronaut.crop_px
    for cut in (0.1, 0.2, 0.5):
        low = replace(astronaut, crop_px=(left, len(astronaut.photo) - (1 - cut) * side, side))
        view = wide_viewport(low, 854, 480)
        assert view.origin_y_px + 480 / view.scale == pytest.approx(len(astronaut.photo))
        assert side * 0.749 <= 480 / view.scale <= side


@pytest.fixture(scope="module")
def narrow(astronaut: Enrollment) -> Enrollment:
    """The astronaut in a photo cut beside her shoulders: a wide frame must be made up at both sides."""
    left, top, side = (round(v) for v in astronaut.crop_px)
    from calibration.enroll import enroll_photo
    from calibration.photo import Photo

    cut = np.ascontiguousarray(astronaut.photo[: top + side + 60, left : left + side])
    photo = Photo(cut, cut.shape[1::-1], "0" * 64, "PNG")
    return enroll_photo(photo, name="narrow")


def test_what_the_photo_has_not_runs_out_smoothly(narrow: Enrollment) -> None:
    renderer = Renderer(narrow, generator="geometric", aspect="16:9", size_px=360)
    pad = missing(narrow, renderer.viewport)
    assert pad.left > 30
    assert pad.right > 30
    picture = renderer.render(narrow.motion).astype(float)
    scale = renderer.viewport.scale
    for edge, outwards in ((round(pad.left * scale), -1), (640 - round(pad.right * scale), 1)):
        # no step at the photo's edge, and less detail the further out
        step = np.abs(picture[:, edge] - picture[:, edge - 1]).mean()
        assert step < 6
        far = picture[20:140, [edge + outwards * round(0.6 * pad.left * scale)]]
        assert np.abs(np.diff(far, axis=0)).mean() < 1.5


def test_outpainting_tells_the_same_person_in_a_larger_photo(astronaut: Enrollment) -> None:
    pad = Pad(40, 30, 20, 10)
    grown = outpaint(astronaut, pad)
    height, width = astronaut.photo.shape[:2]
    assert grown.photo.shape == (height + 40, width + 60, 3)
    assert grown.matte.shape == grown.photo.shape[:2]
    inside = np.s_[30 : 30 + height, 40 : 40 + width]
    assert (grown.matte[inside] == astronaut.matte).all()
    kept = astronaut.matte == 255
    assert (grown.photo[inside][kept] == astronaut.photo[kept]).all()
    assert (grown.photo[inside][100:400, 100:400] == astronaut.photo[100:400, 100:400]).all()
    for e, view in ((astronaut, head_viewport(astronaut, 256)), (grown, head_viewport(grown, 256))):
        assert view.origin_x_px == pytest.approx(e.crop_px[0])
    old = pose_in_viewport(astronaut, astronaut.motion, head_viewport(astronaut, 256))
    new = pose_in_viewport(grown, grown.motion, head_viewport(grown, 256))
    assert new.scale == pytest.approx(old.scale, rel=1e-5)
    assert np.allclose(new.shift, old.shift, atol=1e-2)
    assert np.allclose(new.rotation, old.rotation, atol=1e-5)
    assert np.allclose(grown.landmarks_px[:, :2] - astronaut.landmarks_px[:, :2], (40, 30), atol=1e-3)
    view = wide_viewport(astronaut, 854, 480)
    assert moved(view, pad).origin_x_px == view.origin_x_px + 40
    assert Camera(width + 60, height + 40).focal_px > Camera(width, height).focal_px


def test_no_pad_is_the_same_enrollment(astronaut: Enrollment) -> None:
    assert outpaint(astronaut, Pad()) is astronaut


def test_shoulders_fall_away_and_nobody_is_mirrored(narrow: Enrollment) -> None:
    height, width = narrow.photo.shape[:2]
    grown = outpaint(narrow, Pad(left=120, right=120))
    solid = grown.matte > 127
    top = np.where(solid.any(0), solid.argmax(0), height)
    # further out the outline only sinks
    assert (np.diff(top[120 + width :]) >= -1).all()
    assert (np.diff(top[:120]) <= 1).all()
    assert not solid[: height // 2, :100].any()
    assert not solid[: height // 2, -100:].any()


def test_hair_that_the_photo_cuts_off_is_rounded(narrow: Enrollment) -> None:
    cut = replace(
        narrow,
        photo=narrow.photo[40:],
        matte=narrow.matte[40:],
        landmarks_px=narrow.landmarks_px - (0, 40, 0),
    )
    grown = outpaint(cut, Pad(top=80))
    wide_at = (grown.matte > 127).sum(1)
    assert wide_at[80] > 50
    assert wide_at[0] == 0
    assert (np.diff(wide_at[:80].astype(int)) >= -1).all()


def test_the_photos_own_framing_has_the_photos_own_shape(astronaut: Enrollment) -> None:
    with pytest.raises(BackgroundError, match="own shape"):
        Renderer(astronaut, framing="photo", aspect="16:9")


# --- backgrounds


def drawn(e: Enrollment, background: Background, pose: str = "rest", *, size: int = 256) -> U8:
    renderer = Renderer(e, generator="geometric", size_px=size, background=background)
    return renderer.render(posed(e, pose))


def test_a_colour_is_exactly_that_colour_and_the_face_is_untouched(astronaut: Enrollment) -> None:
    kept, green = drawn(astronaut, Background()), drawn(astronaut, Background("colour", colour=(0, 255, 0)))
    assert (green[:40, :30] == (0, 255, 0)).all()
    assert (green[:40, -30:] == (0, 255, 0)).all()
    view = head_viewport(astronaut, 256)
    x, y = pose_head(MODEL, astronaut, astronaut.motion, view).landmarks_px[4, :2].astype(int)
    face = np.s_[y - 30 : y + 20, x - 25 : x + 25]
    assert np.abs(green[face].astype(int) - kept[face]).max() <= 2


def test_hair_has_no_rim_of_the_old_background(astronaut: Enrollment) -> None:
    """Over black, the light wall that was behind her brown hair must not shine along its edge."""
    black = drawn(astronaut, Background("colour", colour=(0, 0, 0)), size=512)
    alpha = drawn(astronaut, Background("transparent"), size=512)[..., 3].astype(int)
    rim = (alpha > 40) & (alpha < 200)
    rim[250:] = False  # her hair, not her suit
    assert rim.sum() > 300
    shine = black[rim].max(-1) / np.maximum(alpha[rim] / 255, 0.1)
    wall = 190
    assert np.median(shine) < wall - 25


def test_a_picture_stands_behind(astronaut: Enrollment) -> None:
    stripes = np.zeros((100, 200, 3), np.uint8)
    stripes[:, 100:] = (255, 0, 255)
    picture = drawn(astronaut, Background("picture", picture=stripes))
    assert (picture[:40, :30] == 0).all()
    assert (picture[:40, -30:] == (255, 0, 255)).all()


def test_blur_has_no_detail_and_no_halo_of_the_person(astronaut: Enrollment) -> None:
    wide_blur = Renderer(
        astronaut, generator="geometric", aspect="16:9", size_px=360, background=Background("blur")
    ).render(astronaut.motion).astype(float)  # fmt: skip
    plain = Renderer(astronaut, generator="geometric", aspect="16:9", size_px=360).render(astronaut.motion)
    corner = np.s_[:120, 500:]  # the shuttle
    assert np.abs(np.diff(wide_blur[corner], axis=1)).mean() < 0.5 * np.abs(np.diff(plain[corner].astype(float), axis=1)).mean()  # fmt: skip # noqa: E501
    # beside her brown hair the wall stays as light as it is elsewhere
    beside, wall = wide_blur[60:120, 440:455].mean(), plain[60:120, 440:470].mean()
    assert beside == pytest.approx(wall, abs=25)


@pytest.mark.parametrize("pose", ["rest", "left"])
def test_transparent_pictures_are_the_others_before_they_were_laid_down(
    astronaut: Enrollment, pose: str
) -> None:
    rgba = drawn(astronaut, Background("transparent"), pose)
    assert rgba.shape == (256, 256, 4)
    assert (rgba[:40, :30, 3] == 0).all()
    assert (rgba[..., 3] == 255).mean() > 0.2
    alpha = rgba[..., 3:] / 255
    for colour in ((255, 255, 255), (0, 120, 0)):
        expected = rgba[..., :3] * alpha + np.array(colour) * (1 - alpha)
        got = drawn(astronaut, Background("colour", colour=colour), pose)
        assert np.abs(got - expected).max() <= 2


def test_transparent_wide_pictures_have_the_box_and_the_still_alike(astronaut: Enrollment) -> None:
    renderer = Renderer(
        astronaut, generator="geometric", aspect="16:9", size_px=360, background=Background("transparent")
    )
    assert renderer.box != whole(renderer.viewport)
    first, second = renderer.render(astronaut.motion), renderer.render(posed(astronaut, "left"))
    box = renderer.box
    outside = np.ones(first.shape[:2], bool)
    outside[box.top : box.bottom, box.left : box.right] = False
    assert (first[outside] == second[outside]).all()
    border = ring(box, first.shape)
    assert np.abs(first.astype(int) - second)[border].max() <= 2


def test_straight_colours_undo_the_multiplication() -> None:
    rng = np.random.default_rng(3)
    alpha = rng.integers(64, 256, (20, 20, 1))
    colour = rng.integers(0, 256, (20, 20, 3))
    premultiplied = np.dstack([(colour * alpha + 127) // 255, alpha]).astype(np.uint8)
    got = straight(premultiplied)
    assert (got[..., 3:] == alpha).all()
    assert np.abs(got[..., :3].astype(int) - colour).max() <= 3
    assert (straight(np.zeros((4, 4, 4), np.uint8)) == 0).all()


def test_without_a_matte_the_background_stays_and_is_said_so(astronaut: Enrollment) -> None:
    drawing = replace(astronaut, matte=np.full_like(astronaut.matte, 255))
    renderer = Renderer(
        drawing, generator="geometric", size_px=128, background=Background("colour", colour=(0, 255, 0))
    )
    assert renderer.notice is not None
    assert "use another photo" in renderer.notice
    assert not (renderer.render(drawing.motion) == (0, 255, 0)).all(-1).any()
    assert Renderer(drawing, generator="geometric", size_px=128).notice is None


def test_the_still_is_never_drawn_on(wide: Renderer, astronaut: Enrollment) -> None:
    first = wide.render(astronaut.motion)
    first[:] = 0
    assert wide.render(astronaut.motion).any()
    again, twice = wide.render(posed(astronaut, "right")), wide.render(posed(astronaut, "right"))
    assert (again == twice).all()


def test_composite_reads_only_its_own_box() -> None:
    person = np.zeros((10, 12, 4), np.uint8)
    behind = np.full((10, 12, 3), 77, np.uint8)
    assert (composite(person, behind) == 77).all()
