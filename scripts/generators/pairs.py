"""Pairs (photo, driving frame) of one person, as every generator is trained on them.

    python -m scripts.generators.pairs DATA [DATA …] -o CACHE [--jobs N]

DATA are folders with clips (.mp4) and, if you like, portraits/ (pictures). Of every clip some frames are enrolled as if
they were photos, and drive each other through the head model (identity of the photo, motion of the frame: never the
frame's own landmarks). Of every portrait posed copies are drawn first, which then are the photos, and the portrait
itself is the truth: large head turns are rare in clips.

One file for each clip or portrait (`scripts.generators.item`), whole or not at all: a training may begin on the first
ones. Those that exist are not made again. `report.json` says what was left out and why.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

# one core is enough for each process, here and in those to come
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2

from engines.errors import VisavisError, brief
from engines.files import write_whole
from scripts.generators.item import SUFFIX, VERSION, DamagedItem, read_about, save_item
from scripts.generators.making import Rejected, clip_item, portrait_item
from scripts.generators.plans import Plan, plan_items
from scripts.generators.source import Tools
from scripts.generators.workers import Died, spread
from scripts.people.decoding import ClipError
from scripts.training.errors import TrainingError

REPORT = "report.json"
_REPORT_EVERY = 20  # items
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Order:
    """An item to be made, and where to."""

    plan: Plan
    cache: Path

    @property
    def path(self) -> Path:
        """Of its file."""
        return self.cache / f"{self.plan.name}{SUFFIX}"


@dataclass(frozen=True, slots=True)
class Made:
    """What became of an item: `pairs` of it; or why there are none; or why none can be written any more.

    `note`: what its owner may want to know of a clip that was made.
    """

    pairs: int = 0
    left_out: str | None = None
    note: str | None = None
    stop: str | None = None


@dataclass(slots=True)
class Report:
    """`items` there are, by name; `left_out` and `notes`, the reasons by name; `remade`: damaged ones."""

    items: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    notes: dict[str, str] = field(default_factory=dict[str, str])
    remade: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, plan: Plan) -> None:
        """Its file is there."""
        self.items[plan.name] = {"subject": plan.subject, "held_out": plan.held_out}

    def write(self, folder: Path) -> None:
        """Write `report.json`. Raises OSError."""
        told = {"version": VERSION, "items": dict(sorted(self.items.items()))}
        told |= {"left_out": self.left_out, "notes": self.notes, "remade": self.remade}
        write_whole(folder / REPORT, json.dumps(told, indent=1, ensure_ascii=False))


@cache
def _tools() -> Tools:
    cv2.setNumThreads(1)
    return Tools()


def make_item(order: Order) -> Made:
    """Make one item's file. Never raises: what goes wrong with a clip is told and costs this clip alone."""
    plan = order.plan
    try:
        item, note = (clip_item if plan.is_clip else portrait_item)(_tools(), plan)
    except (Rejected, ClipError) as error:
        return Made(left_out=str(error))
    except VisavisError as error:  # a model that is missing is missing for all
        return Made(stop=str(error))
    except MemoryError:
        return Made(left_out="it does not fit in memory; run with fewer --jobs")
    except Exception as error:
        return Made(left_out=f"it could not be worked on ({brief(error)})")
    try:
        save_item(order.path, item)
    except OSError as error:
        what = "the disk is full" if error.errno in _FULL else f"{error.strerror or brief(error)}"
        return Made(
            stop=f"cannot write in {order.cache}: {what}; free some space there and give the same command again (what "
            "is made is kept), or choose another folder with -o"
        )
    return Made(len(item.source), note=note)


def build(
    folders: Sequence[Path], cache: Path, jobs: int = 0, say: Callable[[str], None] = lambda line: None
) -> Report:
    """Make what is missing of the cache, in `jobs` processes, or with 0 in this one; `say` is told how it goes on.

    Raises TrainingError when nothing at all is usable or nothing can be written; what was made before stays.
    """
    _require_ours(cache)
    plans = plan_items(folders, cache)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"cannot make the folder {cache}: {error.strerror}; choose another with -o"
        ) from error
    report, missing = Report(), list[Order]()
    for plan in plans:
        order = Order(plan, cache)
        if order.path.exists():
            try:
                read_about(order.path)
                report.add(plan)
                continue
            except DamagedItem as error:
                report.remade[plan.name] = str(error)
                say(f"{order.path.name} is damaged: made again")
        missing.append(order)
    if report.items:
        say(f"{len(report.items)} of {len(plans)} items are there")
    started, pairs = time.monotonic(), 0
    try:
        for done, (order, made) in enumerate(_made(missing, jobs), 1):
            if isinstance(made, Died):
                made = Made(left_out=str(made))
            if made.stop is not None:
                raise TrainingError(made.stop)
            if made.left_out is None:
                report.add(order.plan)
            else:
                report.left_out[order.plan.name] = made.left_out
            if made.note is not None:
                report.notes[order.plan.name] = made.note
            pairs += made.pairs
            if done % _REPORT_EVERY == 0 or done == len(missing):
                rate = pairs / max(time.monotonic() - started, 1e-3)
                say(f"{done} of {len(missing)} items, {pairs} pairs, {rate:.1f} a second")
                if done < len(missing):
                    _write(report, cache)
    except (TrainingError, KeyboardInterrupt):
        _write(report, cache)
        raise
    if not report.items:
        named = ", ".join(str(f) for f in folders)
        reasons = "; ".join(f"{name}: {why}" for name, why in report.left_out.items())
        raise TrainingError(f"no usable clip in {named}: {reasons}")
    if (failed := _write(report, cache)) is not None:
        raise TrainingError(
            f"cannot write {cache / REPORT}: {failed}; free some space there: the same command goes on"
        )
    return report


def _made(orders: Sequence[Order], jobs: int) -> Iterator[tuple[Order, Made | Died]]:
    if jobs:
        return spread(make_item, orders, jobs)
    return ((order, make_item(order)) for order in orders)


def _write(report: Report, cache: Path) -> str | None:
    """Why it could not be written; while items are made that is no reason to stop."""
    try:
        report.write(cache)
    except OSError as error:
        return error.strerror or brief(error)
    return None


def _require_ours(cache: Path) -> None:
    """Raise TrainingError for a folder that pairs of another version are in."""
    try:
        version = json.loads((cache / REPORT).read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # none, or cut off: it is written anew
    if version != VERSION:
        raise TrainingError(
            f"{cache} holds pairs of version {version!r:.20}, this visavis makes {VERSION}; choose another folder "
            "with -o"
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "data", type=Path, nargs="+", help="folders with clips (.mp4) and portraits/ (pictures)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("runs/pairs"), help="the cache (runs/pairs)"
    )
    parser.add_argument(
        "--jobs", type=int, default=_cores(), help="processes (as many as cores: %(default)s)"
    )
    arguments = parser.parse_args()

    def say(line: str) -> None:
        print(f"pairs: {line}", file=sys.stderr, flush=True)

    try:
        report = build(arguments.data, arguments.output, max(1, arguments.jobs), say)
    except VisavisError as error:
        say(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        sys.exit(130)
    print(f"{len(report.items)} items with pairs, {len(report.left_out)} left out")
    for kind in (report.left_out, report.notes):
        for name, reason in kind.items():
            print(f"  {name}: {reason}")


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
