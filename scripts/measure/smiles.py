"""A photo that smiles, drawn as the person looks without: how far the lips are from the truth, and who it still is.

    python -m scripts.measure.smiles DATA [DATA ...] [--tracks runs/tracks] [--recognition DIR] [--generator geometric]

Portraits: everybody of the held-out fifth who has one that smiles and one at rest. The smiling one is enrolled and
drawn neutral; truth is the one at rest. Clips: of held-out people who rest and smile in one clip the
widest smile is enrolled and driven by that clip's own motion, told from its rest, in its most closed, most rounded
and most open frames; truth is the frame itself.

Printed: distance of the 40 lip landmarks in % of the face's height (10 … 152), median / 90 of 100, of the posed mesh
and of what single-picture landmarks find in the drawn picture, after rigid alignment; the lips' gap in % of the mouth's
width; and cosines of recognition to the truth and to the enrolled picture. With another checkout first in PYTHONPATH
(and this file run by its name) this measures that version.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from calibration.calm import RESTLESS
from calibration.enroll import enroll
from calibration.photo import open_photo
from engines.edit import Edit, apply_edit
from engines.errors import PhotoError
from engines.geometry import F64, align_similarity
from engines.head.fit import ExpressionFit, fit_driver, measure_closure, openings, openings_of_many
from engines.head.landmark_names import LIPS_INNER, LIPS_OUTER
from engines.head.landmarks import LandmarkDetector
from engines.head.model import HeadModel, load_head_model
from engines.motion import ARKIT_INDEX, Motion
from engines.raster.pose import decode_head
from engines.renderer import Renderer
from scripts.people.decoding import decode
from scripts.people.recognition import NETS, Recogniser, cosine
from scripts.people.tracks import Tracked, load_tracks

U8 = NDArray[np.uint8]

LIPS = [*LIPS_INNER, *LIPS_OUTER]
FACE_HEIGHT = (10, 152)
SMILES = [ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["mouthSmileRight"]]
PUCKER, FUNNEL, JAW = (ARKIT_INDEX[name] for name in ("mouthPucker", "mouthFunnel", "jawOpen"))

SMILES_MORE = 0.15  # so much more than the other picture of the same person
MOST_REST_GAP, MOST_REST_SMILE, MOST_REST_JAW = 0.045, 0.22, 0.07
CALM_SHARE, CALM_LEAST, CLIP_LEAST = 1 / 12, 3, 20
_GAP_COUNTS = 4.0
CLIP_SMILE, CLIP_SMILES_MORE = 0.4, 0.3


def smiling_pairs(portraits: Iterable[Tracked]) -> list[tuple[Tracked, Tracked]]:
    """(at rest, smiling) of every subject with two portraits of which one clearly smiles more."""
    of: dict[str, list[Tracked]] = defaultdict(list)
    for portrait in portraits:
        of[portrait.subject].append(portrait)
    pairs: list[tuple[Tracked, Tracked]] = []
    for several in of.values():
        if len(several) != 2:
            continue
        rest, smile = sorted(several, key=_smile_of)
        if _smile_of(smile) - _smile_of(rest) > SMILES_MORE and _smile_of(rest) < MOST_REST_SMILE:
            pairs.append((rest, smile))
    return pairs


def _smile_of(portrait: Tracked) -> float:
    return float(portrait.scores[0][SMILES].mean())


def calm_frames(clip: Tracked) -> NDArray[np.intp] | None:
    """Which frames show the face at rest, calmest first; None in a clip that shows no rest."""
    if len(clip.scores) < CLIP_LEAST:
        return None
    gap = openings_of_many(clip.points_px)[:, 0]
    calm = np.argsort(clip.scores[:, RESTLESS].sum(1) + _GAP_COUNTS * gap)
    calm = calm[: max(CALM_LEAST, int(len(calm) * CALM_SHARE))]
    scores = clip.scores[calm]
    rests = (
        gap[calm].mean() <= MOST_REST_GAP
        and scores[:, SMILES].mean() <= MOST_REST_SMILE
        and scores[:, JAW].mean() <= MOST_REST_JAW
    )
    return calm if rests else None


def lips_percent(face: F64, truth: F64, rigid: F64) -> float:
    """Mean distance of the lips of `face` (478, 3) from `truth` (478, 3), laid on it, in % of its face's height."""
    laid = align_similarity(face, truth, rigid).apply(face)
    high = np.linalg.norm(np.subtract(*truth[list(FACE_HEIGHT), :2]))
    return float(100 * np.linalg.norm(laid[LIPS, :2] - truth[LIPS, :2], axis=1).mean() / high)


@dataclass(frozen=True, slots=True)
class Asked:
    """A picture to enroll, and what to draw: (case, β and closure or None, true landmarks, true picture)."""

    photo: Path | bytes
    cases: Sequence[tuple[str, Motion | None, F64, U8]]


