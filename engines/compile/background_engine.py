"""A network that serves at once with torch and, as soon as it is compiled, with the best engine."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from engines.compile.engine import Compiled, Engine, Precision, private_copy
from engines.compile.int8 import known_ranges
from engines.compile.open import compile_best, engine_order, open_engine
from engines.compile.precision import chosen_precision, fast_precision, int8_pays
from engines.compile.served_by import ServedBy
from engines.compile.torch_engine import TorchEngine
from engines.errors import EngineError, EngineFailed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Serving:
    """What answers calls now."""

    call: Compiled
    tier_name: str


class BackgroundEngine:
    """Callable as the module. Compiles in a thread of its own; `tier_name` says what serves.

    What builds fast serves while what is slow to build is built. An engine that fails in a call is dropped: torch
    answers that call, and the engines that are left are built anew. `key` names the network and its weights in the
    engine cache. One thread calls; an engine that cannot be built leaves torch at work. The module stays the caller's:
    it is copied here, and nothing waits for it or changes it.
    Raises EngineError when torch itself cannot run the module on the example, and for an order that names no engine; a
    call raises it for inputs that do not fit, and when torch itself fails.
    """

    def __init__(
        self,
        module: nn.Module,
        example_inputs: Sequence[Tensor],
        key: str,
        *,
        order: Sequence[Engine] | None = None,
    ) -> None:
        """`order` (None: `engine_order`) is tried engine by engine."""
        self._engines = [open_engine(name) for name in engine_order()] if order is None else list(order)
        # Imports OpenVINO, here and not in the builder's thread: the import forks, and a fork while another thread
        # computes in BLAS can hang both.
        chosen = chosen_precision()
        self._precision: Precision = fast_precision() if chosen in (None, "int8") else chosen
        self._eight_bits = chosen == "int8" or (chosen is None and int8_pays())
        # copied in the caller's thread: the builder's would read it while the caller may be changing it
        self._module, self._key = private_copy(module), key
        self._example = tuple(x.detach().clone() for x in example_inputs)
        eager: Compiled = TorchEngine().compile(self._module, self._example, "fp32")
        self._eager = self._serving = _Serving(eager, TorchEngine.name)
        self._built, self._lock = threading.Event(), threading.Lock()
        self._failed: dict[str, str] = {}  # in a call, with the reason
        self._start()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        serving = self._serving
        try:
            return serving.call(*inputs)
        except EngineFailed as error:
            if serving is self._eager:
                raise
            self._drop(serving, error)
            return self._eager.call(*inputs)

    @property
    def tier_name(self) -> str:
        """What serves now."""
        return self._serving.tier_name

    def wait(self, timeout_s: float) -> bool:
        """Whether building has ended within `timeout_s`."""
        return self._built.wait(timeout_s)

    def _start(self) -> None:
        # no daemon: a process that ends in the middle of a native compilation would crash
        threading.Thread(target=self._build, name="engine-builder").start()

    def _drop(self, failing: _Serving, error: EngineFailed) -> None:
        """Go on without an engine that failed: its reason is told once, for it is not asked again."""
        logger.warning("%s: %s; torch serves while the next engine is built", self._key, error)
        with self._lock:
            self._failed[failing.tier_name] = str(error)
            self._serving = self._eager
            if self._built.is_set():  # else the builder that is at work begins again
                self._built.clear()
                self._start()

    def _build(self) -> None:
        try:
            while True:
                failed = len(self._failed)
                self._tell(self._build_once())
                with self._lock:
                    if self._serving is not self._eager or len(self._failed) == failed:
                        self._built.set()
                        break
        finally:
            self._built.set()

    def _build_once(self) -> dict[str, str]:
        """Try what is left; why engines refused."""
        refused: dict[str, str] = {}
        left = [e for e in self._engines if e.name not in self._failed]
        quick = next((e for e in left if not e.slow and self._take(e, refused)), None)
        for engine in left[: left.index(quick)] if quick else left:
            if engine.slow and self._take(engine, refused):
                break
        return refused

    def _tell(self, refused: dict[str, str]) -> None:
        reasons = refused | self._failed
        told = tuple((e.name, reasons[e.name]) for e in self._engines if e.name in reasons)
        if self._serving is self._eager and refused:
            said = "; ".join(f"{name}: {reason}" for name, reason in told)
            logger.warning("no engine took %s, torch goes on: %s", self._key, said)
        ServedBy(self.tier_name, told).keep(self._key)

    def _precision_for(self, engine: Engine) -> Precision:
        if engine.native is None and engine.eight_bits and self._eight_bits and known_ranges(self._module):
            return "int8"
        return engine.native or self._precision

    def _take(self, engine: Engine, refused: dict[str, str]) -> bool:
        """Whether `engine` takes the network; then it serves."""
        try:
            # the first call, which is slow, is made there and not at the cost of a frame
            call, name, _ = compile_best(
                self._module, self._example, self._precision_for(engine), (engine,), self._key
            )
        except EngineError as error:
            refused[engine.name] = str(error).removeprefix(f"{engine.name}: ")
            return False
        self._serving = _Serving(call, name)
        return True
