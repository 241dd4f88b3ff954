"""TensorRT-RTX phase by phase, ONNX Runtime in the library's place and a CPU in the card's; and what is refused."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from accelerators import FakeGpu
from rtx_stand_in import StandIn
from test_engine import TinyWarp, state_of
from torch import Tensor, nn

from engines.compile import rtx_library, tensorrt_rtx_engine
from engines.compile.background_engine import BackgroundEngine
from engines.compile.exports import engine_cache_folder
from engines.compile.open import compile_best
from engines.compile.rtx_library import TARGETS, TensorRtRtx, takes, target_of
from engines.compile.tensorrt_rtx_engine import TensorRtRtxEngine
from engines.compile.torch_engine import TorchEngine
from engines.errors import EngineError

GIVEN = (torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16), torch.rand(1, 16, 16, 2) * 2 - 1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return engine_cache_folder()


@pytest.fixture
def stand_in() -> StandIn:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    return StandIn()


class Card(FakeGpu):
    """A card of another kind."""

    def __init__(self, *capability: int) -> None:
        super().__init__()
        self._is = (capability[0], capability[1])

    def capability(self) -> tuple[int, int]:
        return self._is


# --- what it gives --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("fp16", 6 / 255)])
def test_it_answers_as_torch_does_call_after_call(precision: str, bound: float, stand_in: StandIn) -> None:
    module = TinyWarp().train()
    before = state_of(module)
    call = TensorRtRtxEngine(FakeGpu(), stand_in).compile(module, GIVEN, precision, "tiny-w-s")  # pyright: ignore[reportArgumentType]
    assert state_of(module) == before
    for scale in (1.0, 0.5):
        given = (GIVEN[0] * scale, GIVEN[1])
        with torch.inference_mode():
            expected = module.eval()(*given)
        got = call(*given)
        for e, g in zip(expected, got, strict=True):
            assert g.dtype == torch.float32
            assert float((e - g).abs().max()) <= bound
    first = call(*GIVEN)[0]
    kept = first.clone()
    call(GIVEN[0] * 0, GIVEN[1])
    assert torch.equal(first, kept)


@pytest.mark.slow
def test_an_input_that_nothing_depends_on_may_be_missing_from_the_engine(stand_in: StandIn) -> None:
    class Half(nn.Module):
        def forward(self, unused: Tensor, used: Tensor) -> Tensor:
            return used * 2

    stand_in.without = "unused"
    call = TensorRtRtxEngine(FakeGpu(), stand_in).compile(Half(), (torch.ones(1), torch.ones(2)), "fp32")
    assert call(torch.zeros(1), torch.full((2,), 3.0))[0].tolist() == [6, 6]


@pytest.mark.slow
def test_an_engine_is_built_once_for_each_card_shape_and_precision(stand_in: StandIn, cache: Path) -> None:
    module = nn.Conv2d(3, 4, 3).eval()

    def compile_it(
        engine: TensorRtRtxEngine, precision: str = "fp32", rows: int = 1, key: str = "net-w-s"
    ) -> None:
        example = (torch.rand(rows, 3, 8, 8),)
        engine.compile(module, example, precision, key)(*example)  # pyright: ignore[reportArgumentType]

    here = TensorRtRtxEngine(FakeGpu(), stand_in)
    compile_it(here)
    assert stand_in.built == ["sm89"]
    compile_it(here)
    assert stand_in.built == ["sm89"]
    assert stand_in.loaded_with == [None, b"kernels"]  # those of the first session serve the second
    for different in (
        lambda: compile_it(TensorRtRtxEngine(Card(12, 0), stand_in)),
        lambda: compile_it(here, "fp16"),
        lambda: compile_it(here, rows=2),
        lambda: compile_it(here, key="net-others-s"),
    ):
        count = len(stand_in.built)
        different()
        assert len(stand_in.built) == count + 1
        different()
        assert len(stand_in.built) == count + 1
    stand_in.told_version = "1.8.0"  # another library
    compile_it(here)
    assert stand_in.built[-1] == "sm89"
    assert len(stand_in.built) == 6
    assert all(p.suffix == ".engine" for p in cache.iterdir())


@pytest.mark.slow
def test_what_was_built_elsewhere_for_this_card_is_taken(stand_in: StandIn, cache: Path) -> None:
    """`visavis compile` on a computer without a card; the files are carried to the one that has it."""
    module, given = nn.Conv2d(3, 4, 3).eval(), (torch.rand(1, 3, 8, 8),)
    elsewhere = TensorRtRtxEngine(Card(9, 0), stand_in)
    kept = elsewhere.kept("sm89", given, "fp16", "net-w-s")
    kept.keep(elsewhere.built_for("sm89", elsewhere.exported(module, given, "fp16", ["sm89"])))
    stand_in.built.clear()
    call = TensorRtRtxEngine(FakeGpu(), stand_in).compile(module, given, "fp16", "net-w-s")
    assert stand_in.built == []
    assert float((call(*given)[0] - module(*given).detach()).abs().max()) < 6 / 255


@pytest.mark.slow
def test_a_damaged_engine_is_built_again(stand_in: StandIn, cache: Path) -> None:
    module, given = nn.Conv2d(3, 4, 3).eval(), (torch.rand(1, 3, 8, 8),)
    engine = TensorRtRtxEngine(FakeGpu(), stand_in)
    engine.compile(module, given, "fp32", "net-w-s")
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-20])
    call = engine.compile(module, given, "fp32", "net-w-s")
    assert stand_in.built == ["sm89", "sm89"]
    assert torch.allclose(call(*given)[0], module(*given), atol=1e-5)


# --- what is refused ------------------------------------------------------------------------------


def test_cards_have_targets_and_others_are_told_what_to_choose() -> None:
    assert [target_of(c) for c in ((7, 5), (8, 6), (8, 9), (12, 0))] == ["sm75", "sm86", "sm89", "sm120"]
    with pytest.raises(EngineError, match=r"compute capability 9\.0, only for sm75, .*'cuda graphs'"):
        target_of((9, 0))
    assert [t for t in TARGETS if not takes(t, "bf16")] == ["sm75"]
    assert all(takes(t, "fp16") for t in TARGETS)


def installed(monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    module = ModuleType("tensorrt_rtx")
    module.__spec__ = ModuleSpec("tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    monkeypatch.setattr(rtx_library, "version", lambda name: told)


def test_a_library_that_is_missing_or_too_old_says_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    library = TensorRtRtx()
    monkeypatch.setattr(rtx_library, "find_spec", lambda name: None)
    assert "pip install 'visavis[tensorrt-rtx]'" in str(library.refusal())
    monkeypatch.undo()
    for told, refused in (
        ("1.5.0.1", True),
        ("odd", True),
        ("1.6.1", False),
        ("1.7.1.116", False),
        ("2.0", False),
    ):
        installed(monkeypatch, told)
        assert (library.refusal() is not None) == refused, told
    installed(monkeypatch, "1.5.0.1")
    assert "1.5.0.1 is older than 1.6" in str(library.refusal())


def test_each_refusal_of_the_tier_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = StandIn()
    monkeypatch.setattr(tensorrt_rtx_engine, "export_refusal", lambda: None)
    assert TensorRtRtxEngine(FakeGpu(), stand_in).tier().available
    assert "compute capability 9.0" in TensorRtRtxEngine(Card(9, 0), stand_in).tier().reason
    stand_in.refuses = "no library; type: this"
    tier = TensorRtRtxEngine(FakeGpu(), stand_in).tier()
    assert (tier.available, tier.reason) == (False, "no library; type: this")
    stand_in.refuses = None
    monkeypatch.setattr(tensorrt_rtx_engine, "export_refusal", lambda: "no onnx; type: that")
    assert TensorRtRtxEngine(FakeGpu(), stand_in).tier().reason == "no onnx; type: that"
    if not torch.cuda.is_available():
        assert not TensorRtRtxEngine().tier().available


@pytest.mark.slow
def test_bf16_is_not_built_for_cards_that_have_it_not(stand_in: StandIn) -> None:
    engine = TensorRtRtxEngine(Card(7, 5), stand_in)
    with pytest.raises(EngineError, match="sm75 do not compute in bf16; choose fp16"):
        engine.compile(TinyWarp(), GIVEN, "bf16")


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["refusal", "capability", "build", "load", "run", "kernels"])
def test_the_next_tier_serves_whatever_fails(phase: str, stand_in: StandIn) -> None:
    """Driver missing, out of memory in build and in run, an engine that does not load."""
    stand_in.fails_in = phase
    gpu = FakeGpu(fails_in=phase)
    _, name, reasons = compile_best(
        TinyWarp(), GIVEN, order=(TensorRtRtxEngine(gpu, stand_in), TorchEngine()), key="tiny-w-s"
    )
    assert name == "torch"
    assert len(reasons) == 1
    assert reasons[0].startswith("tensorrt-rtx: ")
    assert f"no {phase} today" in reasons[0]
    assert gpu.building.acquire(blocking=False)


@pytest.mark.slow
def test_out_of_memory_in_a_call_is_answered_by_torch_and_told_once(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    module = TinyWarp().eval()
    engine = BackgroundEngine(module, GIVEN, "tiny-w-s", order=(TensorRtRtxEngine(FakeGpu(), stand_in),))
    assert engine.wait(600)
    assert engine.tier_name == "tensorrt-rtx"
    stand_in.fails_in = "run"
    with torch.inference_mode():
        expected = module(*GIVEN)
    for _ in range(3):
        assert torch.allclose(engine(*GIVEN)[0], expected[0], atol=1e-5)
    assert engine.wait(600)
    assert engine.tier_name == "torch"
    assert sum("no run today" in r.getMessage() for r in caplog.records) == 1


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_stops_nothing(
    stand_in: StandIn, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text("a file where the folder should be")
    call = TensorRtRtxEngine(FakeGpu(), stand_in).compile(TinyWarp(), GIVEN, "fp32", "tiny-w-s")
    assert len(call(*GIVEN)) == 2
    assert "compiled networks cannot be kept" in caplog.text
