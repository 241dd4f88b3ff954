"""What the networks of `visavis` see: the head window at low resolution, its guides, a mouth and two eye crops.

The same functions make the training cache and the live inputs, so that both agree. Everything here is NumPy and
OpenCV; shapes are single pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.generators.networked.boxes import TurnedBox, Window, cut_box
from engines.geometry import Similarity, rotation_vector
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LIPS_OUTER
from engines.head.model import Part
from engines.motion import ARKIT_NAMES, Motion
from engines.raster.conditioning import PreparedMap, lookup_map, prepare_map
from engines.raster.gbuffer import GBuffer, HeadMesh, Viewport
from engines.raster.resample import resample

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

WINDOW_PX = 128  # the head window as the networks see it
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


def low_picture(picture: U8, window: Window) -> U8:
    """(128, 128, C): the window of a viewport-sized picture, averaged."""
    cut = window.cut(picture)
    how = cv2.INTER_AREA if window.side_px >= WINDOW_PX else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(cut, (WINDOW_PX, WINDOW_PX), interpolation=how), np.uint8)  # pyright: ignore[reportCallIssue, reportArgumentType]


def part_crop(gbuffer: GBuffer, box: TurnedBox, size_px: int, *, mirrored: bool = False) -> U8:
    """(size, size) parts of the G-buffer in a crop, nearest."""
    rows, columns = gbuffer.part.shape
    viewport = gbuffer.viewport
    affine = box.on_grid(size_px, columns / viewport.width_px, rows / viewport.height_px, mirrored)
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
