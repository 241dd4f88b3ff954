"""`Network`: what an engine is given to compile, with the key under which compiled forms of it are kept."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

from torch import Tensor, nn

_NOT_OURS = ("torch", "builtins", "abc", "typing")


@dataclass(frozen=True, slots=True)
class Network:
    """A module in eval mode and inputs as it gets them.

    - `name`: letters, digits and hyphens, such as `visavis-head`.
    - `key`: the name, what its weights are and what its code is; a change of either is another network.
    """

    name: str
    module: nn.Module
    example: tuple[Tensor, ...]
    key: str

    @staticmethod
    def of(
        name: str,
        module: nn.Module,
        example: Iterable[Tensor],
        weights: str,
        also: Collection[type] = (),
        without: Collection[str] = (),
    ) -> Network:
        """`weights`: their digest; `also`: classes beside the module's own whose code runs in it; `without`: parts
        left out."""
        source = source_digest(module, also, without)
        return Network(name, module, tuple(example), f"{name}-{weights[:16]}-{source[:8]}")


def source_digest(module: nn.Module, also: Collection[type] = (), without: Collection[str] = ()) -> str:
    """Of all of our code that runs in `module`, functions that it imports included, and of the parts left out."""
    kinds = {*also, *(type(m) for m in module.modules())}
    ours = [kind for kind in kinds if _is_ours(kind)]
    digest = hashlib.sha256(",".join(sorted(without)).encode())
    files = {inspect.getfile(kind) for kind in ours}
    for name in {kind.__module__ for kind in ours}:
        imported = vars(sys.modules[name]).values()
        functions = [inspect.unwrap(f) for f in imported if isinstance(f, FunctionType)]
        files |= {inspect.getfile(f) for f in functions if _is_ours(f)}
    for path in sorted(files):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def _is_ours(what: type | FunctionType) -> bool:
    top = what.__module__.partition(".")[0]
    return top not in _NOT_OURS and (isinstance(what, type) or top == __name__.partition(".")[0])
