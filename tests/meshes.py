"""A small head-like mesh that needs no model file, and the CPU's G-buffer of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from engines.geometry import rotation_from_degrees, rotation_matrix
from engines.raster.gbuffer import GBuffer, HeadMesh, Viewport, draw_triangles

F32 = NDArray[np.float32]
POSES = ((0, 0, 0), (25, 0, 0), (-25, 10, 5), (0, -20, 30), (60, 10, -10), (-45, -20, 0))


@dataclass(frozen=True)
class Bumpy:
    """An egg with a nose and bumps that hide parts of it; `part` runs over 1 … 7 twice around it."""

    vertices: F32  # (N, 3), about 1 in size
    uv: F32
    triangles: NDArray[np.int32]
    part: NDArray[np.uint8]


def bumpy(rows: int = 72, columns: int = 72) -> Bumpy:
    """`rows · columns` vertices; the seam of its uv is at the back. Outwards as `HeadModel` winds triangles."""
    phi = np.linspace(0.02, np.pi - 0.02, rows)[:, None]
    theta = np.linspace(0, 2 * np.pi, columns)[None]
    bumps = 0.12 * np.sin(5 * theta) * np.sin(phi) ** 2 * np.sin(3 * phi)
    r = 1 + bumps + 0.25 * np.exp(-((theta - np.pi) ** 2 + (phi - 1.7) ** 2) / 0.05)
    xyz = (0.8 * r * np.sin(phi) * np.sin(theta), -1.1 * r * np.cos(phi), r * np.sin(phi) * np.cos(theta))
    uv = np.stack(np.broadcast_arrays(theta / (2 * np.pi), phi / np.pi), -1).reshape(-1, 2)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (i.ravel() for i in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]))
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]).astype(np.int32)
    part = 1 + (uv[triangles].mean(1)[:, 0] * 14).astype(int) % 7
    return Bumpy(
        np.stack(xyz, -1).reshape(-1, 3).astype(np.float32),
        uv.astype(np.float32),
        triangles,
        part.astype(np.uint8),
    )


def posed(vertices: F32, angles: tuple[float, float, float], side: int = 256) -> F32:
    """Turned by (yaw, pitch, roll) degrees and set into the middle of a square picture: pixels."""
    rotation = rotation_matrix(rotation_from_degrees(*angles))
    return (side / 3 * (vertices @ rotation.T) + (side / 2 + 0.3, side / 2 - 0.4, 3)).astype(np.float32)


def draw_on_cpu(
    vertices_px: F32, triangles: NDArray[np.int32], uv: F32, part: NDArray[np.uint8], width: int, height: int
) -> tuple[F32, NDArray[np.uint8], F32]:
    """What `engines.raster.gbuffer` draws: uv, part and depth."""
    corners = triangles.reshape(-1)
    colours = np.empty((len(corners), 3), np.float32)
    colours[:, :2] = uv[corners]
    colours[:, 2] = np.repeat(part.astype(np.float32) / 8, 3)
    colour, depth = draw_triangles(vertices_px[corners], colours, width, height)
    return np.ascontiguousarray(colour[..., :2]), np.rint(colour[..., 2] * 8).astype(np.uint8), depth


def gbuffer_of(head: Bumpy, vertices_px: F32, viewport: Viewport, width: int, height: int) -> GBuffer:
    """A G-buffer of `vertices_px` (grid pixels), without the posed head that lookups do not need."""
    uv, part, depth = draw_on_cpu(vertices_px, head.triangles, head.uv, head.part, width, height)
    return GBuffer(uv, part, depth, cast(HeadMesh, None), viewport)
