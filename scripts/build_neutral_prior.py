"""Build `engines/data/neutral_prior.safetensors`: the neutral face under an expression, from people seen both ways.

    python -m scripts.build_neutral_prior DATA [DATA ...] [--tracks runs/tracks]
        [-o engines/data/neutral_prior.safetensors]

DATA holds clips (.mp4) and portraits/ (pictures). Examples are pairs of one person, brought together by Procrustes: a
portrait that smiles and one at rest of the same subject; and of each clip in which somebody rests (lips together, no
smile) its liveliest frames of several kinds against the mean of its calmest. Faces at rest are examples too: there
nothing has moved. Every example counts mirrored as well. Ridge regression of all landmarks' displacement on landmarks
and scores, cut to `RANK`.

People of the held-out fifth teach nothing. Printed: how far lips, lids and brows are from the truth, in % of the face's
height, on people left out by turns and on the held-out ones, with what the fit of one photo alone makes of them beside.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Before numpy is imported: the products are small.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from safetensors.numpy import save

from engines.files import write_whole
from engines.geometry import F64, align_similarity
from engines.head.fit import fit_source, landmark_weights, openings_of_many
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, MEETING, SURFACE
from engines.head.model import HeadModel, load_head_model
from engines.head.neutral_prior import FORMAT, PRIOR_PATH, VERSION, NeutralPrior, inputs_of
from engines.motion import ARKIT_INDEX
from scripts.head.learn import mirror_of, twins
from scripts.measure.smiles import CLIP_SMILE, CLIP_SMILES_MORE, LIPS, SMILES, calm_frames, smiling_pairs
from scripts.people.tracks import Tracked, load_tracks

RANK = 24
RIDGE = 0.1  # of the inputs' mean energy
LANDMARK_SCALE_HU, SCORE_SCALE = 0.04, 0.2
WEIGHTS = {"smile": 3.0, "rest": 2.0, "clip smile": 1.0, "clip": 0.5, "clip rest": 1.0}
LIDS = [*EYE_RIGHT, *EYE_LEFT]
BROWS = [70, 63, 105, 66, 107, 336, 296, 334, 293, 300]
CHIN_AND_FOREHEAD = (10, 152)

_JAW, _PUCKER, _FUNNEL = (ARKIT_INDEX[name] for name in ("jawOpen", "mouthPucker", "mouthFunnel"))
_OF_EACH_KIND, _SPREAD = 2, 3


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A face (478, 3) in the template's place, its scores (52,), and where it `rests` (478, 3) in that place."""

    subject: str
    kind: str
    held_out: bool
    face_hu: F64
    scores: F64
    rests_hu: F64


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where faces are brought: `template_hu` (478, 3), by Procrustes with the weights `rigid` (478,)."""

    template_hu: F64
    rigid: F64

    def unposed(self, points_px: F64) -> F64:
        """Landmarks (478, 3) in the template's place."""
        return align_similarity(self.template_hu, points_px, self.rigid).invert(points_px)

    def onto(self, face_hu: F64, points_px: F64) -> F64:
        """Landmarks (478, 3) of the same person laid upon `face_hu` (478, 3)."""
        return align_similarity(face_hu, points_px, self.rigid).invert(points_px)


def of_pair(place: Place, rest: Tracked, smile: Tracked) -> Iterator[Example]:
    """The smile, and the face at rest, where nothing has moved."""
    points = rest.points_px[0]
    face = place.unposed(smile.points_px[0])
    yield Example(rest.subject, "smile", rest.held_out, face, smile.scores[0], place.onto(face, points))
    calm = place.unposed(points)
    yield Example(rest.subject, "rest", rest.held_out, calm, rest.scores[0], calm)


def of_clip(place: Place, clip: Tracked) -> Iterator[Example]:
    """Lively frames of several kinds, if the clip shows a face at rest at all."""
    points, scores = clip.points_px, clip.scores
    calm = calm_frames(clip)
    if calm is None:
        return
    gap = openings_of_many(points)[:, 0]
    smile = scores[:, SMILES].mean(1)
    face = place.unposed(points[calm[0]])
    rests = np.mean([place.onto(face, points[k]) for k in calm], 0)
    yield Example(clip.subject, "clip rest", clip.held_out, face, scores[calm[0]], place.onto(face, rests))
    kinds = (smile, scores[:, _JAW], scores[:, _PUCKER] - smile, scores[:, _FUNNEL], gap)
    chosen = {int(k) for kind in kinds for k in np.argsort(kind)[-_OF_EACH_KIND:]}
    chosen |= {int(k) for k in np.linspace(0, len(points) - 1, _SPREAD)}
    for k in sorted(chosen):
        smiles = smile[k] > CLIP_SMILE and smile[k] - smile[calm].mean() > CLIP_SMILES_MORE
        face = place.unposed(points[k])
        kind = "clip smile" if smiles else "clip"
        yield Example(clip.subject, kind, clip.held_out, face, scores[k], place.onto(face, rests))


def mirrored(example: Example, mirror: np.ndarray, twin: np.ndarray) -> Example:
    """The same face in a mirror."""
    flip = np.array([-1.0, 1.0, 1.0])
    face, rests = (x[mirror] * flip for x in (example.face_hu, example.rests_hu))
    return Example(example.subject, example.kind, example.held_out, face, example.scores[twin], rests)


