"""The UV maps of a photo: they draw it again, know what it shows, and fill the rest from the other side."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.hair import curtain_weight, scalp_weight
from calibration.uv_maps import draw_uv_maps, mirrored_uv, with_uv_maps
from engines.enrollment import UV_POSITION_SIDE_PX, Enrollment
from engines.geometry import rotation_from_degrees, rotation_matrix, rotation_vector
from engines.head.model import Part, load_head_model
from engines.raster.conditioning import lookup_map
from engines.raster.gbuffer import GBuffer, rasterise
from engines.raster.pose import head_viewport, photo_viewport, pose_head
from engines.raster.resample import resample
from tests.ears import on_ears

U8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]
MODEL = load_head_model()


def psnr_db(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)))


def as_bytes(share: NDArray[np.float32]) -> U8:
    return np.rint(share * 255).astype(np.uint8)


def drawn(e: Enrollment, size: int, yaw: float = 0) -> tuple[GBuffer, U8, U8]:
    """(G-buffer, colour, visibility) of the head turned by `yaw`, both 0 where nothing is drawn."""
    turn = rotation_matrix(rotation_from_degrees(yaw, 0, 0)) @ rotation_matrix(e.motion.rotation_rad)
    motion = replace(e.motion, rotation_rad=rotation_vector(turn).astype(np.float32))
    view = head_viewport(e, size)
    g = rasterise(MODEL, pose_head(MODEL, e, motion, view), view, size)
    covered = (g.part > 0).astype(np.uint8)
    colour = as_bytes(lookup_map(e.uv_colour, g.uv)) * covered[..., None]
    return g, colour, as_bytes(lookup_map(e.uv_visibility, g.uv)) * covered


def well_inside(e: Enrollment, size: int) -> Mask:
    """The person without the matte's rim, whose colours may be the background's."""
    matte = resample(e.matte, head_viewport(e, size), 0, (size, size))
    reach = round(0.02 * size)
    return cv2.erode(matte, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)) > 250


def test_the_colours_draw_the_photo_again(astronaut: Enrollment) -> None:
    size = 256
    g, colour, seen = drawn(astronaut, size)
    photo = resample(astronaut.photo, g.viewport, 0, (size, size))
    mask = (g.part == Part.SKIN) & (seen > 250) & well_inside(astronaut, size)
    assert mask.mean() > 0.2
    print(f"the UV colours at {size} px: {psnr_db(colour[mask], photo[mask]):.1f} dB")
    assert psnr_db(colour[mask], photo[mask]) >= 35


def test_positions_lead_back_into_the_photo(astronaut: Enrollment) -> None:
    g, _, seen = drawn(astronaut, 256)
    at = lookup_map(astronaut.uv_position_px, g.uv)
    y, x = np.nonzero((seen > 250) & (g.part == Part.SKIN))
    centres = np.stack([x + 0.5, y + 0.5], -1) / g.viewport.scale + (
        g.viewport.origin_x_px,
        g.viewport.origin_y_px,
    )
    off = np.linalg.norm(at[y, x] - centres, axis=1)
    assert np.median(off) < 0.05
    ears = on_ears(g.uv)[y, x]
    assert np.percentile(off[~ears], 99) < 0.2
    assert np.percentile(off[ears], 95) < 1


def test_at_its_own_pose_nearly_all_is_seen(astronaut: Enrollment) -> None:
    g, _, seen = drawn(astronaut, 256)
    assert (seen[g.part == Part.SKIN] > 128).mean() > 0.8


@pytest.mark.parametrize(
    ("yaw", "near", "far"), [(45, slice(0, 128), slice(128, 256)), (-45, slice(128, 256), slice(0, 128))]
)
def test_a_turned_head_shows_what_the_photo_does_not(
    astronaut: Enrollment, yaw: float, near: slice, far: slice
) -> None:
    """Turned to the picture's right, the side that comes into view at the left is unseen, but for hair."""
    g, _, seen = drawn(astronaut, 256, yaw)
    skin = g.part == Part.SKIN
    unseen = skin & (seen < 64)
    assert unseen.mean() > 0.01
    assert unseen[:, near].sum() > 2 * unseen[:, far].sum()


def test_what_faces_away_is_not_seen(astronaut: Enrollment) -> None:
    mesh = pose_head(MODEL, astronaut, astronaut.motion, photo_viewport(astronaut))
    facing = -MODEL.normals(mesh.vertices_px)[:, 2]
    seen = lookup_map(astronaut.uv_visibility, MODEL.uv[None])[0] * 255
    skin = np.unique(MODEL.triangles[MODEL.part == Part.SKIN])
    hair = np.maximum(scalp_weight(MODEL), curtain_weight(MODEL))  # goes on behind as it is in front
    away = facing < -0.2
    assert np.percentile(seen[skin][(away & (hair < 0.1))[skin]], 99) < 64
    assert (seen[skin][(away & (hair > 0.9))[skin]] > 200).mean() > 0.1  # what lies behind the face does not
    front = MODEL.landmark_vertices[[4, 50, 280, 151, 205, 425]].ravel()
    assert seen[front].min() > 200
    # nor what lies in the mouth behind lips, or teeth behind teeth
    tongue = np.unique(MODEL.triangles[MODEL.part == Part.TONGUE])
    assert np.median(seen[tongue]) < 30


