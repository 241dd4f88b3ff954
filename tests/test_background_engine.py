"""`BackgroundEngine`: torch at once, the best engine that works later, the caller's module never touched."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch
from accelerators import FakeGpu
from test_engine import PHASES, Failing, TinyWarp, Wrecking, half_trained, state_of
from torch import Tensor, nn

from engines.compile.background_engine import BackgroundEngine
from engines.compile.cuda_graph_engine import CudaGraphEngine
from engines.compile.engine import Compiled, Precision
from engines.compile.exports import engine_cache_folder
from engines.compile.names import ENGINES_SETTING
from engines.compile.served_by import ServedBy
from engines.errors import EngineError

GIVEN = (torch.rand(1, 3, 16, 16),)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return engine_cache_folder()


def test_torch_serves_until_an_engine_is_built_and_when_none_can_be() -> None:
    module = nn.Conv2d(3, 4, 3).eval()
    engine = BackgroundEngine(module, GIVEN, "conv", order=())
    assert engine.wait(600)
    assert engine.tier_name == "torch"
    assert torch.allclose(engine(*GIVEN)[0], module(*GIVEN), atol=1e-6)


def test_the_callers_module_is_untouched_and_torch_serves_while_an_engine_builds() -> None:
    module, builder = half_trained(), Wrecking()
    before = state_of(module)
    engine = BackgroundEngine(module, GIVEN, "half", order=(builder,))
    first = engine(*GIVEN)[0]
    assert builder.at_work.wait(600)
    assert not engine.wait(0)
    assert torch.equal(engine(*GIVEN)[0], first)
    assert state_of(module) == before
    builder.go_on.set()
    assert engine.wait(600)
    assert engine.tier_name == "torch"
    assert torch.equal(engine(*GIVEN)[0], first)
    assert state_of(module) == before


def test_the_module_may_change_while_an_engine_builds() -> None:
    module, builder = nn.Conv2d(3, 4, 3), Wrecking()
    expected = module(*GIVEN).detach()
    engine = BackgroundEngine(module, GIVEN, "conv", order=(builder, CudaGraphEngine(FakeGpu())))
    assert builder.at_work.wait(600)
    with torch.no_grad():
        module.weight.zero_()
    builder.go_on.set()
    assert engine.wait(600)
    assert engine.tier_name == "cuda graphs"
    assert torch.allclose(engine(*GIVEN)[0], expected, atol=0.05)  # in what is fast here


@pytest.mark.parametrize("phase", PHASES)
def test_the_next_engine_is_tried_whatever_fails(phase: str) -> None:
    order = (Failing(phase), CudaGraphEngine(FakeGpu(fails_in="replay")), CudaGraphEngine(FakeGpu()))
    engine = BackgroundEngine(nn.Conv2d(3, 4, 3), GIVEN, "conv", order=order)
    assert engine.wait(600)
    assert engine.tier_name == "cuda graphs"
    assert len(engine(*GIVEN)) == 1


@pytest.mark.parametrize("phase", PHASES)
def test_torch_goes_on_when_every_engine_fails(phase: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = BackgroundEngine(nn.Conv2d(3, 4, 3), GIVEN, "conv", order=(Failing(phase),))
    assert engine.wait(600)
    assert engine.tier_name == "torch"
    assert len(engine(*GIVEN)) == 1
    assert "no engine took conv, torch goes on: failing: " in caplog.text


def test_a_call_that_fails_is_answered_by_torch_and_the_next_engine_built(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Out of memory in run, a driver that goes away: the call goes on, the reason is told once."""
    gpu, module = FakeGpu(), nn.Conv2d(3, 4, 3).eval()
    order = (CudaGraphEngine(gpu), Failing("never"))
    engine = BackgroundEngine(module, GIVEN, "conv", order=order)
    assert engine.wait(600)
    assert engine.tier_name == "cuda graphs"
    gpu.fails_in = "replay"
    assert torch.allclose(engine(*GIVEN)[0], module(*GIVEN), atol=1e-6)  # the very call that failed
    assert engine.wait(600)
    assert engine.tier_name == "failing"
    for _ in range(3):
        assert torch.allclose(engine(*GIVEN)[0], module(*GIVEN), atol=0.05)
    told = [r.getMessage() for r in caplog.records if "no replay today" in r.getMessage()]
    assert len(told) == 1
    assert "the engine cuda graphs failed in a call" in told[0]


def test_torch_goes_on_when_the_only_engine_fails_in_a_call(caplog: pytest.LogCaptureFixture) -> None:
    gpu = FakeGpu()
    engine = BackgroundEngine(nn.Conv2d(3, 4, 3), GIVEN, "conv", order=(CudaGraphEngine(gpu),))
    assert engine.wait(600)
    gpu.fails_in = "replay"
    for _ in range(3):
        assert len(engine(*GIVEN)) == 1
    assert engine.wait(600)
    assert engine.tier_name == "torch"
    assert sum("no replay today" in r.getMessage() for r in caplog.records) == 1


