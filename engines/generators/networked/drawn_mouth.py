"""`DrawnMouth`: what lies between the lips, of which no photo tells, drawn by the head model; laid over a warped photo.

Ours in all papers: their head models end at the lips, ours has a mouth. `geometric` draws the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engines.enrollment import Enrollment
from engines.generators.geometric.limits import MARGIN
from engines.generators.geometric.mouth import Mouth, make_mouth
from engines.generators.geometric.mouth_inside import Inside, mouth_inside
from engines.geometry import Similarity
from engines.head.model import HeadModel
from engines.picture.composite import still_person
from engines.raster.gbuffer import HeadMesh, Viewport
from engines.raster.pose import pose_head


@dataclass(frozen=True, slots=True, eq=False)
class DrawnMouth:
    """One photo's mouth in a viewport: `pose` is the photo's there."""

    model: HeadModel
    mouth: Mouth
    pose: Similarity
    viewport: Viewport

    @staticmethod
    def of(model: HeadModel, enrollment: Enrollment, viewport: Viewport) -> DrawnMouth:
        """Colours under the photo's light, and its own teeth, as fine as the viewport has them."""
        margin = round(MARGIN * max(viewport.width_px, viewport.height_px))
        canvas = still_person(enrollment, viewport, margin)
        mesh = pose_head(model, enrollment, enrollment.motion, viewport)
        mouth = make_mouth(model, enrollment, canvas, mesh.landmarks_px[:, :2] + margin, mesh.pose)
        return DrawnMouth(model, mouth, mesh.pose, viewport)

    def inside(self, mesh: HeadMesh, window: Viewport) -> Inside | None:
        """Of a head told in the pixels of `window`, in those of the viewport; None: nothing of it shows."""
        here = mesh.seen_in(window, self.viewport)
        size = (self.viewport.width_px, self.viewport.height_px)
        return mouth_inside(self.mouth, self.model, here, self.pose, size)


def laid_over(picture: Tensor, inside: Tensor) -> Tensor:
    """`inside` (B, 4, h, w), premultiplied, over the person (B, 4, h, w), whose alpha is kept."""
    colour = picture[:, :3] * (1 - inside[:, 3:]) + inside[:, :3]
    return torch.cat([colour, picture[:, 3:]], 1)