@pytest.mark.slow
def test_the_maps_are_what_an_enrollment_says(astronaut: Enrollment) -> None:
    side = UV_POSITION_SIDE_PX
    assert astronaut.uv_position_px.shape == (side, side, 2)
    assert astronaut.uv_position_px.dtype == np.float32
    for name, channels in (("uv_visibility", ()), ("uv_colour", (3,)), ("uv_pncc", (3,))):
        assert getattr(astronaut, name).shape == (side, side, *channels)
        assert getattr(astronaut, name).dtype == np.uint8
    small = draw_uv_maps(MODEL, astronaut, 64)
    assert small.colour.shape == (64, 64, 3)
    again = with_uv_maps(MODEL, astronaut)
    assert (again.uv_colour == astronaut.uv_colour).all()
    assert (again.uv_visibility == astronaut.uv_visibility).all()


def test_pncc_is_looked_up_as_the_mean_heads_place(astronaut: Enrollment) -> None:
    g, _, _ = drawn(astronaut, 256)
    code = lookup_map(astronaut.uv_pncc, g.uv)
    skin = g.part == Part.SKIN
    y, x = np.nonzero(skin)
    # right cheek low, left cheek high; forehead low, chin high
    assert np.corrcoef(code[..., 0][skin], x)[0, 1] > 0.97
    assert np.corrcoef(code[..., 1][skin], y)[0, 1] > 0.97


def test_the_mirror_leads_to_the_other_side_and_back(astronaut: Enrollment) -> None:
    side = 256
    other = mirrored_uv(MODEL, side)
    at = (MODEL.landmarks(MODEL.uv) * side - 0.5).astype(np.float32)
    for right, left in ((50, 280), (205, 425), (61, 291), (123, 352), (70, 300)):
        there = other[round(float(at[right, 1])), round(float(at[right, 0]))]
        assert np.linalg.norm(there - 0.5 - at[left]) < 3


def half_hidden(e: Enrollment, left: bool) -> Enrollment:
    """The same photo, in which only one half of the face counts as the person."""
    matte = e.matte.copy()
    middle = int(e.landmarks_px[4, 0])
    if left:
        matte[:, middle + 6 :] = 0
    else:
        matte[:, : middle - 6] = 0
    return replace(e, matte=matte)


@pytest.mark.slow
@pytest.mark.parametrize("left", [True, False])
def test_holes_are_filled_from_the_other_side(astronaut: Enrollment, left: bool) -> None:
    """Half a face hidden: the cheek takes the other cheek's colour and detail, not the wall's."""
    e = half_hidden(astronaut, left)
    maps = draw_uv_maps(MODEL, e)
    places = MODEL.landmarks(MODEL.uv) * maps.colour.shape[0]
    hidden, shown = (280, 50) if left else (50, 280)  # cheeks
    colours: list[NDArray[np.floating]] = []
    for k in (hidden, shown):
        u, v = places[k].astype(int)
        colours.append(maps.colour[v - 4 : v + 5, u - 4 : u + 5].reshape(-1, 3).mean(0))
    assert np.abs(colours[0] - colours[1]).max() < 25
    wall = e.photo[10:40, 110:140].reshape(-1, 3).mean(0)
    assert np.abs(colours[0] - wall).max() > 15


@pytest.mark.slow
def test_a_hole_gets_the_other_sides_mark(astronaut: Enrollment) -> None:
    """Paint one cheek blue and hide the other: both are blue."""
    photo = astronaut.photo.copy()
    x, y = astronaut.landmarks_px[50, :2].astype(int)
    cv2.circle(photo, (int(x), int(y)), 7, (20, 40, 220), -1)
    maps = draw_uv_maps(MODEL, half_hidden(replace(astronaut, photo=photo), left=True))
    u, v = (MODEL.landmarks(MODEL.uv)[280] * maps.colour.shape[0]).astype(int)
    red, _, blue = maps.colour[v - 1 : v + 2, u - 1 : u + 2].reshape(-1, 3).mean(0)
    assert blue > red + 40
    # with both in sight each keeps its own
    own = draw_uv_maps(MODEL, replace(astronaut, photo=photo))
    red, _, blue = own.colour[v - 1 : v + 2, u - 1 : u + 2].reshape(-1, 3).mean(0)
    assert red > blue


def test_a_wall_of_any_colour_is_not_on_the_head(astronaut: Enrollment) -> None:
    photo = astronaut.photo.copy()
    alpha = (astronaut.matte / 255.0)[..., None]
    photo = (photo * alpha + np.array([0, 255, 0]) * (1 - alpha) + 0.5).astype(np.uint8)
    e = with_uv_maps(MODEL, replace(astronaut, photo=photo))
    for yaw in (0, 40, -40):
        g, colour, _ = drawn(e, 256, yaw)
        skin = colour[g.part == Part.SKIN].astype(int)
        green = skin[:, 1] > np.maximum(skin[:, 0], skin[:, 2]) + 60
        assert green.mean() < 0.005
