"""What the networks of `visavis` see: the head window at low resolution, its guides, a mouth and two eye crops.

The same functions make the training cache and the live inputs, so that both agree. Everything here is NumPy and
OpenCV; shapes are single pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.geometry import F64, Similarity, rotation_vector
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LIPS_OUTER
from engines.head.model import Part
from engines.motion import ARKIT_NAMES, Motion
from engines.raster.conditioning import PreparedMap, lookup_map, prepare_map
from engines.raster.gbuffer import GBuffer, HeadMesh, Viewport
from engines.raster.resample import resample

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

WINDOW_PX = 128  # the head window as the networks see it
WHERE_PX = 32  # of the map that says where in the photo each place comes from
MOUTH_PX, EYE_PX = 96, 64
# sides of the crops in head units: both lips with an open jaw; an eye with its lids up to the brow
MOUTH_HU, EYE_HU = 1.05, 0.56
GUIDE_CHANNELS = 10  # I_r 3, PNCC 3, O_c 1, skin, eye, mouth
MOUTH_GUIDE_CHANNELS, EYE_GUIDE_CHANNELS = 3, 1
MOTION_SIZE = 127

_OPPOSITE = np.array(
    [
        ARKIT_NAMES.index(n.replace("Left", "Right") if "Left" in n else n.replace("Right", "Left"))
        for n in ARKIT_NAMES
    ]
)


@dataclass(frozen=True, slots=True)
class Window:
    """The square of a viewport that the networks work on: the standard head crop. Whole pixels."""

    left_px: int
    top_px: int
    side_px: int

    @staticmethod
    def of(enrollment: Enrollment, viewport: Viewport) -> Window:
        """The enrollment's head crop in `viewport`; may reach beyond it."""
        left, top, side = enrollment.crop_px
        s = viewport.scale
        return Window(
            round((left - viewport.origin_x_px) * s),
            round((top - viewport.origin_y_px) * s),
            max(2, round(side * s)),
        )

    def cut(self, image: NDArray[np.generic]) -> NDArray[np.generic]:
        """(side, side, …) of `image`; beyond its edge the edge is repeated."""
        height, width = image.shape[:2]
        x0, y0, x1, y1 = self.left_px, self.top_px, self.left_px + self.side_px, self.top_px + self.side_px
        inner = image[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
        if x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height:
            return inner
        pad = (max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0))
        return np.asarray(cv2.copyMakeBorder(inner, *pad, cv2.BORDER_REPLICATE))  # pyright: ignore[reportCallIssue, reportArgumentType]

    def from_grid(self, values: NDArray[np.generic], viewport: Viewport, size_px: int) -> NDArray[np.generic]:
        """Values (h, w, …) on a G-buffer's grid, nearest, on a grid of `size_px` over the window."""
        rows, columns = values.shape[:2]
        x = (np.arange(size_px) + 0.5) * (self.side_px / size_px) + self.left_px
        y = (np.arange(size_px) + 0.5) * (self.side_px / size_px) + self.top_px
        column = np.clip((x * (columns / viewport.width_px)).astype(np.intp), 0, columns - 1)
        row = np.clip((y * (rows / viewport.height_px)).astype(np.intp), 0, rows - 1)
        return values[row[:, None], column[None]]


@dataclass(frozen=True, slots=True)
class TurnedBox:
    """A square crop that turns with the head: `centre_px` (2,) and `side_px` in viewport pixels, `angle_rad`."""

    centre_px: F64
    side_px: float
    angle_rad: float

    def affine(self, size_px: int, *, mirrored: bool = False) -> F64:
        """(2, 3) from crop pixels to viewport pixels, both counted from pixel centres as `cv2.warpAffine` does."""
        step = self.side_px / size_px
        across = np.array([np.cos(self.angle_rad), np.sin(self.angle_rad)])
        down = np.array([-across[1], across[0]]) * step
        across = across * (-step if mirrored else step)
        origin = self.centre_px - (across + down) * (size_px / 2)
        return np.column_stack([across, down, origin + (across + down) / 2 - 0.5])


