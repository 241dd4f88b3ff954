"""What a training lends to losses: frozen networks that look at pictures, built once, or why not.

Perceptual features, and recognition nets by name: one may teach (`Judges.describe`), and then another must judge what
was learned (`scripts.evaluation.features`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from engines.errors import VisavisError
from engines.generators.networked.lesson import Describe
from scripts.evaluation.perceptual import PerceptualError, PerceptualFeatures, perceptual_distance
from scripts.people.recognition import NETS, Graph, NetSpec, arcface_points

LEVELS = 4  # the fifth is 1/32 of the picture: of a window of 128 that is 4 × 4
SAMPLES = 2  # in each direction, to a pixel of an aligned face


class Perceptual:
    """Pictures (B, 3, H, W) 0 … 1 → feature maps in full precision, finest first; gradients flow to the pictures.

    Channels last, and on a GPU in bfloat16; a CPU gains little by either.
    """

    def __init__(self, device: torch.device, levels: int = LEVELS) -> None:
        self._device = device
        self._network = PerceptualFeatures(levels).to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            found: list[Tensor] = self._network(pictures)
        return [feature.float() for feature in found]


class Describer:
    """A recognition net that gradients flow through: pictures (B, 3, H, W) 0 … 1 and `points_px` (B, 5, 2), the middle
    of both eyes, nose tip and mouth corners in pixels → unit descriptors (B, D).

    As `Recogniser`, whose alignment is OpenCV's. Raises RecognitionError when the net's files are missing.
    """

    def __init__(self, folder: Path, spec: NetSpec, device: torch.device) -> None:
        self._spec = spec
        graph = Graph.load(folder / f"{spec.name}.json")
        # shapes and axes, which are whole numbers, are read by Python: on the CPU
        moved = {n: w.to(device) if w.is_floating_point() else w for n, w in graph.weights.items()}
        self._graph = replace(graph, weights=moved)
        self._target_px = torch.from_numpy(arcface_points(spec.side_px, spec.zoom)).float().to(device)

    def __call__(self, pictures: Tensor, points_px: Tensor) -> Tensor:
        # on a GPU in bfloat16, whatever the training around it does
        kind = self._target_px.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
            face = aligned(pictures.float(), points_px.float(), self._target_px, self._spec.side_px)
            out = self._graph.run(255 * face.permute(0, 2, 3, 1), self._spec.output)
        return F.normalize(out.float().reshape(len(pictures), -1), dim=1)


def aligned(pictures: Tensor, points_px: Tensor, target_px: Tensor, side_px: int) -> Tensor:
    """Pictures (B, 3, H, W) turned, scaled and shifted into squares (B, 3, side, side), where `points_px` (B, n, 2)
    come to lie as near as can be to `target_px` (n, 2)."""
    ours, theirs = points_px - points_px.mean(1, keepdim=True), target_px - target_px.mean(0)
    # of the way there, as `similarity_2d`, but for the size of the points
    cos = (ours * theirs).sum((1, 2))
    sin = (ours[..., 0] * theirs[:, 1] - ours[..., 1] * theirs[:, 0]).sum(1)
    # a sampler wants the way back
    size = ours.square().sum((1, 2)) / (cos**2 + sin**2)
    a, b = (size * cos)[:, None, None], (size * sin)[:, None, None]
    # several samples to a pixel: a sampled large face is not the same as a small one
    many = SAMPLES * side_px
    at = (torch.arange(many, device=pictures.device) + 0.5) / SAMPLES - 0.5
    # no matrix product, which mixed precision would round
    across, down = (at - target_px[:, k].mean() for k in range(2))
    middle = points_px.mean(1)[:, :, None, None]
    x = middle[:, 0] + a * across + b * down[:, None]
    y = middle[:, 1] - b * across + a * down[:, None]
    height, width = pictures.shape[2:]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    return F.avg_pool2d(F.grid_sample(pictures, grid, "bilinear", "border", align_corners=False), SAMPLES)


@dataclass(frozen=True, slots=True)
class Judges:
    """`perceptual` and `describe` (nets by name) where there are any; `missing` says why there are not."""

    perceptual: Callable[[Tensor], Sequence[Tensor]] | None
    describe: Mapping[str, Describe]
    missing: Mapping[str, str]

    def distance(self, made: Tensor, truth: Tensor) -> Tensor:
        """(B,) perceptual distance as LPIPS counts it; gradients flow to `made` alone."""
        if self.perceptual is None:
            raise PerceptualError(self.missing["perceptual"])
        with torch.no_grad():
            wanted = self.perceptual(truth)
        return perceptual_distance(self.perceptual(made.clamp(0, 1)), wanted)


def lent(device: torch.device, *, perceptual: bool = True, recognition: Path | None = None) -> Judges:
    """Judges on `device`: the perceptual network unless it is not wanted, and the nets in the folder `recognition`."""
    missing: dict[str, str] = {}
    features: Perceptual | None = None
    if perceptual:
        try:
            features = Perceptual(device)
        except VisavisError as error:
            missing["perceptual"] = str(error)
    else:
        missing["perceptual"] = "the perceptual network is not wanted"
    describe: dict[str, Describe] = {}
    for spec in NETS:
        if recognition is None:
            missing[spec.name] = "give the folder of the recognition nets with --recognition"
            continue
        try:
            describe[spec.name] = Describer(recognition, spec, device)
        except VisavisError as error:
            missing[spec.name] = str(error)
    return Judges(features, describe, missing)
