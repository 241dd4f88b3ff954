"""Each generator's `Drawing`: what of it lies on a device, what is told of a frame, and how it is drawn there."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.compile.engine import private_copy
from engines.device.drawing import Draw
from engines.device.enrolled import head_of, person_of
from engines.device.geometric import draw_geometric
from engines.device.packet import Field, Told
from engines.device.rows import Rows
from engines.device.sizes import Head, Person, Sizes, grids
from engines.device.telling import Values, tell_geometric
from engines.device.telling_visavis import tell_visavis, visavis_person
from engines.device.telling_window import inputs_of, tell_window, window_person
from engines.device.visavis import VisavisNets, VisavisPerson, VisavisSizes, draw_visavis
from engines.device.window import WindowPerson, WindowSizes, draw_window
from engines.generators.geometric.generator import GeometricCache, GeometricGenerator
from engines.generators.networked.base import NetworkedGenerator
from engines.generators.networked.window import WindowCache, WindowGenerator
from engines.generators.visavis.generator import VisavisCache, VisavisGenerator
from engines.head.model import HeadModel
from engines.motion_descriptor import DESCRIPTOR_SIZE
from engines.motion_window import MotionWindow
from engines.raster.gbuffer import HeadMesh, Viewport

GeneratorT = TypeVar("GeneratorT")
CacheT = TypeVar("CacheT")


@dataclass(frozen=True, slots=True)
class Prepared(Generic[CacheT]):
    """A box of a frame, prepared: the generator's cache of it, its viewport in the frame's pixels and in the continued
    photo's (`there`), the window that is rasterised, if it has one, and the triangles that ever show."""

    cache: CacheT
    viewport: Viewport
    there: Viewport
    window: Viewport | None
    triangles: NDArray[np.intp]


class Twin(ABC, Generic[GeneratorT, CacheT]):
    """One generator's box of one frame on a device."""

    def __init__(
        self, generator: GeneratorT, model: HeadModel, prepared: Prepared[CacheT], device: torch.device
    ) -> None:
        """Raises MisfitError where it is larger than there is room."""
        self.generator, self.model, self.prepared, self.device = generator, model, prepared, device

    @property
    @abstractmethod
    def sizes(self) -> Any:
        """All that follows from the sizes of picture and window."""

    @property
    @abstractmethod
    def key(self) -> Hashable:
        """What two calls must have alike to be drawn at once."""

    @abstractmethod
    def person(self) -> Rows:
        """The call's row, on the CPU."""

    @abstractmethod
    def fields(self) -> list[Field]:
        """What is told of each frame."""

    @abstractmethod
    def draw(self) -> Draw:
        """The pure function."""

    @abstractmethod
    def tell(self, mesh: HeadMesh, motions: MotionWindow) -> Values:
        """A frame's values; `mesh` is told in the viewport's pixels. Raises MisfitError."""


class GeometricTwin(Twin[GeometricGenerator, GeometricCache]):
    """`geometric`."""

    @property
    def sizes(self) -> Sizes:
        return picture_sizes(self.prepared.viewport)

    @property
    def key(self) -> Hashable:
        return "geometric", self.model.name, self.model.vertex_count, self.sizes

    def person(self) -> Person:
        return person_of(self.prepared.cache, self.model, self.prepared.triangles, self.sizes)

    def fields(self) -> list[Field]:
        return self.sizes.fields(self.model.vertex_count)

    def draw(self) -> Draw:
        head, at = _head_on(self.model, self.device), grids(self.sizes, self.device)

        def draw(person: Person, told: Told) -> tuple[Tensor, Tensor]:
            drawn = draw_geometric(head, person, told, at)
            return drawn.picture, drawn.full

        return draw

    def tell(self, mesh: HeadMesh, motions: MotionWindow) -> Values:
        return tell_geometric(self.prepared.cache, mesh, motions.now, self.sizes)


