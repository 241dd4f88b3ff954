"""Is what the UV maps hold the photo itself? And do the two rasterisers draw the same?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from engines.enrollment import Enrollment
from engines.geometry import F64, rotation_from_degrees, rotation_matrix, rotation_vector
from engines.head.landmark_names import OVAL
from engines.head.model import HeadModel, Part
from engines.motion import ARKIT_INDEX, Motion
from engines.raster.conditioning import computed_flow, computed_occlusion, face_mask, rendered_face
from engines.raster.gbuffer import GBuffer, HeadMesh, Viewport, grid_size, rasterise
from engines.raster.gbuffer_torch import TorchMesh, rasterise_torch
from engines.raster.pose import head_viewport, pose_head
from engines.raster.resample import resample
from scripts.measure.figures import (
    Figure,
    Section,
    column,
    enrolled,
    mean_of,
    psnr_db,
    share_percent,
    worst,
)

GRID_PX = 256
SAME_UV = 1 / 512
# (yaw, pitch, roll) in degrees against the photo, jaw and smile
POSES: tuple[tuple[float, float, float, float, float], ...] = (
    (0, 0, 0, 0, 0), (20, 0, 0, 0.5, 0), (-20, 5, 0, 0, 0.6), (0, 12, 0, 0.2, 0.2),
    (5, -12, 10, 0, 0), (25, -8, -8, 0.7, 0),
)  # fmt: skip


def posed_motion(source: Motion, pose: tuple[float, float, float, float, float]) -> Motion:
    """The photo's own motion, turned by three angles in degrees, with jaw and smile added."""
    yaw, pitch, roll, jaw, smile = pose
    turn = rotation_matrix(rotation_from_degrees(yaw, pitch, roll))
    expression = source.expression.copy()
    expression[ARKIT_INDEX["jawOpen"]] += jaw
    expression[[ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["mouthSmileRight"]]] += smile
    rotation = rotation_vector(turn @ rotation_matrix(source.rotation_rad))
    return replace(source, rotation_rad=rotation.astype(np.float32), expression=np.clip(expression, 0, 1.2))


def same_share(
    uv_a: NDArray[np.floating],
    covered_a: NDArray[np.bool_],
    uv_b: NDArray[np.floating],
    covered_b: NDArray[np.bool_],
) -> tuple[float, float]:
    """% of pixels with equal coverage and, where covered, uv within `SAME_UV`: of all, and of those covered."""
    near = np.abs(uv_a - uv_b).max(-1) <= SAME_UV
    same = (covered_a == covered_b) & (near | ~covered_a)
    either = covered_a | covered_b
    return share_percent(same), share_percent(same[either])


def grid_vertices(mesh: HeadMesh, viewport: Viewport, grid_px: int) -> tuple[NDArray[np.float32], int, int]:
    """Vertices (N, 3) in grid pixels as `rasterise` draws them, and the grid's (width, height)."""
    width, height = grid_size(viewport, grid_px)
    step = np.array([width / viewport.width_px, height / viewport.height_px], np.float32)
    points = mesh.vertices_px.copy()
    points[:, :2] *= step
    points[:, 2] *= float(step.mean())
    return points, width, height


def rest_gbuffer(model: HeadModel, enrollment: Enrollment) -> GBuffer:
    """The photo's own pose on a grid of 256."""
    viewport = head_viewport(enrollment, GRID_PX)
    mesh = pose_head(model, enrollment, enrollment.motion, viewport)
    return rasterise(model, mesh, viewport, GRID_PX)


def flow_at_rest_px(enrollment: Enrollment, gbuffer: GBuffer) -> F64:
    """Length of the computed flow at every point that the photo shows: it should be 0."""
    flow = computed_flow(enrollment.uv_position_px, gbuffer)
    seen = (computed_occlusion(enrollment.uv_visibility, gbuffer) > 0.5) & (face_mask(gbuffer) > 0)
    return np.linalg.norm(flow[seen], axis=-1).astype(np.float64)


