"""The `Engine` contract: compile a network for this computer, in a declared order of tiers with reasons."""

from __future__ import annotations

import copy
import hashlib
import logging
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from platformdirs import user_cache_path
from torch import Tensor, nn

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "fp16"]
Compiled = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True)
class Tier:
    """Whether an engine can be used here; `reason` says why not, with the fix, or what it will do."""

    name: str
    available: bool
    reason: str


class EngineError(Exception):
    """A tier refused a network; the next one is tried."""


class Engine(ABC):
    """Compiles one module for fixed shapes. `compile` may take long; the callable it gives is for one thread."""

    name: str

    @abstractmethod
    def tier(self) -> Tier:
        """Whether this engine works here; cheap, never raises."""

    @abstractmethod
    def compile(
        self,
        module: nn.Module,
        example_inputs: Sequence[Tensor],
        precision: Precision,
        key: str | None = None,
    ) -> Compiled:
        """A callable with the module's inputs, giving its outputs as a tuple of float32 CPU tensors.

        `key` names the network and its weights: an engine that can keeps what it exported under it for the next
        start. Raises EngineError with the reason when the module cannot be compiled.
        """


def _as_tuple(result: object) -> tuple[Tensor, ...]:
    outputs = result if isinstance(result, tuple | list) else (result,)
    return tuple(o.float().cpu() for o in outputs if isinstance(o, Tensor))


class TorchEngine(Engine):
    """Eager torch on the CPU: always there, the reference that others must match."""

    name = "torch"

    def tier(self) -> Tier:
        return Tier(
            self.name, True, f"torch {torch.__version__}, eager on {torch.get_num_threads()} CPU threads"
        )

    def compile(
        self,
        module: nn.Module,
        example_inputs: Sequence[Tensor],
        precision: Precision,
        key: str | None = None,
    ) -> Compiled:
        if precision == "fp16":
            raise EngineError("fp16 is slower than fp32 on CPUs; choose bf16 or fp32")
        module = module.eval()

        def call(*inputs: Tensor) -> tuple[Tensor, ...]:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                return _as_tuple(module(*inputs))

        call(*example_inputs)
        return call


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU: the default for networks without an NVIDIA GPU."""

    name = "openvino"

    def tier(self) -> Tier:
        if find_spec("openvino") is None:
            return Tier(self.name, False, "not installed; type: pip install openvino")
        return Tier(self.name, True, f"openvino {version('openvino')} on the CPU")

    def compile(
        self,
        module: nn.Module,
        example_inputs: Sequence[Tensor],
        precision: Precision,
        key: str | None = None,
    ) -> Compiled:
        if not self.tier().available:
            raise EngineError(self.tier().reason)
        import openvino as ov

        kind = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[precision]
        hints = {"INFERENCE_PRECISION_HINT": kind, "PERFORMANCE_HINT": "LATENCY"}
        try:
            core = ov.Core()
            kept = (
                None if key is None else engine_cache_folder() / f"{key}-openvino-{version('openvino')}.xml"
            )
            converted = None if kept is None else _read_kept(core, kept)
            if converted is None:
                converted = _converted(module, example_inputs)
                shapes = {
                    port: list(x.shape) for port, x in zip(converted.inputs, example_inputs, strict=True)
                }
                converted.reshape(shapes)
                if kept is not None:
                    _keep(converted, kept)
            compiled = core.compile_model(converted, "CPU", hints)
        except Exception as error:  # OpenVINO raises RuntimeError and its own kinds
            raise EngineError(f"OpenVINO cannot compile this network: {error}") from error

        request = compiled.create_infer_request()
        outputs = list(compiled.outputs)

        def call(*inputs: Tensor) -> tuple[Tensor, ...]:
            result = request.infer([x.numpy() for x in inputs], share_inputs=True)
            return tuple(torch.from_numpy(result[port]) for port in outputs)

        return call


def _converted(module: nn.Module, example_inputs: Sequence[Tensor]) -> Any:
    """As `ov.convert_model`, by the front end alone: that one reports each conversion to its maker."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # tracing is for one thread at a time, and of a module that nobody is running
    with _TRACING, torch.no_grad():
        decoder = TorchScriptPythonDecoder(copy.deepcopy(module).eval(), example_input=tuple(example_inputs))
        front_end: Any = FrontEndManager().load_by_framework("pytorch")
        return front_end.convert(front_end.load(decoder))


_TRACING = threading.Lock()


def engine_cache_folder() -> Path:
    """Where exported networks are kept between starts."""
    return user_cache_path("visavis", appauthor=False) / "engines"


def fast_precision() -> Precision:
    """bfloat16 where this CPU computes in it, else float32."""
    try:
        import openvino as ov

        able = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except Exception:  # no OpenVINO, or one that does not know
        return "fp32"
    return "bf16" if "BF16" in able else "fp32"


