"""`PnccBlueprint`: paper 003, "One-shot Facial Expression Reenactment using 3D Morphable Models" (Vei 2022).

Implemented: the face reenactment pipeline (§ 3.1.2, tables 3.1 to 3.4: `networks`), its losses § 3.2.5 to 3.2.10 with
PNCC conditioning and mouth discriminator, the residual connection, the portrait window (§ 6.2.1) and table 6.2's parts
as switches. Its predictor (§ 3.1.1, losses § 3.2.1 to 3.2.4) is `engines.head.regressor`.

Where the text leaves it open (its figures are not at hand):
- SPADE of the enhancing network sees the photo's features after the warping network's third, second and first
  convolution, warped, and last the warped photo: four blocks, four guides.
- Discriminators are of patches; mouth pixels are chosen by `mouth_mask` from the posed mesh's lips.
- Without `mapping` the AdaIN blocks stay; the mapping network is told 0, so that they are learned constants.

Where ours differs:
- Our full-head 3DMM in FLAME's place; the mapping network gets our motion's 65 numbers, not 106.
- Pictures are segmented as the thesis' are, but premultiplied RGBA, 0 … 1: the photo has 4 + 3 channels, 4 come out.
  L1 looks at all four. Other losses see both pictures, the true one cut out by its matte, over what stands behind the
  photo's person: nothing is learned about what the camera saw behind a head that moved.
- The window is as high as the head crop of all generators, about its middle, and 3 : 4 of it wide. The head then lies
  a little above the middle (at 0.43 of the height), larger than in the thesis: long hair beyond the sides stays the
  photo's. Shipped at 256 × 192.
- The flow is told on top of the computed flow (`computed_flow`), which both PNCCs together tell exactly: the thesis'
  network has two weeks on three GPUs to find it out. It goes on beyond the head (`filled`). Without that switch it
  starts at 0.
- Eyeballs, falling lids and the mouth's inside are drawn and lie over the warped photo (`networked.openings`).
- The photo's three convolutions run once and are kept in the avatar.
- EfficientNet-Lite0 for VGG-19; mobileface for the re-identification net, and another (faceres) then judges. λ 1, 1, 1,
  50, 10, 10 are all divided by 50, as gradients are cut at one length; λ₉ is made smaller than that (`LossWeights`).
- Hinge losses have real and drawn as paper 002 has them; the thesis prints them exchanged. Its L_ReID is a similarity:
  ours is 1 − cos. Its networks learn against the discriminators at once; ours after 500 steps, in which those learn
  alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from engines.compile.weights import NetworkKind
from engines.generators.networked import terms
from engines.generators.networked.beyond import filled
from engines.generators.networked.blueprint import Blueprint, Made, warped
from engines.generators.networked.discriminators import PatchDiscriminator
from engines.generators.networked.lesson import Judges, Lesson, Teaching
from engines.generators.networked.parts import mouth_mask
from engines.generators.networked.picture import Size
from engines.generators.networked.scene import Scene
from engines.generators.networked.shown import coloured
from engines.generators.pncc.networks import PNCC, PnccConfig, PnccNetworks

_RGB = 3


@dataclass(frozen=True, slots=True)
class LossWeights:
    """λ₈, λ₉ and λ₁₀ over 50; λ₅, λ₆ and λ₇ are `Teaching.adversarial`.

    `perceptual`: of photos warped by the computed flow EfficientNet-Lite0's features differ by 12.4 where L1 is 0.050,
    summed over four levels. With 0.006 they weigh one and a half times as much.
    """

    style: float = 1.0
    perceptual: float = 0.006
    identity: float = 10 / 50


class PnccBlueprint(Blueprint[PnccConfig]):
    """See the module."""

    kind = NetworkKind("pncc", 1, "scripts.train")
    config_type = PnccConfig
    window = Size(192, 256)
    step_px, least_px = 16, 16  # three quarters of it, the width, are halved twice
    switches = ("perceptual", "mapping", "conditioning", "mouth", "residual", "computed_flow")
    eight_bits = ("enhancing.encoder", "enhancing.deep", "enhancing.middle", "enhancing.fine")
    laid = ("warped",)
    parts = 1.2
    teaching = Teaching(adversarial=1 / 50, matching=0.0, counts_from=500)
    teacher = "mobileface"
    weights: ClassVar[LossWeights] = LossWeights()

    @classmethod
    def width_one(cls) -> PnccBlueprint:
        return cls(PnccConfig.paper(), height_px=512)

    def networks(self) -> PnccNetworks:
        return PnccNetworks(self.config, residual="residual" not in self.without)

    # --- a frame --------------------------------------------------------------------------------------

    def photo_inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        """Photo and source PNCC (B, 7, h, w)."""
        return (torch.cat([scene.photo_at(self.window), scene.own_pncc()], 1),)

    def encode(self, networks: nn.Module, photo: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Features at the window's size, its half and its quarter."""
        assert isinstance(networks, PnccNetworks)
        return networks.encoder(*photo)

    def inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        """Photo, driving PNCC, motion and the flow to begin with."""
        computed = filled(scene.flow(), scene.covered())
        if "computed_flow" in self.without:
            computed = torch.zeros_like(computed)
        motion = scene.motion
        if "mapping" in self.without:
            motion = torch.zeros_like(motion)
        return scene.photo_at(self.window), scene.pncc(), motion, computed

    def draw(self, networks: nn.Module, inputs: tuple[Tensor, ...], features: tuple[Tensor, ...]) -> Made:
        assert isinstance(networks, PnccNetworks)
        photo, pncc, motion, computed = inputs
        flow = computed + networks.warping(features[2], pncc).float()
        moved = warped(photo, flow)
        seen = tuple(warped(f.float(), flow) for f in features)
        drawn = networks.enhancing(pncc, moved, seen, networks.mapping(motion)).float()
        if "residual" not in self.without:
            drawn = moved + drawn
        return Made(drawn.clamp(0, 1), flow, {"warped": moved, "pncc": pncc, "computed": computed})

    # --- how it learns --------------------------------------------------------------------------------

    def losses(self, made: Made, lesson: Lesson, judges: Judges) -> dict[str, Tensor]:
        w, truth = self.weights, self._segmented(lesson)
        drawn = {"warped": made.stages["warped"], "enhanced": made.rgba}
        losses = {f"style_{name}": w.style * terms.l1(x, truth).mean() for name, x in drawn.items()}
        shown = lesson.over(truth)
        if judges.perceptual is not None and "perceptual" not in self.without:
            rows = terms.PERCEPTUAL_ROWS
            with torch.no_grad():
                wanted = judges.perceptual(shown[:rows])
            for name, rgba in drawn.items():
                off = terms.feature_l1(judges.perceptual(lesson.over(rgba)[:rows]), wanted)
                losses[f"perceptual_{name}"] = w.perceptual * (lesson.sharpness[:rows] * off).mean()
        describe = None if self.teacher is None else judges.describe.get(self.teacher)
        if describe is not None:
            at = lesson.points_at(self.window)
            off = terms.re_identification(describe, lesson.over(made.rgba), shown, at)
            losses["identity"] = w.identity * (lesson.sharpness * off).mean()
        return losses

    def discriminators(self) -> dict[str, nn.Module]:
        channels = _RGB + PNCC * ("conditioning" not in self.without)
        names = ("warped", "enhanced", "mouth") if "mouth" not in self.without else ("warped", "enhanced")
        return {name: PatchDiscriminator(channels, (24, 48, 96, 96)) for name in names}

    def shown(self, made: Made, lesson: Lesson) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """I || PNCC of warped and enhanced picture, and of the enhanced one's mouth (I || PNCC) | m."""
        pncc = made.stages["pncc"]

        def stacked(rgba: Tensor) -> Tensor:
            picture = lesson.over(rgba)
            return picture if "conditioning" in self.without else torch.cat([picture, pncc], 1)

        real = stacked(self._segmented(lesson))
        fakes = {"warped": stacked(made.stages["warped"]), "enhanced": stacked(made.rgba)}
        reals = {"warped": real, "enhanced": real}
        if "mouth" not in self.without:
            mask = mouth_mask(lesson.scene)
            fakes["mouth"], reals["mouth"] = fakes["enhanced"] * mask, real * mask
        return fakes, reals

    def figures(self, networks: nn.Module, lesson: Lesson, judges: Judges) -> dict[str, Tensor]:
        """As the blueprint's, with the mouth; against the photo unmoved."""
        truth, mask = lesson.truth_at(self.window), mouth_mask(lesson.scene)
        ours = lesson.over(self.make(networks, lesson.scene).rgba)
        found: dict[str, Tensor] = {}
        for end, picture in (("", ours), ("_base", lesson.photo_over(self.window))):
            off = (picture - truth).abs().mean(1, keepdim=True)
            found[f"l1{end}"] = off.mean((1, 2, 3))
            found[f"db{end}"] = terms.minus_psnr(picture, truth)
            found[f"mouth{end}"] = (off * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1)
            if judges.perceptual is not None:
                found[f"lpips{end}"] = judges.distance(picture, truth)
        return found

    def grid(self, networks: nn.Module, lesson: Lesson) -> list[Tensor]:
        """Photo, source and driving PNCC, flow, warped, what is added, ours, truth."""
        made = self.make(networks, lesson.scene)
        assert made.flow is not None
        moved = made.stages["warped"]
        return [
            lesson.photo_over(self.window), lesson.scene.own_pncc(), made.stages["pncc"],
            coloured(made.flow, 2), lesson.over(moved),
            (made.rgba - moved)[:, :3] + 0.5, lesson.over(made.rgba), lesson.truth_at(self.window),
        ]  # fmt: skip

    def _segmented(self, lesson: Lesson) -> Tensor:
        """The true picture's person (B, 4, h, w), premultiplied."""
        matte = lesson.matte_at(self.window)
        return torch.cat([lesson.truth_at(self.window) * matte, matte], 1)
