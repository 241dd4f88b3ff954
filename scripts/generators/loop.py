"""The training loop that all generators share: seeded, resumable to the step, with averaged weights and pictures.

What happens at a step depends on the seed and the step alone (batches, learning rate, losses), so a training that
was cut off goes on as if it had not been. Time only decides when to stop.
"""

from __future__ import annotations

import copy
import csv
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.generators.data import Draw, Pairs, prefetched
from scripts.generators.errors import TrainingError
from scripts.generators.task import Batch, Judged, Task

CHECKPOINT = "last.pt"
CHECKPOINT_S, LOG_S, JUDGE_S = 120.0, 30.0, 400.0
WARM_UP_STEPS, SLOW_STEPS = 200, 3000
GRID_ROWS = 10


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a run. `minutes` counts all that was spent on these weights, resumed runs included."""

    minutes: float
    batch: int = 12
    rate: float = 1e-3
    seed: int = 0
    judged_rows: int = 160
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """How it ended: averaged networks, what was spent, figures of held-out people (means by name)."""

    networks: nn.Module
    steps: int
    minutes: float
    figures: dict[str, float]


def rate_at(settings: Settings, step: int) -> float:
    """Learning rate: warm-up, then slowly down, by the step alone (the end of a time budget is not known)."""
    return settings.rate * min(1.0, (step + 1) / WARM_UP_STEPS) / math.sqrt(1 + step / SLOW_STEPS)


def follow(average: nn.Module, networks: nn.Module, step: int) -> None:
    """Exponential moving average of the weights, quicker at the start."""
    keep = min(0.999, (1 + step) / (10 + step))
    with torch.no_grad():
        for slow, fast in zip(average.state_dict().values(), networks.state_dict().values(), strict=True):
            if slow.is_floating_point():
                slow.lerp_(fast, 1 - keep)
            else:
                slow.copy_(fast)


class Training:
    """State of one run on one device."""

    def __init__(self, task: Task, settings: Settings, device: torch.device) -> None:
        torch.manual_seed(settings.seed)
        self.task, self.settings, self.device = task, settings, device
        self.networks = task.networks().to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.average = copy.deepcopy(self.networks).eval()
        self.judges = {name: d.to(device) for name, d in task.discriminators().items()}
        self.optimiser = torch.optim.AdamW(
            self.networks.parameters(), settings.rate, betas=(0.9, 0.99), weight_decay=0.01
        )
        own = [p for d in self.judges.values() for p in d.parameters()]
        self.judge_optimiser = torch.optim.Adam(own, 2e-4, betas=(0.5, 0.9)) if own else None
        self.step, self.spent_s, self.best = 0, 0.0, math.inf

    # --- checkpoints ----------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write everything that the next run needs, whole or not at all."""
        state = {
            "networks": self.networks.state_dict(), "average": self.average.state_dict(),
            "judges": {n: d.state_dict() for n, d in self.judges.items()},
            "optimiser": self.optimiser.state_dict(),
            "judge_optimiser": self.judge_optimiser.state_dict() if self.judge_optimiser else None,
            "step": self.step, "spent_s": self.spent_s, "best": self.best, "task": self.task.name,
            "seed": self.settings.seed, "batch": self.settings.batch,
        }  # fmt: skip
        part = path.with_name(f".{path.name}.part")
        torch.save(state, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises TrainingError when it is of another generator, shape or seed."""
        away = f"give another --runs folder, or delete {path} to begin anew"
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
            if state["task"] != self.task.name:
                raise TrainingError(
                    f"{path} is of the generator {state['task']}, not {self.task.name}; {away}"
                )
            if (state["seed"], state["batch"]) != (self.settings.seed, self.settings.batch):
                raise TrainingError(
                    f"{path} was trained with --seed {state['seed']} --batch {state['batch']}; give the same, or {away}"
                )
            self.networks.load_state_dict(state["networks"])
            self.average.load_state_dict(state["average"])
            for name, d in self.judges.items():
                d.load_state_dict(state["judges"][name])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.judge_optimiser:
                self.judge_optimiser.load_state_dict(state["judge_optimiser"])
            self.step, self.spent_s, self.best = (
                int(state["step"]),
                float(state["spent_s"]),
                float(state["best"]),
            )
        except TrainingError:
            raise
        except Exception as error:  # torch raises many kinds for a damaged file
            raise TrainingError(
                f"{path} cannot be read as a checkpoint ({type(error).__name__}); {away}"
            ) from error

    # --- one step -------------------------------------------------------------------------------------

    def advance(self, batch: Batch) -> dict[str, float]:
        """One step on a batch; its losses. Raises TrainingError for a loss that is not finite."""
        rate = rate_at(self.settings, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        batch = on_device(batch, self.device)
        self.networks.train()
        judged = self.task.judge(self.networks, batch, self.step)
        losses = dict(judged.losses)
        if judged.fakes:
            losses |= self._fooling(judged)
        total = torch.stack(list(losses.values())).sum()
        values = torch.stack([v.detach().float() for v in losses.values()]).tolist()
        if not np.isfinite(values).all():
            bad = [n for n, v in zip(losses, values, strict=True) if not np.isfinite(v)]
            raise TrainingError(
                f"step {self.step}: the loss is not a number ({', '.join(bad)}); the last checkpoint is kept: "
                "run again with a lower --rate (half of it)"
            )
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimiser.step()
        values_of_judges = self._teach(judged) if judged.fakes else {}
        follow(self.average, self.networks, self.step)
        self.step += 1
        return dict(zip(losses, values, strict=True)) | values_of_judges

    def _fooling(self, judged: Judged) -> dict[str, Tensor]:
        weights = getattr(self.task, "weights", None)
        adversarial, matching = getattr(weights, "adversarial", 0.01), getattr(weights, "features", 0.02)
        losses: dict[str, Tensor] = {}
        for name, fake in judged.fakes.items():
            judge = self.judges[name].requires_grad_(False)
            verdict, features = judge(fake)
            with torch.no_grad():
                _, wanted = judge(judged.reals[name])
            losses[f"fool_{name}"] = -adversarial * verdict.mean()
            losses[f"match_{name}"] = (
                matching
                * torch.stack([(a - b).abs().mean() for a, b in zip(features, wanted, strict=True)]).sum()
            )
            judge.requires_grad_(True)
        return losses

    def _teach(self, judged: Judged) -> dict[str, float]:
        assert self.judge_optimiser is not None
        values: dict[str, float] = {}
        total: list[Tensor] = []
        for name, fake in judged.fakes.items():
            real_verdict, _ = self.judges[name](judged.reals[name])
            fake_verdict, _ = self.judges[name](fake.detach())
            loss = F.relu(1 - real_verdict).mean() + F.relu(1 + fake_verdict).mean()
            total.append(loss)
            values[f"judge_{name}"] = float(loss.detach())
        self.judge_optimiser.zero_grad(set_to_none=True)
        torch.stack(total).sum().backward()
        self.judge_optimiser.step()
        return values


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`, pictures channels last: convolutions are quicker so."""
    return {n: _laid_out(t).to(device, non_blocking=True) for n, t in batch.items()}


def _laid_out(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def figures_of(training: Training, pairs: Pairs, rows: NDArray[np.int64]) -> dict[str, float]:
    """Mean figures of the averaged networks over rows of held-out people."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    for start in range(0, len(rows), 16):
        batch = training.task.batch(pairs, rows[start : start + 16], None)
        for name, values in training.task.figures(
            training.average, on_device(batch, training.device)
        ).items():
            found.setdefault(name, []).append(values)
    return {name: float(np.concatenate(values).mean()) for name, values in found.items()}


def score(figures: dict[str, float]) -> float:
    """One number to choose the best weights by, lower is better: figures over those of the geometric picture."""
    names = [n for n in figures if f"{n}_base" in figures and n != "db"]
    return (
        float(np.mean([figures[n] / max(figures[f"{n}_base"], 1e-9) for n in names])) if names else math.inf
    )


def train(
    task: Task,
    pairs: Pairs,
    settings: Settings,
    folder: Path,
    device: torch.device,
    *,
    say: Callable[[str], None] = print,
    on_best: Callable[[Training, dict[str, float]], None] = lambda *_: None,
) -> Trained:
    """Train until the time is spent (or `steps` are done); goes on from `folder/last.pt` where there is one.

    Writes last.pt, log.csv, judged.csv, curves.png and grid-….png under `folder`. Raises TrainingError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training = Training(task, settings, device)
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        training.load(checkpoint)
        say(f"goes on from step {training.step}, {training.spent_s / 60:.1f} minutes")
    draw = Draw(pairs.train, settings.seed)

    def make(step: int) -> Batch:
        rng = draw.rng(step)
        return task.batch(pairs, draw.rows(settings.batch, rng), rng)

    held_out = pairs.held_out if len(pairs.held_out) else pairs.train
    pick = np.linspace(0, len(held_out) - 1, min(settings.judged_rows, len(held_out))).astype(np.int64)
    judged_rows = held_out[pick]
    begun = time.monotonic() - training.spent_s
    saved = logged = time.monotonic()
    judged_at = 0.0 if training.step == 0 else saved
    log, judged_log = Table(folder / "log.csv"), Table(folder / "judged.csv")
    sums: dict[str, list[float]] = {}
    figures: dict[str, float] = {}
    last_step = training.step

    def judge() -> dict[str, float]:
        found = figures_of(training, pairs, judged_rows)
        value = score(found)
        judged_log.write(
            {"step": training.step, "minutes": round(training.spent_s / 60, 2), "score": value} | found
        )
        rows = judged_rows[np.linspace(0, len(judged_rows) - 1, min(GRID_ROWS, len(judged_rows))).astype(int)]
        picture = task.grid(training.average, on_device(task.batch(pairs, rows, None), device))
        cv2.imwrite(str(folder / "grid.png"), picture[..., ::-1])
        words = " ".join(f"{n} {v:.4f}" for n, v in found.items())
        say(f"step {training.step} {training.spent_s / 60:.1f} min: score {value:.4f}  {words}")
        if value < training.best:
            training.best = value
            on_best(training, found)
        draw_curves(folder)
        return found

    try:
        with closing(prefetched(make, training.step)) as batches:
            for _, batch in batches:
                done = settings.steps is not None and training.step >= settings.steps
                if done or training.spent_s >= 60 * settings.minutes:
                    break
                for name, value in training.advance(batch).items():
                    sums.setdefault(name, []).append(value)
                now = time.monotonic()
                training.spent_s = now - begun
                if now - logged > LOG_S or training.step == last_step + 1 == 1:
                    speed = (training.step - last_step) * settings.batch / max(now - logged, 1e-3)
                    means = {n: round(float(np.mean(v)), 5) for n, v in sums.items()}
                    log.write(
                        {"step": training.step, "minutes": round(training.spent_s / 60, 2), "per_s": round(speed, 1),
                         "total": round(sum(v for n, v in means.items() if not n.startswith("judge_")), 5)} | means
                    )  # fmt: skip
                    say(
                        f"step {training.step} {training.spent_s / 60:.1f} min {speed:.1f}/s "
                        + " ".join(f"{n} {v:.3f}" for n, v in means.items())
                    )
                    sums, last_step, logged = {}, training.step, now
                if now - saved > CHECKPOINT_S:
                    training.save(checkpoint)
                    saved = now
                if now - judged_at > JUDGE_S:
                    figures = judge()
                    judged_at = time.monotonic()
                    begun += judged_at - now  # judging is not training
                    logged += judged_at - now
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU ran out of memory; run again with --batch {max(1, settings.batch // 2)} in another --runs folder "
            f"(the last checkpoint is {checkpoint})"
        ) from error
    training.save(checkpoint)
    figures = judge()
    return Trained(training.average, training.step, training.spent_s / 60, figures)


class Table:
    """A CSV file that grows by rows; new columns begin a new header line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: list[str] = []

    def write(self, row: dict[str, float]) -> None:
        """Append one row."""
        with self._path.open("a", newline="", encoding="utf-8") as out:
            table = csv.writer(out)
            if list(row) != self._columns:
                self._columns = list(row)
                table.writerow(self._columns)
            table.writerow(list(row.values()))


def read_table(path: Path) -> list[dict[str, float]]:
    """Rows of a `Table`, whatever its columns were in between."""
    rows: list[dict[str, float]] = []
    columns: list[str] = []
    with path.open(encoding="utf-8") as source:
        for cells in csv.reader(source):
            if cells and cells[0] == "step":
                columns = cells
            elif cells:
                rows.append(dict(zip(columns, map(float, cells), strict=False)))
    return rows


def draw_curves(folder: Path) -> None:
    """curves.png of losses and figures; nothing where matplotlib is missing (it is not needed to train)."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(11, 4))
    for place, name in ((1, "log.csv"), (2, "judged.csv")):
        if not (folder / name).exists():
            continue
        rows = read_table(folder / name)
        axes = figure.add_subplot(1, 2, place)
        keys = [k for k in rows[-1] if k not in ("step", "minutes", "per_s")] if rows else []
        if name == "judged.csv":
            keys = [k for k in keys if not k.endswith("_base")]
        for key in keys:
            points = [(r["step"], r[key]) for r in rows if key in r]
            x, y = zip(*points, strict=True)
            y = np.abs(y) if key == "db" else np.asarray(y)
            axes.plot(x, y / max(float(y[0]), 1e-9) if name == "judged.csv" else y, label=key, linewidth=1)
        axes.set_xlabel("step")
        axes.set_yscale("log")
        axes.set_title("losses" if name == "log.csv" else "held-out people, relative to the first")
        axes.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(folder / "curves.png", dpi=90)
