"""`kernels()`: the compiled drawing once it is there. A process has one, made in a thread of its own on first use."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from engines.errors import EngineError
from engines.native.build import build, find_compiler, is_whole, library_path
from engines.native.kernels import Kernels
from engines.native.prune import hold, prune

logger = logging.getLogger(__name__)

SETTING = "VISAVIS_NATIVE"  # "off": OpenCV draws


class Loader:
    """Makes kernels in a thread of its own. `kernels` and `refusal` are None until one of them is known."""

    def __init__(self, make: Callable[[], Kernels]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.kernels: Kernels | None = None
        self.refusal: str | None = None

    def get(self) -> Kernels | None:
        """The kernels if they are there by now. The first call begins to make them."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._load, name="native", daemon=True)
                    thread.start()
                    self._thread = thread
        return self.kernels

    def wait(self, timeout_s: float) -> bool:
        """Whether it is settled within `timeout_s` what draws."""
        self.get()
        assert self._thread is not None
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _load(self) -> None:
        try:
            self.kernels = self._make()
        except EngineError as error:
            self.refusal = str(error)
            logger.info("%s", error)
        except OSError as error:  # of files that cannot be opened just now
            self.refusal = f"the compiled drawing cannot be reached ({error}), so OpenCV draws; start again"
            logger.info("%s", self.refusal)


def make_kernels() -> Kernels:
    """Load what is kept, else compile and keep it. Raises EngineError with the reason and its cure."""
    if os.environ.get(SETTING, "").lower() == "off":
        raise EngineError(f"{SETTING}=off, so OpenCV draws")
    compiler = find_compiler()
    path = library_path(compiler)
    hold(path)  # before it is looked at: afterwards another process does not remove it
    if not is_whole(path):
        build(path, compiler)
        hold(path)
    made = Kernels(path)
    prune(path, time.time())
    return made


_loader = Loader(make_kernels)


def how_drawing_is_compiled() -> str:
    """Whether it is already, or what will compile it; makes nothing. Raises EngineError where it cannot be."""
    if os.environ.get(SETTING, "").lower() == "off":
        raise EngineError(f"{SETTING}=off, so OpenCV draws")
    compiler = find_compiler()
    return (
        "compiled for this CPU"
        if is_whole(library_path(compiler))
        else f"{compiler[0]} will compile it on first use"
    )


def kernels() -> Kernels | None:
    """The compiled drawing, or None while it is being made, or for good where it cannot be (`refusal`)."""
    return _loader.get()


def wait_for_kernels(timeout_s: float = 120.0) -> bool:
    """Whether what draws will not change any more after at most `timeout_s`."""
    return _loader.wait(timeout_s)


def refusal() -> str | None:
    """Why there is no compiled drawing here, with the fix; None while there is one or it is being made."""
    return _loader.refusal
