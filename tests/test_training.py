"""Training: pairs from clips, a loss that falls, a cut that leaves no mark, and errors that say what to do."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from items import FewRows
from numpy.typing import NDArray
from torch import Tensor, nn
from unasked import Unasked

from engines.compile.weights import load_weights
from engines.generators.networked.blueprint import load_networks
from engines.generators.networked.lesson import Outcome, Teaching
from engines.generators.networked.picture import Size
from engines.generators.visavis.blueprint import LossWeights, VisavisBlueprint
from engines.generators.visavis.networks import KIND
from scripts import train as command
from scripts.generators.blueprint_task import BlueprintTask
from scripts.generators.judges import lent
from scripts.generators.loop import OnPairs, rate_at, train
from scripts.generators.rows import Draw, Rows
from scripts.generators.store import Store
from scripts.generators.task import Batch, GeneratorTask
from scripts.training import step
from scripts.training.ahead import prefetched
from scripts.training.errors import TrainingEnded, TrainingError
from scripts.training.loop import CHECKPOINT
from scripts.training.state import Settings, Training
from scripts.training.table import read_table

U8 = NDArray[np.uint8]
ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


@pytest.fixture
def pairs() -> FewRows:
    rows = np.array([(i, k) for i in range(4) for k in range(6)], np.int64)
    return FewRows(rows[:18], rows[18:])


@pytest.fixture
def store(drawn_pairs: Path) -> Store:
    return Store(drawn_pairs, VisavisBlueprint(), CPU)


# --- the loop ----------------------------------------------------------------------------------------


class Line(GeneratorTask):
    """The smallest task: one number learns another."""

    name = "line"

    def __init__(self, spoil_at: int = 10**9) -> None:
        self.spoil_at = spoil_at

    def networks(self) -> nn.Module:
        return nn.Linear(1, 1)

    def batch(self, pairs: Rows, rows: NDArray[np.int64], rng: np.random.Generator | None) -> Batch:
        x = torch.linspace(-1, 1, len(rows))[:, None]
        noise = 0 if rng is None else float(rng.normal())
        return {"x": x, "y": 3 * x + 1 + 0.01 * noise}

    def outcome(self, networks: nn.Module, batch: Batch, step: int) -> Outcome:
        loss: Tensor = (networks(batch["x"]) - batch["y"]).square().mean()
        return Outcome({"l2": loss * (float("nan") if step == self.spoil_at else 1)}, {}, {})

    def figures(self, networks: nn.Module, batch: Batch) -> dict[str, NDArray[np.float64]]:
        with torch.no_grad():
            off = (networks(batch["x"]) - batch["y"]).abs().double().numpy()[:, 0]
        return {"off": off, "off_base": np.ones_like(off)}

    def grid(self, networks: nn.Module, batch: Batch) -> U8:
        return np.zeros((4, 4, 3), np.uint8)


def few(**changes: object) -> Settings:
    return replace(Settings(minutes=5, batch=4, rate=0.05), **changes)


def quiet(_: str) -> None:
    """Nobody listens."""


class Flattered(Line):
    """People that it is trained on, items 0 to 2, find it better than others do."""

    def batch(self, pairs: Rows, rows: NDArray[np.int64], rng: np.random.Generator | None) -> Batch:
        known = torch.from_numpy(rows[:, 0] < 3)
        return super().batch(pairs, rows, rng) | {"known": known}

    def figures(self, networks: nn.Module, batch: Batch) -> dict[str, NDArray[np.float64]]:
        off = np.where(batch["known"].numpy(), 0.1, 0.5)
        return {"off": off, "off_base": np.ones_like(off)}


def test_people_never_trained_on_judge_as_soon_as_they_come(pairs: FewRows, tmp_path: Path) -> None:
    """What was best by others is no measure for them; the same people go on from the best that they found."""
    best: list[float] = []

    def go(rows: FewRows, steps: int) -> None:
        train(
            Flattered(), rows, few(steps=steps), tmp_path, CPU, say=quiet,
            on_best=lambda _, figures: best.append(figures["off"]),
        )  # fmt: skip

    go(replace(pairs, held_out=pairs.held_out[:0]), 2)
    assert best == pytest.approx([0.1])
    go(pairs, 4)
    assert best == pytest.approx([0.1, 0.5])
    go(pairs, 6)
    assert len(best) == 2


def test_what_was_best_at_another_size_is_no_measure(pairs: FewRows, tmp_path: Path) -> None:
    best: list[int] = []

    def go(size_px: int, steps: int) -> None:
        task = Flattered()
        task.window_px = (size_px, size_px)
        train(
            task, pairs, few(steps=steps), tmp_path, CPU, say=quiet,
            on_best=lambda _, figures: best.append(size_px),
        )  # fmt: skip

    go(128, 2)
    go(256, 4)
    go(256, 6)
    assert best == [128, 256]


@pytest.mark.slow
def test_a_training_that_was_cut_goes_on_as_if_it_had_not_been(pairs: FewRows, tmp_path: Path) -> None:
    whole = train(Line(), pairs, few(steps=60), tmp_path / "whole", CPU, judged_rows=4, say=quiet)
    train(Line(), pairs, few(steps=25), tmp_path / "cut", CPU, judged_rows=4, say=quiet)
    rest = train(Line(), pairs, few(steps=60), tmp_path / "cut", CPU, judged_rows=4, say=quiet)
    assert rest.steps == whole.steps == 60
    for a, b in zip(whole.average.parameters(), rest.average.parameters(), strict=True):
        assert torch.equal(a, b)
    first, second = (read_table(tmp_path / n / "judged.csv")[-1] for n in ("whole", "cut"))
    assert first["off"] == second["off"]


@pytest.mark.slow
def test_a_blueprint_too_gives_the_same_curve_after_a_cut(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VisavisBlueprint, "weights", LossWeights(adversarial_from=1))
    task = BlueprintTask(VisavisBlueprint(), CPU, lent(CPU, perceptual=False))
    settings = few(steps=4, batch=2, rate=1e-3)
    whole = train(task, store, settings, tmp_path / "whole", CPU, judged_rows=4, say=quiet)
    train(task, store, replace(settings, steps=2), tmp_path / "cut", CPU, judged_rows=4, say=quiet)
    rest = train(task, store, settings, tmp_path / "cut", CPU, judged_rows=4, say=quiet)
    for a, b in zip(whole.average.parameters(), rest.average.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_a_blueprint_says_in_its_phase_whatever_it_takes_from_the_step(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recorded step repeats the first of its phase: the curve is the same only if nothing else differs."""
    monkeypatch.setattr(step, "WARM_UP", 1)
    monkeypatch.setattr(VisavisBlueprint, "weights", LossWeights(adversarial_from=1))
    monkeypatch.setattr(VisavisBlueprint, "teaching", Teaching(counts_from=3))
    task = BlueprintTask(VisavisBlueprint(), CPU, lent(CPU, perceptual=False))
    settings = few(steps=8, batch=2, rate=1e-3)
    ends: list[nn.Module] = []
    for mode in ("eager", "graph"):
        chosen = replace(settings, step_mode=mode)
        done = train(task, store, chosen, tmp_path / mode, CPU, judged_rows=4, say=quiet)
        ends.append(done.network)
    for a, b in zip(ends[0].parameters(), ends[1].parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_no_step_of_visavis_waits_for_the_device(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = few(batch=2)
    monkeypatch.setattr(VisavisBlueprint, "weights", LossWeights(perceptual_from=0, adversarial_from=0))
    monkeypatch.setattr(VisavisBlueprint, "teaching", Teaching())
    task = BlueprintTask(VisavisBlueprint(), CPU, lent(CPU))
    training = Training(OnPairs(task, store, settings, CPU), settings, quiet)
    for number in range(2):  # one eye at a time
        batch = training.task.batch(number, 2)
        with Unasked():
            training.advance(batch)


def test_the_same_seed_draws_the_same_batches_and_another_does_not(pairs: FewRows) -> None:
    a, b, c = Draw(pairs, 1), Draw(pairs, 1), Draw(pairs, 2)
    assert (a.rows(8, 5, a.rng(5)) == b.rows(8, 5, b.rng(5))).all()
    assert (a.rows(8, 5, a.rng(5)) != c.rows(8, 5, c.rng(5))).any()
    assert (a.rows(8, 5, a.rng(5)) != a.rows(8, 6, a.rng(6))).any()


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_batches_are_made_ahead_in_order_and_errors_arrive(workers: int) -> None:
    def make(step: int) -> int:
        if step == 5:
            raise ValueError("spoilt")
        return step * step

    batches = prefetched(make, 2, workers=workers)
    assert [next(batches) for _ in range(3)] == [(2, 4), (3, 9), (4, 16)]
    with pytest.raises(ValueError, match="spoilt"):
        next(batches)


def test_the_rate_depends_on_the_step_alone() -> None:
    rates = [rate_at(few(rate=1.0), step) for step in (0, 199, 3000, 9000)]
    assert rates[0] < 0.01
    assert rates[1] > rates[2] > rates[3]
    assert rates[2] == pytest.approx(1 / np.sqrt(2))


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(pairs: FewRows, tmp_path: Path) -> None:
    train(Line(), pairs, few(steps=5), tmp_path, CPU, judged_rows=4, say=quiet)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(TrainingError, match=r"step 7: the loss is not a number \(l2\).*lower --rate"):
        train(Line(spoil_at=7), pairs, few(steps=20), tmp_path, CPU, judged_rows=4, say=quiet)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


@pytest.mark.slow
def test_a_checkpoint_of_something_else_is_refused(pairs: FewRows, tmp_path: Path) -> None:
    train(Line(), pairs, few(steps=3), tmp_path, CPU, judged_rows=4, say=quiet)
    other = Line()
    other.name = "plane"
    with pytest.raises(TrainingError, match="a checkpoint of line, not of plane"):
        train(other, pairs, few(steps=5), tmp_path, CPU, judged_rows=4, say=quiet)
    with pytest.raises(TrainingError, match="--seed 0 --batch 4; give the same"):
        train(Line(), pairs, few(steps=5, batch=5), tmp_path, CPU, judged_rows=4, say=quiet)
    (tmp_path / CHECKPOINT).write_bytes(b"torn")
    with pytest.raises(TrainingError, match="cannot be read as a checkpoint"):
        train(Line(), pairs, few(steps=5), tmp_path, CPU, judged_rows=4, say=quiet)


@pytest.mark.slow
def test_a_new_training_does_not_go_on_in_an_old_table(pairs: FewRows, tmp_path: Path) -> None:
    train(Line(), pairs, few(steps=3), tmp_path, CPU, judged_rows=4, say=quiet)
    train(Line(), pairs, few(steps=5), tmp_path, CPU, judged_rows=4, say=quiet)
    assert [r["step"] for r in read_table(tmp_path / "judged.csv")] == [1, 3, 5]
    (tmp_path / CHECKPOINT).unlink()
    train(Line(), pairs, few(steps=4), tmp_path, CPU, judged_rows=4, say=quiet)
    assert [r["step"] for r in read_table(tmp_path / "judged.csv")] == [1, 4]


# --- the command -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_few_steps_make_it_better(drawn_pairs: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine.safetensors"
    typed = [
        sys.executable, "-m", "scripts.train", str(drawn_pairs), "--minutes", "600", "--steps", "10", "--batch", "4",
        "--runs", str(tmp_path / "run"), "-o", str(output), "--licence", "mine",
    ]  # fmt: skip
    done = subprocess.run(typed, cwd=ROOT, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    assert re.search(r"10 steps, 40 samples in .* minutes", done.stdout)
    assert re.search(r"this run: \d+\.\d samples/s, \d+ % of the time waiting for batches", done.stdout)
    rows = read_table(tmp_path / "run" / "log.csv")
    assert rows[0]["step"] == 1
    judged = read_table(tmp_path / "run" / "judged.csv")
    assert judged[-1]["score"] < judged[0]["score"]
    for name in ("grid.png", "curves.png"):
        assert cv2.imread(str(tmp_path / "run" / name)) is not None
    _, about = load_weights(output, KIND)
    assert about.licence == "mine"
    assert load_networks(VisavisBlueprint, output)[1].training is False


@pytest.mark.slow
def test_a_training_begins_from_weights_and_tells_all_that_was_spent(
    drawn_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when it is cut off, and the file that it began from has been written over meanwhile."""
    given = ["train", str(drawn_pairs), "--batch", "2", "--no-perceptual", "--device", "cpu"]
    path = tmp_path / "mine.safetensors"

    def go(folder: str, *more: str) -> dict[str, object]:
        monkeypatch.setattr(sys, "argv", [*given, "--runs", str(tmp_path / folder), "-o", str(path), *more])
        command.main()
        capsys.readouterr()
        return dict(load_weights(path, KIND)[1].notes)

    assert go("first", "--steps", "2")["samples"] == 4
    first = load_weights(path, KIND)[0]
    # a rate of nothing: what is judged and saved is what it began from
    notes = go("second", "--from", str(path), "--steps", "1", "--rate", "0")
    assert (notes["steps"], notes["samples"]) == (3, 6)
    again = load_weights(path, KIND)[0]
    assert all(np.allclose(first[name], again[name], atol=2e-3) for name in first)
    checkpoint = torch.load(tmp_path / "second" / CHECKPOINT, weights_only=True)
    assert checkpoint["own"]["before"] == {"steps": 2, "samples": 4, "minutes": pytest.approx(0, abs=60)}
    checkpoint["best"] = math.inf
    torch.save(checkpoint, tmp_path / "second" / CHECKPOINT)
    notes = go("second", "--from", str(path), "--steps", "2")
    assert (notes["steps"], notes["samples"]) == (4, 8)


def test_weights_of_other_parts_are_not_begun_from(
    drawn_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = VisavisBlueprint.weights_path()
    for more in (["--without", "mouth"], ["--config", "code=9"]):
        told = [*more, "--from", str(path), "--runs", str(tmp_path), "--device", "cpu", "--no-perceptual"]
        monkeypatch.setattr(sys, "argv", ["train", str(drawn_pairs), *told])
        with pytest.raises(SystemExit):
            command.main()
        assert "is of other widths or parts than this training" in capsys.readouterr().err


def test_a_size_that_a_generator_does_not_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", str(tmp_path), "--size", "64"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "train: visavis has one size, 128 px; leave the size out\n"
    assert command.blueprint_of("visavis", "", [], 128).window == Size(128, 128)


def test_an_ended_training_ends_the_command_as_the_signal_would(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended_by(_: object) -> None:
        raise TrainingEnded("ended at step 7", 15)

    monkeypatch.setattr(command, "run", ended_by)
    monkeypatch.setattr(sys, "argv", ["train", "cache"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 128 + 15
    assert capsys.readouterr().out == "ended at step 7\n"


@pytest.mark.parametrize(
    ("given", "minutes"),
    [
        ([], 60),
        (["--minutes", "5"], 5),
        (["--steps", "9"], np.inf),
        (["--samples", "9", "--minutes", "2"], 2),
    ],
)
def test_an_hour_is_the_budget_where_none_is_given(
    monkeypatch: pytest.MonkeyPatch, given: list[str], minutes: float
) -> None:
    seen: list[float] = []
    monkeypatch.setattr(command, "run", lambda arguments: seen.append(command.minutes_of(arguments)))
    monkeypatch.setattr(sys, "argv", ["train", "cache", *given])
    command.main()
    assert seen == [minutes]


@pytest.mark.slow
def test_a_generator_that_learns_from_a_recognition_net_goes_without_where_there_is_none(
    drawn_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", str(drawn_pairs), "--steps", "1", "--batch", "1", "--no-perceptual", "--device", "cpu"]
    monkeypatch.setattr(VisavisBlueprint, "teacher", "mobileface")
    for more, why in (([], "--recognition"), (["--recognition", str(tmp_path)], "mobileface.json")):
        monkeypatch.setattr(sys, "argv", [*given, "--runs", str(tmp_path / f"run{len(more)}"), *more])
        command.main()
        told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("without the loss")]
        assert len(told) == 1
        assert why in told[0]
        _, header = load_weights(tmp_path / f"run{len(more)}" / "best.safetensors", VisavisBlueprint.kind)
        assert header.notes["teacher"] is None


@pytest.mark.slow
def test_a_command_that_cannot_train_says_so_in_one_line(tmp_path: Path) -> None:
    typed = [sys.executable, "-m", "scripts.train", str(tmp_path)]
    done = subprocess.run(typed, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert done.stderr.startswith("train: ")
    assert "scripts.generators.pairs" in done.stderr
    assert "Traceback" not in done.stderr
