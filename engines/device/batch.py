"""`Batch`: calls that are drawn alike, each with a row of state on one device; those that advance are drawn at once.

A drawing is recorded (a CUDA graph) for 1, 2, 4, … frames: as many as there are, and a few more whose pictures nobody
looks at. So no shape depends on who advances: that is a number of each frame, sent with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.compile.accelerator import Accelerator
from engines.device.drawing import ROW, Drawing, State
from engines.device.packet import Layout
from engines.errors import EngineError

U8 = NDArray[np.uint8]


class Batch:
    """One thread. Whatever drawing raises, nothing more can be drawn with it. `state`: a row of each place."""

    def __init__(self, drawing: Drawing, most: int = 1, gpu: Accelerator | None = None) -> None:
        """`drawing`: any of those that are drawn alike; `gpu`: where a drawing is recorded; None: the CPU, as it is."""
        self._drawing, self._gpu, self._most = drawing, gpu, most
        self._device = torch.device("cpu") if gpu is None else gpu.device
        self._layout = drawing.layout()
        self.state: State = drawing.state.room(1).to(self._device)
        self._free = [0]
        self._recorded: dict[int, _Recorded] = {}

    @property
    def capacity(self) -> int:
        """For how many calls there is room now; it grows with them."""
        return len(self.state.background)

    @torch.inference_mode()
    def enter(self, drawing: Drawing) -> int:
        """Put a call's state on the device; its row. Raises EngineError: no room, or it is drawn otherwise."""
        if drawing.key != self._drawing.key:
            raise EngineError("a call that is drawn otherwise is not drawn in this batch")
        if not self._free:
            self._grow()
        row = self._free.pop(0)
        self.state.put(row, drawing.state)
        return row

    def _grow(self) -> None:
        """Room for twice as many, at most for `most`; what was recorded reads where the state no longer is."""
        before, capacity = self.capacity, min(2 * self.capacity, self._most)
        if capacity == before:
            raise EngineError(f"all {before} places of a batch are taken")
        self._recorded.clear()
        self.state = State.stacked([self.state, self.state.room(capacity - before)])
        self._free = list(range(before, capacity))

    @torch.inference_mode()
    def record(self) -> None:
        """Record all that may be asked for, so that no frame waits for it."""
        for size in sizes_of(self.capacity):
            self._for(size)

    @torch.inference_mode()
    def leave(self, row: int) -> None:
        """Free a call's row; nothing of its person stays."""
        self.state.clear(row)
        self._free = sorted({*self._free, row})

    @torch.inference_mode()
    def draw(self, frames: Mapping[int, U8]) -> dict[int, U8 | None]:
        """Pictures by row of the frames by row; None: this frame is for the CPU. Raises what torch raises."""
        if not frames:
            return {}
        recorded = self._for(len(frames))
        shown = recorded(frames)
        return {row: self._drawing.read(shown[k]) for k, row in enumerate(frames)}

    def _for(self, count: int) -> _Recorded:
        size = next(s for s in sizes_of(self.capacity) if s >= count)
        if size not in self._recorded:
            self._recorded[size] = _Recorded(self._drawing, self.state, self._layout, size, self._gpu)
        return self._recorded[size]


def sizes_of(capacity: int) -> list[int]:
    """1, 2, 4, … and the capacity itself."""
    sizes = [1]
    while sizes[-1] < capacity:
        sizes.append(min(2 * sizes[-1], capacity))
    return sizes


class _Recorded:
    """A drawing of so many frames: written where it reads them, read where it leaves them."""

    def __init__(
        self, drawing: Drawing, state: State, layout: Layout, count: int, gpu: Accelerator | None
    ) -> None:
        device = state.background.device
        self._layout, self._count = layout, count
        self._sent = torch.zeros(count, layout.size, dtype=torch.uint8)
        if device.type == "cuda":
            self._sent = self._sent.pin_memory()
        self._frames = torch.zeros(count, layout.size, dtype=torch.uint8, device=device)
        self._row = layout.unpack(self._sent)[ROW]
        alone = len(state.background) == 1

        def once() -> Tensor:
            told = layout.unpack(self._frames)
            rows = state if alone else state.at(told[ROW][:, 0].long())
            return drawing.pictures(rows, told)

        self._result: Tensor | None = None
        self._run: Callable[[], Tensor] = once
        if gpu is not None:
            with gpu.building:
                gpu.warm_up(once)
                result, replay = gpu.capture(once)

            def play() -> Tensor:
                replay()
                return result

            self._run = play

    def __call__(self, frames: Mapping[int, U8]) -> U8:
        sent = self._sent.numpy()
        for k, (row, frame) in enumerate(frames.items()):
            sent[k] = frame
            self._row[k] = row
        # what is drawn beside: again what is drawn first
        sent[len(frames) :] = sent[0]
        self._frames.copy_(self._sent, non_blocking=True)
        return self._run().to("cpu", copy=True).numpy()
