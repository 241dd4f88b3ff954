"""`visavis` on a device: the geometric picture, then what its networks say of the head's window, mouth and eyes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.device.crops import Crop
from engines.device.geometric import draw_geometric
from engines.device.packet import Field, Told
from engines.device.rows import Rows
from engines.device.sampling import Patch, bilinear, bilinear_bytes, bytes_at, rounded
from engines.device.sizes import Grids, Head, Person, Sizes
from engines.device.warp import Seen

WINDOW_PX, WHERE_PX, FLOW_LEAST_PX = 128, 32, 0.05
MOUTH_PX, EYE_PX, MOTION_SIZE = 96, 64, 127
# shares of the picture's longer side: how large a turned crop's upright box can be
_MOUTH, _EYE = 0.62, 0.36
Network = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True)
class VisavisPerson(Rows):
    """Of each call a row; what `VisavisCache` holds.

    - `guides` (B, 2, S · S) int32: seven channels of bytes. - `window` (B, 3): left, top and side in pixels.
    - `low_rows` (B, 128, H), `low_columns` (B, 128, W): the window at low resolution, averaged, as matrices.
    """

    base: Person
    guides: Tensor
    window: Tensor
    low_rows: Tensor
    low_columns: Tensor
    features: Tensor
    mouth_photo: Tensor
    eyes_photo: Tensor


@dataclass(frozen=True, slots=True)
class VisavisSizes:
    """Beside `Sizes`."""

    base: Sizes

    @property
    def patches(self) -> tuple[int, int]:
        """Sides of the squares into which a mouth and an eye are blended."""
        least = min(self.base.width_px, self.base.height_px)
        mouth, eye = (max(8, round(share * self.base.side_px)) for share in (_MOUTH, _EYE))
        return min(mouth, least), min(eye, least)

    @property
    def finest(self) -> tuple[int, int]:
        """How much finer mouth and eyes are cut at the most; see `boxes.cut_box`."""
        mouth, eye = (share * self.base.side_px / 1.5 for share in (_MOUTH, _EYE))
        return max(1, int(mouth / MOUTH_PX)), max(1, int(eye / EYE_PX))

    def fields(self, vertices: int) -> list[Field]:
        """What is told of each frame: of mouth, right and left eye their crops, the corner of the square of each and
        the box in it; the motion, and as the mirror shows it."""
        return [
            *self.base.fields(vertices), Field("motions", (2, MOTION_SIZE)),
            Field("crops", (3, 8)), Field("crop_corner", (3, 2)), Field("crop_box", (3, 4)),
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class VisavisNets:
    """`ServedHead` and `ServedPaths` on the device, and the parts that are left out."""

    head: Network
    paths: Network
    without: frozenset[str]

    def on(self, *parts: str) -> bool:
        """Whether one of these is drawn."""
        return any(p not in self.without for p in parts)


def draw_visavis(
    head: Head,
    nets: VisavisNets,
    person: VisavisPerson,
    told: Told,
    sizes: VisavisSizes,
    at: Grids,
    seen: Seen | None = None,
) -> tuple[Tensor, Tensor]:
    """(picture (B, 4, H, W), full (B,)) as `draw_geometric`."""
    base = sizes.base
    drawn = draw_geometric(head, person.base, told, at, seen)
    picture, seen = drawn.picture, drawn.warped.seen
    window = person.window[:, :, None]
    motions = told["motions"] * float(nets.on("motion"))
    uv = _from_grid(seen.uv.permute(0, 3, 1, 2), window, WINDOW_PX, base)
    part = _from_grid(seen.part, window, WINDOW_PX, base)
    flow, layers = nets.head(
        rounded(_low(person, picture)) / 255,
        _guide(head, person, uv, part),
        _where(drawn.warped.flow, window, base),
        person.features,
        motions[:, 0],
    )
    x, y = (_share(window, axis, base) for axis in (0, 1))
    if nets.on("flow"):
        picture = _moved(picture, flow.float(), window, x, y)
    if nets.on("layers"):
        picture = _window_blended(picture, rounded(layers.float() * 255), x, y)
    if nets.on("mouth", "eyes"):
        picture = _with_paths(head, nets, person, told, sizes, picture, seen.part[:, 0], motions)
    return picture, drawn.full


def _low(person: VisavisPerson, picture: Tensor) -> Tensor:
    return person.low_rows[:, None] @ picture @ person.low_columns[:, None].transpose(2, 3)


def _from_grid(values: Tensor, window: Tensor, size: int, sizes: Sizes) -> Tensor:
    """Values (B, C, h, w) on the grid, nearest, on `size` × `size` over the window; `Window.from_grid`."""
    steps = torch.arange(size, device=values.device, dtype=torch.float64) + 0.5
    rows, columns = values.shape[2:]
    step = window[:, 2] / size
    column = ((steps * step + window[:, 0]) * (columns / sizes.width_px)).long().clamp(0, columns - 1)
    row = ((steps * step + window[:, 1]) * (rows / sizes.height_px)).long().clamp(0, rows - 1)
    index = (row[:, :, None] * columns + column[:, None]).flatten(1)
    found = values.flatten(2).gather(2, index[:, None].expand(-1, values.shape[1], -1))
    return found.unflatten(2, (size, size))


def _guide(head: Head, person: VisavisPerson, uv: Tensor, part: Tensor) -> Tensor:
    """(B, 10, 128, 128) 0 … 1: I_r, PNCC, O_c, then skin, eye and mouth."""
    size = round(person.guides.shape[2] ** 0.5)
    x, y = uv[:, 0] * size - 0.5, uv[:, 1] * size - 0.5
    found = torch.cat([bilinear_bytes(person.guides[:, k], (size, size), x, y) for k in (0, 1)], 1)[:, :7]
    found = (found + 1e-3).floor() * (part > 0) / 255
    return torch.cat([found, head.kinds[part[:, 0], :3].permute(0, 3, 1, 2)], 1)


def _where(flow: Tensor, window: Tensor, sizes: Sizes) -> Tensor:
    """(B, 32, 32, 2): where in the window of the photo each place of the window comes from, −1 … 1."""
    found = _from_grid(flow, window, WHERE_PX, sizes) * (2 / window[:, 2:].float())[..., None]
    middles = (torch.arange(WHERE_PX, device=flow.device) + 0.5) / WHERE_PX * 2 - 1
    own = torch.stack([middles.expand(WHERE_PX, -1), middles[:, None].expand(-1, WHERE_PX)])
    return (found + own).clamp(-1.5, 1.5).permute(0, 2, 3, 1)


def _share(window: Tensor, axis: int, sizes: Sizes) -> Tensor:
    """(B, n) float64: where in the window each column or row of the picture lies, 0 … 1 within."""
    count = (sizes.width_px, sizes.height_px)[axis]
    steps = torch.arange(count, device=window.device, dtype=torch.float64) + 0.5
    return (steps - window[:, axis]) / window[:, 2]


def _inside(x: Tensor, y: Tensor) -> Tensor:
    """(B, 1, H, W) bool."""
    across, down = (((s > 0) & (s < 1)) for s in (x, y))
    return (down[:, :, None] & across[:, None])[:, None]


def _moved(picture: Tensor, flow: Tensor, window: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`P(x + D(x))`; the picture itself where D is nothing."""
    height, width = picture.shape[2:]
    side, size = window[:, 2:].float()[..., None], flow.shape[2]
    flow = flow * side
    flow = flow * (flow.abs().amax((1, 2, 3), keepdim=True) >= FLOW_LEAST_PX)
    column, row = ((s * size - 0.5).float().clamp(0, size - 1) for s in (x, y))
    column, row = column[:, None].expand(-1, height, -1), row[:, :, None].expand(-1, -1, width)
    found = bilinear(flow, column, row) * _inside(x, y)
    at_x = found[:, 0] + torch.arange(width, device=flow.device)
    at_y = found[:, 1] + torch.arange(height, device=flow.device)[:, None]
    moved = rounded(bilinear(picture, at_x, at_y))
    return torch.where((found != 0).any(1, keepdim=True), moved, picture)


