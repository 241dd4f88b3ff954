"""What a photo tells of the inside of its mouth: colours, teeth, and the photo's own teeth where they show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.generators.geometric.limits import CAVITY, LOWER_TEETH, TONGUE, UPPER_TEETH
from engines.geometry import F64, Similarity
from engines.head.landmark_names import LIPS_INNER, LIPS_OUTER, LOWER_LIP, UPPER_LIP
from engines.head.model import HeadModel, Part
from engines.motion import ARKIT_INDEX
from engines.raster.gbuffer import extend

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

PX_PER_HU = 320.0
MOUTH_CORNERS = (LIPS_OUTER[0], LIPS_OUTER[10])
# of the skin's colour: what shows where lips just part
_BEHIND_LIPS = np.array([0.53, 0.41, 0.45], np.float32)
_OPEN_IN_PHOTO_HU = 0.035  # lips this far apart show something of the photo's own mouth
# Half-widths along the arch from the middle outwards: incisors, canine, premolars, molars.
_TEETH_HU = (0.043, 0.033, 0.038, 0.035, 0.035, 0.05, 0.05)
_ARCH_HU = 0.6  # half the arch that the tooth texture covers
_ROOM_HU = 0.16  # the texture's height: tooth and gum
_UPPER_CROWN_HU, _LOWER_CROWN_HU = 0.1, 0.085


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
    rest_width_hu: float  # between the mouth's corners, without expression
    photo_lit: float  # how far the photo's teeth are out of its lips' shade
    lower_edge: NDArray[np.intp]  # vertices of the lower incisors' edge

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
    rest_width = _width_hu(model, enrollment.neutral_hu)
    return Mouth(
        cavity_rgb=np.asarray(skin * _BEHIND_LIPS, np.float32),
        tongue_rgb=np.array([247, 135, 133], np.float32) * light,
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
        rest_width_hu=rest_width,
        # as the mesh tells it, or the photo: at rest its own teeth are never shaded
        photo_lit=lit_share(min(gap_hu, _gap_hu(model, shape)), _width_hu(model, shape) / rest_width),
        lower_edge=interior_of(model).lower_edge,
    )


def lit_share(gap_hu: float, width: float) -> float:
    """How far teeth are out of the lips' shade, 0 … 1: of a mouth `width` times as wide as at rest, open by `gap_hu`.

    Of 203 people who talk it is between their lips, of the skin's brightness, 0.4 where they just part, 0.5 at a gap of
    0.07, 0.7 at 0.15; but 0.9 at 0.07 in a smile that is a quarter wider, whose lips are drawn back.
    """
    smile = share(width, 1.02, 1.24) * share(gap_hu, 0.01, 0.06)
    return max(share(gap_hu, 0, 0.25), smile)


def share(value: float, least: float, most: float) -> float:
    """How far from `least` to `most` a value is, 0 … 1."""
    return float(np.clip((value - least) / (most - least), 0, 1))


def _width_hu(model: HeadModel, shape: F32) -> float:
    left, right = model.landmarks(shape)[list(MOUTH_CORNERS)]
    return float(np.linalg.norm(left - right))


def _gap_hu(model: HeadModel, shape: F32) -> float:
    upper, lower = model.landmarks(shape)[[UPPER_LIP, LOWER_LIP]]
    return float(np.linalg.norm(upper - lower))


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
class Interior:
    """Triangles (T, 3) of the mouth's inside, and what to draw at their corners (T, 3, 3): arch, height, kind."""

    triangles: NDArray[np.int32]
    colours: F32
    upper_teeth: NDArray[np.intp]
    lower_teeth: NDArray[np.intp]
    lower_edge: NDArray[np.intp]  # of these, the incisors' edge
    tongue: NDArray[np.intp]


def _highest(along: F32, values: F32) -> F32:
    """The highest of `values` at like places `along` the arch: back teeth bite higher than front ones."""
    places = np.arange(0, float(along.max()) + _ARCH_STEP_HU, _ARCH_STEP_HU)
    near = [np.abs(along - place) <= _ARCH_STEP_HU for place in places]
    most = [float(values[n].max()) if n.any() else np.nan for n in near]
    known = np.isfinite(most)
    return np.interp(along, places[known], np.asarray(most)[known]).astype(np.float32)


_ARCH_STEP_HU, _FRONT_HU = 0.06, 0.1
_KINDS = {Part.MOUTH: CAVITY, Part.TONGUE: TONGUE}


@lru_cache(maxsize=4)
def interior_of(model: HeadModel) -> Interior:
    """Made once for each head model."""
    chosen = np.isin(model.part, (Part.MOUTH, Part.TEETH, Part.TONGUE))
    triangles, part = model.triangles[chosen], model.part[chosen]
    colours = np.zeros((len(triangles), 3, 3), np.float32)
    for kind, code in _KINDS.items():
        colours[part == kind, :, 2] = code
    teeth = part == Part.TEETH
    mean = model.mean_hu
    rows = {UPPER_TEETH: np.zeros(0, np.intp), LOWER_TEETH: np.zeros(0, np.intp)}
    if teeth.any():
        # the lower row is what an opening jaw takes along
        opening = np.linalg.norm(model.expression_hu[ARKIT_INDEX["jawOpen"]], axis=1)
        moves = opening[triangles].mean(1) > 0.02
        for code, own, sign in ((UPPER_TEETH, teeth & ~moves, 1), (LOWER_TEETH, teeth & moves, -1)):
            if not own.any():
                continue
            ids = triangles[own]
            p = mean[ids]
            back = float(p[..., 2].max())
            angle = np.arctan2(p[..., 0], back - p[..., 2] + 0.05)
            radius = np.linalg.norm(p[..., [0, 2]] - (0, back + 0.05), axis=-1)
            arch = angle * float(np.median(radius))
            edge = sign * _highest(np.abs(arch), sign * p[..., 1])
            colours[own, :, 0] = 0.5 + arch / (2 * _ARCH_HU)
            colours[own, :, 1] = np.clip(sign * (edge - p[..., 1]) / _ROOM_HU, 0, 1)
            colours[own, :, 2] = code
            rows[code] = np.unique(ids).astype(np.intp)
    tongue = np.unique(triangles[part == Part.TONGUE]).astype(np.intp)
    front = rows[LOWER_TEETH]
    front = front[
        mean[front, 1] < mean[front, 1][np.abs(mean[front, 0]) < _FRONT_HU].min(initial=np.inf) + 0.01
    ]
    front = front[np.abs(mean[front, 0]) < _FRONT_HU]
    return Interior(triangles, np.clip(colours, 0, 1), rows[UPPER_TEETH], rows[LOWER_TEETH], front, tongue)
