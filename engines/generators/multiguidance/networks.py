"""The networks of `multiguidance`: flow and occlusion completed (paper 001, eqs. 5 to 7), and the reenactment network.

The text names AdaIN in the completion network, and an encoder-decoder with warped and masked skips and SPADE; figures 3
and 4, which have the layers, are not at hand. Layers here are PIRenderer's (Ren et al. 2021, the same group's network,
which this paper compares with): an hourglass of five halvings and three doublings for flow, an encoder of three
halvings and residual blocks for the picture. Where it has AdaIN in the decoder the text has SPADE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.generators.networked.blueprint import warped
from engines.generators.networked.layers import (
    AdaInDown,
    AdaInUp,
    MotionEncoder,
    Spade,
    conv,
    doubled,
    leaky,
    resized_like,
    zeroed,
)
from engines.motion_descriptor import DESCRIPTOR_SIZE

PHOTO, COLOUR = 4, 3  # channels: premultiplied RGBA, RGB
FLOW_UNIT = 0.1  # of the window's sides: what the last layer's 1 means
# where the completion network starts, before its sigmoids: everything shown, most of the flow the computed one
_SHOWN, _FLOW_MASK, _OCCLUSION_MASK = 3.0, -2.0, 0.0
_MAPS = (2, 1, 1, 1)  # channels of F_p, O_p, M_f, M_o


@dataclass(frozen=True, slots=True)
class Config:
    """Widths per level; the shipped ones by default.

    - `completion`: from the window's resolution down to a 32nd; it gives its maps at the third, a quarter.
    - `reenactment`: from the window's resolution down to an eighth; `spade`: between I_r and γ, β on each of them.
    - `code`: what (β, p) become; `blocks`: on each level but the finest.
    """

    completion: tuple[int, int, int, int, int, int] = (8, 16, 32, 64, 64, 64)
    code: int = 64
    reenactment: tuple[int, int, int, int] = (16, 32, 64, 96)
    spade: tuple[int, int, int, int] = (16, 16, 32, 32)
    blocks: int = 1


PAPER = Config((32, 64, 128, 256, 256, 256), 256, (64, 128, 256, 256), (128, 128, 128, 128), 2)  # width 1


@dataclass(frozen=True, slots=True)
class Completion:
    """`{F_p, O_p, M_f, M_o}` of eq. 5, (B, 2 or 1, h, w): flow in shares of the window's sides, the others 0 … 1."""

    flow: Tensor
    occlusion: Tensor
    flow_mask: Tensor
    occlusion_mask: Tensor


def fused(mask: Tensor, predicted: Tensor, computed: Tensor) -> Tensor:
    """`M ⊙ predicted + (1 − M) ⊙ computed`: eqs. 6 and 7."""
    return mask * predicted + (1 - mask) * computed


class CompletionNetwork(nn.Module):
    """`F_c(I_s, ṽ_d)` of eq. 5: sees the photo and, by AdaIN, (β_d, p_d); not what was computed.

    `seen` (B, w, H, W) of the photo (B, 4, H, W) depends on it alone and is kept; each frame goes on from there.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths, z = config.completion, config.code
        self.photo = conv(PHOTO, widths[0], 7, bias=False)
        self.motion = MotionEncoder(1, DESCRIPTOR_SIZE, z)
        self.downs = nn.ModuleList([AdaInDown(a, b, z) for a, b in pairwise(widths)])
        self.ups = nn.ModuleList([AdaInUp(widths[k], widths[k - 1], z) for k in (5, 4, 3)])
        self.maps = conv(widths[2], sum(_MAPS))
        nn.init.zeros_(self.maps.weight)
        with torch.no_grad():
            assert self.maps.bias is not None
            self.maps.bias.copy_(torch.tensor([0.0, 0.0, _SHOWN, _FLOW_MASK, _OCCLUSION_MASK]))

    def forward(self, seen: Tensor, motion: Tensor) -> Completion:
        """`seen` of the photo, `motion` (B, 65) → maps as large as `seen`."""
        kind = seen.device.type
        if (
            kind in ("cpu", "cuda")
            and torch.is_autocast_enabled(kind)
            and torch.get_autocast_dtype(kind) == torch.bfloat16
        ):
            # a flow told in eight bits is off by a quarter of a pixel
            with torch.autocast(kind, enabled=False):
                return self._completed(seen.float(), motion.float())
        return self._completed(seen, motion)

    def _completed(self, seen: Tensor, motion: Tensor) -> Completion:
        z = self.motion(motion)
        levels = [seen]
        for down in self.downs:
            levels.append(down(levels[-1], z))
        x = levels.pop()
        for up in self.ups:
            x = up(x, z) + levels[-1]
            levels.pop()
        maps = F.interpolate(self.maps(leaky(x)).float(), size=seen.shape[2:], mode="bilinear")
        flow, occlusion, flow_mask, occlusion_mask = maps.split(_MAPS, 1)
        return Completion(
            flow * FLOW_UNIT, occlusion.sigmoid(), flow_mask.sigmoid(), occlusion_mask.sigmoid()
        )


class Encoder(nn.Module):
    """The photo (B, 4, H, W) → features at H, H / 2, H / 4, H / 8: once a photo."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.photo = conv(PHOTO, widths[0], 7)
        self.halves = nn.ModuleList([nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(widths)])
        self.thirds = nn.ModuleList([conv(b, b) for b in widths[1:]])

    def forward(self, photo: Tensor) -> list[Tensor]:
        levels = [self.photo(photo)]
        for half, third in zip(self.halves, self.thirds, strict=True):
            levels.append(third(leaky(half(leaky(levels[-1])))))
        return levels


