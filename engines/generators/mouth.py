"""The plain mouth interior: the photo's own teeth where they show, else drawn ones, behind the lips."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.face_model import LIPS_INNER, LOWER_LIP, UPPER_LIP, FaceModel
from engines.gbuffer import extend
from engines.generators.masks import planar_map, polygon_mask, region
from engines.geometry import F64, Similarity

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

PX_PER_HU = 320.0
_HALF_WIDTH_HU = 0.34
_OPEN_IN_PHOTO_HU = 0.035  # lips this far apart show something of the photo's own mouth
# Half-widths of the teeth from the middle outwards, foreshortened along the arch.
_TEETH_HU = (0.043, 0.034, 0.034, 0.028, 0.022, 0.016)


@dataclass(frozen=True, slots=True)
class MouthTextures:
    """Textures in head units around an anchor; premultiplied RGBA float32 0 … 255 unless said otherwise."""

    cavity_rgb: F32  # (3,)
    upper: F32
    lower: F32
    photo: F32  # (h, w, 4): the photo's own mouth interior (alpha 0 everywhere when its lips are closed)
    photo_anchor_px: F64  # the photo's upper lip, in pixels of `photo`
    photo_lip_hu: F32  # (3,) the photo's upper lip on the head: what its teeth hang on
    rest_lip_hu: F32  # (3,) the upper lip without expression: what drawn teeth hang on

    @property
    def has_photo(self) -> bool:
        """Whether the photo shows the inside of the mouth."""
        return bool(self.photo[..., 3].max() > 0)

    @staticmethod
    def of_photo(
        canvas: U8, points_px: F32, scale: float, enrollment: Enrollment, model: FaceModel
    ) -> MouthTextures:
        """Textures for one person: `points_px` (N, 2) in canvas pixels, `scale` pixels per head unit."""
        lips = points_px[list(LIPS_INNER)].astype(np.float64)
        gap_hu = float(np.linalg.norm(points_px[UPPER_LIP] - points_px[LOWER_LIP])) / scale
        pad = int(np.ceil(0.1 * scale))
        low = np.maximum(np.floor(lips.min(0)).astype(int) - pad, 0)
        high = np.minimum(np.ceil(lips.max(0)).astype(int) + pad, [canvas.shape[1], canvas.shape[0]])
        cut = canvas[low[1] : high[1], low[0] : high[0], :3].astype(np.float32)
        alpha = np.zeros(cut.shape[:2], np.uint8)
        if gap_hu > _OPEN_IN_PHOTO_HU:
            centre = lips.mean(0)
            inner = centre + (lips - centre) * (0.97, 0.88)
            cv2.fillPoly(alpha, [np.rint((inner - low - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        soft = cv2.GaussianBlur(alpha.astype(np.float32) / 255, (0, 0), max(0.6, scale / 160))
        if gap_hu > _OPEN_IN_PHOTO_HU:
            # lips that draw back show more than the photo did: continue its teeth a little, then fade
            reach = cv2.distanceTransform((alpha < 128).astype(np.uint8), cv2.DIST_L2, 5) / scale
            rows = np.arange(cut.shape[0])[:, None] + low[1]
            above = np.clip((lips[:, 1].mean() - rows) / (0.02 * scale), 0, 1)
            soft = np.maximum(soft, np.clip(1 - reach / 0.07, 0, 1) * above).astype(np.float32)
            filled = extend(cut, alpha > 220)
            blurred = cv2.GaussianBlur(filled, (0, 0), max(0.8, scale / 60))
            cut = np.where((alpha > 220)[..., None], cut, blurred * 0.9)
        photo = np.dstack([cut * soft[..., None], soft * 255]).astype(np.float32)
        # skin brightness lights the drawn teeth: a dark photo must not show glowing ones
        face = canvas[..., :3].reshape(-1, 3)[_face_pixels(points_px, canvas.shape)]
        skin = np.median(face, 0).astype(np.float32) if len(face) else np.array([170, 130, 110], np.float32)
        light = float(np.clip(skin.mean() / 165, 0.35, 1.15))
        warm = skin / max(float(skin.mean()), 1.0)
        shape = model.decode(enrollment.neutral_hu, enrollment.motion.expression, enrollment.gain)
        return MouthTextures(
            cavity_rgb=np.array([46, 20, 20], np.float32) * light,
            upper=_teeth(light, warm, height_hu=0.105, upper=True),
            lower=_teeth(light * 0.82, warm, height_hu=0.075, upper=False),
            photo=photo,
            photo_anchor_px=points_px[UPPER_LIP].astype(np.float64) - low,
            photo_lip_hu=shape[UPPER_LIP],
            rest_lip_hu=enrollment.neutral_hu[UPPER_LIP],
        )


def _face_pixels(points_px: F32, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Flat indices of the pixels under the cheek and nose landmarks."""
    cheeks = points_px[[50, 280, 205, 425, 4, 195, 101, 330]]
    x = np.clip(cheeks[:, 0].astype(np.int64), 0, shape[1] - 1)
    y = np.clip(cheeks[:, 1].astype(np.int64), 0, shape[0] - 1)
    return y * shape[1] + x


