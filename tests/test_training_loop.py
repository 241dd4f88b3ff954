"""The loop that all trainings share: nothing waits, nothing is lost, and how a step is done changes nothing."""

from __future__ import annotations

import copy
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from scripts.training import diary, loop, profiling, step
from scripts.training.average import Follower
from scripts.training.errors import TrainingEnded, TrainingError
from scripts.training.loop import CHECKPOINT, PROFILE, train
from scripts.training.memory import denormals_flushed, is_out_of_memory, keep_freed_memory
from scripts.training.optimiser import fused_adamw, load_optimiser, set_rate
from scripts.training.state import Settings, Training
from scripts.training.step import CompiledStep, Recorder, StaticStep, Step, Told, Work
from scripts.training.table import read_table
from scripts.training.task import Task
from scripts.training.values import Values

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
ALWAYS, NEVER = -1.0, 1e9
Inputs = dict[str, Tensor]


class Line(Task[Inputs]):
    """A line learns another, with dropout, statistics and a loss that begins late."""

    name = "line"

    def __init__(
        self, at: int = -1, do: Callable[[int], None] | None = None, device: torch.device = CPU, late: int = 3
    ) -> None:
        self.device, self.late = device, late
        self._at, self._do = at, do

    def network(self) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        return fused_adamw(network.parameters(), 1.0, self.device, betas=(0.9, 0.99), weight_decay=0.01)

    def rate(self, step: int, spent: float) -> float:
        return 0.05 / (1 + step / 20)

    def batch(self, step: int, rows: int) -> Inputs:
        noise = torch.randn(rows, 1, generator=torch.Generator().manual_seed(step))
        return {"x": torch.linspace(-1, 1, rows)[:, None] + 0.01 * noise}

    def phase(self, step: int) -> Hashable:
        return step >= self.late

    def losses(self, network: nn.Module, batch: Inputs, step: int) -> dict[str, Tensor]:
        if step == self._at and self._do is not None:
            self._do(len(batch["x"]))
        x = batch["x"].to(self.device)
        y: Tensor = network(x)
        losses = {"l2": (y - 3 * x - 1).square().mean()}
        return losses | ({"late": 0.1 * y.abs().mean()} if step >= self.late else {})

    def figures(self, average: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"off": float((average(torch.ones(1, 1, device=self.device)) - 4).abs())}

    def score(self, figures: Any) -> float:
        return figures["off"]


class Spoilt(Line):
    """The loss of one step is no number, or only its slope is none."""

    def __init__(self, at: int, what: str) -> None:
        super().__init__()
        self._spoilt_at, self._what = at, what

    def losses(self, network: nn.Module, batch: Inputs, step: int) -> dict[str, Tensor]:
        losses = super().losses(network, batch, step)
        if step == self._spoilt_at:
            weight = next(network.parameters())
            losses["late"] = (
                losses["l2"] * float("nan") if self._what == "loss" else (weight * 0).sum().sqrt()
            )
        return losses


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """This network is too small to share among cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than these trainings; tests/test_training.py sees curves."""
    monkeypatch.setattr(diary, "draw_curves", lambda _: None)


def few(**changes: Any) -> Settings:
    return replace(Settings(batch=4), **changes)


def quiet(_: str) -> None:
    """Nobody listens."""


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def step_of(path: Path) -> int:
    return torch.load(path, weights_only=True)["step"]


# --- what a step gives is fetched late ---------------------------------------------------------------


def test_how_often_the_losses_are_looked_at_changes_nothing(tmp_path: Path) -> None:
    often, seldom = (
        train(Line(), few(steps=23, fetch_steps=n), tmp_path / str(n), say=quiet) for n in (1, 7)
    )
    assert same(often.network, seldom.network)
    assert same(often.average, seldom.average)
    a, b = (read_table(tmp_path / n / "log.csv")[-1] for n in ("1", "7"))
    assert {k: v for k, v in a.items() if k not in ("minutes", "per_s")} == {
        k: v for k, v in b.items() if k not in ("minutes", "per_s")
    }


