"""`VisavisBlueprint`: the networks of `visavis`, what they see, and how they learn; head window, mouth and eyes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.generators.networked import terms
from engines.generators.networked.blueprint import Blueprint, Made, Served, warped
from engines.generators.networked.boxes import WHERE_PX
from engines.generators.networked.discriminators import PatchDiscriminator
from engines.generators.networked.lesson import Judges, Lesson, Teaching
from engines.generators.networked.picture import Picture, Size, places
from engines.generators.networked.scene import Scene
from engines.generators.networked.shown import coloured
from engines.generators.visavis import inputs, sight
from engines.generators.visavis.inputs import EYE_PX, MOUTH_PX, WINDOW_PX
from engines.generators.visavis.networks import (
    KIND,
    NetworkConfig,
    ServedHead,
    ServedPaths,
    VisavisNetworks,
    apply_layers,
    soft_window,
)


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weights and when they begin."""

    l1: float = 1.0
    matte: float = 0.3
    mouth: float = 1.0
    eyes: float = 1.0
    perceptual: float = 0.08
    perceptual_from: int = 1000  # first move things to their places: that is cheap
    perceptual_crops: float = 0.02
    adversarial_from: int = 8000  # once shapes are right: earlier it draws teeth that are not there
    flow: float = 0.02
    flow_smooth: float = 0.05
    mask: float = 0.02
    shade: float = 0.02


ALONE = 500  # steps in which the discriminators learn before they count


