"""What the geometry of one frame costs on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from engines.head.model import HeadModel
from engines.motion import Motion
from engines.raster.conditioning import computed_flow, computed_occlusion, prepare_map
from engines.raster.gbuffer import rasterise, seen_triangles
from engines.raster.pose import decode_head, head_viewport, pose_head
from engines.renderer import Renderer, range_of_motion
from scripts.measure.figures import Figure, Section, enrolled
from scripts.measure.loop import make_script, wanted_motions

GRID_PX, PICTURE_PX = 256, 512
FRAMES = 120


def timed(work: Callable[[Motion], object], motions: Sequence[Motion]) -> tuple[float, float]:
    """Median milliseconds per motion: (on the wall, of this thread)."""
    wall_ms: list[float] = []
    thread_ms: list[float] = []
    for motion in motions:
        wall_ns, thread_ns = time.perf_counter_ns(), time.thread_time_ns()
        work(motion)
        thread_ms.append((time.thread_time_ns() - thread_ns) / 1e6)
        wall_ms.append((time.perf_counter_ns() - wall_ns) / 1e6)
    return float(np.median(wall_ms)), float(np.median(thread_ms))


def measure_speed(model: HeadModel, photo: Path | bytes) -> Section:
    """Median milliseconds of every step at 256², and of a whole picture at 512²."""
    enrollment = enrolled(photo)
    every = wanted_motions(make_script(), enrollment)
    motions = every[:: max(1, len(every) // FRAMES)]
    viewport = head_viewport(enrollment, GRID_PX)
    position, visibility = prepare_map(enrollment.uv_position_px), prepare_map(enrollment.uv_visibility)
    renderer = Renderer(enrollment, size_px=PICTURE_PX)
    meshes = {id(m): pose_head(model, enrollment, m, viewport) for m in motions}
    # as the renderer does: only triangles that ever show
    around = [pose_head(model, enrollment, m, viewport) for m in range_of_motion(enrollment.motion)]
    chosen = seen_triangles(model, around, viewport)
    gbuffers = {id(m): rasterise(model, meshes[id(m)], viewport, GRID_PX) for m in motions}

    def lookups(motion: Motion) -> None:
        computed_flow(position, gbuffers[id(motion)])
        computed_occlusion(visibility, gbuffers[id(motion)])

    steps: dict[str, tuple[str, Callable[[Motion], object]]] = {
        "decode": ("decode_head (within pose_head)", lambda m: decode_head(model, enrollment, m)),
        "pose": ("pose_head", lambda m: pose_head(model, enrollment, m, viewport)),
        "rasterise": (
            f"rasterise at {GRID_PX}",
            lambda m: rasterise(model, meshes[id(m)], viewport, GRID_PX, chosen),
        ),
        "lookups": ("flow and occlusion looked up", lookups),
        "render": (f"Renderer.render at {PICTURE_PX}", renderer.render),
    }
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        times = {key: timed(work, motions) for key, (_, work) in tqdm(steps.items(), desc="speed")}
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
    figures = [
        Figure(key=f"{key}_ms", label=f"{steps[key][0]}, median", value=wall, unit="ms",
               note=f"{thread:.2f} ms of its thread")
        for key, (wall, thread) in times.items()
    ]  # fmt: skip
    summed = ("pose", "rasterise", "lookups")
    total, own = (sum(times[key][k] for key in summed) for k in (0, 1))
    figures.append(
        Figure(key="sum_ms", label="pose_head + rasterise + lookups", value=total, unit="ms", at_most=5)
    )
    figures.append(
        Figure(key="sum_thread_ms", label="the same, of the thread", value=own, unit="ms", at_most=5)
    )
    return Section("speed", figures)
