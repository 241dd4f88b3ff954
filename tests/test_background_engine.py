"""`BackgroundEngine`: torch at once, the best engine that works later, the caller's module never touched."""

from __future__ import annotations

import pytest
import torch
from accelerators import FakeGpu
from test_engine import PHASES, Failing, TinyWarp, Wrecking, half_trained, state_of
from torch import Tensor, nn

from engines.compile.background_engine import BackgroundEngine
from engines.compile.cuda_graph_engine import CudaGraphEngine
from engines.errors import EngineError

GIVEN = (torch.rand(1, 3, 16, 16),)


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


def test_a_call_that_fails_on_a_frame_is_an_error_and_no_hang() -> None:
    gpu = FakeGpu()
    engine = BackgroundEngine(nn.Conv2d(3, 4, 3), GIVEN, "conv", order=(CudaGraphEngine(gpu),))
    assert engine.wait(600)
    gpu.fails_in = "replay"
    with pytest.raises(EngineError, match="the engine cuda graphs failed in a call"):
        engine(*GIVEN)


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
