"""The networks of `idmatch`: encoders of PNCC and photo, the correspondence, the generator with its skip connections.

Equations by the numbers of `engines.generators.idmatch`. Only operations of rank 4 or less that every engine has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.compile.weights import NetworkKind
from engines.generators.idmatch.correspondence import (
    CELL_PX,
    Embedding,
    answers,
    cell_places,
    flow_of,
    gathered,
    in_cells,
    shares_of,
    similarity,
    unit,
)
from engines.generators.networked.blueprint import warped
from engines.generators.networked.layers import Spade, conv, doubled, leaky, zeroed

KIND = NetworkKind("idmatch", 1, "scripts.train")  # weights of another version are refused
GUIDE_CHANNELS = 4  # PNCC and where the head covers the window
FLOW_LIMIT = 0.05  # of the window's sides: how far the generator moves what the correspondence has brought


@dataclass(frozen=True, slots=True)
class IdmatchConfig:
    """Widths at the whole window, half, a quarter and an eighth of it: `keys` of the encoder of PNCC, `widths` of photo
    encoder and generator, `hidden` between PNCC and modulation (of the first three). `key`: of a key, four times a
    whole number of at least three; `blocks`: of the generator at an eighth."""

    keys: tuple[int, int, int, int] = (8, 16, 32, 48)
    widths: tuple[int, int, int, int] = (16, 24, 48, 80)
    hidden: tuple[int, int, int] = (8, 16, 32)
    key: int = 128
    blocks: int = 3


# the size of the networks it cites (CoCoSNet, SPADE); the abstract prints none
FULL_SIZE = IdmatchConfig((64, 128, 256, 256), (64, 128, 256, 512), (64, 128, 128), 256, 4)


class Kept(NamedTuple):
    """What a photo gives once: `keys` (B, K, h, w) unit, `answered` (B, 2, h, w), `values` (B, C, h, w), and the skips'
    features at the window's size, half and a quarter of it."""

    keys: Tensor
    answered: Tensor
    values: Tensor
    skip1: Tensor
    skip2: Tensor
    skip4: Tensor


class Drawn(NamedTuple):
    """`rgba` (B, 4, H, W) and `flow` (B, 2, H / 4, W / 4), and how they came about: the photo `warped` (B, 4, H, W),
    in cells the correspondence's flow `coarse`, the generator's `residual` to it at a quarter, the `photo` and the
    photo `gathered`, the driven `keys`."""

    rgba: Tensor
    flow: Tensor
    warped: Tensor
    coarse: Tensor
    residual: Tensor
    photo: Tensor
    gathered: Tensor
    keys: Tensor


