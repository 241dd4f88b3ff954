"""`DeviceRenderer`: one call's box of a frame drawn on the GPU, together with other calls that are drawn alike."""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineError, brief
from engines.head.model import HeadModel
from engines.motion_window import MotionWindow
from engines.raster.gbuffer import HeadMesh

if TYPE_CHECKING:
    from engines.compile.accelerator import Accelerator
    from engines.device.drawing import Drawing
    from engines.device.together import Together
    from engines.device.twins import Prepared, Twin

U8 = NDArray[np.uint8]

MOST_CALLS = 128
WAIT_MS = 4.0  # how long a frame waits for other calls' frames
_CALL_BYTES = 256 << 20  # that drawing one call's frame takes at the most, beside its state
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def driver_is_here() -> bool:
    """Whether there is an NVIDIA driver: a millisecond, where asking torch takes a second."""
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        return False
    return True


class DeviceRenderer:
    """Until the device is ready, and for what does not fit it, `draw` gives None: the CPU draws that frame."""

    def __init__(
        self, twin: Twin[Any, Any], background: U8, transparent: bool, gpu: Accelerator | None
    ) -> None:
        """`gpu` None: torch on the CPU draws, for tests. Raises EngineError."""
        from engines.device.drawing import packed_frame

        self._twin, self._packed = twin, packed_frame
        drawing = _drawing_of(twin, background, transparent)
        self._layout = drawing.layout()
        self._together = _together(drawing, gpu)
        self._number, self._entered = self._together.enter(drawing)
        # a renderer is dropped, not closed
        self._leave = weakref.finalize(self, self._together.leave, self._number)
        self._leave.atexit = False

    def wait(self, timeout_s: float) -> bool:
        """Whether the device is ready, or never will be, within `timeout_s`."""
        try:
            self._entered.exception(timeout_s)
        except TimeoutError:
            return False
        return True

    def draw(self, mesh: HeadMesh, motions: MotionWindow) -> U8 | None:
        """The box's picture (H, W, 3 or 4); `mesh` is told in its pixels. Raises EngineError: no more will come."""
        from engines.device.enrolled import MisfitError

        if not self._entered.done():
            return None
        self._entered.result()
        try:
            frame = self._packed(self._layout, self._twin.tell(mesh, motions))
        except MisfitError:
            return None
        return self._together.draw(self._number, frame)


def open_device_renderer(
    generator: object,
    model: HeadModel,
    prepared: Callable[[], Prepared[Any]],
    background: U8,
    transparent: bool,
) -> DeviceRenderer | str | None:
    """Where there is a GPU, what draws there; a sentence why not where there is one; None where there is none."""
    if not driver_is_here():
        return None
    try:
        from engines.compile.accelerator import NvidiaGpu
        from engines.device.twins import twin_of

        gpu = NvidiaGpu()
        if gpu.refusal() is not None:  # of its own tier, which `visavis doctor` tells
            return None
        twin = twin_of(generator, model, prepared(), gpu.device)
        return None if twin is None else DeviceRenderer(twin, background, transparent, gpu)
    except Exception as error:  # a driver that does not work, a memory that is full
        return f"not drawing on the GPU: {error if isinstance(error, EngineError) else brief(error)}"


def _drawing_of(twin: Twin[Any, Any], background: U8, transparent: bool) -> Drawing:
    import torch

    from engines.device.drawing import Drawing, State

    behind = torch.from_numpy(np.ascontiguousarray(background.transpose(2, 0, 1))[None])
    state = State(twin.person(), behind)
    shapes = tuple((tuple(t.shape[1:]), str(t.dtype)) for t in state.tensors())
    key = (twin.key, shapes, transparent, str(twin.device))
    return Drawing(key, twin.draw(), state, tuple(twin.fields()), transparent)


_lock = threading.Lock()
_all: dict[Hashable, Together] = {}


def _together(drawing: Drawing, gpu: Accelerator | None) -> Together:
    """Those whose calls are drawn alike; anew where a fault has ended them."""
    from engines.device.batch import Batch
    from engines.device.together import Together

    with _lock:
        for key in [key for key, them in _all.items() if them.broken]:
            del _all[key]
        if drawing.key not in _all:
            most = _most(drawing, gpu)
            # it lives longer than this call: nothing of the person in it
            blank = replace(drawing, state=drawing.state.room(1))
            _all[drawing.key] = Together(
                lambda: Batch(blank, most, gpu), most=most, wait_ns=round(WAIT_MS * 1e6)
            )
        return _all[drawing.key]


def _most(drawing: Drawing, gpu: Accelerator | None) -> int:
    """How many calls half of the memory that is free can hold."""
    free = None if gpu is None else gpu.free_bytes()
    if free is None:
        return MOST_CALLS
    own = sum(t.numel() * t.element_size() for t in drawing.state.tensors())
    return max(1, min(MOST_CALLS, int(free / 2 / (own + _CALL_BYTES))))
