"""Train a generator on a cache of pairs, on a CPU (bfloat16) or a GPU, for as many minutes as you have.

    python -m scripts.generators.pairs DATA runs/pairs        # once: your clips → pairs
    python -m scripts.train runs/pairs --generator visavis --minutes 60 -o my.safetensors

Run it again with more minutes and it goes on where it stopped; Ctrl-C stops it with a checkpoint. Pictures and
curves lie in the runs folder. The best weights so far (by figures of people never trained on) are written whenever
they are found.
"""

from __future__ import annotations

import argparse
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # also when run as a file

import cv2
import numpy as np
import torch
from torch import nn

from engines.compile.weights import NetworkKind, WeightsHeader, arrays_of, save_weights
from engines.errors import VisavisError
from engines.generators.networked.discriminators import folded
from engines.generators.visavis.networks import KIND, VisavisNetworks
from scripts.generators.data import read_pairs
from scripts.generators.loop import train
from scripts.generators.task import Batch, GeneratorTask
from scripts.generators.visavis_task import LossWeights, VisavisTask
from scripts.training.errors import TrainingEnded, TrainingError
from scripts.training.state import Settings, Training
from scripts.training.step import STEP_MODES

LICENCE = "MIT; trained on clips of which most allow research only, so use the weights for research"


@dataclass(frozen=True, slots=True)
class Trainable:
    """How a generator is trained: `task` on a device, the `kind` of its weights, their `config`."""

    task: Callable[..., GeneratorTask]  # (device, perceptual), and `size` where it is trained at several
    kind: NetworkKind
    config: Callable[[nn.Module], Mapping[str, object]]


def _visavis(device: torch.device, perceptual: bool) -> GeneratorTask:
    return VisavisTask(LossWeights() if perceptual else LossWeights(perceptual=0), device)


def _config(networks: nn.Module) -> Mapping[str, object]:
    assert isinstance(networks, VisavisNetworks)
    return asdict(networks.config)


TRAINABLE: dict[str, Trainable] = {"visavis": Trainable(_visavis, KIND, _config)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cache", type=Path, help="folder that scripts.generators.pairs has filled")
    parser.add_argument("--generator", choices=sorted(TRAINABLE), default="visavis")
    parser.add_argument(
        "-o", "--output", type=Path, help="weights file for the best weights; left out: runs/…/best"
    )
    parser.add_argument(
        "--minutes", type=float, help="time budget, resumed time included (60 where no other budget is given)"
    )
    parser.add_argument("--steps", type=int, help="stop after so many steps in all")
    parser.add_argument("--samples", type=int, help="stop after so many samples (rows of batches) in all")
    parser.add_argument("--runs", type=Path, help="checkpoints, log and pictures (default: runs/GENERATOR)")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--size", type=int, help="side of the window in pixels, such as 128 for ablations")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="torch threads on a CPU; 0: all cores")
    parser.add_argument("--workers", type=int, default=1, help="threads that make batches")
    parser.add_argument(
        "--step", choices=STEP_MODES, help="how a step is done (graph on a GPU, eager elsewhere)"
    )
    parser.add_argument("--profile", action="store_true", help="write where the time goes to profile.txt")
    parser.add_argument("--no-perceptual", action="store_true", help="without the EfficientNet-Lite0 loss")
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


def run(arguments: argparse.Namespace) -> None:
    """Train as the command line says. Raises TrainingError."""
    cv2.setNumThreads(1)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    if device.type == "cuda":  # batches are all alike: worth a look for the quickest kernels
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    trainable = TRAINABLE[arguments.generator]
    folder: Path = arguments.runs or Path("runs") / arguments.generator
    output: Path = arguments.output or folder / "best.safetensors"
    size = _size(arguments)
    pairs = read_pairs(arguments.cache)
    task = trainable.task(device, not arguments.no_perceptual, **size)
    settings = Settings(
        minutes_of(arguments), arguments.batch, arguments.rate, arguments.seed, arguments.steps, arguments.samples,
        arguments.workers, arguments.step or ("graph" if device.type == "cuda" else "eager"),
    )  # fmt: skip
    print(
        f"{len(pairs.train)} pairs to train on, {len(pairs.held_out)} of held-out people, of {len(pairs.names)} items",
        flush=True,
    )

    def keep(training: Training[Batch], figures: dict[str, float]) -> None:
        notes = {"steps": training.step, "minutes": round(training.spent_s / 60, 1), "seed": settings.seed}
        header = WeightsHeader(
            trainable.kind.name, trainable.kind.version, trainable.config(training.average), arguments.licence,
            pairs.digest, figures, notes,
        )  # fmt: skip
        save_weights(output, arrays_of(folded(training.average), np.float16), header)
        print(f"best so far: {output}", flush=True)

    done = train(task, pairs, settings, folder, device, on_best=keep, profile=arguments.profile)
    print(f"{done.steps} steps, {done.samples} samples in {done.minutes:.1f} minutes; weights: {output}")
    print(f"this run: {done.spent}")


def minutes_of(arguments: argparse.Namespace) -> float:
    """The budget of time: an hour where there is no other."""
    if arguments.minutes is not None:
        return arguments.minutes
    return 60 if arguments.steps is None and arguments.samples is None else math.inf


def _size(arguments: argparse.Namespace) -> dict[str, int]:
    """What `--size` adds to the factory of a task. Raises TrainingError where the generator has one size."""
    if arguments.size is None:
        return {}
    if "size" not in inspect.signature(TRAINABLE[arguments.generator].task).parameters:
        raise TrainingError(f"{arguments.generator} is trained at one size; leave --size out")
    return {"size": arguments.size}


if __name__ == "__main__":
    main()
