"""The CUDA graph tier on a real NVIDIA GPU, with the networks that `visavis` ships.

Needs torch for CUDA, NumPy, OpenCV, safetensors and pytest, nothing else of visavis' dependencies:

    python -m pytest -s --noconftest -p no:cacheprovider tests/test_engine_cuda.py
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.compile.background_engine import BackgroundEngine
from engines.compile.cuda_graph_engine import CudaGraphEngine
from engines.compile.engine import Compiled, Engine, Precision, private_copy
from engines.compile.open import compile_best
from engines.compile.torch_compile_engine import TorchCompileEngine
from engines.compile.torch_engine import TorchEngine
from engines.errors import EngineError
from engines.generators.networked.blueprint import load_networks
from engines.generators.visavis.blueprint import VisavisBlueprint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU that this torch can use"),
]

Network = tuple[nn.Module, tuple[Tensor, ...]]
# of answers between −1 and 1; "fp32" has convolutions in TF32, as torch has them by default
BOUNDS: dict[Precision, float] = {"fp32": 5e-3, "fp16": 1e-2, "bf16": 0.06}


def like(example: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    """Inputs as a frame's are: smooth pictures between 0 and 1, places near their own, a small motion."""
    random = torch.Generator().manual_seed(seed)

    def one(x: Tensor) -> Tensor:
        if x.ndim == 2:
            return 0.3 * torch.randn(x.shape, generator=random)
        if x.shape[-1] == 2:
            lines = torch.linspace(-1, 1, x.shape[1])
            across, down = torch.meshgrid(lines, lines, indexing="xy")
            return torch.stack([across, down], -1)[None] + 0.05 * torch.randn(1, 1, 1, 2, generator=random)
        small = torch.rand(*x.shape[:2], 8, 8, generator=random)
        return F.interpolate(small, x.shape[2:], mode="bilinear")

    return tuple(one(x).contiguous() for x in example)


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    blueprint, nets, _ = load_networks(VisavisBlueprint, VisavisBlueprint.weights_path())
    return {s.name: (s.module, s.example) for s in blueprint.served(nets)}


