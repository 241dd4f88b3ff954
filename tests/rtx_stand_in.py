"""A stand-in for TensorRT-RTX: its engine is the ONNX file, which ONNX Runtime computes; for tests without a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from engines.compile.rtx_library import RtxLibrary, RtxSession


class StandIn(RtxLibrary):
    """`fails_in` names the phase that raises; `without` an input that engines drop.

    `built`: the target of each engine; `loaded_with`: the kernels that each session was given.
    """

    def __init__(self) -> None:
        self.fails_in, self.without, self.told_version = "", "", "1.7.1"
        self.refuses: str | None = None
        self.built: list[str] = []
        self.loaded_with: list[bytes | None] = []

    def enter(self, phase: str) -> None:
        """Fail, where that is wanted."""
        if phase == self.fails_in:
            raise MemoryError(f"no {phase} today")

    def refusal(self) -> str | None:
        return self.refuses

    @property
    def version(self) -> str:
        return self.told_version

    def build(self, model: bytes, target: str) -> bytes:
        self.enter("build")
        self.built.append(target)
        return target.encode() + b"\n" + model

    def load(self, engine: bytes, kernels: bytes | None) -> RtxSession:
        self.enter("load")
        self.loaded_with.append(kernels)
        return _Session(self, engine.partition(b"\n")[2])


class _Session(RtxSession):
    def __init__(self, library: StandIn, model: bytes) -> None:
        import onnxruntime  # pyright: ignore[reportMissingImports]

        self._library = library
        self._session: Any = onnxruntime.InferenceSession(model)
        self._all = {i.name: torch.zeros(i.shape) for i in self._session.get_inputs()}
        self.inputs = {n: x for n, x in self._all.items() if n != library.without}
        self.outputs = {o.name: torch.zeros(o.shape) for o in self._session.get_outputs()}

    def run(self) -> None:
        self._library.enter("run")
        found = self._session.run(list(self.outputs), {n: x.numpy() for n, x in self._all.items()})
        for memory, value in zip(self.outputs.values(), found, strict=True):
            memory.copy_(torch.from_numpy(np.asarray(value)))

    def compiled_kernels(self) -> bytes:
        self._library.enter("kernels")
        return b"kernels"
