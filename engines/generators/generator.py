"""The `Generator` contract: enrollment once, G-buffer and motion per frame, RGBA out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.motion_window import MotionWindow
from engines.raster.gbuffer import GBuffer, Viewport

CacheT = TypeVar("CacheT")


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """What a caller must know: the G-buffer grid it wants, and where its weights come from (None: none).

    `past` and `ahead`: how many moments before and after the one to draw it sees, where there are any: live there is
    nothing ahead.
    """

    name: str
    grid_px: int
    weights: str | None = None
    past: int = 0
    ahead: int = 0


class Generator(ABC, Generic[CacheT]):
    """Draws one person. Stateless between calls: all state of a person is in the cache, of a call in the window."""

    config: GeneratorConfig

    def window(self, enrollment: Enrollment, viewport: Viewport) -> Viewport | None:
        """What to rasterise, pixel for pixel; None: all of `viewport`, on the grid of `config`."""
        return None

    @abstractmethod
    def prepare(self, enrollment: Enrollment, viewport: Viewport) -> CacheT:
        """Once per person and viewport: encoder features, UV maps, textures."""

    def features_of(self, enrollment: Enrollment) -> Mapping[str, NDArray[np.generic]]:
        """What an avatar file should keep for this generator, so that `prepare` is quicker; nothing by default."""
        return {}

    def wait_until_compiled(self, timeout_s: float) -> bool:
        """Whether all is as fast as it will be within `timeout_s`; a generator without networks always is."""
        return True

    @abstractmethod
    def render(self, cache: CacheT, gbuffer: GBuffer, motions: MotionWindow) -> NDArray[np.uint8]:
        """Per frame: premultiplied RGBA (H, W, 4) uint8 of the person in the viewport, background transparent."""
