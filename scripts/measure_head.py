"""Measure the head model on people it has not seen: fit, driver, loop, UV maps, cross-driving, speed.

    python -m scripts.measure_head DATA [--tracks runs/tracks] [--only fit,driver] [--json FILE] [--sheet FILE.png]

DATA holds clips (.mp4), portraits/ and manifest.csv. Only held-out subjects are measured. Nothing is random.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

# Before numpy is imported: one thread, as in a call.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import torch

from engines.errors import VisavisError
from engines.files import write_whole
from engines.head.model import load_head_model
from scripts.measure.cross import measure_cross
from scripts.measure.driver import measure_driver
from scripts.measure.figures import Section, astronaut_png, code_digest, spread, to_dict, to_markdown
from scripts.measure.fit import measure_fit
from scripts.measure.loop import loop_photos, measure_loop
from scripts.measure.speed import measure_speed
from scripts.measure.uv import measure_uv
from scripts.people.tracks import load_tracks
from streamer.cli.terminal import quiet_native

SECTIONS = ("fit", "driver", "loop", "uv", "cross", "speed")
LOOP_PORTRAITS = 4


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--tracks", type=Path, default=Path("runs/tracks"))
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by commas (default: all)")
    parser.add_argument("--json", type=Path, help="write all numbers, items included, here")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of the loop (PNG) here")
    parser.add_argument("--recognition", type=Path, help="folder with faceres.json or mobileface.json")
    parser.add_argument(
        "--baseline", type=Path, help="another checkout whose identity figures to compare with"
    )
    parser.add_argument("--work", type=Path, help="keep the drawn pictures of the cross section here")
    out = parser.parse_args(arguments)
    unknown = sorted(set(out.only.split(",")) - set(SECTIONS))
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; choose of {', '.join(SECTIONS)}")
    return out


def main() -> None:
    """Command line."""
    arguments = parse()
    root = Path(__file__).resolve().parent.parent
    code = code_digest(root)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    clips, portraits = load_tracks(arguments.data, arguments.tracks)
    clips, portraits = [c for c in clips if c.held_out], [p for p in portraits if p.held_out]
    if not clips or not portraits:
        sys.exit(f"measure_head: {arguments.data} holds no clips or portraits of held-out subjects")
    model = load_head_model()
    photos = loop_photos(spread(portraits, LOOP_PORTRAITS))
    temporary = tempfile.TemporaryDirectory()
    work: Path = arguments.work or Path(temporary.name)
    measures: dict[str, Callable[[], Section]] = {
        "fit": lambda: measure_fit(model, portraits),
        "driver": lambda: measure_driver(model, clips),
        "loop": lambda: measure_loop(photos, arguments.sheet),
        "uv": lambda: measure_uv(model, photos),
        "cross": lambda: measure_cross(
            model, clips, portraits, recognition=arguments.recognition, baseline=arguments.baseline, work=work
        ),
        "speed": lambda: measure_speed(model, astronaut_png()),
    }
    done: list[Section] = []
    chosen = arguments.only.split(",")
    try:
        for name in SECTIONS:
            if name not in chosen:
                continue
            with quiet_native():
                done.append(measures[name]())
            if arguments.json:  # after each section: the work of an hour outlives a fault
                write_whole(arguments.json, json.dumps({"code": code} | to_dict(done), indent=1))
    except VisavisError as error:
        sys.exit(f"measure_head: {error}")
    finally:
        temporary.cleanup()
    print(to_markdown(done))
    print(f"\ncode {code}")
    if code_digest(root) != code:
        sys.exit("measure_head: the code was changed while it was measured; measure a copy of it that rests")


if __name__ == "__main__":
    main()
