"""The networks of `visavis`: flow and occlusion completed, relit and filled at low resolution; a mouth and eye path.

Ideas and where they come from: completed flow D and mask M (paper 001, eqs. 6 and 7); SPADE by rendered face, PNCC
and O_c (papers 001, 002, 004); encoder features of the photo warped by the computed flow (papers 001, 002);
motion as a code z that modulates by AdaIN (paper 000, eq. 3). Ours: everything is added to the warped photo in
full resolution, so that what geometry knows stays as sharp as the photo.

Only convolutions, bilinear sampling of rank 4 and elementwise operations, for any engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.compile.weights import NetworkKind
from engines.generators.visavis.inputs import (
    EYE_GUIDE_CHANNELS,
    EYE_PX,
    GUIDE_CHANNELS,
    MOTION_SIZE,
    MOUTH_GUIDE_CHANNELS,
    MOUTH_PX,
)

KIND = NetworkKind("visavis", 1, "scripts.train")  # weights of another version are refused
LAYER_CHANNELS = 9  # r: RGBA, S: RGBA (premultiplied by M), M
FLOW_LIMIT = 0.12  # of the window's side, in either direction
FLOW_STILL = 0.0015  # flows up to this share of the side count as none: the warped photo stays untouched


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Widths: of the head network's three levels, of the two paths' levels, of the motion code."""

    head: tuple[int, int, int] = (32, 64, 112)
    mouth: tuple[int, int, int] = (24, 48, 72)
    eye: tuple[int, int, int] = (16, 32, 48)
    features: int = 48
    code: int = 96


def conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Conv2d:
    """Same-size (or halving) convolution."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


class MotionCode(nn.Module):  # never an attribute named `code`: TorchScript has its own
    """Motion (B, 127) → z (B, code): the motion encoder of paper 000, here of one frame."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(MOTION_SIZE, code), nn.Linear(code, code)

    def forward(self, motion: Tensor) -> Tensor:
        return F.silu(self.second(F.silu(self.first(motion))))


class Modulated(nn.Module):
    """Residual block; per-channel scale and shift from the motion code (AdaIN without the norm), as paper 000 eq. 3.

    Without instance norm: its statistics would make one part of the picture depend on all others, and flicker.
    """

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.first, self.second = conv(width, width), conv(width, width)
        self.style = nn.Linear(code, 2 * width)
        nn.init.zeros_(self.style.weight)
        nn.init.zeros_(self.style.bias)
        nn.init.zeros_(self.second.bias)  # pyright: ignore[reportArgumentType]
        with torch.no_grad():
            self.second.weight.mul_(0.3)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        scale, shift = self.style(z)[:, :, None, None].chunk(2, 1)
        y = F.silu(self.first(x))
        return x + self.second(y * (1 + scale) + shift)


