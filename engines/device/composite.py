"""The last step on a device: premultiplied RGBA over a background, or straight; the twin of `picture.composite`."""

from __future__ import annotations

import torch
from torch import Tensor


def over(picture: Tensor, background: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 of (B, 4, H, W), whole numbers, over (B, 3, H, W) uint8."""
    behind = (background.float() * (255 - picture[:, 3:]) / 255).round()
    return (picture[:, :3] + behind).clamp_max(255).to(torch.uint8).permute(0, 2, 3, 1)


def straight(picture: Tensor) -> Tensor:
    """(B, H, W, 4) uint8 with straight colours."""
    alpha = picture[:, 3:]
    colour = torch.where(alpha > 0, picture[:, :3] * 255 / alpha.clamp_min(1), 0).round().clamp_max(255)
    return torch.cat([colour, alpha], 1).to(torch.uint8).permute(0, 2, 3, 1)
