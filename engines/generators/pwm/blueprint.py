"""`PwmBlueprint`: progressive warping, paper 002: its guidance, what its networks see, and its losses.

"Geometry Driven Progressive Warping for One-Shot Face Animation" (Zhong, Amjadi, Zharkov), with its supplement. Here:

- § 3.2, guidance. Geometric displacement field `V_{d→s} = P(M_s) − P(M_d)`, rasterised on the driving mesh with back
  faces culled (`Scene.flow`). Posed neural codes: d = 16 numbers of each vertex, rasterised on the driving mesh as
  guidance and on the source's beside the photo, learned through the look-up (`Scene.codes`, `own_codes`).
- § 3.3, the progressive warping modules, spectral norm: `networks`.
- Supplement, eq. 1 to 4 and 1.4: perceptual loss on three scales, hinge and feature matching with patch discriminators
  of three scales, all of it for the output I_o and again for I_w, the photo warped by the last displacement.

Which guidance is told by what is left out (§ 4, table 1; § 4.5):

    (all)                           PWM + geom. disp. + neural codes, what ships
    --without codes                 PWM + geom. disp.
    --without displacement          PWM + neural codes
    --without displacement,codes    PWM + NMFC: the mean head's coordinates (our PNCC) take the codes' place, in the
                                    guidance and beside the photo
    --without whole_head            of the head only a face, as in the rows "(BFM)" (`face_mesh`)
    --without progressive           D at one level alone (§ 4.5, against HeadGAN)

Guidance decides the networks' shapes, so it is left out in training; `whole_head` alone can be left out afterwards too.

Open in the text, and ours: layers and widths (see `networks`); weights of the losses; one discriminator judges both I_o
and I_w; the head is rasterised on half the window's grid, which no level that it steers exceeds, and what lies
beside the photo is enlarged from there; codes begin as waves over the mean head, sin(W x + b), so that neighbours
begin alike.

Deviations: our full-head 3DMM for FLAME, its face for BFM. RGBA premultiplied in and out, losses over the plate, and
one loss more for alpha, which the paper does not have. EfficientNet-Lite0 for VGG-19: the picture itself and the
network's first four resolutions stand for the first five blocks. The discriminators learn before they count, at a rate
of their own (`Teaching`). Eyeballs, falling lids and the mouth's inside lie over the photo warped by the last
displacement, in I_w and I_o (`networked.openings`).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.generators.networked import terms
from engines.generators.networked.blueprint import Blueprint, Made
from engines.generators.networked.discriminators import MultiScaleDiscriminator
from engines.generators.networked.lesson import Judges, Lesson, Teaching
from engines.generators.networked.picture import Size
from engines.generators.networked.scene import Scene
from engines.generators.networked.shown import coloured
from engines.generators.pwm.face_mesh import on_face
from engines.generators.pwm.networks import KIND, PAPER, TOLD, PwmConfig, PwmNetworks, everywhere
from engines.head.model import load_head_model

SCALES = 3  # of pictures: 256, 128, 64
_WAVES = 4.0  # how steep codes begin, in radians over half a head
_PNCC = 3


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weights of the losses, and from when on discriminators see anything. The paper prints none.

    `features` of each level of EfficientNet-Lite0 beside the picture itself: of a photo that is shifted by three pixels
    or blurred, a level's features are off by 2 to 5, the picture by 0.03 to 0.07; together the levels then count two to
    four times as much as the picture.
    """

    perceptual: float = 1.0
    features: float = 0.01
    matte: float = 0.3
    adversarial_from: int = 1000


