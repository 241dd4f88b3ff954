"""Training of the regressor: pairs of crops of one person, crops without a face, and the losses of the thesis."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from engines.head.regressor.network import NetShape, RegressorNet
from scripts.people.tracks import is_held_out
from scripts.regressor.regression import Batch, Samples, TorchBasis, collate, frame_weights, losses
from scripts.training.state import Settings
from scripts.training.task import Task

PORTRAIT_SHARE = 0.25
NO_FACE_SHARE = 0.25
WARM_UP_STEPS = 300
FINAL_RATE = 0.02

Drawn = tuple[Tensor, Batch]  # pictures (B, 3, 128, 128) uint8, and targets of those that show a face


class Draw:
    """Rows of training people: pairs of one person, clips and portraits in a fixed share."""

    def __init__(self, samples: Samples) -> None:
        crops = samples.crops
        subject = np.unique(crops.subjects, return_inverse=True)[1][crops.item]
        held_out = np.array([is_held_out(s) for s in crops.subjects])[crops.item]
        is_portrait = np.array([k == "portrait" for k in crops.kinds])[crops.item]
        weight = np.where(held_out, 0.0, frame_weights(samples.labels))
        # long clips count less than their length
        counts = np.bincount(crops.item, weight > 0, minlength=len(crops.names))[crops.item]
        weight = weight / np.sqrt(np.maximum(counts, 1))
        for kind, share in ((is_portrait, PORTRAIT_SHARE), (~is_portrait, 1 - PORTRAIT_SHARE)):
            total = weight[kind].sum()
            weight[kind] *= share / total if total else 0.0
        self.rows = np.flatnonzero(weight)
        self._sum = np.cumsum(weight[self.rows]) / weight.sum()
        self._own = {s: self.rows[subject[self.rows] == s] for s in np.unique(subject[self.rows])}
        self._subject = subject

    def pair(self, rng: np.random.Generator) -> tuple[int, int]:
        """Two rows of one person (the same row twice when there is no other)."""
        first = int(self.rows[min(np.searchsorted(self._sum, rng.random()), len(self.rows) - 1)])
        return first, int(rng.choice(self._own[self._subject[first]]))


class RegressorTask(Task[Drawn]):
    """See the module."""

    name = "regressor"
    most_gradient = 5.0

    def __init__(self, samples: Samples, settings: Settings, device: torch.device, *, bf16: bool) -> None:
        self.device = device
        self._samples, self._settings, self._bf16 = samples, settings, bf16
        self._draw = Draw(samples)
        self._basis = TorchBasis.of(samples.basis, device)
        self._spread = torch.from_numpy(samples.labels.expression.std(0) + 0.05).to(device)

    def network(self) -> RegressorNet:
        return RegressorNet(NetShape(identity_count=len(self._samples.basis.identity_hu)), norm=True)

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(network.parameters(), self._settings.rate, weight_decay=0.02)

    def rate(self, step: int, spent: float) -> float:
        """Warm-up by steps, then a cosine over the time budget."""
        cosine = FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * spent)) / 2
        return self._settings.rate * cosine * min(1.0, (step + 1) / WARM_UP_STEPS)

    def batch(self, step: int, rows: int) -> Drawn:
        rng = np.random.default_rng([self._settings.seed, step])
        empty = round(rows * NO_FACE_SHARE)
        drawn = [row for _ in range((rows - empty) // 2) for row in self._draw.pair(rng)]
        faces = [self._samples.face(row, rng) for row in drawn]
        others = [self._samples.no_face(int(rng.choice(self._draw.rows)), rng) for _ in range(empty)]
        images = np.stack([crop for crop, _ in faces] + others).transpose(0, 3, 1, 2)
        return torch.from_numpy(np.ascontiguousarray(images)), collate([t for _, t in faces])

    def losses(self, network: nn.Module, batch: Drawn, step: int) -> dict[str, Tensor]:
        assert isinstance(network, RegressorNet)
        images, targets = batch
        x = images.to(self.device).float().div_(255).to(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            raw = network(x)
        return losses(raw.float(), network.layout, to_device(targets, self.device), self._basis, self._spread)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`."""
    names = [n for n in Batch.__slots__ if n != "faces"]
    return replace(batch, **{n: getattr(batch, n).to(device, non_blocking=True) for n in names})
