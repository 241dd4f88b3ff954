"""Which frames of a clip make the window of moments around a frame, as a call would cut it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.motion import Motion
from engines.motion_window import WINDOW_HZ, MotionHistory

I64 = NDArray[np.int64]

_BEFORE_S = 1.0  # more than the window that a history is told of: what is further away cannot matter


def moment_rows(number: NDArray[np.int32], fps: float, rows: I64, past: int, ahead: int) -> I64:
    """(n, past + 1 + ahead): rows of the clip's frames `number` (T,), ascending, around each of `rows` (n,)."""
    if not past and not ahead:
        return rows[:, None]
    times = number.astype(np.float64) / fps
    motions = [Motion(time_s=float(t)) for t in times]
    row_of = {id(m): k for k, m in enumerate(motions)}
    out: list[list[int]] = []
    for row in rows.tolist():
        first, last = np.searchsorted(
            times, [times[row] - past / WINDOW_HZ - _BEFORE_S, times[row] + ahead / WINDOW_HZ + _BEFORE_S]
        )
        history = MotionHistory(past, ahead)
        for motion in motions[first:row]:
            history.window(motion)
        found = history.window(motions[row], motions[row + 1 : last])
        out.append([row_of[id(m)] for m in found.motions])
    return np.array(out, np.int64)
