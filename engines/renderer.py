"""`Motion` → picture of one enrolled face: pose, rasterise, generate, composite, each step by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engines.composite import composite, make_background
from engines.enrollment import Enrollment
from engines.gbuffer import rasterise, seen_triangles
from engines.generator_names import DEFAULT_GENERATOR
from engines.generators import make_or_fall_back
from engines.geometry import rotation_from_degrees, rotation_matrix, rotation_vector
from engines.head import head_viewport, photo_viewport, pose_head
from engines.head_model import load_head_model
from engines.motion import ARKIT_INDEX, Motion

Framing = Literal["head", "photo"]
Mark = Callable[[str], None]


def _no_mark(_: str) -> None:
    """Stage stamps are optional."""


def range_of_motion(rest: Motion) -> list[Motion]:
    """Poses, mouths and lids that between them show all of a head that will ever be seen."""
    around = rotation_matrix(rest.rotation_rad)
    out: list[Motion] = []
    for yaw in (-34.0, -15.0, 0.0, 15.0, 34.0):
        for pitch in (-28.0, 0.0, 28.0):
            turn = rotation_matrix(rotation_from_degrees(yaw, pitch, 0.0)) @ around
            expression = rest.expression.copy()
            if pitch == 0:
                expression[ARKIT_INDEX["jawOpen"]] = 1.0
            out.append(
                replace(rest, rotation_rad=rotation_vector(turn).astype(np.float32), expression=expression)
            )
    return [*out, rest, replace(rest, closure=np.ones(3, np.float32))]


class Renderer:
    """Draws one person in one viewport. Holds no state from frame to frame; not shared between sessions.

    `notice` is a sentence for the user when another generator draws than was asked for, else None.
    """

    def __init__(
        self,
        enrollment: Enrollment,
        *,
        generator: str = DEFAULT_GENERATOR,
        framing: Framing = "head",
        size_px: int = 512,
    ) -> None:
        self.enrollment = enrollment
        self._model = load_head_model()
        self.viewport = (
            photo_viewport(enrollment) if framing == "photo" else head_viewport(enrollment, size_px)
        )
        self._generator, self.notice = make_or_fall_back(generator, self._model)
        self._cache = self._generator.prepare(enrollment, self.viewport)
        self._triangles = seen_triangles(
            self._model,
            [
                pose_head(self._model, enrollment, m, self.viewport)
                for m in range_of_motion(enrollment.motion)
            ],
            self.viewport,
        )
        self._background = make_background(enrollment, self.viewport)

    @property
    def generator_name(self) -> str:
        """The generator at work."""
        return self._generator.config.name

    def render(self, motion: Motion, mark: Mark = _no_mark) -> NDArray[np.uint8]:
        """Picture (H, W, 3) uint8 RGB of `motion` told in the photo's camera; `mark` is called after each stage."""
        mesh = pose_head(self._model, self.enrollment, motion, self.viewport)
        mark("fitted")
        gbuffer = rasterise(self._model, mesh, self.viewport, self._generator.config.grid_px, self._triangles)
        mark("rasterised")
        person = self._generator.render(self._cache, gbuffer, motion)
        mark("generated")
        picture = composite(person, self._background)
        mark("composited")
        return picture
