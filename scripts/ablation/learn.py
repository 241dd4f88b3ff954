"""Training the arms of an ablation one after another, each with the same samples; what is done is not done again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from engines.ending import told_to_end
from engines.files import write_whole
from scripts.ablation.plans import Arm
from scripts.training.errors import TrainingEnded, TrainingError

ROOT = Path(__file__).parents[2]
WEIGHTS, DONE, LOG = "w.safetensors", "done.json", "train.log"
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Budget:
    """The same for all arms: samples each, the window's height, and what else `scripts.train` is told."""

    samples: int
    size_px: int
    more: tuple[str, ...] = ()


def command(pairs: Path, generator: str, arm: Arm, budget: Budget, folder: Path) -> list[str]:
    """The training of one arm."""
    return [
        sys.executable, "-m", "scripts.train", str(pairs.resolve()), "--generator", generator,
        "--without", ",".join(arm.without), "--size", str(budget.size_px), "--samples", str(budget.samples),
        "--runs", str(folder.resolve()), "-o", str((folder / WEIGHTS).resolve()), *budget.more,
    ]  # fmt: skip


def learn(
    pairs: Path,
    generator: str,
    arms: Sequence[Arm],
    budget: Budget,
    out: Path,
    say: Callable[[str], None] = print,
) -> dict[str, Path]:
    """Weights of every arm, by its name; goes on where it stopped. Raises TrainingError, TrainingEnded."""
    weights: dict[str, Path] = {}
    for arm in arms:
        folder = out / arm.name
        folder.mkdir(parents=True, exist_ok=True)
        weights[arm.name] = folder / WEIGHTS
        if is_done(folder, arm, budget):
            say(f"{generator} {arm.name}: done before")
            continue
        say(f"{generator} {arm.name}: {budget.samples} samples at {budget.size_px} px; log: {folder / LOG}")
        _run(command(pairs, generator, arm, budget, folder), folder / LOG)
        write_whole(folder / DONE, json.dumps(_what(arm, budget), indent=1))
    return weights


def is_done(folder: Path, arm: Arm, budget: Budget) -> bool:
    """Whether this very training has ended there."""
    try:
        told = json.loads((folder / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return told == _what(arm, budget) and (folder / WEIGHTS).is_file()


def _what(arm: Arm, budget: Budget) -> dict[str, object]:
    return json.loads(json.dumps({"without": sorted(arm.without), **asdict(budget)}))


def _run(told: Sequence[str], log: Path) -> None:
    """To its end; a wish to end this program is passed on, and the training saves."""
    with log.open("ab") as out, told_to_end() as ended:
        child = subprocess.Popen(told, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
        passed_on = False
        try:
            while child.poll() is None:
                try:
                    child.wait(_LOOK_S)
                except subprocess.TimeoutExpired:
                    if ended and not passed_on:
                        passed_on = True
                        child.terminate()
        finally:
            child.kill()  # where a second wish came
        if ended:
            raise TrainingEnded(
                f"ended; run the same again and {log.parent.name} goes on from there", ended[0]
            )
    if child.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise TrainingError(f"the training ended with {child.returncode}: {''.join(last)} (see {log})")
