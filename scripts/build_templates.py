"""Build `engines/data/templates.json`: expressions near each emotion's preset, with the shapes of their heads.

    python -m scripts.build_templates DATA [-o engines/data/templates.json] [--tracks runs/tracks]
        [--licences clean,probably-clean] [--leave-out NAME] [--licence TEXT] [--most 8]

DATA holds clips (.mp4) and portraits/ (pictures), and a manifest.csv that names the subject and the licence class of
each. Of every clip and portrait the frames whose scores are nearest to a preset are fitted as enrollment fits a photo,
which gives α and β together. How far a face is from an emotion is told in what the face does beyond rest, β − β₀, where
β₀ is the median of the calmest faces (a fit gives squinting eyes to everybody): the greater of
|β − β₀ − p|² / |p|² in coefficients and the same of the landmarks that they move, for the preset p. 1: as far as no
expression at all. Lips have to be parted where the emotion parts them, closed else, and no eye may blink. Each emotion
keeps its `--most` nearest faces, of as many people, none beyond `FARTHEST`; one that fewer than `LEAST` people show has
no templates.

Printed: a table of these distances; and whether § 3.3.1 holds: how far a person's own landmarks in an emotion are from
those that the templates of the most similar other head, and of any other, would give them.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Before numpy is imported: the products are small.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64, Camera, yaw_pitch_roll_deg
from engines.head.fit import ExpressionFit, closure_of_openings, fit_source, openings
from engines.head.model import HeadModel, load_head_model
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT
from engines.presets import PRESET_NAMES, parts_lips, preset_motion
from engines.templates import FOLLOWS_GAZE, SHIPPED, Template, Templates, save_templates, shape_distances
from scripts.evaluation.statistics import compare
from scripts.people.tracks import Tracked, load_tracks

PRESETS: F64 = np.array([preset_motion(name) for name in PRESET_NAMES], np.float64)
MM_PER_HU = 100.0
FARTHEST, LEAST = 0.7, 3
LIPS_CLOSED, MOST_BLINK = 0.5, 0.2
BLINK = [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]
MOST_TURN_DEG = 20.0  # beyond it a fit guesses the far half of the face
LICENCE = "LicenseRef-visavis-weights; coefficients measured on clips and portraits, no picture, no name"


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A face that may become a template; `calmest`: of its clip, or the one of its portrait."""

    subject: str
    template: Template
    calmest: bool


def frames_to_fit(scores: F64) -> list[int]:
    """Of scores (F, 52) the calmest frame, then those that are nearest to some preset beyond it, ascending."""
    shown = np.where(FOLLOWS_GAZE, 0, scores)
    calmest = int((shown**2).sum(1).argmin())
    apart = (shown - shown[calmest])[:, None] - PRESETS
    others = {int(k) for k in (apart**2).sum(-1).argmin(0)}
    return [calmest, *sorted(others - {calmest})]


def seen_in(model: HeadModel, tracked: Tracked) -> Iterator[Seen]:
    """The faces of one clip or portrait that may become templates."""
    camera, any_rest = Camera(*tracked.size_px), np.ones(3)
    for rank, k in enumerate(frames_to_fit(tracked.scores)):
        fit = fit_source(model, tracked.points_px[k], tracked.scores[k].astype(np.float32))
        yaw, pitch, _ = yaw_pitch_roll_deg(camera.from_similarity(fit.pose)[0])
        if max(abs(yaw), abs(pitch)) > MOST_TURN_DEG:
            continue
        # of the lips alone, which need no rest
        lips = closure_of_openings(openings(fit.pose.invert(tracked.points_px[k])), any_rest)[0]
        expression = np.where(FOLLOWS_GAZE, 0, fit.expression).astype(np.float32)
        yield Seen(tracked.subject, Template(fit.identity, expression, float(lips)), rank == 0)