def _read_kept(core: Any, path: Path) -> Any | None:
    """The network kept at `path`, or None when there is none or it is damaged: then it is exported again."""
    if not path.is_file():
        return None
    try:
        digest = path.with_suffix(".sha256").read_text(encoding="ascii").strip()
        if digest != _digest_of(path):
            raise ValueError("its sha256 does not match")
        return core.read_model(path)
    except Exception as error:
        logger.warning("the kept engine %s is damaged (%s): it is made again", path, error)
        return None


def _keep(network: Any, path: Path) -> None:
    """Write under a name of its own, then rename; a cache that cannot be written is no reason to stop."""
    import openvino as ov

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / path.name
            ov.save_model(network, part, compress_to_fp16=False)
            sums = part.with_suffix(".sha256")
            sums.write_text(_digest_of(part), encoding="ascii")
            for suffix in (".bin", ".xml", ".sha256"):
                part.with_suffix(suffix).replace(path.with_suffix(suffix))
    except OSError as error:
        logger.warning("the engine %s cannot be kept (%s)", path, error)


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes())
    digest.update(path.with_suffix(".bin").read_bytes())
    return digest.hexdigest()


class _CudaEngine(Engine):
    """What the two NVIDIA tiers share: why they cannot be used here."""

    def _refusal(self) -> str | None:
        if torch.version.cuda is None:
            return "this torch is a CPU build; install the CUDA build of torch 2.13 (docs/install.md)"
        if not torch.cuda.is_available():
            return "no usable NVIDIA GPU; check the driver with: nvidia-smi"
        return None


class CudaGraphEngine(_CudaEngine):
    """torch on an NVIDIA GPU, the launch cost removed by a CUDA graph."""

    name = "cuda graphs"

    def tier(self) -> Tier:
        refusal = self._refusal()
        return Tier(self.name, refusal is None, refusal or torch.cuda.get_device_name())

    def compile(
        self,
        module: nn.Module,
        example_inputs: Sequence[Tensor],
        precision: Precision,
        key: str | None = None,
    ) -> Compiled:
        refusal = self._refusal()
        if refusal:
            raise EngineError(refusal)
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        module = module.eval().cuda().to(kind)
        static = [x.cuda().to(kind) if x.is_floating_point() else x.cuda() for x in example_inputs]
        with torch.inference_mode():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):  # lazy initialisations must not be captured
                    module(*static)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                outputs = module(*static)

        def call(*inputs: Tensor) -> tuple[Tensor, ...]:
            for kept, given in zip(static, inputs, strict=True):
                kept.copy_(given)
            graph.replay()
            return _as_tuple(outputs)

        return call


class TensorRtEngine(_CudaEngine):
    """torch-tensorrt on an NVIDIA GPU: the fastest tier, an optional extra."""

    name = "tensorrt"

    def tier(self) -> Tier:
        refusal = self._refusal()
        if refusal is None and find_spec("torch_tensorrt") is None:
            refusal = (
                "torch-tensorrt is not installed; type: pip install 'visavis[tensorrt]' (docs/install.md)"
            )
        return Tier(self.name, refusal is None, refusal or torch.cuda.get_device_name())

    def compile(
        self,
        module: nn.Module,
        example_inputs: Sequence[Tensor],
        precision: Precision,
        key: str | None = None,
    ) -> Compiled:
        tier = self.tier()
        if not tier.available:
            raise EngineError(tier.reason)
        import torch_tensorrt  # pyright: ignore[reportMissingImports]

        kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        inputs = [x.cuda().to(kind) if x.is_floating_point() else x.cuda() for x in example_inputs]
        try:
            compiled = torch_tensorrt.compile(module.eval().cuda().to(kind), ir="dynamo", inputs=inputs)
        except Exception as error:
            raise EngineError(f"TensorRT cannot compile this network: {error}") from error

        def call(*given: Tensor) -> tuple[Tensor, ...]:
            with torch.inference_mode():
                moved = [x.cuda().to(kind) if x.is_floating_point() else x.cuda() for x in given]
                return _as_tuple(compiled(*moved))

        return call


# The declared order: the first that is available and accepts the network serves it.
ORDER: tuple[Engine, ...] = (TensorRtEngine(), CudaGraphEngine(), OpenVinoEngine(), TorchEngine())


def tiers() -> list[Tier]:
    """Every tier in order, with the reason for each refusal (shown by `visavis doctor`)."""
    return [engine.tier() for engine in ORDER]


def compile_best(
    module: nn.Module,
    example_inputs: Sequence[Tensor],
    precision: Precision = "fp32",
    order: Sequence[Engine] = ORDER,
    key: str | None = None,
) -> tuple[Compiled, str, list[str]]:
    """The compiled module, the name of the tier that took it, and why earlier tiers did not.

    Raises EngineError with every reason when no tier takes it.
    """
    reasons: list[str] = []
    for engine in order:
        tier = engine.tier()
        if not tier.available:
            reasons.append(f"{engine.name}: {tier.reason}")
            continue
        try:
            return engine.compile(module, example_inputs, precision, key), engine.name, reasons
        except EngineError as error:
            reasons.append(f"{engine.name}: {error}")
    raise EngineError("; ".join(reasons))
