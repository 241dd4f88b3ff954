"""The inside of the mouth: teeth, tongue and cavity as shaded geometry; the photo's own teeth where they show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.generators.geometric.masks import planar_map, polygon_mask, region, smooth_lips
from engines.geometry import F64, Similarity
from engines.head.landmark_names import LIPS_INNER, LOWER_LIP, UPPER_LIP
from engines.head.model import HeadModel, Part
from engines.motion import ARKIT_INDEX
from engines.raster.gbuffer import HeadMesh, draw_triangles, extend, front_facing

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

PX_PER_HU = 320.0
_OPEN_IN_PHOTO_HU = 0.035  # lips this far apart show something of the photo's own mouth
# Half-widths along the arch from the middle outwards: incisors, canine, premolars, molars.
_TEETH_HU = (0.043, 0.033, 0.038, 0.035, 0.035, 0.05, 0.05)
_ARCH_HU = 0.6  # half the arch that the tooth texture covers
_ROOM_HU = 0.16  # the texture's height: tooth and gum
_UPPER_CROWN_HU, _LOWER_CROWN_HU = 0.1, 0.085
_TEETH_SHOW_HU = 0.032  # the upper teeth show this far below the lip when the mouth opens


@dataclass(frozen=True, slots=True)
class Mouth:
    """What `prepare` knows of one person's mouth. Colours are RGB float32 0 … 255 under the photo's light."""

    cavity_rgb: F32  # (3,)
    tongue_rgb: F32  # (3,)
    gum_rgb: F32  # (3,)
    teeth: tuple[F32, F32]  # upper, lower: (h, w, 3) over arch and height
    photo: F32  # (h, w, 4) premultiplied: the photo's own mouth interior, alpha 0 when its lips are closed
    photo_anchor_px: F64  # the photo's upper lip, in pixels of `photo`
    photo_gap_hu: float  # how far apart the photo's lips are
    own_teeth: bool  # whether the photo shows whole upper teeth: then none are drawn
    photo_lip_hu: F32  # (3,) the photo's upper lip on the head: what its teeth hang on
    rest_lip_hu: F32  # (3,) the upper lip without expression
    seam_rgb: F32  # (3,) where closed lips meet, in a photo whose own are apart

    @property
    def has_photo(self) -> bool:
        """Whether the photo shows the inside of the mouth."""
        return bool(self.photo[..., 3].max() > 0)


def make_mouth(
    model: HeadModel, enrollment: Enrollment, canvas: U8, points_px: F32, pose: Similarity
) -> Mouth:
    """Colours under the photo's light, and the photo's own teeth; `points_px` (478, 2) in canvas pixels."""
    photo, anchor = _photo_teeth(canvas, points_px, pose.scale)
    gap_hu = float(np.linalg.norm(points_px[UPPER_LIP] - points_px[LOWER_LIP])) / pose.scale
    # skin brightness lights the drawn teeth: a dark photo must not show glowing ones
    face = canvas[..., :3].reshape(-1, 3)[_face_pixels(points_px, canvas.shape)]
    skin = np.median(face, 0).astype(np.float32) if len(face) else np.array([170, 130, 110], np.float32)
    light = float(np.clip(skin.mean() / 165, 0.35, 1.15))
    warm = 0.8 + 0.2 * skin / max(float(skin.mean()), 1.0)
    enamel = np.asarray(light * warm, np.float32)
    gum = np.array([172, 96, 92], np.float32) * light
    upper = np.array([236, 228, 212], np.float32) * enamel
    lower = np.array([222, 213, 196], np.float32) * enamel
    own = _own_enamel(photo, skin)
    if own is not None:
        upper, lower = own, own * np.float32(0.94)
    shape = model.decode(enrollment.neutral_hu, enrollment.motion.expression)
    return Mouth(
        cavity_rgb=np.array([70, 26, 26], np.float32) * light,
        tongue_rgb=np.array([190, 104, 102], np.float32) * light,
        gum_rgb=gum,
        teeth=(
            _tooth_texture(_UPPER_CROWN_HU, upper, gum),
            _tooth_texture(_LOWER_CROWN_HU, lower, gum, 0.8),
        ),
        photo=photo,
        photo_anchor_px=anchor,
        photo_gap_hu=gap_hu,
        own_teeth=own is not None and gap_hu > _WHOLE_TEETH_HU,
        photo_lip_hu=model.landmarks(shape)[UPPER_LIP].astype(np.float32),
        rest_lip_hu=model.landmarks(enrollment.neutral_hu)[UPPER_LIP].astype(np.float32),
        seam_rgb=_lip_colour(canvas, points_px) * np.float32(0.8),
    )


def _photo_teeth(canvas: U8, points_px: F32, scale: float) -> tuple[F32, F64]:
    lips = points_px[list(LIPS_INNER)].astype(np.float64)
    gap_hu = float(np.linalg.norm(points_px[UPPER_LIP] - points_px[LOWER_LIP])) / scale
    pad = int(np.ceil(0.1 * scale))
    low = np.maximum(np.floor(lips.min(0)).astype(int) - pad, 0)
    high = np.minimum(np.ceil(lips.max(0)).astype(int) + pad, [canvas.shape[1], canvas.shape[0]])
    cut = canvas[low[1] : high[1], low[0] : high[0], :3].astype(np.float32)
    alpha = np.zeros(cut.shape[:2], np.uint8)
    anchor = points_px[UPPER_LIP].astype(np.float64) - low
    if gap_hu <= _OPEN_IN_PHOTO_HU or not alpha.size:
        return np.zeros((*cut.shape[:2], 4), np.float32), anchor
    centre = lips.mean(0)
    inner = centre + (lips - centre) * (0.97, 0.88)
    cv2.fillPoly(alpha, [np.rint((inner - low - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(alpha.astype(np.float32) / 255, (0, 0), max(0.6, scale / 160))
    # lips that draw back show more than the photo did: continue its teeth a little, then fade
    reach = cv2.distanceTransform((alpha < 128).astype(np.uint8), cv2.DIST_L2, 5) / scale
    rows = np.arange(cut.shape[0])[:, None] + low[1]
    above = np.clip((lips[:, 1].mean() - rows) / (0.02 * scale), 0, 1)
    soft = np.maximum(soft, np.clip(1 - reach / 0.07, 0, 1) * above).astype(np.float32)
    filled = extend(cut, alpha > 220)
    blurred = cv2.GaussianBlur(filled, (0, 0), max(0.8, scale / 60))
    cut = np.where((alpha > 220)[..., None], cut, blurred * 0.9)
    return np.dstack([cut * soft[..., None], soft * 255]).astype(np.float32), anchor


def _own_enamel(photo: F32, skin: F32) -> F32 | None:
    """Colour (3,) of the teeth that the photo's mouth (h, w, 4) shows; None where it shows none."""
    inside = photo[photo[..., 3] > 250][:, :3]
    if not len(inside):
        return None
    bright = inside[inside.mean(1) > _BRIGHT_SHARE * skin.mean()]
    pale = bright[bright.min(1) > _PALE_SHARE * bright.max(1)]
    return np.median(pale, 0).astype(np.float32) if len(pale) > _TEETH_SHARE * len(inside) else None