class VisavisTwin(Twin[VisavisGenerator, VisavisCache]):
    """`visavis`."""

    @property
    def sizes(self) -> VisavisSizes:
        return VisavisSizes(picture_sizes(self.prepared.viewport))

    @property
    def key(self) -> Hashable:
        return self.generator.networks_key, self.sizes

    def person(self) -> VisavisPerson:
        return visavis_person(self.prepared.cache, self.model, self.prepared.triangles, self.sizes)

    def fields(self) -> list[Field]:
        return self.sizes.fields(self.model.vertex_count)

    def draw(self) -> Draw:
        head, sizes = _head_on(self.model, self.device), self.sizes
        networks = _networks_on(self.generator, self.device)
        at = grids(sizes.base, self.device)
        nets = VisavisNets(networks["head"], networks["paths"], self.generator.blueprint.without)

        def draw(person: VisavisPerson, told: Told) -> tuple[Tensor, Tensor]:
            return draw_visavis(head, nets, person, told, sizes, at)

        return draw

    def tell(self, mesh: HeadMesh, motions: MotionWindow) -> Values:
        return tell_visavis(self.prepared.cache, mesh, motions.now, self.sizes)


class WindowTwin(Twin[WindowGenerator, WindowCache]):
    """Any generator that is its blueprint alone."""

    @property
    def _window(self) -> Viewport:
        assert self.prepared.window is not None
        return self.prepared.window

    @property
    def sizes(self) -> WindowSizes:
        viewport, config = self.prepared.viewport, self.generator.config
        return WindowSizes(
            viewport.width_px, viewport.height_px, self._window.width_px, self._window.height_px,
            config.past + 1 + config.ahead, DESCRIPTOR_SIZE,
        )  # fmt: skip

    @property
    def key(self) -> Hashable:
        return self.generator.networks_key, self.sizes

    def person(self) -> WindowPerson:
        return window_person(self.prepared.cache, self.model, self.prepared.triangles, self.sizes)

    def fields(self) -> list[Field]:
        return self.sizes.fields(self.model.vertex_count)

    def draw(self) -> Draw:
        head, sizes = _head_on(self.model, self.device), self.sizes
        networks = _networks_on(self.generator, self.device)
        inputs = inputs_of(self.generator.blueprint, networks[""], self.model, self.device)
        network = networks["window"]

        def draw(person: WindowPerson, told: Told) -> tuple[Tensor, Tensor]:
            return draw_window(head.triangles, head.behind, inputs, network, person, told, sizes)

        return draw

    def tell(self, mesh: HeadMesh, motions: MotionWindow) -> Values:
        seen = mesh.seen_in(self.prepared.there, self._window)
        return tell_window(self.prepared.cache, seen, motions, self.sizes)


def twin_of(
    generator: object, model: HeadModel, prepared: Prepared[Any], device: torch.device
) -> Twin[Any, Any] | None:
    """A generator's twin; None: it has none, and is drawn on the CPU. Raises MisfitError."""
    for kind, twin in _TWINS.items():
        if type(generator) is kind:
            return twin(generator, model, prepared, device)
    return None


_TWINS: dict[type[Any], type[Twin[Any, Any]]] = {
    GeometricGenerator: GeometricTwin,
    VisavisGenerator: VisavisTwin,
    WindowGenerator: WindowTwin,
}


def picture_sizes(viewport: Viewport) -> Sizes:
    """Of a viewport."""
    return Sizes(viewport.width_px, viewport.height_px)


_kept_lock = threading.Lock()
_heads: dict[tuple[int, str], tuple[HeadModel, Head]] = {}
_networks: dict[tuple[str, str], dict[str, nn.Module]] = {}


def _head_on(model: HeadModel, device: torch.device) -> Head:
    """Made once for each model and device."""
    with _kept_lock:
        key = id(model), str(device)
        if key not in _heads:
            _heads[key] = model, head_of(model).to(device)
        return _heads[key][1]


def _networks_on(generator: NetworkedGenerator[Any], device: torch.device) -> dict[str, nn.Module]:
    """Copies of all that runs in a frame, by its served name; under "" of the networks themselves. All calls have the
    same."""
    with _kept_lock:
        key = generator.networks_key, str(device)
        if key not in _networks:
            served = generator.blueprint.served(generator.nets)
            networks = {"": generator.nets, **{s.name: s.module for s in served}}
            _networks[key] = {name: private_copy(module).to(device) for name, module in networks.items()}
        return _networks[key]
