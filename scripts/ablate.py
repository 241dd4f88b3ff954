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
from engines.files import write_whole
from scripts.ablation.judge import Judged, Tools, judge
from scripts.ablation.learn import Budget, learn
from scripts.ablation.plans import ABLATIONS, Ablation
from scripts.ablation.report import plot, to_markdown
from scripts.evaluation.features import PerceptualMeasure
from scripts.evaluation.measure import Row
from scripts.evaluation.report import write_csv
from scripts.evaluation.run import Config, evaluate
from scripts.evaluation.variants import SOURCE_COPY
from scripts.generators.judges import lent
from scripts.training.errors import TrainingEnded


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
    weights = learn(given.pairs, ablation.generator, arms, budget, out)
    tools = Tools(
        PerceptualMeasure(),
        lent(torch.device("cpu"), perceptual=False, recognition=given.recognition).describe,
    )
    judged: dict[str, Judged] = {}
    for name, path in weights.items():
        print(f"judging {name}", flush=True)
        judged |= judge(name, ablation.generator, path, given.pairs, given.rows, tools)
    rows = [row for name in (SOURCE_COPY, *weights) for row in judged[name].rows]
    people = len({row.subject for row in rows})
    about = [
        f"`{ablation.generator}`: {given.samples} samples an arm at {given.size} px; weights best by held-out people.",
        f"{len(judged[SOURCE_COPY].rows)} rows of {people} held-out people, the same for all: "
        "one person's own frames, through the head model; FID of as many pictures.",
    ]
    fids = {name: found.fid for name, found in judged.items()}
    lines = [f"# {number}: {ablation.title}", "", *to_markdown(ablation, rows, fids, about)]
    if given.clips is not None:
        lines += ["## Clips", "", *_on_clips(ablation, weights, given, out)]
    write_csv(rows, out / "rows.csv")
    write_whole(out / "report.md", "\n".join(lines) + "\n")
    plot(ablation, rows, out / "plot.png")
    print(f"{out / 'report.md'}, {out / 'plot.png'}", flush=True)


def _on_clips(
    ablation: Ablation, weights: dict[str, Path], given: argparse.Namespace, out: Path
) -> list[str]:
    """The same by the whole evaluation, with what a test-time switch does. Raises EvaluationError."""
    tested = {name: f"{of}{end}" for name, (of, end) in ablation.at_test_time.items() if of in weights}
    config = Config(
        data=given.clips, out=out / "clips", generators=(SOURCE_COPY, *weights, *tested.values()), weights=weights,
        recognition=given.recognition,
    )  # fmt: skip
    results = evaluate(config)
    called = {generator: name for name, generator in tested.items()}
    rows = [
        Row(
            r.protocol,
            called.get(r.generator, r.generator),
            r.take,
            r.subject,
            r.kind,
            r.frame,
            r.turn_deg,
            r.values,
        )
        for r in results.rows
    ]
    return to_markdown(ablation, rows, {}, [*results.about, *results.skipped])


if __name__ == "__main__":
    main()
