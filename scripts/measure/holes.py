"""How well what a person hides is filled: person-shaped holes where photos show none, by method.

    python -m scripts.measure.holes DATA [--count 100] [--held-out] [-o SHEET.png]

DATA holds portraits/. What is hidden is the photo's own person grown by `GROWN_SHARE`, or another's matte laid beside
them, by turns; the place that is judged is what then is hidden and in truth shows the background. Prints a table:
LPIPS-efflite0 (`scripts.evaluation.perceptual`) and L1 over the box about it, the rest of the photo left as it is,
milliseconds of this thread, and how much less LPIPS than push-pull's with a bootstrap's 95 % interval.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))  # also when run as a file

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from calibration.enroll import face_of, person_matte
from calibration.face import head_crop
from calibration.fill import fill
from calibration.photo import open_photo
from engines.errors import PhotoError
from engines.picture.push_pull import push_pull
from scripts.evaluation.perceptual import PerceptualFeatures, perceptual_distance
from scripts.people.tracks import is_held_out, read_subjects, subject_of

U8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Method = Callable[[U8, Mask], U8]

GROWN_SHARE = 1 / 14  # of the head crop's side: about a quarter of a head unit
_LEAST, _MOST_HIDDEN = 0.02, 0.8
_AROUND_PX = 16
_SEED = 7


@dataclass(frozen=True, slots=True, eq=False)
class Hole:
    """`photo` (H, W, 3) without `hidden` (H, W), of which `judged` is background in truth."""

    name: str
    photo: U8
    hidden: Mask
    judged: Mask


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A photo and where its person is (H, W), with stray hair and the soft edge; `side_px` of the head crop."""

    name: str
    photo: U8
    person: Mask
    side_px: float


def by_push_pull(photo: U8, hidden: Mask) -> U8:
    """Smooth."""
    smooth = push_pull(photo.astype(np.float32), (~hidden).astype(np.float32))
    return np.clip(smooth + 0.5, 0, 255).astype(np.uint8)


def by_telea(photo: U8, hidden: Mask) -> U8:
    """OpenCV's fast marching (Telea 2004)."""
    return cv2.inpaint(photo, hidden.astype(np.uint8), 5, cv2.INPAINT_TELEA).astype(np.uint8)


def by_fsr(photo: U8, hidden: Mask) -> U8:
    """OpenCV's frequency selective reconstruction, its fast way."""
    out = np.zeros_like(photo)
    cv2.xphoto.inpaint(photo, np.where(hidden, 0, 255).astype(np.uint8), out, cv2.xphoto.INPAINT_FSR_FAST)
    return out


METHODS: Mapping[str, Method] = {
    "push-pull": by_push_pull, "patches": fill, "telea": by_telea, "fsr-fast": by_fsr,
}  # fmt: skip


def cut_out_of(path: Path) -> Cut | None:
    """None where there is no face or nobody is told from the background."""
    try:
        found = face_of(open_photo(path))
    except PhotoError:
        return None
    points, image = found.face.points_px, found.image
    crop = head_crop(points, image.shape[1], image.shape[0])
    matte = person_matte(image, crop, points, [other.points_px for other in found.others])
    if matte.notice:
        return None
    reach = max(3, round(crop[2] / 40))
    grown = cv2.dilate((matte.alpha > 0).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=reach)
    return Cut(path.stem, image, grown > 0, crop[2])


def grown_hole(cut: Cut) -> Hole:
    """The person grown: what a turning head uncovers is as far from what shows."""
    reach = round(GROWN_SHARE * cut.side_px)
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    hidden = cv2.dilate(cut.person.astype(np.uint8), around) > 0
    return Hole(cut.name, cut.photo, hidden, hidden & ~cut.person)


def laid_hole(cut: Cut, other: Cut, rng: np.random.Generator) -> Hole:
    """Another person's matte laid somewhere beside this one."""
    height, width = cut.person.shape
    scale = min(height / other.person.shape[0], width / other.person.shape[1])
    place = np.array(
        [[scale, 0, rng.uniform(-0.6, 0.6) * width], [0, scale, rng.uniform(0, 0.5) * height]], np.float32
    )
    laid = cv2.warpAffine(other.person.astype(np.uint8), place, (width, height)) > 0
    return Hole(cut.name, cut.photo, laid | cut.person, laid & ~cut.person)


