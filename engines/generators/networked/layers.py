"""Layers that several papers share: AdaIN, SPADE, and blocks of an auto-encoder that a code modulates.

Papers by their number here: 000 IFaceUV, 001 Multiple Guidance, 002 Progressive Warping, 003 One-shot Reenactment using
3DMM, 004 Identity Match. Norms are kept as the papers have them. Only operations of rank 4 that every engine has.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

MakeConv = Callable[[nn.Conv2d], nn.Module]  # plain, or under spectral norm

_SLOPE = 0.2  # of leaky ReLUs


def plain(conv: nn.Conv2d) -> nn.Module:
    """A convolution as it is."""
    return conv


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps the size, or divides it by `stride`; no `bias` before a norm, which takes it away."""
    return nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=bias)


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """A layer that says nothing, until it has learned."""
    assert layer.bias is not None
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def normed(x: Tensor) -> Tensor:
    """`(x − μ(x)) / σ(x)` of each row's channels over places: 000, eq. 3."""
    return F.instance_norm(x)


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU."""
    return F.leaky_relu(x, _SLOPE)


def doubled(x: Tensor) -> Tensor:
    """(B, C, 2h, 2w), bilinear."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def resized_like(guide: Tensor, x: Tensor) -> Tensor:
    """`guide` at the size of `x`: averaged where it shrinks by a whole number, else bilinear."""
    height, width = x.shape[2:]
    if guide.shape[2:] == x.shape[2:]:
        return guide
    times = guide.shape[2] // height
    if times > 1 and guide.shape[2:] == (times * height, times * width):
        return F.avg_pool2d(guide, times)
    return F.interpolate(guide, size=(height, width), mode="bilinear", align_corners=False)


class AdaIn(nn.Module):
    """`σ(z_s) · (x − μ(x)) / σ(x) + μ(z_b)`: features normed, then scaled and biased by what fully connected layers
    make of a code z (000, eq. 3; Huang and Belongie 2017). At first scale 1, bias 0."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.scale, self.bias = nn.Linear(code, width), nn.Linear(code, width)
        for layer, start in ((self.scale, 1.0), (self.bias, 0.0)):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.constant_(layer.bias, start)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.scale(z)[:, :, None, None] * normed(x) + self.bias(z)[:, :, None, None]


class Spade(nn.Module):
    """`γ(g) · norm(x) + β(g)` at each place, by a guide that is brought to the size of the features (Park et al. 2019;
    001, 002, 003, 004). `hidden`: width between guide and γ, β. At first γ about 1, β about 0."""

    def __init__(self, width: int, guide: int, hidden: int, make: MakeConv = plain) -> None:
        super().__init__()
        self.shared = make(conv(guide, hidden))
        self.gamma, self.beta = make(conv(hidden, width)), make(conv(hidden, width))

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        seen = F.relu(self.shared(resized_like(guide, x)))
        return normed(x) * (1 + self.gamma(seen)) + self.beta(seen)


class AdaInDown(nn.Module):
    """Half the size, modulated by z: AdaIN, leaky ReLU, convolution of stride 2; AdaIN, leaky ReLU, convolution."""

    def __init__(self, inputs: int, outputs: int, code: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm = AdaIn(inputs, code), AdaIn(outputs, code)
        self.first = nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)
        self.second = conv(outputs, outputs)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        x = self.first(leaky(self.first_norm(x, z)))
        return self.second(leaky(self.second_norm(x, z)))


class AdaInUp(nn.Module):
    """Twice the size, modulated by z, with a shortcut; what is wider is made smaller before it is large."""

    def __init__(self, inputs: int, outputs: int, code: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm = AdaIn(inputs, code), AdaIn(outputs, code)
        self.first, self.second = conv(inputs, outputs, bias=False), conv(outputs, outputs)
        self.short = conv(inputs, outputs, 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        y = self.first(leaky(self.first_norm(x, z)))
        y = self.second(leaky(self.second_norm(doubled(y), z)))
        return y + doubled(self.short(x))


class AdaInResidual(nn.Module):
    """`x + f(x, z)`, the size kept: convolution, AdaIN, leaky ReLU, twice."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.first, self.second = conv(width, width, bias=False), conv(width, width, bias=False)
        self.first_norm, self.second_norm = AdaIn(width, code), AdaIn(width, code)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        y = leaky(self.first_norm(self.first(x), z))
        return x + leaky(self.second_norm(self.second(y), z))


class MotionEncoder(nn.Module):
    """`f^E`: p → z (B, code) of a window of motion descriptors (B, moments, 65) (000, eqs. 1 and 2; 001's v_d alone).

    The moments' numbers beside one another, three fully connected layers.
    """

    def __init__(self, moments: int, size: int, code: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, code) for a in (moments * size, code, code)])

    def forward(self, motions: Tensor) -> Tensor:
        z = motions.flatten(1)
        for layer in self.layers:
            z = leaky(layer(z))
        return z
