"""`Dialect`: the contract of who tells motion, datagrams in, `Reading`s out; and what all of them check."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.motion import ARKIT_NAMES, EXPRESSION_COUNT, Motion

F32 = NDArray[np.float32]

MOST_DEG = 360.0  # no head turns further, however its angles are counted


class BadDatagram(Exception):
    """A datagram is not what its sender should send; the message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one datagram told: `motion` (None: the sender sees no face), and when by the sender's clock, if it says so.

    The motion is absolute, in the camera axes of `Motion`, its `time_s` and `closure` not yet known.
    """

    motion: Motion | None
    sent_s: float | None = None


class Dialect(ABC):
    """One protocol. May remember what it was told; one for each sender, used by one thread."""

    # bytes of the largest datagram that its senders send, generously; larger ones are bad
    most_bytes: int
    # whether what is told is as measured, and to be smoothed here
    is_raw: bool
    fps: float = 60.0

    @abstractmethod
    def take(self, datagram: bytes) -> Reading | None:
        """What `datagram` tells; None for a part of something that is not complete. Raises BadDatagram."""

    def request(self, port: int) -> bytes | None:
        """What asks a phone to send to our `port`; None where nobody has to be asked."""
        return None


_KEY = re.compile(r"[^a-z0-9]")


def _key(name: str) -> str:
    return _KEY.sub("", name.lower())


# a shape by what programs call it: eyeBlinkLeft, EyeBlinkLeft, eyeBlink_L, EYEBLINKLEFT; jawLeft, jaw_L
_SHAPES = {_key(name): k for k, name in enumerate(ARKIT_NAMES)} | {
    _key(name.removesuffix("Left").removesuffix("Right")) + ("l" if name.endswith("Left") else "r"): k
    for k, name in enumerate(ARKIT_NAMES)
    if name.endswith(("Left", "Right"))
}


def shape_of(name: str) -> int | None:
    """Which of `ARKIT_NAMES` a sender means; None for one that there is not."""
    return _SHAPES.get(_key(name[:40]))


def expression_of(shapes: Iterable[tuple[int, float]]) -> F32:
    """(52,) coefficients in 0 … 1 of numbered shapes; those that were not told are 0."""
    expression = np.zeros(EXPRESSION_COUNT, np.float32)
    for k, value in shapes:
        expression[k] = min(max(value, 0.0), 1.0)
    return expression


def number(value: object, most: float = 1e6) -> float:
    """A finite number as JSON has it, no larger than `most` either way; raises BadDatagram."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadDatagram("what should be a number is none")
    if not -most <= value <= most:  # NaN too
        raise BadDatagram("a number is not finite, or far too large")
    return float(value)


def numbers_in(text: str, count: int, most: float) -> list[float]:
    """`count` numbers with commas between them; raises BadDatagram."""
    parts = text.split(",", count)
    if len(parts) != count:
        raise BadDatagram("a wrong count of numbers")
    return [number_in(part, most) for part in parts]


def number_in(text: str, most: float = 1e6) -> float:
    """The number that a short text is; raises BadDatagram."""
    if len(text) > 40:
        raise BadDatagram("a number of too many digits")
    try:
        value = float(text)
    except ValueError as error:
        raise BadDatagram("what should be a number is none") from error
    return number(value if math.isfinite(value) else math.inf, most)
