"""`BasePicture`: what `geometric` draws in the photo's square head crop, for networks that complete a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.generators.geometric.generator import GeometricGenerator
from engines.generators.networked.boxes import Window, where_in_photo
from engines.generators.networked.openings import Openings
from engines.motion import Motion
from engines.native.loader import wait_for_kernels
from engines.raster.gbuffer import HeadMesh, rasterise
from engines.raster.pose import head_viewport

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

BASE_PX = 512  # side of the crop, in training as in a call


class BasePicture:
    """One photo, ready to be driven by geometry. Pairs and calls draw with the same, so that both agree."""

    def __init__(self, generator: GeometricGenerator, enrollment: Enrollment) -> None:
        wait_for_kernels()  # all pairs of a photo are drawn by one hand
        self._generator = generator
        self.viewport = head_viewport(enrollment, BASE_PX)
        self._window = Window.of(enrollment, self.viewport)
        self._cache = generator.prepare(enrollment, self.viewport)

    @property
    def openings(self) -> Openings:
        """The photo's eyes and mouth, as the picture has them."""
        cache = self._cache
        return Openings(
            self._generator.model, cache.eyes, cache.mouth, cache.pose, cache.motion, self.viewport
        )

    def draw(self, mesh: HeadMesh, motion: Motion) -> tuple[U8, F32]:
        """(premultiplied RGBA (512, 512, 4), where in the photo each place comes from (32, 32, 2)) of a head posed in
        `viewport`."""
        generator = self._generator
        gbuffer = rasterise(generator.model, mesh, self.viewport, generator.config.grid_px)
        layers = generator.draw(self._cache, gbuffer, motion)
        return layers.picture, where_in_photo(layers.flow, gbuffer, self._window)
