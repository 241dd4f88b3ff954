"""A stand-in for a GPU, for tests of what is done with one where there is none; needs torch alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from engines.compile.accelerator import Accelerator

T = TypeVar("T")


class FakeGpu(Accelerator):
    """The CPU as an accelerator: a capture's result lies in one place, and each replay writes there again.

    `phases` are those entered so far; the one named `fails_in` raises.
    """

    def __init__(self, fails_in: str = "") -> None:
        self.device, self.building = torch.device("cpu"), threading.Lock()
        self.fails_in = fails_in
        self.phases: list[str] = []

    def _enter(self, phase: str) -> None:
        self.phases.append(phase)
        if phase == self.fails_in:
            raise RuntimeError(f"no {phase} today")

    def refusal(self) -> str | None:
        self._enter("refusal")
        return None

    def description(self) -> str:
        return "a CPU in disguise"

    def capability(self) -> tuple[int, int]:
        self._enter("capability")
        return 8, 9

    def move(self, module: nn.Module) -> nn.Module:
        self._enter("move")
        return super().move(module)

    def place(self, tensor: Tensor) -> Tensor:
        self._enter("place")
        return super().place(tensor)

    def warm_up(self, run: Callable[[], object]) -> None:
        self._enter("warm_up")
        run()

    def capture(self, run: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        self._enter("capture")
        result = run()

        def replay() -> None:
            self._enter("replay")
            for kept, new in zip(tensors_of(result), tensors_of(run()), strict=True):
                kept.copy_(new)

        return result, replay


def tensors_of(result: object) -> list[Tensor]:
    """The tensors of a module's result."""
    outputs = result if isinstance(result, tuple | list) else (result,)
    return [o for o in outputs if isinstance(o, Tensor)]
