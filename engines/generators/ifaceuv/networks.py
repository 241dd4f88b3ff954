"""The networks of `ifaceuv`: f^E, f^Warp, f^UVRef and f^Edit of paper 000, IFaceUV (Lee, Ku, Kim and Baek).

The paper says of its layers that f^Warp is an auto-encoder whose flow has a quarter of the picture's size, that f^Edit
is like f^UVRef, and that z enters by AdaIN (eq. 3); the rest stands in figures that are not at hand. Ours follow the
work whose networks it builds on (its reference [34], Ren et al. 2021): five levels down and three up for the flow;
three levels down, residual blocks under AdaIN and jumps for the two that draw.

Choices and deviations:
- Encoders see no z: what depends on the photo alone runs once a photo (all of f^Warp's and f^UVRef's encoders and the
  jumps of f^UVRef). z modulates every block of the decoders. Encoders' norms are the layer norms of [34]; the AdaIN of
  the decoders is an instance norm, as the paper prints it.
- Where a decoder grows, what is wider is made smaller first and then doubled: a third of the cost.
- The last layer of each network begins at zero: the first flow is the one it is given, the first texture that of the
  photo, the first picture the combined one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from engines.compile.weights import NetworkKind
from engines.generators.networked.beyond import carried, in_boxes, known
from engines.generators.networked.layers import (
    AdaInResidual,
    AdaInUp,
    MotionEncoder,
    conv,
    doubled,
    leaky,
    zeroed,
)
from engines.motion_descriptor import DESCRIPTOR_SIZE

KIND = NetworkKind("ifaceuv", 1, "scripts.train")

RGBA = 4
TEXTURE = 4  # channels of the photo's UV maps: colour, and where the photo shows it
FLOW_SHARE = 0.1  # of the window's sides: what f^Warp says is told in tenths of them


@dataclass(frozen=True, slots=True)
class Widths:
    """Channels at 1, 1/2, 1/4, … of the window, finest first.

    - `code`: z. - `warp_down` (6) of f^Warp's encoder, at 1 … 1/32; `warp_up` (3) of its decoder, at 1/16, 1/8, 1/4.
    - `texture`, `edit` (4 each): f^UVRef and f^Edit, at 1 … 1/8. - `blocks`: residual blocks of each of their levels.
    - `edge`: size of their first and last kernels.
    """

    code: int = 256
    warp_down: tuple[int, ...] = (8, 16, 24, 32, 48, 64)
    warp_up: tuple[int, ...] = (48, 32, 24)
    texture: tuple[int, ...] = (8, 16, 32, 48)
    edit: tuple[int, ...] = (12, 24, 40, 64)
    blocks: int = 2
    edge: int = 5


PAPER = Widths(
    warp_down=(32, 64, 128, 256, 256, 256), warp_up=(256, 256, 128),
    texture=(64, 128, 256, 256), edit=(64, 128, 256, 256), edge=7,
)  # fmt: skip


class Block(nn.Module):
    """Convolution, layer norm, leaky ReLU; half the size where `half` says so."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, half: bool = False) -> None:
        super().__init__()
        self.conv = (
            nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)
            if half
            else conv(inputs, outputs, kernel, bias=False)
        )
        self.norm = nn.GroupNorm(1, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return leaky(self.norm(self.conv(x)))


class Encoder(nn.Module):
    """Pictures (B, inputs, h, w) → maps at 1, 1/2, …, as many as there are widths, finest first."""

    def __init__(self, inputs: int, widths: Sequence[int], edge: int) -> None:
        super().__init__()
        self.first = Block(inputs, widths[0], edge)
        pairs = pairwise(widths)
        self.down = nn.ModuleList([Block(a, b, half=True) for a, b in pairs])

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.first(x)]
        for block in self.down:
            maps.append(block(maps[-1]))
        return maps


