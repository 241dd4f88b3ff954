"""`Blueprint`: all that there is to know of one generator's networks, told once.

Training, pairs, evaluation, export and the generator that serves are made from it; `engines.generators.registry`
says by which name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.compile.network import Network
from engines.compile.weights import NetworkKind, WeightsHeader, build_network
from engines.generators.networked import terms
from engines.generators.networked.discriminators import folded
from engines.generators.networked.lesson import Judges, Lesson, Outcome, Teaching
from engines.generators.networked.parts import parts_l1
from engines.generators.networked.picture import Size
from engines.generators.networked.scene import Scene
from engines.generators.networked.surface import HeadTables
from engines.generators.weights_file import weights_file
from engines.head.model import load_head_model

Config = TypeVar("Config")


@dataclass(frozen=True, slots=True)
class Made:
    """What networks draw of a batch, in the window.

    - `rgba` (B, 4, h, w): the person, premultiplied, 0 … 1.
    - `flow` (B, 2, h', w'), of a generator that warps: where each place comes from in the photo minus where it is,
      in shares of the window's width and height. With it the picture is as sharp as the photo.
    - `stages`: whatever else losses or people want to look at.
    """

    rgba: Tensor
    flow: Tensor | None = None
    stages: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


@dataclass(frozen=True, slots=True)
class Served:
    """A module that an engine runs in each frame, and inputs as it gets them."""

    name: str
    module: nn.Module
    example: tuple[Tensor, ...]


class Blueprint(ABC, Generic[Config]):
    """One generator. A subclass names its `kind` and sizes and brings networks, inputs and losses.

    - `kind`: the name, the version of weights and inputs.
    - `config_type`: a frozen dataclass of widths, per level; `weights` files keep it.
    - `window`: what the networks draw, in pixels; `raster`: the grid on which the head is rasterised there, where it
      is not the window's own; such a generator has one size.
    - `step_px`, `least_px`: other heights of the window are multiples of the one, at least the other.
    - `past`, `ahead`: moments of motion before and after the one to draw.
    - `base`: the generator whose picture its networks complete, if any; then pairs carry that picture.
    - `switches`: parts that can be left out; `without` says which are.
    - `eight_bits`: modules of `networks` that may count in eight bits: they draw each frame, and move nothing, for a
      flow that is rounded moves edges.
    - `laid`: the stages that the photo warped stands in. Over it, and so in them and in the picture, lies what shows
      between lids and lips (`openings`); none of a generator that draws that by itself.
    - `parts`: how much mouth and eyes count beside its losses (`parts_l1`).
    - `teaching`: how discriminators learn and what they count.
    - `teacher`: the recognition net that it learns from where a training has one (`Judges.describe`); then another must
      judge it.
    """

    kind: ClassVar[NetworkKind]
    config_type: ClassVar[type[Any]]
    window: Size = Size(256, 256)
    raster: ClassVar[Size | None] = None
    step_px: ClassVar[int] = 1
    least_px: ClassVar[int] = 16
    past: ClassVar[int] = 0
    ahead: ClassVar[int] = 0
    base: ClassVar[Literal["geometric"] | None] = None
    switches: ClassVar[tuple[str, ...]] = ()
    eight_bits: ClassVar[tuple[str, ...]] = ()
    laid: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[float] = 0.0
    teaching: ClassVar[Teaching] = Teaching()
    teacher: ClassVar[str | None] = None

    def __init__(
        self, config: Config | None = None, without: Collection[str] = (), height_px: int | None = None
    ) -> None:
        """`without`: switches; `height_px`: of the window, for small trainings. Raises ValueError."""
        unknown = sorted(set(without) - set(self.switches))
        if unknown:
            raise ValueError(f"{self.kind.name} has no part {', '.join(unknown)} to leave out")
        if self.window.width_px > self.window.height_px:
            raise ValueError(
                f"{self.kind.name}'s window is wider than high; pairs hold the head's square alone"
            )
        self.config: Config = self.config_type() if config is None else config
        self.without = frozenset(without)
        if height_px is not None and height_px != self.window.height_px:
            if self.raster is not None:
                raise ValueError(
                    f"{self.kind.name} has one size, {self.window.height_px} px; leave the size out"
                )
            if height_px < self.least_px or height_px % self.step_px:
                raise ValueError(
                    f"{self.kind.name}'s window is a multiple of {self.step_px} px high, {self.least_px} or more; "
                    f"{height_px} px is not"
                )
            width_px = round(height_px * self.window.width_px / self.window.height_px)
            self.window = Size(width_px, height_px)

    @classmethod
    def weights_path(cls) -> Path:
        """Where the weights that ship lie."""
        return weights_file(cls.kind.name)

    @classmethod
    def width_one(cls) -> Blueprint[Config] | None:
        """As large as its paper has it, to compare what it costs; None of a generator without a paper."""
        return None

    def raster_size(self) -> Size:
        """The grid on which the head is rasterised."""
        return self.raster or self.window

    def config_dict(self) -> dict[str, Any]:
        """The configuration as a weights file keeps it."""
        assert is_dataclass(self.config)
        assert not isinstance(self.config, type)
        return asdict(self.config)

    # --- what it is -----------------------------------------------------------------------------------

    @abstractmethod
    def networks(self) -> nn.Module:
        """Fresh networks, from torch's current seed; called as `draw` says."""

    @abstractmethod
    def inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        """What the networks see of each frame; of `networks` only what they learn beside the head, such as codes."""

    def photo_inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        """What `encode` sees, once a photo; nothing for networks without an encoder."""
        return ()

    def encode(self, networks: nn.Module, photo: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the networks make of a photo once: features, kept in the avatar."""
        return ()

    def draw(self, networks: nn.Module, inputs: tuple[Tensor, ...], features: tuple[Tensor, ...]) -> Made:
        """A frame. By default the networks are called with inputs and features and give `rgba`, or that and `flow`."""
        found = networks(*inputs, *features)
        return Made(found) if isinstance(found, Tensor) else Made(*found)

    # --- how it learns --------------------------------------------------------------------------------

    @abstractmethod
    def losses(self, made: Made, lesson: Lesson, judges: Judges) -> dict[str, Tensor]:
        """Weighted losses by name, whose sum is made less."""

    def outcome(self, networks: nn.Module, lesson: Lesson, judges: Judges) -> Outcome:
        """Forward and losses of a batch. Ours in every paper: what is drawn beyond 0 … 1, which a call cuts off, counts
        as `range`, and mouth and eyes count once more as `parts`."""
        made = self.taught(networks, lesson)
        losses = {"range": terms.out_of_range(made.rgba).mean(), **self.losses(made, lesson, judges)}
        if self.parts:
            shown = lesson.over(made.rgba)
            off = parts_l1(lesson.scene, shown, lesson.truth_at(Size(shown.shape[3], shown.shape[2])))
            losses["parts"] = self.parts * off.mean()
        return Outcome(losses, *self.shown(made, lesson))

    def taught(self, networks: nn.Module, lesson: Lesson) -> Made:
        """A frame as losses want it, where they look at more than the frame."""
        return self.make(networks, lesson.scene)

    def make(self, networks: nn.Module, scene: Scene) -> Made:
        """Encoder and frame in one, as training wants them."""
        features = self.encode(networks, self.photo_inputs(networks, scene))
        return self._laid(self.draw(networks, self.inputs(networks, scene), features), scene)

    def moved(self, scene: Scene, flow: Tensor) -> Tensor:
        """(B, 4, h, w): the photo warped, and what shows between lids and lips over it, as `Paste.draw_warped`."""
        found = warped(scene.photo_at(self.window), flow)
        if not self.laid or scene.openings is None:
            return found
        return laid_over(found, scene.openings.at(self.window))

    def _laid(self, made: Made, scene: Scene) -> Made:
        if not self.laid or made.flow is None:
            return made
        more = self.moved(scene, made.flow) - warped(scene.photo_at(self.window), made.flow)
        stages = {name: x + more if name in self.laid else x for name, x in made.stages.items()}
        return Made(made.rgba + more, made.flow, stages)

    def looks_back(self) -> bool:
        """Whether it learns from the way back too: `Lesson.back`."""
        return False

    def phase(self, step: int) -> Hashable:
        """Which losses are on at a step: within a phase each step does the same."""
        return None

    def discriminators(self) -> dict[str, nn.Module]:
        """Fresh discriminators by the name of what they tell real from made; none by default."""
        return {}

    def shown(self, made: Made, lesson: Lesson) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(fakes, reals) by the discriminators' names."""
        return {}, {}

    def figures(self, networks: nn.Module, lesson: Lesson, judges: Judges) -> dict[str, Tensor]:
        """(B,) figures of each row, lower is better, in pairs `x` of ours and `x_base` of the photo unmoved."""
        ours, size = lesson.over(self.make(networks, lesson.scene).rgba), self.window
        truth, still = lesson.truth_at(size), lesson.photo_over(size)
        found: dict[str, Tensor] = {}
        for end, picture in (("", ours), ("_base", still)):
            found[f"l1{end}"] = (picture - truth).abs().mean((1, 2, 3))
            found[f"db{end}"] = terms.minus_psnr(picture, truth)
        if judges.perceptual is not None:
            for name, picture in (("lpips", ours), ("lpips_base", still)):
                found[name] = judges.distance(picture, truth)
        return found

    def grid(self, networks: nn.Module, lesson: Lesson) -> list[Tensor]:
        """Columns (B, 3, h, w) for people to look at: photo, ours, truth."""
        made = self.make(networks, lesson.scene)
        return [lesson.photo_over(self.window), lesson.over(made.rgba), lesson.truth_at(self.window)]

    # --- how it serves --------------------------------------------------------------------------------

    def served(self, networks: nn.Module) -> Sequence[Served]:
        """The modules of a frame. By default one: `ServedWindow`."""
        scene = self.example()
        with torch.no_grad():
            features = self.encode(networks, self.photo_inputs(networks, scene))
            inputs = self.inputs(networks, scene)
        module = ServedWindow(self, networks, len(inputs)).eval()
        photo = scene.photo_at(self.window)
        return [Served("window", module, (photo, *inputs, *features))]

    def compiled(self, networks: nn.Module, weights: str) -> list[Network]:
        """What is served, as engines take it; `weights`: the digest of `networks`'."""
        name, kinds = self.kind.name, type(self).__mro__
        return [
            Network.of(f"{name}-{s.name}", s.module, s.example, weights, kinds, self.without)
            for s in self.served(networks)
        ]

    def feature_shapes(self, networks: nn.Module) -> list[tuple[int, ...]]:
        """Of what `encode` gives of one photo, without the batch."""
        with torch.no_grad():
            found = self.encode(networks, self.photo_inputs(networks, self.example()))
        return [tuple(f.shape[1:]) for f in found]

    def example(self) -> Scene:
        """A scene of nothing, for shapes."""
        return Scene.empty(
            HeadTables.of(load_head_model()), self.raster_size(), self.past + 1 + self.ahead, self.past
        )


class ServedWindow(nn.Module):
    """A frame as an engine runs it: (photo, *inputs, *features) → `rgba`, or of a generator that warps
    (`difference`, `flow`): what the networks draw minus the photo warped, which is put on the photo warped at full
    resolution."""

    def __init__(self, blueprint: Blueprint[Any], networks: nn.Module, inputs: int) -> None:
        super().__init__()
        self.networks = networks
        self._draw: Callable[..., Made] = blueprint.draw
        self._inputs = inputs

    def forward(self, photo: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        made = self._draw(self.networks, given[: self._inputs], given[self._inputs :])
        if made.flow is None:
            return (made.rgba.clamp(0, 1),)
        return made.rgba.clamp(0, 1) - warped(photo, made.flow), made.flow


def warped(picture: Tensor, flow: Tensor) -> Tensor:
    """`P(x + F(x))` (B, C, h, w) by flow (B, 2, h', w') in shares of the picture's sides."""
    height, width = picture.shape[2:]
    flow = nn.functional.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
    # no `affine_grid`: not every engine has it
    x = ((torch.arange(width, device=flow.device) + 0.5) * (2 / width) - 1).to(flow.dtype)
    y = ((torch.arange(height, device=flow.device) + 0.5) * (2 / height) - 1).to(flow.dtype)
    own = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)
    where = own + 2 * flow.permute(0, 2, 3, 1)
    return nn.functional.grid_sample(picture, where, "bilinear", "border", align_corners=False)


def laid_over(picture: Tensor, openings: Tensor) -> Tensor:
    """`openings` (B, 4, h, w), premultiplied, over the person (B, 4, h, w)."""
    return picture * (1 - openings[:, 3:]) + openings


B = TypeVar("B", bound=Blueprint[Any])


def load_networks(
    blueprint: type[B], weights: Path, without: Collection[str] = ()
) -> tuple[B, nn.Module, str]:
    """(blueprint as the file configures it, its networks, digest of the weights). Raises WeightsError.

    Parts that were left out in training stay left out; `without` leaves out more.
    """
    made: list[B] = []

    def build(tensors: dict[str, NDArray[np.float32]], header: WeightsHeader) -> nn.Module:
        config = config_of(blueprint.config_type, header.config)
        parts = {*without, *header.notes.get("without", ())}
        made.append(blueprint(config, parts, header.notes.get("height_px")))
        nets = folded(made[-1].networks())  # as they were saved
        nets.load_state_dict({name: torch.from_numpy(t) for name, t in tensors.items()})
        return nets

    nets, header = build_network(weights, blueprint.kind, build)
    return made[-1], nets.eval(), header.sha256


def config_of(config_type: type[Any], told: Mapping[str, Any]) -> Any:
    """A configuration as a weights file keeps it, or as a command line gives it."""
    known = {f.name for f in fields(config_type)}
    return config_type(**{k: tuple(v) if isinstance(v, list) else v for k, v in told.items() if k in known})
