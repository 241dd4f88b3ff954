"""`Accelerator`: what the engines ask of a GPU, phase by phase; `NvidiaGpu` is the one there is."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from engines.compile.engine import Tier
from engines.errors import brief

T = TypeVar("T")

_WARM_UPS = 3


class Accelerator(ABC):
    """A device of torch that can record what a network does and play it again.

    `building` is held while a network is warmed up and captured: one at a time, because each of them waits for the
    whole device. Everything here may raise whatever torch and the driver raise.
    """

    device: torch.device
    building: threading.Lock

    @abstractmethod
    def refusal(self) -> str | None:
        """Why it cannot be used here, with the fix; None when it can."""

    @abstractmethod
    def description(self) -> str:
        """The name of the card."""

    def free_bytes(self) -> int | None:
        """How much of its memory nobody uses; None where that is not known."""
        return None

    @abstractmethod
    def capability(self) -> tuple[int, int]:
        """The card's compute capability, such as (8, 9)."""

    @abstractmethod
    def warm_up(self, run: Callable[[], object]) -> None:
        """Call `run` until all that happens once has happened; lazy initialisations must not be captured."""

    @abstractmethod
    def capture(self, run: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """Record `run`: (what it gave, a function that computes it again in the same memory)."""

    def tier(self, name: str) -> Tier:
        """The tier `name` as far as the device goes; never raises."""
        try:
            refusal = self.refusal()
            return Tier(name, refusal is None, refusal or self.description())
        except Exception as error:  # a driver that is there and does not work
            return Tier(
                name, False, f"the GPU does not answer ({brief(error)}); check the driver with: nvidia-smi"
            )

    def move(self, module: nn.Module) -> nn.Module:
        """`module` itself, its weights on the device: for a copy of one's own."""
        return module.to(self.device)

    def place(self, tensor: Tensor) -> Tensor:
        """A copy of `tensor` on the device, in its dtype."""
        return tensor.to(self.device, copy=True)


class NvidiaGpu(Accelerator):
    """The first NVIDIA GPU, by CUDA graphs."""

    device = torch.device("cuda")
    building = threading.Lock()  # of the card, not of one engine

    def refusal(self) -> str | None:
        if torch.version.cuda is None:
            return "this torch is a CPU build; type: pip install --force-reinstall 'torch==2.13.*' (docs/install.md)"
        if not torch.cuda.is_available():
            return "no usable NVIDIA GPU; check the driver with: nvidia-smi"
        return None

    def description(self) -> str:
        return torch.cuda.get_device_name()

    def capability(self) -> tuple[int, int]:
        return torch.cuda.get_device_capability()

    def free_bytes(self) -> int | None:
        return torch.cuda.mem_get_info()[0]

    def warm_up(self, run: Callable[[], object]) -> None:
        # on a stream of its own, as torch's notes on CUDA graphs ask
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                run()
        torch.cuda.synchronize()  # what failed on the card is told here, not in a later frame

    def capture(self, run: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        failure: Exception | None = None
        try:
            # The outer block gives the thread its stream back: a capture that fails leaves its own behind.
            # Thread-local: other networks go on serving meanwhile, and what they do is no part of the capture.
            with (
                torch.cuda.stream(stream),
                torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
            ):
                try:
                    outputs = run()
                except Exception as error:
                    failure = error
                    raise
        except Exception as error:
            # ending a capture that has failed raises once more, and says less
            raise failure or error from None
        torch.cuda.synchronize()
        return outputs, graph.replay