def test_values_are_fetched_in_order_and_once() -> None:
    values = Values()
    values.add(3, ["a", "b"], torch.tensor([1.0, 2.0]))
    values.add(4, ["a"], torch.tensor([5.0]))
    assert values.fetch() == [{"a": 1.0, "b": 2.0}, {"a": 5.0}]
    assert values.fetch() == []


@pytest.mark.parametrize(("what", "name"), [("loss", "late"), ("gradient", "gradient")])
@pytest.mark.parametrize("fetch", [1, 1000])
def test_a_number_that_is_none_found_late_does_not_spoil_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, name: str, fetch: int
) -> None:
    train(Line(), few(steps=5), tmp_path, say=quiet)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(TrainingError, match=rf"step 7: the loss is not a number \({name}\).*lower --rate"):
        train(
            Spoilt(7, what),
            few(steps=20, fetch_steps=fetch),
            tmp_path,
            resume=tmp_path / CHECKPOINT,
            say=quiet,
        )
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    # nor does one that is written in the meantime
    monkeypatch.setattr(loop, "CHECKPOINT_S", ALWAYS)
    with pytest.raises(TrainingError, match="step 7"):
        train(
            Spoilt(7, what),
            few(steps=20, fetch_steps=fetch),
            tmp_path,
            resume=tmp_path / CHECKPOINT,
            say=quiet,
        )
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["step"] == 7
    assert all(bool(x.isfinite().all()) for x in state["network"].values())


# --- budgets, cuts and signals -----------------------------------------------------------------------


def test_a_budget_of_samples_counts_rows(tmp_path: Path) -> None:
    done = train(Line(), few(samples=30), tmp_path, say=quiet)
    assert (done.steps, done.samples, done.spent.samples) == (8, 32, 32)
    more = train(Line(), few(samples=60), tmp_path, resume=tmp_path / CHECKPOINT, say=quiet)
    assert (more.steps, more.samples, more.spent.samples) == (15, 60, 28)
    assert f"{28 / more.spent.seconds:.1f} samples/s" in str(more.spent)
    assert 0 <= more.spent.waited_s <= more.spent.seconds


def test_a_training_that_was_cut_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = train(Line(), few(steps=30), tmp_path / "whole", say=quiet)
    train(Line(), few(steps=13), tmp_path / "cut", say=quiet)
    torch.rand(17)  # whatever happens in between
    rest = train(Line(), few(steps=30), tmp_path / "cut", resume=tmp_path / "cut" / CHECKPOINT, say=quiet)
    assert same(whole.network, rest.network)
    assert same(whole.average, rest.average)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    whole = train(Line(), few(steps=12), tmp_path / "whole", say=quiet)
    task = Line(at=5, do=lambda _: signal.raise_signal(number))
    folder = tmp_path / "cut"
    with pytest.raises(TrainingEnded, match=r"ended at step 6, .*run the same again") as ended:
        train(task, few(steps=12, fetch_steps=50), folder, say=quiet)
    assert ended.value.number == number
    assert signal.getsignal(number) is before
    assert step_of(folder / CHECKPOINT) == 6
    assert [row["step"] for row in read_table(folder / "judged.csv")] == [1, 6]
    rest = train(Line(), few(steps=12), folder, resume=folder / CHECKPOINT, say=quiet)
    assert same(whole.network, rest.network)


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    def twice(_: int) -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        train(Line(at=5, do=twice), few(steps=12), tmp_path, say=quiet)
    assert ended.value.code == 128 + signal.SIGTERM