def place_in_window(box: TurnedBox, window: Window, size_px: int, *, mirrored: bool = False) -> F32:
    """(2, 3) from `affine_grid`'s −1 … 1 over a crop of `size_px` to −1 … 1 over the window (`align_corners` False)."""
    affine = box.affine(size_px, mirrored=mirrored)
    half = size_px / 2
    # a crop's −1 … 1 counts from pixel edges: crop pixel centre = (n + 1) · size / 2 − 1/2
    linear = affine[:, :2] * half
    middle = affine[:, :2] @ [half - 0.5, half - 0.5] + affine[:, 2] + 0.5
    corner = np.array([window.left_px, window.top_px])
    return np.column_stack([linear * 2 / window.side_px, (middle - corner) * 2 / window.side_px - 1]).astype(
        np.float32
    )


def mouth_box(mesh: HeadMesh) -> TurnedBox:
    """Around the lips of a posed head."""
    return _box(mesh, LIPS_OUTER, MOUTH_HU)


def eye_boxes(mesh: HeadMesh) -> tuple[TurnedBox, TurnedBox]:
    """Around the subject's right and left eye. The left one is cut mirrored: the network knows right eyes only."""
    return _box(mesh, EYE_RIGHT, EYE_HU), _box(mesh, EYE_LEFT, EYE_HU)


def _box(mesh: HeadMesh, ring: Sequence[int], side_hu: float) -> TurnedBox:
    points = mesh.landmarks_px[list(ring), :2].astype(np.float64)
    across = mesh.pose.rotation[:2, 0]
    return TurnedBox(points.mean(0), side_hu * mesh.pose.scale, float(np.arctan2(across[1], across[0])))


