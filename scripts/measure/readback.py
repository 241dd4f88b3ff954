"""Does the mouth that is drawn open and widen with the driver's, and when? Exactly, in `animate`, and in a call.

    python -m scripts.measure.readback DATA [DATA ...] [--clips 12] [--frames 100] [--generator geometric]

Each clip's own first frame is the photo. Its frames drive it: `exact` by the landmarks of single pictures, `animate` as
a file is made, `live` as a call is, fed at the clip's rate on a virtual clock. Opening and width of the mouth are then
read by single-picture landmarks from the drawn pictures and from the clip's own. `mesh` rows tell the same of the posed
head that was drawn: what is lost before them is lost on the way to it, what is lost after them in the drawing.

Columns: r and slope of the drawn against the true mouth, lag in frames (where r is highest, between frames), and
tremble, the median size of second differences over the true mouth's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engines.enrollment import Enrollment
from engines.errors import VisavisError
from engines.geometry import F64
from engines.head.fit import ExpressionFit, fit_driver
from engines.head.landmarks import FaceLandmarks, LandmarkDetector
from engines.head.model import HeadModel, load_head_model
from engines.motion import Motion
from engines.raster.gbuffer import Viewport
from engines.raster.pose import decode_head, head_viewport
from engines.raster.resample import resample
from engines.renderer import Renderer
from engines.retarget import Controls, retarget
from scripts.evaluation.clips import find_clips, spread_indices
from scripts.evaluation.protocols import absolute_motions, png_of
from scripts.evaluation.readback import LEAST_SHOTS, LEAST_SPREAD, readings
from scripts.people.decoding import ClipError, decode
from scripts.people.tracks import Tracked, is_held_out

U8 = NDArray[np.uint8]

PATHS = ("exact", "animate", "live")
NAMES = ("opening", "width")
FPS = 25.0
SIZE_PX = 512
_LAGS = 4


@dataclass(frozen=True, slots=True)
class Figures:
    """How one series follows another; NaN where the other hardly moves. `lag` in frames, positive is late."""

    r: float
    slope: float
    lag: float
    tremble: float


def figures(drawn: F64, true: F64, least_spread: float) -> Figures:
    """Of series (T,) that may hold NaN where no face was seen.

    Raises nothing: too few moments, or a mouth that does not move, give NaN.
    """
    both = np.isfinite(drawn) & np.isfinite(true)
    nothing = Figures(*[float("nan")] * 4)
    if both.sum() < LEAST_SHOTS or true[both].std() < least_spread:
        return nothing
    lags = np.arange(-_LAGS, _LAGS + 1)
    found = [_line(drawn, true, int(lag)) for lag in lags]
    r = np.array([f[0] for f in found])
    best = int(np.argmax(r))
    late = float(lags[best])
    if 0 < best < len(lags) - 1:  # the top of a parabola through the three highest
        left, top, right = r[best - 1 : best + 2]
        late += 0.5 * (left - right) / min(left - 2 * top + right, -1e-9)
    bend = [np.abs(np.diff(np.where(both, s, np.nan), 2)) for s in (drawn, true)]
    size = [float(np.nanmedian(b)) for b in bend]
    return Figures(found[_LAGS][0], found[_LAGS][1], late, size[0] / max(size[1], 1e-9))


def _line(drawn: F64, true: F64, lag: int) -> tuple[float, float]:
    """(r, slope) of drawn[t + lag] against true[t]."""
    a, b = (drawn[lag:], true[: len(true) - lag]) if lag >= 0 else (drawn[:lag], true[-lag:])
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both] - a[both].mean(), b[both] - b[both].mean()
    shared = float((a * b).sum())
    return shared / max(float(np.sqrt((a**2).sum() * (b**2).sum())), 1e-12), shared / max(
        float((b**2).sum()), 1e-12
    )


class Reader:
    """Reads mouths from single pictures."""

    def __init__(self, model: HeadModel) -> None:
        self._fit = ExpressionFit(model)
        self._detector = LandmarkDetector(video=False)

    def face(self, picture: U8) -> FaceLandmarks | None:
        """The largest face of a picture."""
        faces = self._detector.detect(picture)
        return faces[0] if faces else None

    def mouth(self, face: FaceLandmarks | None, neutral_hu: F64) -> F64:
        """(2,) opening and width; NaN without a face."""
        if face is None:
            return np.full(2, np.nan)
        fitted = fit_driver(self._fit, neutral_hu, face.points_px, face.scores)
        return readings(fitted.unposed_hu, neutral_hu)[:2]

    def close(self) -> None:
        """Free the detector."""
        self._detector.close()


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip to be driven by: its first frame enrolled, its frames (T, H, W, 3) and the single-picture faces."""

    name: str
    enrollment: Enrollment
    pictures: Sequence[U8]
    faces: Sequence[FaceLandmarks | None]


