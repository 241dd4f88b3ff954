"""`visavis`: photo → cache, frame → picture. The geometric picture, then its completion, mouth and eyes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.background_engine import BackgroundEngine
from engines.conditioning import PreparedMap
from engines.engine import ORDER, Engine
from engines.enrollment import Enrollment
from engines.errors import WeightsError
from engines.gbuffer import GBuffer, Viewport, rasterise
from engines.generator import Generator, GeneratorConfig
from engines.generators.geometric import GeometricCache, GeometricGenerator
from engines.generators.visavis import inputs
from engines.generators.visavis.inputs import EYE_PX, MOUTH_PX, WHERE_PX, WINDOW_PX, Box, Window
from engines.generators.visavis.networks import VERSION, NetworkConfig, VisavisNetworks, soft_window
from engines.geometry import F64, Similarity
from engines.head import head_viewport, pose_head
from engines.head_model import HeadModel
from engines.motion import Motion
from engines.weights import load_weights

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

WEIGHTS_PATH = Path(__file__).parents[2] / "data" / "visavis.safetensors"
_PHOTO_PX = 256  # the photo's own inputs are made at this size, whatever the output's
_LEAST_PX = 0.05  # a flow or a change smaller than this (pixels, grey levels) is none


@dataclass(frozen=True, slots=True)
class Switches:
    """Parts that can be switched off, for ablations."""

    flow: bool = True  # D, the completed flow
    layers: bool = True  # r, S and M of the head window
    features: bool = True  # the photo's encoder features
    motion: bool = True  # the motion code
    mouth: bool = True
    eyes: bool = True
    photo_crops: bool = True  # the photo's own mouth and eyes beside the crops


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


class VisavisGenerator(Generator[VisavisCache]):
    """See the module. Raises WeightsError when the weights do not load."""

    def __init__(
        self,
        model: HeadModel,
        *,
        weights: Path = WEIGHTS_PATH,
        switches: Switches | None = None,
        engines: Sequence[Engine] = ORDER,
    ) -> None:
        """Serves with torch at once; `engines` are tried in order meanwhile."""
        self._model = model
        self._base = GeometricGenerator(model)
        self._switches = switches or Switches()
        self.config = GeneratorConfig("visavis", self._base.config.grid_px, weights=weights.name)
        nets, digest = load_networks(weights)
        self._nets = nets
        self._features_name = f"visavis/{digest[:16]}"
        self.networks = [(nets.head, head_example(nets.config)), (nets.paths, paths_example())]
        self._digest, self._order = digest, engines
        self._built: tuple[BackgroundEngine, BackgroundEngine] | None = None
        self._soft = {s: soft_window(s)[0, 0, ..., None].numpy() for s in (MOUTH_PX, EYE_PX)}

    def wait_until_compiled(self, timeout_s: float) -> bool:
        """Whether the networks' engines were ready (or refused) within `timeout_s`."""
        return all(engine.wait(timeout_s) for engine in self._engines())

    def _engines(self) -> tuple[BackgroundEngine, BackgroundEngine]:
        """Of the head network and the paths; building begins when the first person is prepared, not before."""
        if self._built is None:
            head, paths = (
                BackgroundEngine(module, example, f"visavis-{part}-{self._digest[:16]}", order=self._order)
                for part, (module, example) in zip(("head", "paths"), self.networks, strict=True)
            )
            self._built = head, paths
        return self._built

    @property
    def engine_name(self) -> str:
        """The tier that runs the networks now."""
        return self._engines()[0].tier_name

    def encode(self, enrollment: Enrollment, prepared: PreparedMap | None = None) -> F32:
        """(C, 32, 32) features of the photo, the same for every viewport."""
        viewport = head_viewport(enrollment, _PHOTO_PX)
        mesh = pose_head(self._model, enrollment, enrollment.motion, viewport)
        gbuffer = rasterise(self._model, mesh, viewport, self.config.grid_px)
        window = Window.of(enrollment, viewport)
        guides = prepared or inputs.prepare_guides(enrollment)
        photo = inputs.photo_input(enrollment, viewport, guides, gbuffer, window)
        with torch.inference_mode():
            return self._nets.encoder(_tensor(photo))[0].numpy()

    def features_of(self, enrollment: Enrollment) -> dict[str, NDArray[np.float16]]:
        """What an avatar file keeps for this generator: the encoder's features, named after its weights."""
        return {self._features_name: self.encode(enrollment).astype(np.float16)}

    def prepare(self, enrollment: Enrollment, viewport: Viewport) -> VisavisCache:
        self._engines()
        prepared = inputs.prepare_guides(enrollment)
        found = enrollment.features.get(self._features_name)
        if found is None:
            found = self.encode(enrollment, prepared)
        features = torch.from_numpy(found.astype(np.float32)[None]) * float(self._switches.features)
        placed = pose_head(self._model, enrollment, enrollment.motion, viewport)
        crops = inputs.photo_crops(enrollment, viewport, placed)
        kept = float(self._switches.photo_crops)
        return VisavisCache(
            base=self._base.prepare(enrollment, viewport),
            guides=prepared,
            window=Window.of(enrollment, viewport),
            features=features,
            mouth_photo=_tensor(crops[0]) * kept,
            eyes_photo=torch.cat([_tensor(e) for e in crops[1]]) * kept,
            pose=placed.pose,
            motion=enrollment.motion,
        )

    def render(self, cache: VisavisCache, gbuffer: GBuffer, motion: Motion) -> U8:
        layers = self._base.draw(cache.base, gbuffer, motion)
        picture, window, on = layers.picture, cache.window, self._switches
        vector = inputs.motion_vector(cache.motion, motion, cache.pose, gbuffer.mesh.pose) * np.float32(
            on.motion
        )
        guide, part = inputs.guides(cache.guides, gbuffer, window)
        flow, synthesis = self._engines()[0](
            _tensor(inputs.low_picture(picture, window)),
            _channels_first(inputs.head_guide(guide, part)),
            torch.from_numpy(inputs.where_in_photo(layers.flow, gbuffer, window)[None]),
            cache.features,
            torch.from_numpy(vector[None]),
        )
        if on.flow:
            picture = move(picture, _channels_last(flow), window)
        if on.layers:
            blend_window(picture, _channels_last(synthesis), window)
        if on.mouth or on.eyes:
            self._paint_paths(picture, cache, gbuffer, vector)
        return picture

    def _paint_paths(self, picture: U8, cache: VisavisCache, gbuffer: GBuffer, vector: F32) -> None:
        """Mouth and eyes, in place."""
        mouth = inputs.mouth_box(gbuffer.mesh)
        eyes = list(zip(inputs.eye_boxes(gbuffer.mesh), (False, True), strict=True))
        vectors = np.stack([vector, inputs.mirror_motion(vector)])
        mouth_part = inputs.part_crop(gbuffer, mouth, MOUTH_PX)
        eye_parts = [inputs.part_crop(gbuffer, b, EYE_PX, mirrored=m) for b, m in eyes]
        mouth_layers, eye_layers = self._engines()[1](
            _tensor(inputs.cut_box(picture, mouth, MOUTH_PX)[..., :3]),
            cache.mouth_photo,
            _channels_first(inputs.mouth_guide(mouth_part)),
            torch.from_numpy(vector[None]),
            torch.cat([_tensor(inputs.cut_box(picture, b, EYE_PX, mirrored=m)[..., :3]) for b, m in eyes]),
            cache.eyes_photo,
            torch.cat([_channels_first(inputs.eye_guide(p)) for p in eye_parts]),
            torch.from_numpy(vectors),
        )
        if self._switches.mouth:
            blend_box(picture, _channels_last(mouth_layers) * self._soft[MOUTH_PX], mouth)
        if self._switches.eyes:
            for k, (box, mirrored) in enumerate(eyes):
                blend_box(
                    picture,
                    _channels_last(eye_layers[k : k + 1]) * self._soft[EYE_PX],
                    box,
                    mirrored=mirrored,
                )


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