def cut_box(
    image: NDArray[np.generic], box: TurnedBox, size_px: int, *, mirrored: bool = False, nearest: bool = False
) -> NDArray[np.generic]:
    """`box` of `image` as (size, size, …); averaged first where it shrinks to less than half."""
    flags = (cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    finer = 1 if nearest else max(1, int(box.side_px / size_px / 1.5))
    affine = box.affine(size_px * finer, mirrored=mirrored)
    size = (size_px * finer, size_px * finer)
    out = cv2.warpAffine(image, affine, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)  # pyright: ignore[reportCallIssue, reportArgumentType]
    if finer > 1:
        out = cv2.resize(out, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return np.asarray(out)


def prepare_guides(enrollment: Enrollment) -> PreparedMap:
    """UV maps that guide the networks, to be looked up together: colour 3, PNCC 3, visibility 1."""
    maps = (enrollment.uv_colour, enrollment.uv_pncc, enrollment.uv_visibility[..., None])
    return prepare_map(np.concatenate(maps, -1).astype(np.uint8))


def guides(prepared: PreparedMap, gbuffer: GBuffer, window: Window) -> tuple[U8, U8]:
    """((128, 128, 7) uint8 I_r, PNCC, O_c; (128, 128) uint8 parts) in the window."""
    uv = np.ascontiguousarray(window.from_grid(gbuffer.uv, gbuffer.viewport, WINDOW_PX), np.float32)
    part = np.ascontiguousarray(window.from_grid(gbuffer.part, gbuffer.viewport, WINDOW_PX), np.uint8)
    found = lookup_map(prepared, uv) * np.float32(255)
    found *= (part > 0)[..., None]
    return found.astype(np.uint8), part


def one_hot(parts: NDArray[np.generic]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Skin, eye and mouth as masks of `parts`."""
    skin = (parts == Part.SKIN) | (parts == Part.SOCKET)
    mouth = (parts == Part.MOUTH) | (parts == Part.TEETH) | (parts == Part.TONGUE)
    return skin, parts == Part.EYE, mouth


def where_in_photo(flow: F32, gbuffer: GBuffer, window: Window) -> F32:
    """(32, 32, 2): where in the window of the photo each place of the window comes from, −1 … 1 as `grid_sample`."""
    found = window.from_grid(flow, gbuffer.viewport, WHERE_PX).astype(np.float32)
    centre = (np.arange(WHERE_PX, dtype=np.float32) + 0.5) / WHERE_PX * 2 - 1
    out = found * np.float32(2 / window.side_px)
    out[..., 0] += centre[None]
    out[..., 1] += centre[:, None]
    return np.clip(out, -1.5, 1.5)


def low_picture(picture: U8, window: Window) -> U8:
    """(128, 128, C): the window of a viewport-sized picture, averaged."""
    cut = window.cut(picture)
    how = cv2.INTER_AREA if window.side_px >= WINDOW_PX else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(cut, (WINDOW_PX, WINDOW_PX), interpolation=how), np.uint8)  # pyright: ignore[reportCallIssue, reportArgumentType]


def part_crop(gbuffer: GBuffer, box: TurnedBox, size_px: int, *, mirrored: bool = False) -> U8:
    """(size, size) parts of the G-buffer in a crop, nearest."""
    rows, columns = gbuffer.part.shape
    step = np.array([columns / gbuffer.viewport.width_px, rows / gbuffer.viewport.height_px])
    affine = box.affine(size_px, mirrored=mirrored)
    affine = affine * step[:, None]
    affine[:, 2] += 0.5 * step - 0.5
    return cv2.warpAffine(
        gbuffer.part, affine, (size_px, size_px), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    ).astype(np.uint8)


def motion_vector(source: Motion, target: Motion, source_pose: Similarity, pose: Similarity) -> F32:
    """(127,): β, closure and gaze of target and source, and how the head has moved from one to the other."""
    turn = rotation_vector(pose.rotation @ source_pose.rotation.T)
    own = rotation_vector(source_pose.rotation)
    shift = (pose.shift[:2] - source_pose.shift[:2]) / max(source_pose.scale, 1e-6)
    grow = np.log(max(pose.scale, 1e-6) / max(source_pose.scale, 1e-6))
    parts = (
        target.expression, source.expression, target.closure, source.closure,
        target.gaze_rad.ravel() * 2, source.gaze_rad.ravel() * 2, turn * 2, own * 2, shift, [grow * 4],
    )  # fmt: skip
    return np.concatenate([np.asarray(p, np.float32) for p in parts]).astype(np.float32)


def mirror_motion(vector: F32) -> F32:
    """`motion_vector` of the mirrored pictures."""
    out = vector.copy()
    out[:52], out[52:104] = vector[:52][_OPPOSITE], vector[52:104][_OPPOSITE]
    for start in (104, 107):
        out[start + 1], out[start + 2] = vector[start + 2], vector[start + 1]
    for start in (110, 114):
        right, left = vector[start : start + 2], vector[start + 2 : start + 4]
        out[start : start + 4] = [-left[0], left[1], -right[0], right[1]]
    for start in (118, 121):
        out[start + 1 : start + 3] *= -1
    out[124] *= -1
    return out


def photo_input(
    enrollment: Enrollment, viewport: Viewport, prepared: PreparedMap, gbuffer: GBuffer, window: Window
) -> U8:
    """(128, 128, 7) uint8 for the photo's encoder: premultiplied RGBA and the PNCC at the photo's own pose."""
    size = (viewport.width_px, viewport.height_px)
    rgba = resample(np.dstack([enrollment.photo, enrollment.matte]), viewport, 0, size)
    small = low_picture(rgba, window).astype(np.uint16)
    small[..., :3] = (small[..., :3] * small[..., 3:] + 127) // 255
    guide, _ = guides(prepared, gbuffer, window)
    return np.dstack([small.astype(np.uint8), guide[..., 3:6]])


def photo_crops(enrollment: Enrollment, viewport: Viewport, mesh: HeadMesh) -> tuple[U8, U8]:
    """The photo's own mouth (96, 96, 3) and eyes (2, 64, 64, 3), as it shows them; the left eye mirrored."""
    photo = resample(enrollment.photo, viewport, 0, (viewport.width_px, viewport.height_px))
    mouth = cut_box(photo, mouth_box(mesh), MOUTH_PX)
    right, left = eye_boxes(mesh)
    eyes = np.stack([cut_box(photo, right, EYE_PX), cut_box(photo, left, EYE_PX, mirrored=True)])
    return mouth.astype(np.uint8), eyes.astype(np.uint8)


def head_guide(guide: U8, part: U8) -> F32:
    """(…, 128, 128, 10) float32 0 … 1 of `guides`: I_r, PNCC, O_c, then skin, eye and mouth."""
    masks = np.stack(one_hot(part), -1).astype(np.float32)
    return np.concatenate([guide.astype(np.float32) / np.float32(255), masks], -1).astype(np.float32)


def mouth_guide(parts: NDArray[np.generic]) -> F32:
    """(…, s, s, 3): cavity, teeth and tongue of `parts` (…, s, s)."""
    return np.stack([parts == p for p in (Part.MOUTH, Part.TEETH, Part.TONGUE)], -1).astype(np.float32)


def eye_guide(parts: NDArray[np.generic]) -> F32:
    """(…, s, s, 1): the eyeball of `parts` (…, s, s)."""
    return (parts == Part.EYE)[..., None].astype(np.float32)
