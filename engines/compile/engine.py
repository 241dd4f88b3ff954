"""The `Engine` contract: compile a network for this computer. What holds for every tier is done here, once."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from engines.errors import EngineError, EngineFailed, brief

Precision = Literal["fp32", "bf16", "fp16", "int8"]
Compiled = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True)
class Tier:
    """Whether an engine can be used here; `reason` says why not, with the fix, or what it will do."""

    name: str
    available: bool
    reason: str


class Engine(ABC):
    """Compiles one module for fixed shapes. `compile` may take long; the callable it gives is for one thread.

    - `native`: the precision that its device is fast in, whatever the CPU's is; None: the caller's.
    - `eight_bits`: computes a network in int8 that knows its ranges (`int8.know_ranges`).
    - `slow`: building takes so long that a faster built tier should serve meanwhile.
    """

    name: str
    native: Precision | None = None
    eight_bits: bool = False
    slow: bool = False

    @abstractmethod
    def tier(self) -> Tier:
        """Whether this engine works here; cheap, never raises."""

    @abstractmethod
    def build(
        self, module: nn.Module, example: tuple[Tensor, ...], precision: Precision, key: str | None
    ) -> Compiled:
        """What a tier does for `compile`: a callable from tensors like `example` to a tuple of float32 CPU tensors.

        `module`, in eval mode, and `example` are the engine's own, to keep, move or change. The callable gives new
        tensors each time, and may trust its inputs. Whatever it raises, or this does, becomes an EngineError.
        """

    @final
    def compile(
        self,
        module: nn.Module,
        example_inputs: Sequence[Tensor],
        precision: Precision,
        key: str | None = None,
    ) -> Compiled:
        """A callable with the module's inputs, giving its outputs as a tuple of float32 CPU tensors.

        The module stays as it is, in mode, device and dtype, and may go on serving meanwhile: a copy is compiled,
        which later changes of the module do not reach. An answer belongs to the caller: no later call changes it.

        `key` names the network and its weights: an engine that can keeps what it exported under it for the next
        start. Raises EngineError with the reason when the module cannot be compiled or fails on the example. The
        callable raises it for inputs of another number, shape or dtype than the example's, and EngineFailed when a call
        fails.
        """
        with refusing("asking whether it works here"):
            tier = self.tier()
        if not tier.available:
            raise EngineError(tier.reason)
        own = private_copy(module)
        with refusing("reading the example"):
            example = tuple(x.detach().clone() for x in example_inputs)
            inputs = Inputs.of(module, example)
        with refusing("building"):
            run = self.build(own, example, precision, key)
        with refusing("the first call"):
            answer = run(*example)
            if not answer or any(o.dtype != torch.float32 or o.device.type != "cpu" for o in answer):
                raise TypeError(
                    f"not float32 tensors on the CPU came out, but {[_described(o) for o in answer]}"
                )
        return _Checked(self.name, inputs, run)


class _Checked:
    """A compiled network between its caller, whose inputs are checked, and its engine, whose failures are named."""

    def __init__(self, engine_name: str, inputs: Inputs, run: Compiled) -> None:
        self._name, self._inputs, self._run = engine_name, inputs, run

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        self._inputs.require(given)
        try:
            return self._run(*given)
        except Exception as error:
            raise EngineFailed(f"the engine {self._name} failed in a call: {brief(error)}") from error


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a network was compiled for: the inputs of its `forward` in order, with shapes and dtypes."""

    names: tuple[str, ...]
    kinds: tuple[tuple[torch.Size, torch.dtype], ...]

    @staticmethod
    def of(module: nn.Module, example: Sequence[Tensor]) -> Inputs:
        """The inputs of `module`, shaped as `example`."""
        return Inputs(_names(module, len(example)), tuple((x.shape, x.dtype) for x in example))

    def require(self, given: Sequence[object]) -> None:
        """Raise EngineError naming each input that differs. Microseconds when none does: asked for every frame."""
        if len(given) == len(self.kinds):
            for x, (shape, dtype) in zip(given, self.kinds, strict=True):
                if not isinstance(x, Tensor) or x.shape != shape or x.dtype != dtype:
                    break
            else:
                return
        raise EngineError(self._complaint(given))

    def _complaint(self, given: Sequence[object]) -> str:
        if len(given) != len(self.kinds):
            names = ", ".join(self.names)
            return f"{len(given)} inputs were given to a network compiled for {len(self.kinds)}: {names}"
        wrong = [
            f"{name} is {_described(x)}, not {_kind(*kind)}"
            for name, x, kind in zip(self.names, given, self.kinds, strict=True)
            if not isinstance(x, Tensor) or (x.shape, x.dtype) != kind
        ]
        return f"inputs differ from what the network was compiled for: {'; '.join(wrong)}"


def _names(module: nn.Module, count: int) -> tuple[str, ...]:
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # compiled code has no signature
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "input")
    return (*names[:count], *(f"{rest}[{k}]" for k in range(count - len(names))))


def _described(value: Any) -> str:
    return _kind(value.shape, value.dtype) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _kind(shape: torch.Size, dtype: torch.dtype) -> str:
    return f"{str(dtype).removeprefix('torch.')} {tuple(shape)}"


def private_copy(module: nn.Module) -> nn.Module:
    """A copy of `module` in eval mode. Raises EngineError where it cannot be copied."""
    with refusing("copying the network"):
        return copy.deepcopy(module).eval()


def answer_of(result: object) -> tuple[Tensor, ...]:
    """The tensors of a module's result as float32 on the CPU, each a copy: the next call may reuse what it gave."""
    outputs = result if isinstance(result, tuple | list) else (result,)
    return tuple(o.to("cpu", torch.float32, copy=True) for o in outputs if isinstance(o, Tensor))


@contextmanager
def refusing(what: str) -> Generator[None]:
    """Turn whatever goes wrong inside into an EngineError that says `what` failed, so that the next tier is tried."""
    try:
        yield
    except EngineError:
        raise
    except Exception as error:  # drivers and compilers have kinds of their own
        raise EngineError(f"{what} failed: {brief(error)}") from error
