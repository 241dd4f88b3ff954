"""The inside of the mouth: teeth, tongue and cavity as shaded geometry; the photo's own teeth where they show."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.generators.geometric.limits import (
    CAVITY,
    INSIDE_DEEPEST,
    INSIDE_DEPTH_HU,
    INSIDE_NEAREST,
    INSIDE_SIGMA_PX,
    LOWER_TEETH,
    TONGUE,
    UPPER_TEETH,
)
from engines.generators.geometric.mouth import Mouth, interior_of
from engines.generators.geometric.open_mouth import OpenMouth, open_mouth
from engines.generators.geometric.patch import Patch
from engines.geometry import Similarity
from engines.head.model import HeadModel
from engines.raster.gbuffer import HeadMesh, draw_triangles, front_facing

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


def mouth_inside(
    mouth: Mouth, model: HeadModel, mesh: HeadMesh, photo_pose: Similarity, size_px: tuple[int, int]
) -> Patch | None:
    """What a picture of `size_px` (width, height) shows between the inner lips of a posed head; None: nothing.

    A small rasterisation of its own at the picture's full resolution: teeth are too fine for the G-buffer's
    grid.
    """
    seen = open_mouth(mouth, mesh, photo_pose, *size_px)
    if seen is None or (seen.seam is None and seen.mask is None):
        return None
    x0, y0, x1, y1 = seen.box
    size = (x1 - x0, y1 - y0)
    colour, alpha = np.zeros((size[1], size[0], 3), np.float32), np.zeros((size[1], size[0], 1), np.float32)
    if seen.seam is not None:
        colour, alpha = np.asarray(mouth.seam_rgb * seen.seam, np.float32), seen.seam
    if seen.mask is None:
        return Patch(seen.box, colour, alpha)
    inside = _draw_interior(mouth, model, mesh, seen)
    inside *= _lip_shadow(size[1], seen.gap_hu) * _corner_shadow(
        seen.sides_px[0] - x0, seen.sides_px[1] - x0, size[0]
    )
    if mouth.has_photo:
        own = cv2.warpAffine(mouth.photo, seen.affine, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        own *= np.float32(seen.own_lit)
        inside *= 1 - own[..., 3:] / 255
        inside += own[..., :3]
    clear = 1 - seen.mask
    drawn = np.asarray(colour * clear + inside * seen.mask, np.float32)
    return Patch(seen.box, drawn, alpha * clear + seen.mask)


def _draw_interior(mouth: Mouth, model: HeadModel, mesh: HeadMesh, seen: OpenMouth) -> F32:
    """Cavity, tongue and teeth (h, w, 3) float32 0 … 255 in a window (x0, y0, x1, y1) of the picture."""
    x0, y0, x1, y1 = seen.box
    interior = interior_of(model)
    vertices = mesh.vertices_px.copy()
    vertices[interior.upper_teeth] += seen.teeth_px
    vertices[interior.lower_teeth] += seen.lower_teeth_px
    vertices[interior.tongue] += seen.tongue_px
    facing = front_facing(vertices, interior.triangles)
    corners = vertices[interior.triangles[facing].ravel()] - np.array([x0, y0, 0], np.float32)
    out = np.empty((y1 - y0, x1 - x0, 3), np.float32)
    # a head that ends at its lips (FLAME, BFM) has no wall before the dark: then what there is stands for it
    out[:] = mouth.cavity_rgb * (INSIDE_DEEPEST if len(interior.triangles) else 0.7)
    if not facing.any():
        return out
    drawn, depth = draw_triangles(corners, interior.colours[facing].reshape(-1, 3), x1 - x0, y1 - y0)
    kind = drawn[..., 2]
    # the rasteriser counts depth from its own camera: bring it back to pixels behind the lips
    behind = depth - 64.0 * (y1 - y0) + float(corners[:, 2].mean()) - seen.lip_px
    light = np.exp(-np.maximum(behind, 0) / (INSIDE_DEPTH_HU * mesh.pose.scale)).astype(np.float32)[..., None]
    cavity = np.abs(kind - CAVITY) < 0.1
    out[cavity] = (mouth.cavity_rgb * light)[cavity]
    # the floor before the tongue is as red as it is, no dark thread between it and the wall; soft, it swallows light
    red = np.logical_or.accumulate(np.abs(kind - TONGUE) < 0.1, 0)
    out[red] = (mouth.tongue_rgb * np.minimum(light, INSIDE_NEAREST) ** 2)[red]
    kernel = _kernel(seen.thread_px)
    out = np.asarray(cv2.morphologyEx(out, cv2.MORPH_CLOSE, kernel), np.float32)
    for code, texture in ((UPPER_TEETH, mouth.teeth[0]), (LOWER_TEETH, mouth.teeth[1])):
        # of teeth that hardly reach out of the gum no thread shows
        own = cv2.morphologyEx((np.abs(kind - code) < 0.1).astype(np.uint8), cv2.MORPH_OPEN, kernel) > 0
        if own.any():
            rows, columns = texture.shape[:2]
            colour = cv2.remap(
                texture,
                drawn[..., 0] * columns - np.float32(0.5),
                drawn[..., 1] * rows - np.float32(0.5),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            lit = mouth.cavity_rgb + np.float32(seen.lit) * (
                colour * (0.25 + 0.75 * light * light) - mouth.cavity_rgb
            )
            shown = 1 - seen.hidden if code == UPPER_TEETH else 1.0
            out[own] += shown * (lit[own] - out[own])
    return cv2.GaussianBlur(out, (0, 0), INSIDE_SIGMA_PX).astype(np.float32)


@lru_cache(maxsize=8)
def _kernel(side: int) -> U8:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _lip_shadow(height: int, gap_hu: float) -> F32:
    """The upper lip shades what is right below it."""
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    depth = 0.45 if gap_hu > 0.03 else 0.25
    return (1 - depth * np.exp(-rows / 0.22)).astype(np.float32)


def _corner_shadow(left: float, right: float, width: int) -> F32:
    """(1, width, 1): towards the corners it is dark; what teeth are drawn there do not shine."""
    place = np.abs((np.arange(width) + 0.5 - left) / max(right - left, 1e-3) * 2 - 1)
    return (1 - 0.6 * np.clip((place - 0.7) / 0.3, 0, 1) ** 2).astype(np.float32)[None, :, None]
