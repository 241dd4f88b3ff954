"""What a training lends to losses: the frozen perceptual network, where it is installed and wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scripts.evaluation.perceptual import PerceptualFeatures, perceptual_distance

_LEVELS = 4


class FrozenJudges:
    """`engines.generators.networked.lesson.Judges` on one device. Raises PerceptualError where it is not installed."""

    def __init__(self, device: torch.device, *, perceptual: bool = True) -> None:
        self._device = device
        self._features = PerceptualFeatures(_LEVELS).to(device) if perceptual else None

    @property
    def perceptual(self) -> Callable[[Tensor], Sequence[Tensor]] | None:
        """The first feature maps, finest first."""
        return None if self._features is None else self._seen

    def distance(self, made: Tensor, truth: Tensor) -> Tensor:
        """(B,) perceptual distance; gradients flow to `made` alone."""
        with torch.no_grad():
            wanted = self._seen(truth)
        return perceptual_distance(self._seen(made.clamp(0, 1)), wanted)

    def _seen(self, picture: Tensor) -> Sequence[Tensor]:
        assert self._features is not None
        with torch.autocast(self._device.type, enabled=False):
            return self._features(picture.float())
