"""Engines: the same numbers from every tier that works here, and reasons from those that do not."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.compile.engine import (
    ORDER,
    Compiled,
    Engine,
    EngineError,
    OpenVinoEngine,
    Precision,
    Tier,
    TorchEngine,
    compile_best,
    tiers,
)


class TinyWarp(nn.Module):
    """A convolution and a 2-D grid sample: the operations every generator is made of."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.flow = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, image: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        flow = 0.1 * torch.tanh(self.flow(image))
        where = grid + flow.permute(0, 2, 3, 1)
        return F.grid_sample(image, where, align_corners=False, padding_mode="border"), flow


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    lines = torch.linspace(-1, 1, 32)
    y, x = torch.meshgrid(lines, lines, indexing="ij")
    return torch.rand(1, 3, 32, 32), torch.stack([x, y], -1)[None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "precision", "bound"),
    [(TorchEngine(), "fp32", 1e-6), (TorchEngine(), "bf16", 0.05), (OpenVinoEngine(), "fp32", 1e-4)],
)
def test_parity_with_eager(
    engine: Engine, precision: Precision, bound: float, inputs: tuple[Tensor, Tensor]
) -> None:
    module = TinyWarp().eval()
    with torch.inference_mode():
        expected = module(*inputs)
    got = engine.compile(module, inputs, precision)(*inputs)
    assert len(got) == 2
    for e, g in zip(expected, got, strict=True):
        assert g.dtype == torch.float32
        assert float((e - g).abs().max()) <= bound


def test_tiers_are_in_the_declared_order_with_reasons() -> None:
    found = tiers()
    assert [t.name for t in found] == ["tensorrt", "cuda graphs", "openvino", "torch"]
    assert found[-1].available
    assert all(t.reason for t in found)


class Refusing(Engine):
    name = "refusing"

    def tier(self) -> Tier:
        return Tier(self.name, True, "")

    def compile(
        self,
        module: nn.Module,
        example_inputs: Sequence[Tensor],
        precision: Precision,
        key: str | None = None,
    ) -> Compiled:
        raise EngineError("not today")


def test_the_next_tier_serves_when_one_refuses(inputs: tuple[Tensor, Tensor]) -> None:
    _, name, reasons = compile_best(TinyWarp(), inputs, order=(Refusing(), TorchEngine()))
    assert name == "torch"
    assert reasons == ["refusing: not today"]


def test_no_tier_left_tells_every_reason(inputs: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(EngineError, match="refusing: not today"):
        compile_best(TinyWarp(), inputs, order=(Refusing(),))


def test_cpu_machines_end_on_openvino_or_torch(inputs: tuple[Tensor, Tensor]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this computer has a GPU")
    _, name, _ = compile_best(TinyWarp(), inputs, order=ORDER)
    assert name == "openvino"