class VisavisBlueprint(Blueprint[NetworkConfig]):
    """See the module. In a call the same networks see through `inputs` what training sees through `sight`."""

    kind = KIND
    config_type = NetworkConfig
    window = Size(WINDOW_PX, WINDOW_PX)
    raster = Size(160, 160)  # the grid of the geometric picture
    base = "geometric"
    switches = ("flow", "layers", "features", "motion", "mouth", "eyes", "photo_crops")
    eight_bits = ("paths",)
    weights: ClassVar[LossWeights] = LossWeights()
    teaching = Teaching(counts_from=LossWeights().adversarial_from + ALONE)

    def networks(self) -> VisavisNetworks:
        return VisavisNetworks(self.config)

    def photo_inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        return (sight.photo_input(scene),)

    def encode(self, networks: nn.Module, photo: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert isinstance(networks, VisavisNetworks)
        return (networks.encoder(*photo),)

    def inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        """Of the head network: picture, guide, where and motion."""
        assert scene.picture is not None
        motion = sight.motion_vector(scene.own_motion, scene.motion)
        if "motion" in self.without:
            motion = torch.zeros_like(motion)
        return scene.picture.at(self.window), sight.head_guide(scene), sight.where_in_photo(scene), motion

    def make(self, networks: nn.Module, scene: Scene) -> Made:
        """Head window, mouth and eyes, with all that losses look at as stages."""
        assert isinstance(networks, VisavisNetworks)
        assert scene.picture is not None
        (features,) = self.encode(networks, self.photo_inputs(networks, scene))
        if "features" in self.without:
            features = torch.zeros_like(features)
        picture, guide, where, motion = self.inputs(networks, scene)
        flow, layers = networks.head(picture, guide, where, features, motion)
        flow, layers = flow.float(), layers.float()
        flow128 = F.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=False)
        if "flow" in self.without:
            flow, flow128 = torch.zeros_like(flow), torch.zeros_like(flow128)
        if "layers" in self.without:
            layers = torch.zeros_like(layers)
        head = apply_layers(warped(picture, flow128), layers)
        # mouth and eyes pull at the head's flow and layers too: at their own finer scale
        both = torch.cat([flow128, layers, head[:, 3:].detach()], 1)
        places = sight.crops(scene)
        stages = {"picture": picture, "guide": guide, "flow": flow, "layers": layers}
        stages |= self._mouth(networks, scene, places.mouth, both, motion)
        stages |= self._eyes(networks, scene, places.eyes, both, motion)
        return Made(head, flow, stages)

    def _mouth(
        self, networks: VisavisNetworks, scene: Scene, place: Tensor, both: Tensor, motion: Tensor
    ) -> dict[str, Tensor]:
        assert scene.picture is not None
        crop = scene.picture.crop(place, sight.MOUTH)[:, :3]
        before, alpha = _completed(both, crop, place)
        photo = _beside(scene.photo).crop(sight.crops(scene, own=True).mouth, sight.MOUTH)[:, :3]
        photo = photo * float("photo_crops" not in self.without)
        guide = sight.mouth_guide(sight.part_crop(scene, place, sight.MOUTH))
        layers = networks.paths.mouth(before, photo, guide, motion).float()
        drawn = apply_layers(before, layers * _soft(layers) * float("mouth" not in self.without))
        return {"mouth_place": place, "mouth_crop": crop, "mouth": drawn, "mouth_alpha": alpha}

    def _eyes(
        self, networks: VisavisNetworks, scene: Scene, place: Tensor, both: Tensor, motion: Tensor
    ) -> dict[str, Tensor]:
        """Right and left eye of each row after one another, (2 B, …)."""
        assert scene.picture is not None
        crop = scene.picture.crop(place, sight.EYE)[:, :3]
        before, alpha = _completed(both.repeat_interleave(2, 0), crop, place)
        photo = _beside(scene.photo).crop(sight.crops(scene, own=True).eyes, sight.EYE)[:, :3]
        photo = photo * float("photo_crops" not in self.without)
        guide = sight.eye_guide(sight.part_crop(scene, place, sight.EYE))
        mirrored = motion @ sight.mirror_matrix(str(motion.device))
        told = torch.stack([motion, mirrored], 1).flatten(0, 1)
        layers = networks.paths.eye(before, photo, guide, told).float()
        drawn = apply_layers(before, layers * _soft(layers) * float("eyes" not in self.without))
        return {"eyes_place": place, "eyes_crop": crop, "eyes": drawn, "eyes_alpha": alpha}

    # --- how it learns --------------------------------------------------------------------------------

    def phase(self, step: int) -> Hashable:
        w = self.weights
        return step >= w.perceptual_from and 1 + step % 2, step >= w.adversarial_from

    def losses(self, made: Made, lesson: Lesson, judges: Judges) -> dict[str, Tensor]:
        w, head, stages = self.weights, made.rgba, made.stages
        flow, layers = stages["flow"], stages["layers"]
        shown, truth = lesson.over(head), lesson.truth_at(self.window)
        covered = stages["guide"][:, 3:6].amax(1, keepdim=True).gt(0).float()
        losses = {"l1": w.l1 * ((1 + 2 * covered) * (shown - truth).abs()).mean()}
        small, small_truth = shown, truth
        for scale in (2, 4):
            small, small_truth = F.avg_pool2d(small, 2), F.avg_pool2d(small_truth, 2)
            losses[f"l1_{scale}"] = w.l1 * 0.5 * (small - small_truth).abs().mean()
        losses["matte"] = w.matte * (head[:, 3:] - lesson.matte_at(self.window)).abs().mean()
        # where the photo shows the place, no synthesis: outside mouth, lids, what it hides and the rim
        forbidden = 1 - allowed(stages["guide"], stages["picture"])
        losses["mask"] = w.mask * (layers[:, 8:] * forbidden).mean()
        losses["shade"] = w.shade * (layers[:, :3].abs() * forbidden).mean()
        losses["flow"] = w.flow * flow.abs().mean() * 10
        smooth = (flow[..., 1:] - flow[..., :-1]).abs().mean() + (
            flow[..., 1:, :] - flow[..., :-1, :]
        ).abs().mean()
        losses["flow_smooth"] = w.flow_smooth * smooth * 64
        crops = {name: self._crop(name, made, lesson) for name in ("mouth", "eyes")}
        for name, (ours, real, weight) in crops.items():
            losses[name] = (w.mouth if name == "mouth" else w.eyes) * ((ours - real).abs() * weight).mean()
        if judges.perceptual is not None and lesson.step >= w.perceptual_from:
            rows = terms.PERCEPTUAL_ROWS
            sharp = lesson.sharpness[:rows]
            losses["perceptual"] = w.perceptual * (sharp * judges.distance(shown[:rows], truth[:rows])).mean()
            for name, (ours, real, weight) in crops.items():
                if name == "eyes":  # one eye at a time
                    ours, real, weight = (x[lesson.step % 2 :: 2] for x in (ours, real, weight))
                fake = _framed(ours[:rows], real[:rows], weight[:rows])
                losses[f"{name}_perceptual"] = (
                    w.perceptual_crops * (sharp * judges.distance(fake, real[:rows])).mean()
                )
        return losses

    @staticmethod
    def _crop(name: str, made: Made, lesson: Lesson) -> tuple[Tensor, Tensor, Tensor]:
        """(ours, the true crop, how much each place counts)."""
        ours, place = made.stages[name], made.stages[f"{name}_place"]
        real = lesson.truth.crop(place, Size(ours.shape[3], ours.shape[2]))[:, :3]
        return ours, real, made.stages[f"{name}_alpha"] * _soft(ours)

    def discriminators(self) -> dict[str, nn.Module]:
        return {"mouth": PatchDiscriminator(), "eyes": PatchDiscriminator()}

    def shown(self, made: Made, lesson: Lesson) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if lesson.step < self.weights.adversarial_from:
            return {}, {}
        crops = {name: self._crop(name, made, lesson) for name in ("mouth", "eyes")}
        fakes = {name: _framed(*crop) for name, crop in crops.items()}
        return fakes, {name: real for name, (_, real, _) in crops.items()}

    def figures(self, networks: nn.Module, lesson: Lesson, judges: Judges) -> dict[str, Tensor]:
        """As the blueprint's, with mouth and eyes; the base is the geometric picture."""
        made = self.make(networks, lesson.scene)
        truth = lesson.truth_at(self.window)
        found: dict[str, Tensor] = {}
        for end, rgba in (("", made.rgba.clamp(0, 1)), ("_base", made.stages["picture"])):
            picture = lesson.over(rgba)
            found[f"l1{end}"] = (picture - truth).abs().mean((1, 2, 3))
            found[f"db{end}"] = terms.minus_psnr(picture, truth)
            if judges.perceptual is not None:
                found[f"lpips{end}"] = judges.distance(picture, truth)
            for name in ("mouth", "eyes"):
                ours, real, weight = self._crop(name, made, lesson)
                ours = ours if not end else made.stages[f"{name}_crop"]
                rows = len(truth)
                off = ((ours - real).abs() * weight).reshape(rows, -1).sum(1)
                found[name + end] = off / (3 * weight.reshape(rows, -1).sum(1)).clamp_min(1e-6)
        return found

    def grid(self, networks: nn.Module, lesson: Lesson) -> list[Tensor]:
        made = self.make(networks, lesson.scene)
        s = made.stages
        flow = coloured(F.interpolate(s["flow"], scale_factor=2.0, mode="bilinear"), 6)
        mouth, eyes = (self._crop(n, made, lesson) for n in ("mouth", "eyes"))
        return [
            lesson.photo_over(self.window), lesson.over(s["picture"]), lesson.over(made.rgba),
            lesson.truth_at(self.window), flow,
            s["layers"][:, 8:].expand(-1, 3, -1, -1), s["layers"][:, :3] * 2 + 0.5,
            s["mouth_crop"], mouth[0], mouth[1], s["eyes_crop"][::2], eyes[0][::2], eyes[1][::2],
        ]  # fmt: skip

    # --- how it serves --------------------------------------------------------------------------------

    def served(self, networks: nn.Module) -> Sequence[Served]:
        assert isinstance(networks, VisavisNetworks)
        head, paths = ServedHead(networks.head).eval(), ServedPaths(networks.paths).eval()
        return [Served("head", head, head_example(networks.config)), Served("paths", paths, paths_example())]

    def feature_shapes(self, networks: nn.Module) -> list[tuple[int, ...]]:
        return [(self.config.features, WHERE_PX, WHERE_PX)]


