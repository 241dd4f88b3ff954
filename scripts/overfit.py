"""Can a generator learn one clip by heart? Trains on one item of pairs alone, and says how near its pictures come.

    python -m scripts.overfit runs/pairs/ada_01.safetensors --generator pwm --samples 6000 --size 128

A generator that cannot reach 30 dB on what it learned from has networks, look-ups or losses that hinder it. Goes on
where it stopped when it is given more samples. PSNR is of pictures as a call shows them, cut off at 0 and 1, against
the true ones; ends with 1 below --least.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # also when run as a file

import cv2
import numpy as np
import torch

from engines.errors import VisavisError
from scripts.ablation.judge import drawn, opened
from scripts.ablation.learn import Budget, learn
from scripts.ablation.plans import Arm
from scripts.evaluation.metrics import psnr_db
from scripts.generators.item import read_about
from scripts.generators.loop import spread
from scripts.generators.store import Store
from scripts.train import trainable
from scripts.training.errors import TrainingEnded, TrainingError

LEAST_DB, ROWS = 30.0, 160


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("item", type=Path, help="one file that scripts.generators.pairs has made")
    parser.add_argument("--generator", choices=trainable(), required=True)
    parser.add_argument("--samples", type=int, default=6000, help="in all (default: 6000)")
    parser.add_argument("--size", type=int, default=128, help="height of the window (default: 128)")
    parser.add_argument("--without", default="", help="parts to leave out, as of scripts.train")
    parser.add_argument("--least", type=float, default=LEAST_DB, help="dB that it must reach (default: 30)")
    parser.add_argument(
        "--train", default="", help='what else the training is told, in quotes: "--threads 1"'
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/overfit"))
    given = parser.parse_args()
    cv2.setNumThreads(1)
    try:
        ours, still = psnr_of(given)
    except TrainingEnded as ended:
        print(ended)
        sys.exit(128 + ended.number)
    except VisavisError as error:
        sys.exit(f"overfit: {error}")
    print(
        f"{given.generator}: {np.mean(ours):.2f} dB on {len(ours)} pairs of {given.item.stem} after {given.samples} "
        f"samples (least {min(ours):.2f}, median {np.median(ours):.2f}); the photo unmoved {np.mean(still):.2f} dB"
    )
    if np.mean(ours) < given.least:
        sys.exit(f"overfit: less than {given.least:g} dB; give more --samples, or see what hinders it")


def psnr_of(given: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Train, then PSNR in dB of every pair's picture, and of the photo unmoved. Raises TrainingError, WeightsError."""
    item: Path = given.item.resolve()
    if read_about(item).held_out:
        raise TrainingError(f"{item.name} is of somebody who is held out; give another item")
    folder: Path = given.out / given.generator / item.stem
    pairs = folder / "pairs"
    pairs.mkdir(parents=True, exist_ok=True)
    link = pairs / item.name
    link.unlink(missing_ok=True)
    link.symlink_to(item)
    arm = Arm(
        "all" if not given.without else f"no-{given.without}", tuple(filter(None, given.without.split(",")))
    )
    budget = Budget(given.samples, given.size, tuple(shlex.split(given.train)))
    weights = learn(pairs, given.generator, [arm], budget, folder)[arm.name]
    blueprint, networks = opened(given.generator, weights)
    store = Store(pairs, blueprint, torch.device("cpu"))
    seen = list(drawn(blueprint, networks, store, spread(store.train, ROWS)))
    return [psnr_db(s.ours, s.truth) for s in seen], [psnr_db(s.photo, s.truth) for s in seen]


if __name__ == "__main__":
    main()
