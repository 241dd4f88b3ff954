"""Discriminators of patches, which a generator trains against, and spectral norm folded into plain weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from engines.generators.networked.terms import pyramid

_DIRECTIONS_FOUND = 100  # power iterations, which begin anywhere

Verdict = tuple[Tensor, list[Tensor]]  # of patches, and the features on the way


class PatchDiscriminator(nn.Module):
    """Pictures (B, channels, H, W), 0 … 1 → verdict (B, 1, h, w), above 0 for real, and the features of each layer.

    As Patch-GAN (002, § 1.2; 003, § 3.2.5 and 3.2.7). For one that sees a condition as well, such as PNCC (003,
    § 3.2.5), give the channels of both and stack them: `D(I || PNCC)`. Each layer but the last halves the sides.
    With `spectral`, layers between the first and the verdict have spectral norm (Miyato et al. 2018).
    """

    def __init__(
        self, channels: int = 3, widths: Sequence[int] = (24, 48, 96), *, spectral: bool = True
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for k, (width, before) in enumerate(zip(widths, (channels, *widths), strict=False)):
            last = k == len(widths) - 1
            layer = nn.Conv2d(before, width, 3, 1, 1) if last else nn.Conv2d(before, width, 4, 2, 1)
            layers.append(spectral_norm(layer) if spectral and k else layer)
        self.layers = nn.ModuleList(layers)
        self.verdict = nn.Conv2d(widths[-1], 1, 3, 1, 1)

    def forward(self, picture: Tensor) -> Verdict:
        x = picture * 2 - 1
        features: list[Tensor] = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.verdict(x), features


class MultiScaleDiscriminator(nn.Module):
    """A patch discriminator for each scale (002, eq. 2 to 4): verdicts (B, patches of all scales), all features."""

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (24, 48, 96),
        *,
        scales: int = 3,
        spectral: bool = True,
    ) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            [PatchDiscriminator(channels, widths, spectral=spectral) for _ in range(scales)]
        )

    def forward(self, picture: Tensor) -> Verdict:
        verdicts: list[Tensor] = []
        features: list[Tensor] = []
        for scale, seen in zip(self.scales, pyramid(picture, len(self.scales)), strict=True):
            verdict, found = scale(seen)
            verdicts.append(verdict.flatten(1))
            features += found
        return torch.cat(verdicts, 1), features


def folded(network: nn.Module) -> nn.Module:
    """A copy with spectral norm (torch.nn.utils.parametrizations) multiplied into plain weights, to save or export.

    It gives what `network` gives in evaluation mode; its state dict has `weight` where there were parametrizations.
    """
    plain = copy.deepcopy(network)
    modes = [(module, module.training) for module in plain.modules()]
    plain.eval()  # in training mode each look at a weight moves the norm on
    for module in list(plain.modules()):
        if not parametrize.is_parametrized(module):
            continue
        held = cast(Mapping[str, nn.Module], module.parametrizations)
        weights = {name: getattr(module, name).detach().clone() for name in held}
        # by hand: torch's remove_parametrizations takes the property from the class, which `network` shares
        module.__class__ = type(module).__bases__[0]
        del module.parametrizations
        for name, weight in weights.items():
            module.register_parameter(name, nn.Parameter(weight))
    for module, training in modes:
        module.training = training
    return plain


def load_folded(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Fill `network` with the state of a `folded` copy of it, to go on training; it then gives what the copy gave.

    A weight under spectral norm has norm 1 as it comes; its directions are found anew. Raises RuntimeError for tensors
    that do not fit.
    """
    normed = {
        f"{name}.{weight}" if name else weight: (module, weight)
        for name, module in network.named_modules()
        if parametrize.is_parametrized(module)
        for weight in cast(Mapping[str, nn.Module], module.parametrizations)
    }
    given = dict(tensors)
    with torch.no_grad():
        for name in normed.keys() & given.keys():
            module, weight = normed[name]
            held = cast(Mapping[str, nn.Module], module.parametrizations)[weight]
            original = cast(Tensor, held.original)
            value = given.pop(name)
            if value.shape != original.shape:
                raise RuntimeError(f"{name} is of shape {tuple(value.shape)}, not {tuple(original.shape)}")
            original.copy_(value)
            mode = held.training
            held.train()
            for _ in range(_DIRECTIONS_FOUND):  # each look turns them once
                getattr(module, weight)
            held.train(mode)
    missing, foreign = network.load_state_dict(given, strict=False)
    missing = [name for name in missing if ".parametrizations." not in f".{name}"]
    unfilled = [*missing, *(name for name in normed if name not in tensors)]
    if unfilled or foreign:
        raise RuntimeError(f"missing: {', '.join(unfilled)}; not known: {', '.join(foreign)}")
