"""`Motion` → picture of one enrolled face: pose, rasterise, generate, composite, each step by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from engines.device.renderer import DeviceRenderer, open_device_renderer
from engines.enrollment import Enrollment, head_model_of
from engines.errors import EngineError
from engines.generators.kept import KeptGenerators
from engines.generators.names import DEFAULT_GENERATOR
from engines.geometry import rotation_from_degrees, rotation_matrix, rotation_vector
from engines.motion import ARKIT_INDEX, Motion
from engines.motion_window import MotionHistory, MotionWindow
from engines.native.loader import wait_for_kernels
from engines.picture.background import KEEP, Background, BackgroundError
from engines.picture.composite import composite, make_background, parted, still_person, straight
from engines.picture.moving_box import Box, moving_box, whole
from engines.picture.outpaint import Pad, missing, moved, outpaint, told_beyond
from engines.picture.parting import Behind, settle
from engines.raster.gbuffer import (
    GBuffer,
    HeadMesh,
    Viewport,
    rasterise,
    rasterise_triangles,
    seen_triangles,
)
from engines.raster.pose import head_viewport, photo_viewport, pose_head, wide_viewport
from engines.raster.resample import resample

if TYPE_CHECKING:
    from engines.device.twins import Prepared

U8 = NDArray[np.uint8]
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


Aspect = Literal["1:1", "16:9"]


def frame_size(size_px: int, aspect: Aspect) -> tuple[int, int]:
    """(width, height) of a picture `size_px` high; even, as video wants it: 720 → 1280 × 720, 480 → 854 × 480."""
    return (size_px, size_px) if aspect == "1:1" else (2 * round(size_px * 8 / 9), size_px)


@dataclass(frozen=True, slots=True)
class _PreparedBox:
    """A box of the frame, ready to be drawn. `window` is what the generator wants rasterised, both told in `there`."""

    box: Box
    viewport: Viewport
    there: Viewport
    window: Viewport | None
    cache: Any
    triangles: NDArray[np.intp]
    background: U8
    behind: Behind

    def on_device(self) -> Prepared[Any]:
        """The same for what draws on a GPU."""
        from engines.device.twins import Prepared

        return Prepared(self.cache, self.viewport, self.there, self.window, self.triangles)


class Renderer:
    """Draws one person in one frame. Not shared between sessions.

    The generator draws the box where anything can move; the rest of the frame is prepared once. `notice` is a
    sentence for the user when something is other than asked for (another generator draws, nobody could
    be told from the background), else None. `draws_with_kept`: another renderer may be drawing with its generator.

    - `framing` "head": the standard head crop, `size_px` high, as wide as `aspect` says; "photo": the photo's
      own framing, pixel for pixel, whatever `size_px` says.
    - `background`: what stands behind the person. "transparent" makes `render` give RGBA with straight colours.

    Raises BackgroundError for the photo's own framing in another aspect, ModelError or EnrollmentError when the
    enrollment's head model is not to be had or does not fit it.
    """

    def __init__(
        self,
        enrollment: Enrollment,
        *,
        generator: str = DEFAULT_GENERATOR,
        framing: Framing = "head",
        size_px: int = 512,
        background: Background = KEEP,
        aspect: Aspect = "1:1",
        generators: KeptGenerators | None = None,
    ) -> None:
        """`generators`: those that an earlier renderer of the same call has opened."""
        if framing == "photo" and aspect != "1:1":
            raise BackgroundError("the photo's own framing has the photo's own shape; leave out the aspect")
        self.enrollment = enrollment
        self._model = head_model_of(enrollment)
        self._background = background
        if framing == "photo":
            self.viewport = photo_viewport(enrollment)
        elif aspect == "1:1":
            self.viewport = head_viewport(enrollment, size_px)
        else:
            self.viewport = wide_viewport(enrollment, *frame_size(size_px, aspect))
        generators = generators or KeptGenerators()
        self.draws_with_kept = generators.holds(generator, self._model)
        self._generator, fallback = generators.open(generator, self._model)
        config = self._generator.config
        self._history = MotionHistory(config.past, config.ahead)
        self.notice = "; ".join(n for n in (fallback, _no_matte(enrollment, background)) if n) or None
        self._pad = self._missing(aspect)
        scene = outpaint(enrollment, self._pad)
        frame = moved(self.viewport, self._pad)
        self._scene = parted(scene, rim=background.keeps_photo)
        self._behind = make_background(scene, frame, background, self._scene.plate)
        person = still_person(self._scene, frame)
        self._alpha_at_rest = person[..., 3]
        self._behind_at_rest = self._behind
        if background.keeps_photo:
            shown = resample(scene.photo, frame, 0, (frame.width_px, frame.height_px))
            self._behind_at_rest = settle(shown, person, self._behind)
        self._still = straight(person) if self._transparent else composite(person, self._behind_at_rest)
        rest = pose_head(self._model, enrollment, enrollment.motion, self.viewport)
        self._range = [
            pose_head(self._model, enrollment, m, self.viewport) for m in range_of_motion(enrollment.motion)
        ]
        self._moving = self._prepare_box(moving_box(self._model, self.viewport, rest, self._range))
        self._whole: _PreparedBox | None = None
        self._device: DeviceRenderer | None = None
        self._draw_on_gpu(self._moving)

    @property
    def generator_name(self) -> str:
        """The generator at work."""
        return self._generator.config.name

    @property
    def ahead(self) -> int:
        """How many moments after the one to draw the generator sees, where a file has them."""
        return self._generator.config.ahead

    def forget(self) -> None:
        """What is drawn next follows on nothing: the generator sees no motion from before."""
        self._history.reset()

    def see(self, motion: Motion) -> None:
        """What was before the picture to come, though it is not drawn."""
        self._history.see(told_beyond(self.enrollment, motion, self._pad))

    def wait_until_compiled(self, timeout_s: float = 120.0) -> bool:
        """Whether drawing and the generator's networks were as fast as they will be within `timeout_s`.

        A call draws at once and need not wait; a file does, so that all of it is drawn by one engine.
        """
        if self._device is not None and not self._device.wait(timeout_s):
            return False
        settled = wait_for_kernels(timeout_s)
        return self._generator.wait_until_compiled(timeout_s) and settled

    @property
    def still(self) -> U8:
        """The photo's person in the frame, over the background: what the rest looks like, drawn by no generator."""
        return self._still

    @property
    def box(self) -> Box:
        """The part of the frame that the generator draws."""
        return self._moving.box

    def render(self, motion: Motion, mark: Mark = _no_mark, coming: Sequence[Motion] = ()) -> U8:
        """Picture (H, W, 3) uint8 RGB of `motion` told in the photo's camera, (H, W, 4) when transparent.

        `mark` is called with the name of each stage that is done: fitted, rasterised, generated, composited.
        `coming`: the motions after this one, soonest first, where they are known; live they are not.
        """
        prepared = self._moving
        mesh = pose_head(self._model, self.enrollment, motion, prepared.viewport)
        if not prepared.box.holds(mesh, self.viewport):
            # beyond what `retarget` lets through, or placed absolutely: then the whole frame is drawn
            prepared = self._whole_frame()
            mesh = pose_head(self._model, self.enrollment, motion, prepared.viewport)
        mark("fitted")
        # the generator knows the photo as it was continued
        asked, *later = (told_beyond(self.enrollment, m, self._pad) for m in (motion, *coming))
        motions = self._history.window(asked, later)
        drawn = self._drawn_on_gpu(mesh, motions) if prepared is self._moving else None
        if drawn is None:
            gbuffer = self._rasterise(mesh, prepared)
            mark("rasterised")
            person = self._generator.render(prepared.cache, gbuffer, motions)
            mark("generated")
            drawn = (
                straight(person) if self._transparent else composite(person, prepared.behind.under(person))
            )
        else:
            # all of it is one thing there
            mark("rasterised")
            mark("generated")
        picture = self._framed(drawn, prepared.box)
        mark("composited")
        return picture

    def _draw_on_gpu(self, prepared: _PreparedBox) -> None:
        """Where there is a GPU, have it draw this box."""
        found = open_device_renderer(
            self._generator, self._model, prepared.on_device, prepared.background, self._transparent
        )
        if isinstance(found, str):
            self._note(found)
        else:
            self._device = found

    def _drawn_on_gpu(self, mesh: HeadMesh, motions: MotionWindow) -> U8 | None:
        """None: the CPU has to draw this frame."""
        if self._device is None:
            return None
        try:
            return self._device.draw(mesh, motions)
        except EngineError as error:
            self._device = None
            self._note(f"no longer drawing on the GPU: {error}")
            return None

    def _note(self, notice: str) -> None:
        self.notice = "; ".join(n for n in (self.notice, notice) if n)

    def _rasterise(self, mesh: HeadMesh, prepared: _PreparedBox) -> GBuffer:
        if prepared.window is None:
            grid_px = self._generator.config.grid_px
            return rasterise(self._model, mesh, prepared.viewport, grid_px, prepared.triangles)
        seen = mesh.seen_in(prepared.there, prepared.window)
        return rasterise_triangles(self._model, seen, prepared.window, prepared.triangles)

    def _framed(self, drawn: U8, box: Box) -> U8:
        if drawn.shape[:2] == self._still.shape[:2]:
            return drawn
        picture = self._still.copy()
        picture[box.top : box.bottom, box.left : box.right] = drawn
        return picture

    def _missing(self, aspect: Aspect) -> Pad:
        """By how much the photo has to be continued for this frame."""
        # a square crop in the photo's own background mirrors the photo's edge: so it is in training
        if aspect == "1:1" and self._background.keeps_photo:
            return Pad()
        return missing(self.enrollment, self.viewport)

    @property
    def _transparent(self) -> bool:
        return self._background.mode == "transparent"

    def _prepare_box(self, box: Box) -> _PreparedBox:
        viewport = box.of(self.viewport)
        shift = np.array([box.left, box.top, 0], np.float32)
        meshes = [replace(mesh, vertices_px=mesh.vertices_px - shift) for mesh in self._range]
        there = moved(viewport, self._pad)
        rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
        background = np.ascontiguousarray(self._behind[rows, columns])
        return _PreparedBox(
            box,
            viewport,
            there,
            self._generator.window(self._scene, there),
            self._generator.prepare(self._scene, there),
            seen_triangles(self._model, meshes, viewport),
            background,
            Behind(background, self._behind_at_rest[rows, columns], self._alpha_at_rest[rows, columns]),
        )

    def _whole_frame(self) -> _PreparedBox:
        if self._whole is None:
            self._whole = self._prepare_box(whole(self.viewport))
        return self._whole


def _no_matte(enrollment: Enrollment, background: Background) -> str | None:
    if background.keeps_photo or int(enrollment.matte.min()) < 255:
        return None
    return "nobody could be told from the background of this photo, so it stays as it is; use another photo"
