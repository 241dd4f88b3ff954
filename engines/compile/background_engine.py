"""A network that serves at once with torch and, as soon as it is compiled, with the best engine."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engines.compile.engine import (
    ORDER,
    Compiled,
    Engine,
    EngineError,
    Precision,
    TorchEngine,
    compile_best,
    fast_precision,
)

logger = logging.getLogger(__name__)


class BackgroundEngine:
    """Callable as the module. Compiles in a thread of its own; `tier_name` says what serves.

    `key` names the network and its weights in the engine cache. One thread calls; an engine that cannot be built
    leaves torch at work.
    """

    def __init__(
        self,
        module: nn.Module,
        example_inputs: Sequence[Tensor],
        key: str,
        *,
        order: Sequence[Engine] = ORDER,
    ) -> None:
        self._module, self._example, self._key = module, tuple(example_inputs), key
        self._order = order
        # Imports OpenVINO, here and not in the builder's thread: the import forks, and a fork while another thread
        # computes in BLAS can hang both.
        self._precision: Precision = fast_precision()
        self._call: Compiled = TorchEngine().compile(module, example_inputs, "fp32")
        self.tier_name = TorchEngine.name
        self._built = threading.Event()
        # no daemon: a process that ends in the middle of a native compilation would crash
        threading.Thread(target=self._build, name="engine-builder").start()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self._call(*inputs)

    def wait(self, timeout_s: float) -> bool:
        """Whether building has ended within `timeout_s`."""
        return self._built.wait(timeout_s)

    def _build(self) -> None:
        try:
            call, name, _ = compile_best(self._module, self._example, self._precision, self._order, self._key)
            with torch.inference_mode():
                call(*self._example)  # the first call is slow: not at the cost of a frame
            self._call, self.tier_name = call, name
        except EngineError as error:
            logger.warning("no engine took %s, torch goes on: %s", self._key, error)
        finally:
            self._built.set()
