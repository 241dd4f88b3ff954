"""Engines: the same numbers from every tier that works here, the caller's module left alone, failures that say why."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest
import torch
from accelerators import FakeGpu
from torch import Tensor, nn
from torch.nn import functional as F

from engines.compile.cuda_graph_engine import CudaGraphEngine
from engines.compile.engine import Compiled, Engine, Precision, Tier, answer_of
from engines.compile.exports import engine_cache_folder
from engines.compile.names import ENGINE_NAMES, ENGINES_SETTING
from engines.compile.open import ENGINES, compile_best, engine_order, open_engine, tiers
from engines.compile.openvino_engine import OpenVinoEngine
from engines.compile.tensorrt_engine import TensorRtEngine
from engines.compile.torch_engine import TorchEngine
from engines.errors import EngineError


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


@pytest.fixture
def fake_tensorrt(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A torch_tensorrt that compiles to the module itself."""
    module = ModuleType("torch_tensorrt")
    module.__spec__ = ModuleSpec("torch_tensorrt", None)
    module.__dict__["options"] = asked = list[dict[str, object]]()
    module.__dict__["compile"] = lambda module, **options: asked.append(options) or module
    monkeypatch.setitem(sys.modules, "torch_tensorrt", module)
    return module


ALL: list[Engine] = [
    TorchEngine(),
    OpenVinoEngine(),
    CudaGraphEngine(FakeGpu()),
    TensorRtEngine(FakeGpu()),
]
every_engine = pytest.mark.parametrize("engine", ALL, ids=lambda e: e.name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "precision", "bound"),
    [
        (TorchEngine(), "fp32", 1e-6),
        (TorchEngine(), "bf16", 0.05),
        (OpenVinoEngine(), "fp32", 1e-4),
        (CudaGraphEngine(FakeGpu()), "fp32", 1e-6),
        (TensorRtEngine(FakeGpu()), "fp32", 1e-6),
    ],
)
@pytest.mark.usefixtures("fake_tensorrt")
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


# --- by name, in order ----------------------------------------------------------------------------


def test_engines_are_opened_by_name() -> None:
    assert tuple(ENGINES) == ENGINE_NAMES
    assert [open_engine(name).name for name in ENGINE_NAMES] == list(ENGINE_NAMES)
    with pytest.raises(
        EngineError,
        match=r"no engine 'hat'.*tensorrt, tensorrt-rtx, torch compile, cuda graphs, openvino, torch",
    ):
        open_engine("hat")


def test_tiers_are_in_the_declared_order_with_reasons() -> None:
    found = tiers()
    assert [t.name for t in found] == [
        "tensorrt", "tensorrt-rtx", "torch compile", "cuda graphs", "openvino", "torch",
    ]  # fmt: skip
    assert found[-1].available
    assert all(t.reason for t in found)