def test_a_second_signal_spares_the_last_judgement_not_the_checkpoint(tmp_path: Path) -> None:
    def once_more(text: str) -> None:
        if "unless you end it once more" in text:
            signal.raise_signal(signal.SIGINT)

    task = Line(at=5, do=lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(task, few(steps=12), tmp_path, say=once_more)
    assert step_of(tmp_path / CHECKPOINT) == 6
    assert [row["step"] for row in read_table(tmp_path / "judged.csv")] == [1]


# --- memory and disk ---------------------------------------------------------------------------------


class Hungry(Line):
    """Memory is enough for `most` rows."""

    def __init__(self, most: int, where: str = "losses") -> None:
        super().__init__()
        self._most, self._where = most, where

    def _need(self, where: str, rows: int) -> None:
        if where == self._where and rows > self._most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    def batch(self, step: int, rows: int) -> Inputs:
        self._need("batch", rows)
        return super().batch(step, rows)

    def losses(self, network: nn.Module, batch: Inputs, step: int) -> dict[str, Tensor]:
        if step >= 4:
            self._need("losses", len(batch["x"]))
        return super().losses(network, batch, step)


def test_batches_halve_where_memory_runs_out_and_the_checkpoint_remembers(tmp_path: Path) -> None:
    said: list[str] = []
    done = train(Hungry(most=2), few(steps=10, batch=9), tmp_path, say=said.append)
    assert [line for line in said if "memory" in line] == [
        "step 4: out of memory; goes on with batches of 4 instead of 9",
        "step 4: out of memory; goes on with batches of 2 instead of 4",
    ]
    assert (done.steps, done.samples) == (10, 4 * 9 + 6 * 2)
    said.clear()
    more = train(
        Hungry(most=2), few(steps=12, batch=9), tmp_path, resume=tmp_path / CHECKPOINT, say=said.append
    )
    assert (more.steps, more.samples) == (12, done.samples + 2 * 2)
    assert not [line for line in said if "memory" in line]


def test_batches_that_are_made_on_the_device_halve_too(tmp_path: Path) -> None:
    done = train(Hungry(most=2, where="batch"), few(steps=3, batch=8), tmp_path, say=quiet)
    assert (done.steps, done.samples) == (3, 6)


def test_memory_too_small_for_one_row_ends_it(tmp_path: Path) -> None:
    train(Line(), few(steps=2), tmp_path, say=quiet)
    with pytest.raises(
        TrainingError, match=r"out of memory on a batch of one; .*last checkpoint is .*last\.pt"
    ):
        train(Hungry(most=0), few(steps=9), tmp_path, resume=tmp_path / CHECKPOINT, say=quiet)
    assert step_of(tmp_path / CHECKPOINT) == 2


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_memory_that_ran_out_is_recognised(error: Exception, is_it: bool) -> None:
    assert is_out_of_memory(error) is is_it


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory as it likes")
def test_memory_that_is_freed_is_kept() -> None:
    """In a process of its own: what is freed is what the next block is made of, without the system's help."""
    code = (
        "import resource, torch; from scripts.training.memory import keep_freed_memory\n"
        "def asked():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    torch.zeros(64 << 18).add_(1)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        # not each time: what was kept may lie some bytes off the boundary that torch asks for
        "torch.set_num_threads(1); asked(); often = min(asked() for _ in range(8)); assert keep_freed_memory();"
        "print(often, min(asked() for _ in range(16)))"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    often, seldom = map(int, told.stdout.split())
    assert seldom < often / 10


def test_small_numbers_are_lost_in_a_training_alone() -> None:
    """Whoever trains in a process that does other things too has its numbers back."""
    small = torch.tensor([1e-39])

    def train() -> None:
        with denormals_flushed():
            assert float(small * 1) == 0
            raise TrainingError("it ends badly")

    able = torch.set_flush_denormal(False)
    if not able:
        pytest.skip("this CPU cannot flush them")
    with pytest.raises(TrainingError):
        train()
    assert float(small * 1) > 0


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()


needs_a_full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is full")


@needs_a_full_disk
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(Line(), few(steps=2), tmp_path, say=quiet)
    before = (tmp_path / CHECKPOINT).read_bytes()
    save = torch.save

    def onto_a_full_disk(state: object, _: object) -> None:
        with Path("/dev/full").open("wb") as full:
            save(state, full)

    monkeypatch.setattr(torch, "save", onto_a_full_disk)
    wanted = r"last\.pt cannot be written \(No space left on device\); make room and run the same again"
    with pytest.raises(TrainingError, match=wanted):
        train(Line(), few(steps=4), tmp_path, resume=tmp_path / CHECKPOINT, say=quiet)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@needs_a_full_disk
@pytest.mark.parametrize("name", ["log.csv", "judged.csv"])
def test_a_disk_too_full_for_a_line_says_so(tmp_path: Path, name: str) -> None:
    train(Line(), few(steps=2), tmp_path, say=quiet)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"cannot be written \(No space left on device\)"):
        train(Line(), few(steps=4), tmp_path, resume=tmp_path / CHECKPOINT, say=quiet)


def test_weights_that_could_not_be_written_are_not_taken_for_written(tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28), "best.safetensors")

    with pytest.raises(TrainingError, match=r"best\.safetensors cannot be written \(No space"):
        train(Line(), few(steps=3), tmp_path, say=quiet, on_best=full)
    assert not (tmp_path / CHECKPOINT).exists()  # it ended after the first step
    written: list[float] = []
    done = train(Line(), few(steps=3), tmp_path, say=quiet, on_best=lambda t, f: written.append(f["off"]))
    assert min(written) == written[-1]
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["best"] == min(written)
    assert done.figures["off"] >= min(written)


