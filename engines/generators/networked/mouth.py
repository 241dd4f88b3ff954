"""Where the mouth is: the pixels over which paper 003, § 3.2.7, takes its mouth loss, and that count more in others."""

from __future__ import annotations

import torch
from torch import Tensor

from engines.generators.networked.constant import indices
from engines.generators.networked.scene import Scene
from engines.head.landmark_names import CORNERS_LEFT, CORNERS_RIGHT, LIPS_OUTER

# half axes of the ellipse: of the lips' own half width and height, and as much of the half width beyond
_OF_LIPS, _BEYOND = 2**0.5, 0.25


def mouth_mask(scene: Scene) -> Tensor:
    """m (B, 1, h, w): 1 in an ellipse around the lips of the posed head, which turns with the eyes.

    It passes through the corners of the box around the outer lips and a quarter of the mouth's half width further, so
    that a mouth that is more open in truth than on the mesh still lies within.
    """
    points = scene.tables.landmarks(scene.posed.corners[..., :2]).float()
    eyes = points.index_select(1, indices((CORNERS_RIGHT[0], CORNERS_LEFT[0]), points))
    across = eyes[:, 1] - eyes[:, 0]
    across = across / across.norm(dim=1, keepdim=True).clamp_min(1e-6)
    axes = torch.stack([across, torch.stack([-across[:, 1], across[:, 0]], 1)], 1)  # (B, 2, 2)
    lips = (points.index_select(1, indices(LIPS_OUTER, points))[:, :, None] * axes[:, None]).sum(3)
    least, most = lips.amin(1), lips.amax(1)
    middle, half = (least + most) / 2, (most - least) / 2
    reach = half * _OF_LIPS + half[:, :1] * _BEYOND
    x = torch.arange(scene.size.width_px, device=points.device) + 0.5
    y = torch.arange(scene.size.height_px, device=points.device)[:, None] + 0.5
    off = [
        (axes[:, k, 0, None, None] * x + axes[:, k, 1, None, None] * y - middle[:, k, None, None])
        / reach[:, k, None, None].clamp_min(1e-6)
        for k in range(2)
    ]
    return (off[0].square() + off[1].square() < 1).to(points.dtype)[:, None]
