"""How a video has to be turned for its face to be upright: cameras lie on their side and leave no tag."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import VisavisError
from streamer.sources.video import VideoSource

U8 = NDArray[np.uint8]
# a picture (H, W, 3) → how far its largest face is rolled clockwise, in degrees; None for no face
RollOf = Callable[[U8], float | None]
Rolls = tuple[float | None, float | None, float | None, float | None]  # with 0 … 3 quarter turns clockwise

UPRIGHT_DEG = 40.0  # people lean their heads less
_SURE = (
    0.9  # our network's confidence: 1.0 for faces, up to 0.81 for those that MediaPipe took for upright ones
)
_ENOUGH = 4  # pictures that agree
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


def upright_turn(path: Path, roll_of: RollOf | None = None) -> int:
    """Quarter turns clockwise that a video needs; 0 where it stands upright, shows nobody, or cannot be told.

    Raises DriverError for what is no video.
    """
    with VideoSource(path) as source:
        look = roll_of or _open_look()
        if look is None:
            return 0
        seen: list[Rolls] = []
        due_s = 0.0
        while (frame := source.read()) is not None and frame.pts_s < _WINDOW_S:
            if frame.pts_s < due_s:
                continue
            due_s = frame.pts_s + (_STEPS_S[0] if frame.pts_s < _STEPS_S[1] else _STEPS_S[2])
            seen.append(rolls_of(_small(frame.image), look))
            if (turn := decided_turn(seen)) is not None:
                return turn
        return decided_turn(seen, last=True) or 0


def _small(image: U8) -> U8:
    scale = _SIDE_PX / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _open_look() -> RollOf | None:
    """MediaPipe's detector, whatever the tracker is, with our own network as a judge: None where they do not load.

    MediaPipe finds faces in any turn, but takes many that are upside down for upright ones; our network does not.
    """
    try:
        import torch

        from engines.head.landmarks import LandmarkDetector
        from engines.head.regressor.crop import box_around, cut
        from engines.head.regressor.file import load_regressor
        from engines.head.regressor.network import as_input
        from engines.head.regressor.prediction import read_output

        detector = LandmarkDetector(video=False)
        network = load_regressor()
    except (ImportError, OSError, VisavisError):  # the tracker says what is missing
        return None

    def roll_of(image: U8) -> float | None:
        faces = detector.detect(image)
        if not faces:
            return None
        points = faces[0].points_px
        across = points[_LEFT_EYE] - points[_RIGHT_EYE]
        roll_deg = float(np.degrees(np.arctan2(across[1], across[0])))
        if abs(roll_deg) < UPRIGHT_DEG:
            with torch.inference_mode():
                raw = network(as_input(cut(image, box_around(points))))[0].numpy()
            if not np.isfinite(raw).all() or read_output(raw, network.layout).confidence < _SURE:
                return None
        return roll_deg

    return roll_of