# --- average and optimiser ---------------------------------------------------------------------------


def test_the_average_follows_weights_and_statistics_as_one_by_one() -> None:
    torch.manual_seed(0)
    network = Line().network()
    average = copy.deepcopy(network)
    wanted = copy.deepcopy(network)
    follower = Follower(average, network)
    for number in range(30):
        network(torch.randn(6, 1))
        with torch.no_grad():
            for p in network.parameters():
                p.add_(torch.randn_like(p))
            keep = min(0.999, (1 + number) / (10 + number))
            for slow, fast in zip(wanted.state_dict().values(), network.state_dict().values(), strict=True):
                slow.lerp_(fast, 1 - keep) if slow.is_floating_point() else slow.copy_(fast)
        follower.follow(number)
    assert same(average, wanted)
    assert not same(average, network)
    assert int(average.state_dict()["1.num_batches_tracked"]) == 30


def test_the_average_has_the_directions_of_a_spectral_norm_as_they_are() -> None:
    """Averages of unit vectors are shorter: the norm would be taken for smaller, and what is averaged be too strong."""
    torch.manual_seed(0)
    network = nn.Sequential(spectral_norm(nn.Linear(4, 4)))
    average = copy.deepcopy(network)
    follower = Follower(average, network)
    for number in range(30):
        network.load_state_dict(nn.Sequential(spectral_norm(nn.Linear(4, 4))).state_dict())
        follower.follow(number)
    for side in ("_u", "_v"):
        own = average.state_dict()[f"0.parametrizations.weight.0.{side}"]
        assert torch.equal(own, network.state_dict()[f"0.parametrizations.weight.0.{side}"])
    weights = "0.parametrizations.weight.original"
    assert not torch.equal(average.state_dict()[weights], network.state_dict()[weights])


def test_the_average_follows_a_training() -> None:
    training = Training(Line(), few(), quiet)
    first = copy.deepcopy(training.average)
    for number in range(5):
        training.advance(training.task.batch(number, 4))
    assert not same(training.average, first)
    assert not same(training.average, training.network)


def drilled(optimiser: torch.optim.Optimizer, network: nn.Module, steps: Sequence[int]) -> None:
    for number in steps:
        generator = torch.Generator().manual_seed(number)
        set_rate(optimiser, 0.01 / (1 + number))
        for p in network.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimiser.step()


def test_one_kernel_learns_what_many_do() -> None:
    torch.manual_seed(0)
    a = Line().network()
    b = copy.deepcopy(a)
    fused = fused_adamw(a.parameters(), 0.01, CPU, betas=(0.9, 0.99), weight_decay=0.1)
    plain = torch.optim.AdamW(b.parameters(), 0.01, betas=(0.9, 0.99), weight_decay=0.1)
    drilled(fused, a, range(20))
    drilled(plain, b, range(20))
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.allclose(x, y, atol=1e-6)
    # and goes on from what the other has written, in its own way
    load_optimiser(fused, copy.deepcopy(plain.state_dict()))
    with torch.no_grad():
        for x, y in zip(a.parameters(), b.parameters(), strict=True):
            x.copy_(y)
    assert fused.param_groups[0]["fused"] is True
    drilled(fused, a, range(20, 30))
    drilled(plain, b, range(20, 30))
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.allclose(x, y, atol=1e-6)


