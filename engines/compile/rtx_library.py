"""`RtxLibrary`: TensorRT-RTX as the engine of its name uses it: build for a named card, load, run.

Building needs no GPU and no driver; loading needs both.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from engines.errors import EngineError

logger = logging.getLogger(__name__)

# cards that TensorRT-RTX builds for, by compute capability
TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
LEAST_VERSION = (1, 6)
INSTALL_COMMAND = "pip install 'visavis[tensorrt-rtx]'"
_PACKAGE, _MODULE = "tensorrt-rtx-cu13", "tensorrt_rtx"
# bf16 came with compute capability 8.0
_WITHOUT_BF16 = ("sm75",)


class RtxSession(ABC):
    """A loaded engine with memory of its own for inputs and outputs, which lie where they are."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]

    @abstractmethod
    def run(self) -> None:
        """Compute `outputs` from `inputs`; ends when that is done. Raises EngineError."""

    @abstractmethod
    def compiled_kernels(self) -> bytes:
        """What was compiled for this very card, for the next start."""


class RtxLibrary(ABC):
    """The library, or a stand-in for it."""

    @abstractmethod
    def refusal(self) -> str | None:
        """Why it cannot be used here, with the fix; None when it can."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Its version."""

    @abstractmethod
    def build(self, model: bytes, target: str) -> bytes:
        """An engine of an ONNX file for `target`, one of `TARGETS`. Raises EngineError naming what it refuses."""

    @abstractmethod
    def load(self, engine: bytes, kernels: bytes | None) -> RtxSession:
        """Load an engine on the first GPU; `kernels`: what an earlier session gave. Raises EngineError."""


def target_of(capability: tuple[int, int]) -> str:
    """The target of a card of compute capability `(major, minor)`. Raises EngineError for one that has none."""
    target = f"sm{capability[0]}{capability[1]}"
    if target not in TARGETS:
        raise EngineError(
            f"TensorRT-RTX does not build for cards of compute capability {capability[0]}.{capability[1]}, only for "
            f"{', '.join(TARGETS)}; choose the engine 'tensorrt' or 'cuda graphs'"
        )
    return target


def takes(target: str, precision: str) -> bool:
    """Whether cards of `target` compute in `precision`."""
    return precision != "bf16" or target not in _WITHOUT_BF16


class TensorRtRtx(RtxLibrary):
    """The library itself, imported when it is used."""

    def refusal(self) -> str | None:
        known = self.version if find_spec(_MODULE) else ""
        if not known:
            return f"{_PACKAGE} is not installed; type: {INSTALL_COMMAND}"
        try:
            old = tuple(int(part) for part in known.split(".")[:2]) < LEAST_VERSION
        except ValueError:
            old = True
        if old:
            wanted = ".".join(map(str, LEAST_VERSION))
            return f"{_PACKAGE} {known} is older than {wanted}, the first that works; type: {INSTALL_COMMAND}"
        return None

    @property
    def version(self) -> str:
        for name in (_PACKAGE, _MODULE):
            try:
                return version(name)
            except PackageNotFoundError:
                continue
        return ""

    def build(self, model: bytes, target: str) -> bytes:
        trt = _loaded()
        log = _log(trt)
        builder = trt.Builder(log)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, log)
        if not parser.parse(model):
            said = [_said(parser.get_error(k)) for k in range(parser.num_errors)]
            raise EngineError(f"TensorRT-RTX refuses {said[0] if said else 'the network'}")
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), 0):
            raise EngineError(f"TensorRT-RTX {self.version} does not build for {target}")
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise EngineError(
                f"TensorRT-RTX cannot build it for {target}: {log.last_error or 'it does not say why'}"
            )
        return bytes(engine)

    def load(self, engine: bytes, kernels: bytes | None) -> RtxSession:
        return _Session(_loaded(), engine, kernels)


class _Session(RtxSession):
    """On the first NVIDIA GPU, in a stream of its own, recorded whole after the first call."""

    def __init__(self, trt: Any, engine: bytes, kernels: bytes | None) -> None:
        self._log = _log(trt)
        self._runtime = trt.Runtime(self._log)
        loaded = self._runtime.deserialize_cuda_engine(engine)
        if loaded is None:
            raise EngineError(
                f"the engine does not load: {self._log.last_error or 'the library does not say why'}"
            )
        config = loaded.create_runtime_config()
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._kernels = config.create_runtime_cache()
        # what another driver or card has left is refused by the library itself, and made anew
        if kernels and not self._kernels.deserialize(kernels):
            logger.info("kernels kept by another driver or card are compiled anew")
        config.set_runtime_cache(self._kernels)
        self._context = loaded.create_execution_context(config)
        if self._context is None:
            raise EngineError(f"no room to run the engine: {self._log.last_error or 'out of memory'}")
        self._engine, self._stream = loaded, torch.cuda.Stream()
        kinds = {trt.float32: torch.float32, trt.int64: torch.int64, trt.int32: torch.int32}
        found: dict[bool, dict[str, Tensor]] = {True: {}, False: {}}
        for number in range(loaded.num_io_tensors):
            name = loaded.get_tensor_name(number)
            shape, kind = tuple(loaded.get_tensor_shape(name)), kinds[loaded.get_tensor_dtype(name)]
            memory = torch.zeros(shape, dtype=kind, device="cuda")
            self._context.set_tensor_address(name, memory.data_ptr())
            found[loaded.get_tensor_mode(name) == trt.TensorIOMode.INPUT][name] = memory
        self.inputs, self.outputs = found[True], found[False]

    def run(self) -> None:
        self._stream.wait_stream(torch.cuda.current_stream())  # of what was written to `inputs`
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise EngineError(
                f"the engine does not run: {self._log.last_error or 'the library does not say why'}"
            )
        self._stream.synchronize()

    def compiled_kernels(self) -> bytes:
        return bytes(self._kernels.serialize())


def _loaded() -> Any:
    import tensorrt_rtx  # pyright: ignore[reportMissingImports]

    return tensorrt_rtx


def _said(error: Any) -> str:
    """What the parser says of a node."""
    node = f"the operator {error.node_operator()}" if error.node_operator() else "the network"
    return f"{node}: {' '.join(str(error.desc()).split())[:200]}"


def _log(trt: Any) -> Any:
    """A logger of the library's that keeps the last error: what it refuses, it says there alone."""

    class Log(trt.ILogger):
        """See `_log`."""

        last_error = ""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            """Called by the library."""
            if severity <= trt.ILogger.Severity.ERROR:
                self.last_error = " ".join(message.split())[:300]
            elif severity <= trt.ILogger.Severity.WARNING:
                logger.debug("TensorRT-RTX: %s", message)

    return Log()