def load_networks(weights: Path) -> tuple[VisavisNetworks, str]:
    """Networks with the weights of a file, and what tells these weights from others. Raises WeightsError."""
    tensors, header = load_weights(weights, "visavis", VERSION)
    known = {f.name for f in fields(NetworkConfig)}
    try:
        config = NetworkConfig(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in header.config.items() if k in known}  # pyright: ignore[reportArgumentType]
        )
        nets = VisavisNetworks(config)
        nets.load_state_dict(tensors)
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"the weights {weights} do not fit the networks; install visavis again, or train anew: "
            "python -m scripts.train --help"
        ) from error
    return nets.eval(), header.sha256


def move(picture: U8, flow: F32, window: Window) -> U8:
    """`P(x + D(x))` with D (64, 64, 2) in shares of the window's side; the picture itself where D is nothing."""
    if float(np.abs(flow).max()) * window.side_px < _LEAST_PX:
        return picture
    side = window.side_px
    where = cv2.resize(flow * np.float32(side), (side, side), interpolation=cv2.INTER_LINEAR)
    moving = (np.abs(flow).max(-1) > 0).astype(np.uint8)
    # only the box in which anything moves; cubic, so that half a pixel does not blur
    x, y, wide, high = cv2.boundingRect(cv2.dilate(moving, np.ones((3, 3), np.uint8)))
    step = side / flow.shape[0]
    height, width = picture.shape[:2]
    x0, y0 = max(window.left_px + int(x * step), 0), max(window.top_px + int(y * step), 0)
    x1 = min(window.left_px + int(np.ceil((x + wide) * step)), width)
    y1 = min(window.top_px + int(np.ceil((y + high) * step)), height)
    if x1 <= x0 or y1 <= y0:
        return picture
    part = where[y0 - window.top_px : y1 - window.top_px, x0 - window.left_px : x1 - window.left_px]
    rows = np.arange(y0, y1, dtype=np.float32)[:, None]
    columns = np.arange(x0, x1, dtype=np.float32)[None]
    moved = cv2.remap(
        picture, part[..., 0] + columns, part[..., 1] + rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    out = picture.copy()
    out[y0:y1, x0:x1] = moved
    return out


def blend_window(picture: U8, layers: F32, window: Window) -> None:
    """`(P + r)(1 − M) + S` in the window, in place; layers (128, 128, 9) of r, S and M."""
    keep = 1 - layers[..., 8:]
    add = layers[..., :4] * keep + layers[..., 4:8]
    changed = ((np.abs(add).max(-1) > 0.5 / 255) | (layers[..., 8] > 0.5 / 255)).astype(np.uint8)
    if not changed.any():
        return
    side = window.side_px
    more = (np.clip(add, 0, 1) * 255 + 0.5).astype(np.uint8)
    less = (np.clip(-add, 0, 1) * 255 + 0.5).astype(np.uint8)
    kept = (keep[..., 0] * 255 + 0.5).astype(np.uint8)
    height, width = picture.shape[:2]
    x0, y0 = max(window.left_px, 0), max(window.top_px, 0)
    x1, y1 = min(window.left_px + side, width), min(window.top_px + side, height)
    inside = np.s_[y0 - window.top_px : y1 - window.top_px, x0 - window.left_px : x1 - window.left_px]

    def large(x: U8) -> U8:
        return np.asarray(cv2.resize(x, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)[inside]

    part = picture[y0:y1, x0:x1]
    under = cv2.multiply(part, cv2.merge([large(kept)] * 4), scale=1 / 255)
    picture[y0:y1, x0:x1] = cv2.subtract(cv2.add(under, large(more)), large(less))


def blend_box(picture: U8, layers: F32, box: Box, *, mirrored: bool = False) -> None:
    """`(P + r)(1 − M) + S` in a crop's place, in place, within the person; layers (s, s, 7) of r, S and M."""
    size = layers.shape[0]
    add = layers[..., :3] * (1 - layers[..., 6:]) + layers[..., 3:6]
    four = np.dstack([add, layers[..., 6]]).astype(np.float32)
    affine = box.affine(size, mirrored=mirrored)
    corners = np.array([[-0.5, -0.5], [size - 0.5, -0.5], [-0.5, size - 0.5], [size - 0.5, size - 0.5]])
    reach = corners @ affine[:, :2].T + affine[:, 2]
    height, width = picture.shape[:2]
    x0, y0 = np.maximum(np.floor(reach.min(0)), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(reach.max(0)) + 1, (width, height)).astype(int)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    # from picture pixels of this rectangle to crop pixels
    inverse = _inverted(affine)
    inverse[:, 2] += inverse[:, :2] @ (float(x0), float(y0))
    placed = cv2.warpAffine(
        four, inverse, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    part = picture[y0:y1, x0:x1]
    person = part[..., 3:].astype(np.float32) * np.float32(1 / 255)
    placed = placed * person
    out = part[..., :3] * (1 - placed[..., 3:]) + placed[..., :3] * 255
    picture[y0:y1, x0:x1, :3] = np.clip(out + 0.5, 0, 255).astype(np.uint8)


def _inverted(affine: F64) -> F64:
    linear = np.linalg.inv(affine[:, :2])
    return np.column_stack([linear, -linear @ affine[:, 2]]).astype(np.float64)


def _channels_first(values: F32) -> Tensor:
    """(h, w, c) → (1, c, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)[None]))


def _tensor(image: NDArray[np.generic]) -> Tensor:
    """(h, w, c) uint8 → (1, c, h, w) float32 0 … 1."""
    return _channels_first(image.astype(np.float32) * np.float32(1 / 255))


def _channels_last(values: Tensor | Sequence[Tensor]) -> F32:
    """(1, c, h, w) → (h, w, c)."""
    assert isinstance(values, Tensor)
    return np.ascontiguousarray(values[0].permute(1, 2, 0).numpy())