def test_a_rate_that_is_a_tensor_stays_one() -> None:
    network = Line().network()
    rate = torch.tensor(0.1)
    optimiser = torch.optim.AdamW(network.parameters(), rate, fused=True)
    set_rate(optimiser, 0.25)
    assert optimiser.param_groups[0]["lr"] is rate
    assert float(rate) == 0.25


# --- how a step is done ------------------------------------------------------------------------------


class Counting(Recorder):
    """Counts what it records."""

    recorded = 0

    def record(self, work: Work) -> Callable[[], Told]:
        Counting.recorded += 1
        return super().record(work)


def test_a_recorded_step_gives_the_curve_of_one_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "Recorder", Counting)
    monkeypatch.setattr(Counting, "recorded", 0)
    settings = few(steps=20)
    eager = train(Line(late=8), settings, tmp_path / "eager", say=quiet)
    assert Counting.recorded == 0
    static = train(Line(late=8), replace(settings, step_mode="graph"), tmp_path / "static", say=quiet)
    assert Counting.recorded == 2  # one for each phase
    assert same(eager.network, static.network)
    assert same(eager.average, static.average)


def test_a_recorded_step_reads_its_inputs_where_they_lie() -> None:
    """What is recorded must not hold on to the batch it was recorded with, and what it tells must stay."""
    task = Line(late=0)
    torch.manual_seed(0)
    network = task.network().eval()
    static = StaticStep(Step(task, network, task.optimiser(network)), CPU, Recorder(), quiet)
    told: list[Tensor] = []
    for number in range(8):
        batch = {"x": torch.full((4, 1), float(number))}
        told.append(static(batch, number)[1])
        batch["x"].fill_(float("nan"))
    assert len({float(t[0]) for t in told}) == 8
    assert all(bool(t.isfinite().all()) for t in told)


class Refusing(Recorder):
    """A device that cannot record."""

    def record(self, work: Work) -> Callable[[], Told]:
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might …")


def test_where_recording_fails_it_goes_on_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = train(Line(), few(steps=12), tmp_path / "eager", say=quiet)
    monkeypatch.setattr(step, "Recorder", Refusing)
    said: list[str] = []
    fallen = train(Line(), few(steps=12, step_mode="graph"), tmp_path / "fallen", say=said.append)
    assert same(eager.network, fallen.network)
    assert [line for line in said if "recorded" in line] == [
        "the step cannot be recorded as a CUDA graph (RuntimeError: operation not permitted when stream is "
        "capturing); goes on as it stands, slower"
    ]


class Tuples(Line):
    """Its batches are of another kind."""

    def batch(self, step: int, rows: int) -> Any:
        return (super().batch(step, rows)["x"],)

    def losses(self, network: nn.Module, batch: Any, step: int) -> dict[str, Tensor]:
        return super().losses(network, {"x": batch[0]}, step)


def test_batches_that_cannot_be_copied_into_place_are_taken_as_they_stand(tmp_path: Path) -> None:
    said: list[str] = []
    done = train(Tuples(), few(steps=6, step_mode="graph"), tmp_path, say=said.append)
    assert done.steps == 6
    assert len([line for line in said if "its batches are no dictionaries of tensors" in line]) == 1


def test_memory_that_runs_out_while_recording_halves_the_batch() -> None:
    class Full(Recorder):
        def record(self, work: Work) -> Callable[[], Told]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    task = Line()
    network = task.network()
    static = StaticStep(Step(task, network, task.optimiser(network)), CPU, Full(), quiet)
    for _ in range(step.WARM_UP):
        static(task.batch(0, 4), 0)
    with pytest.raises(torch.OutOfMemoryError):
        static(task.batch(0, 4), 0)


