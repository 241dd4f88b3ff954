"""torch on an NVIDIA GPU, the launch cost removed by a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engines.compile.accelerator import Accelerator, NvidiaGpu
from engines.compile.engine import Compiled, Engine, Precision, Tier, answer_of, refusing
from engines.compile.mixed import Mixed, mixed


@dataclass(frozen=True, slots=True, eq=False)
class _Captured:
    """A recorded network: inputs are written where it reads them, results read where it leaves them."""

    network: Callable[..., object]  # never called again, but the graph reads its weights where they lie
    inputs: tuple[Tensor, ...]
    result: object
    replay: Callable[[], None]

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            for kept, x in zip(self.inputs, given, strict=True):
                kept.copy_(x)
            self.replay()
        return answer_of(self.result)


def moved(
    module: nn.Module, example: Sequence[Tensor], precision: Precision, device: Accelerator
) -> tuple[Mixed, tuple[Tensor, ...]]:
    """An engine's own copy of a network and its example, on `device`."""
    with refusing("moving it to the GPU"):
        inputs = tuple(device.place(x) for x in example)
        return mixed(device.move(module), inputs, precision), inputs


def captured(network: Callable[..., object], inputs: tuple[Tensor, ...], device: Accelerator) -> Compiled:
    """A call of `network` on `inputs`, both on `device`, recorded. The caller holds `device.building`."""

    def once() -> object:
        return network(*inputs)

    with torch.inference_mode():
        with refusing("warming up"):
            device.warm_up(once)
        with refusing("capturing a CUDA graph"):
            result, replay = device.capture(once)
    return _Captured(network, inputs, result, replay)


class CudaGraphEngine(Engine):
    """Moves its copy to the device, warms it up, captures one call and replays it."""

    name = "cuda graphs"
    native = "fp16"

    def __init__(self, device: Accelerator | None = None) -> None:
        self._device = device or NvidiaGpu()

    def tier(self) -> Tier:
        return self._device.tier(self.name)

    def build(
        self, module: nn.Module, example: tuple[Tensor, ...], precision: Precision, key: str | None
    ) -> Compiled:
        device = self._device
        network, inputs = moved(module, example, precision, device)
        with device.building:
            return captured(network, inputs, device)
