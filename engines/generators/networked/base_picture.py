"""`BasePicture`: what `geometric` draws in the photo's square head crop, for networks that complete a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.generators.geometric.generator import GeometricGenerator
from engines.generators.geometric.mouth_inside import mouth_inside
from engines.generators.networked.boxes import Window, where_in_photo
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

    def inside(self, mesh: HeadMesh) -> U8:
        """(512, 512, 4), premultiplied: what of it lies between the lips, as `WindowGenerator` lays it."""
        picture = np.zeros((BASE_PX, BASE_PX, 4), np.float32)
        size = (BASE_PX, BASE_PX)
        found = mouth_inside(self._cache.mouth, self._generator.model, mesh, self._cache.pose, size)
        if found is not None:
            x0, y0, x1, y1 = found.box
            picture[y0:y1, x0:x1] = np.dstack([found.colour, found.alpha * 255])
        return np.clip(picture + np.float32(0.5), 0, 255).astype(np.uint8)

    def draw(self, mesh: HeadMesh, motion: Motion) -> tuple[U8, F32]:
        """(premultiplied RGBA (512, 512, 4), where in the photo each place comes from (32, 32, 2)) of a head posed in
        `viewport`."""
        generator = self._generator
        gbuffer = rasterise(generator.model, mesh, self.viewport, generator.config.grid_px)
        layers = generator.draw(self._cache, gbuffer, motion)
        return layers.picture, where_in_photo(layers.flow, gbuffer, self._window)