def test_a_compiled_step_asks_the_compiler_once_for_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def compiler(function: object, **_: object) -> object:
        asked.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compiler)
    task = Line(late=3)
    torch.manual_seed(0)
    network = task.network()
    compiled = CompiledStep(task, network, task.optimiser(network), quiet)
    names = [tuple(compiled(task.batch(k, 4), k)[0]) for k in range(6)]
    assert len(asked) == 2
    assert names[:3] == [("total", "l2", "gradient")] * 3
    assert names[3:] == [("total", "l2", "late", "gradient")] * 3


def test_where_compiling_fails_it_goes_on_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiler(*_: object, **__: object) -> Callable[..., None]:
        def broken(*_: object) -> None:
            raise RuntimeError("no C++ compiler")

        return broken

    eager = train(Line(), few(steps=12), tmp_path / "eager", say=quiet)
    monkeypatch.setattr(torch, "compile", compiler)
    said: list[str] = []
    fallen = train(Line(), few(steps=12, step_mode="compile"), tmp_path / "fallen", say=said.append)
    assert same(eager.network, fallen.network)
    assert len([line for line in said if "cannot be compiled (RuntimeError: no C++ compiler)" in line]) == 1


class Plain(Line):
    """Without dropout: graphs and compilers draw other numbers."""

    def network(self) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


@pytest.mark.soak
def test_a_compiled_step_gives_the_curve_of_one_as_it_stands(tmp_path: Path) -> None:
    torch.compiler.reset()  # of what other tests have compiled
    said: list[str] = []
    eager = train(Plain(), few(steps=12), tmp_path / "eager", say=quiet)
    compiled = train(Plain(), few(steps=12, step_mode="compile"), tmp_path / "compiled", say=said.append)
    assert not [line for line in said if "as it stands" in line]
    for a, b in zip(eager.network.parameters(), compiled.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=5e-3)  # of 0.5 that they move: Adam enlarges the last digits


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("mode", ["graph", "compile"])
def test_on_a_gpu_a_step_gives_the_same_curve_however_it_is_done(tmp_path: Path, mode: Any) -> None:
    said: list[str] = []
    gpu = torch.device("cuda")
    settings = few(steps=30)
    eager = train(Plain(device=gpu, late=12), settings, tmp_path / "eager", say=quiet)
    other = train(
        Plain(device=gpu, late=12), replace(settings, step_mode=mode), tmp_path / mode, say=said.append
    )
    assert not [line for line in said if "as it stands" in line]
    for a, b in zip(eager.network.parameters(), other.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=5e-3)  # of 0.5 that they move: Adam enlarges the last digits
    # a batch halves there too, and what was recorded is given back
    training = Training(Plain(device=gpu), replace(settings, step_mode=mode), quiet)
    for number in range(8):
        training.advance(training.task.batch(number, training.rows))
    training.halve(tmp_path)
    training.advance(training.task.batch(8, training.rows))
    assert (training.rows, training.samples) == (2, 34)
    assert len(training.told()) == 9


# --- what it needs and where its time goes -----------------------------------------------------------


def test_a_profile_lists_the_operations_of_some_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("FIRST", 2), ("WARM_UP", 1), ("STEPS", 2)):
        monkeypatch.setattr(profiling, name, value)
    train(Line(), few(steps=8), tmp_path, say=quiet, profile=True)
    text = (tmp_path / PROFILE).read_text()
    assert re.match(r"2 steps in \d+\.\d+ s .*, \d+ % of it waiting for batches\n", text)
    assert "aten::" in text
    assert "Self CPU time total" in text


@pytest.mark.slow
def test_the_loop_needs_little() -> None:
    """It runs on rented machines where nothing but torch, NumPy, OpenCV and safetensors is installed."""
    code = """
import sys
for name in ("matplotlib", "tqdm", "PIL", "av", "mediapipe", "openvino", "scipy", "platformdirs"):
    sys.modules[name] = None
import scripts.generators.loop, scripts.training.loop, scripts.train
from engines.generators.registry import GENERATORS
for entry in GENERATORS.values():
    if entry.blueprint is not None:
        entry.blueprint()().example()
import engines.generators.networked.discriminators, engines.generators.networked.terms, scripts.generators.judges
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