def _teeth(light: float, warm: F32, *, height_hu: float, upper: bool) -> F32:
    """A row of teeth, premultiplied RGBA; the row's biting edge is at the texture's middle row."""
    width, height = round(2 * _HALF_WIDTH_HU * PX_PER_HU), round(2 * height_hu * PX_PER_HU)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x_hu = (x + 0.5) / PX_PER_HU - _HALF_WIDTH_HU
    y_hu = (y + 0.5) / PX_PER_HU - height_hu
    if not upper:
        y_hu, x_hu = -y_hu, x_hu * 1.25  # lower teeth are narrower and point up
    colour = np.array([238, 229, 214], np.float32) * light * (0.75 + 0.25 * warm)
    alpha = np.zeros((height, width), np.float32)
    shade = np.zeros((height, width), np.float32)
    start = 0.0
    for index, half in enumerate(_TEETH_HU):
        middle = start + half
        start += 2 * half
        for side in (-1, 1):
            d = np.abs(x_hu - side * middle) / half
            # the edge of each tooth is rounded; teeth get shorter and darker along the arch
            edge = -0.010 * index - 0.012 * np.clip(d, 0, 1) ** 4 if upper else -0.006 * index - 0.01 * d**4
            body = np.clip((1.0 - d) / 0.10, 0, 1) * np.clip((edge - y_hu) * PX_PER_HU / 2 + 0.5, 0, 1)
            alpha = np.maximum(
                alpha, np.clip((1.04 - d) / 0.06, 0, 1) * np.clip((edge - y_hu) * PX_PER_HU / 2, 0, 1)
            )
            tone = (1 - 0.15 * index) * (0.86 + 0.14 * np.clip(body, 0, 1)) * (1 - 0.10 * d**2)
            shade = np.where(d <= 1.02, np.maximum(shade, tone), shade)
    shade = cv2.GaussianBlur(shade, (0, 0), 2.0)
    alpha = cv2.GaussianBlur(alpha, (0, 0), 1.6)
    return np.dstack([colour * shade[..., None] * alpha[..., None], alpha * 255]).astype(np.float32)