class SpadeBlock(nn.Module):
    """`x + f(x, I_r)`: SPADE, leaky ReLU, convolution, twice (Park et al. 2019)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm = Spade(width, COLOUR, hidden), Spade(width, COLOUR, hidden)
        self.first, self.second = conv(width, width, bias=False), conv(width, width, bias=False)

    def forward(self, x: Tensor, rendered: Tensor) -> Tensor:
        y = self.first(leaky(self.first_norm(x, rendered)))
        return x + self.second(leaky(self.second_norm(y, rendered)))


class SpadeUp(nn.Module):
    """Twice the size: SPADE, leaky ReLU, convolution; what is wider is made smaller before it is large."""

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.norm, self.last = Spade(inputs, COLOUR, hidden), conv(inputs, outputs, bias=False)

    def forward(self, x: Tensor, rendered: Tensor) -> Tensor:
        return doubled(self.last(leaky(self.norm(x, rendered))))


class Decoder(nn.Module):
    """Features, warped and masked on each level, and I_r → (B, 5, H, W), zeros at first: see `ReenactmentNetwork`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths, hidden = config.reenactment, config.spade
        coarse = (3, 2, 1)
        self.blocks = nn.ModuleList(
            [nn.ModuleList([SpadeBlock(widths[k], hidden[k]) for _ in range(config.blocks)]) for k in coarse]
        )
        self.ups = nn.ModuleList([SpadeUp(widths[k], widths[k - 1], hidden[k]) for k in coarse])
        self.norm = Spade(widths[0], COLOUR, hidden[0])
        self.last = zeroed(conv(widths[0], PHOTO + 1))

    def forward(self, ported: Sequence[Tensor], rendered: Tensor) -> Tensor:
        *finer, x = ported
        for blocks, up, skip in zip(self.blocks, self.ups, reversed(finer), strict=True):
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x, rendered)
            x = up(x, rendered) + skip
        return self.last(leaky(self.norm(x, rendered)))


def ported(feature: Tensor, flow: Tensor, occlusion: Tensor) -> Tensor:
    """Encoder features (B, C, h, w) warped by F, then masked by O, both told at any size."""
    moved = warped(feature.float(), resized_like(flow, feature))
    return moved * resized_like(occlusion, feature)


class ReenactmentNetwork(nn.Module):
    """`F_r`: what `encoder` made of the photo, ported by F and O on every level, I_r by SPADE.

    The photo itself is the finest of the skips, of which nothing is masked: `I_g = (1 + k) ⊙ W(I_s, F) + r`, with k
    (B, 1, H, W) and r (B, 4, H, W) from the last layer, zeros at first.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.encoder = Encoder(config.reenactment)
        self.decoder = Decoder(config)

    def forward(
        self, moved: Tensor, features: Sequence[Tensor], flow: Tensor, occlusion: Tensor, rendered: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`moved`: the photo warped by F. Gives (picture, k)."""
        skips = [ported(f, flow, occlusion) for f in features]
        change = self.decoder(skips, rendered).float()
        keep, more = change[:, :1], change[:, 1:]
        return (1 + keep) * moved + more, keep


class MultiguidanceNetworks(nn.Module):
    """Both: what a weights file holds."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.completion = CompletionNetwork(config)
        self.reenactment = ReenactmentNetwork(config)
