"""Train what each paper leaves out, judge it all on the same people, and say which way it goes.

    python -m scripts.ablate PAIRS 001 002 -o runs/ablations --samples 20000 --size 128 --recognition NETS
    python -m scripts.ablate PAIRS 004 -o runs/ablations --clips DATA

000 ifaceuv, 001 multiguidance, 002 pwm, 003 pncc, 004 idmatch; `scripts/ablation/plans.py` lists the arms. Each arm
trains in turn with the same samples, from where it stopped; what is done is not done again. Then all are judged on the
same rows of held-out people: OUT/NUMBER/report.md, rows.csv and plot.png. With --clips the whole evaluation judges them
too, across people: that shows what a test-time switch does.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # also when run as a file

import cv2
import torch

from engines.errors import VisavisError
from scripts.ablation.learn import WEIGHTS, Budget, learn
from scripts.ablation.plans import ABLATIONS
from scripts.training.errors import TrainingEnded, TrainingError


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", type=Path, help="folder that scripts.generators.pairs has filled")
    parser.add_argument("numbers", nargs="*", default=sorted(ABLATIONS), help="000 … 004 (default: all)")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--arms", help="only these, by commas")
    parser.add_argument("--samples", type=int, default=20_000, help="of each arm (default: 20000)")
    parser.add_argument("--size", type=int, default=128, help="height of the window (default: 128)")
    parser.add_argument(
        "--rows", type=int, default=400, help="of held-out people, to judge by (default: 400)"
    )
    parser.add_argument(
        "--train", default="", help='what else each training is told, in quotes: "--threads 1"'
    )
    parser.add_argument(
        "--recognition", type=Path, help="folder of the recognition nets, to learn from and for CSIM"
    )
    parser.add_argument("--clips", type=Path, help="folder of clips: judge with the whole evaluation too")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--train-only", action="store_true", help="only train: judge later, or elsewhere")
    only.add_argument(
        "--judge-only", action="store_true", help="judge the weights that are there, whatever trained them"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch and OpenCV, to judge (default: 1)")
    given = parser.parse_args()
    unknown = sorted(set(given.numbers) - set(ABLATIONS))
    if unknown:
        parser.error(f"there is no ablation {', '.join(unknown)}; choose of: {', '.join(ABLATIONS)}")
    cv2.setNumThreads(given.threads)
    torch.set_num_threads(given.threads)
    try:
        for number in given.numbers:
            run(number, given)
    except TrainingEnded as ended:
        print(ended)
        sys.exit(128 + ended.number)
    except VisavisError as error:
        sys.exit(f"ablate: {error}")


def run(number: str, given: argparse.Namespace) -> None:
    """One ablation: train, judge, report. Raises TrainingError, TrainingEnded, WeightsError, EvaluationError."""
    ablation, out = ABLATIONS[number], given.out / number
    wanted = given.arms.split(",") if given.arms else [arm.name for arm in ablation.arms]
    arms = [arm for arm in ablation.arms if arm.name in wanted]
    more = shlex.split(given.train)
    if given.recognition is not None:
        more += ["--recognition", str(given.recognition.resolve())]
    budget = Budget(given.samples, given.size, tuple(more))
    if given.judge_only:
        weights = {arm.name: out / arm.name / WEIGHTS for arm in arms if (out / arm.name / WEIGHTS).is_file()}
        if not weights:
            raise TrainingError(f"{out} has no arm's {WEIGHTS}; train first, without --judge-only")
    else:
        weights = learn(given.pairs, ablation.generator, arms, budget, out)
    if given.train_only:
        return
    # on a machine that only trains, what judges may not be installed
    from scripts.ablation.verdict import judge_all

    print(*judge_all(number, ablation, weights, out, given), sep=", ", flush=True)


if __name__ == "__main__":
    main()
