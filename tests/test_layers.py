"""The layers that several papers share do what their equations say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engines.generators.networked.discriminators import folded
from engines.generators.networked.layers import (
    AdaIn,
    AdaInDown,
    AdaInResidual,
    AdaInUp,
    MotionEncoder,
    Spade,
    conv,
    normed,
    resized_like,
)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 6, 16, 12, generator=torch.Generator().manual_seed(3)) * 4 + 7


def test_features_are_normed_row_by_row_and_channel_by_channel(x: Tensor) -> None:
    mean, deviation = x.mean((2, 3), keepdim=True), x.std((2, 3), keepdim=True, correction=0)
    assert torch.allclose(normed(x), (x - mean) / deviation, atol=1e-4)


def test_adain_scales_and_biases_by_the_code(x: Tensor) -> None:
    """000, eq. 3."""
    layer, z = AdaIn(6, 5), torch.randn(2, 5)
    scale = z @ layer.scale.weight.T + layer.scale.bias
    bias = z @ layer.bias.weight.T + layer.bias.bias
    wanted = scale[:, :, None, None] * normed(x) + bias[:, :, None, None]
    assert torch.allclose(layer(x, z), wanted, atol=1e-5)
    # what comes out has the code's deviation and mean, whatever came in
    assert torch.allclose(layer(x, z).mean((2, 3)), bias, atol=1e-4)
    assert torch.allclose(layer(x, z).std((2, 3), correction=0), scale.abs(), atol=1e-3)


def test_spade_modulates_each_place_by_the_guide_there(x: Tensor) -> None:
    layer = Spade(6, 3, 4)
    guide = torch.zeros(2, 3, 32, 24)
    guide[..., 12:] = 1
    found = layer(x, guide)
    seen = torch.relu(layer.shared(nn.functional.avg_pool2d(guide, 2)))
    assert torch.allclose(found, normed(x) * (1 + layer.gamma(seen)) + layer.beta(seen), atol=1e-5)
    other = guide.clone()
    other[..., :8] = 1  # far from the right half
    assert torch.allclose(layer(x, other)[..., 8:], found[..., 8:], atol=1e-5)
    assert not torch.allclose(layer(x, other)[..., :3], found[..., :3], atol=1e-3)


def test_a_guide_is_averaged_where_it_shrinks() -> None:
    guide = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.equal(
        resized_like(guide, torch.zeros(1, 9, 2, 2))[0, 0], torch.tensor([[2.5, 4.5], [10.5, 12.5]])
    )
    assert resized_like(guide, torch.zeros(1, 9, 8, 8)).shape == (1, 1, 8, 8)
    assert resized_like(guide, torch.zeros(1, 2, 4, 4)) is guide


def test_blocks_have_their_sizes_and_all_of_them_learns(x: Tensor) -> None:
    z = torch.randn(2, 5)
    for block, shape in (
        (AdaInDown(6, 10, 5), (2, 10, 8, 6)),
        (AdaInUp(6, 4, 5), (2, 4, 32, 24)),
        (AdaInResidual(6, 5), (2, 6, 16, 12)),
    ):
        found = block(x, z)
        assert found.shape == shape
        found.square().sum().backward()
        for name, p in block.named_parameters():
            assert p.grad is not None, name
            assert float(p.grad.abs().max()) > 1e-3, name
        assert float((block(x, z + 1) - found).detach().abs().max()) > 1e-4


def test_a_window_of_motions_becomes_one_code() -> None:
    encoder = MotionEncoder(3, 65, 7)
    motions = torch.randn(2, 3, 65)
    z = encoder(motions)
    assert z.shape == (2, 7)
    for moment in range(3):
        other = motions.clone()
        other[:, moment] += 1
        assert float((encoder(other) - z).detach().abs().max()) > 1e-4


def test_spade_takes_spectral_norm_and_folds(x: Tensor) -> None:
    layer = Spade(6, 3, 4, nn.utils.parametrizations.spectral_norm).eval()
    guide = torch.rand(2, 3, 16, 12)
    plain = folded(layer)
    assert set(plain.state_dict()) == set(Spade(6, 3, 4).state_dict())
    assert torch.allclose(plain(x, guide), layer(x, guide), atol=1e-5)


def test_convolutions_keep_the_size_or_halve_it(x: Tensor) -> None:
    for kernel in (1, 3, 7):
        assert conv(6, 2, kernel)(x).shape == (2, 2, 16, 12)
        assert conv(6, 2, kernel, 2)(x).shape == (2, 2, 8, 6)
