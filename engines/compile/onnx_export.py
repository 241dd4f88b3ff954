"""`onnx_of`: a network as ONNX, of standard operators alone, for any runtime; `complaint_of` says what is not."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from engines.compile.engine import Inputs, Precision, private_copy, refusing
from engines.compile.mixed import EXPORTING, Mixed
from engines.errors import EngineError

OPSET = 22  # the first in which GridSample takes bfloat16
MOST_ROWS = 128  # of a network for any batch
EXPORT_COMMAND = "pip install 'visavis[export]'"
# what one compiler or another has no kernel for
_WITHOUT_KERNELS = ("AffineGrid", "Col2Im", "DFT", "DeformConv")
_MOST_BYTES = (
    2**28
)  # of a constant that is worked out at once: every weight that is stored in another precision


def export_refusal() -> str | None:
    """Why nothing can be exported here, with the fix; None where it can."""
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if not missing:
        return None
    return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; type: {EXPORT_COMMAND}"


def onnx_of(
    module: nn.Module,
    example: Sequence[Tensor],
    precision: Precision = "fp32",
    *,
    any_batch: bool = False,
    names: Sequence[str] | None = None,
) -> bytes:
    """An ONNX file of `module` for inputs like `example`, called `names` (None: as its `forward` names them); outputs
    `output0` ….

    Inputs and outputs are float32. Within, `precision` is what torch's mixed precision makes of it, as networks are
    trained: convolutions and products in it, coordinates and what code asks for in full precision in float32.
    `any_batch`: 1 … `MOST_ROWS` times the rows of the example, the same for every input.
    Raises EngineError where it cannot be exported, or not by operators that any runtime has.
    """
    if refusal := export_refusal():
        raise EngineError(refusal)
    own, given = Mixed(private_copy(module), precision).eval(), tuple(x.detach() for x in example)
    rows: Any = None
    if any_batch:
        batch = torch.export.Dim("rows", min=1, max=MOST_ROWS)
        rows = (tuple({0: batch if len(x) == 1 else len(x) * batch} for x in given),)
        given = tuple(torch.cat([x, x]) for x in given)  # one row alone would be taken for a fixed size
    with refusing("the export to ONNX"), EXPORTING, _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            own,
            given,
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
            input_names=list(names or input_names(module, example)),
            output_names=[output_name(k) for k in range(len(own(*given)))],
            dynamic_shapes=rows,
        )
        _agree(program.model.graph)
        _fold(program.model)
        model = program.model_proto
        data: bytes = model.SerializeToString()
    if complaint := complaint_of(model):
        raise EngineError(f"the exported network has {complaint}")
    return data


def input_names(module: nn.Module, example: Sequence[Tensor]) -> list[str]:
    """What `onnx_of` calls the inputs."""
    return [name.replace("[", "_").rstrip("]") for name in Inputs.of(module, example).names]


def output_name(number: int) -> str:
    """What `onnx_of` calls an output."""
    return f"output{number}"


def complaint_of(model: Any) -> str | None:
    """What a `ModelProto` has that some runtime has not: operators of another's domain, functions, operators without
    kernels, pictures of more than two dimensions; None for nothing."""
    graph = model.graph
    own = {d for d in (*(i.domain for i in model.opset_import), *(n.domain for n in graph.node)) if d != ""}
    if own:
        return f"operators that are not ONNX's own: {', '.join(sorted(own))}"
    if len(model.functions):
        return "functions of its own"
    for node in graph.node:
        if node.op_type in _WITHOUT_KERNELS:
            return f"the operator {node.op_type}"
        if node.op_type == "Resize" and any(a.name == "antialias" and a.i for a in node.attribute):
            return "a Resize with antialias"
    ranks = {
        v.name: len(v.type.tensor_type.shape.dim)
        for v in (*graph.input, *graph.output, *graph.value_info)
        if v.type.tensor_type.HasField("shape")
    }
    ranks |= {w.name: len(w.dims) for w in graph.initializer}
    for node in graph.node:
        if node.op_type == "GridSample" and any(ranks.get(name) != 4 for name in node.input):
            return "a GridSample of other than rank 4"
    return None


def _agree(graph: Any) -> None:
    """Group norms whose scale and shift are of what they scale's kind: torch mixes them, ONNX may not."""
    import onnx_ir as ir  # pyright: ignore[reportMissingImports]

    for node in graph:
        if node.op_type != "GroupNormalization":
            continue
        kind = node.inputs[0].dtype
        for number in (1, 2):
            if node.inputs[number].dtype != kind:
                cast = ir.node("Cast", [node.inputs[number]], {"to": kind})
                cast.outputs[0].dtype, cast.outputs[0].shape = kind, node.inputs[number].shape
                node.prepend(cast)
                node.replace_input_with(number, cast.outputs[0])


def _fold(model: Any) -> None:
    """Weights stored in the precision in which they are used."""
    import onnxscript.optimizer as optimizer  # pyright: ignore[reportMissingImports]

    optimizer.fold_constants(model, input_size_limit=_MOST_BYTES, output_size_limit=_MOST_BYTES)
    optimizer.remove_unused_nodes(model)


@contextmanager
def _quiet() -> Generator[None]:
    """The exporter tells of each of its steps, and of packages that it can do without."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
