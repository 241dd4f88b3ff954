"""The training loop that all networks share: seeded, resumable to the step, with averaged weights, log and pictures.

What happens at a step depends on the seed and the step alone (batches, losses, and the learning rate where the task
says so), so a training that was cut off goes on as if it had not been. Time only decides when to stop.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from engines.files import whole_file
from scripts.training.ahead import prefetched
from scripts.training.average import follow
from scripts.training.errors import TrainingError
from scripts.training.table import JUDGED, LOG, Table, draw_curves
from scripts.training.task import B, Task

CHECKPOINT = "last.pt"
CHECKPOINT_S, LOG_S, JUDGE_S = 120.0, 30.0, 400.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a run, which ends after `minutes` or `steps`, whichever comes first.

    Both count all that was spent on these weights, resumed runs included. `batch`: rows of one; `rate`: the highest
    learning rate; `workers`: threads that make batches.
    """

    minutes: float = math.inf
    batch: int = 12
    rate: float = 1e-3
    seed: int = 0
    steps: int | None = None
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Trained:
    """How it ended: the network as it is and averaged, what was spent, figures of held-out people by name."""

    network: nn.Module
    average: nn.Module
    steps: int
    minutes: float
    figures: dict[str, float]


def say_at_once(text: str) -> None:
    """Print a line, also into a pipe."""
    print(text, flush=True)