def on_cpu(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        return module(*given)


def apart(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


def equal(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def median_ms(call: Callable[..., object], given: tuple[Tensor, ...], times: int) -> float:
    """Of whole calls, from CPU tensors to CPU tensors."""
    spent: list[float] = []
    for _ in range(times):
        start = time.perf_counter()
        call(*given)
        spent.append(1e3 * (time.perf_counter() - start))
    return statistics.median(spent)


def state_of(module: nn.Module) -> tuple[object, ...]:
    return (
        [(name, m.training) for name, m in module.named_modules()],
        [(name, p.requires_grad, p.dtype, p.device, p.data_ptr()) for name, p in module.named_parameters()],
        {name: t.clone().numpy().tobytes() for name, t in module.state_dict().items()},
    )


def test_the_tier_names_the_card() -> None:
    tier = CudaGraphEngine().tier()
    print(f"\n{tier.reason}, torch {torch.__version__}")
    assert tier.available
    assert tier.reason


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", ["head", "paths"])
def test_answers_are_those_of_float32_on_the_cpu(
    networks: dict[str, Network], name: str, precision: Precision
) -> None:
    module, example = networks[name]
    call = CudaGraphEngine().compile(module, example, precision)
    errors: list[float] = []
    for seed in range(3):
        given = like(example, seed)
        got = call(*given)
        assert all(o.dtype == torch.float32 and o.device.type == "cpu" for o in got)
        errors.append(apart(on_cpu(module, given), got))
    given = like(example, 3)
    eager = median_ms(lambda *x: on_cpu(module, x), given, 10)
    graph = median_ms(call, given, 300)
    print(
        f"\n{name} {precision}: max abs error {max(errors):.6f}, {graph:.3f} ms a call "
        f"(eager on the CPU, {torch.get_num_threads()} threads: {eager:.2f} ms)"
    )
    assert max(errors) < BOUNDS[precision]


@pytest.mark.parametrize("name", ["head", "paths"])
def test_the_launch_cost_is_removed(networks: dict[str, Network], name: str) -> None:
    """Printed beside eager torch on the GPU; what must hold is that both compute the same."""
    module, example = networks[name]
    given = like(example, 0)
    moved = private_copy(module).cuda()

    def eager(*inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            return tuple(o.cpu() for o in moved(*(x.cuda() for x in inputs)))

    call = CudaGraphEngine().compile(module, example, "fp32")
    eager(*given)
    print(
        f"\n{name} fp32: {median_ms(call, given, 300):.3f} ms by CUDA graph, "
        f"{median_ms(eager, given, 100):.3f} ms eager on the GPU"
    )
    assert apart(call(*given), eager(*given)) < BOUNDS["fp32"]


@pytest.mark.parametrize("name", ["head", "paths"])
def test_the_callers_module_goes_on_bit_equal_while_it_is_compiled(
    networks: dict[str, Network], name: str
) -> None:
    module, example = networks[name]
    given, before = like(example, 0), state_of(module)
    started, done = threading.Event(), threading.Event()
    same: list[bool] = []

    def serve() -> None:
        expected = on_cpu(module, given)
        started.set()
        while not done.is_set():
            same.append(equal(on_cpu(module, given), expected))

    server = threading.Thread(target=serve)
    server.start()
    try:
        assert started.wait(60)
        for precision in ("fp16", "bf16", "fp32"):
            CudaGraphEngine().compile(module, example, precision)
            assert state_of(module) == before
    finally:
        done.set()
        server.join(60)
    print(f"\n{name}: {len(same)} calls of the caller's module during three compilations")
    assert same
    assert all(same)


def test_wrong_inputs_are_refused_by_name(networks: dict[str, Network]) -> None:
    module, example = networks["head"]
    call = CudaGraphEngine().compile(module, example, "fp32")
    given = like(example, 0)
    right = call(*given)
    picture, guide, where, features, motion = given
    for wrong, said in (
        # each of the first two would broadcast into what the graph reads
        ((picture, guide, where[:, :1], features, motion), r"where is float32 \(1, 1, 32, 2\), not float32"),
        ((picture[0], guide, where, features, motion), r"picture is float32 \(4, 128, 128\)"),
        ((picture, guide, where, features, motion.half()), r"motion is float16 \(1, 127\), not float32"),
        ((picture, guide, where, features), r"4 inputs .* 5: picture, guide, where, features, motion"),
    ):
        with pytest.raises(EngineError, match=said):
            call(*wrong)
    assert apart(call(*given), right) < 1e-6


def test_answers_that_are_kept_do_not_change(networks: dict[str, Network]) -> None:
    module, example = networks["head"]
    call = CudaGraphEngine().compile(module, example, "fp32")
    first = call(*like(example, 0))
    kept = tuple(o.clone() for o in first)
    second = call(*like(example, 1))
    assert equal(first, kept)
    assert apart(first, second) > 1e-3
    for o in second:
        o.zero_()  # they are the caller's
    assert apart(call(*like(example, 0)), kept) < 1e-6
    assert equal(first, kept)


def test_weights_stay_where_the_graph_reads_them(networks: dict[str, Network]) -> None:
    module, example = networks["paths"]
    call = CudaGraphEngine().compile(module, example, "fp32")
    given = like(example, 0)
    before = call(*given)
    gc.collect()
    # whatever was let go would be given to these
    rubbish = [
        torch.full((n,), 9.0, device="cuda") for n in (1 << 10, 1 << 14, 1 << 18, 1 << 22) for _ in range(64)
    ]
    torch.cuda.synchronize()
    assert apart(call(*given), before) < 1e-6
    assert len(rubbish) == 256


def test_two_networks_are_built_at_once_while_both_serve(networks: dict[str, Network]) -> None:
    served = {
        name: BackgroundEngine(module, example, f"test-{name}", order=(CudaGraphEngine(),))
        for name, (module, example) in networks.items()
    }
    given = {name: like(example, 0) for name, (_, example) in networks.items()}
    expected = {name: on_cpu(module, given[name]) for name, (module, _) in networks.items()}
    calls, until, worst = 0, time.monotonic() + 120, 0.0
    tiers: set[str] = set()
    ended = False
    while not ended and time.monotonic() < until:
        ended = all(engine.wait(0) for engine in served.values())  # once more after the last has changed
        for name, engine in served.items():
            tiers.add(engine.tier_name)
            worst = max(worst, apart(engine(*given[name]), expected[name]))
            calls += 1
    print(f"\n{calls} calls meanwhile, by {sorted(tiers)}; max abs error {worst:.6f}")
    assert [engine.tier_name for engine in served.values()] == ["cuda graphs", "cuda graphs"]
    assert worst < BOUNDS["bf16"]


def test_the_declared_order_begins_on_the_gpu(networks: dict[str, Network]) -> None:
    module, example = networks["paths"]
    call, name, reasons = compile_best(module, example)
    print(f"\n{name}; {reasons}")
    assert name in ("tensorrt", "tensorrt-rtx", "torch compile", "cuda graphs")
    given = like(example, 0)
    assert apart(call(*given), on_cpu(module, given)) < BOUNDS["fp32"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["head", "paths"])
def test_what_torch_compiles_gives_the_same(
    networks: dict[str, Network], name: str, precision: Precision
) -> None:
    engine, (module, example) = TorchCompileEngine(), networks[name]
    if not engine.tier().available:
        pytest.skip(engine.tier().reason)
    start = time.perf_counter()
    call = engine.compile(module, example, precision)
    built_s, given = time.perf_counter() - start, like(example, 1)
    graph = CudaGraphEngine().compile(module, example, precision)
    print(
        f"\n{name} {precision}: {median_ms(call, given, 300):.3f} ms compiled in {built_s:.0f} s, "
        f"{median_ms(graph, given, 300):.3f} ms by CUDA graph alone"
    )
    assert apart(call(*given), on_cpu(module, given)) < BOUNDS[precision]


# --- last: what fails in a capture could leave a GPU in a state that other tests notice ------------


class Asking(nn.Module):
    """Asks the GPU for a number in the middle: no graph can hold that."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        mixed = self.mix(image)
        return mixed * 2 if mixed.mean().item() > 0 else mixed


def compile_good(networks: dict[str, Network]) -> tuple[Compiled, float]:
    module, example = networks["head"]
    call = CudaGraphEngine().compile(module, example, "fp32")
    given = like(example, 0)
    return call, apart(call(*given), on_cpu(module, given))


def test_what_cannot_be_captured_is_served_by_the_next_tier(networks: dict[str, Network]) -> None:
    module, given = Asking().eval(), (torch.rand(1, 3, 16, 16),)
    earlier, _ = compile_good(networks)
    stream = torch.cuda.current_stream()
    with pytest.raises(EngineError, match="capturing a CUDA graph failed") as refused:
        CudaGraphEngine().compile(module, given, "fp32")
    print(f"\n{refused.value}")
    assert torch.cuda.current_stream() == stream

    order: tuple[Engine, ...] = (CudaGraphEngine(), TorchEngine())
    call, name, reasons = compile_best(module, given, order=order)
    assert (name, len(reasons)) == ("torch", 1)
    assert apart(call(*given), (on_cpu(module, given),)) == 0  # pyright: ignore[reportArgumentType]

    engine = BackgroundEngine(module, given, "test-asking", order=order)
    assert engine.wait(120)
    assert engine.tier_name == "torch"
    assert len(engine(*given)) == 1

    # and the GPU is as it was, for those captured before and for those that come after
    head, example = networks["head"]
    frame = like(example, 1)
    assert apart(earlier(*frame), on_cpu(head, frame)) < BOUNDS["fp32"]
    assert compile_good(networks)[1] < BOUNDS["fp32"]