class Block(nn.Module):
    """`x + f(x)`, at first almost x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = conv(width, width), conv(width, width)
        with torch.no_grad():
            self.second.weight.mul_(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(leaky(self.first(leaky(x))))


class Pyramid(nn.Module):
    """A picture (B, inputs, H, W) → features at H, H / 2, H / 4 and H / 8."""

    def __init__(self, inputs: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.stem = conv(inputs, widths[0])
        self.down = nn.ModuleList([nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(widths)])
        self.blocks = nn.Sequential(*[Block(widths[-1]) for _ in range(blocks)])

    def forward(self, picture: Tensor) -> list[Tensor]:
        found = [self.stem(picture)]
        for down in self.down:
            found.append(down(leaky(found[-1])))
        found[-1] = self.blocks(found[-1])
        return found


class KeyEncoder(nn.Module):
    """PNCC, coverage and places → unit keys (B, K, H / 8, W / 8); (1). One for both PNCCs: they are of one kind."""

    def __init__(self, config: IdmatchConfig) -> None:
        super().__init__()
        self.pyramid = Pyramid(GUIDE_CHANNELS + 2, config.keys, 2)
        self.embedding = Embedding(config.key)
        self.to_key = conv(config.keys[-1], config.key, 1)
        zeroed(self.to_key)  # at first the embedding alone

    def embed(self, guide: Tensor, places: Tensor) -> Tensor:
        """e (B, K, H / 8, W / 8) of a guide (B, 4, H, W) and places (B, 2, H / 8, W / 8) in shares of the window."""
        return self.embedding(*in_cells(guide), places)

    def forward(self, guide: Tensor, places: Tensor, embedded: Tensor) -> Tensor:
        """Of guide and places, and what `embed` makes of them."""
        size = guide.shape[2:]
        fine = F.interpolate(2 * places - 1, size=size, mode="bilinear", align_corners=False)
        learned = self.to_key(leaky(self.pyramid(torch.cat([guide, fine], 1))[-1]))
        return unit(embedded + learned.float())


class Up(nn.Module):
    """Twice the size: what comes from below, beside a geometry-aware skip connection; (6).

    `σ = SPADE(skip warped by the correspondence; rebuilt PNCC)`, `x = g(up(x), σ)`.
    """

    def __init__(self, inputs: int, width: int, hidden: int, beside: int = 0) -> None:
        super().__init__()
        self.rise = conv(inputs, width)
        self.spade = Spade(width, GUIDE_CHANNELS, hidden)
        self.join = conv(2 * width + beside, width)
        self.block = Block(width)

    def forward(
        self, x: Tensor, skip: Tensor, flow: Tensor, guide: Tensor, *beside: Tensor, use_skip: bool = True
    ) -> Tensor:
        x = doubled(self.rise(leaky(x)))
        aware = self.spade(warped(skip.float(), flow), guide) if use_skip else torch.zeros_like(x)
        return self.block(self.join(torch.cat([x, leaky(aware), *beside], 1)))


class IdmatchNetworks(nn.Module):
    """All of them: what a weights file holds."""

    def __init__(self, config: IdmatchConfig | None = None) -> None:
        super().__init__()
        self.config = config or IdmatchConfig()
        c = self.config
        w1, w2, w4, w8 = c.widths
        self.key_encoder = KeyEncoder(c)
        self.photo_encoder = Pyramid(4 + GUIDE_CHANNELS, c.widths, 2)
        self.enter = conv(w8 + 4 + GUIDE_CHANNELS, w8)
        self.blocks = nn.Sequential(*[Block(w8) for _ in range(c.blocks)])
        self.up4 = Up(w8, w4, c.hidden[2])
        self.to_flow = conv(w4, 2)
        self.up2 = Up(w4, w2, c.hidden[1])
        self.up1 = Up(w2, w1, c.hidden[0], beside=4)
        self.to_picture = conv(w1, 4)
        for last in (self.to_flow, self.to_picture):  # at first the photo as the correspondence warps it
            zeroed(last)

    def encode(self, photo: Tensor, own: Tensor) -> Kept:
        """Photo (B, 4, H, W), premultiplied, and PNCC with coverage (B, 4, H, W) as the photo shows the head."""
        skip1, skip2, skip4, values = self.photo_encoder(torch.cat([photo, own], 1))
        places = cell_places(values)
        own_places = places.expand(own.shape[0], -1, -1, -1)
        keys = self.key_encoder(own, own_places, self.key_encoder.embed(own, own_places))
        answered = answers(shares_of(similarity(keys, keys), 2), places)
        return Kept(keys, answered, values, skip1, skip2, skip4)

    def forward(
        self,
        photo: Tensor,
        guide: Tensor,
        carried: Tensor,
        embedded: Tensor,
        kept: Kept,
        *,
        correspond: bool = True,
        use_skips: bool = True,
    ) -> Drawn:
        """`photo` and `guide` (the rebuilt PNCC with coverage) (B, 4, H, W), `carried` (B, 2, H / 8, W / 8): the
        computed flow, beyond the head what it is around; `embedded` (B, K, H / 8, W / 8): guide and carried places as
        `embed` makes them, outside the networks of a frame: waves of codes that an engine had rounded were others.
        Without `correspond` the carried flow is the correspondence.
        """
        cells = F.avg_pool2d(photo, CELL_PX)
        places = cell_places(cells)
        keys = self.key_encoder(guide, places + carried, embedded)
        if correspond:
            shares = shares_of(similarity(keys, kept.keys), 2)
            coarse = flow_of(shares, kept.answered, places)
            values, brought = gathered(shares, kept.values), gathered(shares, cells)
        else:
            coarse = carried
            values, brought = warped(kept.values.float(), coarse), warped(cells, coarse)
        x = self.enter(torch.cat([values, brought, F.avg_pool2d(guide, CELL_PX)], 1))
        x = self.up4(self.blocks(x), kept.skip4, coarse, guide, use_skip=use_skips)
        residual = FLOW_LIMIT * torch.tanh(self.to_flow(leaky(x)).float())
        flow = doubled(coarse) + residual
        moved = warped(photo.float(), flow)
        x = self.up2(x, kept.skip2, flow, guide, use_skip=use_skips)
        x = self.up1(x, kept.skip1, flow, guide, moved, use_skip=use_skips)
        rgba = moved + self.to_picture(leaky(x)).float()
        return Drawn(rgba, flow, moved, coarse, residual, cells, brought, keys)
