"""Build `engines/data/glasses.safetensors`: whether a photo's person wears glasses, from photos that were looked at.

    python -m scripts.build_glasses DATA [DATA ...] --labels FILE [-o engines/data/glasses.safetensors]

DATA holds portraits/ (pictures) and clips (.mp4), of which the eleventh frame counts. FILE names, one a line, the files
without ending whose people wear glasses; everybody else wears none (`scripts/people/glasses.txt` is what was seen in
the photos and clips that the shipped file learned from). Each is seen mirrored, shifted and a little larger and smaller
as well. Logistic regression on gradients around the eyes (`calibration.glasses`).

People of the held-out fifth teach nothing. Printed: how many are told rightly, by turns and of the held-out ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from calibration.face import find_face
from calibration.glasses import GLASSES_PATH, LEAST_SCORE, Classifier, classifier_bytes, eye_strip, gradients
from calibration.photo import open_photo
from engines.errors import VisavisError
from engines.files import write_whole
from scripts.people.tracks import is_held_out, read_subjects, subject_of

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Bools = NDArray[np.bool_]

TURNS = 5
_FRAME = 10
_RIDGE = 3e-3
_SEEN = ((0, 0, 1), (3, 0, 1), (-3, 0, 1), (0, 3, 1), (0, -3, 1), (0, 0, 1.06), (0, 0, 0.94))  # x, y, size


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """What is seen of a person's eyes, and whether they wear glasses."""

    name: str
    subject: str
    strip: U8
    glasses: bool


def pictures(folder: Path) -> Iterator[tuple[Path, U8]]:
    """Portraits and a frame of each clip of a folder of data; what cannot be opened is left out."""
    for path in sorted((folder / "portraits").glob("*.*")):
        try:
            yield path, open_photo(path).image
        except VisavisError:
            continue
    for path in sorted((folder / "clips256").glob("*.mp4")) or sorted(folder.rglob("*.mp4")):
        clip = cv2.VideoCapture(str(path))
        clip.set(cv2.CAP_PROP_POS_FRAMES, _FRAME)
        read, frame = clip.read()
        clip.release()
        if read:
            yield path, np.ascontiguousarray(frame[..., ::-1], np.uint8)


def examples_of(folder: Path, labels: set[str]) -> Iterator[Example]:
    """Every picture of a folder that shows a face."""
    subjects = read_subjects(folder)
    for path, picture in pictures(folder):
        try:
            found = find_face(picture)
        except VisavisError:
            continue
        strip = eye_strip(found.image, found.face.points_px)
        yield Example(path.stem, subject_of(path.stem, subjects), strip, path.stem in labels)


def views(strip: U8) -> Iterator[F32]:
    """Gradients of a strip as it is, mirrored, shifted, larger and smaller."""
    for side in (strip, np.ascontiguousarray(strip[:, ::-1])):
        for x, y, size in _SEEN:
            middle = np.array([side.shape[1], side.shape[0]]) / 2
            affine = np.column_stack([np.eye(2) * size, middle * (1 - size) + (x, y)])
            moved = cv2.warpAffine(side, affine, side.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
            yield gradients(np.asarray(moved, np.uint8))


def learn(told: F32, glasses: Bools) -> Classifier:
    """Logistic regression with a ridge; either kind weighs as much as the other. `told` (n, 6156), `glasses` (n,)."""
    inputs, wanted = torch.from_numpy(told), torch.from_numpy(glasses.astype(np.float32))
    weights, bias = torch.zeros(inputs.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    rare = (len(wanted) - wanted.sum()) / wanted.sum()
    search = torch.optim.LBFGS([weights, bias], max_iter=120, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        off = torch.nn.functional.binary_cross_entropy_with_logits(
            inputs @ weights + bias, wanted, pos_weight=rare
        )
        total = off + _RIDGE * weights.square().sum()
        total.backward()
        return total.detach()

    search.step(loss)
    return Classifier(weights.detach().numpy(), float(bias.detach()))


def told_rightly(examples: Sequence[Example], scores: F32) -> str:
    """One line: of how many with and without glasses the score says so."""
    worn = np.array([e.glasses for e in examples])
    said = scores > LEAST_SCORE
    return f"{(said & worn).sum()} of {worn.sum()} with glasses, {(~said & ~worn).sum()} of {(~worn).sum()} without"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+", help="folders with portraits/ and clips (.mp4)")
    parser.add_argument("--labels", type=Path, required=True, help="who wears glasses: a name a line")
    parser.add_argument("-o", "--output", type=Path, default=GLASSES_PATH)
    given = parser.parse_args()
    labels = set(given.labels.read_text(encoding="utf-8").split())
    examples = [e for folder in given.data for e in examples_of(folder, labels)]
    teach = [e for e in examples if not is_held_out(e.subject)]
    others = [e for e in examples if is_held_out(e.subject)]
    seen = [np.stack(list(views(e.strip))) for e in teach]
    worn = [np.full(len(s), e.glasses) for e, s in zip(teach, seen, strict=True)]
    subjects = sorted({e.subject for e in teach})
    scores = np.zeros(len(teach), np.float32)
    for turn in range(TURNS):
        out = np.isin([e.subject for e in teach], subjects[turn::TURNS])
        kept = np.flatnonzero(~out)
        found = learn(np.concatenate([seen[k] for k in kept]), np.concatenate([worn[k] for k in kept]))
        for k in np.flatnonzero(out):
            scores[k] = found.score(teach[k].strip)
    print(f"people left out by turns: {told_rightly(teach, scores)}")
    found = learn(np.concatenate(seen), np.concatenate(worn))
    held = np.array([found.score(e.strip) for e in others], np.float32)
    print(f"held-out people: {told_rightly(others, held)}")
    write_whole(given.output, classifier_bytes(found))
    print(f"{given.output}: {given.output.stat().st_size} bytes, of {len(teach)} pictures")


if __name__ == "__main__":
    main()
