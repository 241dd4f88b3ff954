"""The networks of `pwm`: an encoder of the photo, and progressive warping modules (PWM) from coarse to fine.

Paper: "Geometry Driven Progressive Warping for One-Shot Face Animation" (002), § 3.3 and 3.4; supplement 2. Levels are
l = 1 … L, L = 5, coarsest first; at 256 pixels they have 16, 32, 64, 128 and 256. `g` is the guidance, `F_s` are the
encoder's features, `F_r` the re-aligned ones:

    l = 1:     F_r¹ = conv([F_s¹(x + g), F_s¹])     guided by displacements; conv(F_s¹) where by coordinates alone
    l = 1 … 4: m = SPADE(F_r^l, g)
               D^l = conv(m)
               F_r^{l+1} = conv([up(conv(m)), F_s^{l+1}(x + up(D^l))])
    I_o = conv(F_r^L)

The paper's layer widths stand in a figure that we do not have. Ours:

- Level L of the encoder is one convolution; each further level halves the sides (4 × 4, stride 2) and looks once more
  (3 × 3), both with instance norm and leaky ReLU, as the encoder of SPADE's authors has them.
- SPADE has instance norm and one hidden layer (`layers.Spade`). D is what one 3 × 3 convolution makes of its output;
  the other route is leaky ReLU, 3 × 3 convolution to the next level's width, bilinear twice the size. What is
  concatenated goes through a 3 × 3 convolution and leaky ReLU.
- "One level" for the ablation: level 3 alone estimates, out of features that were never warped, and its D warps what is
  finer.
- Spectral norm on every convolution (`everywhere`). It fixes a layer's scale: nothing can begin, or stay, near zero by
  small weights.
- How it begins: weights are orthogonal, and some are set so that the first picture is the photo warped by the computed
  displacement, in this very network: D is no residual. Two channels of each SPADE are modulated away but for the
  displacement that guides, and D reads those two; RGBA passes level L in four channels. Guided by codes alone, D begins
  at 0. All of it is free to change from the first step on.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm  # pyright: ignore[reportPrivateUsage]

from engines.compile.weights import NetworkKind
from engines.generators.networked.blueprint import warped
from engines.generators.networked.layers import Spade, conv, doubled, leaky, normed, resized_like

KIND = NetworkKind("pwm", 1, "scripts.train")
RGBA = 4
# a displacement of 1 in the guide, in shares of the window: spectral norm keeps what is told small from being heard
TOLD = 1 / 16
# what D's convolution must be multiplied by, for a displacement to come out as it went in: the norm of the weights that
# split it into both signs is √2, and again of those that join them
_REACH = 2 * TOLD
_LESS = 0.9  # what is drawn beside what is fixed: the norm, which is found in a few iterations, is then the latter's
_SINGLE = 3  # the level that estimates D where only one does


@dataclass(frozen=True, slots=True)
class PwmConfig:
    """`widths`: of the levels, coarsest first. `hidden`: of each SPADE. `codes`: d, numbers of a vertex' code."""

    widths: tuple[int, int, int, int, int] = (128, 96, 80, 48, 16)
    hidden: int = 32
    codes: int = 16

    def __post_init__(self) -> None:
        if min(self.widths) <= RGBA or self.hidden <= RGBA:
            raise ValueError(f"{self.widths} and hidden {self.hidden}: each must be more than {RGBA}")


PAPER = PwmConfig((512, 512, 256, 128, 64), 128, 16)


@dataclass(frozen=True, slots=True)
class Drawn:
    """`rgba` I_o (B, 4, h, w); `displacements` D^1 … D^{L−1} (B, 2, …) or one alone, in shares of the window."""

    rgba: Tensor
    displacements: list[Tensor]


