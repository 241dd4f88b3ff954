"""Training of the `visavis` generator: head window, mouth and eyes, each against the true frame."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from engines.generators.visavis import inputs
from engines.generators.visavis.networks import (
    VisavisNetworks,
    apply_layers,
    soft_window,
)
from scripts.evaluation.perceptual import PerceptualFeatures, perceptual_distance
from scripts.generators.data import Pairs, gather
from scripts.generators.task import Batch, GeneratorTask, Outcome, Teaching

U8 = NDArray[np.uint8]


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
    adversarial: float = 0.01
    adversarial_from: int = 8000  # once shapes are right: earlier it draws teeth that are not there
    adversarial_alone: int = 500  # steps in which the discriminators learn before they count
    features: float = 0.02  # matching of discriminator features
    flow: float = 0.02
    flow_smooth: float = 0.05
    mask: float = 0.02
    shade: float = 0.02


PERCEPTUAL_ROWS = 4  # of each batch: the perceptual network costs more than all of ours
GAIN, OFFSET = 0.12, 0.04


class VisavisTask(GeneratorTask):
    """See the module."""

    name = "visavis"

    def __init__(self, weights: LossWeights | None = None, device: torch.device | None = None) -> None:
        self.weights = weights or LossWeights()
        self.adversarial, self.matching = self.weights.adversarial, self.weights.features
        self.teaching = Teaching(counts_from=self.weights.adversarial_from + self.weights.adversarial_alone)
        self.device = device or torch.device("cpu")
        self._perceptual = PerceptualFeatures(4).to(self.device) if self.weights.perceptual else None
        self._soft = {s: soft_window(s).to(self.device) for s in (inputs.MOUTH_PX, inputs.EYE_PX)}

    def networks(self) -> VisavisNetworks:
        return VisavisNetworks()

    def discriminators(self) -> dict[str, nn.Module]:
        return {"mouth": Discriminator(), "eyes": Discriminator()}

    def phase(self, step: int) -> Hashable:
        w = self.weights
        return step >= w.perceptual_from, step >= w.adversarial_from, step % 2  # one eye at a time

    # --- batches --------------------------------------------------------------------------------------

    def batch(self, pairs: Pairs, rows: NDArray[np.int64], rng: np.random.Generator | None) -> Batch:
        arrays = gather(pairs, rows)
        count = len(rows)
        flip = np.zeros(count, bool) if rng is None else rng.random(count) < 0.5
        gain = np.ones((count, 3), np.float32)
        offset = np.zeros((count, 3), np.float32)
        if rng is not None:
            gain += rng.uniform(-GAIN, GAIN, (count, 1)) + rng.uniform(-GAIN / 2, GAIN / 2, (count, 3))
            offset += rng.uniform(-OFFSET, OFFSET, (count, 1))

        def colour(x: NDArray[Any], alpha: NDArray[Any] | None = None) -> NDArray[Any]:
            """(n, …, 3) uint8 → 0 … 1 with this batch's colours; premultiplied by `alpha`."""
            shape = (count, *[1] * (x.ndim - 2), 3)
            values = x.astype(np.float32) / 255
            shift = offset.reshape(shape) if alpha is None else offset.reshape(shape) * alpha
            return np.clip(values * gain.reshape(shape) + shift, 0, 1)

        def picture(x: NDArray[Any]) -> NDArray[Any]:
            alpha = x[..., 3:4].astype(np.float32) / 255
            return np.concatenate([np.minimum(colour(x[..., :3], alpha), alpha), alpha], -1)

        def first(x: NDArray[Any]) -> Tensor:
            """(n, …, h, w, c) → (n, …, c, h, w), mirrored where this batch says so."""
            x = np.where(flip.reshape(-1, *[1] * (x.ndim - 1)), x[..., ::-1, :], x)
            return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, -3)))

        photo = arrays["s_photo"]
        pncc = photo[..., 4:7].astype(np.float32) / 255
        guide = arrays["t_guide"].astype(np.float32) / 255
        covered = (arrays["t_part"] > 0)[..., None]
        skin, eye, mouth = inputs.one_hot(arrays["t_part"])
        guide = np.concatenate(
            [colour(arrays["t_guide"][..., :3]) * covered, guide[..., 3:], np.stack([skin, eye, mouth], -1)],
            -1,
        ).astype(np.float32)
        photo_in = np.concatenate([picture(photo[..., :4]), pncc], -1)
        where = arrays["t_where"].astype(np.float32)
        motion = arrays["t_motion"].astype(np.float32)
        for row in np.flatnonzero(flip):
            motion[row] = inputs.mirror_motion(motion[row])
            where[row] = where[row][:, ::-1] * np.array([-1, 1], np.float32)
            # PNCC's x runs across the head
            for block, first_channel in ((guide, 3), (photo_in, 4)):
                x = block[row, ..., first_channel]
                block[row, ..., first_channel] = np.where(x > 0, 1 - x, 0)
        mouth_parts, eye_parts = arrays["t_mouth_part"], arrays["t_eyes_part"]
        out = {
            "photo": first(photo_in),
            "background": first(colour(arrays["s_background"])),
            "picture": first(picture(arrays["t_picture"])),
            "truth": first(colour(arrays["t_truth"])),
            "matte": first(arrays["t_matte"][..., None].astype(np.float32) / 255),
            "guide": first(guide),
            "where": torch.from_numpy(where),
            "motion": torch.from_numpy(motion),
            "sharpness": torch.from_numpy(arrays["sharpness"].astype(np.float32)),
            "mouth": first(colour(arrays["t_mouth_picture"])),
            "mouth_photo": first(colour(arrays["s_mouth"])),
            "mouth_truth": first(colour(arrays["t_mouth_truth"])),
            "mouth_guide": first(inputs.mouth_guide(mouth_parts)),
            "mouth_place": self._place(arrays["t_mouth_place"], flip),
        }
        # eyes: right eyes, and left ones mirrored; in a mirrored picture they change places, not looks
        order = np.where(flip[:, None], [1, 0], [0, 1])
        picks = np.arange(count)[:, None], order
        for name, values in (
            ("eyes", colour(arrays["t_eyes_picture"])),
            ("eyes_photo", colour(arrays["s_eyes"])),
            ("eyes_truth", colour(arrays["t_eyes_truth"])),
            ("eyes_guide", inputs.eye_guide(eye_parts)),
        ):
            x = values[picks]
            out[name] = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, -3)))
        place = arrays["t_eyes_place"].copy()
        place[flip] = place[flip] * np.array([[-1], [1]], np.float32)
        out["eyes_place"] = torch.from_numpy(np.ascontiguousarray(place[picks]))
        # the left eye is shown mirrored, so its motion is too
        out["eyes_motion"] = torch.from_numpy(
            np.stack([motion, np.stack([inputs.mirror_motion(m) for m in motion])], 1)
        )
        return out

    @staticmethod
    def _place(place: NDArray[Any], flip: NDArray[np.bool_]) -> Tensor:
        """(n, 2, 3): the crop itself is mirrored along with the picture."""
        out = place.astype(np.float32).copy()
        out[flip] = out[flip] * np.array([[-1], [1]], np.float32) * np.array([-1, 1, 1], np.float32)
        return torch.from_numpy(out)

    # --- forward --------------------------------------------------------------------------------------

    def forward(self, networks: VisavisNetworks, batch: Batch) -> dict[str, Tensor]:
        """Everything that losses look at: `head` RGBA, `flow`, `layers`, `mouth`, `eyes` RGB and their alphas."""
        features = networks.encoder(batch["photo"])
        flow, layers = networks.head(
            batch["picture"], batch["guide"], batch["where"], features, batch["motion"]
        )
        flow, layers = flow.float(), layers.float()
        flow128 = F.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=False)
        moved = warp(batch["picture"], flow128)
        head = apply_layers(moved, layers)
        # mouth and eyes pull at the head's flow and layers too: at their own finer scale
        both = torch.cat([flow128, layers, head[:, 3:].detach()], 1)
        mouth, mouth_alpha = self._complete(both, batch["mouth"], batch["mouth_place"])
        count, size = len(mouth), inputs.EYE_PX
        eyes_place = batch["eyes_place"].flatten(0, 1)
        eyes, eyes_alpha = self._complete(
            both.repeat_interleave(2, 0), batch["eyes"].flatten(0, 1), eyes_place
        )
        mouth_layers = networks.paths.mouth(
            mouth, batch["mouth_photo"], batch["mouth_guide"], batch["motion"]
        )
        eye_layers = networks.paths.eye(
            eyes,
            batch["eyes_photo"].flatten(0, 1),
            batch["eyes_guide"].flatten(0, 1),
            batch["eyes_motion"].flatten(0, 1),
        )
        return {
            "head": head, "flow": flow, "layers": layers,
            "mouth": apply_layers(mouth, mouth_layers.float() * self._soft[inputs.MOUTH_PX]),
            "mouth_before": mouth, "mouth_alpha": mouth_alpha,
            "eyes": apply_layers(eyes, eye_layers.float() * self._soft[size]).reshape(count, 2, 3, size, size),
            "eyes_before": eyes.reshape(count, 2, 3, size, size),
            "eyes_alpha": eyes_alpha.reshape(count, 2, 1, size, size),
            "mouth_layers": mouth_layers.float(), "eye_layers": eye_layers.float(),
        }  # fmt: skip

    def _complete(self, both: Tensor, crop: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """A crop with the head network's flow and layers at its place: as the paths will find it. And its alpha."""
        size = crop.shape[-1]
        grid = F.affine_grid(place, [len(crop), 1, size, size], align_corners=False)
        found = F.grid_sample(both, grid, "bilinear", "border", align_corners=False)
        # D is told in the window: into the crop's own −1 … 1
        step = torch.einsum("nij,njhw->nhwi", _inverse(place[:, :, :2]), found[:, :2] * 2)
        own = F.affine_grid(
            torch.eye(2, 3, device=crop.device).expand(len(crop), 2, 3),
            [len(crop), 1, size, size],
            align_corners=False,
        )
        moved = F.grid_sample(crop, own + step, "bilinear", "border", align_corners=False)
        layers = found[:, 2:11]
        rgb = torch.cat([layers[:, 0:3], layers[:, 4:7], layers[:, 8:9]], 1)
        return apply_layers(moved, rgb).clamp(0, 1), found[:, 11:12].clamp(0, 1)

    # --- losses ---------------------------------------------------------------------------------------

    def outcome(self, networks: nn.Module, batch: Batch, step: int) -> Outcome:
        assert isinstance(networks, VisavisNetworks)
        w = self.weights
        with torch.autocast(self.device.type, torch.bfloat16):
            out = self.forward(networks, batch)
        head, flow, layers = out["head"], out["flow"], out["layers"]
        shown = head[:, :3] + (1 - head[:, 3:]) * batch["background"]
        truth, matte = batch["truth"], batch["matte"]
        covered = batch["guide"][:, 3:6].amax(1, keepdim=True).gt(0).float()
        weight = 1 + 2 * covered
        losses = {"l1": w.l1 * (weight * (shown - truth).abs()).mean()}
        small, small_truth = shown, truth
        for scale in (2, 4):
            small, small_truth = F.avg_pool2d(small, 2), F.avg_pool2d(small_truth, 2)
            losses[f"l1_{scale}"] = w.l1 * 0.5 * (small - small_truth).abs().mean()
        losses["matte"] = w.matte * (head[:, 3:] - matte).abs().mean()
        losses["range"] = (F.relu(head - 1) + F.relu(-head)).mean()
        # where the photo shows the place, no synthesis: outside mouth, lids, what it hides and the rim
        allowed = self._allowed(batch)
        losses["mask"] = w.mask * (layers[:, 8:] * (1 - allowed)).mean()
        losses["shade"] = w.shade * (layers[:, :3].abs() * (1 - allowed)).mean()
        losses["flow"] = w.flow * flow.abs().mean() * 10
        smooth = (flow[..., 1:] - flow[..., :-1]).abs().mean() + (
            flow[..., 1:, :] - flow[..., :-1, :]
        ).abs().mean()
        losses["flow_smooth"] = w.flow_smooth * smooth * 64
        mouth_weight = out["mouth_alpha"] * self._soft[inputs.MOUTH_PX]
        losses["mouth"] = w.mouth * ((out["mouth"] - batch["mouth_truth"]).abs() * mouth_weight).mean()
        eyes_weight = out["eyes_alpha"] * self._soft[inputs.EYE_PX]
        losses["eyes"] = w.eyes * ((out["eyes"] - batch["eyes_truth"]).abs() * eyes_weight).mean()
        if self._perceptual is not None and step >= w.perceptual_from:
            rows = min(PERCEPTUAL_ROWS, len(shown))
            sharp = batch["sharpness"][:rows]
            losses["perceptual"] = w.perceptual * (sharp * self._distance(shown[:rows], truth[:rows])).mean()
            fake = self._framed(out["mouth"][:rows], batch["mouth_truth"][:rows], mouth_weight[:rows])
            losses["mouth_perceptual"] = (
                w.perceptual_crops * (sharp * self._distance(fake, batch["mouth_truth"][:rows])).mean()
            )
            side = step % 2  # one eye at a time
            fake = self._framed(
                out["eyes"][:rows, side], batch["eyes_truth"][:rows, side], eyes_weight[:rows, side]
            )
            losses["eyes_perceptual"] = (
                w.perceptual_crops * (sharp * self._distance(fake, batch["eyes_truth"][:rows, side])).mean()
            )
        fakes: dict[str, Tensor] = {}
        reals: dict[str, Tensor] = {}
        if step >= w.adversarial_from:
            fakes = {
                "mouth": self._framed(out["mouth"], batch["mouth_truth"], mouth_weight),
                "eyes": self._framed(out["eyes"], batch["eyes_truth"], eyes_weight).flatten(0, 1),
            }
            reals = {"mouth": batch["mouth_truth"], "eyes": batch["eyes_truth"].flatten(0, 1)}
        return Outcome(losses, fakes, reals)

    @staticmethod
    def _framed(fake: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """What a path does not paint is taken as true: only what it paints counts."""
        soft = weight.clamp(0, 1)
        return fake * soft + truth * (1 - soft)

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        assert self._perceptual is not None
        with torch.no_grad():
            wanted = self._perceptual(b)
        return perceptual_distance(self._perceptual(a.clamp(0, 1)), wanted)

    @staticmethod
    def _allowed(batch: Batch) -> Tensor:
        """(B, 1, 128, 128) 0 … 1: where synthesis is welcome."""
        guide = batch["guide"]
        covered = guide[:, 3:6].amax(1, keepdim=True).gt(0).float()
        hidden = covered * (1 - guide[:, 6:7])
        inside = guide[:, 8:9] + guide[:, 9:10]  # eyes and mouth
        alpha = batch["picture"][:, 3:]
        rim = (F.max_pool2d(alpha, 5, 1, 2) - -F.max_pool2d(-alpha, 5, 1, 2)).clamp(0, 1)
        free = F.max_pool2d(torch.maximum(torch.maximum(hidden, inside), rim), 5, 1, 2)
        return F.avg_pool2d(free, 5, 1, 2, count_include_pad=False).clamp(0, 1)

    # --- figures --------------------------------------------------------------------------------------

    @torch.no_grad()
    def figures(self, networks: nn.Module, batch: Batch) -> dict[str, NDArray[np.float64]]:
        assert isinstance(networks, VisavisNetworks)
        out = self.forward(networks, batch)
        shown = over(out["head"].clamp(0, 1), batch["background"])
        before = over(batch["picture"], batch["background"])
        truth = batch["truth"]
        soft = {"mouth": self._soft[inputs.MOUTH_PX], "eyes": self._soft[inputs.EYE_PX]}
        found: dict[str, Tensor] = {
            "l1": (shown - truth).abs().mean((1, 2, 3)), "l1_base": (before - truth).abs().mean((1, 2, 3)),
            "db": 10 * (shown - truth).square().mean((1, 2, 3)).clamp_min(1e-6).log10(),
            "db_base": 10 * (before - truth).square().mean((1, 2, 3)).clamp_min(1e-6).log10(),
        }  # fmt: skip
        for name in ("mouth", "eyes"):
            weight = out[f"{name}_alpha"] * soft[name]
            for key, image in ((name, out[name]), (f"{name}_base", batch[name])):
                off = ((image - batch[f"{name}_truth"]).abs() * weight).flatten(1).sum(1)
                found[key] = off / (3 * weight.flatten(1).sum(1)).clamp_min(1e-6)
        if self._perceptual is not None:
            found["lpips"] = self._distance(shown, truth)
            found["lpips_base"] = self._distance(before, truth)
        return {k: v.double().cpu().numpy() for k, v in found.items()}

    @torch.no_grad()
    def grid(self, networks: nn.Module, batch: Batch) -> U8:
        assert isinstance(networks, VisavisNetworks)
        out = self.forward(networks, batch)
        flow = F.interpolate(out["flow"], scale_factor=2.0, mode="bilinear")
        flow_picture = torch.cat([flow * 6 + 0.5, torch.full_like(flow[:, :1], 0.5)], 1)
        mask = out["layers"][:, 8:].expand(-1, 3, -1, -1)
        shade = out["layers"][:, :3] * 2 + 0.5
        columns = [
            over(batch["photo"][:, :4], batch["background"]), over(batch["picture"], batch["background"]),
            over(out["head"], batch["background"]), batch["truth"], flow_picture, mask, shade,
            batch["mouth"], out["mouth"], batch["mouth_truth"],
            batch["eyes"][:, 0], out["eyes"][:, 0], batch["eyes_truth"][:, 0],
        ]  # fmt: skip
        rows: list[U8] = []
        for k in range(len(batch["truth"])):
            tiles = [
                cv2.resize(
                    (c[k].clamp(0, 1).permute(1, 2, 0).cpu().numpy() * 255).astype(np.uint8), (128, 128)
                )
                for c in columns
            ]
            rows.append(np.asarray(np.hstack(tiles), np.uint8))
        return np.vstack(rows)


def _inverse(linear: Tensor) -> Tensor:
    """Of (B, 2, 2). Torch's waits for the device, to ask whether there is one."""
    a, b, c, d = linear.flatten(1).unbind(1)
    return torch.stack([d, -b, -c, a], 1).reshape(-1, 2, 2) / (a * d - b * c)[:, None, None]


def over(rgba: Tensor, background: Tensor) -> Tensor:
    """Premultiplied RGBA over a background."""
    return rgba[:, :3] + (1 - rgba[:, 3:]) * background


def warp(picture: Tensor, flow: Tensor) -> Tensor:
    """`P(x + D(x))`: picture (B, C, h, w) by flow (B, 2, h, w) in shares of the side."""
    size = [len(picture), 1, *picture.shape[2:]]
    eye = torch.eye(2, 3, device=picture.device).expand(len(picture), 2, 3)
    grid = F.affine_grid(eye, size, align_corners=False) + 2 * flow.permute(0, 2, 3, 1)
    return F.grid_sample(picture, grid, "bilinear", "border", align_corners=False)


class Discriminator(nn.Module):
    """Patches of a crop, real or made (paper 003's mouth discriminator; hinge loss). Gives its features as well."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        spectral = nn.utils.parametrizations.spectral_norm
        self.first = nn.Conv2d(3, width, 4, 2, 1)
        self.second = spectral(nn.Conv2d(width, width * 2, 4, 2, 1))
        self.third = spectral(nn.Conv2d(width * 2, width * 4, 3, 1, 1))
        self.last = nn.Conv2d(width * 4, 1, 3, 1, 1)

    def forward(self, crop: Tensor) -> tuple[Tensor, list[Tensor]]:
        a = F.leaky_relu(self.first(crop * 2 - 1), 0.2)
        b = F.leaky_relu(self.second(a), 0.2)
        c = F.leaky_relu(self.third(b), 0.2)
        return self.last(c), [a, b, c]
