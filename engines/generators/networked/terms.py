"""Loss terms of the papers, as functions of tensors: each gives one number per row, (B,), of which losses take means.

Papers by their number here: 000 IFaceUV, 001 Exploiting Multiple Guidance from 3DMM, 002 Geometry Driven Progressive
Warping, 003 One-shot Facial Expression Reenactment using 3D Morphable Models. A paper's norm is a mean over places and
channels: a weight then means the same at every size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Features = Sequence[Tensor]  # maps (B, C, h, w), finest first
Distance = Callable[[Features, Features], Tensor]

# rows of each batch that losses on features look at: the frozen network costs as much as all of ours
PERCEPTUAL_ROWS = 4
_EPSILON = 1e-6


def _rows(x: Tensor) -> Tensor:
    """(B, …) → (B,) mean of each row. To flatten channels last would be to lay it out anew."""
    return x.mean(tuple(range(1, x.ndim)))


def pyramid(picture: Tensor, scales: int) -> list[Tensor]:
    """Picture (B, C, H, W) and it halved once, twice, …: `scales` pictures in all (001's j, 002's s)."""
    pictures = [picture]
    for _ in range(scales - 1):
        pictures.append(F.avg_pool2d(pictures[-1], 2))
    return pictures


# --- pictures ---------------------------------------------------------------------------------------------


def l1(a: Tensor, b: Tensor, weight: Tensor | None = None) -> Tensor:
    """|a − b|, times `weight` where one is given (003, § 3.2.8: its style loss is this, of two pictures)."""
    off = (a - b).abs()
    return _rows(off if weight is None else off * weight)


def out_of_range(picture: Tensor) -> Tensor:
    """|p − clamp(p, 0, 1)|: what a call cuts off, so that losses would be made of what nobody sees. Ours."""
    return _rows((picture - picture.clamp(0, 1)).abs())


def l1_multiscale(a: Tensor, b: Tensor, scales: int = 3) -> Tensor:
    """Σ_j |a^j − b^j|, j times halved (001's scales, on the picture itself)."""
    pairs = zip(pyramid(a, scales), pyramid(b, scales), strict=True)
    return torch.stack([l1(x, y) for x, y in pairs]).sum(0)


def minus_psnr(a: Tensor, b: Tensor) -> Tensor:
    """10 log₁₀ of the mean square: minus the PSNR of pictures 0 … 1, in dB, so that lower is better; −60 at least."""
    return 10 * _rows((a - b).square()).clamp_min(1e-6).log10()


# --- features of pictures ---------------------------------------------------------------------------------


def feature_l1(a: Features, b: Features) -> Tensor:
    """Σ_i |φ_i(a) − φ_i(b)| (000, eq. 4, 8 and 11; 003, § 3.2.9), in full precision."""
    pairs = zip(a, b, strict=True)
    return torch.stack([l1(x.float(), y.float()) for x, y in pairs]).sum(0)


def perceptual(
    features: Callable[[Tensor], Features],
    drawn: Tensor,
    truth: Tensor,
    *,
    scales: int = 1,
    distance: Distance = feature_l1,
) -> Tensor:
    """Σ_{i,j} |φ_i(drawn^j) − φ_i(truth^j)| over layers i and scales j (001, eq. 8; 002, eq. 1: three scales).

    `distance` compares the features of one scale: as the papers write it, or as LPIPS does
    (`perceptual_distance` of scripts/evaluation/perceptual.py). No gradient goes to `truth`.
    """
    found: list[Tensor] = []
    for ours, theirs in zip(pyramid(drawn, scales), pyramid(truth, scales), strict=True):
        with torch.no_grad():
            wanted = features(theirs)
        found.append(distance(features(ours), wanted))
    return torch.stack(found).sum(0)


def gram(feature: Tensor) -> Tensor:
    """G (B, C, C) of a map (B, C, h, w): which channels are strong together, over channels and places."""
    flat = feature.float().flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def style(features: Callable[[Tensor], Features], drawn: Tensor, truth: Tensor) -> Tensor:
    """Σ_i |G_i(drawn) − G_i(truth)| (001, eq. 9). No gradient goes to `truth`."""
    with torch.no_grad():
        wanted = [gram(f) for f in features(truth)]
    pairs = zip(features(drawn), wanted, strict=True)
    return torch.stack([l1(gram(ours), theirs) for ours, theirs in pairs]).sum(0)


# --- discriminators ---------------------------------------------------------------------------------------


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """−min(0, −1 + D(real)) − min(0, −1 − D(fake)) (002, eq. 3); verdicts (B, …).

    003's § 3.2.5 is the same with real and drawn exchanged in print.
    """
    return _rows(F.relu(1 - real.float())) + _rows(F.relu(1 + fake.float()))


def hinge_generator(fake: Tensor) -> Tensor:
    """−D(fake) (002, eq. 2; 003, § 3.2.5); verdicts (B, …)."""
    return -_rows(fake.float())


def told_right(real: Tensor, fake: Tensor) -> Tensor:
    """Share of verdicts (B, …) on the right side of 0; half of them by guessing. No gradient."""
    return (_rows((real > 0).float()) + _rows((fake < 0).float())) / 2


def feature_matching(fake: Features, real: Features) -> Tensor:
    """Σ_j |D_j(real) − D_j(fake)| over the layers of a discriminator (002, eq. 4). No gradient goes to `real`."""
    return feature_l1(fake, [f.detach() for f in real])


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """|∇ D(real)|², R1 of Mescheder et al. 2018, eq. 9, without its γ/2; verdicts are (B, …), their mean is D."""
    real = real.detach().requires_grad_(True)
    with torch.enable_grad():
        verdict = _rows(discriminator(real).float()).sum()
        (slope,) = torch.autograd.grad(verdict, real, create_graph=True)
    return slope.float().square().flatten(1).sum(1)


# --- identity ---------------------------------------------------------------------------------------------


def re_identification(
    describe: Callable[[Tensor, Tensor], Tensor], drawn: Tensor, truth: Tensor, where: Tensor
) -> Tensor:
    """1 − cos(ρ(drawn), ρ(truth)) (003, § 3.2.10, which prints the cosine itself; it is made more, not less).

    `describe(pictures, where)` → (B, D), such as a `Describer` of scripts/generators/judges.py with the five points
    of each face. No gradient goes to `truth`.
    """
    with torch.no_grad():
        wanted = describe(truth, where)
    return 1 - F.cosine_similarity(describe(drawn, where).float(), wanted.float(), dim=1)


# --- flow and masks ---------------------------------------------------------------------------------------


def flow_magnitude(flow: Tensor) -> Tensor:
    """|D| of a flow (B, 2, h, w): what the network adds to the computed flow is to be small."""
    return _rows(flow.abs())


def total_variation(x: Tensor) -> Tensor:
    """|∂x| + |∂y| between neighbours of (B, C, h, w): flat with edges."""
    return _rows((x[..., 1:] - x[..., :-1]).abs()) + _rows((x[..., 1:, :] - x[..., :-1, :]).abs())


def smoothness(x: Tensor) -> Tensor:
    """(∂x)² + (∂y)² between neighbours of (B, C, h, w): smooth without edges."""
    return _rows((x[..., 1:] - x[..., :-1]).square()) + _rows((x[..., 1:, :] - x[..., :-1, :]).square())


def mask_area(mask: Tensor, shown: Tensor) -> Tensor:
    """Share of `mask` (B, 1, h, w), 0 … 1, where the photo shows the place (`shown`, 0 … 1): there is no need of it."""
    return _rows(mask.abs() * shown)


def mask_entropy(mask: Tensor) -> Tensor:
    """−m log m − (1 − m) log(1 − m), in nats, of a mask 0 … 1: a place is to be taken from one side."""
    m = mask.float().clamp(_EPSILON, 1 - _EPSILON)
    least = _entropy(torch.full_like(m[:1], _EPSILON)).mean()  # so that a mask of 0 and 1 has none
    return _rows(_entropy(m)) - least


def _entropy(m: Tensor) -> Tensor:
    return -(m * m.log() + (1 - m) * (1 - m).log())


# --- one person twice -------------------------------------------------------------------------------------


def consistency(source: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """|s − (s + t)/2| + |t − (s + t)/2| (000, eq. 9, for the source and for the target).

    Both are textures of one person, (B, C, h, w); `weight` says where both are seen.
    """
    middle = (source + target) / 2
    return l1(source, middle, weight) + l1(target, middle, weight)