class Jumps(nn.Module):
    """What the decoder is to see of an encoder's maps at all sizes but the smallest."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(w, w) for w in widths[:-1]])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [*(block(x) for block, x in zip(self.blocks, maps, strict=False)), maps[-1]]


class Decoder(nn.Module):
    """Maps of `Jumps`, finest first, and z → pictures (B, outputs, h, w), −1 … 1.

    At each size residual blocks under AdaIN (eq. 3), then twice the size, and what jumps there is added.
    """

    def __init__(self, outputs: int, widths: Sequence[int], code: int, blocks: int, edge: int) -> None:
        super().__init__()
        pairs = list(pairwise(widths))[::-1]
        self.residual = nn.ModuleList(
            [nn.ModuleList([AdaInResidual(b, code) for _ in range(blocks)]) for _, b in pairs]
        )
        self.up = nn.ModuleList([Block(b, a) for a, b in pairs])
        self.last = zeroed(conv(widths[0], outputs, edge))

    def forward(self, maps: Sequence[Tensor], z: Tensor) -> Tensor:
        x = maps[-1]
        for blocks, up, jump in zip(self.residual, self.up, reversed(maps[:-1]), strict=True):
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x, z)
            x = doubled(up(x)) + jump
        return torch.tanh(self.last(x))


class FlowDecoder(nn.Module):
    """f^Warp's second half: maps of its encoder at 1/4, 1/8, 1/16 and 1/32, finest first, and z → w (B, 2, h/4, w/4),
    in shares of the window's sides."""

    def __init__(self, down: Sequence[int], up: Sequence[int], code: int) -> None:
        super().__init__()
        skips = (0, *down[4:1:-1])  # at 1/32 there is nothing beside
        inputs = [a + b for a, b in zip((down[5], *up[:-1]), skips[:-1], strict=True)]
        self.up = nn.ModuleList([AdaInUp(a, b, code) for a, b in zip(inputs, up, strict=True)])
        self.last = zeroed(conv(up[-1] + skips[-1], 2))

    def forward(self, maps: Sequence[Tensor], z: Tensor) -> Tensor:
        x = maps[-1]
        for up, skip in zip(self.up, reversed(maps[:-1]), strict=True):
            x = torch.cat([up(x, z), skip], 1)
        return FLOW_SHARE * self.last(leaky(x)).float()


class IFaceUvNetworks(nn.Module):
    """All of them: what a weights file holds."""

    def __init__(self, widths: Widths, moments: int) -> None:
        super().__init__()
        w = widths
        self.motion = MotionEncoder(moments, DESCRIPTOR_SIZE, w.code)
        self.warp_encoder = Encoder(RGBA, w.warp_down, 3)
        self.warp = FlowDecoder(w.warp_down, w.warp_up, w.code)
        self.texture_encoder = nn.Sequential(Encoder(RGBA + TEXTURE, w.texture, w.edge), Jumps(w.texture))
        self.texture = Decoder(3, w.texture, w.code, w.blocks, w.edge)
        self.edit_encoder = nn.Sequential(Encoder(3 * RGBA, w.edit, w.edge), Jumps(w.edit))
        self.edit = Decoder(RGBA, w.edit, w.code, w.blocks, w.edge)

    def seen_by_warp(self, photo: Tensor) -> list[Tensor]:
        """Maps at 1/4 … 1/32 of I^s (B, 4, h, w)."""
        return self.warp_encoder(photo)[2:]

    def seen_by_texture(self, photo: Tensor, texture: Tensor) -> list[Tensor]:
        """Maps at 1 … 1/8 of I^s and I_uv^s, beside one another."""
        return self.texture_encoder(torch.cat([photo, texture], 1))

    def refine(self, maps: Sequence[Tensor], z: Tensor) -> Tensor:
        """f^UVRef (eq. 5): what the refined texture has more than the photo's, (B, 3, h, w), from `seen_by_texture`."""
        return self.texture(maps, z).float()

    def finish(self, photo: Tensor, warped: Tensor, combined: Tensor, z: Tensor) -> Tensor:
        """f^Edit (eq. 10): Î^s (B, 4, h, w)."""
        return combined + self.edit(self.edit_encoder(torch.cat([photo, warped, combined], 1)), z).float()


def spread(flow: Tensor, covered: Tensor, height: int) -> Tensor:
    """A flow (B, 2, height, w) known where `covered` (B, 1, height, w) is 1, carried beyond."""
    boxes = [(max(1, height // parts), counts) for parts, counts in _SURROUNDINGS]
    return carried(flow, covered, in_boxes(known(flow, covered), boxes), _FADE)


# how far around is looked, in parts of the height, each on top of the last, and what it counts
_SURROUNDINGS = ((64, 1.0), (32, 0.3), (16, 0.1), (8, 0.03), (8, 0.01))
_FADE = 0.001  # where only this much is known, half of the flow is left
