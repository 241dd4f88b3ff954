"""TensorRT-RTX on an NVIDIA RTX card: engines built ahead of time, for the card or for others, and kept."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engines.compile.accelerator import Accelerator, NvidiaGpu
from engines.compile.engine import Compiled, Engine, Precision, Tier, answer_of, refusing
from engines.compile.exports import engine_cache_folder
from engines.compile.kept_engine import KeptEngine
from engines.compile.onnx_export import OPSET, export_refusal, input_names, onnx_of, output_name
from engines.compile.rtx_library import TARGETS, RtxLibrary, TensorRtRtx, takes, target_of
from engines.errors import EngineError, no_such


class TensorRtRtxEngine(Engine):
    """Exports its copy, builds an engine for the card or takes the one that is kept, and has it captured whole."""

    name = "tensorrt-rtx"
    native = "fp16"
    slow = True

    def __init__(self, device: Accelerator | None = None, library: RtxLibrary | None = None) -> None:
        self._device, self._library = device or NvidiaGpu(), library or TensorRtRtx()

    def tier(self) -> Tier:
        tier = self._device.tier(self.name)
        if not tier.available:
            return tier
        try:
            target_of(self._device.capability())
        except EngineError as error:
            return Tier(self.name, False, str(error))
        refusal = self._library.refusal() or export_refusal()
        return tier if refusal is None else Tier(self.name, False, refusal)

    def builds(self) -> str | None:
        """Why it cannot build for named targets here, with the fix; None where it can. No GPU is needed."""
        return self._library.refusal() or export_refusal()

    def own_target(self) -> str:
        """The target of this computer's card. Raises EngineError where there is none."""
        tier = self._device.tier(self.name)
        if not tier.available:
            raise EngineError(
                f"{tier.reason}; to build for other cards name them: --target {','.join(TARGETS)}"
            )
        return target_of(self._device.capability())

    def build(
        self, module: nn.Module, example: tuple[Tensor, ...], precision: Precision, key: str | None
    ) -> Compiled:
        device = self._device
        target = target_of(device.capability())

        def built() -> bytes:
            return self.built_for(target, self.exported(module, example, precision, [target]))

        kept = None if key is None else self.kept(target, example, precision, key)
        engine = built() if kept is None else kept.read_or_build(built)
        cached = None if kept is None else self._kernels(kept)
        with device.building:
            with refusing("loading the engine"):
                session = self._library.load(engine, None if cached is None else cached.read())
                inputs = [session.inputs.get(name) for name in input_names(module, example)]
                outputs = [session.outputs[output_name(k)] for k in range(len(session.outputs))]

            def run(*given: Tensor) -> tuple[Tensor, ...]:
                with torch.inference_mode():
                    for memory, x in zip(inputs, given, strict=True):
                        if memory is not None:  # else nothing depends on it
                            memory.copy_(x)
                    session.run()
                    return answer_of(tuple(outputs))

            with refusing("the first run of the engine"):
                run(*example)
        if cached is not None and not cached.path.is_file():
            cached.read_or_build(session.compiled_kernels)

        return run

    def exported(
        self, module: nn.Module, example: Sequence[Tensor], precision: Precision, targets: Sequence[str]
    ) -> bytes:
        """What `built_for` takes, for all of `targets`. Raises EngineError, also where one does not compute in that."""
        for target in targets:
            if target not in TARGETS:
                raise EngineError(no_such("target", target, TARGETS))
            if not takes(target, precision):
                raise EngineError(f"cards of {target} do not compute in {precision}; choose fp16 or fp32")
        return onnx_of(module, example, precision)

    def built_for(self, target: str, model: bytes) -> bytes:
        """An engine for cards of `target`, on any computer. Raises EngineError."""
        with refusing("TensorRT-RTX's compilation"):
            return self._library.build(model, target)

    def kept(
        self,
        target: str,
        example: Sequence[Tensor],
        precision: Precision,
        key: str,
        folder: Path | None = None,
    ) -> KeptEngine:
        """Where the engine for `target` of the network `key` is kept; `folder` (None: the cache)."""
        built_from: dict[str, Any] = {
            "engine": self.name,
            "library": self._library.version,
            "torch": torch.__version__.split("+")[0],  # exports the same, whatever it is built for
            "onnxscript": version("onnxscript"),
            "opset": OPSET,
            "target": target,
            "precision": precision,
            "inputs": [[str(x.dtype), *x.shape] for x in example],
        }
        return KeptEngine(folder or engine_cache_folder(), key, built_from)

    def _kernels(self, kept: KeptEngine) -> KeptEngine:
        """What the card's driver makes of the engine, kept beside it."""
        card = {"kernels_for": self._device.description(), **kept.built_from}
        return KeptEngine(kept.folder, f"{kept.network}-kernels", card)