class Encoder(nn.Module):
    """Photo and what lies beside it (B, C, h, w) → F_s^1 … F_s^L, coarsest first."""

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.first = conv(inputs, widths[-1])
        fine_first = list(reversed(widths))
        self.downs = nn.ModuleList([nn.Conv2d(a, b, 4, 2, 1, bias=False) for a, b in pairwise(fine_first)])
        self.looks = nn.ModuleList([conv(b, b, bias=False) for b in fine_first[1:]])
        _orthogonal(self.first, _passing(self.first, RGBA))
        for layer in (*self.downs, *self.looks):
            assert isinstance(layer, nn.Conv2d)
            _orthogonal(layer)

    def forward(self, photo: Tensor) -> tuple[Tensor, ...]:
        levels = [leaky(self.first(photo))]
        for down, look in zip(self.downs, self.looks, strict=True):
            x = leaky(normed(down(levels[-1])))
            levels.append(leaky(normed(look(x))))
        return tuple(reversed(levels))


class FirstModule(nn.Module):
    """The PWM of the coarsest level: no SPADE, no estimate; `moves`: the guide's displacement warps F_s¹."""

    def __init__(self, width: int, moves: bool) -> None:
        super().__init__()
        self.moves = moves
        self.join = conv(width * (2 if moves else 1), width)
        _orthogonal(self.join)

    def forward(self, features: Tensor, guide: Tensor) -> Tensor:
        if not self.moves:
            return leaky(self.join(features))
        moved = warped(features.float(), TOLD * resized_like(guide[:, :2], features))
        return leaky(self.join(torch.cat([moved, features], 1)))


