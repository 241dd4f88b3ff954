"""A network that serves at once with torch and, as soon as it is compiled, with the best engine."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from torch import Tensor, nn

from engines.compile.engine import Compiled, Engine, Precision, private_copy
from engines.compile.open import compile_best
from engines.compile.precision import fast_precision
from engines.compile.torch_engine import TorchEngine
from engines.errors import EngineError

logger = logging.getLogger(__name__)


class BackgroundEngine:
    """Callable as the module. Compiles in a thread of its own; `tier_name` says what serves.

    `key` names the network and its weights in the engine cache. One thread calls; an engine that cannot be built
    leaves torch at work. The module stays the caller's: it is copied here, and nothing waits for it or changes it.
    Raises EngineError, as a call does, when torch itself cannot run the module on the example.
    """

    def __init__(
        self,
        module: nn.Module,
        example_inputs: Sequence[Tensor],
        key: str,
        *,
        order: Sequence[Engine] | None = None,
    ) -> None:
        """`order` (None: the declared one) is tried engine by engine."""
        # Imports OpenVINO, here and not in the builder's thread: the import forks, and a fork while another thread
        # computes in BLAS can hang both.
        precision = fast_precision()
        # copied in the caller's thread: the builder's would read it while the caller may be changing it
        module, example = private_copy(module), tuple(x.detach().clone() for x in example_inputs)
        self._call: Compiled = TorchEngine().compile(module, example, "fp32")
        self.tier_name = TorchEngine.name
        self._built = threading.Event()
        # no daemon: a process that ends in the middle of a native compilation would crash
        threading.Thread(
            target=self._build, args=(module, example, precision, order, key), name="engine-builder"
        ).start()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self._call(*inputs)

    def wait(self, timeout_s: float) -> bool:
        """Whether building has ended within `timeout_s`."""
        return self._built.wait(timeout_s)

    def _build(
        self,
        module: nn.Module,
        example: Sequence[Tensor],
        precision: Precision,
        order: Sequence[Engine] | None,
        key: str,
    ) -> None:
        try:
            # the first call, which is slow, is made there and not at the cost of a frame
            self._call, self.tier_name, _ = compile_best(module, example, precision, order, key)
        except EngineError as error:
            logger.warning("no engine took %s, torch goes on: %s", key, error)
        finally:
            self._built.set()
