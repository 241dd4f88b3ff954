"""`Openings`: what shows between lids and lips, of which a photo tells little, drawn by the head model and laid over a
warped photo: eyeballs and lids that fall, the mouth's inside.

Ours in all papers: their head models end at lids and lips, ours has eyes and a mouth. `geometric` draws the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.generators.geometric.eyes import EyePlate, eye_patches, make_eyes
from engines.generators.geometric.limits import MARGIN
from engines.generators.geometric.mouth import Mouth, make_mouth
from engines.generators.geometric.mouth_inside import mouth_inside
from engines.generators.geometric.patch import Patch, layered
from engines.geometry import Similarity
from engines.head.model import HeadModel
from engines.motion import Motion
from engines.picture.composite import still_person
from engines.raster.gbuffer import HeadMesh, Viewport
from engines.raster.pose import pose_head

U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Openings:
    """One photo's eyes and mouth in a viewport; `pose` and `motion` are the photo's there."""

    model: HeadModel
    eyes: tuple[EyePlate, EyePlate]
    mouth: Mouth
    pose: Similarity
    motion: Motion
    viewport: Viewport

    @staticmethod
    def of(model: HeadModel, enrollment: Enrollment, viewport: Viewport) -> Openings:
        """As fine as the viewport has them."""
        margin = round(MARGIN * max(viewport.width_px, viewport.height_px))
        canvas = still_person(enrollment, viewport, margin)
        mesh = pose_head(model, enrollment, enrollment.motion, viewport)
        points = mesh.landmarks_px[:, :2] + margin
        mouth = make_mouth(model, enrollment, canvas, points, mesh.pose)
        return Openings(model, make_eyes(canvas, points), mouth, mesh.pose, enrollment.motion, viewport)

    def drawn(self, mesh: HeadMesh, window: Viewport, motion: Motion) -> tuple[Patch | None, ...]:
        """Right eye, left eye and mouth of a head told in the pixels of `window`, in those of the viewport; None:
        nothing of it shows."""
        here = mesh.seen_in(window, self.viewport)
        size = (self.viewport.width_px, self.viewport.height_px)
        turned = motion.gaze_rad - self.motion.gaze_rad
        right, left = (layered(eye) for eye in eye_patches(self.eyes, here, self.pose, turned, size))
        return right, left, mouth_inside(self.mouth, self.model, here, self.pose, size)

    def picture(self, mesh: HeadMesh, window: Viewport, motion: Motion) -> U8:
        """All of it as one picture (H, W, 4) of the viewport, premultiplied, as pairs keep it."""
        out = np.zeros((self.viewport.height_px, self.viewport.width_px, 4), np.float32)
        whole = layered([patch for patch in self.drawn(mesh, window, motion) if patch is not None])
        if whole is not None:
            x0, y0, x1, y1 = whole.box
            out[y0:y1, x0:x1] = np.dstack([whole.colour, whole.alpha * 255])
        return np.clip(out + np.float32(0.5), 0, 255).astype(np.uint8)
