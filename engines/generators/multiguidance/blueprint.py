"""`MultiguidanceBlueprint`: paper 001, what its networks see, how flow and occlusion are fused, and how it learns.

"Exploiting Multiple Guidance from 3DMM for Face Reenactment", Zhang, Ren, Chen, Li and Li 2023; eqs. 3 to 10, table 3.

What stands where. `v_t = (α_s, β_d, δ_s, γ_s, p_d)` is the photo's enrollment with the driver's `Motion`: identity,
texture and light are the photo's, as its UV colours hold them. F_c (eq. 3) is `Scene.flow`, O_c (eq. 4)
`Scene.occlusion_by_triangle`, both of the inner face alone, `Scene.inner_face` (skin within the face oval, eyeballs,
sockets, mouth wall, teeth, tongue), 0 elsewhere. I_r is `Scene.rendered_face`. Completion (eq. 5), the rule of fusion
(6, 7) and reenactment: `networks`. Losses: (8), (9), (10) here; no discriminator. Table 3 by the switches: without all
three parts it is "Base" (masks 1, so flow and occlusion alone as predicted; I_r 0, so that SPADE is an instance norm
with a learned scale and bias), and `flow_guidance`, `occlusion_guidance`, `synthesis_guidance` are its +FG, +OG, +SG.
Fig. 8 needs no network of its own: pose or expression alone is a `Motion` that keeps the photo's other half
(`Controls.region`); one driver's pose with another's expression is one `retarget` after the other.

Ours, where the text leaves it open: layers after PIRenderer (`networks`); maps of the completion network at a quarter
of the window, enlarged before the fusion, which takes place at the window's size, as F_c is told there; ṽ_d is the
motion descriptor of 65 numbers (lids, lips and gaze count as expression); four scales j, as in Siarohin et al. 2019b.

Deviations:
- our full-head 3DMM for BFM: F_c and O_c keep to the inner face as BFM's would, I_r shows the whole head.
- EfficientNet-Lite0 for VGG-19, its first four resolutions. Its first map lies at half the resolution, VGG's at the
  full one: the picture itself is one more φ_i, on the same scales. λ_s = 250 is told for VGG's Gram matrices; ours,
  0.6, makes the style loss about a tenth of the reconstruction loss at the start.
- premultiplied RGBA in and out, losses over the photo's plate; what the plate cannot tell (alpha before a like colour)
  a term on the matte does.
- the photo warped by F is part of the last layer (`ReenactmentNetwork`), so that the picture is as sharp as the photo
  at any resolution and the first picture is the photo, moved.
- eyeballs, falling lids and the mouth's inside are drawn and lie over the photo warped (`networked.openings`), under
  what the last layer adds.
- two terms more in training. The photo warped is asked for the true picture by itself (`warped`). And where the head
  model tells the flow, the completion network is told: F_p is F_c there, on the whole head, and M_f 0 on the inner face
  and 1 beyond it, where F_c is not known (`guidance`; not without `flow_guidance`). Left to itself M_f fell to 0 all
  over, as F_c = 0 beyond the face is safer than a flow that must be learned first: hair and shoulders stood still.
- where it starts: F_p = 0 and M_f = 0.12, so F is nearly F_c; O_p = 0.95, M_o = 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from engines.compile.weights import NetworkKind
from engines.generators.multiguidance.networks import FLOW_UNIT, PAPER, Config, MultiguidanceNetworks, fused
from engines.generators.networked import terms
from engines.generators.networked.blueprint import Blueprint, Made, warped
from engines.generators.networked.lesson import Judges, Lesson
from engines.generators.networked.picture import Size
from engines.generators.networked.scene import Scene
from engines.generators.networked.shown import coloured

SCALES = 4  # j of eq. 8: the picture and it halved three times


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Of eq. 10, `L = L_c + λ_s L_s`, and of what is ours; L_c is a sum over the picture and its features."""

    picture: float = 1.0
    features: float = 0.02
    style: float = 0.6  # λ_s
    matte: float = 0.3
    warped: float = 1.0
    guidance: float = 0.5


