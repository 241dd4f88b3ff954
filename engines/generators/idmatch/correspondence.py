"""Where each place of the rebuilt PNCC comes from in the photo: softmax of cosine, and all that is gathered by it.

Equations by the numbers of `engines.generators.idmatch`. Places are cells of a grid of one eighth of the window.

Products and softmax are in full precision, also within mixed precision. An engine may round to bfloat16 all the same
(OpenVINO on CPUs that compute in it), and there cosines near 1 and places at the window's far side are coarse: so
products tell how much a cosine is below 1 and how far a place is away, which are small where they matter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.generators.networked.beyond import carried, in_halves, known

CELL_PX = 8  # pixels of the window to a cell, each way
TEMPERATURE = 0.01  # of the cosine, as CoCoSNet's α = 100
_WAVES = 4.0  # how fast they are; at 32 cells a peak's weights then spread over about half a cell
_CELLS = 32  # the grid of which that is told
_COARSEST = 4  # cells of the coarsest grid from which a flow is carried
_FINER = 0.3  # how much less each coarser grid counts where a finer one knows
_STILL = 0.005  # how much "nothing moves" counts
_ROUNDS = 8  # of solving for answers; a face at its own pose is then off by 0.1 px of 256 on average
_LEAST = 1e-6
_FARTHEST = -60.0  # e⁻⁶⁰: no share at all, and far from the smallest number


def cell_places(like: Tensor) -> Tensor:
    """(1, 2, h, w) float32: the middles of the cells of `like` (…, h, w), in shares of the window, x and y."""
    height, width = like.shape[2:]
    x = (torch.arange(width, device=like.device) + 0.5) * (1 / width)
    y = (torch.arange(height, device=like.device) + 0.5) * (1 / height)
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])[None]


def in_cells(guide: Tensor) -> tuple[Tensor, Tensor]:
    """PNCC and coverage (B, 4, H, W) → mean code of what is covered (B, 3, h, w), coverage (B, 1, h, w)."""
    mean = F.avg_pool2d(guide.float(), CELL_PX)
    covered = mean[:, 3:]
    return mean[:, :3] / covered.clamp_min(_LEAST), covered


def around(flow: Tensor, covered: Tensor) -> Tensor:
    """The computed flow (B, 2, h, w) of `covered` (B, 1, h, w) places, and of all others what it is around them, the
    nearer the more; far from the head nothing moves."""
    return carried(flow, covered, in_halves(known(flow, covered), _FINER, _COARSEST), _STILL)


class Embedding(nn.Module):
    """Fixed waves of codes and places whose cosine falls with their distance like a bell (Tancik et al. 2020): what
    the correspondence is before anything is learned. Where the head covers a cell the code counts, elsewhere the place.

    A quarter of `channels` waves of codes, as many of places, each by cosine and sine.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(4)
        self.codes: Tensor
        self.places: Tensor
        self.register_buffer("codes", _waves(channels // 4, 3, rng))
        self.register_buffer("places", _waves(channels // 4, 2, rng))

    def forward(self, codes: Tensor, covered: Tensor, places: Tensor) -> Tensor:
        """Codes (B, 3, h, w), coverage (B, 1, h, w), places (B, 2, h, w) in shares → (B, channels, h, w)."""
        finer = codes.shape[2] / _CELLS
        on = _embedded(codes, self.codes.float() * finer)
        # a place's coordinates run over −1 … 1
        off = _embedded(2 * places - 1, self.places.float() * finer)
        return torch.cat([on * covered, off * (1 - covered)], 1)


def _waves(count: int, axes: int, rng: torch.Generator) -> Tensor:
    """(count, axes): as fast in every direction."""
    found = torch.randn(count, axes, generator=rng)
    spread = torch.linalg.cholesky(found.T @ found / count)
    return _WAVES * torch.linalg.solve_triangular(spread, found.T, upper=False).T


def _embedded(x: Tensor, waves: Tensor) -> Tensor:
    """Unit vectors (B, 2 · waves, h, w); no matrix product, which mixed precision would round."""
    phase = torch.zeros_like(x[:, :1])
    for axis in range(x.shape[1]):
        phase = phase + x[:, axis : axis + 1] * waves[:, axis].reshape(1, -1, 1, 1)
    return torch.cat([phase.cos(), phase.sin()], 1) * (1 / math.sqrt(waves.shape[0]))


def unit(keys: Tensor) -> Tensor:
    """Keys (B, K, h, w) of length 1 at each place, in full precision."""
    keys = keys.float()
    return keys / (keys.square().sum(1, keepdim=True) + _LEAST).sqrt()


def similarity(keys: Tensor, own: Tensor) -> Tensor:
    """`(cos − 1) / τ` (B, driven, photo cells) of unit keys (B, K, h, w): its softmax is that of `cos / τ`; (2)."""
    driven, own = keys.flatten(2).transpose(1, 2) * (1 / TEMPERATURE), own.flatten(2)
    one = torch.ones_like(driven[..., :1])
    return _exact(
        torch.cat([driven, one * (-1 / TEMPERATURE)], 2), torch.cat([own, torch.ones_like(own[:, :1])], 1)
    )


def shares_of(similar: Tensor, over: int) -> Tensor:
    """The softmax A of `similarity` (B, driven, photo cells) over one of the last two dimensions; (2).

    No share is less than e⁻⁶⁰ of the largest: products of numbers below the smallest normal one take a CPU a hundred
    times as long, and at this τ a fifth of all shares were.
    """
    least = similar.detach().amax(over, keepdim=True) + _FARTHEST
    return torch.maximum(similar, least).softmax(over)


def _exact(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product in full precision, also within mixed precision."""
    a, b, kind = a.float(), b.float(), a.device.type
    if kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind):
        with torch.autocast(kind, enabled=False):
            return a @ b
    return a @ b


def gathered(shares: Tensor, values: Tensor) -> Tensor:
    """`Σ_j A(i, j) v(j)` (B, C, h, w) of shares A (B, cells, cells) and values (B, C, h, w); (3)."""
    found = values.flatten(2) @ shares.to(values.dtype).transpose(1, 2)
    return found.reshape(values.shape)


def answers(own_shares: Tensor, places: Tensor) -> Tensor:
    """What each cell of the photo answers (B, 2, h, w) when it is asked where it is, less its place; shares are those
    of the photo's PNCC with itself; (4).

    Expected places are drawn inward at the head's rim and wherever codes grow unevenly. Answers y are solved for
    `Σ_j A(i, j) y(j) = x(i)`, by `y ← y + (x − A y)`: then at the photo's own pose nothing moves. No gradient.
    """
    shares = own_shares.detach()
    x = places.expand(shares.shape[0], -1, -1, -1).flatten(2)
    y = x
    for _ in range(_ROUNDS):
        y = y + (x - _expected(shares, y))
    return (y - x).reshape(-1, *places.shape[1:])


def flow_of(shares: Tensor, answered: Tensor, places: Tensor) -> Tensor:
    """`Σ_j A(i, j) y(j) − x(i)` (B, 2, h, w), of answers less places, in shares of the window; (4).

    One product gives `Σ_j A x(j) − x(i)`, `Σ_j A (y(j) − x(j))` and `Σ_j A − 1`; the last is not 0 where A is rounded.
    """
    x = places.expand(answered.shape[0], -1, -1, -1).flatten(2)
    one = torch.ones_like(x[:, :1])
    values = torch.cat([x, answered.float().flatten(2), one], 1)  # (B, 5, cells)
    away = -torch.eye(3, device=x.device)  # x, y and 1 of the driven cell itself, less
    less = torch.cat([away[:2], torch.zeros_like(away[:2]), away[2:]])[None].expand(x.shape[0], -1, -1)
    found = _exact(torch.cat([values, less], 2), torch.cat([shares.transpose(1, 2), x, one], 1))
    return (found[:, :2] + found[:, 2:4] - x * found[:, 4:]).reshape(answered.shape)


def _expected(shares: Tensor, values: Tensor) -> Tensor:
    """`Σ_j A(i, j) v(j)` (B, 2, cells) in full precision."""
    return _exact(values, shares.transpose(1, 2))