def rest_of(seen: Sequence[Seen]) -> F64:
    """β₀ (52,): the median of the calmer half of the calmest faces, or zeros where there are none."""
    calm = np.array([one.template.expression for one in seen if one.calmest], np.float64).reshape(
        -1, EXPRESSION_COUNT
    )
    calm = calm[np.argsort((calm**2).sum(1), kind="stable")[: max(1, len(calm) // 2)]]
    return np.asarray(np.median(calm, 0), np.float64) if len(calm) else np.zeros(EXPRESSION_COUNT)


def distances(model: HeadModel, beyond_rest: F64) -> F64:
    """How far β − β₀ (N, 52) is from each preset (N, 22); 1 is as far as no expression. Neutral: in mean presets."""
    basis = ExpressionFit(model).basis.reshape(EXPRESSION_COUNT, -1)
    apart = beyond_rest[:, None] - PRESETS
    farther = np.zeros(apart.shape[:2])
    for metric in (np.eye(EXPRESSION_COUNT), basis @ basis.T):
        sizes = np.einsum("pi,ij,pj->p", PRESETS, metric, PRESETS)
        sizes = np.where(sizes > 0, sizes, sizes[sizes > 0].mean())
        farther = np.maximum(
            farther, np.einsum("npi,ij,npj->np", apart, metric, apart, optimize=True) / sizes
        )
    return farther


def admitted(seen: Sequence[Seen], beyond_rest: F64) -> NDArray[np.bool_]:
    """Whether each face (N, 22) parts its lips where the emotion does and nowhere else, and is in no blink."""
    parted = np.array([one.template.lips < LIPS_CLOSED for one in seen])
    awake = beyond_rest[:, BLINK].mean(1) <= MOST_BLINK
    return (parted[:, None] == np.array([parts_lips(name) for name in PRESET_NAMES])) & awake[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class Picked:
    """A face that became a template, and how far from the emotion it is."""

    seen: Seen
    distance: float


def pick(
    seen: Sequence[Seen], far: F64, most: int, farthest: float = FARTHEST, least: int = LEAST
) -> dict[str, list[Picked]]:
    """Emotion → its nearest faces, nearest first, one a person, of `far` (N, 22); where there are `least` of them."""
    picked: dict[str, list[Picked]] = {}
    for column, name in enumerate(PRESET_NAMES):
        by_person: dict[str, Picked] = {}
        for k in np.argsort(far[:, column], kind="stable"):
            if far[k, column] <= farthest:
                by_person.setdefault(seen[k].subject, Picked(seen[k], float(far[k, column])))
        if len(by_person) >= least:
            picked[name] = list(by_person.values())[:most]
    return picked


@dataclass(frozen=True, slots=True)
class Told:
    """Of each person in each emotion: how far the landmarks (in mm, root mean square) of others' faces are from theirs.

    `by_nearest` is that of the head most like their own calm one, `by_any` the mean of all others.
    """

    subjects: list[str]
    by_nearest: F64
    by_any: F64


def tell(model: HeadModel, seen: Sequence[Seen], far: F64) -> Told:
    """Whether a like head's expression is more like one's own (§ 3.3.1): each person's against all others'.

    The head is that of another frame or photo, as when a photo is enrolled; emotions of `pick`, neutral left out.
    """
    basis = ExpressionFit(model).basis.reshape(EXPRESSION_COUNT, -1)
    calm = {one.subject: one for one in reversed(seen) if one.calmest}
    subjects: list[str] = []
    rows: list[tuple[float, float]] = []
    for name, picked in pick(seen, far, most=len(seen)).items():
        faces = [p.seen for p in picked]
        moved = np.array([f.template.expression for f in faces], np.float64) @ basis
        for k, own in enumerate(faces):
            rest = calm.get(own.subject)
            if name == "neutral" or rest is None or rest is own:
                continue
            apart = (moved - moved[k]).reshape(len(faces), -1, 3)
            error_mm = MM_PER_HU * np.delete(np.sqrt((apart**2).sum(2).mean(1)), k)
            others = [f.template for f in faces if f is not own]
            like = int(shape_distances(others, rest.template.identity).argmin())
            subjects.append(own.subject)
            rows.append((float(error_mm[like]), float(error_mm.mean())))
    both = np.array(rows, np.float64).reshape(-1, 2)
    return Told(subjects, both[:, 0], both[:, 1])


def read_licences(folder: Path) -> dict[str, str]:
    """Licence class by item name from `manifest.csv`, where there is one."""
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        return {}
    with manifest.open(encoding="utf-8") as rows:
        return {row["id"]: row.get("licence_class", "") for row in csv.DictReader(rows)}


def permitted(
    items: Iterable[Tracked], licences: Mapping[str, str], wanted: Sequence[str], left_out: Sequence[str]
) -> list[Tracked]:
    """Those of a licence class `wanted` (none named: of all) whose names begin with none of `left_out`."""
    return [
        item
        for item in items
        if (not wanted or licences.get(item.name, "") in wanted) and not item.name.startswith((*left_out,))
    ]


def table(picked: Mapping[str, Sequence[Picked]]) -> str:
    """Markdown: how many templates each emotion has, and how far the nearest and the last of them are."""
    lines = ["| emotion | templates | nearest | last |", "| --- | --- | --- | --- |"]
    for name in PRESET_NAMES:
        far = [one.distance for one in picked.get(name, ())]
        lines.append(f"| {name} | {len(far)} | " + (f"{far[0]:.2f} | {far[-1]:.2f} |" if far else "– | – |"))
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    from tqdm import tqdm

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with clips (.mp4) and portraits/")
    parser.add_argument("-o", "--output", type=Path, default=SHIPPED)
    parser.add_argument("--tracks", type=Path, default=Path("runs/tracks"), help="where tracks are kept")
    parser.add_argument(
        "--licences", default="", help="licence classes of the manifest, by commas (default: all)"
    )
    parser.add_argument("--leave-out", default="", help="beginnings of names, by commas")
    parser.add_argument(
        "--licence", default=LICENCE, help="what the file says of its terms and whom it credits"
    )
    parser.add_argument("--most", type=int, default=8, help="templates an emotion")
    arguments = parser.parse_args()
    clips, portraits = load_tracks(arguments.data, arguments.tracks)
    wanted, left_out = (
        [n for n in text.split(",") if n] for text in (arguments.licences, arguments.leave_out)
    )
    items = permitted([*clips, *portraits], read_licences(arguments.data), wanted, left_out)
    model = load_head_model()
    seen = [one for item in tqdm(items, desc="fitting", mininterval=5) for one in seen_in(model, item)]
    shown = np.array([one.template.expression for one in seen], np.float64).reshape(-1, EXPRESSION_COUNT)
    shown -= rest_of(seen)
    far = np.where(admitted(seen, shown), distances(model, shown), np.inf)
    picked = pick(seen, far, arguments.most)
    if not picked:
        parser.error(f"no face of {len(items)} clips and portraits is near an emotion")
    chosen = {name: [one.seen.template for one in several] for name, several in picked.items()}
    save_templates(arguments.output, Templates(chosen, model.digest), arguments.licence)
    people = {one.seen.subject for several in picked.values() for one in several}
    print(table(picked))
    print(
        f"{arguments.output}: {arguments.output.stat().st_size} bytes, of {len(seen)} faces, {len(people)} people"
    )
    told = tell(model, seen, far)
    if not told.subjects:
        return
    gain = compare(told.by_nearest, told.by_any, told.subjects, "difference")
    print(
        f"own expression from that of the most similar other head: {told.by_nearest.mean():.2f} mm, of any other: "
        f"{told.by_any.mean():.2f} mm; {gain.value:+.2f} ({gain.low:+.2f} … {gain.high:+.2f}), {gain.count} "
        f"expressions of {gain.subjects} people"
    )


if __name__ == "__main__":
    main()
