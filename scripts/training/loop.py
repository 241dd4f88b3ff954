"""The training loop that all networks share: seeded, resumable to the step, with averaged weights, log and pictures.

What happens at a step depends on the seed and the step alone (batches, losses, and the learning rate where the task
says so), so a training that was cut off goes on as if it had not been. Time only decides when to stop. No step waits
for the device: what a step gives is fetched now and then, and always before a checkpoint is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Generic

from engines.ending import told_to_end
from scripts.training.ahead import prefetched
from scripts.training.diary import Diary
from scripts.training.disk import writing
from scripts.training.errors import TrainingEnded
from scripts.training.memory import is_out_of_memory
from scripts.training.profiling import Profile
from scripts.training.state import Settings, Trained, Training
from scripts.training.task import B, Task

CHECKPOINT, PROFILE = "last.pt", "profile.txt"
CHECKPOINT_S, JUDGE_S = 120.0, 400.0
# steps between two fetches: on a CPU nothing has to be waited for, and what is wrong stops at once
FETCH_STEPS = {"cpu": 1}
FETCH_STEPS_AWAY = 50


def say_at_once(text: str) -> None:
    """Print a line, also into a pipe."""
    print(text, flush=True)


class _Run(Generic[B]):
    """A training with its clock, its folder and its batches."""

    def __init__(
        self, training: Training[B], folder: Path, diary: Diary[B], say: Callable[[str], None]
    ) -> None:
        self.training, self.diary, self._say = training, diary, say
        self._checkpoint = folder / CHECKPOINT
        device = training.task.device.type
        self._fetch_steps = training.settings.fetch_steps or FETCH_STEPS.get(device, FETCH_STEPS_AWAY)
        self._saved = time.monotonic()
        self._begun = self._saved - training.spent_s
        self._judged = None if training.step == 0 else self._saved

    def go(self, ended: list[int], profile: Profile | None) -> None:
        """Until the budget is spent or a signal is in `ended`; with smaller batches where memory runs out."""
        while not self._goes_through(ended, profile):
            self.training.halve(self._checkpoint)

    def _goes_through(self, ended: list[int], profile: Profile | None) -> bool:
        """False: memory ran out. Handled outside: the error holds on to what the step had made."""
        training, settings = self.training, self.training.settings
        make = partial(training.task.batch, rows=training.rows)
        try:
            with closing(prefetched(make, training.step, workers=settings.workers)) as batches:
                while not (training.done or ended):
                    asked = time.monotonic()
                    _, batch = next(batches)
                    waited = time.monotonic() - asked
                    self.diary.waited(waited)
                    training.advance(batch)
                    self._look(time.monotonic())
                    if profile is not None:
                        profile.step(waited)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def _look(self, now: float) -> None:
        """What is to be done after a step, at `now`."""
        training = self.training
        training.spent_s = now - self._begun
        judge = self._judged is None or now - self._judged > JUDGE_S
        save = now - self._saved > CHECKPOINT_S
        write = self.diary.due(now)
        if judge or save or write or training.step % self._fetch_steps == 0:
            self.diary.add(training.told())
        if write:
            self.diary.write(now)
        if save:
            training.save(self._checkpoint)
            self._saved = now
        if judge:
            self.diary.judge()
            self._judged = time.monotonic()
            self._begun += self._judged - now  # judging is not training
            self.diary.pause(self._judged - now)

    def end(self, ended: list[int]) -> dict[str, float]:
        """The last checkpoint and figures. Raises TrainingEnded where a signal ended it."""
        training = self.training
        cut = bool(ended) and not training.done
        self.diary.add(training.told())
        self.diary.write(time.monotonic())
        training.save(self._checkpoint)
        if cut:
            self._say(f"{self._checkpoint} is written; judges what was learned, unless you end it once more")
        best = training.best, training.judged_by
        figures = self.diary.judge()
        if (training.best, training.judged_by) != best:
            training.save(self._checkpoint)
        if cut:
            raise TrainingEnded(
                f"ended at step {training.step}, {training.spent_s / 60:.1f} minutes; run the same again and it "
                "goes on from there",
                ended[0],
            )
        return figures


def train(
    task: Task[B],
    settings: Settings,
    folder: Path,
    *,
    resume: Path | None = None,
    say: Callable[[str], None] = say_at_once,
    on_best: Callable[[Training[B], dict[str, float]], None] = lambda *_: None,
    profile: bool = False,
) -> Trained:
    """Train until the budget is spent; goes on from the checkpoint `resume`.

    Writes last.pt, log.csv, curves.png, of a task that is judged judged.csv and grid.png, and where `profile` is
    asked for profile.txt, under `folder`. Raises TrainingError, and TrainingEnded after Ctrl-C, SIGTERM or SIGHUP.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    training = Training(task, settings, say)
    if resume is not None:
        training.load(resume)
        say(f"goes on from step {training.step}, {training.spent_s / 60:.1f} minutes")
    diary = Diary(training, folder, resume is None, say, on_best)
    run = _Run(training, folder, diary, say)
    with told_to_end() as ended:
        with ExitStack() as stack:
            run.go(ended, stack.enter_context(Profile(folder / PROFILE, task.device)) if profile else None)
        figures = run.end(ended)
    return Trained(
        training.network, training.average, training.step, training.spent_s / 60, figures, training.samples,
        diary.spent(),
    )  # fmt: skip
