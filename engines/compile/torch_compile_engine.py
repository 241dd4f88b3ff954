"""torch's own compiler: by Triton on an NVIDIA GPU, recorded as a CUDA graph; by C++ on a CPU, if asked for by name."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engines.compile.accelerator import Accelerator, NvidiaGpu
from engines.compile.cuda_graph_engine import captured, moved
from engines.compile.engine import Compiled, Engine, Precision, Tier, answer_of, refusing
from engines.compile.exports import engine_cache_folder
from engines.compile.mixed import mixed, spelled_out
from engines.errors import EngineError

CACHE_SETTING = "TORCHINDUCTOR_CACHE_DIR"  # torch's: where it keeps what it compiles
LEAST_CAPABILITY = (7, 0)  # of Triton
_OPTIONS = {
    "compile_threads": 1,  # its pool of processes would outlive a call, and cost memory in each server
    "cpp_cache_precompile_headers": False,  # they would lie in the temporary folder, whatever `CACHE_SETTING` says
}
_COMPILING = threading.Lock()  # on the CPU


class TorchCompileEngine(Engine):
    """Moves its copy to the device, has torch write and compile kernels for it, captures one call and replays it."""

    name = "torch compile"
    native = "fp16"
    slow = True

    def __init__(self, device: Accelerator | None = None) -> None:
        self._device = device or NvidiaGpu()

    def has_gpu(self) -> bool:
        """Whether there is a GPU that torch can use, whatever else is missing."""
        return self._device.tier(self.name).available

    def tier(self) -> Tier:
        tier = self._device.tier(self.name)
        if not tier.available:
            return tier
        major, minor = self._device.capability()
        if (major, minor) < LEAST_CAPABILITY:
            reason = (
                f"Triton has no kernels for cards of compute capability {major}.{minor}; choose 'cuda graphs'"
            )
            return Tier(self.name, False, reason)
        if find_spec("triton") is None:
            how = "Triton, which comes with torch for CUDA on Linux, is not installed; type: pip install "
            return Tier(self.name, False, f"{how}--force-reinstall 'torch==2.13.*' (docs/install.md)")
        refusal = _compiler_refusal(os.environ.get("CC", ""), ("gcc", "clang"), "C", "gcc libc6-dev")
        return tier if refusal is None else Tier(self.name, False, refusal)

    def build(
        self, module: nn.Module, example: tuple[Tensor, ...], precision: Precision, key: str | None
    ) -> Compiled:
        device = self._device
        network, inputs = moved(module, example, precision, device)
        with device.building:
            return captured(_compiled(network, inputs), inputs, device)


class TorchCompileOnCpuEngine(Engine):
    """The same on the CPU: slower than OpenVINO where that was measured, so for who names it alone."""

    name = TorchCompileEngine.name
    slow = True

    def tier(self) -> Tier:
        usual = "clang++" if sys.platform == "darwin" else "g++"
        named = os.environ.get("CXX", "")
        refusal = _compiler_refusal(named, (usual,), "C++", "g++")
        if refusal is not None:
            return Tier(self.name, False, refusal)
        return Tier(self.name, True, f"torch {torch.__version__} on the CPU, by {named or usual}")

    def build(
        self, module: nn.Module, example: tuple[Tensor, ...], precision: Precision, key: str | None
    ) -> Compiled:
        if precision in ("fp16", "int8"):
            raise EngineError(f"torch is not quicker in {precision} on CPUs; choose bf16 or fp32")
        with _COMPILING:
            compiled = _compiled(mixed(module, example, precision), example)

        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            with torch.inference_mode():
                result = compiled(*inputs)
            return answer_of(result)

        return run


def _compiler_refusal(named: str, usual: Sequence[str], language: str, package: str) -> str | None:
    """Why nothing can be compiled here, with the fix; None where it can. `named`: the user's own command."""
    command = shlex.split(named)[:1] or [c for c in usual if shutil.which(c)][:1]
    if not command or shutil.which(command[0]) is None:
        return f"no {language} compiler, which torch.compile needs; sudo apt-get install {package}"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's headers, which torch.compile needs, are missing; sudo apt-get install python3-dev"
    return None


def _compiled(network: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., Any]:
    """`network`, compiled for `inputs` and called with them once, for then it is."""
    _keep_in_our_cache()
    with refusing("the export for torch.compile"):
        graph = spelled_out(network, inputs)
    with refusing("torch.compile's compilation"), torch.inference_mode():
        compiled = torch.compile(graph, fullgraph=True, dynamic=False, options=dict(_OPTIONS))
        compiled(*inputs)
    return compiled


def _keep_in_our_cache() -> None:
    """Have torch keep what it compiles, libraries among it, in a folder that is this user's alone, unless the user
    has named one: its own choice lies in the temporary folder, where anybody may have left a file of that name.

    Raises EngineError where that folder cannot be written.
    """
    told = os.environ.get(CACHE_SETTING)
    if told is not None:  # importing what follows would set it
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir

        if told != default_cache_dir():
            return
    folder = engine_cache_folder() / "torch-compile"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"{folder} cannot be written ({error.strerror or error}), and torch.compile needs a folder; set "
            f"XDG_CACHE_HOME to one that may be"
        ) from error
    os.environ[CACHE_SETTING] = str(folder)