def exact_motions(model: HeadModel, clip: Clip) -> list[Motion | None]:
    """Motion of each frame against the person's known shape, by landmarks of the single picture alone."""
    neutral = np.asarray(model.landmarks(clip.enrollment.neutral_hu), np.float64)
    height, width = clip.pictures[0].shape[:2]
    seen = [k for k, face in enumerate(clip.faces) if face is not None]
    faces = [face for face in clip.faces if face is not None]
    tracked = Tracked(
        clip.name, clip.name, Path(), np.stack([f.points_px for f in faces]).astype(np.float64),
        np.stack([f.scores for f in faces]).astype(np.float64), np.array(seen, np.float64), (width, height),
    )  # fmt: skip
    told = dict(zip(seen, absolute_motions(model, neutral, tracked), strict=True))
    return [told.get(k) for k in range(len(clip.pictures))]


def driven_motions(clip: Clip, *, live: bool, tracker: str = "mediapipe") -> list[Motion | None]:
    """What `animate`, or a call whose neutral is taken, asks of the photo's head at each frame."""
    from streamer.drive.driver import Driver
    from streamer.drive.trackers.open import open_tracker
    from streamer.frame import Frame
    from streamer.recordings import settled_drive

    def frames() -> list[Frame]:
        return [
            Frame(k / FPS, round(k * 1e9 / FPS), sequence=k, image=picture)
            for k, picture in enumerate(clip.pictures)
        ]

    with ExitStack() as stack:
        probe = stack.enter_context(open_tracker(tracker))
        for frame in frames():
            probe.track(frame)
        rest = probe.driver_neutral
        if rest is None:
            return [None] * len(clip.pictures)
        follower = open_tracker(tracker)
        driver = Driver(follower, smooth=live)
        stack.callback(driver.close)
        follower.use_neutral(rest, for_good=True)
        drives = [driver.drive(frame) for frame in frames()]
        if not live:
            around = [None, *drives, None]
            drives = [settled_drive(a, b, c) for a, b, c in zip(around, drives, around[2:], strict=False)]
        source = clip.enrollment.motion
        return [retarget(d.motion, d.neutral, source, Controls()) if d.face else None for d in drives]


def read_clip(
    model: HeadModel, reader: Reader, clip: Clip, generator: str, paths: Sequence[str], tracker: str
) -> dict[str, F64]:
    """Row name → (T, 2) opening and width: "true", and of each path "PATH mesh" and "PATH drawn"."""
    neutral = np.asarray(model.landmarks(clip.enrollment.neutral_hu), np.float64)
    renderer = Renderer(clip.enrollment, generator=generator, size_px=SIZE_PX)
    renderer.wait_until_compiled()
    view: Viewport = head_viewport(clip.enrollment, SIZE_PX)
    shown = (resample(picture, view, 0, (SIZE_PX, SIZE_PX)) for picture in clip.pictures)
    out = {"true": np.stack([reader.mouth(reader.face(picture), neutral) for picture in shown])}
    for path in paths:
        motions = (
            exact_motions(model, clip)
            if path == "exact"
            else driven_motions(clip, live=path == "live", tracker=tracker)
        )
        mesh, drawn = (np.full((len(motions), 2), np.nan) for _ in range(2))
        renderer.forget()
        for k, motion in enumerate(motions):
            if motion is None:
                continue
            head = np.asarray(model.landmarks(decode_head(model, clip.enrollment, motion)), np.float64)
            mesh[k] = readings(head, neutral)[:2]
            drawn[k] = reader.mouth(reader.face(np.asarray(renderer.render(motion)[..., :3])), neutral)
        out |= {f"{path} mesh": mesh, f"{path} drawn": drawn}
    return out