_WHOLE_TEETH_HU = 0.07  # lips this far apart show teeth down to their edges
_BRIGHT_SHARE, _PALE_SHARE, _TEETH_SHARE = 0.75, 0.6, 0.3  # of the skin's brightness, of red, of what shows


def _lip_colour(canvas: U8, points_px: F32) -> F32:
    """Median colour (3,) midway between the inner and outer contour of both lips."""
    middle = (points_px[list(_LIP_BETWEEN[0])] + points_px[list(_LIP_BETWEEN[1])]) / 2
    x = np.clip(middle[:, 0].astype(int), 0, canvas.shape[1] - 1)
    y = np.clip(middle[:, 1].astype(int), 0, canvas.shape[0] - 1)
    return np.median(canvas[y, x, :3], 0).astype(np.float32)


_LIP_BETWEEN = (
    (13, 82, 312, 14, 87, 317),
    (0, 37, 267, 17, 84, 314),
)  # inner and outer landmarks side by side


def _face_pixels(points_px: F32, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Flat indices of the pixels under the cheek and nose landmarks."""
    cheeks = points_px[[50, 280, 205, 425, 4, 195, 101, 330]]
    x = np.clip(cheeks[:, 0].astype(np.int64), 0, shape[1] - 1)
    y = np.clip(cheeks[:, 1].astype(np.int64), 0, shape[0] - 1)
    return y * shape[1] + x


def _tooth_texture(crown_hu: float, colour: F32, gum: F32, width_share: float = 1.0) -> F32:
    """A row of teeth (h, w, 3) over height (row 0 is the biting edge) and arch (the middle is the middle)."""
    width, height = round(2 * _ARCH_HU * PX_PER_HU), round(_ROOM_HU * PX_PER_HU)
    v, s = np.mgrid[0:height, 0:width].astype(np.float32)
    v, s = (v + 0.5) / PX_PER_HU, np.abs((s + 0.5) / PX_PER_HU - _ARCH_HU)
    shade = np.full((height, width), 0.45, np.float32)  # between the last teeth
    crown = np.zeros((height, width), np.float32)
    start = 0.0
    for index, half in enumerate(_TEETH_HU):
        half *= width_share
        d = np.abs(s - start - half) / half
        start += 2 * half
        own = d <= 1
        # the gum line is an arch over each tooth; edges of neighbours leave a thin dark line
        line = crown_hu * (1 - 0.05 * index) * (1 - 0.16 * d**2)
        body = np.clip((line - v) * PX_PER_HU / 3 + 0.5, 0, 1)
        tone = (1 - 0.07 * index) * (1 - 0.10 * d**2 - 0.35 * np.clip((d - 0.9) / 0.1, 0, 1))
        tone *= 0.9 + 0.1 * np.clip(v / 0.03, 0, 1)
        crown = np.where(own, body, crown)
        shade = np.where(own, tone, shade)
    shade = cv2.GaussianBlur(shade, (0, 0), 1.5)[..., None]
    crown = cv2.GaussianBlur(crown, (0, 0), 1.5)[..., None]
    return (colour * shade * crown + gum * 0.8 * (1 - crown)).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Interior:
    """Triangles (T, 3) of the mouth's inside, and what to draw at their corners (T, 3, 3): arch, height, kind."""

    triangles: NDArray[np.int32]
    colours: F32
    upper_teeth: NDArray[np.intp]
    tongue: NDArray[np.intp]


_TONGUE_DOWN_HU = 0.07  # it lies on the floor of an open mouth, behind the lower teeth
_KINDS = {Part.MOUTH: 0.2, Part.TONGUE: 0.4}
_UPPER, _LOWER = 0.6, 0.8


@lru_cache(maxsize=4)
def _interior(model: HeadModel) -> _Interior:
    chosen = np.isin(model.part, (Part.MOUTH, Part.TEETH, Part.TONGUE))
    triangles, part = model.triangles[chosen], model.part[chosen]
    colours = np.zeros((len(triangles), 3, 3), np.float32)
    for kind, code in _KINDS.items():
        colours[part == kind, :, 2] = code
    teeth = part == Part.TEETH
    mean = model.mean_hu
    upper_ids = np.zeros(0, np.intp)
    if teeth.any():
        # the lower row is what an opening jaw takes along
        opening = np.linalg.norm(model.expression_hu[ARKIT_INDEX["jawOpen"]], axis=1)
        moves = opening[triangles].mean(1) > 0.02
        for code, own, sign in ((_UPPER, teeth & ~moves, 1), (_LOWER, teeth & moves, -1)):
            if not own.any():
                continue
            ids = triangles[own]
            p = mean[ids]
            back = float(p[..., 2].max())
            angle = np.arctan2(p[..., 0], back - p[..., 2] + 0.05)
            radius = np.linalg.norm(p[..., [0, 2]] - (0, back + 0.05), axis=-1)
            arch = angle * float(np.median(radius))
            edge = float(p[..., 1].max()) if sign > 0 else float(p[..., 1].min())
            colours[own, :, 0] = 0.5 + arch / (2 * _ARCH_HU)
            colours[own, :, 1] = np.clip(sign * (edge - p[..., 1]) / _ROOM_HU, 0, 1)
            colours[own, :, 2] = code
            if sign > 0:
                upper_ids = np.unique(ids).astype(np.intp)
    tongue = np.unique(triangles[part == Part.TONGUE]).astype(np.intp)
    return _Interior(triangles, np.clip(colours, 0, 1), upper_ids, tongue)


def paint_mouth(image: U8, mouth: Mouth, model: HeadModel, mesh: HeadMesh, photo_pose: Similarity) -> None:
    """Draw the inside of the mouth between the inner lips of a posed head, in place.

    A small rasterisation of its own at the picture's full resolution: teeth are too fine for the G-buffer's
    grid. The upper teeth hang on the skull, the lower ones and the tongue on the jaw.
    """
    points = mesh.landmarks_px[:, :2].astype(np.float64)
    inner, pose = smooth_lips(points[list(LIPS_INNER)]), mesh.pose
    upper_lip, lower_lip = points[UPPER_LIP], points[LOWER_LIP]
    gap_hu = float(np.linalg.norm(upper_lip - lower_lip)) / pose.scale
    shown = float(np.clip((gap_hu - 0.008) / 0.02, 0, 1))
    height, width = image.shape[:2]
    box = region(inner, 3, width, height)
    if box is None:
        return
    if mouth.has_photo and shown < 1:
        _close_seam(image, mouth, inner, box, pose.scale, 1 - shown)
    if shown <= 0:
        return
    x0, y0, x1, y1 = box
    size = (x1 - x0, y1 - y0)
    inside = _draw_interior(mouth, model, mesh, box)
    inside *= _lip_shadow(size[1], gap_hu) * _corner_shadow(inner[:, 0] - x0, size[0])
    if mouth.has_photo:
        linear = planar_map(photo_pose, pose)
        anchor = _hang(mouth.photo_lip_hu, pose, upper_lip, gap_hu - mouth.photo_gap_hu)
        shift = mouth.photo_anchor_px - linear @ (anchor - (x0, y0))
        affine = np.column_stack([linear, shift - 0.5 + linear @ (0.5, 0.5)])
        own = cv2.warpAffine(mouth.photo, affine, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        inside *= 1 - own[..., 3:] / 255
        inside += own[..., :3]
    mask = polygon_mask(inner - (x0, y0), size[0], size[1])
    mask = cv2.GaussianBlur(mask, (0, 0), max(0.6, pose.scale / 180))[..., None] * shown
    under = image[y0:y1, x0:x1, :3]
    image[y0:y1, x0:x1, :3] = np.clip(under * (1 - mask) + inside * mask + 0.5, 0, 255).astype(np.uint8)


def _close_seam(
    image: U8, mouth: Mouth, inner_px: F64, box: tuple[int, int, int, int], scale: float, weight: float
) -> None:
    """Cover what is left of the photo's teeth along the line where its lips now meet, in place."""
    x0, y0, x1, y1 = box
    line = np.zeros((y1 - y0, x1 - x0), np.uint8)
    around = np.rint((inner_px - (x0, y0) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(line, [around], 255, cv2.LINE_AA, 4)
    cv2.polylines(line, [around], True, 255, max(1, round(scale * _SEAM_HU)), cv2.LINE_AA, 4)
    share = cv2.GaussianBlur(line, (0, 0), max(0.6, scale * _SEAM_HU / 3)).astype(np.float32)[..., None]
    share *= weight / 255
    under = image[y0:y1, x0:x1, :3]
    image[y0:y1, x0:x1, :3] = (under * (1 - share) + mouth.seam_rgb * share + 0.5).astype(np.uint8)


_SEAM_HU = 0.018


def _draw_interior(mouth: Mouth, model: HeadModel, mesh: HeadMesh, box: tuple[int, int, int, int]) -> F32:
    """Cavity, tongue and teeth (h, w, 3) float32 0 … 255 in a window (x0, y0, x1, y1) of the picture."""
    x0, y0, x1, y1 = box
    interior = _interior(model)
    vertices = mesh.vertices_px.copy()
    down = mesh.pose.rotation[:, 1] * mesh.pose.scale
    # a lip that an opening jaw pulls down hides the teeth on a mesh; on people it draws back over them
    lip_now = mesh.pose.invert(mesh.landmarks_px[UPPER_LIP][None])[0]
    lower = max(0.0, float(lip_now[1] - mouth.rest_lip_hu[1])) + _TEETH_SHOW_HU
    vertices[interior.upper_teeth] += (down * lower).astype(np.float32)
    vertices[interior.tongue] += (down * _TONGUE_DOWN_HU).astype(np.float32)
    facing = front_facing(vertices, interior.triangles)
    corners = vertices[interior.triangles[facing].ravel()] - np.array([x0, y0, 0], np.float32)
    out = np.empty((y1 - y0, x1 - x0, 3), np.float32)
    # a head that ends at its lips (FLAME, BFM) has no wall before the dark: then what there is stands for it
    out[:] = mouth.cavity_rgb * (0.25 if len(interior.triangles) else 0.7)
    if not facing.any():
        return out
    drawn, depth = draw_triangles(corners, interior.colours[facing].reshape(-1, 3), x1 - x0, y1 - y0)
    kind = drawn[..., 2]
    lip = float(mesh.landmarks_px[[UPPER_LIP, LOWER_LIP], 2].mean())
    # the rasteriser counts depth from its own camera: bring it back to pixels behind the lips
    behind = depth - 64.0 * (y1 - y0) + float(corners[:, 2].mean()) - lip
    light = np.exp(-np.maximum(behind, 0) / (0.5 * mesh.pose.scale)).astype(np.float32)[..., None]
    for code, colour in ((0.2, mouth.cavity_rgb), (0.4, mouth.tongue_rgb)):
        own = np.abs(kind - code) < 0.1
        out[own] = (colour * light)[own]
    # the floor before the tongue is as red as it is; no dark thread between it and the wall
    tongue = np.abs(kind - _KINDS[Part.TONGUE]) < 0.1
    floor = np.logical_or.accumulate(tongue, 0) & ~tongue
    out[floor] = (mouth.tongue_rgb * np.maximum(light, 0.5) * 0.8)[floor]
    out = np.asarray(cv2.morphologyEx(out, cv2.MORPH_CLOSE, _thread(mesh.pose.scale)), np.float32)
    wider = (float(np.linalg.norm(mesh.landmarks_px[UPPER_LIP, :2] - mesh.landmarks_px[LOWER_LIP, :2]))
             / mesh.pose.scale - mouth.photo_gap_hu)  # fmt: skip
    hidden = float(np.clip(wider / _OWN_TEETH_ALONE_HU, 0, 1)) if mouth.own_teeth else 0.0
    for code, texture in ((_UPPER, mouth.teeth[0]), (_LOWER, mouth.teeth[1])):
        own = np.abs(kind - code) < 0.1
        if own.any():
            rows, columns = texture.shape[:2]
            colour = cv2.remap(
                texture,
                drawn[..., 0] * columns - np.float32(0.5),
                drawn[..., 1] * rows - np.float32(0.5),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            shown = 1 - hidden if code == _UPPER else 1.0
            out[own] += shown * ((colour * (0.25 + 0.75 * light))[own] - out[own])
    return cv2.GaussianBlur(out, (0, 0), 0.7).astype(np.float32)


@lru_cache(maxsize=8)
def _kernel(side: int) -> U8:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _thread(scale: float) -> U8:
    return _kernel(max(3, round(scale * _THREAD_HU)) | 1)


_THREAD_HU = 0.05
_OWN_TEETH_ALONE_HU = 0.05  # lips this much further apart than in the photo: no drawn teeth beside its own


def _hang(lip_hu: F32, pose: Similarity, upper_lip_px: F64, wider_hu: float) -> F64:
    """Where teeth that hang on the skull at `lip_hu` are now; a lip that rises takes them half-way along.

    (Measured smiles show more tooth than the photo has: following a little hides the gap that would open.) A lip that
    falls covers them, but where the mouth opens wider than the photo's by `wider_hu`: there lips of people draw back.
    """
    skull = pose.apply(lip_hu[None])[0, :2]
    rise = upper_lip_px - skull
    falls = 0.15 + 0.85 * float(np.clip(wider_hu / _DRAWN_BACK_HU, 0, 1))
    return skull + rise * (0.5 if rise[1] < 0 else falls)


_DRAWN_BACK_HU = 0.15


def _lip_shadow(height: int, gap_hu: float) -> F32:
    """The upper lip shades what is right below it."""
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    depth = 0.45 if gap_hu > 0.03 else 0.25
    return (1 - depth * np.exp(-rows / 0.22)).astype(np.float32)


def _corner_shadow(contour_x: F64, width: int) -> F32:
    """(1, width, 1): towards the corners it is dark; what teeth are drawn there do not shine."""
    left, right = float(contour_x.min()), float(contour_x.max())
    place = np.abs((np.arange(width) + 0.5 - left) / max(right - left, 1e-3) * 2 - 1)
    return (1 - 0.6 * np.clip((place - 0.7) / 0.3, 0, 1) ** 2).astype(np.float32)[None, :, None]
