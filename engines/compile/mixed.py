"""`Mixed`: a network as engines compute it, float32 in and out, within by torch's mixed precision, as it learned.

Convolutions and products are computed in fp16 or bf16; coordinates, sampling and what code asks for in full precision
stay in float32. A network moved as a whole would have its coordinates in the eight bits of bf16.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engines.compile.engine import Precision
from engines.errors import EngineError

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
EXPORTING = threading.Lock()  # torch exports one network at a time
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)
_CHECKED = (
    torch.ops.aten._assert_tensor_metadata.default
)  # of dtypes that were traced: no operator of a network


class Mixed(nn.Module):
    """A module whose answers are a tuple of float32 tensors, computed in `precision` on a device of kind `device`."""

    def __init__(self, module: nn.Module, precision: Precision, device: str = "cpu") -> None:
        """Raises EngineError for a precision that torch does not mix."""
        super().__init__()
        if precision not in DTYPES:
            raise EngineError(f"torch computes in {', '.join(DTYPES)}, not in {precision}")
        self.module, self.device = module, device
        self.dtype = DTYPES[precision]

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        # no cache: what it keeps of one trace is another's constant
        low = self.dtype != torch.float32
        with torch.autocast(self.device, self.dtype if low else None, enabled=low, cache_enabled=False):
            result = self.module(*given)
        outputs = result if isinstance(result, tuple | list) else (result,)
        return tuple(o.float() for o in outputs if isinstance(o, Tensor))


def mixed(module: nn.Module, example: Sequence[Tensor], precision: Precision) -> Mixed:
    """`module`, which is the engine's own and on its device already, as `Mixed`, weights stored as they are used.

    Mixed precision rounds weights in every call, to the same numbers: here it is done once. One call on `example`
    tells which layers compute in low precision.
    """
    kind = example[0].device.type if example else "cpu"
    found = Mixed(module, precision, kind).eval()
    if found.dtype != torch.float32:
        _store_low(found, example)
    return found


def _store_low(network: Mixed, example: Sequence[Tensor]) -> None:
    low, full = set[nn.Module](), set[nn.Module]()

    def called(layer: nn.Module, _: Any) -> None:
        (low if torch.is_autocast_enabled(network.device) else full).add(layer)

    layers = [m for m in network.modules() if isinstance(m, _LAYERS)]
    hooks = [layer.register_forward_pre_hook(called) for layer in layers]
    try:
        with torch.inference_mode():
            network(*example)
    finally:
        for hook in hooks:
            hook.remove()
    own = low - full
    # a weight that something else reads too stays as it is
    read = {id(p) for m in network.modules() if m not in own for p in m.parameters(recurse=False)}
    for layer in own:
        for parameter in layer.parameters(recurse=False):
            if id(parameter) not in read:
                parameter.data = parameter.data.to(network.dtype)


def spelled_out(network: nn.Module, example: Sequence[Tensor]) -> nn.Module:
    """The network as a graph of ATen operators in which each change of precision is an operator of its own.

    Its code is its own too: what compilers keep by code object is not shared with other networks.
    """
    with EXPORTING, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        # each a tensor of its own: one that is given twice would be one input
        given = tuple(x.detach() for x in example)
        program = torch.export.export(network, given).run_decompositions({})
        for node in program.graph.find_nodes(op="call_function", target=_CHECKED):
            program.graph.erase_node(node)
        return program.module(check_guards=False)
