"""Where mouth and eyes are: paper 003, § 3.2.7, takes a loss over the mouth; in others of ours they count more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from engines.generators.networked import terms
from engines.generators.networked.constant import indices
from engines.generators.networked.scene import Scene
from engines.head.landmark_names import CORNERS_LEFT, CORNERS_RIGHT, EYE_LEFT, EYE_RIGHT, LIPS_OUTER

# half axes of the ellipse: of the part's own half width and height, and as much of the half width beyond
_OF_PART, _BEYOND = 2**0.5, 0.25


def mouth_mask(scene: Scene) -> Tensor:
    """m (B, 1, h, w): 1 in an ellipse around the lips of the posed head, which turns with the eyes.

    It passes through the corners of the box around the outer lips and a quarter of the mouth's half width further, so
    that a mouth that is more open in truth than on the mesh still lies within.
    """
    return _ellipses(scene, [LIPS_OUTER])[0]


def eyes_mask(scene: Scene) -> Tensor:
    """(B, 1, h, w): 1 in such an ellipse around the lids of either eye."""
    right, left = _ellipses(scene, [EYE_RIGHT, EYE_LEFT])
    return torch.maximum(right, left)


def parts_l1(scene: Scene, drawn: Tensor, truth: Tensor) -> Tensor:
    """(B,): |drawn − truth| of pictures (B, C, h, w), its mean over the mouth plus its mean over the eyes. Ours.

    Both are a fortieth of a window: in a mean over all of it what moves most counts least.
    """
    off = (drawn - truth).abs().mean(1, keepdim=True)
    masks = (F.interpolate(mask(scene), off.shape[2:]) for mask in (mouth_mask, eyes_mask))
    return torch.stack([_over(off, mask) for mask in masks]).sum(0)


def _over(off: Tensor, mask: Tensor) -> Tensor:
    return terms.l1(off * mask, torch.zeros_like(off)) / mask.mean((1, 2, 3)).clamp_min(1e-3)


def _ellipses(scene: Scene, parts: Sequence[tuple[int, ...]]) -> list[Tensor]:
    points = scene.tables.landmarks(scene.posed.corners[..., :2]).float()
    eyes = points.index_select(1, indices((CORNERS_RIGHT[0], CORNERS_LEFT[0]), points))
    across = eyes[:, 1] - eyes[:, 0]
    across = across / across.norm(dim=1, keepdim=True).clamp_min(1e-6)
    axes = torch.stack([across, torch.stack([-across[:, 1], across[:, 0]], 1)], 1)  # (B, 2, 2)
    return [_ellipse(scene, points.index_select(1, indices(part, points)), axes) for part in parts]


def _ellipse(scene: Scene, points: Tensor, axes: Tensor) -> Tensor:
    along = (points[:, :, None] * axes[:, None]).sum(3)
    least, most = along.amin(1), along.amax(1)
    middle, half = (least + most) / 2, (most - least) / 2
    reach = half * _OF_PART + half[:, :1] * _BEYOND
    x = torch.arange(scene.size.width_px, device=points.device) + 0.5
    y = torch.arange(scene.size.height_px, device=points.device)[:, None] + 0.5
    off = [
        (axes[:, k, 0, None, None] * x + axes[:, k, 1, None, None] * y - middle[:, k, None, None])
        / reach[:, k, None, None].clamp_min(1e-6)
        for k in range(2)
    ]
    return (off[0].square() + off[1].square() < 1).to(points.dtype)[:, None]