class PwmBlueprint(Blueprint[PwmConfig]):
    """See the module."""

    kind = KIND
    config_type = PwmConfig
    window = Size(256, 256)
    step_px, least_px = 16, 32  # halved four times
    switches = ("displacement", "codes", "whole_head", "progressive")
    laid = ("warped",)  # `moved` lays it there
    parts = 2.0
    weights: ClassVar[LossWeights] = LossWeights()
    teaching = Teaching(counts_from=LossWeights().adversarial_from + 500)

    @classmethod
    def width_one(cls) -> PwmBlueprint:
        return cls(PAPER)

    def raster_size(self) -> Size:
        """Half the window: no level that is steered is finer."""
        return Size(self.window.width_px // 2, self.window.height_px // 2)

    @property
    def _moves(self) -> bool:
        return "displacement" not in self.without

    @property
    def _beside(self) -> int:
        """Channels that tell which place of the head a pixel shows: codes; coordinates where nothing else steers."""
        if "codes" not in self.without:
            return self.config.codes
        return 0 if self._moves else _PNCC

    def networks(self) -> PwmNetworks:
        codes = first_codes(self.config.codes) if "codes" not in self.without else None
        guide = 2 * self._moves + self._beside
        progressive = "progressive" not in self.without
        return PwmNetworks(
            self.config, guide, self._beside, codes, moves=self._moves, progressive=progressive
        )

    # --- what they see --------------------------------------------------------------------------------

    def inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        """The guidance (B, C, h/2, w/2): displacement in units of `TOLD`, codes or coordinates."""
        guides = [scene.flow() / TOLD] if self._moves else []
        guides += self._places(networks, scene, own=False)
        return (self._meshed(torch.cat(guides, 1), scene.posed.triangle),)

    def photo_inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        """The photo (B, 4, h, w), and beside it what tells which place of the head each pixel shows."""
        photo = scene.photo_at(self.window)
        places = [self._meshed(p, scene.own.triangle) for p in self._places(networks, scene, own=True)]
        large = [F.interpolate(p, photo.shape[2:], mode="bilinear", align_corners=False) for p in places]
        return (torch.cat([photo, *large], 1),)

    def _places(self, networks: nn.Module, scene: Scene, *, own: bool) -> list[Tensor]:
        assert isinstance(networks, PwmNetworks)
        if networks.codes is not None:
            return [scene.own_codes(networks.codes) if own else scene.codes(networks.codes)]
        if self._moves:
            return []
        return [scene.own_pncc() if own else scene.pncc()]

    def _meshed(self, guide: Tensor, triangle: Tensor) -> Tensor:
        return guide if "whole_head" not in self.without else guide * on_face(load_head_model(), triangle)

    def encode(self, networks: nn.Module, photo: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert isinstance(networks, PwmNetworks)
        return networks.encoder(*photo)

    def draw(self, networks: nn.Module, inputs: tuple[Tensor, ...], features: tuple[Tensor, ...]) -> Made:
        """I_o, and the last displacement as the flow of the photo; each as a stage, `D1` …"""
        drawn = networks(*inputs, *features)
        stages = {f"D{k}": flow for k, flow in enumerate(drawn.displacements, start=1)}
        return Made(drawn.rgba, drawn.displacements[-1], stages)

    def make(self, networks: nn.Module, scene: Scene) -> Made:
        """As in a call, and I_w as the stage `warped` (supplement, 1.4)."""
        made = super().make(networks, scene)
        assert made.flow is not None
        return replace(made, stages={**made.stages, "warped": self.moved(scene, made.flow)})

    # --- how it learns --------------------------------------------------------------------------------

    def phase(self, step: int) -> Hashable:
        return step >= self.weights.adversarial_from

    def losses(self, made: Made, lesson: Lesson, judges: Judges) -> dict[str, Tensor]:
        """Supplement, eq. 1, for I_o and I_w; and the matte, our alpha's. Eq. 2 to 4: `shown`, `Teaching`."""
        w, truth = self.weights, lesson.truth_at(self.window)

        rows = terms.PERCEPTUAL_ROWS
        losses: dict[str, Tensor] = {}
        for name, rgba in (("output", made.rgba), ("warped", made.stages["warped"])):
            shown = lesson.over(rgba)
            off = (lesson.sharpness * terms.l1_multiscale(shown, truth, SCALES)).mean()
            if judges.perceptual is not None:
                far = terms.perceptual(judges.perceptual, shown[:rows], truth[:rows], scales=SCALES)
                off = off + w.features * (lesson.sharpness[:rows] * far).mean()
            losses[f"perceptual_{name}"] = w.perceptual * off
        off = terms.l1(made.rgba[:, 3:], lesson.matte_at(self.window))
        return losses | {"matte": w.matte * off.mean()}

    def discriminators(self) -> dict[str, nn.Module]:
        return {"picture": everywhere(MultiScaleDiscriminator(scales=SCALES))}

    def shown(self, made: Made, lesson: Lesson) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """I_o and I_w, one after the other, against I_d twice."""
        if lesson.step < self.weights.adversarial_from:
            return {}, {}
        fakes = [lesson.over(rgba) for rgba in (made.rgba, made.stages["warped"])]
        truth = lesson.truth_at(self.window)
        return {"picture": torch.cat(fakes)}, {"picture": torch.cat([truth, truth])}

    def grid(self, networks: nn.Module, lesson: Lesson) -> list[Tensor]:
        """Photo, displacements from coarse to fine, I_w, I_o, truth."""
        made = self.make(networks, lesson.scene)
        flows = [flow for name, flow in made.stages.items() if name.startswith("D")]
        return [
            lesson.photo_over(self.window), *(coloured(flow, 6) for flow in flows),
            lesson.over(made.stages["warped"]), lesson.over(made.rgba.clamp(0, 1)), lesson.truth_at(self.window),
        ]  # fmt: skip


def first_codes(count: int) -> Tensor:
    """(N, count) −1 … 1: waves over the mean head in directions drawn from torch's seed."""
    places = torch.from_numpy(load_head_model().pncc().astype(np.float32)) * 2 - 1
    directions = F.normalize(torch.randn(3, count), dim=0) * _WAVES
    return (places @ directions + torch.rand(count) * (2 * torch.pi)).sin()
