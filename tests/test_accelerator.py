"""GPU engines phase by phase, with a CPU in the GPU's place; and what a computer without one is told."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from accelerators import FakeGpu
from torch import Tensor, nn

from engines.compile.accelerator import NvidiaGpu
from engines.compile.cuda_graph_engine import CudaGraphEngine
from engines.compile.tensorrt_engine import TensorRtEngine
from engines.errors import EngineError

T = TypeVar("T")
GIVEN = (torch.linspace(-1, 1, 12).reshape(1, 3, 2, 2), torch.tensor([[2]]))


class Scaled(nn.Module):
    """An input with a fraction and one without."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 2, 1)

    def forward(self, image: Tensor, times: Tensor) -> Tensor:
        return self.mix(image) * times


def test_the_phases_come_in_order() -> None:
    gpu = FakeGpu()
    call = CudaGraphEngine(gpu).compile(Scaled(), GIVEN, "fp32")
    assert gpu.phases == ["refusal", "place", "place", "move", "warm_up", "capture", "replay"]
    gpu.phases.clear()
    call(*GIVEN)
    assert gpu.phases == ["replay"]  # a frame moves no weights and captures nothing


def test_inputs_keep_their_dtype_and_lie_in_memory_of_their_own() -> None:
    gpu = FakeGpu()
    image, times = (gpu.place(x) for x in GIVEN)
    assert (image.dtype, times.dtype) == (torch.float32, torch.int64)
    assert all(gpu.place(x).data_ptr() != x.data_ptr() for x in GIVEN)  # a replay writes there
    assert CudaGraphEngine(gpu).compile(Scaled(), GIVEN, "bf16")(*GIVEN)[0].dtype == torch.float32


def test_weights_live_as_long_as_what_was_captured() -> None:
    """A graph reads weights by address: the module that owns them must outlive its last call."""

    class Forgetful(FakeGpu):
        """Keeps nothing of what it captures, as a graph does."""

        moved: weakref.ref[nn.Module]

        def move(self, module: nn.Module) -> nn.Module:
            moved = super().move(module)
            self.moved = weakref.ref(moved)
            return moved

        def capture(self, run: Callable[[], T]) -> tuple[T, Callable[[], None]]:
            return run(), lambda: None

    gpu = Forgetful()
    call = CudaGraphEngine(gpu).compile(Scaled(), GIVEN, "fp32")
    gc.collect()
    assert gpu.moved() is not None
    del call
    gc.collect()
    assert gpu.moved() is None


def test_networks_are_built_one_at_a_time() -> None:
    class Watched(FakeGpu):
        held: list[bool]

        def warm_up(self, run: Callable[[], object]) -> None:
            self.held = [self.building.locked()]

        def capture(self, run: Callable[[], T]) -> tuple[T, Callable[[], None]]:
            self.held.append(self.building.locked())
            return super().capture(run)

    gpu = Watched()
    CudaGraphEngine(gpu).compile(Scaled(), GIVEN, "fp32")
    assert gpu.held == [True, True]
    assert not gpu.building.locked()
    assert NvidiaGpu().building is NvidiaGpu().building  # of the card, whoever asks


def test_inputs_with_a_gradient_leave_none_behind() -> None:
    call = CudaGraphEngine(FakeGpu()).compile(Scaled(), GIVEN, "fp32")
    image = GIVEN[0].clone().requires_grad_(True)
    assert not call(image, GIVEN[1])[0].requires_grad
    assert not call(*GIVEN)[0].requires_grad


@pytest.mark.parametrize("engine", [CudaGraphEngine(), TensorRtEngine()], ids=lambda e: e.name)
def test_a_computer_without_a_gpu_is_told_why(engine: CudaGraphEngine | TensorRtEngine) -> None:
    if torch.cuda.is_available():
        pytest.skip("this computer has a GPU")
    tier = engine.tier()
    assert not tier.available
    assert "docs/install.md" in tier.reason or "nvidia-smi" in tier.reason
    with pytest.raises(EngineError) as refused:
        engine.compile(Scaled(), GIVEN, "fp32")
    assert str(refused.value) == tier.reason


def test_a_driver_that_does_not_answer_is_no_tier() -> None:
    tier = CudaGraphEngine(FakeGpu(fails_in="refusal")).tier()
    assert not tier.available
    assert "no refusal today" in tier.reason
    assert "nvidia-smi" in tier.reason
