"""torch-tensorrt on an NVIDIA GPU: the fastest tier, an optional extra."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from engines.compile.accelerator import Accelerator, NvidiaGpu
from engines.compile.cuda_graph_engine import moved
from engines.compile.engine import Compiled, Engine, Precision, Tier, answer_of, refusing
from engines.compile.exports import engine_cache_folder
from engines.compile.mixed import spelled_out


class TensorRtEngine(Engine):
    """Moves its copy to the device, spells its precisions out and has torch-tensorrt compile it."""

    name = "tensorrt"
    native = "fp16"
    slow = True

    def __init__(self, device: Accelerator | None = None) -> None:
        self._device = device or NvidiaGpu()

    def tier(self) -> Tier:
        tier = self._device.tier(self.name)
        if tier.available and find_spec("torch_tensorrt") is None:
            how = "torch-tensorrt is not installed; type: pip install 'visavis[tensorrt]' (docs/install.md)"
            return Tier(self.name, False, how)
        return tier

    def build(
        self, module: nn.Module, example: tuple[Tensor, ...], precision: Precision, key: str | None
    ) -> Compiled:
        import torch_tensorrt  # pyright: ignore[reportMissingImports]

        device = self._device
        network, inputs = moved(module, example, precision, device)
        with refusing("the export for TensorRT"):
            # it computes as it is told, operator by operator, and knows no mixed precision of its own
            graph = spelled_out(network, inputs)
        with device.building, refusing("TensorRT's compilation"):
            # where its own default is, in the temporary folder, anybody may have left a file
            timings = engine_cache_folder() / "tensorrt-timings.bin"
            with suppress(OSError):  # then it is not kept
                timings.parent.mkdir(parents=True, exist_ok=True)
            compiled = torch_tensorrt.compile(
                graph, ir="dynamo", inputs=[*inputs], timing_cache_path=str(timings)
            )

        def run(*given: Tensor) -> tuple[Tensor, ...]:
            with torch.inference_mode():
                result = compiled(*(device.place(x) for x in given))
            return answer_of(result)

        return run
