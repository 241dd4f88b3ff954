"""`SoundIn` and `SoundOut`: a microphone and where sound goes, mono float32 at 48 kHz, for `VirtualMicrophone`.

Both block, each in a thread of its own, and raise DeviceGone when a device is unplugged or its server goes away.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engines.errors import VisavisError

F32 = NDArray[np.float32]

RATE_HZ = 48_000
PIECE = 480  # samples read or written at once: 10 ms


class SoundError(VisavisError):
    """Sound cannot go where it was asked to; says what to do."""


class DeviceGone(SoundError):
    """A device that was open is not there any more; it may come back."""


class SoundIn(Protocol):
    """An open microphone."""

    @property
    def name(self) -> str: ...

    def read(self) -> tuple[F32, float]:
        """(S,) samples as they come, and how many seconds ago the last of them was spoken. Raises DeviceGone."""
        ...

    def close(self) -> None: ...


class SoundOut(Protocol):
    """An open device that others hear."""

    @property
    def name(self) -> str: ...

    def latency_s(self) -> float:
        """In how many seconds what is written next will be heard. Raises DeviceGone."""
        ...

    def write(self, samples: F32) -> None:
        """(S,) samples, waiting until there is room for them. Raises DeviceGone."""
        ...

    def close(self) -> None: ...
