"""Mixed precision as GPU tiers serve it: coordinates in 32 bits, weights rounded once, networks close to fp32."""

from __future__ import annotations

import pytest
import torch
from accelerators import FakeGpu
from test_onnx_export import farthest, shown, stirred, told
from torch import Tensor, nn
from torch.nn import functional as F

from engines.compile.cuda_graph_engine import CudaGraphEngine
from engines.compile.engine import Precision
from engines.compile.mixed import Mixed, mixed, spelled_out
from engines.compile.tensorrt_engine import TensorRtEngine
from engines.compile.torch_compile_engine import TorchCompileEngine
from engines.errors import EngineError
from engines.networks import networks_of, owners

PICTURE = torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
# of 255, or of a share of the largest number where that is greater than 1: of networks with something in every weight,
# which those that nobody has trained yet have not
BOUNDS: dict[Precision, float] = {"fp16": 3 / 255, "bf16": 14 / 255}


class Parts(nn.Module):
    """Convolutions in low precision, in full, in both, and one that shares the weight of another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.low, self.full, self.both = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.shared = nn.Conv2d(3, 3, 3, padding=1)
        self.shared.weight = self.full.weight
        self.norm = nn.GroupNorm(1, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.norm(self.shared(self.both(self.low(x))))
        with torch.autocast(x.device.type, enabled=False):
            return self.full(low.float()), self.both(x)


def bits_of(module: nn.Module) -> dict[str, torch.dtype]:
    return {name: p.dtype for name, p in module.named_parameters(remove_duplicate=False)}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_weights_are_rounded_once_to_what_each_call_would_round_them_to(precision: Precision) -> None:
    module = Parts().eval()
    with torch.inference_mode():
        expected = Mixed(module, precision)(PICTURE)
        network = mixed(Parts().eval(), (PICTURE,), precision)
        assert all(torch.equal(a, b) for a, b in zip(expected, network(PICTURE), strict=True))
    found = bits_of(network.module)
    low = {"low.weight", "low.bias", "shared.bias"}
    assert {name for name, kind in found.items() if kind != torch.float32} == low
    assert {found[name] for name in low} == {network.dtype}


def test_in_full_precision_nothing_is_touched() -> None:
    network = mixed(Parts().eval(), (PICTURE,), "fp32")
    assert set(bits_of(network).values()) == {torch.float32}
    assert all(torch.equal(a, b) for a, b in zip(network(PICTURE), Parts().eval()(PICTURE), strict=True))


def test_a_precision_that_torch_does_not_mix_is_refused() -> None:
    with pytest.raises(EngineError, match="torch computes in fp32, bf16, fp16, not in int8"):
        CudaGraphEngine(FakeGpu()).compile(nn.ReLU(), (PICTURE,), "int8")


class LooksUp(nn.Module):
    """Looks a picture up where it is told, moved by what a convolution says."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = nn.Conv2d(3, 2, 1)
        nn.init.zeros_(self.flow.weight)
        assert self.flow.bias is not None
        nn.init.zeros_(self.flow.bias)

    def forward(self, picture: Tensor, where: Tensor) -> Tensor:
        return F.grid_sample(picture, where + self.flow(picture).permute(0, 2, 3, 1), align_corners=False)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_coordinates_are_told_to_a_fraction_of_a_pixel(precision: Precision) -> None:
    """In the 8 bits of bf16 the rightmost of 512 pixels would be off by up to one."""
    lines = (torch.arange(512) + 0.5) * (2 / 512) - 1
    where = torch.stack([lines.expand(512, 512), lines[:, None].expand(512, 512)], -1)[None]
    # all columns but one are black
    picture = torch.zeros(1, 3, 512, 512)
    picture[..., 500] = 1
    call = CudaGraphEngine(FakeGpu()).compile(LooksUp(), (picture, where), precision)
    assert float((call(picture, where)[0] - picture).abs().max()) < 1e-3
    whole = where.to(torch.bfloat16).float()
    assert float((F.grid_sample(picture, whole, align_corners=False) - picture).abs().max()) > 0.4


def test_changes_of_precision_are_operators_of_their_own() -> None:
    """What compilers get needs no mixed precision of theirs."""
    network = mixed(Parts().eval(), (PICTURE,), "bf16")
    graph = spelled_out(network, (PICTURE,))
    assert isinstance(graph, torch.fx.GraphModule)
    told_by_name = [str(node.target) for node in graph.graph.nodes]
    assert not any("autocast" in name or "assert" in name for name in told_by_name)
    assert told_by_name.count("aten._to_copy.default") >= 3
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(network(PICTURE), graph(PICTURE), strict=True))


def test_an_example_with_the_same_tensor_twice_has_two_inputs() -> None:
    class Less(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a - b

    graph = spelled_out(Mixed(Less(), "fp32"), (PICTURE, PICTURE))
    assert torch.equal(graph(PICTURE, 2 * PICTURE)[0], -PICTURE)


def test_gpu_tiers_ask_for_half_precision() -> None:
    assert {e.native for e in (CudaGraphEngine, TensorRtEngine, TorchCompileEngine)} == {"fp16"}


# With its trained weights 22 of 255 at the worst pixel: τ = 0.01 makes a hundredfold of what bf16 rounds off its keys.
# pwm 15 of 255: five warps, one after the other. GPU tiers ask for fp16.
BEYOND = {("idmatch-window", "bf16"), ("pwm-window", "bf16")}


@pytest.mark.slow
@pytest.mark.parametrize("owner", owners())
def test_each_network_serves_in_half_precision(owner: str) -> None:
    """The path of a GPU, with a CPU in its place: moved, weights stored low, warmed up, captured, replayed."""
    for network in networks_of(owner):
        module, given = stirred(network), shown(network)
        expected = told(module, given)
        # convolutions in fp16 take a CPU long
        for precision in ("fp16", "bf16") if owner in ("visavis", "regressor", "speech") else ("bf16",):
            gpu = FakeGpu()
            call = CudaGraphEngine(gpu).compile(module, network.example, precision)
            off = farthest(expected, call(*given))
            # one that comes within its bound leaves the list
            is_within = (network.name, precision) not in BEYOND
            assert (off < BOUNDS[precision]) == is_within, (network.name, precision, off)
            assert gpu.phases[-4:] == ["warm_up", "capture", "replay", "replay"]
        low = mixed(module.eval(), network.example, "bf16")
        graph = spelled_out(low, network.example)
        with torch.inference_mode():
            same = farthest(low(*given), graph(*given))
        assert same == 0, network.name
