"""The regressor's network: residual blocks with two thin maps beside the average."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engines.head.regressor.crop import INPUT_PX
from engines.head.regressor.prediction import IDENTITY_MODES, Layout

U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class NetShape:
    """Channels of the stem and of each stage, residual blocks per stage, channels of the fine map, and how many
    identity modes.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128, 192)
    blocks: tuple[int, ...] = (1, 1, 2, 1)
    detail: int = 8
    hidden: int = 256
    identity_count: int = IDENTITY_MODES


class _Unit(nn.Sequential):
    """Convolution, normalisation while training (folded into the convolution afterwards), ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, norm: bool, relu: bool) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=not norm),
            nn.BatchNorm2d(outputs) if norm else nn.Identity(),
            nn.ReLU() if relu else nn.Identity(),
        )


class _Block(nn.Module):
    """He et al. 2016, fig. 2: `relu(F(x) + x)`."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.first = _Unit(inputs, outputs, 3, stride, norm, relu=True)
        self.second = _Unit(outputs, outputs, 3, 1, norm, relu=False)
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else _Unit(inputs, outputs, 1, stride, norm, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H', W')."""
        return torch.relu(self.second(self.first(x)) + self.skip(x))


class RegressorNet(nn.Module):
    """RGB crops (B, 3, 128, 128) in 0 … 1 → parameters (B, D), see `Layout`.

    Plain 3 × 3 residual blocks, not depthwise ones: at the same multiplications they run as fast in OpenVINO
    and train five times faster on a CPU. Beside the average over the picture two thin maps are kept: 4 × 4,
    since an average forgets where the face is, and 16 × 16, where an eye still has a cell for each corner.
    """

    def __init__(self, shape: NetShape, norm: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.layout = Layout(shape.identity_count)
        channels = shape.widths[0]
        body: list[nn.Module] = [_Unit(3, channels, 3, 2, norm, relu=True)]
        for width, count in zip(shape.widths[1:], shape.blocks, strict=True):
            for index in range(count):
                body.append(_Block(channels, width, 2 if index == 0 else 1, norm))
                channels = width
        self.body = nn.Sequential(*body)
        coarse, fine = INPUT_PX // 2 ** len(shape.widths), INPUT_PX // 8
        self.map = _Unit(channels, 32, 1, 1, norm, relu=True)
        self.fine_after = sum(shape.blocks[:2])
        self.fine = _Unit(shape.widths[2], shape.detail, 1, 1, norm, relu=True)
        self.hidden = nn.Linear(channels + 32 * coarse**2 + shape.detail * fine**2, shape.hidden)
        self.out = nn.Linear(shape.hidden, self.layout.length)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 128, 128) → (B, D)."""
        x = (x - 0.45) * 4
        maps: list[Tensor] = []
        for index, layer in enumerate(self.body):
            x = layer(x)
            if index == self.fine_after:
                maps.append(self.fine(x).flatten(1))
        features = torch.cat([x.mean((2, 3)), self.map(x).flatten(1), *maps], 1)
        return self.out(torch.relu(self.hidden(features)))


def without_norm(net: RegressorNet) -> RegressorNet:
    """A copy in eval mode whose normalisations are folded into the convolutions; gives the same numbers."""
    out = copy.deepcopy(net).eval()
    for unit in [m for m in out.modules() if isinstance(m, _Unit)]:
        conv, norm = unit[0], unit[1]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            unit[0], unit[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return out


def as_input(crop: U8) -> Tensor:
    """A crop (128, 128, 3) as the network takes it: (1, 3, 128, 128) float32 in 0 … 1."""
    planes = np.ascontiguousarray(crop.transpose(2, 0, 1))
    return torch.from_numpy(planes)[None].float() / 255
