"""Training: pairs from clips, a loss that falls, a cut that leaves no mark, and errors that say what to do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from fakes import write_video
from numpy.typing import NDArray
from torch import Tensor, nn
from unasked import Unasked

from engines.compile.weights import load_weights
from engines.enrollment import Enrollment
from engines.generators.networked.blueprint import load_networks
from engines.generators.visavis.blueprint import VisavisBlueprint
from engines.generators.visavis.networks import KIND
from engines.renderer import Renderer
from scripts import train as command
from scripts.generators import old_pairs as making
from scripts.generators.data import Draw, Pairs, read_pairs
from scripts.generators.loop import OnPairs, rate_at, train
from scripts.generators.task import Batch, GeneratorTask, Outcome
from scripts.generators.visavis_task import LossWeights, VisavisTask, warp
from scripts.people.tracks import is_held_out
from scripts.training import step
from scripts.training.ahead import prefetched
from scripts.training.errors import TrainingEnded, TrainingError
from scripts.training.loop import CHECKPOINT
from scripts.training.state import Settings, Training
from scripts.training.table import read_table
from streamer.drive.demo import demo_track, looped

U8 = NDArray[np.uint8]
ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


def name_of(held_out: bool, taken: set[str]) -> str:
    """A person's name that the split puts where it is wanted."""
    name = next(
        n for n in (f"person{k}" for k in range(200)) if is_held_out(n) == held_out and n not in taken
    )
    taken.add(name)
    return name


