"""The networks of a `Call` on the device that is measured; needs OpenCV and safetensors beside torch."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import nn

from engines.device.drawing import Draw
from engines.device.packet import Told
from engines.device.sizes import Head, grids
from engines.device.telling_window import inputs_of
from engines.device.visavis import VisavisNets, VisavisPerson, VisavisSizes, draw_visavis
from engines.device.window import WindowPerson, WindowSizes, draw_window
from engines.generators.networked.blueprint import Blueprint
from engines.head.model import load_head_model
from scripts.benchmarks.gpu_call import Call


def draw_with_networks(call: Call, head: Head, device: torch.device) -> Draw:
    """How a call's frames are drawn, its networks on the device."""
    blueprint: Blueprint[Any]
    nets: nn.Module
    blueprint, nets = torch.load(io.BytesIO(call.networks), map_location="cpu", weights_only=False)
    served = {s.name: s.module.to(device) for s in blueprint.served(nets)}
    if isinstance(call.sizes, VisavisSizes):
        visavis_sizes = call.sizes
        at = grids(visavis_sizes.base, device)
        both = VisavisNets(served["head"], served["paths"], blueprint.without)

        def draw_both(person: VisavisPerson, told: Told) -> tuple[torch.Tensor, torch.Tensor]:
            return draw_visavis(head, both, person, told, visavis_sizes, at)

        return draw_both
    sizes: WindowSizes = call.sizes
    inputs = inputs_of(blueprint, nets, load_head_model(), device)

    def draw(person: WindowPerson, told: Told) -> tuple[torch.Tensor, torch.Tensor]:
        return draw_window(head.triangles, head.behind, inputs, served["window"], person, told, sizes)

    return draw