def head_example(config: NetworkConfig) -> tuple[Tensor, ...]:
    """Inputs of the head network, zeros."""
    return (
        torch.zeros(1, 4, WINDOW_PX, WINDOW_PX),
        torch.zeros(1, inputs.GUIDE_CHANNELS, WINDOW_PX, WINDOW_PX),
        torch.zeros(1, WHERE_PX, WHERE_PX, 2),
        torch.zeros(1, config.features, WHERE_PX, WHERE_PX),
        torch.zeros(1, inputs.MOTION_SIZE),
    )


def paths_example() -> tuple[Tensor, ...]:
    """Inputs of the paths, zeros: one mouth, two eyes."""
    mouth, eyes = (1, 3, MOUTH_PX, MOUTH_PX), (2, 3, EYE_PX, EYE_PX)
    return (
        torch.zeros(mouth),
        torch.zeros(mouth),
        torch.zeros(1, inputs.MOUTH_GUIDE_CHANNELS, MOUTH_PX, MOUTH_PX),
        torch.zeros(1, inputs.MOTION_SIZE),
        torch.zeros(eyes),
        torch.zeros(eyes),
        torch.zeros(2, inputs.EYE_GUIDE_CHANNELS, EYE_PX, EYE_PX),
        torch.zeros(2, inputs.MOTION_SIZE),
    )