class MultiguidanceBlueprint(Blueprint[Config]):
    """See the module."""

    kind = NetworkKind("multiguidance", 1, "scripts.train")
    config_type = Config
    window = Size(256, 256)
    step_px, least_px = 32, 64  # halved five times; an instance norm needs more than one place
    switches = ("flow_guidance", "occlusion_guidance", "synthesis_guidance")
    eight_bits = ("reenactment.decoder.blocks",)
    laid = ("warped",)
    parts = 3.0
    weights: ClassVar[LossWeights] = LossWeights()

    # --- what it is -----------------------------------------------------------------------------------

    @classmethod
    def width_one(cls) -> MultiguidanceBlueprint:
        return cls(PAPER)

    def networks(self) -> MultiguidanceNetworks:
        return MultiguidanceNetworks(self.config)

    def photo_inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        return (scene.photo_at(self.window),)

    def encode(self, networks: nn.Module, photo: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The completion network's first layer, and the encoder's features, finest first."""
        assert isinstance(networks, MultiguidanceNetworks)
        return networks.completion.photo(*photo), *networks.reenactment.encoder(*photo)

    def inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        """I_s, F_c, O_c, I_r and ṽ_d."""
        inner = scene.inner_face()
        computed = scene.flow() * inner, scene.occlusion_by_triangle() * inner
        return scene.photo_at(self.window), *computed, scene.rendered_face(), scene.motion

    def draw(self, networks: nn.Module, inputs: tuple[Tensor, ...], features: tuple[Tensor, ...]) -> Made:
        assert isinstance(networks, MultiguidanceNetworks)
        photo, computed_flow, computed_occlusion, rendered, motion = inputs
        seen, *levels = features
        found = networks.completion(seen, motion)
        flow_mask = self._mask("flow_guidance", found.flow_mask)
        occlusion_mask = self._mask("occlusion_guidance", found.occlusion_mask)
        if "synthesis_guidance" in self.without:
            rendered = torch.zeros_like(rendered)
        flow = fused(flow_mask, found.flow, computed_flow)
        occlusion = fused(occlusion_mask, found.occlusion, computed_occlusion)
        moved = warped(photo, flow)
        picture, keep = networks.reenactment(moved, levels, flow, occlusion, rendered)
        stages = {
            "computed_flow": computed_flow, "predicted_flow": found.flow, "flow_mask": flow_mask,
            "computed_occlusion": computed_occlusion, "predicted_occlusion": found.occlusion,
            "occlusion_mask": occlusion_mask, "occlusion": occlusion, "rendered": rendered,
            "warped": moved, "keep": keep,
        }  # fmt: skip
        return Made(picture, flow, stages)

    def _mask(self, guidance: str, mask: Tensor) -> Tensor:
        """1 without the guidance: only what is predicted counts."""
        return torch.ones_like(mask) if guidance in self.without else mask

    # --- how it learns --------------------------------------------------------------------------------

    def losses(self, made: Made, lesson: Lesson, judges: Judges) -> dict[str, Tensor]:
        w, shown, truth = self.weights, lesson.over(made.rgba), lesson.truth_at(self.window)
        off = made.rgba[:, 3:] - lesson.matte_at(self.window)
        losses = {
            "picture": w.picture * terms.l1_multiscale(shown, truth, SCALES).mean(),
            "matte": w.matte * off.abs().mean(),
            "warped": w.warped
            * terms.l1_multiscale(lesson.over(made.stages["warped"]), truth, SCALES).mean(),
        }
        if "flow_guidance" not in self.without:
            losses["guidance"] = w.guidance * guided(made, lesson.scene)
        if judges.perceptual is not None:
            features = _once(judges.perceptual)
            rows = terms.PERCEPTUAL_ROWS
            sharp, shown, truth = lesson.sharpness[:rows], shown[:rows], truth[:rows]
            near = terms.perceptual(features, shown, truth, scales=SCALES)
            losses["features"] = w.features * (sharp * near).mean()
            losses["style"] = w.style * (sharp * terms.style(features, shown, truth)).mean()
        return losses

    def grid(self, networks: nn.Module, lesson: Lesson) -> list[Tensor]:
        """Photo, I_r, F_c, F_p, M_f, F, O_c, M_o, O, the photo warped, ours, truth."""
        made = self.make(networks, lesson.scene)
        s, flow = made.stages, made.flow
        assert flow is not None
        return [
            lesson.photo_over(self.window), s["rendered"],
            coloured(s["computed_flow"], 3), coloured(s["predicted_flow"], 3), _grey(s["flow_mask"]), coloured(flow, 3),
            _grey(s["computed_occlusion"]), _grey(s["occlusion_mask"]), _grey(s["occlusion"]),
            lesson.over(s["warped"]), lesson.over(made.rgba), lesson.truth_at(self.window),
        ]  # fmt: skip


def guided(made: Made, scene: Scene) -> Tensor:
    """How far F_p is from the flow that the head model tells, on the head, in units of its last layer, and M_f from 0
    on the inner face and from 1 beyond it."""
    flow_off = (made.stages["predicted_flow"] - scene.flow()).abs().sum(1, keepdim=True) * scene.mask()
    mask_off = (made.stages["flow_mask"] - (1 - scene.inner_face())).abs()
    return flow_off.mean() / FLOW_UNIT + mask_off.mean()


def _once(features: Callable[[Tensor], Sequence[Tensor]]) -> Callable[[Tensor], Sequence[Tensor]]:
    """`features`, which looks at each picture once, whichever loss asks."""
    found: list[tuple[Tensor, Sequence[Tensor]]] = []

    def look(picture: Tensor) -> Sequence[Tensor]:
        for seen, maps in found:
            if seen is picture:
                return maps
        found.append((picture, features(picture)))
        return found[-1][1]

    return look


def _grey(mask: Tensor) -> Tensor:
    return mask.expand(-1, 3, -1, -1)
