"""What a training leaves in its folder while it goes on: the log, figures of held-out people, a picture, curves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic

import cv2
import numpy as np

from engines.files import write_whole
from scripts.training.disk import writing
from scripts.training.state import Spent, Training
from scripts.training.table import JUDGED, LOG, Table, draw_curves
from scripts.training.task import B

LOG_S = 30.0


class Diary(Generic[B]):
    """Of one run. Everything raises TrainingError where `folder` cannot be written."""

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
        self._first = self._samples = training.samples
        self._at_s = time.monotonic()
        self._seconds = self._waited_s = 0.0

    def spent(self) -> Spent:
        """What this run took until the last line of the log."""
        return Spent(self._seconds, self._samples - self._first, self._waited_s)

    def waited(self, seconds: float) -> None:
        """For a batch."""
        self._waited_s += seconds

    def add(self, steps: list[dict[str, float]]) -> None:
        """Values of steps, for the next line of the log."""
        for values in steps:
            for name, value in values.items():
                self._values.setdefault(name, []).append(value)

    def due(self, now_s: float) -> bool:
        """Whether it is time for a line: now and then, and after the first step of all."""
        return now_s - self._at_s > LOG_S or self._training.step == 1

    def write(self, now_s: float) -> None:
        """A line with the means of what was added since the last one."""
        training = self._training
        seconds, samples = now_s - self._at_s, training.samples - self._samples
        self._seconds += seconds
        self._samples, self._at_s = training.samples, now_s
        if not self._values:
            return
        speed = samples / max(seconds, 1e-3)
        minutes = training.spent_s / 60
        means = {n: round(float(np.mean(v)), 5) for n, v in self._values.items()}
        self._values = {}
        row = {"step": training.step, "minutes": round(minutes, 2), "per_s": round(speed, 1)}
        with writing(self._folder):
            self._log.write(row | means)
        words = " ".join(f"{n} {v:.3f}" for n, v in means.items())
        self._say(f"step {training.step} {minutes:.1f} min {speed:.1f}/s {words}")

    def pause(self, seconds: float) -> None:
        """Time that was not spent on training."""
        self._at_s += seconds

    def judge(self) -> dict[str, float]:
        """Figures of held-out people into table, curves and picture; the best weights are handed on."""
        training, task = self._training, self._training.task
        figures = task.figures(training.average)
        if figures:
            score, minutes = task.score(figures), training.spent_s / 60
            if task.judged_by() != training.judged_by:
                training.best, training.judged_by = math.inf, task.judged_by()
            with writing(self._folder):
                self._judged.write(
                    {"step": training.step, "minutes": round(minutes, 2), "score": score} | figures
                )
            words = " ".join(f"{n} {v:.4f}" for n, v in figures.items())
            self._say(f"step {training.step} {minutes:.1f} min: score {score:.4f}  {words}")
            if score < training.best:
                with writing(self._folder):
                    self._on_best(training, figures)
                training.best = score
        picture = task.picture(training.average)
        with writing(self._folder):
            if picture is not None:
                write_whole(self._folder / "grid.png", cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
            draw_curves(self._folder)
        return figures
