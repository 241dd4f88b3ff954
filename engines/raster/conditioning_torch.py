"""What the papers condition on, in torch: `engines.raster.conditioning` in batches, with gradients, on any device.

Maps and results are channels first, (B, C, S, S) → (B, C, h, w); a map with B = 1 serves the whole batch.
Lookups are rank-4 `grid_sample`s only, which every engine tier can compile. Equations: see `conditioning`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from engines.raster.conditioning import HEAD_PARTS
from engines.raster.gbuffer import GBuffer


class Drawn(Protocol):
    """What a lookup needs of a batch of G-buffers: a `TorchGBuffer` or a `UvPicture`."""

    @property
    def uv(self) -> Tensor:
        """(B, h, w, 2) in 0 … 1."""
        ...

    @property
    def part(self) -> Tensor:
        """(B, h, w) uint8 of `Part`, 0 = nothing drawn."""
        ...


@dataclass(frozen=True, slots=True)
class UvPicture:
    """All of a G-buffer that crosses to a network: `uv` (B, h, w, 2) float32 and `part` (B, h, w) uint8."""

    uv: Tensor
    part: Tensor

    @classmethod
    def of(cls, gbuffer: GBuffer, device: torch.device | str = "cpu") -> UvPicture:
        """A batch of one from the CPU's rasteriser."""
        uv, part = torch.from_numpy(gbuffer.uv), torch.from_numpy(gbuffer.part)
        return cls(uv[None].to(device), part[None].to(device))


def computed_flow(
    uv_position_px: Tensor,
    drawn: Drawn,
    size_px: tuple[float, float],
    *,
    origin_px: Tensor | tuple[float, float] = (0.0, 0.0),
    scale: Tensor | float = 1.0,
    margin_px: float = 0.0,
) -> Tensor:
    """`F_c` (B, 2, h, w) in viewport pixels: paper 001, eq. 3; 0 where nothing is drawn.

    `uv_position_px` (B, 2, S, S); `size_px`: the viewport's width and height. `(position − origin_px) · scale
    − margin_px` must be viewport pixels: `origin_px` (B, 2) or one pair, `scale` (B,) or one number.
    """
    height, width = drawn.part.shape[1:]
    source = lookup(uv_position_px, drawn.uv)
    origin = torch.as_tensor(origin_px).to(source).reshape(-1, 2, 1, 1)
    factor = torch.as_tensor(scale).to(source).reshape(-1, 1, 1, 1)
    x = (torch.arange(width, device=source.device).to(source) + 0.5) * (size_px[0] / width)
    y = (torch.arange(height, device=source.device).to(source) + 0.5) * (size_px[1] / height)
    grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)]) + margin_px
    return ((source - origin) * factor - grid) * _covered(drawn, source)


def computed_occlusion(uv_visibility: Tensor, drawn: Drawn) -> Tensor:
    """`O_c` (B, 1, h, w) in 0 … 1, 1 = visible in the source, from (B, 1, S, S): paper 001, eq. 4."""
    return _looked_up(uv_visibility, drawn)


def rendered_face(uv_colour: Tensor, drawn: Drawn) -> Tensor:
    """`I_rend` (B, 3, h, w) from a UV colour texture (B, 3, S, S): paper 000, eq. 6; paper 001's `I_r`."""
    return _looked_up(uv_colour, drawn)


def pncc(uv_pncc: Tensor, drawn: Drawn) -> Tensor:
    """Projected normalised coordinate code (B, 3, h, w) from (B, 3, S, S): papers 003, § 2.2, and 004."""
    return _looked_up(uv_pncc, drawn)


def neural_codes(uv_codes: Tensor, drawn: Drawn) -> Tensor:
    """Posed neural codes (B, d, h, w) from a learned texture (B, d, S, S): paper 002, § 3.2."""
    return _looked_up(uv_codes, drawn)


def face_mask(drawn: Drawn, parts: Collection[int] = HEAD_PARTS) -> Tensor:
    """`I_m` (B, 1, h, w) float32, 1 where one of `parts` is drawn: paper 000, eq. 7."""
    mask = torch.zeros_like(drawn.part, dtype=torch.bool)
    for part in parts:
        mask |= drawn.part == int(part)
    return mask[:, None].float()


def lookup(texture: Tensor, uv: Tensor) -> Tensor:
    """`engines.raster.conditioning.lookup_map` in torch: (B or 1, C, S, S) at `uv` (B, h, w, 2) → (B, C, h, w).

    uint8 textures become 0 … 1. A texel's centre is at half a texel, as there.
    """
    if texture.dtype == torch.uint8:
        texture = texture.to(uv.dtype) / 255
    texture = texture.to(uv.dtype).expand(len(uv), -1, -1, -1)
    return functional.grid_sample(
        texture, uv * 2 - 1, mode="bilinear", padding_mode="border", align_corners=False
    )


def _looked_up(texture: Tensor, drawn: Drawn) -> Tensor:
    out = lookup(texture, drawn.uv)
    return out * _covered(drawn, out)


def _covered(drawn: Drawn, like: Tensor) -> Tensor:
    return (drawn.part > 0)[:, None].to(like.dtype)
