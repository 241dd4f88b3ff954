"""`IdmatchBlueprint`: what the networks of `idmatch` see, and how they learn."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.generators.idmatch.correspondence import (
    CELL_PX,
    around,
    cell_places,
    gathered,
    shares_of,
    similarity,
)
from engines.generators.idmatch.networks import FULL_SIZE, KIND, IdmatchConfig, IdmatchNetworks, Kept
from engines.generators.networked import terms
from engines.generators.networked.blueprint import Blueprint, Made
from engines.generators.networked.discriminators import PatchDiscriminator
from engines.generators.networked.lesson import Judges, Lesson, Teaching
from engines.generators.networked.parts import mouth_mask
from engines.generators.networked.picture import Size
from engines.generators.networked.scene import Scene


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weights and when they begin; all ours: the abstract prints none."""

    l1: float = 1.0
    head: float = 2.0  # how much more the head counts
    mouth: float = 6.0  # and the mouth: small, and told by cells of 8 px too coarsely to move
    matte: float = 0.3
    warp: float = 0.5
    geometry: float = 2.0
    cycle: float = 0.1
    residual: float = 0.2
    perceptual: float = 0.08
    perceptual_from: int = 500  # first move things to their places: that is cheap
    adversarial_from: int = 2000  # once shapes are right


ALONE = 500  # steps in which the discriminator learns before it counts


class IdmatchBlueprint(Blueprint[IdmatchConfig]):
    """See `engines.generators.idmatch`."""

    kind = KIND
    config_type = IdmatchConfig
    window = Size(256, 256)
    step_px, least_px = 8, 16  # whole cells
    switches = ("correspondence", "skips")
    eight_bits = ("up2", "up1", "to_picture")
    laid = ("warped",)
    parts = 0.6
    weights: ClassVar[LossWeights] = LossWeights()
    teaching = Teaching(counts_from=LossWeights().adversarial_from + ALONE)

    @classmethod
    def width_one(cls) -> IdmatchBlueprint:
        return cls(FULL_SIZE)

    def networks(self) -> IdmatchNetworks:
        return IdmatchNetworks(self.config)

    def photo_inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        """The photo, and PNCC with coverage as it shows the head."""
        code = scene.own_pncc()
        return scene.photo_at(self.window), torch.cat([code, code.amax(1, keepdim=True).gt(0).float()], 1)

    def encode(self, networks: nn.Module, photo: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert isinstance(networks, IdmatchNetworks)
        return networks.encode(*photo)

    def inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        """The photo, the rebuilt PNCC with coverage, the computed flow in cells, carried beyond the head, and both as
        waves."""
        assert isinstance(networks, IdmatchNetworks)
        coarse = scene.thinned(self._cells())
        guide = torch.cat([scene.pncc(), scene.covered()], 1)
        flow = around(coarse.flow(), coarse.covered())
        embedded = networks.key_encoder.embed(guide, cell_places(flow) + flow)
        return scene.photo_at(self.window), guide, flow, embedded

    def _cells(self) -> Size:
        return Size(self.window.width_px // CELL_PX, self.window.height_px // CELL_PX)

    def draw(self, networks: nn.Module, inputs: tuple[Tensor, ...], features: tuple[Tensor, ...]) -> Made:
        assert isinstance(networks, IdmatchNetworks)
        photo, guide, around, embedded = inputs
        kept = Kept(*features)
        drawn = networks(
            photo, guide, around, embedded, kept,
            correspond="correspondence" not in self.without, use_skips="skips" not in self.without,
        )  # fmt: skip
        stages = {
            "guide": guide, "warped": drawn.warped, "coarse": drawn.coarse, "residual": drawn.residual,
            "cells": drawn.photo, "gathered": drawn.gathered, "keys": drawn.keys, "own_keys": kept.keys,
        }  # fmt: skip
        return Made(drawn.rgba, drawn.flow, stages)

    # --- how it learns --------------------------------------------------------------------------------

    def phase(self, step: int) -> Hashable:
        return step >= self.weights.perceptual_from, step >= self.weights.adversarial_from

    def losses(self, made: Made, lesson: Lesson, judges: Judges) -> dict[str, Tensor]:
        w, stages = self.weights, made.stages
        shown, truth = lesson.over(made.rgba), lesson.truth_at(self.window)
        mouth = F.interpolate(mouth_mask(lesson.scene), shown.shape[2:])
        counts = 1 + w.head * stages["guide"][:, 3:] + w.mouth * mouth
        losses = {
            "l1": w.l1 * terms.l1(shown, truth, counts).mean(),
            "matte": w.matte * terms.l1(made.rgba[:, 3:], lesson.matte_at(self.window)).mean(),
            "residual": w.residual * terms.flow_magnitude(stages["residual"]).mean(),
            "warp": w.warp * terms.l1(lesson.over(stages["warped"]), truth, counts).mean(),
        }
        if "correspondence" not in self.without:
            coarse = lesson.scene.thinned(self._cells())
            visible = coarse.occlusion()
            losses["geometry"] = w.geometry * terms.l1(stages["coarse"], coarse.flow(), visible).mean()
            losses["cycle"] = w.cycle * cycle(stages).mean()
        if judges.perceptual is not None and lesson.step >= w.perceptual_from:
            rows = terms.PERCEPTUAL_ROWS
            far = judges.distance(shown[:rows], truth[:rows])
            losses["perceptual"] = w.perceptual * (lesson.sharpness[:rows] * far).mean()
        return losses

    def discriminators(self) -> dict[str, nn.Module]:
        return {"head": PatchDiscriminator(6)}

    def shown(self, made: Made, lesson: Lesson) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Pictures with the rebuilt PNCC beside: it must be the face that was asked for."""
        if lesson.step < self.weights.adversarial_from:
            return {}, {}
        code = made.stages["guide"][:, :3]
        fake, real = lesson.over(made.rgba), lesson.truth_at(self.window)
        return {"head": torch.cat([fake, code], 1)}, {"head": torch.cat([real, code], 1)}

    def grid(self, networks: nn.Module, lesson: Lesson) -> list[Tensor]:
        """Photo, its PNCC, the rebuilt PNCC, photo gathered, photo warped, ours, truth."""
        made = self.make(networks, lesson.scene)
        stages = made.stages
        brought = F.interpolate(stages["gathered"].float(), size=made.rgba.shape[2:], mode="nearest")
        return [
            lesson.photo_over(self.window), lesson.scene.own_pncc(), stages["guide"][:, :3],
            lesson.over(brought), lesson.over(stages["warped"]), lesson.over(made.rgba),
            lesson.truth_at(self.window),
        ]  # fmt: skip


def cycle(stages: Mapping[str, Tensor]) -> Tensor:
    """(B,) `|Σ_i A'(j, i) Σ_k A(i, k) I(k) − I(j)|`: what was gathered, brought back by the softmax of the same cosines
    the other way, is the photo again (Zhang et al. 2020, eq. 9)."""
    cosines = similarity(stages["keys"], stages["own_keys"])
    there, back = shares_of(cosines, 2), shares_of(cosines, 1).transpose(1, 2)
    return terms.l1(gathered(back, gathered(there, stages["cells"])), stages["cells"])
