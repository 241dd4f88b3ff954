"""The networks of `pncc`: warping, mapping and enhancing network of paper 003, tables 3.1 to 3.4.

Table rows stand beside the layers that they are. Where tables 3.1 and 3.3 say "256 ch." and 512 come out, it is 512:
two pixel shuffles then make the 128 and 32 that follow. A pixel shuffle fixes widths behind it to a quarter and a
sixteenth of the third convolution's; the first two convolutions are free.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from engines.generators.networked.layers import AdaIn, Spade, conv, leaky, normed, zeroed
from engines.motion_descriptor import DESCRIPTOR_SIZE

RGBA, PNCC, FLOW = 4, 3, 2  # channels
SHRINKS = 4  # sides of the deepest features are a fourth of the window's

# What an output of 1 of the last convolutions means, which begin at 0. Their rows sum hundreds of products, and each
# weight moves as far as any other in a step.
_FLOW_STEP = 0.05  # shares of the window
_COLOUR_STEP = 0.2


@dataclass(frozen=True, slots=True)
class PnccConfig:
    """Widths per level; by default those that ship, `paper` has those of the tables.

    - `warping`, `enhancing`: of the three convolutions, the window's size first; the third is a multiple of 16.
    - `hidden`: of SPADE between guide and γ, β, the window's size first (the tables do not say: Park et al. have 128).
    - `code`: what the mapping network gives.
    """

    warping: tuple[int, int, int] = (8, 16, 64)
    enhancing: tuple[int, int, int] = (8, 24, 80)
    hidden: tuple[int, int, int] = (8, 16, 24)
    code: int = 128

    @staticmethod
    def paper() -> PnccConfig:
        """Width 1."""
        return PnccConfig((32, 128, 512), (32, 128, 512), (128, 128, 128))


class Encoder(nn.Module):
    """The first rows of tables 3.1 and 3.3: three convolutions with instance norm and ReLU, the second and the third of
    stride 2. Gives the features of all three, finest first."""

    def __init__(self, inputs: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        first, second, third = widths
        self.convs = nn.ModuleList(
            [
                conv(inputs, first, 7, bias=False),
                conv(first, second, 3, 2, bias=False),
                conv(second, third, 3, 2, bias=False),
            ]
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found: list[Tensor] = []
        for layer in self.convs:
            x = F.relu(normed(layer(x)))
            found.append(x)
        return found[0], found[1], found[2]


class SpadeBlock(nn.Module):
    """Table 3.4: SPADE layer, leaky ReLU and 3 × 3 convolution, twice; it has no shortcut. `bias` of the last
    convolution: none where a norm follows."""

    def __init__(self, width: int, guide: int, hidden: int, *, bias: bool = True) -> None:
        super().__init__()
        self.first_norm, self.second_norm = (Spade(width, guide, hidden) for _ in range(2))
        self.first, self.second = conv(width, width, bias=False), conv(width, width, bias=bias)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        x = self.first(leaky(self.first_norm(x, guide)))
        return self.second(leaky(self.second_norm(x, guide)))


class AdaInBlock(nn.Module):
    """Table 3.4: AdaIN layer, leaky ReLU and 3 × 3 convolution, twice."""

    def __init__(self, width: int, code: int, *, bias: bool = True) -> None:
        super().__init__()
        self.first_norm, self.second_norm = AdaIn(width, code), AdaIn(width, code)
        self.first, self.second = conv(width, width, bias=False), conv(width, width, bias=bias)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        x = self.first(leaky(self.first_norm(x, code)))
        return self.second(leaky(self.second_norm(x, code)))


class Warping(nn.Module):
    """Table 3.1 behind its convolutions: the photo's features, told by the driving PNCC where to go, → flow
    (B, 2, h, w) in shares of the window; 0 at first."""

    def __init__(self, config: PnccConfig) -> None:
        super().__init__()
        width, hidden = config.warping[2], config.hidden
        self.deep = SpadeBlock(width, PNCC, hidden[2])
        self.middle = SpadeBlock(width // 4, PNCC, hidden[1])
        self.shuffle = nn.PixelShuffle(2)
        self.flow = zeroed(conv(width // 16, FLOW, 7))

    def forward(self, deepest: Tensor, pncc: Tensor) -> Tensor:
        x = self.shuffle(self.deep(deepest, pncc))
        x = self.shuffle(self.middle(x, pncc))
        return _FLOW_STEP * self.flow(x)


class Mapping(nn.Module):
    """Table 3.2: motion (B, 65) → code (B, code); five fully connected layers, ReLU behind all but the last."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, code) for a in (DESCRIPTOR_SIZE, *[code] * 4)])

    def forward(self, motion: Tensor) -> Tensor:
        *rest, last = self.layers
        for layer in rest:
            motion = F.relu(layer(motion))
        return last(motion)


class Enhancing(nn.Module):
    """Table 3.3 but for its last two rows: the driving PNCC, by SPADE what the photo's warped features have there, by
    AdaIN the motion's code, → what is added to the warped photo (B, 4, h, w); nothing at first with `residual`."""

    def __init__(self, config: PnccConfig, *, residual: bool = True) -> None:
        super().__init__()
        width, hidden, code = config.enhancing[2], config.hidden, config.code
        fine, middle, deep = config.warping  # of the photo's features
        self.encoder = Encoder(PNCC, config.enhancing)
        self.deep, self.deep_code = SpadeBlock(width, deep, hidden[2], bias=False), AdaInBlock(width, code)
        width //= 4
        self.middle = SpadeBlock(width, middle, hidden[1], bias=False)
        self.middle_code = AdaInBlock(width, code)
        width //= 4
        self.fine = SpadeBlock(width, fine, hidden[0], bias=False)
        self.fine_code = AdaInBlock(width, code, bias=False)
        self.last = SpadeBlock(width, RGBA, hidden[0])
        self.shuffle = nn.PixelShuffle(2)
        self.colour = conv(width, RGBA, 7)
        if residual:
            zeroed(self.colour)
        else:  # a grey picture, so that the clamp behind holds nothing back
            assert self.colour.bias is not None
            nn.init.constant_(self.colour.bias, 0.5 / _COLOUR_STEP)

    def forward(self, pncc: Tensor, photo: Tensor, features: tuple[Tensor, ...], code: Tensor) -> Tensor:
        fine, middle, deep = features
        x = self.encoder(pncc)[2]
        x = self.shuffle(self.deep_code(self.deep(x, deep), code))
        x = self.shuffle(self.middle_code(self.middle(x, middle), code))
        x = self.last(self.fine_code(self.fine(x, fine), code), photo)
        return _COLOUR_STEP * self.colour(x)


class PnccNetworks(nn.Module):
    """All of them: what a weights file holds."""

    def __init__(self, config: PnccConfig, *, residual: bool = True) -> None:
        super().__init__()
        self.encoder = Encoder(RGBA + PNCC, config.warping)
        self.warping = Warping(config)
        self.mapping = Mapping(config.code)
        self.enhancing = Enhancing(config, residual=residual)
