"""OpenVINO on the CPU: the default for networks without an NVIDIA GPU."""

from __future__ import annotations

import threading
import warnings
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engines.compile.engine import Compiled, Engine, Precision, Tier, private_copy, refusing
from engines.compile.exports import engine_cache_folder, keep_export, read_export, write_export
from engines.compile.int8 import known_ranges, quantise
from engines.compile.openvino_import import load_openvino
from engines.errors import EngineError

_TRACING = threading.Lock()


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU, in any precision; keeps what it exported when it is given a key."""

    name = "openvino"
    eight_bits = True

    def tier(self) -> Tier:
        try:
            known = version("openvino") if find_spec("openvino") else None
        except PackageNotFoundError:
            known = None
        if known is None:
            return Tier(self.name, False, "not installed; type: pip install openvino")
        return Tier(self.name, True, f"openvino {known} on the CPU")

    def build(
        self, module: nn.Module, example: tuple[Tensor, ...], precision: Precision, key: str | None
    ) -> Compiled:
        ov = load_openvino()
        # what no range is known of stays in float32 beside whole numbers
        kind = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}[precision]
        hints = {"INFERENCE_PRECISION_HINT": kind, "PERFORMANCE_HINT": "LATENCY"}
        core = ov.Core()
        network = _network(core, module, example, key)
        if precision == "int8" and not quantise(network, known_ranges(module)):
            raise EngineError(
                "nobody has measured this network's ranges; type, in a checkout: python -m scripts.calibrate PAIRS"
            )
        compiled = core.compile_model(network, "CPU", hints)
        request = compiled.create_infer_request()
        outputs = list(compiled.outputs)

        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            # inputs are shared, results are copied: the request's own memory is written again by the next call
            result = request.infer([x.detach().numpy() for x in inputs], share_inputs=True)
            return tuple(torch.from_numpy(result[port]) for port in outputs)

        return run


def _network(core: Any, module: nn.Module, example: tuple[Tensor, ...], key: str | None) -> Any:
    """The network for the example's shapes: the one kept under `key`, else exported now, and kept."""
    shapes = [list(x.shape) for x in example]
    path = None if key is None else _path(engine_cache_folder(), key)
    kept = None if path is None else read_export(core, path)
    if kept is not None and [list(port.shape) for port in kept.inputs] == shapes:
        return kept
    network = _converted(module, example)
    network.reshape(dict(zip(network.inputs, shapes, strict=True)))
    if path is not None:
        keep_export(network, path)
    return network


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}-openvino-{version('openvino')}.xml"


def kept_network(module: nn.Module, example: tuple[Tensor, ...], key: str, folder: Path) -> Path:
    """Where `folder` has the network (.xml, its weights beside it), exported now unless it is there and whole.

    Raises EngineError where it cannot be exported, OSError where it cannot be kept.
    """
    path, core, own = _path(folder, key), load_openvino().Core(), private_copy(module)
    with refusing("the export to OpenVINO"):
        network = _network(core, own, example, None) if read_export(core, path) is None else None
    if network is not None:
        write_export(network, path)
    return path


def _converted(module: nn.Module, example: tuple[Tensor, ...]) -> Any:
    """As `ov.convert_model`, by the front end alone, which needs OpenVINO loaded."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # what a network asks of sizes is answered for good, which is meant: an engine is for one size
    warnings.simplefilter("ignore", torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage]
    with _TRACING, torch.no_grad():  # tracing is for one thread at a time
        decoder = TorchScriptPythonDecoder(module, example_input=example)
        front_end: Any = FrontEndManager().load_by_framework("pytorch")
        return front_end.convert(front_end.load(decoder))
