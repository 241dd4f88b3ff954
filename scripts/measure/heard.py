"""`Heard`: what comes out of a sound card that is none: a PulseAudio server of our own, its sink recorded with times.

Only so is known when a program is heard. What a page can tap of its own sound (Web Audio) comes 24 to 38 ms later than
the same sound at the sink.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import VisavisError

F64 = NDArray[np.float64]

RATE_HZ = 48_000
LOUD = 1000  # of 32767
QUIET_S = 0.1  # so long before a beep begins
_NEAR = 2000  # pieces either side that the earliest is looked for in: some ten seconds
_STARTS_WITHIN_S = 10.0


def onsets(samples: NDArray[np.int16]) -> NDArray[np.intp]:
    """Indices at which sound begins after a silence."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > LOUD)
    if not len(loud):
        return loud
    return loud[np.r_[True, np.diff(loud) > QUIET_S * RATE_HZ]]


def sample_times_s(at: NDArray[np.intp], ends: Sequence[int], came_s: Sequence[float]) -> F64:
    """When samples `at` were played: pieces that end at `ends` came at `came_s`, late at will but never early."""
    begins_s = np.asarray(came_s, np.float64) - np.asarray(ends, np.float64) / RATE_HZ
    found: list[float] = []
    for index in at:
        piece = int(np.searchsorted(ends, index))
        near = begins_s[max(0, piece - _NEAR) : piece + _NEAR]
        found.append(float(near.min()) + float(index) / RATE_HZ)
    return np.array(found, np.float64)


class Heard:
    """A sound server with one sink, from `with` to its end; `environment` is what a program plays into it by."""

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self._pieces: list[NDArray[np.int16]] = []
        self._ends: list[int] = []
        self._came_s: list[float] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._folder: Path | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Heard:
        """Raises VisavisError where there is no PulseAudio."""
        if missing := [name for name in ("pulseaudio", "pactl", "parec") if shutil.which(name) is None]:
            raise VisavisError(
                f"{', '.join(missing)} missing: what is heard cannot be recorded; apt-get install pulseaudio "
                "pulseaudio-utils"
            )
        self._folder = Path(tempfile.mkdtemp(prefix="visavis-heard-"))
        socket = self._folder / "native"
        self.environment = {
            "XDG_RUNTIME_DIR": str(self._folder), "PULSE_RUNTIME_PATH": str(self._folder),
            "PULSE_SERVER": f"unix:{socket}",
        }  # fmt: skip
        self._start(
            "pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no",
            f"--log-target=file:{self._folder / 'log'}",
            "-L", f"module-native-protocol-unix socket={socket} auth-anonymous=1",
            "-L", f"module-null-sink sink_name=heard rate={RATE_HZ} channels=2",
        )  # fmt: skip
        try:
            self._wait_for_sink()
            recorder = self._start(
                "parec", "--format=s16le", f"--rate={RATE_HZ}", "--channels=1", "--latency-msec=4", "-d",
                "heard.monitor", output=subprocess.PIPE,
            )  # fmt: skip
        except BaseException:
            self.__exit__()
            raise
        assert recorder.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(recorder.stdout.fileno(),), daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(10)
        if self._reader is not None:
            self._reader.join(10)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def beeps_s(self) -> F64:
        """When sounds began so far, in seconds since the Unix epoch."""
        count = len(self._ends)  # the reader goes on
        if not count:
            return np.zeros(0)
        samples = np.concatenate(self._pieces[:count])
        return sample_times_s(onsets(samples), self._ends[:count], self._came_s[:count])

    def _start(self, *told: str, output: Any = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            told, stdout=output, stderr=subprocess.DEVNULL, env=os.environ | self.environment
        )
        self._processes.append(process)
        return process

    def _wait_for_sink(self) -> None:
        until_s = time.monotonic() + _STARTS_WITHIN_S
        ask = ["pactl", "set-default-sink", "heard"]
        while subprocess.run(ask, env=os.environ | self.environment, capture_output=True).returncode:
            if time.monotonic() > until_s:
                raise VisavisError(
                    "PulseAudio does not start; run `pulseaudio -n` by hand and see what it says"
                )
            time.sleep(0.1)

    def _read(self, descriptor: int) -> None:
        end, rest = 0, b""
        while data := os.read(descriptor, 1 << 16):
            now_s = time.time()
            data = rest + data
            whole = len(data) // 2 * 2
            rest = data[whole:]
            piece = np.frombuffer(data[:whole], np.int16)
            end += len(piece)
            self._pieces.append(piece)
            self._came_s.append(now_s)
            self._ends.append(end)  # last: who reads meanwhile counts these
