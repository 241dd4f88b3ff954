"""State of one training: network, average, optimiser, step and budget; saved, loaded, and moved on by a batch."""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import torch
from torch import nn

from engines.files import whole_file
from scripts.training.average import Follower
from scripts.training.disk import writing
from scripts.training.errors import TrainingError
from scripts.training.optimiser import load_optimiser, set_rate
from scripts.training.step import StepMode, open_step
from scripts.training.task import B, Task
from scripts.training.values import Values


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a run, which ends after `minutes`, `steps` or `samples`, whichever comes first.

    They count all that was spent on these weights, resumed runs included. `batch`: rows of one; `rate`: the highest
    learning rate; `workers`: threads that make batches; `step_mode`: how a step is done; `fetch_steps`: steps between
    two looks at the losses, 0: as is good for the device. The last three change nothing of what is learned.
    """

    minutes: float = math.inf
    batch: int = 12
    rate: float = 1e-3
    seed: int = 0
    steps: int | None = None
    samples: int | None = None
    workers: int = 1
    step_mode: StepMode = "eager"
    fetch_steps: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """What this run took: resumed ones and judging not counted. `waited_s`: of it, for batches."""

    seconds: float
    samples: int
    waited_s: float

    def __str__(self) -> str:
        seconds = max(self.seconds, 1e-9)
        return (
            f"{self.samples / seconds:.1f} samples/s, {100 * self.waited_s / seconds:.0f} % of the time waiting for "
            "batches"
        )


@dataclass(frozen=True, slots=True)
class Trained:
    """How it ended: the network as it is and averaged, what was spent, figures of held-out people by name."""

    network: nn.Module
    average: nn.Module
    steps: int
    minutes: float
    figures: dict[str, float]
    samples: int
    spent: Spent


class Training(Generic[B]):
    """State of one run."""

    def __init__(self, task: Task[B], settings: Settings, say: Callable[[str], None]) -> None:
        torch.manual_seed(settings.seed)
        self.task, self.settings, self._say = task, settings, say
        self.network: nn.Module = task.network().to(task.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.average = copy.deepcopy(self.network).eval()
        self.optimiser = task.optimiser(self.network)
        self.step, self.samples, self.spent_s, self.best = 0, 0, 0.0, math.inf
        self.judged_by = ""  # of `best`
        self.rows = settings.batch  # fewer once memory has run out
        self._follower = Follower(self.average, self.network)
        self._values = Values()
        self._advance = self._opened()

    def _opened(self):
        return open_step(self.settings.step_mode, self.task, self.network, self.optimiser, self._say)

    @property
    def done(self) -> bool:
        """Whether all steps or samples are done or the time is spent."""
        steps, samples = self.settings.steps, self.settings.samples
        return (
            (steps is not None and self.step >= steps)
            or (samples is not None and self.samples >= samples)
            or self.spent_s >= 60 * self.settings.minutes
        )

    # --- checkpoints ----------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write everything that the next run needs, whole or not at all. Raises TrainingError for a full disk."""
        on_gpu = self.task.device.type == "cuda"
        state = {
            "network": self.network.state_dict(), "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(), "own": self.task.state(),
            "step": self.step, "samples": self.samples, "spent_s": self.spent_s, "best": self.best,
            "judged_by": self.judged_by,
            "task": self.task.name, "seed": self.settings.seed, "batch": self.settings.batch, "rows": self.rows,
            # of dropout
            "chance": torch.get_rng_state(),
            "gpu_chance": torch.cuda.get_rng_state(self.task.device) if on_gpu else None,
        }  # fmt: skip
        # given a name, torch says of a full disk that a position is unexpected
        with writing(path), whole_file(path) as part, part.open("wb") as out:
            torch.save(state, out)

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
            load_optimiser(self.optimiser, state["optimiser"])
            self.task.load_state(state["own"])
            self.step, self.samples = int(state["step"]), int(state["samples"])
            self.spent_s, self.best = float(state["spent_s"]), float(state["best"])
            self.judged_by = str(state.get("judged_by", ""))
            self.rows = int(state["rows"])
            torch.set_rng_state(state["chance"].cpu())
            if state["gpu_chance"] is not None and self.task.device.type == "cuda":
                torch.cuda.set_rng_state(state["gpu_chance"].cpu(), self.task.device)
        except TrainingError:
            raise
        except Exception as error:  # torch raises many kinds for a damaged file
            raise TrainingError(
                f"{path} cannot be read as a checkpoint ({type(error).__name__}); {away}"
            ) from error

    # --- steps ----------------------------------------------------------------------------------------

    def advance(self, batch: B) -> None:
        """One step on a batch; what it gives stays on the device until `told` is asked."""
        spent = min(1.0, self.spent_s / (60 * self.settings.minutes))
        set_rate(self.optimiser, self.task.rate(self.step, spent))
        self.network.train()
        self._values.add(self.step, *self._advance(batch, self.step))
        # beside what is recorded: by how much is a number, and so the average is the same everywhere
        self._follower.follow(self.step)
        self.step += 1
        self.samples += self.rows

    def told(self) -> list[dict[str, float]]:
        """Of each step since the last time: `total`, its losses, what `after_step` tells, and the gradient's norm.

        Raises TrainingError for one that is not finite: this state must not be saved.
        """
        return self._values.fetch()

    def halve(self, checkpoint: Path) -> None:
        """After memory ran out: go on with batches of half as many rows. Raises TrainingError when there is one."""
        if self.rows == 1:
            raise TrainingError(
                f"the device ran out of memory on a batch of one; run again with a smaller --size or on a larger "
                f"device (the last checkpoint is {checkpoint})"
            )
        before, self.rows = self.rows, self.rows // 2
        self.optimiser.zero_grad(set_to_none=True)
        self._advance = self._opened()  # what was recorded holds memory
        gc.collect()
        if self.task.device.type == "cuda":
            torch.cuda.empty_cache()
        self._say(f"step {self.step}: out of memory; goes on with batches of {self.rows} instead of {before}")