def redraw(enrollment: Enrollment, gbuffer: GBuffer) -> dict[str, float]:
    """PSNR of the photo drawn from its own UV colour, over several masks."""
    viewport = gbuffer.viewport
    photo = resample(enrollment.photo, viewport, 0, (viewport.width_px, viewport.height_px)).astype(
        np.float32
    )
    drawn = rendered_face(enrollment.uv_colour, gbuffer) * 255
    head = face_mask(gbuffer) > 0
    seen = computed_occlusion(enrollment.uv_visibility, gbuffer) > 0.5
    oval = np.zeros(head.shape, np.uint8)
    points = gbuffer.mesh.landmarks_px[list(OVAL), :2]
    cv2.fillPoly(oval, [np.rint(points * 16 - 8).astype(np.int32)], 1, cv2.LINE_8, 4)
    outside = face_mask(gbuffer, (Part.SKIN, Part.EYE, Part.SOCKET)) > 0
    return {
        "psnr_face": psnr_db(photo, drawn, head & (oval > 0)),
        "psnr_face_skin": psnr_db(photo, drawn, outside & (oval > 0)),
        "psnr_face_seen": psnr_db(photo, drawn, head & (oval > 0) & seen),
        "psnr_head": psnr_db(photo, drawn, head),
        "psnr_head_seen": psnr_db(photo, drawn, head & seen),
    }


def agreement(model: HeadModel, enrollment: Enrollment) -> list[tuple[float, float]]:
    """`same_share` of the CPU's and torch's G-buffer for each of `POSES`."""
    viewport = head_viewport(enrollment, GRID_PX)
    mesh = TorchMesh.of(model.triangles, model.uv, model.part)
    out: list[tuple[float, float]] = []
    for pose in POSES:
        head = pose_head(model, enrollment, posed_motion(enrollment.motion, pose), viewport)
        on_cpu = rasterise(model, head, viewport, GRID_PX)
        points, width, height = grid_vertices(head, viewport, GRID_PX)
        with torch.no_grad():
            other = rasterise_torch(torch.from_numpy(points)[None], mesh, height, width, cull=True)
        out.append(same_share(on_cpu.uv, on_cpu.part > 0, other.uv[0].numpy(), other.covered[0].numpy()))
    return out


def measure_uv(model: HeadModel, photos: dict[str, Path | bytes]) -> Section:
    """Redrawing, flow at rest and agreement of the rasterisers, for each photo by name."""
    items: dict[str, dict[str, float]] = {}
    for name, photo in tqdm(photos.items(), desc="uv"):
        enrollment = enrolled(photo)
        gbuffer = rest_gbuffer(model, enrollment)
        flow = flow_at_rest_px(enrollment, gbuffer)
        same = agreement(model, enrollment)
        items[name] = redraw(enrollment, gbuffer) | {
            "flow_max": float(flow.max()),
            "flow_p99": float(np.percentile(flow, 99)),
            "scale": gbuffer.viewport.scale,
            "same_all": min(a for a, _ in same),
            "same_covered": min(b for _, b in same),
        }
    return Section("uv", _figures(items), items)


def _figures(items: dict[str, dict[str, float]]) -> Sequence[Figure]:
    def least(key: str, label: str, unit: str, at_least: float | None = None) -> Figure:
        own = column(items, key)
        note = f"{worst(items, key, low=True)}; mean {mean_of(own):.2f}"
        return Figure(
            key=key, label=label, value=mean_of(own, np.min), unit=unit, at_least=at_least, note=note
        )

    return [
        least("psnr_face", "PSNR of the photo from its own UV colour at 256², face oval, worst face", "dB", 35),
        least("psnr_face_skin", "the same without the mouth's inside", "dB"),
        least("psnr_face_seen", "the same where the photo shows it", "dB"),
        least("psnr_head", "the same, whole head", "dB"),
        least("psnr_head_seen", "the same, whole head where the photo shows it", "dB"),
        Figure(key="flow_max", label="flow at visible points at rest, greatest", unit="px", at_most=0.5,
               value=column(items, "flow_max").max(), note=worst(items, "flow_max")),
        Figure(key="flow_p99", label="flow at visible points at rest, p99", unit="px", at_most=0.5,
               value=column(items, "flow_p99").max(), note=worst(items, "flow_p99")),
        least("same_all", f"CPU and torch G-buffer agree, all pixels, worst of {len(POSES)} poses", "%", 99.5),
        least("same_covered", "the same of covered pixels", "%", 99.5),
    ]  # fmt: skip