def learn(place: Place, examples: Sequence[Example]) -> NeutralPrior:
    """Weighted ridge regression, solved among the examples, and cut to the rank that explains most of what it tells."""
    scale = np.concatenate(
        [np.sqrt(landmark_weights()[:SURFACE]).ravel() / LANDMARK_SCALE_HU, np.full(52, 1 / SCORE_SCALE)]
    )
    told = np.array([inputs_of(e.face_hu, e.scores) for e in examples])
    moved = np.array([(e.face_hu - e.rests_hu)[:SURFACE].ravel() for e in examples])
    weight = np.array([WEIGHTS[e.kind] for e in examples])
    weight = weight / weight.sum()
    middle, always = weight @ told, weight @ moved
    root = np.sqrt(weight)[:, None]
    a, b = (told - middle) * scale * root, (moved - always) * root
    gram = a @ a.T
    solved = a.T @ np.linalg.solve(gram + RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)), b)
    _, _, modes = np.linalg.svd(a @ solved, full_matrices=False)
    modes = modes[:RANK]
    return NeutralPrior(
        place.template_hu, place.rigid, middle, scale[:, None] * (solved @ modes.T), modes, always
    )


def prior_bytes(prior: NeutralPrior) -> bytes:
    """What the file holds."""
    singles = {n: getattr(prior, n).astype(np.float32) for n in ("template_hu", "rigid", "middle", "always")}
    # equal shares, so that neither leaves the range of half precision
    share = np.sqrt(np.linalg.norm(prior.out, axis=1) / np.maximum(np.linalg.norm(prior.into, axis=0), 1e-9))
    halves = {
        "into": (prior.into * share).astype(np.float16),
        "out": (prior.out / share[:, None]).astype(np.float16),
    }
    return save(singles | halves, metadata={"format": FORMAT, "version": VERSION})


def closed(face_hu: F64) -> F64:
    """Lips brought together, as `close_gaps` does, so that faces at rest are compared with their lips closed."""
    out = face_hu.copy()
    for upper, lower in MEETING[14:]:
        gap = out[lower] - out[upper]
        out[upper] += 0.35 * gap
        out[lower] -= 0.65 * gap
    return out


def apart_percent(face_hu: F64, truth_hu: F64, which: Sequence[int]) -> float:
    """Mean distance of landmarks in the picture's plane, in % of the face's height (landmarks 10 … 152)."""
    high = np.linalg.norm(np.subtract(*truth_hu[list(CHIN_AND_FOREHEAD), :2]))
    rows = list(which)
    return float(100 * np.linalg.norm(face_hu[rows, :2] - truth_hu[rows, :2], axis=1).mean() / high)


def without_expression(prior: NeutralPrior, example: Example) -> F64:
    """Where the prior says that the face rests (478, 3)."""
    return example.face_hu - prior.displacement_px(example.face_hu, example.scores)


def fitted_alone(model: HeadModel, example: Example) -> F64:
    """Where a fit of α and β to this one face says that it rests (478, 3)."""
    fit = fit_source(model, example.face_hu, example.scores.astype(np.float32))
    offset = model.landmarks(np.tensordot(fit.expression, model.expression_hu, 1))
    return example.face_hu - fit.pose.scale * np.asarray(offset, np.float64) @ fit.pose.rotation.T


def report(title: str, rows: Sequence[tuple[Example, F64]]) -> None:
    """One line for each kind of example."""
    for kind in WEIGHTS:
        own = [(e, face) for e, face in rows if e.kind == kind]
        if not own:
            continue
        cells: list[str] = []
        for name, which in (("lips", LIPS), ("lids", LIDS), ("brows", BROWS)):
            off = [apart_percent(closed(face), closed(e.rests_hu), which) for e, face in own]
            cells.append(f"{name} {np.median(off):.2f} / {np.percentile(off, 90):.2f}")
        print(f"{title:26} {kind:11} {len(own):5}  {'  '.join(cells)}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "data", type=Path, nargs="+", help="folders with clips (.mp4) and portraits/ (pictures)"
    )
    parser.add_argument("-o", "--output", type=Path, default=PRIOR_PATH)
    parser.add_argument("--tracks", type=Path, default=Path("runs/tracks"))
    given = parser.parse_args()
    model = load_head_model()
    place = Place(np.asarray(model.landmarks(model.mean_hu), np.float64), model.fit_weight.astype(np.float64))
    examples: list[Example] = []
    for folder in given.data:
        clips, portraits = load_tracks(folder, given.tracks / folder.name)
        for rest, smile in smiling_pairs(portraits):
            examples += of_pair(place, rest, smile)
        for clip in clips:
            examples += of_clip(place, clip)
    mirror, twin = mirror_of(place.template_hu), twins()
    teach = [e for e in examples if not e.held_out]

    def taught_by(some: Sequence[Example]) -> NeutralPrior:
        return learn(place, [*some, *(mirrored(e, mirror, twin) for e in some)])

    print("in % of the face's height, median / 90 of 100")
    subjects = sorted({e.subject for e in teach})
    by_turns: list[tuple[Example, F64]] = []
    for turn in range(4):
        out = set(subjects[turn::4])
        prior = taught_by([e for e in teach if e.subject not in out])
        by_turns += [(e, without_expression(prior, e)) for e in teach if e.subject in out]
    report("left out by turns", by_turns)
    prior = taught_by(teach)
    held_out = [e for e in examples if e.held_out]
    report("held out", [(e, without_expression(prior, e)) for e in held_out])
    report("held out, fit alone", [(e, fitted_alone(model, e)) for e in held_out])
    report("held out, as seen", [(e, e.face_hu) for e in held_out])
    write_whole(given.output, prior_bytes(prior))
    print(
        f"{given.output}: {given.output.stat().st_size} bytes, {len(teach)} faces of {len(subjects)} people"
    )


if __name__ == "__main__":
    main()
