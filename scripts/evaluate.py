"""Judge generators on people they have not seen: self-reenactment and cross-identity, every one against `geometric`.

    python -m scripts.evaluate DATA -o OUT [--generators geometric,visavis] [--recognition DIR] [--clips N]

DATA is a folder of talking-face clips (.mp4), with portraits/ and manifest.csv where you have them. OUT gets
table.md, table.csv, grid.png, sheets/, strips/ and tiles/. docs/evaluation.md says what each figure means.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# Before numpy is imported: one thread, as in a call.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import torch

from engines.errors import GeneratorError, VisavisError
from engines.generators.names import generators_with_weights
from scripts.evaluation.bars import BASELINE
from scripts.evaluation.run import Config, evaluate
from scripts.evaluation.variants import SOURCE_COPY, known_names
from streamer.cli.terminal import quiet_native


def parse(arguments: list[str] | None = None) -> tuple[Config, int]:
    """The command line → what to evaluate, and on how many threads."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with clips (.mp4) and, if there are, portraits/")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--generators", help=f"by commas, of: {', '.join(known_names())} (default: all that have weights)"
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a weights file to judge, under this name in the tables; a generator's own name replaces what ships",
    )
    parser.add_argument("--variants", default="", help="further ones by commas, as an ablation table")
    parser.add_argument("--clips", type=_positive, help="at most so many clips, evenly spread (default: all)")
    parser.add_argument("--frames", type=_positive, default=24, help="frames of each clip (default: 24)")
    parser.add_argument(
        "--pairs", type=int, default=24, help="cross-identity pairs, 0 for none (default: 24)"
    )
    parser.add_argument("--size", type=_positive, default=256, help="picture size in pixels (default: 256)")
    parser.add_argument(
        "--recognition", type=Path, help="folder with faceres.json or mobileface.json, for CSIM"
    )
    parser.add_argument(
        "--both-ways", action="store_true", help="self-reenactment backward too (it takes about 60 %% longer)"
    )
    parser.add_argument(
        "--second-head",
        metavar="MODEL",
        help="head model of somebody else's that judges expression and pose too: ict:FILE, flame:FILE or bfm:FILE",
    )
    parser.add_argument(
        "--width-one-ms", action="store_true", help="time each as large as its paper has it, too (minutes)"
    )
    parser.add_argument("--everyone", action="store_true", help="all people, not the held-out fifth alone")
    parser.add_argument(
        "--tracks", type=Path, default=Path("runs/evaluation/tracks"), help="cache of landmarks"
    )
    parser.add_argument("--threads", type=_positive, default=1, help="of torch and OpenCV (default: 1)")
    given = parser.parse_args(arguments)
    weights = _weights(parser, given.weights)
    named = given.generators.split(",") if given.generators else sorted(generators_with_weights())
    named += weights
    named += given.variants.split(",") if given.variants else []
    names = tuple(dict.fromkeys([SOURCE_COPY, BASELINE, *(n.strip() for n in named)]))
    try:
        known = known_names(weights)
    except GeneratorError as error:
        parser.error(str(error))
    unknown = sorted(set(names) - set(known))
    if unknown:
        parser.error(f"there is no generator {', '.join(unknown)}; choose of: {', '.join(known)}")
    if not given.data.is_dir():
        parser.error(f"{given.data} is no folder; give one with talking-face clips (.mp4)")
    config = Config(
        data=given.data,
        out=given.out,
        generators=names,
        clips=given.clips,
        frames=given.frames,
        pairs=max(0, given.pairs),
        size_px=given.size,
        recognition=given.recognition,
        cache=given.tracks,
        everyone=given.everyone,
        both_ways=given.both_ways,
        second_head=given.second_head,
        weights=weights,
        width_one_ms=given.width_one_ms,
    )
    return config, given.threads


def _weights(parser: argparse.ArgumentParser, told: list[str]) -> dict[str, Path]:
    """NAME=FILE, each."""
    out: dict[str, Path] = {}
    for text in told:
        name, sign, path = text.partition("=")
        if not sign or not name or "," in name or not Path(path).is_file():
            parser.error(f"--weights {text}: give NAME=FILE with a file that scripts.train has written")
        out[name] = Path(path)
    return out


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def main() -> None:
    """Command line."""
    config, threads = parse()
    cv2.setNumThreads(threads)
    torch.set_num_threads(threads)
    try:
        with quiet_native():
            evaluate(config)
    except VisavisError as error:
        sys.exit(f"evaluate: {error}")
    print((config.out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