def _window_blended(picture: Tensor, layers: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`P (1 − M) + added − taken` in the window, in bytes."""
    size = layers.shape[2]
    first = x.new_zeros(len(x), 1)
    ends = first, first + size - 1
    stays = torch.cat([layers[:, :4], 255 - layers[:, 4:5], layers[:, 5:]], 1)
    large = bytes_at(stays, x * size - 0.5, y * size - 0.5, ends, ends)
    under = (picture * large[:, 4:5] / 255).round()
    drawn = ((under + large[:, :4]).clamp_max(255) - large[:, 5:]).clamp_min(0)
    return torch.where(_inside(x, y), drawn, picture)


def _with_paths(
    head: Head,
    nets: VisavisNets,
    person: VisavisPerson,
    told: Told,
    sizes: VisavisSizes,
    picture: Tensor,
    part: Tensor,
    motions: Tensor,
) -> Tensor:
    base, batch = sizes.base, len(picture)
    crops = [Crop.told(told["crops"][:, k]) for k in range(3)]
    finest = sizes.finest
    mouth_part = crops[0].nearest(part, MOUTH_PX, base.width_px, base.height_px)
    eye_parts = torch.stack([c.nearest(part, EYE_PX, base.width_px, base.height_px) for c in crops[1:]], 1)
    eyes = torch.stack([c.cut(picture[:, :3], EYE_PX, finest[1]) for c in crops[1:]], 1)
    mouth_layers, eye_layers = nets.paths(
        crops[0].cut(picture[:, :3], MOUTH_PX, finest[0]) / 255,
        person.mouth_photo,
        head.kinds[mouth_part, 3:].permute(0, 3, 1, 2),
        motions[:, 0],
        eyes.flatten(0, 1) / 255,
        person.eyes_photo.flatten(0, 1),
        head.kinds[eye_parts.flatten(0, 1), 1:2].permute(0, 3, 1, 2),
        motions.flatten(0, 1),
    )
    eye_layers = eye_layers.unflatten(0, (batch, 2))
    layers = [mouth_layers, eye_layers[:, 0], eye_layers[:, 1]]
    for k, (crop, own) in enumerate(zip(crops, layers, strict=True)):
        if nets.on("eyes" if k else "mouth"):
            side = sizes.patches[1 if k else 0]
            patch = Patch(told["crop_corner"][:, k], side, base.height_px, base.width_px)
            picture = crop.blended(picture, rounded(own.float() * 255), patch, told["crop_box"][:, k])
    return picture
