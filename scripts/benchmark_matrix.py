"""Generators × sizes × engines × precisions, measured by turns in one process: a table, a plot, and JSON for machines.

python -m scripts.benchmark_matrix -o runs/matrix
python -m scripts.benchmark_matrix --generators visavis --sizes 512 --precisions fp32,int8 -o runs/matrix
python -m scripts.benchmark_matrix --sizes 512 --pictures 10 --rival liveportrait=CHECKOUT -o runs/matrix
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from itertools import product
from pathlib import Path

# as the command line does, before numpy is imported: BLAS threads spin after each small product
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from calibration.enroll import enroll
from engines.compile.names import ENGINE_NAMES, PRECISIONS
from engines.errors import VisavisError
from engines.files import write_whole
from engines.generators.names import DEFAULT_GENERATOR, FALLBACK_GENERATOR
from engines.generators.registry import GENERATORS
from engines.motion import Motion
from engines.retarget import Controls, retarget
from scripts.benchmarks.matrix import Arm, Spread, as_dict, as_markdown, conditions, measure_matrix
from scripts.benchmarks.rivals import RIVALS, SIZES_PX
from streamer.cli.terminal import quiet_native
from streamer.drive.demo import DEMO_PHOTO, demo_track, looped
from streamer.tuning import tune_for_small_pictures


def plot(measured: Mapping[Arm, Spread], path: Path) -> None:
    """A bar for each arm: its median, and between what ends nine of ten pictures lie."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    labels = [arm.label for arm in measured]
    middle = [s.p50_ms for s in measured.values()]
    ends = [[s.p50_ms - s.p5_ms for s in measured.values()], [s.p95_ms - s.p50_ms for s in measured.values()]]
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.35 * len(labels)))
    axes.barh(labels, middle, xerr=ends, color="#35786b", ecolor="#222222", capsize=3)
    axes.axvline(1000 / 30, color="#b04030", linestyle="--", linewidth=1)  # 30 pictures a second
    axes.set_xlabel("ms a picture: median, 5 … 95 %")
    axes.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _listed(text: str, known: tuple[str, ...], what: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name and name not in known:
            raise argparse.ArgumentTypeError(f"there is no {what} {name}; there are {', '.join(known)}")
    return names


def _rival(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if name not in RIVALS or not path:
        raise argparse.ArgumentTypeError(f"{text}: give NAME=CHECKOUT, NAME of {', '.join(RIVALS)}")
    return name, Path(path)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    generators = tuple(GENERATORS)
    parser.add_argument(
        "--generators", type=lambda t: _listed(t, generators, "generator"),
        default=[FALLBACK_GENERATOR, DEFAULT_GENERATOR], help="names, separated by commas",
    )  # fmt: skip
    parser.add_argument("--sizes", type=lambda t: [int(x) for x in t.split(",")], default=[256, 512])
    parser.add_argument(
        "--engines", type=lambda t: _listed(t, ENGINE_NAMES, "engine"), default=[""],
        help="names (default: the one that a call chooses)",
    )  # fmt: skip
    parser.add_argument(
        "--precisions", type=lambda t: _listed(t, PRECISIONS, "precision"), default=[""],
        help="names (default: the one that a call chooses)",
    )  # fmt: skip
    parser.add_argument(
        "--rival", type=_rival, action="append", default=[], metavar="NAME=CHECKOUT",
        help=f"networks of another system ({', '.join(RIVALS)}) beside ours, with random weights, from your checkout",
    )  # fmt: skip
    parser.add_argument("--photo", type=Path, default=DEMO_PHOTO)
    parser.add_argument("--pictures", type=int, default=120, help="of each arm")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder for matrix.json, .md and .png"
    )
    told = parser.parse_args(arguments)
    if told.pictures < 1 or not all(64 <= size <= 2048 for size in told.sizes):
        parser.error("--pictures must be positive, --sizes 64 … 2048")
    tune_for_small_pictures()
    # geometry has no networks: it is measured once
    arms = list(dict.fromkeys(
        Arm(g, s) if GENERATORS[g].blueprint is None else Arm(g, s, e, p)
        for g, s, e, p in product(told.generators, told.sizes, told.engines, told.precisions)
    ))  # fmt: skip
    try:
        with quiet_native():
            enrolled = enroll(told.photo)
            rest = demo_track().neutral or Motion()
            motions = [
                retarget(looped(demo_track(), k / 30), rest, enrolled.motion, Controls())
                for k in range(told.pictures)
            ]
            rivals = {
                Arm(f"{name}'s networks", SIZES_PX[name], "torch", "fp32"): RIVALS[name](path)
                for name, path in told.rival
            }
            measured, unable = measure_matrix(enrolled, motions, arms, time.perf_counter, rivals)
        told.output.mkdir(parents=True, exist_ok=True)
        under = conditions()
        write_whole(
            told.output / "matrix.json", json.dumps(as_dict(measured, unable, under), indent=2) + "\n"
        )
        text = as_markdown(measured, unable, under)
        write_whole(told.output / "matrix.md", text)
        if measured:
            plot(measured, told.output / "matrix.png")
    except (VisavisError, OSError) as error:
        sys.exit(f"benchmark: {error}")
    print(text, end="")


if __name__ == "__main__":
    main()
