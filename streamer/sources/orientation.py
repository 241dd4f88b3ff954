"""How a video has to be turned for its face to be upright: cameras lie on their side and leave no tag."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import VisavisError
from engines.geometry import align_similarity
from streamer.sources.video import VideoSource

if TYPE_CHECKING:
    from engines.head.regressor.network import RegressorNet

U8 = NDArray[np.uint8]
# a picture (H, W, 3) → how far its largest face is rolled clockwise, in degrees; None for no face
RollOf = Callable[[U8], float | None]
Rolls = tuple[float | None, float | None, float | None, float | None]  # with 0 … 3 quarter turns clockwise

UPRIGHT_DEG = 40.0  # people lean their heads less
_SURE = (
    0.9  # our network's confidence: 1.0 for faces, up to 0.81 for those that MediaPipe took for upright ones
)
_ENOUGH = 4  # pictures that agree
_PLAINLY_DEG = 10.0
_WORSE = 1.1  # of 33 faces found in both turns the wrong one fitted worse in 32, the other by less than this
_PLAIN_ENOUGH, _QUICK_LOOKS = 3, 5
_WINDOW_S = 20.0
_STEPS_S = (0.2, 2.0, 1.0)  # from picture to picture, up to this time, and from then on
_SIDE_PX = 640  # a face that matters is found in this
_LEFT_EYE, _RIGHT_EYE = 263, 33  # outer corners


def decided_turn(seen: Sequence[Rolls], *, last: bool = False) -> int | None:
    """Quarter turns clockwise after which faces are upright; None while that is open, 0 if it still is at `last`."""
    counts = [sum(_is_upright(rolls[turn]) for rolls in seen) for turn in range(4)]
    best = max(range(4), key=lambda turn: (counts[turn], turn == 0))
    rival = max(count for turn, count in enumerate(counts) if turn != best)
    if counts[best] >= _ENOUGH and counts[best] >= 2 * rival:
        return best
    if not last:
        return None
    return best if counts[best] >= min(2, len(seen)) and counts[best] > 1.5 * rival else 0


def _is_upright(roll_deg: float | None) -> bool:
    return roll_deg is not None and abs(roll_deg) < UPRIGHT_DEG


def rolls_of(image: U8, roll_of: RollOf) -> Rolls:
    """What is seen of `image` in each turn; only as it is, where that is an upright face."""
    now = roll_of(image)
    if _is_upright(now):
        return now, None, None, None
    return (
        now,
        roll_of(quarter_turned(image, 1)),
        roll_of(quarter_turned(image, 2)),
        roll_of(quarter_turned(image, 3)),
    )


def quarter_turned(image: U8, turns: int) -> U8:
    """`image` (H, W, C) after `turns` quarter turns clockwise."""
    return np.ascontiguousarray(np.rot90(image, -turns)) if turns % 4 else image


@dataclass(frozen=True, slots=True)
class Look:
    """How faces are looked for: `find` is quick and may be wrong, `judge` is sure and slower.

    `find` also says how badly what was found fits a face, as a share of its size.
    """

    find: Callable[[U8], tuple[float, float] | None]
    judge: RollOf


def stands_plainly(image: U8, look: Look) -> bool:
    """Whether a face is found that stands straight, and none or a worse one when the picture stands on its head."""
    here = look.find(image)
    if here is None or abs(here[0]) > _PLAINLY_DEG:
        return False
    over = look.find(quarter_turned(image, 2))
    return over is None or over[1] > _WORSE * here[1]


def upright_turn(path: Path, look: Look | None = None) -> int:
    """Quarter turns clockwise that a video needs; 0 where it stands upright, shows nobody, or cannot be told.

    Most videos stand, and for these a few quick looks do. Raises DriverError for what is no video.
    """
    with VideoSource(path) as source:
        look = look or _open_look()
        if look is None:
            return 0
        images = _glimpses(source)
        first: list[U8] = []
        plain = 0
        for image in islice(images, _QUICK_LOOKS):
            first.append(image)
            plain += stands_plainly(image, look)
            if plain >= _PLAIN_ENOUGH:
                return 0
        seen: list[Rolls] = []
        for image in chain(first, images):
            seen.append(rolls_of(image, look.judge))
            if (turn := decided_turn(seen)) is not None:
                return turn
        return decided_turn(seen, last=True) or 0


def _glimpses(source: VideoSource) -> Iterator[U8]:
    """Pictures of the first seconds, small, close together at first."""
    due_s = 0.0
    while (frame := source.read()) is not None and frame.pts_s < _WINDOW_S:
        if frame.pts_s >= due_s:
            due_s = frame.pts_s + (_STEPS_S[0] if frame.pts_s < _STEPS_S[1] else _STEPS_S[2])
            yield _small(frame.image)


def _small(image: U8) -> U8:
    scale = _SIDE_PX / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _open_look() -> Look | None:
    """MediaPipe's detector, whatever the tracker is, with our own network as the judge: None where it does not load.

    MediaPipe finds faces in any turn, but takes many that are upside down for upright ones; our network does not.
    """
    try:
        from engines.head.landmarks import LandmarkDetector
        from engines.head.model import load_head_model

        detector = LandmarkDetector(video=False)
    except (ImportError, OSError, VisavisError):  # the tracker says what is missing
        return None

    model = load_head_model()
    mean = model.landmarks(model.mean_hu)

    def found(image: U8) -> tuple[float, NDArray[np.float32]] | None:
        faces = detector.detect(image)
        if not faces:
            return None
        across = faces[0].points_px[_LEFT_EYE] - faces[0].points_px[_RIGHT_EYE]
        return float(np.degrees(np.arctan2(across[1], across[0]))), faces[0].points_px

    def find(image: U8) -> tuple[float, float] | None:
        face = found(image)
        if face is None:
            return None
        roll_deg, points = face
        try:
            placed = align_similarity(mean, points).apply(mean)
        except ValueError:  # landmarks that are no face
            return None
        misfit = np.linalg.norm(points - placed) / np.linalg.norm(points - points.mean(0))
        return roll_deg, float(misfit)

    def judge(image: U8) -> float | None:
        face = found(image)
        if face is None or (_is_upright(face[0]) and _confidence(image, face[1]) < _SURE):
            return None
        return face[0]

    return Look(find, judge)


def _confidence(image: U8, points_px: NDArray[np.float32]) -> float:
    """How sure our own network is of an upright face at these landmarks."""
    import torch  # slow to load, and seldom needed

    from engines.head.regressor.crop import box_around, cut
    from engines.head.regressor.network import as_input
    from engines.head.regressor.prediction import read_output

    network = _network()
    with torch.inference_mode():
        raw = network(as_input(cut(image, box_around(points_px))))[0].numpy()
    return read_output(raw, network.layout).confidence if np.isfinite(raw).all() else 0.0


@cache
def _network() -> RegressorNet:
    from engines.head.regressor.file import load_regressor

    return load_regressor()