@pytest.fixture(scope="session")
def clips(astronaut: Enrollment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three short clips, 256 px, of two people to train on and one held out."""
    from engines.motion import Motion
    from engines.retarget import Controls, retarget

    folder = tmp_path_factory.mktemp("three-clips")
    renderer = Renderer(astronaut, generator="geometric", size_px=256)
    rest = demo_track().neutral or Motion()
    taken: set[str] = set()
    for k, held_out in enumerate((False, False, True)):
        times = [k * 1.5 + 0.08 * i for i in range(24)]
        frames = [
            renderer.render(retarget(looped(demo_track(), t), rest, astronaut.motion, Controls()))
            for t in times
        ]
        tinted = [
            np.roll(f, k, axis=2)
            if k == 2
            else np.asarray(cv2.convertScaleAbs(f, alpha=1 - 0.2 * k), np.uint8)
            for f in frames
        ]
        write_video(folder / f"{name_of(held_out, taken)}_01.mp4", iter(tinted), fps=25, audio=None)
    return folder


@pytest.fixture(scope="session")
def cache(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    making.build(clips, folder, tmp_path_factory.mktemp("tracks"), jobs=1)
    return folder


@pytest.fixture(scope="session")
def pairs(cache: Path) -> Pairs:
    return read_pairs(cache)


# --- pairs -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pairs_are_split_by_person_and_reported(cache: Path, pairs: Pairs) -> None:
    report = json.loads((cache / "report.json").read_text())
    assert len(report["items"]) == 3
    assert report["left_out"] == {}
    assert len(pairs.train) > 10
    assert len(pairs.held_out) == making.HELD_OUT_TARGETS
    assert not set(pairs.train[:, 0]) & set(pairs.held_out[:, 0])


@pytest.mark.slow
def test_the_geometric_picture_is_near_the_true_frame(pairs: Pairs) -> None:
    """The clip is drawn by geometry, so what is cached as its picture must show the same moment."""
    task = VisavisTask(LossWeights(perceptual=0))
    batch = task.batch(pairs, pairs.held_out, None)
    shown = batch["picture"][:, :3] + (1 - batch["picture"][:, 3:]) * batch["background"]
    off = (shown - batch["truth"]).abs().mean()
    photo = batch["photo"][:, :3] + (1 - batch["photo"][:, 3:4]) * batch["background"]
    assert float(off) < 0.06
    assert float(off) < float((photo - batch["truth"]).abs().mean())
    mouth = (batch["mouth"] - batch["mouth_truth"]).abs().mean()
    assert float(mouth) < 0.09


@pytest.mark.slow
def test_a_cache_that_is_complete_is_not_made_again(clips: Path, cache: Path, tmp_path: Path) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in cache.glob("*.npz")}
    making.build(clips, cache, tmp_path, jobs=1)
    assert {p.name: p.stat().st_mtime_ns for p in cache.glob("*.npz")} == before


def test_a_folder_without_a_usable_clip_says_why(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    grey = [np.full((128, 128, 3), 90, np.uint8)] * 12
    write_video(data / "nobody_01.mp4", iter(grey), fps=25, audio=None)
    with pytest.raises(TrainingError, match=r"no usable clip in .*data"):
        making.build(data, tmp_path / "pairs", tmp_path / "tracks", jobs=1)


@pytest.mark.slow
def test_a_mirrored_batch_is_the_batch_in_a_mirror(pairs: Pairs) -> None:
    """What is mirrored must still fit: the crops lie where the mirrored window says."""

    class Coin:
        """A generator of random numbers whose coin always falls on one side and whose colours are as they were."""

        def random(self, count: int) -> NDArray[np.float64]:
            return np.zeros(count)

        def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
            return np.zeros(shape)

    task = VisavisTask(LossWeights(perceptual=0))
    rows = pairs.train[:3]
    plain = task.batch(pairs, rows, None)
    mirrored = task.batch(pairs, rows, Coin())  # pyright: ignore[reportArgumentType]
    assert torch.allclose(mirrored["truth"], plain["truth"].flip(-1))
    assert torch.allclose(mirrored["guide"][:, 6:], plain["guide"][:, 6:].flip(-1))
    assert torch.allclose(mirrored["eyes"], plain["eyes"].flip(1))
    assert torch.allclose(mirrored["eyes_motion"][:, 0], plain["eyes_motion"][:, 1])
    for batch in (plain, mirrored):
        for name in ("mouth", "eyes"):
            crop = batch[f"{name}_truth"].reshape(-1, *batch[f"{name}_truth"].shape[-3:])
            place = batch[f"{name}_place"].reshape(-1, 2, 3)
            truth = batch["truth"].repeat_interleave(len(crop) // len(rows), 0)
            grid = nn.functional.affine_grid(place, list(crop.shape), align_corners=False)
            seen = nn.functional.grid_sample(truth, grid, align_corners=False)
            assert float((seen - crop).abs().mean()) < 0.03, name


def test_a_warp_by_nothing_is_nothing_and_by_a_share_moves() -> None:
    picture = torch.rand(2, 3, 16, 16)
    flow = torch.zeros(2, 2, 16, 16)
    assert torch.allclose(warp(picture, flow), picture, atol=1e-5)
    flow[:, 0] = 4 / 16
    assert torch.allclose(warp(picture, flow)[..., :12], picture[..., 4:], atol=1e-5)


# --- the loop ----------------------------------------------------------------------------------------


class Line(GeneratorTask):
    """The smallest task: one number learns another."""

    name = "line"

    def __init__(self, spoil_at: int = 10**9) -> None:
        self.spoil_at = spoil_at

    def networks(self) -> nn.Module:
        return nn.Linear(1, 1)

    def batch(self, pairs: Pairs, rows: NDArray[np.int64], rng: np.random.Generator | None) -> Batch:
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


@pytest.mark.slow
def test_a_training_that_was_cut_goes_on_as_if_it_had_not_been(pairs: Pairs, tmp_path: Path) -> None:
    whole = train(Line(), pairs, few(steps=60), tmp_path / "whole", CPU, judged_rows=4, say=quiet)
    train(Line(), pairs, few(steps=25), tmp_path / "cut", CPU, judged_rows=4, say=quiet)
    rest = train(Line(), pairs, few(steps=60), tmp_path / "cut", CPU, judged_rows=4, say=quiet)
    assert rest.steps == whole.steps == 60
    for a, b in zip(whole.average.parameters(), rest.average.parameters(), strict=True):
        assert torch.equal(a, b)
    first, second = (read_table(tmp_path / n / "judged.csv")[-1] for n in ("whole", "cut"))
    assert first["off"] == second["off"]


@pytest.mark.slow
def test_the_visavis_task_too_gives_the_same_curve_after_a_cut(pairs: Pairs, tmp_path: Path) -> None:
    task = VisavisTask(LossWeights(perceptual=0, adversarial_from=1))
    settings = few(steps=4, batch=2, rate=1e-3)
    whole = train(task, pairs, settings, tmp_path / "whole", CPU, judged_rows=4, say=quiet)
    train(task, pairs, replace(settings, steps=2), tmp_path / "cut", CPU, judged_rows=4, say=quiet)
    rest = train(task, pairs, settings, tmp_path / "cut", CPU, judged_rows=4, say=quiet)
    for a, b in zip(whole.average.parameters(), rest.average.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_the_visavis_task_says_in_its_phase_whatever_it_takes_from_the_step(
    pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recorded step repeats the first of its phase: the curve is the same only if nothing else differs."""
    monkeypatch.setattr(step, "WARM_UP", 1)
    weights = LossWeights(perceptual=0, adversarial_from=1, adversarial_alone=2)
    settings = few(steps=8, batch=2, rate=1e-3)
    ends: list[nn.Module] = []
    for mode in ("eager", "graph"):
        chosen = replace(settings, step_mode=mode)
        done = train(VisavisTask(weights), pairs, chosen, tmp_path / mode, CPU, judged_rows=4, say=quiet)
        ends.append(done.network)
    for a, b in zip(ends[0].parameters(), ends[1].parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_no_step_of_visavis_waits_for_the_device(pairs: Pairs) -> None:
    settings = few(batch=2)
    weights = LossWeights(perceptual_from=0, adversarial_from=0, adversarial_alone=0)
    training = Training(OnPairs(VisavisTask(weights), pairs, settings, CPU), settings, quiet)
    for number in range(2):  # one eye at a time
        batch = training.task.batch(number, 2)
        with Unasked():
            training.advance(batch)


def test_the_same_seed_draws_the_same_batches_and_another_does_not() -> None:
    rows = np.array([(i, k) for i in range(4) for k in range(6)], np.int64)
    a, b, c = Draw(rows, 1), Draw(rows, 1), Draw(rows, 2)
    assert (a.rows(8, a.rng(5)) == b.rows(8, b.rng(5))).all()
    assert (a.rows(8, a.rng(5)) != c.rows(8, c.rng(5))).any()
    assert (a.rows(8, a.rng(5)) != a.rows(8, a.rng(6))).any()


@pytest.mark.parametrize("workers", [1, 2, 3])
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
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(pairs: Pairs, tmp_path: Path) -> None:
    train(Line(), pairs, few(steps=5), tmp_path, CPU, judged_rows=4, say=quiet)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(TrainingError, match=r"step 7: the loss is not a number \(l2\).*lower --rate"):
        train(Line(spoil_at=7), pairs, few(steps=20), tmp_path, CPU, judged_rows=4, say=quiet)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


@pytest.mark.slow
def test_a_checkpoint_of_something_else_is_refused(pairs: Pairs, tmp_path: Path) -> None:
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
def test_a_new_training_does_not_go_on_in_an_old_table(pairs: Pairs, tmp_path: Path) -> None:
    train(Line(), pairs, few(steps=3), tmp_path, CPU, judged_rows=4, say=quiet)
    train(Line(), pairs, few(steps=5), tmp_path, CPU, judged_rows=4, say=quiet)
    assert [r["step"] for r in read_table(tmp_path / "judged.csv")] == [1, 3, 5]
    (tmp_path / CHECKPOINT).unlink()
    train(Line(), pairs, few(steps=4), tmp_path, CPU, judged_rows=4, say=quiet)
    assert [r["step"] for r in read_table(tmp_path / "judged.csv")] == [1, 4]


Break = Callable[[Path], None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda p: (p / "report.json").unlink(), "no training cache"),
        (lambda p: (p / "report.json").write_text("{}"), "no training cache"),
        (lambda p: (p / "report.json").write_text('{"version": 99, "items": {}}'), "version 99 of 1"),
        (lambda p: next(p.glob("*.npz")).write_bytes(b"torn"), "cannot be read"),
        (
            lambda p: (p / "report.json").write_text(
                json.dumps({"version": 1, "items": {f.stem: {"held_out": True} for f in p.glob("*.npz")}})
            ),
            "has no person to train on",
        ),
    ],
)
def test_a_cache_that_is_none_says_what_to_do(
    cache: Path, tmp_path: Path, broken: Break, message: str
) -> None:
    for file in cache.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    broken(tmp_path)
    with pytest.raises(TrainingError, match=message):
        read_pairs(tmp_path)


