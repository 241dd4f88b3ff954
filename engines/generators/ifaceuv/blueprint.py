"""`ifaceuv`, paper 000: IFaceUV, Intuitive Motion Facial Image Generation by Identity Preservation via UV map (Lee, Ku,
Kim and Baek).

Implemented: the motion descriptor (1) of several frames (2), f^E, AdaIN (3); f^Warp and its loss (4); f^UVRef (5),
rendered (6), laid over the warped photo (7), its loss (8); consistency of both ways (9); f^Edit (10) and its loss (11);
the sum (12) with λ = 2.5, 4, 1, 4. Not here: the extension to sound (§ 3.5).

Choices that the text leaves open:
- (1) is our descriptor of 65 numbers told in the window, for exp 64, angle 3 and translation 3: expressions, gaze and
  closure, then rotation, scale and shift.
- (2) is symmetric, i frames before and after, i unsaid. A call knows nothing of the frames to come, and networks that
  learnt with them would draw by others there: the window has as many frames as one of i = 2, and the one to draw is the
  last. Training, calls and `animate` see the same five.
- (5): I^s and I_uv^s lie beside one another as the brackets of (5) and (10) have them, although a texel and a pixel at
  one place show different things. What the photo shows of a texel is the texture already; what else the photo tells of
  it, such as the light, comes through the three levels of the encoder. All of that is the photo's alone and runs once.
- (7) needs the true picture's mask, which no call has: the mask is where the rendered mesh is, but for
  eyeballs and the mouth's inside, which are drawn (`networked.openings`); ⊙ between pictures that are 0 where the other
  is not is their sum, as their product would be 0 everywhere.
- (8) is called an L2 loss in the text; the formula is printed and is done: L1 of features.
- (9) is taken of both textures, source and target: the frame that drives is enrolled too, has maps of its own, and is
  refined by the photo's motions, told in its own window.

Deviations:
- Our head for the BFM face: it has scalp, ears, neck, eyes and teeth, so the rendered image is a head, not a face.
- Premultiplied RGBA for RGB, and losses over the photo's plate. The rendered head is as opaque as the photo warped
  there: a mesh has no soft rim. One term of its own asks for the right matte.
- EfficientNet-Lite0 for VGG: φ_i is the picture itself, in place of the layers of VGG that are as fine, and four
  levels, each scaled to count about as much. λ keep the paper's ratios.
- f^Warp begins with the flow that the mesh computes, spread beyond it, and says what is to be added
  (`--without computed_flow`: it begins with none, as in the paper). Then the photo warped at full resolution is sharp.
- What the photo gives is rendered from its maps at their full size, and what f^UVRef adds from a map of the window's
  size: rendering is linear, so (6) is their sum.
- Eyeballs, falling lids and the mouth's inside lie over Î_bg and Î_comb (`networked.openings`).
- In a batch that shows some rows in a mirror, textures are not mirrored: f^UVRef then sees photo and motion unmirrored.

Parts that can be left out: `refinement` (I_uv^s is rendered as it is; losses 8 and 9 have no subject), `consistency`
(9), `window` (one moment in place of (2), told five times), `computed_flow`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.generators.ifaceuv.networks import KIND, PAPER, IFaceUvNetworks, Widths, spread
from engines.generators.networked import terms
from engines.generators.networked.blueprint import Blueprint, Made, warped
from engines.generators.networked.lesson import Judges, Lesson
from engines.generators.networked.mirrored import mirrored
from engines.generators.networked.picture import Picture, Size
from engines.generators.networked.scene import Scene
from engines.head.model import Part
from engines.raster.conditioning import HEAD_PARTS

LAMBDA_WARP, LAMBDA_TEXTURE, LAMBDA_CONSISTENCY, LAMBDA_EDIT = 2.5, 4.0, 1.0, 4.0  # eq. 12
LAMBDA_MATTE = 1.0  # ours
# what the picture and each level of features count: each then about as much, of a photo warped to another frame
LEVELS = (1.0, 0.025, 0.015, 0.015, 0.02)
FLOW_PARTS = 4  # of the window's height to the flow's
_WARP_MAPS = 4
_SHOWN = HEAD_PARTS - {Part.EYE, Part.MOUTH, Part.TEETH, Part.TONGUE}


class IFaceUvBlueprint(Blueprint[Widths]):
    """See the module."""

    kind = KIND
    config_type = Widths
    window = Size(256, 256)
    past = 4
    step_px, least_px = 32, 64  # it halves its window five times and norms what is left
    switches = ("refinement", "consistency", "window", "computed_flow")
    eight_bits = ("texture", "edit_encoder", "edit")
    laid = ("warped", "combined")
    parts = 1.0

    @classmethod
    def width_one(cls) -> IFaceUvBlueprint:
        return cls(PAPER)

    def networks(self) -> IFaceUvNetworks:
        return IFaceUvNetworks(self.config, self.past + 1)

    # --- what they see --------------------------------------------------------------------------------

    def photo_inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        """I^s; and for f^UVRef I^s unmirrored and I_uv^s, colour and visibility."""
        photo, flip = scene.photo_at(self.window), scene.flip
        plain = photo if flip is None else torch.where(flip[:, None, None, None], photo.flip(-1), photo)
        return photo, plain, texture_of(scene, self.window)

    def encode(self, networks: nn.Module, photo: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert isinstance(networks, IFaceUvNetworks)
        seen, plain, texture = photo
        return (*networks.seen_by_warp(seen), *networks.seen_by_texture(plain, texture))

    def inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        """Photo, R(M, I_uv^s), where in the texture each place lies, where its mask is, computed flow and coverage on
        the flow's grid, motions, and motions as the unmirrored texture has them."""
        size = Size(self.window.width_px // FLOW_PARTS, self.window.height_px // FLOW_PARTS)
        coarse = scene.thinned(size)
        flow = coarse.flow()
        if "computed_flow" in self.without:
            flow = torch.zeros_like(flow)
        skin = scene.mask(_SHOWN)
        return (
            scene.photo_at(self.window), scene.rendered_face() * skin, scene.uv(), skin,
            flow, coarse.covered(), self._told(scene), self._told_unmirrored(scene),
        )  # fmt: skip

    def _told(self, scene: Scene) -> Tensor:
        """p (B, moments, 65) of eq. 2; one moment alone is told as if the head had not moved."""
        one = scene.motion[:, None].repeat(1, self.past + 1, 1)
        return one if "window" in self.without else scene.motions

    def _told_unmirrored(self, scene: Scene) -> Tensor:
        told = self._told(scene)
        return told if scene.flip is None else mirrored(told, scene.flip)

    # --- what they make -------------------------------------------------------------------------------

    def draw(self, networks: nn.Module, inputs: tuple[Tensor, ...], features: tuple[Tensor, ...]) -> Made:
        """A frame. Stages are premultiplied RGBA (B, 4, h, w): `warped` Î_bg, `raw` R(M, I_uv^s), `rendered` Î_rend,
        `combined` Î_comb; and `added` (B, 3, h, w), what f^UVRef adds to the texture."""
        assert isinstance(networks, IFaceUvNetworks)
        photo, raw, uv, covered, flow, near, told, told_unmirrored = inputs
        z = networks.motion(told)
        flow = spread(flow, near, self.window.height_px // FLOW_PARTS) + networks.warp(
            features[:_WARP_MAPS], z
        )
        moved = warped(photo, flow)
        rendered, stages = raw, dict[str, Tensor]()
        if "refinement" not in self.without:
            added = networks.refine(features[_WARP_MAPS:], networks.motion(told_unmirrored))
            rendered = raw + looked_up(added, uv) * covered
            stages["added"] = added
        combined = overlaid(moved, rendered, covered)
        picture = networks.finish(photo, moved, combined, z)
        stages |= {
            "warped": moved, "raw": torch.cat([raw, covered], 1),
            "rendered": torch.cat([rendered, covered], 1), "combined": combined,
        }  # fmt: skip
        return Made(picture, flow, stages)

    def refined(self, networks: nn.Module, scene: Scene) -> Tensor:
        """Î_uv (B, 3, h, w) of eq. 5, alone."""
        assert isinstance(networks, IFaceUvNetworks)
        _, plain, texture = self.photo_inputs(networks, scene)
        z = networks.motion(self._told_unmirrored(scene))
        return texture[:, :3] + networks.refine(networks.seen_by_texture(plain, texture), z)

    # --- how they learn -------------------------------------------------------------------------------

    def looks_back(self) -> bool:
        return not {"refinement", "consistency"} & self.without

    def taught(self, networks: nn.Module, lesson: Lesson) -> Made:
        """A frame, with both ways' textures as stages `texture` and `texture_back`."""
        made = self.make(networks, lesson.scene)
        if lesson.back is None:
            return made
        own = texture_of(lesson.scene, self.window)[:, :3]
        both = {
            "texture": own + made.stages["added"],
            "texture_back": self.refined(networks, lesson.back),
        }
        return replace(made, stages={**made.stages, **both})

    def losses(self, made: Made, lesson: Lesson, judges: Judges) -> dict[str, Tensor]:
        """Eqs. 4, 8, 9 and 11 weighted as (12) says, and the matte."""
        stages, weights = made.stages, {"warp": LAMBDA_WARP, "edit": LAMBDA_EDIT}
        drawn = {"warp": stages["warped"], "edit": made.rgba}
        if "refinement" not in self.without:
            drawn["texture"], weights["texture"] = stages["combined"], LAMBDA_TEXTURE
        shown = [lesson.over(rgba) for rgba in drawn.values()]
        found = unlike(judges, shown, lesson.truth_at(self.window), lesson.sharpness)
        losses = {name: weights[name] * off for name, off in zip(drawn, found, strict=True)}
        if "texture_back" in stages:
            both = terms.consistency(stages["texture"], stages["texture_back"])
            losses["consistency"] = LAMBDA_CONSISTENCY * both.mean()
        losses["matte"] = LAMBDA_MATTE * terms.l1(made.rgba[:, 3:], lesson.matte_at(self.window)).mean()
        return losses

    def grid(self, networks: nn.Module, lesson: Lesson) -> list[Tensor]:
        """Fig. 1: photo, the frame that drives, warped, rendered, rendered of the refined texture, combined, ours."""
        made = self.make(networks, lesson.scene)
        s = made.stages
        return [
            lesson.photo_over(self.window), lesson.truth_at(self.window), lesson.over(s["warped"]),
            s["raw"][:, :3], s["rendered"][:, :3], lesson.over(s["combined"]), lesson.over(made.rgba),
        ]  # fmt: skip


def texture_of(scene: Scene, size: Size) -> Tensor:
    """I_uv^s (B, 4, h, w): the photo's UV maps, colour and visibility, at the size of the network's."""
    return Picture(scene.maps, tint=scene.tint, alpha="beside").at(size)


def looked_up(texture: Tensor, uv: Tensor) -> Tensor:
    """A texture (B, C, h, w) where a head shows its places `uv` (B, h, w, 2), −1 … 1: R of eq. 6."""
    return F.grid_sample(texture, uv, "bilinear", "border", align_corners=False)


def overlaid(moved: Tensor, rendered: Tensor, mask: Tensor) -> Tensor:
    """Î_comb of eq. 7: colours `rendered` (B, 3, h, w) where `mask` (B, 1, h, w) is 1, over `moved` (B, 4, h, w),
    whose alpha is kept."""
    alpha = moved[:, 3:]
    return torch.cat([(1 - mask) * moved[:, :3] + mask * rendered * alpha, alpha], 1)


def unlike(judges: Judges, drawn: Sequence[Tensor], truth: Tensor, sharpness: Tensor) -> list[Tensor]:
    """Σ_i |φ_i(truth) − φ_i(drawn)| of eqs. 4, 8 and 11, for each of the pictures (B, 3, h, w) drawn; all are looked at
    at once. Features are compared on some rows of a batch only, and count less where the truth is not sharp."""
    off = [LEVELS[0] * terms.l1(picture, truth).mean() for picture in drawn]
    if judges.perceptual is not None:
        rows = min(terms.PERCEPTUAL_ROWS, len(truth))
        with torch.no_grad():
            wanted = [f * k for f, k in zip(judges.perceptual(truth[:rows]), LEVELS[1:], strict=True)]
        seen = judges.perceptual(torch.cat([picture[:rows] for picture in drawn]))
        each = zip(*((f * k).split(rows) for f, k in zip(seen, LEVELS[1:], strict=True)), strict=True)
        off = [
            a + (sharpness[:rows] * terms.feature_l1(b, wanted)).mean()
            for a, b in zip(off, each, strict=True)
        ]
    return off