def test_cpu_machines_end_on_openvino_or_torch(inputs: tuple[Tensor, Tensor]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this computer has a GPU")
    _, name, reasons = compile_best(TinyWarp(), inputs)
    assert name == "openvino"
    assert [reason.split(":")[0] for reason in reasons] == [
        "tensorrt",
        "tensorrt-rtx",
        "torch compile",
        "cuda graphs",
    ]


def test_another_order_is_a_setting(inputs: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINES_SETTING, " torch, openvino,torch,, ")
    assert engine_order() == ("torch", "openvino")
    assert compile_best(TinyWarp(), inputs)[1:] == ("torch", [])
    found = tiers()
    assert [t.name for t in found] == [
        "torch", "openvino", "tensorrt", "tensorrt-rtx", "torch compile", "cuda graphs",
    ]  # fmt: skip
    assert all("left out of VISAVIS_ENGINES" in t.reason for t in found[2:])
    monkeypatch.setenv(ENGINES_SETTING, " , ")
    assert engine_order() == ENGINE_NAMES
    monkeypatch.setenv(ENGINES_SETTING, "torch,hat")
    for ask in (engine_order, tiers, lambda: compile_best(TinyWarp(), inputs)):
        with pytest.raises(EngineError, match="VISAVIS_ENGINES: there is no engine 'hat'"):
            ask()


# --- the caller's module --------------------------------------------------------------------------


class Wrecking(Engine):
    """Does to the module it is given all that an engine could do, while it waits to be let go."""

    name = "wrecking"

    def __init__(self) -> None:
        self.at_work, self.go_on = threading.Event(), threading.Event()

    def tier(self) -> Tier:
        return Tier(self.name, True, "")

    def build(
        self, module: nn.Module, example: tuple[Tensor, ...], precision: Precision, key: str | None
    ) -> Compiled:
        module.train().to(torch.float64).requires_grad_(True)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
            for x in example:
                x.fill_(7)
        self.at_work.set()
        self.go_on.wait(600)
        raise EngineError("done")


def half_trained() -> nn.Module:
    """With parts in either mode and one weight frozen: a state that only the caller can want."""
    module = nn.Sequential(TinyWarpSum(), nn.Dropout(0.5), nn.BatchNorm2d(3))
    module.train()
    module[1].eval()
    module[2].requires_grad_(False)
    return module


class TinyWarpSum(nn.Module):
    """One output, for a Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return torch.tanh(self.mix(image))


def state_of(module: nn.Module) -> tuple[object, ...]:
    return (
        [(name, m.training) for name, m in module.named_modules()],
        [(name, p.requires_grad, p.dtype, p.device, id(p)) for name, p in module.named_parameters()],
        {name: t.clone().numpy().tobytes() for name, t in module.state_dict().items()},
    )


@every_engine
@pytest.mark.usefixtures("fake_tensorrt")
def test_the_callers_module_stays_as_it_is(engine: Engine) -> None:
    module, given = half_trained(), (torch.rand(1, 3, 16, 16),)
    before = state_of(module)
    for precision in ("fp32", "bf16"):
        engine.compile(module, given, precision)(*given)
        assert state_of(module) == before


def test_a_module_serves_bit_equal_while_an_engine_wrecks_its_copy(inputs: tuple[Tensor, Tensor]) -> None:
    module, engine = TinyWarp().train(), Wrecking()
    before, image = state_of(module), inputs[0].clone()
    with torch.inference_mode():
        expected = module(*inputs)
        failures: list[EngineError] = []

        def compile_it() -> None:
            try:
                engine.compile(module, inputs, "fp32")
            except EngineError as error:
                failures.append(error)

        builder = threading.Thread(target=compile_it)
        builder.start()
        assert engine.at_work.wait(600)
        got = module(*inputs)
        engine.go_on.set()
        builder.join(600)
    assert failures
    assert all(torch.equal(e, g) for e, g in zip(expected, got, strict=True))
    assert torch.equal(inputs[0], image)
    assert state_of(module) == before


def test_later_changes_of_the_module_do_not_reach_what_was_compiled(inputs: tuple[Tensor, Tensor]) -> None:
    module = TinyWarp()
    call = TorchEngine().compile(module, inputs, "fp32")
    before = call(*inputs)[1]
    with torch.no_grad():
        module.flow.weight.zero_()
    assert torch.equal(call(*inputs)[1], before)


# --- inputs ---------------------------------------------------------------------------------------


@every_engine
@pytest.mark.usefixtures("fake_tensorrt")
def test_wrong_inputs_are_refused_by_name(engine: Engine, inputs: tuple[Tensor, Tensor]) -> None:
    call = engine.compile(TinyWarp(), inputs, "fp32")
    image, grid = inputs
    right = call(image, grid)
    for wrong, said in (
        ((image, grid[:, :1]), r"grid is float32 \(1, 1, 32, 2\), not float32 \(1, 32, 32, 2\)"),
        ((image.expand(2, -1, -1, -1), grid), r"image is float32 \(2, 3, 32, 32\)"),
        ((image[0], grid), r"image is float32 \(3, 32, 32\)"),
        ((image[:, :1], grid), r"image is float32 \(1, 1, 32, 32\)"),  # would broadcast
        ((image.half(), grid), r"image is float16 \(1, 3, 32, 32\), not float32 \(1, 3, 32, 32\)"),
        ((image.half(), grid.double()), r"image is float16 .*; grid is float64"),
        ((image.numpy(), grid), r"image is a ndarray, not float32"),
        ((image,), r"1 inputs were given to a network compiled for 2: image, grid"),
        ((image, grid, grid), r"3 inputs were given to a network compiled for 2: image, grid"),
    ):
        with pytest.raises(EngineError, match=said):
            call(*wrong)
    assert all(torch.equal(a, b) for a, b in zip(call(image, grid), right, strict=True))


def test_inputs_without_a_name_have_a_number() -> None:
    class Sum(nn.Module):
        def forward(self, first: Tensor, *others: Tensor) -> Tensor:
            return first + sum(others)

    ones = tuple(torch.ones(2) for _ in range(3))
    call = TorchEngine().compile(Sum(), ones, "fp32")
    with pytest.raises(EngineError, match=r": others\[1\] is float32 \(3,\), not float32 \(2,\)$"):
        call(ones[0], ones[1], torch.ones(3))
    traced = cast(nn.Module, torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)))
    with pytest.raises(EngineError, match=r" is float32 \(1, 3\), not float32 \(1, 2\)$"):
        TorchEngine().compile(traced, (torch.ones(1, 2),), "fp32")(torch.ones(1, 3))


# --- answers --------------------------------------------------------------------------------------


class Sticky(nn.Module):
    """Answers with its input and with a buffer that it changes in each call."""

    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(1, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.total += x
        return x, self.total


@pytest.mark.parametrize(
    "engine", [TorchEngine(), CudaGraphEngine(FakeGpu()), TensorRtEngine(FakeGpu())], ids=lambda e: e.name
)
@pytest.mark.usefixtures("fake_tensorrt")
def test_an_answer_that_is_kept_does_not_change(engine: Engine) -> None:
    given = torch.ones(1, 4)
    call = engine.compile(Sticky(), (given,), "fp32")
    same, total = call(given)
    kept = total.clone()
    given.fill_(5)
    call(given)
    assert torch.equal(same, torch.ones(1, 4))
    assert torch.equal(total, kept)
    total.zero_()  # it is the caller's: the network does not notice
    assert float(call(given)[1][0, 0]) == float(kept[0, 0]) + 10


@every_engine
@pytest.mark.usefixtures("fake_tensorrt")
def test_repeated_calls_answer_in_memory_of_their_own(engine: Engine, inputs: tuple[Tensor, Tensor]) -> None:
    call = engine.compile(TinyWarp(), inputs, "fp32")
    answers = [call(inputs[0] * k, inputs[1]) for k in (1.0, 0.5, 1.0)]
    assert not torch.equal(answers[0][0], answers[1][0])
    assert all(torch.equal(a, b) for a, b in zip(answers[0], answers[2], strict=True))
    assert len({o.data_ptr() for answer in answers for o in answer}) == 6


# --- failures -------------------------------------------------------------------------------------

PHASES = ("tier", "build", "call", "answer", "kind")


class Failing(Engine):
    """Fails in one phase, in a way that the contract does not speak of."""

    name = "failing"

    def __init__(self, phase: str) -> None:
        self._phase = phase

    def tier(self) -> Tier:
        self._fail_in("tier")
        return Tier(self.name, True, "")

    def build(
        self, module: nn.Module, example: tuple[Tensor, ...], precision: Precision, key: str | None
    ) -> Compiled:
        self._fail_in("build")

        def run(*given: Tensor) -> tuple[Tensor, ...]:
            self._fail_in("call")
            if self._phase == "answer":
                return ()
            return tuple(o.double() if self._phase == "kind" else o for o in answer_of(module(*given)))

        return run

    def _fail_in(self, phase: str) -> None:
        if phase == self._phase:
            raise ZeroDivisionError(f"in {phase}")


class Refusing(Failing):
    """Refuses as the contract wants it."""

    name = "refusing"

    def __init__(self) -> None:
        super().__init__("never")

    def build(
        self, module: nn.Module, example: tuple[Tensor, ...], precision: Precision, key: str | None
    ) -> Compiled:
        raise EngineError("not today")


def served_by(order: Sequence[Engine], inputs: tuple[Tensor, ...]) -> tuple[str, list[str]]:
    call, name, reasons = compile_best(TinyWarp(), inputs, order=order)
    assert len(call(*inputs)) == 2
    return name, reasons


def test_the_next_tier_serves_when_one_refuses(inputs: tuple[Tensor, Tensor]) -> None:
    assert served_by((Refusing(), TorchEngine()), inputs) == ("torch", ["refusing: not today"])


@pytest.mark.parametrize("phase", PHASES)
def test_the_next_tier_serves_whatever_fails(phase: str, inputs: tuple[Tensor, Tensor]) -> None:
    name, reasons = served_by((Failing(phase), TorchEngine()), inputs)
    assert name == "torch"
    assert len(reasons) == 1
    assert reasons[0].startswith("failing: ")
    assert "Error: " in reasons[0]


@pytest.mark.parametrize("phase", ["refusal", "move", "place", "warm_up", "capture", "replay"])
def test_the_next_tier_serves_whatever_fails_on_a_gpu(phase: str, inputs: tuple[Tensor, Tensor]) -> None:
    gpu = FakeGpu(fails_in=phase)
    name, reasons = served_by((CudaGraphEngine(gpu), TorchEngine()), inputs)
    assert name == "torch"
    assert f"no {phase} today" in reasons[0]
    assert gpu.building.acquire(blocking=False)  # and nobody waits for it for ever


@pytest.mark.parametrize("phase", ["refusal", "move", "place", "compile"])
def test_the_next_tier_serves_when_tensorrt_fails(
    phase: str, inputs: tuple[Tensor, Tensor], fake_tensorrt: ModuleType
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no compile today")

    if phase == "compile":
        fake_tensorrt.__dict__["compile"] = refuse
    name, reasons = served_by((TensorRtEngine(FakeGpu(fails_in=phase)), TorchEngine()), inputs)
    assert name == "torch"
    assert f"no {phase} today" in reasons[0]


def test_tensorrt_keeps_its_timings_in_our_cache_and_not_in_a_folder_of_everybody(
    inputs: tuple[Tensor, Tensor], fake_tensorrt: ModuleType
) -> None:
    TensorRtEngine(FakeGpu()).compile(TinyWarp(), inputs, "fp32")
    (asked,) = fake_tensorrt.__dict__["options"]
    assert Path(str(asked["timing_cache_path"])).parent == engine_cache_folder()


def test_a_module_that_cannot_be_copied_is_refused(inputs: tuple[Tensor, Tensor]) -> None:
    module = TinyWarp()
    module.register_buffer("made", module.flow.weight * 2)  # torch copies leaves only
    with pytest.raises(EngineError, match="copying the network failed"):
        compile_best(module, inputs, order=(TorchEngine(),))


def test_an_example_that_does_not_fit_is_refused(inputs: tuple[Tensor, Tensor]) -> None:
    for engine in (TorchEngine(), OpenVinoEngine(), CudaGraphEngine(FakeGpu())):
        with pytest.raises(EngineError):
            engine.compile(TinyWarp(), (inputs[0][:, :1], inputs[1]), "fp32")
        with pytest.raises(EngineError):
            engine.compile(TinyWarp(), inputs[:1], "fp32")


def test_a_call_that_fails_later_says_which_engine_it_was(inputs: tuple[Tensor, Tensor]) -> None:
    gpu = FakeGpu()
    call = CudaGraphEngine(gpu).compile(TinyWarp(), inputs, "fp32")
    gpu.fails_in = "replay"
    with pytest.raises(EngineError, match="the engine cuda graphs failed in a call: RuntimeError: no replay"):
        call(*inputs)
    gpu.fails_in = ""
    assert len(call(*inputs)) == 2


def test_no_tier_left_tells_every_reason(inputs: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(EngineError, match=r"refusing: not today; failing: building failed: ZeroDivision"):
        compile_best(TinyWarp(), inputs, order=(Refusing(), Failing("build")))
    with pytest.raises(EngineError, match="no engine"):
        compile_best(TinyWarp(), inputs, order=())


# --- kept exports ---------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return engine_cache_folder()


class AsLargeAs(nn.Module):
    """Asks for a size, as networks do that take guides of several."""

    def forward(self, image: Tensor) -> Tensor:
        return image * 2 if image.shape[2:] == (8, 8) else image


def test_a_network_that_asks_for_a_size_is_no_warning_in_a_log() -> None:
    image = torch.rand(1, 3, 8, 8)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        compiled = OpenVinoEngine().compile(AsLargeAs(), (image,), "fp32")
    assert [str(w.message) for w in said if w.category.__name__ == "TracerWarning"] == []
    assert torch.allclose(compiled(image)[0], 2 * image)


def test_what_was_exported_is_kept_and_made_again_when_damaged(cache: Path) -> None:
    module, given = nn.Conv2d(3, 4, 3).eval(), (torch.rand(1, 3, 16, 16),)
    first = OpenVinoEngine().compile(module, given, "fp32", key="tiny")(*given)[0]
    assert sorted(p.suffix for p in cache.iterdir()) == [".bin", ".sha256", ".xml"]
    kept = next(cache.glob("tiny-*.xml"))
    other = nn.Conv2d(3, 4, 3).eval()  # the kept one is used: the key says what it is
    assert torch.equal(OpenVinoEngine().compile(other, given, "fp32", key="tiny")(*given)[0], first)
    kept.with_suffix(".bin").write_bytes(b"torn")
    repaired = OpenVinoEngine().compile(module, given, "fp32", key="tiny")(*given)[0]
    assert torch.allclose(repaired, first, atol=1e-5)


def test_an_export_for_other_shapes_is_made_again(cache: Path) -> None:
    module = nn.Conv2d(3, 4, 3).eval()
    for size in (16, 24):
        given = (torch.rand(1, 3, size, size),)
        got = OpenVinoEngine().compile(module, given, "fp32", key="tiny")(*given)[0]
        assert torch.allclose(got, module(*given), atol=1e-5)


def test_a_cache_that_cannot_be_written_stops_nothing(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text("a file where the folder should be")
    given = (torch.rand(1, 3, 16, 16),)
    assert OpenVinoEngine().compile(nn.Conv2d(3, 4, 3), given, "fp32", key="tiny")(*given)
    assert "cannot be kept" in caplog.text
