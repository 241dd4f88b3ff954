"""A model repository for NVIDIA's Triton Inference Server: each network as ONNX, with a config.pbtxt made from it.

    REPOSITORY/visavis-head/config.pbtxt
    REPOSITORY/visavis-head/1/model.onnx        a number for each network that once had the name, the newest served

Each network is a model by itself: between those of a frame lies geometry (rasterising, warping at full size, blending),
which stays with the call, and an encoder runs once a photo, so that there is nothing that an ensemble would connect.
Every input and output has one row a call, and calls that arrive together are computed together. What a network
remembers (speech) goes in and out with each request: a server that keeps it would have to be told when calls end.
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engines.compile.engine import Precision
from engines.compile.network import Network
from engines.compile.onnx_export import MOST_ROWS, OPSET, input_names, onnx_of
from engines.errors import EngineError
from engines.files import write_whole

CONFIG, MODEL = "config.pbtxt", "model.onnx"
_KEY = "visavis"  # in the model's own metadata: what it was exported from
# Triton's name of each ONNX element type, by its number
_KINDS = {1: "TYPE_FP32", 2: "TYPE_UINT8", 6: "TYPE_INT32", 7: "TYPE_INT64", 9: "TYPE_BOOL", 10: "TYPE_FP16"}


@dataclass(frozen=True, slots=True)
class Port:
    """An input or an output: `kind` by Triton's name, `dims` of one call."""

    name: str
    kind: str
    dims: tuple[int, ...]


def write_model(network: Network, precision: Precision, repository: Path) -> tuple[Path, int, bool]:
    """Have `repository` serve `network`: (its file, bytes, whether it was written now or was there).

    Raises EngineError where it cannot be exported, OSError where it cannot be written.
    """
    folder, told = repository / network.name, _told(network, precision)
    newest = max(_versions(folder), default=0)
    path = folder / str(newest) / MODEL
    if newest and _says(path) == told and _serves(folder, newest):
        return path, path.stat().st_size, False
    model = _exported(network, precision)
    entry = model.metadata_props.add()
    entry.key, entry.value = _KEY, told
    data: bytes = model.SerializeToString()
    number = _free(folder, newest + 1)
    path = folder / str(number) / MODEL
    write_whole(path, data)
    # last: until then the server goes on with the version before
    write_whole(folder / CONFIG, config_of(network.name, number, *ports_of(model)))
    return path, len(data), True


def config_of(name: str, number: int, inputs: Sequence[Port], outputs: Sequence[Port]) -> str:
    """A `ModelConfig` in protobuf's text format: version `number` alone is served, calls in batches without waiting."""
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {MOST_ROWS}",
        f"version_policy {{ specific {{ versions: [ {number} ] }} }}",
        *_listed("input", inputs),
        *_listed("output", outputs),
        "dynamic_batching { }",
    ]
    return "\n".join(lines) + "\n"


def ports_of(model: Any) -> tuple[list[Port], list[Port]]:
    """Inputs and outputs of a `ModelProto`. Raises EngineError for one without a row a call, or of no fixed shape."""
    return [_port(v) for v in model.graph.input], [_port(v) for v in model.graph.output]


class PerCall(nn.Module):
    """A network with inputs and outputs of several rows a call (B n, …) as one with a row a call (B, n, …)."""

    def __init__(self, module: nn.Module, example: Sequence[Tensor]) -> None:
        super().__init__()
        self.module = module
        self._rows = [len(x) for x in example]
        with torch.no_grad():
            result = module(*example)
        self._answered = [len(x) for x in (result if isinstance(result, tuple | list) else (result,))]

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        flat = [x if n == 1 else x.flatten(0, 1) for x, n in zip(given, self._rows, strict=True)]
        result = self.module(*flat)
        outputs = result if isinstance(result, tuple | list) else (result,)
        return tuple(
            x if n == 1 else x.unflatten(0, (-1, n)) for x, n in zip(outputs, self._answered, strict=True)
        )

    def per_call(self, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Inputs as the network takes them → as this does."""
        return tuple(x if n == 1 else x.unflatten(0, (-1, n)) for x, n in zip(given, self._rows, strict=True))


def _exported(network: Network, precision: Precision) -> Any:
    import onnx  # pyright: ignore[reportMissingImports]

    module = PerCall(network.module, network.example)
    names = input_names(network.module, network.example)
    example = module.per_call(network.example)
    return onnx.load_from_string(onnx_of(module, example, precision, any_batch=True, names=names))


def _port(value: Any) -> Port:
    kind, dims = value.type.tensor_type.elem_type, value.type.tensor_type.shape.dim
    if kind not in _KINDS:
        raise EngineError(f"Triton is not told of {value.name}: of element type {kind}")
    if not dims or dims[0].HasField("dim_value") or not all(d.HasField("dim_value") for d in dims[1:]):
        shape = [d.dim_value or d.dim_param for d in dims]
        raise EngineError(f"Triton is not told of {value.name}: {shape} is not one row a call")
    return Port(value.name, _KINDS[kind], tuple(d.dim_value for d in dims[1:]))


def _listed(what: str, ports: Sequence[Port]) -> list[str]:
    rows = [
        f'  {{ name: "{p.name}" data_type: {p.kind} dims: [ {", ".join(map(str, p.dims))} ] }}' for p in ports
    ]
    return [f"{what} [", *(f"{row}," for row in rows[:-1]), *rows[-1:], "]"]


def _told(network: Network, precision: Precision) -> str:
    """All that makes another model."""
    versions = {name: version(name).split("+")[0] for name in ("torch", "onnxscript")}
    told = {"network": network.key, "precision": precision, "opset": OPSET, "rows": MOST_ROWS, **versions}
    return json.dumps(told, sort_keys=True)


def _says(path: Path) -> str | None:
    """What the model at `path` was exported from; None where there is none that is whole."""
    import onnx  # pyright: ignore[reportMissingImports]

    try:
        props = onnx.load_from_string(path.read_bytes()).metadata_props
    except Exception:  # whatever a damaged file does to a reader
        return None
    return next((p.value for p in props if p.key == _KEY), None)


def _serves(folder: Path, number: int) -> bool:
    """Whether the configuration that is there, whatever else people have written into it, names this version."""
    try:
        return f"versions: [ {number} ]" in (folder / CONFIG).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _versions(folder: Path) -> list[int]:
    return [int(p.name) for p in folder.glob("[1-9]*") if p.name.isdecimal()]


def _free(folder: Path, first: int) -> int:
    """A version that nobody has, from now on this process'."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in count(first):
        try:
            (folder / str(number)).mkdir()
            return number
        except FileExistsError:  # another process is at it too
            continue
    raise AssertionError("numbers do not end")