def holes_of(paths: Sequence[Path], count: int) -> list[Hole]:
    """`count` holes of as many photos, by turns of either kind, always the same."""
    rng = np.random.default_rng(_SEED)
    out: list[Hole] = []
    last: Cut | None = None
    for k in rng.permutation(len(paths)):
        cut = cut_out_of(paths[k])
        if cut is None:
            continue
        tries = [grown_hole(cut)] if len(out) % 2 == 0 or last is None else []
        if last is not None and not tries:
            tries = [laid_hole(cut, last, rng) for _ in range(20)]
        last = cut
        good = [h for h in tries if h.judged.mean() > _LEAST and h.hidden.mean() < _MOST_HIDDEN]
        out += good[:1]
        if len(out) == count:
            break
    return out


class Judge:
    """Tells pictures apart."""

    def __init__(self) -> None:
        self.features = PerceptualFeatures()

    def __call__(self, hole: Hole, filled: U8) -> tuple[float, float]:
        """(LPIPS-efflite0, L1 in grey levels)."""
        y, x = np.nonzero(hole.judged)
        box = np.s_[
            max(0, y.min() - _AROUND_PX) : y.max() + _AROUND_PX,
            max(0, x.min() - _AROUND_PX) : x.max() + _AROUND_PX,
        ]
        shown = np.where(hole.judged[..., None], filled, hole.photo)
        pair = torch.from_numpy(np.stack([shown[box], hole.photo[box]])).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            levels = self.features(pair)
            distance = perceptual_distance([f[:1] for f in levels], [f[1:] for f in levels])
        off = np.abs(filled.astype(np.float32) - hole.photo)[hole.judged]
        return float(distance), float(off.mean())


def interval(less: NDArray[np.float64], base: NDArray[np.float64]) -> tuple[float, float]:
    """95 % of how much smaller the mean of `less` is than that of `base`, in percent, over draws of photos."""
    rng = np.random.default_rng(_SEED)
    picks = rng.integers(0, len(less), (2000, len(less)))
    drops = 100 * (1 - less[picks].mean(1) / base[picks].mean(1))
    low, high = np.quantile(drops, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+", help="folders with portraits/")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--held-out", action="store_true", help="people of the validation fifth alone")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["push-pull", "patches"])
    parser.add_argument(
        "-o", "--output", type=Path, metavar="SHEET", help="photo, hole and fills, a row each"
    )
    given = parser.parse_args()
    paths: list[Path] = []
    for folder in given.data:
        subjects = read_subjects(folder)
        own = sorted((folder / "portraits").iterdir())
        paths += [p for p in own if is_held_out(subject_of(p.stem, subjects)) or not given.held_out]
    names = list(dict.fromkeys(["push-pull", *given.methods]))
    holes, judge = holes_of(paths, given.count), Judge()
    if not holes:
        sys.exit("holes: no photo shows a person before a background; name another folder")
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    pictures: list[U8] = []
    for number, hole in enumerate(holes, 1):
        row = [hole.photo, np.where(hole.hidden[..., None], 128, hole.photo).astype(np.uint8)]
        for name in names:
            start = time.thread_time_ns()
            filled = METHODS[name](hole.photo, hole.hidden)
            took_ms = (time.thread_time_ns() - start) / 1e6
            rows[name].append((*judge(hole, filled), took_ms))
            row.append(np.where(hole.hidden[..., None], filled, hole.photo).astype(np.uint8))
        if given.output and number <= 24:
            small = [cv2.resize(p, (256, 256), interpolation=cv2.INTER_AREA) for p in row]
            pictures.append(np.hstack(small).astype(np.uint8))
        if number % 10 == 0 or number == len(holes):
            print(f"\n{number} holes\n| method | LPIPS-efflite0 | less than push-pull, % | L1 | ms |")
            print("| --- | ---: | ---: | ---: | ---: |")
            base = np.array(rows["push-pull"])[:, 0]
            for name in names:
                figures = np.array(rows[name])
                mean = figures.mean(0)
                low, high = interval(figures[:, 0], base)
                drop = 100 * (1 - mean[0] / base.mean())
                print(
                    f"| {name} | {mean[0]:.3f} | {drop:.1f} ({low:.1f} … {high:.1f}) | {mean[1]:.1f} | "
                    f"{mean[2]:.0f} |",
                    flush=True,
                )
    if given.output:
        cv2.imwrite(str(given.output), cv2.cvtColor(np.vstack(pictures), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
