"""`visavis`: photo → cache, frame → picture. The geometric picture, then its completion, mouth and eyes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.compile.engine import Engine
from engines.enrollment import Enrollment
from engines.generators.geometric.generator import GeometricCache, GeometricGenerator
from engines.generators.networked.base import NetworkedGenerator
from engines.generators.networked.boxes import Window
from engines.generators.visavis import inputs
from engines.generators.visavis.blueprint import VisavisBlueprint
from engines.generators.visavis.by_opencv import ByOpenCv, as_tensor
from engines.generators.visavis.compiled import Compiled, can_draw
from engines.generators.visavis.networks import VisavisNetworks
from engines.generators.visavis.way import Way
from engines.geometry import Similarity
from engines.head.model import HeadModel
from engines.motion import Motion
from engines.motion_window import MotionWindow
from engines.native.loader import kernels
from engines.raster.conditioning import PreparedMap
from engines.raster.gbuffer import GBuffer, Viewport, rasterise
from engines.raster.pose import head_viewport, pose_head

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

_BY_OPENCV = ByOpenCv()
_PHOTO_PX = 256  # the photo's own inputs are made at this size, whatever the output's


@dataclass(frozen=True, slots=True)
class VisavisCache:
    """What `prepare` leaves for `render`."""

    base: GeometricCache
    guides: PreparedMap
    window: Window
    features: Tensor  # (1, C, 32, 32)
    mouth_photo: Tensor  # (1, 3, 96, 96)
    eyes_photo: Tensor  # (2, 3, 64, 64)
    pose: Similarity  # of the photo, in viewport pixels
    motion: Motion


class VisavisGenerator(NetworkedGenerator[VisavisCache]):
    """See the module. Raises WeightsError when the weights do not load, or learnt another head than `model`."""

    nets: VisavisNetworks

    def __init__(
        self,
        model: HeadModel,
        *,
        weights: Path | None = None,
        without: Collection[str] = (),
        engines: Sequence[Engine] | None = None,
    ) -> None:
        self._base = GeometricGenerator(model)
        grid_px = self._base.config.grid_px
        super().__init__(
            VisavisBlueprint, model, weights=weights, without=without, engines=engines, grid_px=grid_px
        )

    def encode(self, enrollment: Enrollment) -> list[F32]:
        return [self._encode(enrollment, inputs.prepare_guides(enrollment))]

    def _encode(self, enrollment: Enrollment, prepared: PreparedMap) -> F32:
        viewport = head_viewport(enrollment, _PHOTO_PX)
        mesh = pose_head(self.model, enrollment, enrollment.motion, viewport)
        gbuffer = rasterise(self.model, mesh, viewport, self.config.grid_px)
        window = Window.of(enrollment, viewport)
        photo = inputs.photo_input(enrollment, viewport, prepared, gbuffer, window)
        with torch.inference_mode():
            return self.nets.encoder(as_tensor(photo))[0].numpy()

    def _on(self, part: str) -> bool:
        return part not in self.blueprint.without

    def prepare(self, enrollment: Enrollment, viewport: Viewport) -> VisavisCache:
        self.engines()
        (features,) = self.features(enrollment)
        placed = pose_head(self.model, enrollment, enrollment.motion, viewport)
        crops = inputs.photo_crops(enrollment, viewport, placed)
        kept = float(self._on("photo_crops"))
        return VisavisCache(
            base=self._base.prepare(enrollment, viewport),
            guides=inputs.prepare_guides(enrollment),
            window=Window.of(enrollment, viewport),
            features=features * float(self._on("features")),
            mouth_photo=as_tensor(crops[0]) * kept,
            eyes_photo=torch.cat([as_tensor(e) for e in crops[1]]) * kept,
            pose=placed.pose,
            motion=enrollment.motion,
        )

    def render(self, cache: VisavisCache, gbuffer: GBuffer, motions: MotionWindow) -> U8:
        motion = motions.now
        layers = self._base.draw(cache.base, gbuffer, motion)
        picture, window = layers.picture, cache.window
        vector = inputs.motion_vector(cache.motion, motion, cache.pose, gbuffer.mesh.pose)
        vector *= np.float32(self._on("motion"))
        way = self._way(window, gbuffer.viewport)
        seen = way.see_head(picture, layers.flow, cache.guides, gbuffer, window)
        flow, synthesis = self.engines()[0](*seen, cache.features, torch.from_numpy(vector[None]))
        on = (flow if self._on("flow") else None, synthesis if self._on("layers") else None)
        picture = way.complete(picture, window, *on)
        if self._on("mouth") or self._on("eyes"):
            self._paint_paths(picture, cache, gbuffer, vector, way)
        return picture

    @staticmethod
    def _way(window: Window, viewport: Viewport) -> Way:
        compiled = kernels() if can_draw(window, viewport) else None
        return _BY_OPENCV if compiled is None else Compiled(compiled)

    def _paint_paths(self, picture: U8, cache: VisavisCache, gbuffer: GBuffer, vector: F32, way: Way) -> None:
        """Mouth and eyes, in place."""
        mouth = inputs.mouth_box(gbuffer.mesh)
        eyes = list(zip(inputs.eye_boxes(gbuffer.mesh), (False, True), strict=True))
        mouth_seen = way.see_mouth(picture, gbuffer, mouth)
        eyes_seen = [way.see_eye(picture, gbuffer, box, mirrored=mirrored) for box, mirrored in eyes]
        mouth_layers, eye_layers = self.engines()[1](
            mouth_seen[0],
            cache.mouth_photo,
            mouth_seen[1],
            torch.from_numpy(vector[None]),
            torch.cat([crop for crop, _ in eyes_seen]),
            cache.eyes_photo,
            torch.cat([guide for _, guide in eyes_seen]),
            torch.from_numpy(np.stack([vector, inputs.mirror_motion(vector)])),
        )
        drawn = [(mouth_layers[0], mouth, False)] if self._on("mouth") else []
        if self._on("eyes"):
            drawn += [(eye_layers[k], box, mirrored) for k, (box, mirrored) in enumerate(eyes)]
        for layers, box, mirrored in drawn:
            way.paint(picture, layers, box, mirrored=mirrored)
