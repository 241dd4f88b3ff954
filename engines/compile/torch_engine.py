"""Eager torch on the CPU: always there, the reference that the other engines must match."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engines.compile.engine import Compiled, Engine, Precision, Tier, answer_of
from engines.errors import EngineError


class TorchEngine(Engine):
    """Eager torch in fp32, or with bf16 autocast."""

    name = "torch"

    def tier(self) -> Tier:
        threads = torch.get_num_threads()
        return Tier(self.name, True, f"torch {torch.__version__}, eager on {threads} CPU threads")

    def build(
        self, module: nn.Module, example: tuple[Tensor, ...], precision: Precision, key: str | None
    ) -> Compiled:
        if precision in ("fp16", "int8"):
            raise EngineError(f"torch is not quicker in {precision} on CPUs; choose bf16 or fp32")

        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                result = module(*inputs)
            return answer_of(result)  # here: what is made in inference mode can never be written again

        return run
