"""`open_engine`: an engine by its name. A new one stands here and in `names`, and can be chosen everywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from torch import Tensor, nn

from engines.compile.engine import Compiled, Engine, Precision, Tier
from engines.compile.names import ENGINE_NAMES, ENGINES_SETTING
from engines.errors import EngineError, no_such


# Each imported when asked for: one tier's libraries must not take the others with them.
def _tensorrt() -> Engine:
    from engines.compile.tensorrt_engine import TensorRtEngine

    return TensorRtEngine()


def _tensorrt_rtx() -> Engine:
    from engines.compile.tensorrt_rtx_engine import TensorRtRtxEngine

    return TensorRtRtxEngine()


def _torch_compile() -> Engine:
    from engines.compile.torch_compile_engine import TorchCompileEngine, TorchCompileOnCpuEngine

    on_gpu = TorchCompileEngine()
    return on_gpu if on_gpu.name not in _named() or on_gpu.has_gpu() else TorchCompileOnCpuEngine()


def _cuda_graphs() -> Engine:
    from engines.compile.cuda_graph_engine import CudaGraphEngine

    return CudaGraphEngine()


def _openvino() -> Engine:
    from engines.compile.openvino_engine import OpenVinoEngine

    return OpenVinoEngine()


def _torch() -> Engine:
    from engines.compile.torch_engine import TorchEngine

    return TorchEngine()


ENGINES: dict[str, Callable[[], Engine]] = {
    "tensorrt": _tensorrt,
    "tensorrt-rtx": _tensorrt_rtx,
    "torch compile": _torch_compile,
    "cuda graphs": _cuda_graphs,
    "openvino": _openvino,
    "torch": _torch,
}


def open_engine(name: str) -> Engine:
    """The engine called `name`, available here or not. Raises EngineError listing the names there are."""
    if name not in ENGINES:
        raise EngineError(no_such("engine", name, ENGINES))
    return ENGINES[name]()


def engine_order() -> tuple[str, ...]:
    """The engines to try, in order: as `VISAVIS_ENGINES` names them, else as declared.

    Raises EngineError for a name that there is not.
    """
    names = _named()
    for name in names:
        if name not in ENGINES:
            raise EngineError(f"{ENGINES_SETTING}: {no_such('engine', name, ENGINES)}")
    return names or ENGINE_NAMES


def _named() -> tuple[str, ...]:
    """What `VISAVIS_ENGINES` says, each once."""
    told = [name.strip() for name in os.environ.get(ENGINES_SETTING, "").split(",")]
    return tuple(dict.fromkeys(name for name in told if name))


def tiers() -> list[Tier]:
    """Every tier in order, with the reason for each refusal (shown by `visavis doctor`). Raises EngineError as
    `engine_order` does."""
    order = engine_order()
    left_out = f"left out of {ENGINES_SETTING}; name it there to have it"
    return [
        *(open_engine(name).tier() for name in order),
        *(Tier(name, False, left_out) for name in ENGINE_NAMES if name not in order),
    ]


def compile_best(
    module: nn.Module,
    example_inputs: Sequence[Tensor],
    precision: Precision = "fp32",
    order: Iterable[Engine] | None = None,
    key: str | None = None,
) -> tuple[Compiled, str, list[str]]:
    """The compiled module, the name of the tier that took it, and why earlier tiers did not.

    `order` (None: `engine_order`) is tried one by one, each until it has answered the example. Raises EngineError
    with every reason when no tier takes it.
    """
    reasons: list[str] = []
    for engine in map(open_engine, engine_order()) if order is None else order:
        try:
            return engine.compile(module, example_inputs, precision, key), engine.name, reasons
        except EngineError as error:
            reasons.append(f"{engine.name}: {error}")
    raise EngineError("; ".join(reasons) or "no engine was given to compile with")
