"""`Recorder`: what drove a call and when, in memory alone, while its page asks for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engines.geometry import rotation_matrix, rotation_vector
from engines.motion import Motion, blend, motion_header
from streamer.drive.driver import Drive
from streamer.latency.ledger import Ledger

F32 = NDArray[np.float32]

FPS = 30.0
MOST_S = 600.0
MOST_FRAMES = 60 * int(MOST_S)  # a camera of 60 pictures a second
MOST_LINES = 4 * MOST_FRAMES  # of the trace: drops and faults too
_SIZES = {"expression": 52, "rotation_rad": 3, "translation_hu": 3, "gaze_rad": 4, "closure": 3}


@dataclass(frozen=True, slots=True)
class _Row:
    """One driving motion, packed: ten minutes of `Motion` would be three times as large."""

    time_s: float
    packed: F32
    neutral: Motion


class Recorder:
    """Off until `begin`. It ends by itself after `MOST_S`; what it has stays until `forget`, or as long as the call."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._on = False
        self._rows: list[_Row] = []
        self._lines: list[bytes] = []

    @property
    def recording(self) -> bool:
        """Whether it takes down what comes."""
        return self._on

    @property
    def frames(self) -> int:
        """How many motions it has."""
        return len(self._rows)

    def begin(self) -> None:
        """Record from now on; what there was is forgotten."""
        self.forget()
        self._on = True
        self._note(self._ledger.trace_header())
        self._ledger.copy_to = self._note

    def stop(self) -> None:
        """Take down no more."""
        self._on = False
        self._ledger.copy_to = None

    def forget(self) -> None:
        """Stop, and let go of everything."""
        self.stop()
        with self._lock:
            self._rows, self._lines = [], []

    def driven(self, drive: Drive, time_s: float) -> None:
        """One picture was drawn of `drive`, at media time `time_s`; from the drawing thread."""
        if not self._on or not drive.motion.is_finite():
            return
        with self._lock:
            if not self._on or (self._rows and time_s <= self._rows[-1].time_s):
                return
            began_s = self._rows[0].time_s if self._rows else time_s
            full = time_s - began_s > MOST_S or len(self._rows) >= MOST_FRAMES
            if not full:
                before = self._rows[-1].neutral if self._rows else drive.neutral
                neutral = before if _same(before, drive.neutral) else drive.neutral
                self._rows.append(_Row(time_s, _packed(drive.motion), neutral))
        if full:
            self.stop()

    def _note(self, record: Mapping[str, object]) -> None:
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if self._on and len(self._lines) < MOST_LINES:
                self._lines.append(line)

    def motion_lines(self) -> Iterator[str]:
        """A motion file (`engines.motion`), line by line, at `FPS`; nothing where nothing was recorded.

        A neutral that was taken anew meanwhile is told in the whole file: each motion is as far from it as it was
        from its own.
        """
        with self._lock:
            rows = list(self._rows)
        if not rows:
            return
        neutral = rows[-1].neutral
        yield motion_header(FPS, neutral) + "\n"
        begin_s, at = rows[0].time_s, 0
        for index in range(int((rows[-1].time_s - begin_s) * FPS + 1e-6) + 1):
            time_s = index / FPS
            while at + 1 < len(rows) - 1 and rows[at + 1].time_s - begin_s <= time_s:
                at += 1
            one, other = rows[at], rows[min(at + 1, len(rows) - 1)]
            between_s = other.time_s - one.time_s
            weight = (begin_s + time_s - one.time_s) / between_s if between_s > 0 else 0.0
            motion = blend(_told(one, neutral), _told(other, neutral), weight)
            yield replace(motion, time_s=time_s).to_json() + "\n"

    def trace_lines(self) -> Iterator[bytes]:
        """A latency trace (docs/latency.md), line by line."""
        with self._lock:
            lines = list(self._lines)
        yield from lines


def _packed(motion: Motion) -> F32:
    parts = [getattr(motion, name).ravel() for name in _SIZES]
    return np.concatenate([*parts, np.array([motion.confidence], np.float32)])


def _same(one: Motion, other: Motion) -> bool:
    return one is other or all(np.array_equal(getattr(one, name), getattr(other, name)) for name in _SIZES)


def _told(row: _Row, neutral: Motion) -> Motion:
    """The row's motion, as a driver with that `neutral` would have made it."""
    ends = np.cumsum(list(_SIZES.values()))
    expression, rotation, translation, gaze, closure, rest = np.split(row.packed, ends)
    motion = Motion(
        row.time_s, expression, rotation, translation, gaze.reshape(2, 2), float(rest[0]), closure
    )
    return motion if row.neutral is neutral else rebased(motion, row.neutral, neutral)


def rebased(motion: Motion, old: Motion, new: Motion) -> Motion:
    """The motion that is as far from `new` as `motion` is from `old`, as `engines.retarget` measures it.

    How closed lips and lids are counts as it is.
    """
    turn = rotation_matrix(motion.rotation_rad) @ rotation_matrix(old.rotation_rad).T
    distance = new.translation_hu[2] * max(motion.translation_hu[2], 1e-3) / max(old.translation_hu[2], 1e-3)
    shift = motion.translation_hu[:2] - old.translation_hu[:2]
    return replace(
        motion,
        expression=motion.expression - old.expression + new.expression,
        rotation_rad=rotation_vector(turn @ rotation_matrix(new.rotation_rad)).astype(np.float32),
        translation_hu=np.array([*(new.translation_hu[:2] + shift), distance], np.float32),
        gaze_rad=motion.gaze_rad - old.gaze_rad + new.gaze_rad,
    )