# --- the command -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ten_steps_on_three_clips_make_it_better(cache: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine.safetensors"
    typed = [
        sys.executable, "-m", "scripts.train", str(cache), "--minutes", "600", "--steps", "10", "--batch", "4",
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


def test_a_size_that_a_generator_does_not_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", str(tmp_path), "--size", "128"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "train: visavis is trained at one size; leave --size out\n"


def test_a_size_goes_to_the_task_that_takes_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[int] = []

    def sized(device: torch.device, perceptual: bool, size: int = 256) -> Line:
        given.append(size)
        raise TrainingError("seen")

    monkeypatch.setitem(command.TRAINABLE, "visavis", replace(command.TRAINABLE["visavis"], task=sized))
    monkeypatch.setattr(command, "read_pairs", lambda _: None)
    for more in ([], ["--size", "128"]):
        monkeypatch.setattr(sys, "argv", ["train", str(tmp_path), *more])
        with pytest.raises(SystemExit):
            command.main()
    assert given == [256, 128]


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
def test_a_command_that_cannot_train_says_so_in_one_line(tmp_path: Path) -> None:
    typed = [sys.executable, "-m", "scripts.train", str(tmp_path)]
    done = subprocess.run(typed, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert done.stderr.startswith("train: ")
    assert "scripts.generators.pairs" in done.stderr
    assert "Traceback" not in done.stderr