class Slow(Failing):
    """Takes long to build: until it is let go."""

    name = "slow"
    slow = True

    def __init__(self, phase: str = "never") -> None:
        super().__init__(phase)
        self.at_work, self.go_on = threading.Event(), threading.Event()

    def build(
        self, module: nn.Module, example: tuple[Tensor, ...], precision: Precision, key: str | None
    ) -> Compiled:
        self.at_work.set()
        self.go_on.wait(600)
        return super().build(module, example, precision, key)


@pytest.mark.parametrize(("phase", "serves"), [("never", "slow"), ("build", "cuda graphs")])
def test_what_builds_fast_serves_while_a_better_tier_is_built(phase: str, serves: str) -> None:
    slow, after = Slow(phase), Slow()
    after.go_on.set()
    order = (slow, CudaGraphEngine(FakeGpu()), after)
    engine = BackgroundEngine(nn.Conv2d(3, 4, 3), GIVEN, "conv", order=order)
    assert slow.at_work.wait(600)
    assert engine.tier_name == "cuda graphs"
    assert not engine.wait(0)
    slow.go_on.set()
    assert engine.wait(600)
    assert engine.tier_name == serves
    assert not after.at_work.is_set()  # a slow one that is no better is not built


def test_an_engine_that_fails_while_a_better_one_builds_does_not_end_the_search() -> None:
    gpu, slow = FakeGpu(), Slow("build")
    order = (slow, CudaGraphEngine(gpu), Failing("never"))
    engine = BackgroundEngine(nn.Conv2d(3, 4, 3), GIVEN, "conv", order=order)
    assert slow.at_work.wait(600)
    gpu.fails_in = "replay"
    assert len(engine(*GIVEN)) == 1
    slow.go_on.set()
    assert engine.wait(600)
    assert engine.tier_name == "failing"


class Native(Failing):
    """Is fast in a precision of its own."""

    native = "fp16"
    asked: Precision | None = None

    def build(
        self, module: nn.Module, example: tuple[Tensor, ...], precision: Precision, key: str | None
    ) -> Compiled:
        self.asked = precision
        return super().build(module, example, precision, key)


def test_a_device_with_a_precision_of_its_own_is_asked_for_that() -> None:
    native = Native("never")
    assert BackgroundEngine(nn.Conv2d(3, 4, 3), GIVEN, "conv", order=(native,)).wait(600)
    assert native.asked == "fp16"


def test_what_took_a_network_and_why_others_did_not_is_kept_for_the_doctor(cache: Path) -> None:
    order = (Slow("tier"), Failing("build"), CudaGraphEngine(FakeGpu()))
    assert ServedBy.all() == {}
    assert BackgroundEngine(nn.Conv2d(3, 4, 3), GIVEN, "a-conv-weights-source", order=order).wait(600)
    found = ServedBy.all()["a-conv"]
    assert (found.tier, [name for name, _ in found.refused]) == ("cuda graphs", ["slow", "failing"])
    assert "ZeroDivisionError: in build" in found.refused[1][1]
    for k in range(9):  # in whatever order a folder lists them
        ServedBy("older").keep(f"a-conv-before{k}-source")
        os.utime(cache / f"a-conv-before{k}-source.tier.json", (1, 1))
    ServedBy("torch").keep("b-conv-weights-source")
    (cache / "c-conv-weights-source.tier.json").write_text('{"tier": 3')
    assert {name: s.tier for name, s in ServedBy.all().items()} == {
        "a-conv": "cuda graphs",
        "b-conv": "torch",
    }


def test_a_cache_that_is_no_folder_is_nobodys_trouble(cache: Path) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text("a file")
    ServedBy("torch").keep("a-w-s")
    assert ServedBy.all() == {}


def test_an_order_that_names_no_engine_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINES_SETTING, "openvino,hat")
    with pytest.raises(EngineError, match="VISAVIS_ENGINES: there is no engine 'hat'"):
        BackgroundEngine(nn.Conv2d(3, 4, 3), GIVEN, "conv")


def test_wrong_inputs_are_refused_before_and_after_the_change() -> None:
    builder = Wrecking()
    image, grid = torch.rand(1, 3, 8, 8), torch.zeros(1, 8, 8, 2)
    engine = BackgroundEngine(TinyWarp(), (image, grid), "w", order=(builder, CudaGraphEngine(FakeGpu())))

    def refused(given: tuple[Tensor, ...]) -> None:
        with pytest.raises(EngineError, match=r"grid is float32 \(1, 1, 8, 2\)"):
            engine(*given)

    refused((image, grid[:, :1]))
    builder.go_on.set()
    assert engine.wait(600)
    assert engine.tier_name == "cuda graphs"
    refused((image, grid[:, :1]))


def test_a_module_that_torch_cannot_run_is_an_error_at_once() -> None:
    with pytest.raises(EngineError, match="the first call failed"):
        BackgroundEngine(nn.Conv2d(3, 4, 3), (torch.rand(1, 2, 16, 16),), "conv", order=())
