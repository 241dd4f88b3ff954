"""torch.compile as a tier: when it is refused, where it keeps what it compiles, what serves when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerators import FakeGpu
from torch import nn

from engines.compile import open as opened
from engines.compile import torch_compile_engine as ours
from engines.compile.background_engine import BackgroundEngine
from engines.compile.cuda_graph_engine import CudaGraphEngine
from engines.compile.engine import Engine
from engines.compile.exports import engine_cache_folder
from engines.compile.names import ENGINES_SETTING
from engines.compile.open import compile_best, open_engine
from engines.compile.torch_compile_engine import (
    CACHE_SETTING,
    TorchCompileEngine,
    TorchCompileOnCpuEngine,
)
from engines.compile.torch_engine import TorchEngine
from engines.errors import EngineError

GIVEN = (torch.rand(1, 3, 8, 8),)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in (CACHE_SETTING, "CC", "CXX"):  # so that what is set meanwhile is gone afterwards
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return engine_cache_folder() / "torch-compile"


@pytest.fixture(autouse=True)
def everything_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Triton, compilers and headers, as far as anybody looks."""
    monkeypatch.setattr(ours, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(ours.shutil, "which", lambda name: f"/usr/bin/{name}")
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(ours.sysconfig, "get_path", lambda name: str(tmp_path))


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A torch.compile that gives what it was given, and what each time it was told."""
    asked: list[dict[str, Any]] = []

    def compiled(graph: nn.Module, **told: Any) -> nn.Module:
        asked.append({"cache": os.environ.get(CACHE_SETTING), "graph": graph, **told})
        return graph

    monkeypatch.setattr(torch, "compile", compiled)
    return asked


def refusal(engine: Engine) -> str:
    tier = engine.tier()
    assert not tier.available
    with pytest.raises(EngineError) as refused:
        engine.compile(nn.ReLU(), GIVEN, "fp32")
    assert str(refused.value) == tier.reason
    return tier.reason


# --- what is missing, and what to type ------------------------------------------------------------


def test_with_everything_there_both_kinds_work() -> None:
    assert TorchCompileEngine(FakeGpu()).tier().available
    tier = TorchCompileOnCpuEngine().tier()
    assert tier.available
    assert "on the CPU, by " in tier.reason


def test_a_computer_without_a_gpu_is_told_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("this computer has a GPU")
    said = refusal(TorchCompileEngine())
    assert "docs/install.md" in said or "nvidia-smi" in said


def test_without_triton_the_torch_that_brings_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "find_spec", lambda name: None)
    said = refusal(TorchCompileEngine(FakeGpu()))
    assert "Triton" in said
    assert "pip install --force-reinstall 'torch==2.13.*'" in said
    assert TorchCompileOnCpuEngine().tier().available


def test_without_a_compiler_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours.shutil, "which", lambda name: None)
    said = refusal(TorchCompileEngine(FakeGpu()))
    assert said == "no C compiler, which torch.compile needs; sudo apt-get install gcc libc6-dev"
    said = refusal(TorchCompileOnCpuEngine())
    assert said == "no C++ compiler, which torch.compile needs; sudo apt-get install g++"


def test_a_compiler_that_the_user_names_is_the_one_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"/opt/c++"}
    monkeypatch.setattr(ours.shutil, "which", lambda name: name if name in there else None)
    monkeypatch.setenv("CXX", "/opt/c++ -v")
    assert TorchCompileOnCpuEngine().tier().available
    there = {"g++", "clang++"}
    assert "no C++ compiler" in refusal(TorchCompileOnCpuEngine())


def test_without_pythons_headers_the_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ours.sysconfig, "get_path", lambda name: str(tmp_path / "none"))
    for engine in (TorchCompileEngine(FakeGpu()), TorchCompileOnCpuEngine()):
        assert refusal(engine).endswith("are missing; sudo apt-get install python3-dev")


def test_cards_too_old_for_triton_are_sent_to_cuda_graphs() -> None:
    class Old(FakeGpu):
        def capability(self) -> tuple[int, int]:
            return 6, 1

    said = refusal(TorchCompileEngine(Old()))
    assert said == "Triton has no kernels for cards of compute capability 6.1; choose 'cuda graphs'"


# --- on a GPU, with a CPU in its place ------------------------------------------------------------


def test_what_is_compiled_is_one_graph_recorded_afterwards(compiling: list[dict[str, Any]]) -> None:
    gpu, module = FakeGpu(), nn.Conv2d(3, 4, 3).eval()
    call = TorchCompileEngine(gpu).compile(module, GIVEN, "bf16")
    (asked,) = compiling
    assert gpu.phases == [
        "refusal", "capability", "place", "move", "warm_up", "capture", "replay",
    ]  # fmt: skip
    # else networks of one class would share what torch keeps by code, and a call could compile
    assert asked["fullgraph"]
    assert asked["dynamic"] is False
    graph: nn.Module = asked["graph"]
    assert isinstance(graph, torch.fx.GraphModule)
    assert any("_to_copy" in str(node.target) for node in graph.graph.nodes)
    assert torch.allclose(call(*GIVEN)[0], module(*GIVEN), atol=0.02)


@pytest.mark.usefixtures("compiling")
def test_networks_are_compiled_for_a_card_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, compiled, held = FakeGpu(), torch.compile, list[bool]()

    def watched(graph: nn.Module, **told: Any) -> Any:
        held.append(gpu.building.locked())
        return compiled(graph, **told)

    monkeypatch.setattr(torch, "compile", watched)
    TorchCompileEngine(gpu).compile(nn.ReLU(), GIVEN, "fp32")
    assert held == [True]
    assert not gpu.building.locked()


@pytest.mark.parametrize("phase", ["refusal", "capability", "move", "place", "warm_up", "capture", "replay"])
@pytest.mark.usefixtures("compiling")
def test_whatever_fails_on_the_card_the_next_tier_serves(phase: str) -> None:
    gpu = FakeGpu(fails_in=phase)
    call, name, reasons = compile_best(
        nn.ReLU(), GIVEN, order=(TorchCompileEngine(gpu), CudaGraphEngine(FakeGpu()))
    )
    assert name == "cuda graphs"
    assert f"no {phase} today" in reasons[0]
    assert len(call(*GIVEN)) == 1
    assert gpu.building.acquire(blocking=False)


def test_when_compiling_fails_the_next_tier_serves_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("InductorError: gcc ran out of disk")

    monkeypatch.setattr(torch, "compile", refuse)
    order: tuple[Engine, ...] = (TorchCompileEngine(FakeGpu()), CudaGraphEngine(FakeGpu()))
    engine = BackgroundEngine(nn.Conv2d(3, 4, 3), GIVEN, "conv", order=order)
    assert engine.wait(600)
    assert engine.tier_name == "cuda graphs"
    assert "no engine took" not in caplog.text
    _, name, reasons = compile_best(nn.ReLU(), GIVEN, order=(TorchCompileOnCpuEngine(), TorchEngine()))
    assert (name, len(reasons)) == ("torch", 1)
    assert (
        "torch.compile's compilation failed: RuntimeError: InductorError: gcc ran out of disk" in reasons[0]
    )


def test_cuda_graphs_serve_while_it_compiles() -> None:
    assert TorchCompileEngine.slow
    assert not CudaGraphEngine.slow


# --- where it keeps what it compiles --------------------------------------------------------------


def test_libraries_lie_in_our_own_cache_and_not_in_a_folder_of_everybody(
    compiling: list[dict[str, Any]], cache: Path
) -> None:
    TorchCompileEngine(FakeGpu()).compile(nn.ReLU(), GIVEN, "fp32")
    assert compiling[0]["cache"] == str(cache)
    assert cache.stat().st_mode & 0o777 == 0o700
    assert compiling[0]["options"]["cpp_cache_precompile_headers"] is False  # torch has no setting for where


def test_torchs_own_default_is_no_choice_of_the_users(
    compiling: list[dict[str, Any]], cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(CACHE_SETTING, str(tmp_path))  # else the import makes that folder
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    monkeypatch.setenv(CACHE_SETTING, default_cache_dir())  # torch sets it when anything is compiled
    TorchCompileEngine(FakeGpu()).compile(nn.ReLU(), GIVEN, "fp32")
    monkeypatch.setenv(CACHE_SETTING, str(tmp_path / "mine"))
    TorchCompileEngine(FakeGpu()).compile(nn.ReLU(), GIVEN, "fp32")
    assert [asked["cache"] for asked in compiling] == [str(cache), str(tmp_path / "mine")]


@pytest.mark.usefixtures("compiling")
def test_a_cache_that_cannot_be_written_is_refused_with_the_fix(cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("no folder")
    with pytest.raises(EngineError, match=r"cannot be written .*set XDG_CACHE_HOME"):
        TorchCompileOnCpuEngine().compile(nn.ReLU(), GIVEN, "fp32")


# --- on a CPU -------------------------------------------------------------------------------------


def test_a_cpu_compiles_only_for_who_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    name = TorchCompileEngine.name
    monkeypatch.setattr(TorchCompileEngine, "has_gpu", lambda self: False)
    assert isinstance(open_engine(name), TorchCompileEngine)
    monkeypatch.setenv(ENGINES_SETTING, f"{name},openvino")
    assert isinstance(open_engine(name), TorchCompileOnCpuEngine)
    assert opened.tiers()[0].available
    monkeypatch.setattr(TorchCompileEngine, "has_gpu", lambda self: True)
    assert isinstance(open_engine(name), TorchCompileEngine)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_precisions_that_no_cpu_gains_from_are_refused(precision: Any) -> None:
    with pytest.raises(EngineError, match=f"torch is not quicker in {precision} on CPUs"):
        TorchCompileOnCpuEngine().compile(nn.ReLU(), GIVEN, precision)


@pytest.mark.slow
def test_the_real_compiler_gives_the_same_numbers_and_leaves_nothing_with_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: where torch lays things is settled when it is imported."""
    monkeypatch.undo()
    tier = TorchCompileOnCpuEngine().tier()
    if not tier.available:
        pytest.skip(tier.reason)
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    environment = {**os.environ, "TMPDIR": str(shared), "XDG_CACHE_HOME": str(own)}
    environment.pop(CACHE_SETTING, None)  # torch sets it in any process that compiles
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", _REAL], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["same", "again"]
    assert [p.name for p in shared.iterdir()] == []
    assert list(own.rglob("*.so"))


_REAL = """
import torch
from test_engine import TinyWarp
from engines.compile.torch_compile_engine import TorchCompileOnCpuEngine
lines = torch.linspace(-1, 1, 32)
y, x = torch.meshgrid(lines, lines, indexing="ij")
given = torch.rand(1, 3, 32, 32), torch.stack([x, y], -1)[None]
for seed, word in ((3, "same"), (4, "again")):
    torch.manual_seed(seed)
    module = TinyWarp().eval()
    call = TorchCompileOnCpuEngine().compile(module, given, "fp32")
    with torch.inference_mode():
        expected = module(*given)
    for _ in range(2):
        found = call(*given)
        assert all(float((a - b).abs().max()) < 1e-5 for a, b in zip(expected, found, strict=True))
    print(word)
"""