def allowed(guide: Tensor, picture: Tensor) -> Tensor:
    """(B, 1, 128, 128) 0 … 1: where synthesis is welcome."""
    covered = guide[:, 3:6].amax(1, keepdim=True).gt(0).float()
    hidden = covered * (1 - guide[:, 6:7])
    inside = guide[:, 8:9] + guide[:, 9:10]  # eyes and mouth
    alpha = picture[:, 3:]
    rim = (_widened(alpha) + _widened(-alpha)).clamp(0, 1)
    free = _widened(torch.maximum(torch.maximum(hidden, inside), rim))
    return F.avg_pool2d(free, 5, 1, 2, count_include_pad=False).clamp(0, 1)


def _widened(x: Tensor) -> Tensor:
    """The most of 5 × 5 places around each; one direction after the other, ten times as quick as `max_pool2d`."""
    for dim in (2, 3):
        beyond = F.pad(x, (0, 0, 2, 2) if dim == 2 else (2, 2, 0, 0), value=-torch.inf)
        count = x.shape[dim]
        x = beyond.narrow(dim, 0, count)
        for k in range(1, 5):
            x = torch.maximum(x, beyond.narrow(dim, k, count))
    return x


def _completed(both: Tensor, crop: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """A crop with the head network's flow and layers at its place: as the paths will find it. And its alpha."""
    size = Size(crop.shape[-1], crop.shape[-1])
    found = F.grid_sample(both, places(place, size), "bilinear", "border", align_corners=False)
    # D is told in the window: into the crop's own shares, by the inverse of a turn and a size
    across, down = place[:, :, 0], place[:, :, 1]
    flow = torch.stack(
        [
            (found[:, :2] * (axis / axis.square().sum(1, keepdim=True))[:, :, None, None]).sum(1)
            for axis in (across, down)
        ], 1,
    )  # fmt: skip
    moved = warped(crop, flow)
    layers = found[:, 2:11]
    rgb = torch.cat([layers[:, 0:3], layers[:, 4:7], layers[:, 8:9]], 1)
    return apply_layers(moved, rgb).clamp(0, 1), found[:, 11:12].clamp(0, 1)


def _framed(fake: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """What a path does not paint is taken as true: only what it paints counts."""
    soft = weight.clamp(0, 1)
    return fake * soft + truth * (1 - soft)


def _soft(x: Tensor) -> Tensor:
    return _soft_window(x.shape[-1], x.device)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # else training could not use it afterwards
def _soft_window(size: int, device: torch.device) -> Tensor:
    return soft_window(size).to(device)


def _beside(picture: Picture) -> Picture:
    """The photo with its own background: mouth and eyes as it shows them."""
    return replace(picture, alpha="beside")
