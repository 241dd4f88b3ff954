"""Read back what was drawn: do mouth and lids of the drawn face move with the driver's, and as far?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engines.geometry import F64
from engines.head.fit import openings
from scripts.evaluation.metrics import eye_distance_px

MOUTH_CORNERS = (78, 308)
LEAST_SHOTS = 12  # fewer say little of a correlation
# Opening, width, right and left eye: a driver who moves less than this (standard deviation over the shots) gives
# nothing to follow. Mouth: about three times how much the detector trembles on single pictures (0.012 and 0.014;
# medians over the runs of 14 development clips). Eyes: it trembles by 0.017, but a head that turns seems to open and
# close them by 0.06; one full blink among 40 shots makes 0.09.
LEAST_SPREAD = np.array([0.03, 0.06, 0.08, 0.08])


def readings(unposed_hu: F64, neutral_hu: F64) -> F64:
    """(4,) opening of the mouth, its width, and how open the right and left eye are, each on the person's own scale.

    `unposed_hu` (478, 3) is the face of one picture with its pose taken out, `neutral_hu` (478, 3) the same person's
    face without expression. The gap of the inner lips is told over the distance of the eyes, the width and the eyes
    over what they are at rest, so that small eyes that close count as much as large ones.
    """
    now, rest = openings(unposed_hu), openings(neutral_hu)
    width, rest_width = _mouth_width(unposed_hu), _mouth_width(neutral_hu)
    gap = now[0] * width / max(eye_distance_px(neutral_hu), 1e-6)
    return np.array([gap, width / max(rest_width, 1e-6), *(now[1:] / np.maximum(rest[1:], 1e-3))])


def follow(drawn: F64, driver: F64, least_spread: float) -> tuple[float, float]:
    """(r, slope) of the least-squares line drawn = slope · driver + offset over the shots (T,).

    A face that never moves follows nothing: 0 and 0. NaN for fewer than `LEAST_SHOTS` shots, or when the standard
    deviation of `driver` is below `least_spread`: then there is nothing to follow.
    """
    if len(driver) < LEAST_SHOTS or driver.std() < least_spread:
        return float("nan"), float("nan")
    own, theirs = drawn - drawn.mean(), driver - driver.mean()
    shared = float((own * theirs).sum())
    slope = shared / float((theirs**2).sum())
    if own.std() < 1e-9:
        return 0.0, 0.0
    return shared / float(np.sqrt((own**2).sum() * (theirs**2).sum())), slope


def read_back(drawn: Sequence[F64 | None], driver: Sequence[F64 | None]) -> dict[str, float]:
    """r and slope of opening, width and blink of one take, from the readings (4,) of each shot; None: no face.

    Blink is the mean over the eyes that the driver moves.
    """
    both = [(a, b) for a, b in zip(drawn, driver, strict=True) if a is not None and b is not None]
    ours, theirs = (np.array([pair[k] for pair in both]).reshape(-1, 4) for k in (0, 1))
    found = np.array([follow(ours[:, k], theirs[:, k], float(LEAST_SPREAD[k])) for k in range(4)])
    eyes = found[2:][np.isfinite(found[2:, 0])]
    blink = eyes.mean(0) if len(eyes) else np.full(2, np.nan)
    return {
        f"{name}_{figure}": float(value)
        for name, pair in (("opening", found[0]), ("width", found[1]), ("blink", blink))
        for figure, value in zip(("r", "slope"), pair, strict=True)
    }


def _mouth_width(landmarks: F64) -> float:
    a, b = (landmarks[k, :2] for k in MOUTH_CORNERS)
    return float(np.linalg.norm(a - b))
