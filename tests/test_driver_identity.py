"""The evaluation's `NAME-driver-identity`: what networks then see of whom, for each generator that is its blueprint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from calibration.neutral import DriverNeutral
from engines.enrollment import Enrollment
from engines.generators.networked import base
from engines.generators.networked.blueprint import Blueprint
from engines.generators.networked.picture import Size
from engines.generators.networked.scene import Scene
from engines.generators.networked.window import WindowGenerator
from engines.generators.registry import GENERATORS
from engines.head.model import load_head_model
from engines.raster.pose import head_viewport
from scripts.evaluation.measure import draw
from scripts.evaluation.take import Shot, Take
from scripts.evaluation.variants import DRIVER_IDENTITY, registered


class Blank:
    """An engine that draws nothing, at once."""

    tier_name = "blank"

    def wait(self, timeout_s: float) -> bool:
        return True

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 4, 8, 8),)


# `visavis` draws on the geometric picture, without a scene
WINDOWED = sorted(n for n, e in GENERATORS.items() if e.blueprint is not None and n != "visavis")


@pytest.mark.slow
@pytest.mark.parametrize("name", WINDOWED)
def test_networks_see_the_driver_s_identity(
    astronaut: Enrollment, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is posed, and the PNCC looked up on it, is the driver's; photo, its own head and motions stay."""
    of = GENERATORS[name].blueprint
    assert of is not None
    blueprint = of()
    seen: list[Scene] = []
    inputs = blueprint.inputs

    def watch(self: Blueprint[Any], networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        seen.append(scene)
        return inputs(self, networks, scene)

    def fresh(*_: object) -> tuple[Blueprint[Any], nn.Module, str]:
        made = blueprint()
        return made, made.networks().eval(), "0" * 64

    monkeypatch.setattr(base, "load_networks", fresh)
    monkeypatch.setattr(WindowGenerator, "engines", lambda _: [Blank()])
    monkeypatch.setattr(blueprint, "inputs", watch)
    motion = replace(astronaut.motion, rotation_rad=astronaut.motion.rotation_rad + np.float32(0.1))
    viewport, picture = head_viewport(astronaut, 96), np.zeros((96, 96, 3), np.uint8)
    take = Take(
        "self",
        "ada",
        "ada",
        astronaut,
        viewport,
        picture,
        np.zeros((478, 3)),
        (Shot(0, motion, 0.0, picture),),
        (),
    )
    model = load_head_model()
    broad = np.asarray(model.landmarks(model.mean_hu * np.array([1.25, 1, 1], np.float32)), np.float64)
    cross = replace(take, protocol="cross", rest=DriverNeutral(broad, motion))
    scenes: list[Scene] = []
    with registered([f"{name}{DRIVER_IDENTITY}"]):
        for drawn, generator in ((take, ""), (cross, ""), (take, DRIVER_IDENTITY), (cross, DRIVER_IDENTITY)):
            seen.clear()
            draw(drawn, name + generator, 96)
            scenes.append(seen[-1])
    *usual, theirs = scenes
    for ours in usual:
        torch.testing.assert_close(ours.posed.corners, usual[0].posed.corners)
        torch.testing.assert_close(ours.pncc(), usual[0].pncc())
    assert float((theirs.posed.corners - usual[0].posed.corners).abs().mean()) > 1
    assert float((theirs.pncc() - usual[0].pncc()).abs().mean()) > 0.005
    torch.testing.assert_close(theirs.own_pncc(), usual[0].own_pncc())
    torch.testing.assert_close(theirs.photo_at(Size(64, 64)), usual[0].photo_at(Size(64, 64)))
    torch.testing.assert_close(theirs.motions, usual[0].motions)