class WarpingModule(nn.Module):
    """PWM: (F_r^l, g, F_s^{l+1}, a displacement from before) → F_r^{l+1}, D^l.

    `moves`: the guide begins with a displacement. `passes`: RGBA in the first channels of F_s^{l+1} stays there.
    `estimates`: else it has no D of its own, and warps by what it is given, or not at all where that is None.
    """

    def __init__(
        self, width: int, finer: int, guide: int, hidden: int, *, moves: bool, passes: bool, estimates: bool
    ) -> None:
        super().__init__()
        self.spade = Spade(width, guide, hidden)
        self.displacement = conv(width, 2) if estimates else None
        self.route = conv(width, finer)
        self.join = conv(2 * finer, finer)
        _begin(self.spade, self.displacement, moves)
        _orthogonal(self.route)
        _orthogonal(self.join, _passing(self.join, RGBA, finer) if passes else None)

    def forward(
        self, x: Tensor, guide: Tensor, features: Tensor, given: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        m = self.spade(x, guide)
        flow = given if self.displacement is None else _REACH * self.displacement(m).float()
        seen = features if flow is None else warped(features.float(), flow)
        return leaky(self.join(torch.cat([doubled(self.route(leaky(m))), seen], 1))), flow


class PwmNetworks(nn.Module):
    """All of it. `guide` channels steer, the first two a displacement in units of `TOLD` where it `moves`; `beside`
    channels lie beside the photo. `codes` (N, d): the latent vectors of the head's vertices, where they are learned.

    `progressive`: each level estimates; else one alone.
    """

    def __init__(
        self, config: PwmConfig, guide: int, beside: int, codes: Tensor | None = None,
        *, moves: bool = True, progressive: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        widths = config.widths
        self.codes = None if codes is None else nn.Parameter(codes)
        self.encoder = Encoder(RGBA + beside, widths)
        self.first = FirstModule(widths[0], moves and progressive)
        self.warping = nn.ModuleList(
            [
                WarpingModule(
                    width, finer, guide, config.hidden,
                    moves=moves, passes=level == len(widths) - 1, estimates=progressive or level == _SINGLE,
                )
                for level, (width, finer) in enumerate(pairwise(widths), start=1)
            ]
        )  # fmt: skip
        self.last = conv(widths[-1], RGBA)
        _orthogonal(self.last, _passing(self.last, RGBA))
        everywhere(self)

    def forward(self, guide: Tensor, *features: Tensor) -> Drawn:
        x = self.first(features[0], guide)
        flow: Tensor | None = None
        flows: list[Tensor] = []
        for module, finer in zip(self.warping, features[1:], strict=True):
            assert isinstance(module, WarpingModule)
            x, flow = module(x, guide, finer, flow)
            if flow is not None and module.displacement is not None:
                flows.append(flow)
        return Drawn(self.last(x).float(), flows)


def everywhere(network: nn.Module) -> nn.Module:
    """The network itself, now with spectral norm on each convolution that had none (§ 3.4)."""
    for layer in list(network.modules()):
        if isinstance(layer, nn.Conv2d) and not parametrize.is_parametrized(layer):
            parametrize.register_parametrization(layer, "weight", WholeSpectralNorm(layer.weight))
    return network


class WholeSpectralNorm(_SpectralNorm):
    """Spectral norm in full precision whatever surrounds it: what serves would else be brighter than what learned."""

    def forward(self, weight: Tensor) -> Tensor:
        if weight.is_meta:  # has no autocast
            return super().forward(weight)
        with torch.autocast(weight.device.type, enabled=False):
            return super().forward(weight)


# --- how it begins ----------------------------------------------------------------------------------------


@torch.no_grad()
def _orthogonal(layer: nn.Conv2d, fixed: Tensor | None = None) -> None:
    """Weights with orthonormal rows, or columns, so that spectral norm finds them at 1. The first rows are `fixed`
    (rows, columns), where given, and the others look away from what those look at. No bias."""
    weight = layer.weight.flatten(1)
    if layer.bias is not None:
        layer.bias.zero_()
    rows = 0 if fixed is None else len(fixed)
    found = torch.zeros_like(weight)
    if rows < len(weight):
        drawn = torch.empty_like(weight[rows:])
        nn.init.orthogonal_(drawn)
        found[rows:] = drawn
    if fixed is not None:
        free = fixed.abs().sum(0) == 0
        found = found * free * _LESS
        found[:rows] = fixed
    layer.weight.copy_(found.reshape(layer.weight.shape))


def _at_centre(layer: nn.Conv2d, rows: int) -> Tensor:
    """(rows, inputs, kernel, kernel) of nothing."""
    return torch.zeros(rows, *layer.weight.shape[1:], device=layer.weight.device)


def _passing(layer: nn.Conv2d, count: int, first: int = 0) -> Tensor:
    """Rows that pass `count` channels from `first` on as they are."""
    rows, middle = _at_centre(layer, count), layer.kernel_size[0] // 2
    for k in range(count):
        rows[k, first + k, middle, middle] = 1
    return rows.flatten(1)


@torch.no_grad()
def _begin(spade: Spade, displacement: nn.Conv2d | None, moves: bool) -> None:
    """The first two channels of a SPADE become the guide's displacement, or nothing, and D reads those two."""
    shared, gamma, beta = spade.shared, spade.gamma, spade.beta
    assert isinstance(shared, nn.Conv2d)
    assert isinstance(gamma, nn.Conv2d)
    assert isinstance(beta, nn.Conv2d)
    if displacement is None:
        for layer in (shared, gamma, beta):
            _orthogonal(layer)
        return
    _orthogonal(gamma, torch.zeros(2, gamma.weight[0].numel(), device=gamma.weight.device))
    assert gamma.bias is not None
    gamma.bias[:2] = -1
    joined, middle = _at_centre(beta, 2), 1
    if moves:
        signs = _at_centre(shared, RGBA)
        for axis in range(2):
            for side, sign in enumerate((1, -1)):
                signs[2 * axis + side, axis, middle, middle] = sign
                joined[axis, 2 * axis + side, middle, middle] = sign
        _orthogonal(shared, signs.flatten(1))
    else:
        _orthogonal(shared)
    _orthogonal(beta, joined.flatten(1))
    _orthogonal(displacement, _passing(displacement, 2))