def load(path: Path, frames: int, reader: Reader) -> Clip:
    """The clip's first `frames` frames from the one on that can be enrolled. Raises VisavisError when none can."""
    from calibration.enroll import enroll

    pictures: list[U8] = []
    try:
        pictures.extend(picture for _, picture in decode(path, range(frames + 10)))
    except ClipError:
        if len(pictures) < 2 * LEAST_SHOTS:
            raise
        # cut off: what came is a clip too
    for first in (0, 5, 10):
        try:
            enrollment = enroll(png_of(pictures[first]), name=path.stem)
        except VisavisError:
            if first == 10:
                raise
            continue
        rest = pictures[first : first + frames]
        size = (enrollment.photo.shape[1], enrollment.photo.shape[0])
        if rest[0].shape[1::-1] != size:
            rest = [np.asarray(cv2.resize(p, size, interpolation=cv2.INTER_AREA), np.uint8) for p in rest]
        return Clip(path.stem, enrollment, rest, [reader.face(p) for p in rest])
    raise AssertionError("the last try raises")


def table(found: Sequence[dict[str, F64]], rows: Sequence[str]) -> str:
    """Medians over the clips, a line for each path and measure."""
    lines = [f"{'':16}{'':9}{'r':>7}{'slope':>7}{'lag':>7}{'tremble':>9}{'clips':>7}"]
    for row in rows:
        for k, name in enumerate(NAMES):
            each = [figures(f[row][:, k], f["true"][:, k], float(LEAST_SPREAD[k])) for f in found]
            told = np.array([(f.r, f.slope, f.lag, f.tremble) for f in each]).reshape(-1, 4)
            told = told[np.isfinite(told[:, 0])]
            r, slope, lag, tremble = np.median(told, 0) if len(told) else np.full(4, np.nan)
            lines.append(f"{row:16}{name:9}{r:7.3f}{slope:7.3f}{lag:7.2f}{tremble:9.2f}{len(told):7}")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path, help="folders of talking clips, or clips")
    parser.add_argument("--clips", type=int, default=12, help="so many, spread evenly (12)")
    parser.add_argument("--others", action="store_true", help="people who are not held out: to tune on")
    parser.add_argument("--frames", type=int, default=100, help="of each clip (100)")
    parser.add_argument("--generator", default="geometric")
    parser.add_argument("--tracker", default="mediapipe")
    parser.add_argument("--path", nargs="+", choices=PATHS, default=list(PATHS))
    parser.add_argument("--keep", type=Path, metavar="FILE.npz", help="write what was read here")
    given = parser.parse_args()
    found = [p for data in given.data for p in _clips(data, others=given.others)]
    model = load_head_model()
    reader = Reader(model)
    read: list[dict[str, F64]] = []
    names: list[str] = []
    chosen = [found[k] for k in spread_indices(len(found), given.clips)]
    for path in tqdm(chosen, mininterval=5):
        try:
            clip = load(path, given.frames, reader)
            read.append(read_clip(model, reader, clip, given.generator, given.path, given.tracker))
            names.append(clip.name)
        except VisavisError as error:
            print(f"{path.stem}: {error}", flush=True)
    reader.close()
    if given.keep:
        arrays = {f"{n}/{row}": series for n, f in zip(names, read, strict=True) for row, series in f.items()}
        np.savez(given.keep, **arrays)  # pyright: ignore[reportArgumentType]
    print(table(read, [f"{p} {what}" for p in given.path for what in ("mesh", "drawn")]))


def _clips(data: Path, *, others: bool) -> list[Path]:
    """One clip of each person."""
    if data.is_file():
        return [data]
    of = {s: p for p, s in reversed(find_clips(data, everyone=others)) if not (others and is_held_out(s))}
    return sorted(of.values())


if __name__ == "__main__":
    main()