class Judge:
    """Draws what is asked and holds it against the truth."""

    def __init__(self, model: HeadModel, generator: str, recognition: Path | None) -> None:
        self._model, self._generator = model, generator
        self._detector = LandmarkDetector(video=False)
        self._nets = [Recogniser(recognition, spec) for spec in NETS] if recognition else []
        self._rigid = model.fit_weight.astype(np.float64)
        self.found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def _cosines(
        self, row: dict[str, list[float]], drawn: tuple[U8, F64], other: tuple[U8, F64], name: str
    ) -> None:
        for net in self._nets:
            both = [net.describe(image, points) for image, points in (drawn, other)]
            row[f"{net.spec.name} {name}"].append(cosine(*both))

    def judge(self, asked: Asked) -> None:
        """Adds to `found`. Raises PhotoError where the picture cannot be enrolled."""
        enrollment = enroll(asked.photo)
        renderer = Renderer(enrollment, generator=self._generator, size_px=512)
        renderer.wait_until_compiled()
        for name, told, truth, seen in asked.cases:
            row = self.found[name]
            motion = apply_edit(enrollment.motion, Edit(neutral=True))
            if told is not None:
                motion = replace(motion, expression=told.expression, closure=told.closure)
            mesh = np.asarray(self._model.landmarks(decode_head(self._model, enrollment, motion)), np.float64)
            row["mesh lips %"].append(lips_percent(mesh, truth, self._rigid))
            picture = np.ascontiguousarray(renderer.render(motion)[..., :3])
            faces = self._detector.detect(picture)
            if not faces:
                row["unseen"].append(1.0)
                continue
            points = faces[0].points_px.astype(np.float64)
            row["drawn lips %"].append(lips_percent(points, truth, self._rigid))
            row["drawn gap %"].append(100 * float(openings(points)[0]))
            row["true gap %"].append(100 * float(openings(truth)[0]))
            self._cosines(row, (picture, points), (seen, truth), "to truth")
            photo = (enrollment.photo, enrollment.landmarks_px.astype(np.float64))
            self._cosines(row, (picture, points), photo, "to photo")

    def report(self) -> None:
        """One line for each case and figure."""
        for name, row in self.found.items():
            for figure, values in row.items():
                if figure == "unseen":
                    print(f"{name:18} drawn face not found: {len(values)}")
                    continue
                print(
                    f"{name:18} {figure:22} {np.median(values):7.3f} / {np.percentile(values, 90):7.3f}"
                    f"   mean {np.mean(values):7.3f}   of {len(values)}"
                )


def of_pair(rest: Tracked, smile: Tracked) -> Asked:
    """The smiling portrait, to be drawn neutral."""
    seen = open_photo(rest.path).image
    case = ("portrait neutral", None, rest.points_px[0], seen)
    return Asked(smile.path, [case])


def of_clip(model: HeadModel, fit: ExpressionFit, detector: LandmarkDetector, clip: Tracked) -> Asked | None:
    """The widest smile of a clip, to be drawn as three other frames; None where it does not smile, or never rests."""
    calm = calm_frames(clip)
    if calm is None:
        return None
    smile = clip.scores[:, SMILES].mean(1)
    best = int(smile.argmax())
    if smile[best] < CLIP_SMILE or smile[best] - smile[calm].mean() < CLIP_SMILES_MORE:
        return None
    rigid = model.fit_weight.astype(np.float64)
    template = np.asarray(model.landmarks(model.mean_hu), np.float64)
    first = align_similarity(template, clip.points_px[calm[0]], rigid).invert(clip.points_px[calm[0]])
    laid = [align_similarity(first, clip.points_px[k], rigid).invert(clip.points_px[k]) for k in calm]
    rests = np.asarray(np.mean(laid, 0), np.float64)
    rest_openings = openings(rests)
    round_ = np.maximum(clip.scores[:, PUCKER], clip.scores[:, FUNNEL]) - smile
    wanted = {
        "closed": int(calm[0]),
        "rounded": int(round_.argmax()),
        "open": int(clip.scores[:, JAW].argmax()),
    }
    pictures = {number: image for number, image in decode(clip.path) if number in clip.frame}
    cases: list[tuple[str, Motion | None, F64, U8]] = []
    for name, k in wanted.items():
        seen = pictures[int(clip.frame[k])]
        # measured on the picture alone, as what is drawn will be: a track lags behind quick lips
        faces = detector.detect(seen)
        if not faces:
            continue
        driven = fit_driver(fit, rests, faces[0].points_px, faces[0].scores)
        told = Motion(expression=driven.expression, closure=measure_closure(driven.unposed_hu, rest_openings))
        cases.append((f"clip {name}", told, faces[0].points_px.astype(np.float64), seen))
    out = BytesIO()
    Image.fromarray(pictures[int(clip.frame[best])]).save(out, "PNG")
    return Asked(out.getvalue(), cases)


def asked_of(model: HeadModel, folders: Sequence[Path], tracks: Path) -> Iterator[Asked]:
    """All that is measured: held-out people."""
    fit, detector = ExpressionFit(model), LandmarkDetector(video=False)
    for folder in folders:
        clips, portraits = load_tracks(folder, tracks / folder.name)
        for rest, smile in smiling_pairs(p for p in portraits if p.held_out):
            yield of_pair(rest, smile)
        for clip in clips:
            if clip.held_out and (asked := of_clip(model, fit, detector, clip)) is not None:
                yield asked
    detector.close()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "data", type=Path, nargs="+", help="folders with clips (.mp4) and portraits/ (pictures)"
    )
    parser.add_argument("--tracks", type=Path, default=Path("runs/tracks"))
    parser.add_argument(
        "--recognition", type=Path, metavar="DIR", help="where faceres.json and mobileface.json are"
    )
    parser.add_argument("--generator", default="geometric")
    given = parser.parse_args()
    model = load_head_model()
    judge = Judge(model, given.generator, given.recognition)
    for asked in tqdm(asked_of(model, given.data, given.tracks), desc="smiles"):
        try:
            judge.judge(asked)
        except PhotoError as error:
            print(f"left out: {error}")
    judge.report()


if __name__ == "__main__":
    main()
