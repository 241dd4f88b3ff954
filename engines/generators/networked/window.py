"""`WindowGenerator`: the generator that a blueprint alone makes; its networks draw the head's window."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.enrollment import Enrollment
from engines.generators.geometric.generator import GeometricGenerator
from engines.generators.networked.base import NetworkedGenerator
from engines.generators.networked.base_picture import BasePicture
from engines.generators.networked.openings import Openings
from engines.generators.networked.paste import Paste
from engines.generators.networked.picture import Picture, Size, place_in_square
from engines.generators.networked.scene import Scene
from engines.generators.networked.surface import HeadTables, Surface
from engines.motion import Motion
from engines.motion_descriptor import describe, in_window
from engines.motion_window import MotionWindow
from engines.raster.gbuffer import GBuffer, HeadMesh, Viewport, rasterise_triangles
from engines.raster.pose import head_window, pose_head, pose_in_viewport
from engines.raster.resample import resample

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

_PHOTO_PX = 512  # height of the window in the photo that networks look at, about as fine as pairs store it


@dataclass(frozen=True, slots=True)
class EnrolledScene:
    """A photo as a scene sees it: `picture` of the window, the head as it lies there, UV maps, its motion."""

    window: Viewport
    picture: Picture
    own: Surface
    maps: Tensor
    motion: Tensor
    photos: dict[Size, Tensor] = field(default_factory=dict[Size, Tensor])


@dataclass(frozen=True, slots=True)
class WindowCache:
    """What `prepare` leaves for `render`; `small` (1, 4, h, w) is the photo as the networks see it.

    `base` draws the picture that they complete, where they complete one; `openings` what shows between lids and
    lips, where the blueprint lays it.
    """

    enrollment: Enrollment
    photo: EnrolledScene
    small: Tensor
    features: list[Tensor]
    paste: Paste
    base: BasePicture | None
    openings: Openings | None


class WindowGenerator(NetworkedGenerator[WindowCache]):
    """See the module."""

    @cached_property
    def _tables(self) -> HeadTables:
        return HeadTables.of(self.model)

    @cached_property
    def _base(self) -> GeometricGenerator | None:
        return None if self.blueprint.base is None else GeometricGenerator(self.model)

    def window(self, enrollment: Enrollment, viewport: Viewport) -> Viewport:
        size = self.blueprint.raster_size()
        return head_window(enrollment, size.width_px, size.height_px)

    def encode(self, enrollment: Enrollment) -> list[F32]:
        scene = self._scene(self._photo(enrollment))
        with torch.no_grad():
            found = self.blueprint.encode(self.nets, self.blueprint.photo_inputs(self.nets, scene))
        return [f[0].numpy() for f in found]

    def prepare(self, enrollment: Enrollment, viewport: Viewport) -> WindowCache:
        self.engines()
        photo = self._photo(enrollment)
        return WindowCache(
            enrollment,
            photo,
            self._scene(photo).photo_at(self.blueprint.window),
            self.features(enrollment),
            Paste.of(enrollment, viewport, photo.window),
            None if self._base is None else BasePicture(self._base, enrollment),
            Openings.of(self.model, enrollment, viewport) if self.blueprint.laid else None,
        )

    def render(self, cache: WindowCache, gbuffer: GBuffer, motions: MotionWindow) -> U8:
        told = np.stack([told_in_window(cache.enrollment, m, cache.photo.window) for m in motions.motions])
        scene = self._scene(cache.photo, _surface(gbuffer), torch.from_numpy(told[None]))
        if cache.base is not None:
            mesh = gbuffer.mesh.seen_in(cache.photo.window, cache.base.viewport)
            picture, where = cache.base.draw(mesh, motions.now)
            window = place_in_square(self.blueprint.window, scene.motions)
            scene.picture = Picture(_channels_first(picture), window)
            scene.where = torch.from_numpy(where[None])
        with torch.no_grad():
            inputs = self.blueprint.inputs(self.nets, scene)
        found = self.engines()[0](cache.small, *inputs, *cache.features)
        if len(found) == 1:
            return cache.paste.draw(_channels_last(found[0]))
        laid = (
            ()
            if cache.openings is None
            else cache.openings.drawn(gbuffer.mesh, cache.photo.window, motions.now)
        )
        return cache.paste.draw_warped(_channels_last(found[0]), _channels_last(found[1]), laid)

    # --------------------------------------------------------------------------------------------------

    def _photo(self, enrollment: Enrollment) -> EnrolledScene:
        size, window = self.blueprint.window, self.window(enrollment, Viewport(0, 0, 1, 1, 1))
        mesh = pose_head(self.model, enrollment, enrollment.motion, window)
        high = max(_PHOTO_PX, size.height_px)
        wide = round(high * size.width_px / size.height_px)
        rgba = np.dstack([enrollment.photo, enrollment.matte])
        seen = resample(rgba, head_window(enrollment, wide, high), 0, (wide, high))
        return EnrolledScene(
            window,
            Picture(_channels_first(seen), alpha="straight"),
            _surface(rasterise_triangles(self.model, mesh, window)),
            _channels_first(np.dstack([enrollment.uv_colour, enrollment.uv_visibility])),
            torch.from_numpy(told_in_window(enrollment, enrollment.motion, window)[None]),
        )

    def _scene(
        self, photo: EnrolledScene, posed: Surface | None = None, motions: Tensor | None = None
    ) -> Scene:
        if motions is None:
            moments = self.config.past + 1 + self.config.ahead
            motions = photo.motion[:, None].expand(-1, moments, -1)
        return Scene(
            self._tables, self.blueprint.raster_size(), photo.picture, posed or photo.own, photo.own,
            photo.maps, motions, photo.motion, past=self.config.past, photos=photo.photos,
        )  # fmt: skip


def told_in_window(enrollment: Enrollment, motion: Motion, window: Viewport) -> F32:
    """(65,): the descriptor of a motion, told in the window."""
    middle = np.array([window.width_px / 2, window.height_px / 2], np.float32)
    descriptor = describe(motion, pose_in_viewport(enrollment, motion, window))
    return in_window(descriptor, middle, np.array(window.height_px, np.float32))


def _surface(gbuffer: GBuffer) -> Surface:
    assert gbuffer.triangle is not None
    mesh: HeadMesh = gbuffer.mesh
    return Surface(torch.from_numpy(gbuffer.triangle)[None], torch.from_numpy(mesh.vertices_px)[None])


def _channels_first(image: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None])


def _channels_last(x: Tensor) -> F32:
    return np.ascontiguousarray(x[0].permute(1, 2, 0).float().numpy())
