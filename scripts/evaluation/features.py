"""What networks say of pictures: the perceptual distance, the pooled features of FID, the faces' descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.errors import VisavisError
from engines.geometry import F64
from scripts.evaluation.perceptual import PerceptualFeatures, perceptual_distance
from scripts.people.recognition import NETS, Recogniser

U8 = NDArray[np.uint8]
_BATCH = 8


def as_tensor(pictures: Sequence[U8]) -> Tensor:
    """Pictures (H, W, 3) uint8 → (B, 3, H, W) float 0 … 1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


class PerceptualMeasure:
    """LPIPS-efflite0 and the features of FID-efflite0 with one pass of the network over each picture."""

    def __init__(self) -> None:
        self._network = PerceptualFeatures()

    def features(self, pictures: Sequence[U8]) -> list[list[Tensor]]:
        """The feature maps of every picture: per picture a list of (1, C, h, w)."""
        out: list[list[Tensor]] = []
        with torch.inference_mode():
            for start in range(0, len(pictures), _BATCH):
                levels: list[Tensor] = self._network(as_tensor(pictures[start : start + _BATCH]))
                out += [[level[k : k + 1] for level in levels] for k in range(len(levels[0]))]
        return out


def distances(a: Sequence[Sequence[Tensor]], b: Sequence[Sequence[Tensor]]) -> list[float]:
    """LPIPS-efflite0 of each picture in `a` to its fellow in `b`."""
    with torch.inference_mode():
        return [float(perceptual_distance(x, y)) for x, y in zip(a, b, strict=True)]


def pooled(features: Sequence[Sequence[Tensor]]) -> F64:
    """(N, 320): the coarsest level averaged over places, as FID pools its Inception features."""
    return np.stack([f[-1].mean((2, 3))[0].numpy().astype(np.float64) for f in features])


def load_recognisers(folder: Path | None) -> tuple[list[Recogniser], str]:
    """The recognition nets in `folder`, and why CSIM is left out when there are none (else "")."""
    if folder is None:
        return [], "give the folder of the recognition nets with --recognition"
    found = [spec for spec in NETS if (folder / f"{spec.name}.json").is_file()]
    if not found:
        return [], f"neither faceres.json nor mobileface.json is in {folder}"
    try:
        return [Recogniser(folder, spec) for spec in found], ""
    except VisavisError as error:
        return [], str(error)
