"""A virtual microphone on Linux: a null sink that we play into, and a source made of it that calls can choose.

Through libpulse, so PulseAudio and PipeWire (pipewire-pulse) alike. The source is made where there is none of the name,
and taken away at the end by whoever made it.
"""

from __future__ import annotations

import importlib
import re
from contextlib import suppress
from typing import Any

import numpy as np

from streamer.sound.devices import F32, PIECE, RATE_HZ, DeviceGone, SoundError

# of which half lies in the server; less, and a busy computer is heard
PLAYED_AHEAD_S = 0.030
HEARD_PIECE_S = 0.010
_BYTES = 4  # float32
_NO_SERVER = "start PulseAudio or PipeWire (`systemctl --user start pipewire-pulse`, or `pulseaudio --start`)"
_PACKAGES = "pip install 'visavis[virtualmic]'"


def slug_of(name: str) -> str:
    """The name as the server's own names are written. Raises SoundError for one without a letter or digit."""
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not slug or not name.isprintable() or len(name) > 60 or set(name) & set("\"'\\"):
        raise SoundError(
            f"{name!r:.80} cannot be a microphone's name; write letters, digits and spaces, such as 'visavis mic'"
        )
    return slug


class PulseMicrophone:
    """The virtual microphone `name`, once it is opened and until it is closed."""

    def __init__(self, name: str, server: str | None = None) -> None:
        self.name = name
        self._server = server
        self.sink = slug_of(name)
        self.source = f"{self.sink}_source"
        self._made: list[int] = []  # modules

    def open(self) -> None:
        """Make what of it is not there. Raises SoundError naming the fix."""
        pulsectl = _module("pulsectl")
        try:
            with pulsectl.Pulse("visavis", server=self._server) as pulse:
                self._make(pulse)
        except pulsectl.PulseError as error:
            raise SoundError(f"no virtual microphone can be made ({_told(error)}); {_NO_SERVER}") from error

    def _make(self, pulse: Any) -> None:
        # both kinds of quotes: PipeWire takes a backslash for itself, PulseAudio ends a property at a space
        if self.sink not in {sink.name for sink in pulse.sink_list()}:
            told = f"sink_properties='device.description=\"{self.name} (input)\"'"
            self._made.append(
                pulse.module_load(
                    "module-null-sink", f"sink_name={self.sink} rate={RATE_HZ} channels=1 {told}"
                )
            )
        if self.source not in {source.name for source in pulse.source_list()}:
            told = f"source_properties='device.description=\"{self.name}\"'"
            self._made.append(
                pulse.module_load(
                    "module-remap-source", f"master={self.sink}.monitor source_name={self.source} {told}"
                )
            )

    def close(self) -> None:
        """Take away what was made; a server that is gone has done so."""
        made, self._made = self._made, []
        if not made:
            return
        pulsectl = _module("pulsectl")
        with suppress(pulsectl.PulseError), pulsectl.Pulse("visavis", server=self._server) as pulse:
            for index in reversed(made):
                with suppress(pulsectl.PulseError):
                    pulse.module_unload(index)


class PulseOut:
    """Plays into a sink; what is written is heard `latency_s` later. Raises SoundError."""

    def __init__(self, sink: str, name: str, server: str | None = None) -> None:
        self.name = name
        pasimple = _module("pasimple")
        self._error: type[Exception] = pasimple.PaSimpleError
        try:
            self._stream: Any = pasimple.PaSimple(
                pasimple.PA_STREAM_PLAYBACK, pasimple.PA_SAMPLE_FLOAT32LE, 1, RATE_HZ, app_name="visavis",
                stream_name=name, server_name=server, device_name=sink, tlength=_bytes(PLAYED_AHEAD_S),
                minreq=PIECE * _BYTES, prebuf=PIECE * _BYTES,
            )  # fmt: skip
        except self._error as error:
            raise SoundError(f"nothing can be played into {sink} ({_told(error)}); {_NO_SERVER}") from error

    def latency_s(self) -> float:
        """As the server says."""
        try:
            return self._stream.get_latency() / 1e6
        except self._error as error:
            raise DeviceGone(f"the virtual microphone {self.name} is gone ({_told(error)})") from error

    def write(self, samples: F32) -> None:
        """(S,) samples."""
        try:
            self._stream.write(np.ascontiguousarray(samples, np.float32).tobytes())
        except self._error as error:
            raise DeviceGone(f"the virtual microphone {self.name} is gone ({_told(error)})") from error

    def close(self) -> None:
        """Stop playing."""
        self._stream.close()


class PulseIn:
    """The default microphone, or the source of that name. Raises SoundError."""

    def __init__(self, source: str | None = None, server: str | None = None) -> None:
        self.name = source or "the default microphone"
        pasimple = _module("pasimple")
        self._error: type[Exception] = pasimple.PaSimpleError
        try:
            self._stream: Any = pasimple.PaSimple(
                pasimple.PA_STREAM_RECORD, pasimple.PA_SAMPLE_FLOAT32LE, 1, RATE_HZ, app_name="visavis",
                stream_name="microphone", server_name=server, device_name=source, fragsize=_bytes(HEARD_PIECE_S),
            )  # fmt: skip
        except self._error as error:
            raise SoundError(
                f"{self.name} does not open ({_told(error)}); plug one in, or {_NO_SERVER}"
            ) from error

    def read(self) -> tuple[F32, float]:
        """10 ms, and how long ago they ended: what lies in the server after them."""
        try:
            raw: bytes = self._stream.read(PIECE * _BYTES)
            ago_s = self._stream.get_latency() / 1e6
        except self._error as error:
            raise DeviceGone(f"{self.name} is gone ({_told(error)})") from error
        return np.frombuffer(raw, np.float32).copy(), ago_s

    def close(self) -> None:
        """Let go of it."""
        self._stream.close()


def why_no_virtual_microphone() -> str | None:
    """ "reason; fix" where none can be made here; None where one can. Asks the server, makes nothing."""
    try:
        pulsectl = _module("pulsectl")
        _module("pasimple")
    except SoundError as error:
        return str(error)
    try:
        with pulsectl.Pulse("visavis") as pulse:
            pulse.server_info()
    except pulsectl.PulseError as error:
        return f"no sound server answers ({_told(error)}); {_NO_SERVER}"
    return None


def _bytes(seconds: float) -> int:
    return round(seconds * RATE_HZ) * _BYTES


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SoundError(f"a virtual microphone needs the package {name}; run `{_PACKAGES}`") from error
    except OSError as error:  # it loads libpulse when it is imported
        raise SoundError(f"libpulse is missing ({error}); run `sudo apt-get install -y libpulse0`") from error