def paint_mouth(
    image: U8,
    mouth: MouthTextures,
    *,
    inner_lips_px: F64,
    upper_lip_px: F64,
    lower_lip_px: F64,
    photo_pose: Similarity,
    pose: Similarity,
) -> None:
    """Draw the inside of the mouth behind the lips of a posed head, in place.

    The upper teeth hang on the skull, the lower ones on the lower lip; both are seen through the opening
    between the inner lips (20, 2).
    """
    gap_hu = float(np.linalg.norm(upper_lip_px - lower_lip_px)) / pose.scale
    shown = float(np.clip((gap_hu - 0.008) / 0.02, 0, 1))
    height, width = image.shape[:2]
    box = region(inner_lips_px, 3, width, height)
    if shown <= 0 or box is None:
        return
    x0, y0, x1, y1 = box
    size = (x1 - x0, y1 - y0)
    linear = planar_map(photo_pose, pose)
    plane = pose.scale * pose.rotation[:2, :2]
    back = np.linalg.inv(plane).astype(np.float64)
    rest = _hang(mouth.rest_lip_hu, pose, upper_lip_px)

    inside = np.empty((size[1], size[0], 3), np.float32)
    depth = np.linspace(0.55, 1.15, size[1], dtype=np.float32)[:, None, None]
    inside[:] = mouth.cavity_rgb * depth
    _tongue(inside, lower_lip_px - (x0, y0), pose.scale, gap_hu, mouth)
    _over(inside, _placed(mouth.lower, back, lower_lip_px - (x0, y0), 0.022, size))
    if not mouth.has_photo:
        _over(inside, _placed(mouth.upper, back, rest - (x0, y0), 0.052, size))
    inside *= _lip_shadow(size[1], gap_hu)
    if mouth.has_photo:
        anchor = _hang(mouth.photo_lip_hu, pose, upper_lip_px)
        shift = mouth.photo_anchor_px - linear @ (anchor - (x0, y0))
        affine = np.column_stack([linear, shift - 0.5 + linear @ (0.5, 0.5)])
        own = cv2.warpAffine(mouth.photo, affine, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        _over(inside, own.astype(np.float32, copy=False))
    mask = polygon_mask(inner_lips_px - (x0, y0), size[0], size[1])
    mask = cv2.GaussianBlur(mask, (0, 0), max(0.6, pose.scale / 180))[..., None] * shown
    under = image[y0:y1, x0:x1, :3]
    image[y0:y1, x0:x1, :3] = np.clip(under * (1 - mask) + inside * mask + 0.5, 0, 255).astype(np.uint8)


def _hang(lip_hu: F32, pose: Similarity, upper_lip_px: F64) -> F64:
    """Where teeth that hang on the skull at `lip_hu` are now; a lip that rises takes them half-way along.

    (Measured smiles show more tooth than the photo has: following a little hides the gap that would open.)
    """
    skull = pose.apply(lip_hu[None])[0, :2]
    rise = upper_lip_px - skull
    return skull + rise * (0.5 if rise[1] < 0 else 0.15)


def _placed(texture: F32, back: F64, anchor_px: F64, edge_hu: float, size: tuple[int, int]) -> F32:
    """A texture drawn so that its middle lies `edge_hu` below `anchor_px`."""
    height, width = texture.shape[:2]
    linear = back * PX_PER_HU
    offset = np.array([width / 2, height / 2 - edge_hu * PX_PER_HU]) - linear @ anchor_px
    affine = np.column_stack([linear, offset - 0.5 + linear @ (0.5, 0.5)])
    return cv2.warpAffine(texture, affine, size, flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP)  # pyright: ignore[reportReturnType]


def _over(under: F32, rgba: F32) -> None:
    under *= 1 - rgba[..., 3:] / 255
    under += rgba[..., :3]


def _tongue(inside: F32, lower_lip_px: F64, scale: float, gap_hu: float, mouth: MouthTextures) -> None:
    layer = np.zeros(inside.shape[:2], np.float32)
    centre = (round(float(lower_lip_px[0]) * 16), round(float(lower_lip_px[1] - 0.01 * scale) * 16))
    axes = (round(0.15 * scale * 16), round((0.03 + 0.28 * gap_hu) * scale * 16))
    cv2.ellipse(layer, centre, axes, 0, 0, 360, 1.0, -1, cv2.LINE_8, 4)
    layer = cv2.GaussianBlur(layer, (0, 0), max(1.0, 0.025 * scale))[..., None]
    colour = mouth.cavity_rgb * np.array([3.0, 3.6, 3.4], np.float32)
    inside *= 1 - layer
    inside += colour * layer


def _lip_shadow(height: int, gap_hu: float) -> F32:
    """The upper lip shades what is right below it."""
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    depth = 0.45 if gap_hu > 0.03 else 0.25
    return (1 - depth * np.exp(-rows / 0.22)).astype(np.float32)