class Training(Generic[B]):
    """State of one run."""

    def __init__(self, task: Task[B], settings: Settings) -> None:
        torch.manual_seed(settings.seed)
        self.task, self.settings = task, settings
        self.network: nn.Module = task.network().to(task.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.average = copy.deepcopy(self.network).eval()
        self.optimiser = task.optimiser(self.network)
        self.step, self.spent_s, self.best = 0, 0.0, math.inf

    @property
    def done(self) -> bool:
        """Whether all steps are done or the time is spent."""
        steps = self.settings.steps
        return (steps is not None and self.step >= steps) or self.spent_s >= 60 * self.settings.minutes

    # --- checkpoints ----------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write everything that the next run needs, whole or not at all."""
        on_gpu = self.task.device.type == "cuda"
        state = {
            "network": self.network.state_dict(), "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(), "own": self.task.state(),
            "step": self.step, "spent_s": self.spent_s, "best": self.best, "task": self.task.name,
            "seed": self.settings.seed, "batch": self.settings.batch,
            # of dropout
            "chance": torch.get_rng_state(),
            "gpu_chance": torch.cuda.get_rng_state(self.task.device) if on_gpu else None,
        }  # fmt: skip
        with whole_file(path) as part:
            torch.save(state, part)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises TrainingError when it is of another task, shape or seed."""
        away = f"give another --runs folder, or delete {path} to begin anew"
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.task.device, weights_only=True)
            if state["task"] != self.task.name:
                raise TrainingError(
                    f"{path} is a checkpoint of {state['task']}, not of {self.task.name}; {away}"
                )
            if (state["seed"], state["batch"]) != (self.settings.seed, self.settings.batch):
                raise TrainingError(
                    f"{path} was trained with --seed {state['seed']} --batch {state['batch']}; give the same, or {away}"
                )
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.task.load_state(state["own"])
            self.step, self.spent_s = int(state["step"]), float(state["spent_s"])
            self.best = float(state["best"])
            torch.set_rng_state(state["chance"].cpu())
            if state["gpu_chance"] is not None and self.task.device.type == "cuda":
                torch.cuda.set_rng_state(state["gpu_chance"].cpu(), self.task.device)
        except TrainingError:
            raise
        except Exception as error:  # torch raises many kinds for a damaged file
            raise TrainingError(
                f"{path} cannot be read as a checkpoint ({type(error).__name__}); {away}"
            ) from error

    # --- one step -------------------------------------------------------------------------------------

    def advance(self, batch: B) -> dict[str, float]:
        """One step on a batch; `total`, its losses, and what `after_step` tells.

        Raises TrainingError for a loss that is not finite.
        """
        spent = min(1.0, self.spent_s / (60 * self.settings.minutes))
        for group in self.optimiser.param_groups:
            group["lr"] = self.task.rate(self.step, spent)
        self.network.train()
        losses = self.task.losses(self.network, batch, self.step)
        total = torch.stack(list(losses.values())).sum()
        values = _numbers(losses)
        if not np.isfinite(list(values.values())).all():
            bad = ", ".join(n for n, v in values.items() if not np.isfinite(v))
            raise TrainingError(
                f"step {self.step}: the loss is not a number ({bad}); the last checkpoint is kept: "
                "run again with a lower --rate (half of it)"
            )
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.task.most_gradient)
        self.optimiser.step()
        others = self.task.after_step()
        follow(self.average, self.network, self.step)
        self.step += 1
        return {"total": sum(values.values())} | values | others


def _numbers(losses: dict[str, Tensor]) -> dict[str, float]:
    """All at once: each fetch from a GPU would wait for it."""
    values = torch.stack([v.detach().float() for v in losses.values()]).tolist()
    return dict(zip(losses, values, strict=True))


class _Diary(Generic[B]):
    """What a training leaves in its folder while it goes on."""

    def __init__(
        self,
        training: Training[B],
        folder: Path,
        fresh: bool,
        say: Callable[[str], None],
        on_best: Callable[[Training[B], dict[str, float]], None],
    ) -> None:
        self._training, self._folder, self._say, self._on_best = training, folder, say, on_best
        self._log, self._judged = (Table(folder / name, fresh=fresh) for name in (LOG, JUDGED))
        self._values: dict[str, list[float]] = {}
        self._step, self._at_s = training.step, time.monotonic()

    def add(self, values: dict[str, float], now_s: float) -> None:
        """Values of one step; means of them in the log now and then, and after the first step."""
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)
        step = self._training.step
        if now_s - self._at_s <= LOG_S and not step == self._step + 1 == 1:
            return
        speed = (step - self._step) * self._training.settings.batch / max(now_s - self._at_s, 1e-3)
        minutes = self._training.spent_s / 60
        means = {n: round(float(np.mean(v)), 5) for n, v in self._values.items()}
        self._log.write({"step": step, "minutes": round(minutes, 2), "per_s": round(speed, 1)} | means)
        words = " ".join(f"{n} {v:.3f}" for n, v in means.items())
        self._say(f"step {step} {minutes:.1f} min {speed:.1f}/s {words}")
        self._values, self._step, self._at_s = {}, step, now_s

    def pause(self, seconds: float) -> None:
        """Time that was not spent on training."""
        self._at_s += seconds

    def judge(self) -> dict[str, float]:
        """Figures of held-out people into table, curves and picture; the best weights are handed on."""
        training, task = self._training, self._training.task
        figures = task.figures(training.average)
        if figures:
            score, minutes = task.score(figures), training.spent_s / 60
            self._judged.write(
                {"step": training.step, "minutes": round(minutes, 2), "score": score} | figures
            )
            words = " ".join(f"{n} {v:.4f}" for n, v in figures.items())
            self._say(f"step {training.step} {minutes:.1f} min: score {score:.4f}  {words}")
            if score < training.best:
                training.best = score
                self._on_best(training, figures)
        picture = task.picture(training.average)
        if picture is not None:
            with whole_file(self._folder / "grid.png") as part:
                cv2.imwrite(str(part), picture[..., ::-1])
        draw_curves(self._folder)
        return figures


def train(
    task: Task[B],
    settings: Settings,
    folder: Path,
    *,
    resume: Path | None = None,
    say: Callable[[str], None] = say_at_once,
    on_best: Callable[[Training[B], dict[str, float]], None] = lambda *_: None,
) -> Trained:
    """Train until the time is spent or the steps are done; goes on from the checkpoint `resume`.

    Writes last.pt, log.csv, curves.png, and of a task that is judged judged.csv and grid.png, under `folder`.
    Raises TrainingError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training = Training(task, settings)
    checkpoint = folder / CHECKPOINT
    if resume is not None:
        training.load(resume)
        say(f"goes on from step {training.step}, {training.spent_s / 60:.1f} minutes")
    diary = _Diary(training, folder, resume is None, say, on_best)
    saved = time.monotonic()
    begun = saved - training.spent_s
    judged = -math.inf if training.step == 0 else saved
    try:
        with closing(prefetched(task.batch, training.step, workers=settings.workers)) as batches:
            for _, batch in batches:
                if training.done:
                    break
                values = training.advance(batch)
                now = time.monotonic()
                training.spent_s = now - begun
                diary.add(values, now)
                if now - saved > CHECKPOINT_S:
                    training.save(checkpoint)
                    saved = now
                if now - judged > JUDGE_S:
                    diary.judge()
                    judged = time.monotonic()
                    begun += judged - now  # judging is not training
                    diary.pause(judged - now)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU ran out of memory; run again with --batch {max(1, settings.batch // 2)} in another --runs folder "
            f"(the last checkpoint is {checkpoint})"
        ) from error
    training.save(checkpoint)
    figures = diary.judge()
    return Trained(training.network, training.average, training.step, training.spent_s / 60, figures)
