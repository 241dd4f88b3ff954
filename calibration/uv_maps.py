"""The UV maps of an enrolled photo: where each texel is, whether it shows, its colour, its PNCC."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from calibration.hair import curtain_weight, scalp_weight
from engines.enrollment import UV_POSITION_SIDE_PX, Enrollment
from engines.head.model import HeadModel, Part
from engines.picture.push_pull import push_pull
from engines.raster.gbuffer import HeadMesh, Viewport, draw_in_uv, rasterise
from engines.raster.pose import photo_viewport, pose_head

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

_SEEN_SIDE_PX = 640
_SAME_TEXEL = 5.0  # texels: further apart, another part of the head is in front
_GRAZING, _FACING = 0.12, 0.35  # cosines: below the first a surface is seen too obliquely to be copied
_MATTE_SEEN, _MATTE_WHOLE = 160, 235
_RIM_SHARE = 0.025  # of the crop: a matte this close to its edge may hold background


@dataclass(frozen=True, slots=True)
class UvMaps:
    """`position_px` (S, S, 2) photo pixels, `visibility` (S, S), `colour` (S, S, 3), `pncc` (S, S, 3) uint8."""

    position_px: F32
    visibility: U8
    colour: U8
    pncc: U8


def with_uv_maps(model: HeadModel, enrollment: Enrollment) -> Enrollment:
    """The enrollment with all its UV maps drawn."""
    maps = draw_uv_maps(model, enrollment)
    return replace(
        enrollment,
        uv_position_px=maps.position_px,
        uv_visibility=maps.visibility,
        uv_colour=maps.colour,
        uv_pncc=maps.pncc,
    )


def draw_uv_maps(model: HeadModel, enrollment: Enrollment, side_px: int = UV_POSITION_SIDE_PX) -> UvMaps:
    """Draw the maps of a photo: O_c of paper 001 is the visibility, I_r of 000 the colour (holes filled)."""
    mesh = pose_head(model, enrollment, enrollment.motion, photo_viewport(enrollment))
    position = draw_in_uv(model, np.ascontiguousarray(mesh.vertices_px[:, :2]), side_px)
    visible, seen, behind = _visibility(model, enrollment, mesh, position)
    # background that shows at the mesh's rim is no colour of the head
    rim = max(3, round(enrollment.crop_px[2] * _RIM_SHARE)) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (rim, rim))
    person = np.asarray(cv2.erode(enrollment.matte, kernel), np.uint8)
    matte = _sample(np.repeat(person[..., None], 3, 2), position)[..., 0]
    visible = np.maximum(visible, behind)
    own = visible * (matte > _MATTE_SEEN)
    whole = _sample(np.repeat(enrollment.matte[..., None], 3, 2), position)[..., 0]
    shown = seen * (whole > _MATTE_WHOLE)
    photo = _sample(enrollment.photo, position)
    colour = _fill(model, photo, own.astype(np.float32), shown.astype(np.float32))
    return UvMaps(
        position,
        (visible * 255 + 0.5).astype(np.uint8),
        colour,
        np.clip(_pncc_map(model, side_px) * 255 + 0.5, 0, 255).astype(np.uint8),
    )


def _sample(image: U8, position_px: F32) -> U8:
    return cv2.remap(
        image,
        position_px[..., 0] - np.float32(0.5),
        position_px[..., 1] - np.float32(0.5),
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.uint8)


def _visibility(
    model: HeadModel, enrollment: Enrollment, mesh: HeadMesh, position: F32
) -> tuple[F32, F32, F32]:
    """(S, S) 0 … 1 three times: the photo's own G-buffer shows this very texel there, not too obliquely; the first
    keeps away from where it ends, the second does not. The third: hair that lies obliquely or behind hair, and so
    looks like the hair that the photo shows in the same place: over the contour strands go on as their mirror image."""
    left, top, side = enrollment.crop_px
    scale = _SEEN_SIDE_PX / side
    window = Viewport(left, top, scale, _SEEN_SIDE_PX, _SEEN_SIDE_PX)
    seen = rasterise(
        model,
        HeadMesh(window.from_photo(mesh.vertices_px).astype(np.float32), mesh.pose),
        window,
        _SEEN_SIDE_PX,
    )
    x = ((position[..., 0] - left) * scale).astype(np.float32)
    y = ((position[..., 1] - top) * scale).astype(np.float32)
    xi, yi = np.floor(x).astype(int), np.floor(y).astype(int)
    inside = (xi >= 0) & (yi >= 0) & (xi < _SEEN_SIDE_PX) & (yi < _SEEN_SIDE_PX)
    xi, yi = np.clip(xi, 0, _SEEN_SIDE_PX - 1), np.clip(yi, 0, _SEEN_SIDE_PX - 1)
    size = position.shape[0]
    row, column = np.mgrid[0:size, 0:size]
    own = np.stack([(column + 0.5) / size, (row + 0.5) / size], -1).astype(np.float32)
    near = np.linalg.norm(seen.uv[yi, xi] - own, axis=-1) * size < _SAME_TEXEL
    covered = seen.part[yi, xi] > 0
    normal = model.normals(mesh.vertices_px)
    facing = draw_in_uv(model, np.ascontiguousarray(np.repeat(-normal[:, 2:], 3, 1)), size)[..., 0]
    clear = np.clip((facing - _GRAZING) / (_FACING - _GRAZING), 0, 1)
    height, width = enrollment.photo.shape[:2]
    inside &= (position[..., 0] > 0) & (position[..., 1] > 0)
    inside &= (position[..., 0] < width) & (position[..., 1] < height)
    hard = (near & covered & inside).astype(np.uint8)
    hard = cv2.morphologyEx(hard, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)).astype(np.float32)
    sure = cv2.GaussianBlur(cv2.erode(hard, np.ones((3, 3), np.uint8)), (0, 0), 1.2) * clear
    # eyes and the mouth's inside lie in narrow openings: a rim or a slant is no reason to doubt them
    skin = np.isin(_islands(model, size), (0, Part.SKIN))
    hair = _hair_map(model, size)
    before = cv2.remap(hair, seen.uv[..., 0] * size - 0.5, seen.uv[..., 1] * size - 0.5, cv2.INTER_LINEAR)
    before = cv2.erode(np.where(seen.part > 0, before, 1), np.ones((5, 5), np.uint8))
    before = cv2.GaussianBlur(before, (0, 0), 1.5)
    behind = hair * before[yi, xi] * inside
    return (
        np.where(skin, sure, hard).astype(np.float32),
        np.where(skin, hard * clear, hard).astype(np.float32),
        behind.astype(np.float32),
    )


# what the model alone decides is drawn once; shared, so never changed in place
@lru_cache(maxsize=2)
def _pncc_map(model: HeadModel, size: int) -> F32:
    return draw_in_uv(model, model.pncc(), size)


@lru_cache(maxsize=2)
def _scalp_map(model: HeadModel, size: int) -> F32:
    """(S, S) 0 … 1: where hair can grow."""
    drawn = draw_in_uv(model, np.repeat(scalp_weight(model)[:, None], 3, 1), size)
    return np.clip(drawn[..., 0] * 1.3, 0, 1)


@lru_cache(maxsize=2)
def _hair_map(model: HeadModel, size: int) -> F32:
    """(S, S) 0 … 1: where hair can grow or hang."""
    weight = np.maximum(scalp_weight(model), curtain_weight(model))
    drawn = draw_in_uv(model, np.repeat(weight[:, None], 3, 1), size)[..., 0]
    return np.clip((drawn - 0.3) / 0.4, 0, 1) * np.isin(_islands(model, size), (Part.SKIN,))


@lru_cache(maxsize=2)
def _islands(model: HeadModel, size: int) -> U8:
    """(S, S) `Part` + 1 of each texel, 0 off the atlas."""
    out = np.zeros((size, size), np.uint8)
    for part in (Part.SKIN, Part.MOUTH, Part.TEETH, Part.TONGUE, Part.SOCKET, Part.EYE):
        corners = np.rint(model.uv[model.triangles[model.part == part]] * size * 16 - 8).astype(np.int32)
        for triangle in corners:
            cv2.fillConvexPoly(out, triangle, int(part), cv2.LINE_8, 4)
    return out


@lru_cache(maxsize=2)
def mirrored_uv(model: HeadModel, size: int) -> F32:
    """(S, S, 2) texel position of the other side's texel: the atlas position of each vertex's mirror image."""
    mean = model.mean_hu
    part = np.zeros(len(mean), np.uint8)
    part[model.triangles.ravel()] = np.repeat(model.part, 3)
    uv = model.uv.copy()
    for kind in np.unique(part):
        own = np.flatnonzero(part == kind)
        _, near = KDTree(mean[own]).query(mean[own] * np.array([-1, 1, 1], np.float32))
        uv[own] = model.uv[own[near]]
    return draw_in_uv(model, np.ascontiguousarray(uv), size) * size


def _fill(model: HeadModel, colour: U8, visible: F32, shown: F32) -> U8:
    """Holes take the other side's colour where that shows, and what diffuses in from around elsewhere.

    `visible` (S, S) is what holes may be filled from, `shown` (S, S) what is kept as the photo has it.
    """
    size = colour.shape[0]
    other = mirrored_uv(model, size) - 0.5
    x, y = other[..., 0].astype(np.float32), other[..., 1].astype(np.float32)
    there = cv2.remap(colour, x, y, cv2.INTER_LINEAR).astype(np.float32)
    there_visible = cv2.remap(visible, x, y, cv2.INTER_LINEAR)
    base = colour.astype(np.float32)
    skin = _islands(model, size)
    scalp = _scalp_map(model, size)
    out = base.copy()
    for part in (Part.SKIN, Part.EYE, Part.SOCKET, Part.MOUTH, Part.TEETH, Part.TONGUE):
        mask = cv2.dilate((skin == part).astype(np.uint8), np.ones((7, 7), np.uint8))
        own = mask > 0
        x0, y0, wide, high = cv2.boundingRect(mask)
        box = np.s_[y0 : y0 + high, x0 : x0 + wide]  # colours are mixed here alone: most islands are small
        if part in (Part.MOUTH, Part.TEETH, Part.TONGUE):
            sight = np.where(own, shown, 0).astype(np.float32)
            inside = np.empty_like(base[box])
            inside[:] = _INTERIOR[part]
            if float(sight.sum()) > _SOME_TEXELS:  # beside what shows it goes on as it shows
                near = np.clip(cv2.GaussianBlur(sight, (0, 0), 3.0) * 4, 0, 1)[box][..., None]
                inside += near * (push_pull(base, sight)[box] - inside)
            seen = sight[box][..., None]
            out[box][own[box]] = (base[box] * seen + inside * (1 - seen))[own[box]]
            continue
        weight = np.where(own, visible, 0).astype(np.float32)
        mirror = np.where(own, np.clip(there_visible - weight, 0, 1), 0).astype(np.float32)
        known = np.maximum(weight, 0.6 * mirror)
        mixed = np.zeros_like(base)
        lit = there
        if part == Part.SKIN:
            # the other side in this side's light: by what differs where both show, spread over where one does
            differ = np.asarray(base - there, np.float32)
            alike = np.abs(cv2.blur(differ, (5, 5))).max(2) < _LIT_OTHERWISE  # else hair here and skin there
            both = (alike & (weight > 0.9) & (there_visible > 0.9)).astype(np.float32)
            if float(both.sum()) > _SOME_TEXELS:
                lit = there + cv2.GaussianBlur(push_pull(differ, both), (0, 0), 3.0)
        mixed[box] = base[box] * weight[box][..., None] + lit[box] * mirror[box][..., None]
        mixed[box] /= np.maximum(weight[box] + mirror[box], 1e-3)[..., None]
        if part in (Part.SOCKET,) or float(known.sum()) < 30:
            known, mixed = np.where(skin == Part.SKIN, visible, 0).astype(np.float32), base
        weight_known = (known > 0.35).astype(np.float32) * known
        mixed = np.asarray(mixed, np.float32)
        smooth = push_pull(mixed, weight_known)
        if part == Part.SKIN:
            # a skull's back is hair, not the mean of hair and cheeks
            grows = weight_known * (known > 0.8)
            for least in (0.95, 0.6, 0.3):
                if float((grows * (scalp > least)).sum()) > 200:
                    hair = push_pull(mixed, (grows * (scalp > least)).astype(np.float32))
                    smooth = smooth + (hair - smooth) * scalp[..., None]
                    break
            smooth = smooth + _hair_grain(mixed, known > 0.8, scalp)
        sure, smooth = known[box][..., None], smooth[box]
        filled = np.where(sure > 0.35, mixed[box] * sure + smooth * (1 - sure), smooth)
        exact = np.where(own, np.maximum(weight, shown), 0)[box][..., None]
        out[box][own[box]] = (base[box] * exact + filled * (1 - exact))[own[box]]
    return np.clip(out + 0.5, 0, 255).astype(np.uint8)


def _hair_grain(image: F32, known: NDArray[np.bool_], scalp: F32) -> F32:
    """(S, S, 3) fine detail of hair for the whole scalp: the largest patch that shows, tiled in mirror images."""
    size = image.shape[0]
    half, x, y = 0, 0, 0
    for least in (0.9, 0.6, 0.3):
        # the atlas ends at the picture's edge, and the patch with it
        own = np.pad((known & (scalp > least)).astype(np.uint8), 1)
        inside = cv2.distanceTransform(own, cv2.DIST_L2, 5)[1:-1, 1:-1]
        _, radius, _, (x, y) = cv2.minMaxLoc(inside)
        half = int(radius * 0.7)
        if half >= _SMALLEST_PATCH:
            break
    if half < _SMALLEST_PATCH:
        return np.zeros_like(image)
    patch = image[y - half : y + half, x - half : x + half]
    # strands, not the shading they lie in, and nothing as strong as a hairline
    patch = np.clip(patch - cv2.GaussianBlur(patch, (0, 0), _STRAND_TEXELS), -_STRONGEST, _STRONGEST)
    row = np.concatenate([patch, patch[:, ::-1]], 1)
    tile = np.concatenate([row, row[::-1]], 0)
    times = -(-size // tile.shape[0])
    grain = np.tile(tile, (times, times, 1))[:size, :size]
    return (grain * scalp[..., None]).astype(np.float32)


_SMALLEST_PATCH = 5  # texels
_STRAND_TEXELS = 3.0
_STRONGEST = 32.0
_SOME_TEXELS = 20
_LIT_OTHERWISE = 60.0  # levels: more than this is no light
_INTERIOR = {Part.MOUTH: (70, 28, 28), Part.TEETH: (214, 204, 190), Part.TONGUE: (150, 78, 78)}