class Spade(nn.Module):
    """Spatial modulation by guides: `x (1 + γ(g)) + β(g)` (SPADE without the norm)."""

    def __init__(self, width: int, guides: int) -> None:
        super().__init__()
        self.both = conv(guides, 2 * width)
        nn.init.zeros_(self.both.weight)
        nn.init.zeros_(self.both.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        gamma, beta = self.both(guide).chunk(2, 1)
        return x * (1 + gamma) + beta


class PhotoEncoder(nn.Module):
    """Once per photo: (B, 7, 128, 128) premultiplied RGBA and PNCC of the photo → (B, features, 32, 32)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        a, b, _ = config.head
        self.stem = conv(7 * 4, a)
        self.middle = conv(a, a)
        self.down = conv(a, b, 2)
        self.last = conv(b, config.features)

    def forward(self, photo: Tensor) -> Tensor:
        x = F.silu(self.stem(F.pixel_unshuffle(photo, 2)))
        x = x + F.silu(self.middle(x))
        return self.last(F.silu(self.down(x)))


class HeadNetwork(nn.Module):
    """The head window → residual flow D and layers, at half and full window resolution.

    Inputs: `picture` (B, 4, 128, 128) the geometric picture, premultiplied RGBA 0 … 1; `guide` (B, 10, 128, 128);
    `where` (B, 32, 32, 2) for `grid_sample`; `features` (B, C, 32, 32) of the photo; `motion` (B, 127).
    Outputs: `flow` (B, 2, 64, 64) in shares of the window's side, `layers` (B, 9, 128, 128).
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        a, b, c = config.head
        self.encode_motion = MotionCode(config.code)
        self.stem = conv((4 + GUIDE_CHANNELS) * 4, a)
        self.enter = Modulated(a, config.code)
        self.down1 = conv(a, b, 2)
        self.fuse = conv(b + config.features, b, kernel=1)
        self.middle_down = Modulated(b, config.code)
        self.down2 = conv(b, c, 2)
        self.deep1, self.deep2 = Modulated(c, config.code), Modulated(c, config.code)
        self.up1 = conv(c, b * 4, kernel=1)
        self.spade1 = Spade(b, GUIDE_CHANNELS)
        self.middle_up = Modulated(b, config.code)
        self.up2 = conv(b, a * 4, kernel=1)
        self.spade2 = Spade(a, GUIDE_CHANNELS)
        self.leave = Modulated(a, config.code)
        self.to_flow = conv(a, 2)
        self.to_layers = conv(a, LAYER_CHANNELS * 4)
        for head in (self.to_flow, self.to_layers):
            nn.init.zeros_(head.bias)  # pyright: ignore[reportArgumentType]
            with torch.no_grad():
                head.weight.mul_(0.05)
        with torch.no_grad():
            assert self.to_layers.bias is not None
            self.to_layers.bias[-4:] = -3.0  # M begins near 0: the warped photo as it is

    def forward(
        self, picture: Tensor, guide: Tensor, where: Tensor, features: Tensor, motion: Tensor
    ) -> tuple[Tensor, Tensor]:
        z = self.encode_motion(motion)
        full = torch.cat([picture, guide], 1)
        guide64 = F.avg_pool2d(guide, 2)
        guide32 = F.avg_pool2d(guide64, 2)
        x64 = self.enter(F.silu(self.stem(F.pixel_unshuffle(full, 2))), z)
        warped = F.grid_sample(features, where, "bilinear", "border", align_corners=False)
        x32 = self.fuse(torch.cat([F.silu(self.down1(x64)), warped.to(x64.dtype)], 1))
        x32 = self.middle_down(x32, z)
        x16 = self.deep2(self.deep1(F.silu(self.down2(x32)), z), z)
        y32 = self.spade1(F.pixel_shuffle(self.up1(x16), 2) + x32, guide32)
        y32 = self.middle_up(y32, z)
        y64 = self.spade2(F.pixel_shuffle(self.up2(F.silu(y32)), 2) + x64, guide64)
        y64 = F.silu(self.leave(y64, z))
        raw = torch.tanh(self.to_flow(y64)) * FLOW_LIMIT
        # a soft threshold: where nothing is to be moved the photo's pixels stay exactly where they are; its
        # gradient is passed through, or a flow that starts within it would never leave
        flow = raw - raw.clamp(-FLOW_STILL, FLOW_STILL).detach()
        return flow, split_layers(F.pixel_shuffle(self.to_layers(y64), 2))


def split_layers(raw: Tensor) -> Tensor:
    """Raw channels (B, 4 or 3 twice and 1) → r in −1 … 1, S premultiplied by M, and M in 0 … 1, same shape."""
    count = (raw.shape[1] - 1) // 2
    shade = torch.tanh(raw[:, :count])
    mask = torch.sigmoid(raw[:, -1:])
    paint = torch.sigmoid(raw[:, count : 2 * count])
    return torch.cat([shade, paint * mask, mask], 1)


def apply_layers(picture: Tensor, layers: Tensor) -> Tensor:
    """`(P + r)(1 − M) + S` with `layers` from `split_layers`: paper 001, eq. 7 with our r."""
    count = picture.shape[1]
    shade, paint, mask = layers[:, :count], layers[:, count : 2 * count], layers[:, -1:]
    return (picture + shade) * (1 - mask) + paint


class PathNetwork(nn.Module):
    """A mouth or eye crop → its layers (B, 7, s, s): r 3, S 3, M 1.

    Inputs: `crop` (B, 3, s, s) of the completed picture, `photo` (B, 3, s, s) the same crop of the photo itself (its
    teeth, its eyes), `guide` (B, g, s, s), `motion` (B, 127).
    """

    def __init__(self, widths: tuple[int, int, int], guides: int, code: int) -> None:
        super().__init__()
        a, b, c = widths
        self.encode_motion = MotionCode(code)
        self.stem = conv((6 + guides) * 4, a)
        self.enter = Modulated(a, code)
        self.down1, self.middle_down = conv(a, b, 2), Modulated(b, code)
        self.down2, self.deep = conv(b, c, 2), Modulated(c, code)
        self.up1, self.middle_up = conv(c, b * 4, kernel=1), Modulated(b, code)
        self.up2, self.leave = conv(b, a * 4, kernel=1), Modulated(a, code)
        self.to_layers = conv(a, 7 * 4)
        nn.init.zeros_(self.to_layers.bias)  # pyright: ignore[reportArgumentType]
        with torch.no_grad():
            self.to_layers.weight.mul_(0.05)
            assert self.to_layers.bias is not None
            self.to_layers.bias[-4:] = -2.0

    def forward(self, crop: Tensor, photo: Tensor, guide: Tensor, motion: Tensor) -> Tensor:
        z = self.encode_motion(motion)
        x1 = self.enter(F.silu(self.stem(F.pixel_unshuffle(torch.cat([crop, photo, guide], 1), 2))), z)
        x2 = self.middle_down(F.silu(self.down1(x1)), z)
        x3 = self.deep(F.silu(self.down2(x2)), z)
        y2 = self.middle_up(F.pixel_shuffle(self.up1(x3), 2) + x2, z)
        y1 = F.silu(self.leave(F.pixel_shuffle(self.up2(F.silu(y2)), 2) + x1, z))
        return split_layers(F.pixel_shuffle(self.to_layers(y1), 2))


class Paths(nn.Module):
    """Mouth and both eyes in one call: crops (1, …) of the mouth, (2, …) of the eyes."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.mouth = PathNetwork(config.mouth, MOUTH_GUIDE_CHANNELS, config.code)
        self.eye = PathNetwork(config.eye, EYE_GUIDE_CHANNELS, config.code)

    def forward(
        self, mouth: Tensor, mouth_photo: Tensor, mouth_guide: Tensor, motion: Tensor,
        eyes: Tensor, eyes_photo: Tensor, eyes_guide: Tensor, eyes_motion: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        return (
            self.mouth(mouth, mouth_photo, mouth_guide, motion),
            self.eye(eyes, eyes_photo, eyes_guide, eyes_motion),
        )


def blending(layers: Tensor) -> Tensor:
    """Layers r, S (c channels each) and M → what is added (c), M (1) and what is taken away (c), all 0 … 1.

    `(P + r)(1 − M) + S = P (1 − M) + added − taken`: what a frame needs, worked out where it costs nothing.
    """
    count = (layers.shape[1] - 1) // 2
    mask = layers[:, -1:]
    change = layers[:, :count] * (1 - mask) + layers[:, count : 2 * count]
    return torch.cat([change.clamp(0, 1), mask, (-change).clamp(0, 1)], 1)


class ServedHead(nn.Module):
    """The head network as a frame uses it: D, and its layers' `blending`, (B, 9, 128, 128)."""

    def __init__(self, head: HeadNetwork) -> None:
        super().__init__()
        self.head = head

    def forward(
        self, picture: Tensor, guide: Tensor, where: Tensor, features: Tensor, motion: Tensor
    ) -> tuple[Tensor, Tensor]:
        flow, layers = self.head(picture, guide, where, features, motion)
        return flow, blending(layers)


class ServedPaths(nn.Module):
    """Mouth and eyes as a frame uses them: layers' `blending` (B, 7, s, s), falling to nothing at the crop's rim."""

    def __init__(self, paths: Paths) -> None:
        super().__init__()
        self.paths = paths
        self.register_buffer("mouth_window", soft_window(MOUTH_PX), persistent=False)
        self.register_buffer("eye_window", soft_window(EYE_PX), persistent=False)

    def forward(
        self, mouth: Tensor, mouth_photo: Tensor, mouth_guide: Tensor, motion: Tensor,
        eyes: Tensor, eyes_photo: Tensor, eyes_guide: Tensor, eyes_motion: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        mouth_layers, eye_layers = self.paths(
            mouth, mouth_photo, mouth_guide, motion, eyes, eyes_photo, eyes_guide, eyes_motion
        )
        return blending(mouth_layers * self.mouth_window), blending(eye_layers * self.eye_window)


class VisavisNetworks(nn.Module):
    """All of them: what a weights file holds."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or NetworkConfig()
        self.encoder = PhotoEncoder(self.config)
        self.head = HeadNetwork(self.config)
        self.paths = Paths(self.config)


def soft_window(size: int) -> Tensor:
    """(1, 1, size, size): 1 inside a crop, falling to 0 at its rim: what a path paints leaves no edge."""
    x = (torch.arange(size) + 0.5) / size
    fall = (torch.minimum(x, 1 - x) / 0.12).clamp(0, 1)
    fall = fall * fall * (3 - 2 * fall)
    return (fall[:, None] * fall[None])[None, None]
