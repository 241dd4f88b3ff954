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
from scripts.evaluation.perceptual import PerceptualFeatures, perceptual_distance
from scripts.people.recognition import NETS, Graph, NetSpec, arcface_points

LEVELS = 4  # the fifth is 1/32 of the picture: of a window of 128 that is 4 × 4

Describe = Callable[[Tensor, Tensor], Tensor]


class Perceptual:
    """Pictures (B, 3, H, W) 0 … 1 → feature maps in full precision, finest first; gradients flow to the pictures.

    Channels last: on a CPU that is 3.7 times as quick. On a GPU in bfloat16 where `learning`; on a CPU that gains
    nothing.
    """

    def __init__(self, device: torch.device, levels: int = LEVELS) -> None:
        self._device = device
        self._network = PerceptualFeatures(levels).to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        # figures are made without gradients somewhere, and of them every digit counts
        halved = self._device.type == "cuda" and torch.is_grad_enabled()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=halved):
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

    def __call__(self, pictures: Tensor, points_px: Tensor) -> Tensor:
        face = aligned(pictures.float(), points_px.float(), self._spec)
        out = self._graph.run(255 * face.permute(0, 2, 3, 1), self._spec.output)
        return F.normalize(out.reshape(len(pictures), -1), dim=1)


def aligned(pictures: Tensor, points_px: Tensor, spec: NetSpec) -> Tensor:
    """Faces upright in squares (B, 3, side, side), eyes and mouth where ArcFace has them."""
    side = spec.side_px
    target = torch.from_numpy(arcface_points(spec.side_px, spec.zoom)).to(points_px)
    # the turn, scale and shift that bring the target's points nearest to the face's, by least squares
    ours, theirs = target - target.mean(0), points_px - points_px.mean(1, keepdim=True)
    size = ours.square().sum()
    cos = (ours * theirs).sum((1, 2)) / size
    sin = (ours[:, 0] * theirs[..., 1] - ours[:, 1] * theirs[..., 0]).sum(1) / size
    turn = torch.stack([cos, -sin, sin, cos], -1).reshape(-1, 2, 2)
    shift = points_px.mean(1) - torch.einsum("bij,j->bi", turn, target.mean(0))
    # four samples to a pixel: a sampled large face is not the same as a small one
    at = (torch.arange(2 * side, device=pictures.device) + 0.5) / 2 - 0.5
    grid = torch.stack([at.expand(2 * side, -1), at[:, None].expand(-1, 2 * side)], -1)
    found = torch.einsum("bij,hwj->bhwi", turn, grid) + shift[:, None, None]
    height, width = pictures.shape[2:]
    extent = torch.tensor([width, height], device=pictures.device)
    return F.avg_pool2d(
        F.grid_sample(pictures, (2 * found + 1) / extent - 1, "bilinear", "border", align_corners=False), 2
    )


@dataclass(frozen=True, slots=True)
class Judges:
    """`perceptual` and `describe` (nets by name) where there are any; `missing` says why there are not."""

    perceptual: Callable[[Tensor], Sequence[Tensor]] | None
    describe: Mapping[str, Describe]
    missing: Mapping[str, str]

    def distance(self, made: Tensor, truth: Tensor) -> Tensor:
        """(B,) perceptual distance as LPIPS counts it; gradients flow to `made` alone."""
        if self.perceptual is None:
            raise VisavisError(self.missing["perceptual"])
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
