"""A microphone and an output device by PortAudio, where there is no libpulse: a virtual cable on Windows and macOS."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from streamer.sound.devices import F32, PIECE, RATE_HZ, DeviceGone, SoundError
from streamer.sources.portaudio import load_portaudio, portaudio_fix

_LATENCY_S = 0.03
CABLES = {  # per sys.platform: the free virtual cable, and what its two ends are called
    "win32": (
        "install VB-CABLE (vb-audio.com/Cable), start the computer again, give --mic-to 'CABLE Input' and choose "
        "'CABLE Output' as the microphone of the call"
    ),
    "darwin": "run `brew install blackhole-2ch`, give --mic-to 'BlackHole 2ch' and choose it as the call's microphone",
}


def cable_fix(platform: str = sys.platform) -> str:
    """What to install so that other programs have a microphone that we can play into."""
    return CABLES.get(platform, "virtual microphones work on Linux, Windows and macOS only")


def output_named(devices: list[dict[str, Any]], name: str) -> int | None:
    """The number of the output device whose name is, or begins with, `name`; case does not count."""
    wanted = name.casefold()
    outputs = [(k, str(d["name"]).casefold()) for k, d in enumerate(devices) if d["max_output_channels"] > 0]
    same = [k for k, other in outputs if other == wanted] or [
        k for k, other in outputs if other.startswith(wanted)
    ]
    return same[0] if same else None


class PortAudioOut:
    """Plays into the output device called `name`. Raises SoundError naming the fix."""

    def __init__(self, name: str) -> None:
        self.name = name
        sound = _portaudio()
        self._error: type[Exception] = sound.PortAudioError
        try:
            devices = [dict(d) for d in sound.query_devices()]
            index = output_named(devices, name)
            if index is None:
                raise SoundError(f"there is no output device {name!r}; {cable_fix()}")
            self._channels = min(2, int(devices[index]["max_output_channels"]))
            self._stream: Any = sound.OutputStream(
                samplerate=RATE_HZ, device=index, channels=self._channels, dtype="float32", latency=_LATENCY_S
            )
            self._stream.start()
        except self._error as error:
            raise SoundError(f"{name!r} does not open ({error}); {cable_fix()}") from error

    def latency_s(self) -> float:
        """What the device says of itself."""
        return float(self._stream.latency)

    def write(self, samples: F32) -> None:
        """(S,) samples, in each channel."""
        try:
            self._stream.write(
                np.ascontiguousarray(np.repeat(samples[:, None], self._channels, 1), np.float32)
            )
        except self._error as error:
            raise DeviceGone(f"{self.name} is gone ({error})") from error

    def close(self) -> None:
        """Stop playing."""
        self._stream.close(ignore_errors=True)


class PortAudioIn:
    """The default microphone. Raises SoundError."""

    def __init__(self) -> None:
        sound = _portaudio()
        self._error: type[Exception] = sound.PortAudioError
        self.name = "the default microphone"
        try:
            self._stream: Any = sound.InputStream(
                samplerate=RATE_HZ, channels=1, dtype="float32", latency=_LATENCY_S
            )
            self._stream.start()
        except self._error as error:
            raise SoundError(f"no microphone opens ({error}); plug one in") from error

    def read(self) -> tuple[F32, float]:
        """10 ms, and what the device says that they waited."""
        try:
            samples, _ = self._stream.read(PIECE)
            return np.asarray(samples, np.float32)[:, 0].copy(), float(self._stream.latency)
        except self._error as error:
            raise DeviceGone(f"{self.name} is gone ({error})") from error

    def close(self) -> None:
        """Let go of it."""
        self._stream.close(ignore_errors=True)


def _portaudio() -> Any:
    try:
        return load_portaudio()
    except (ImportError, OSError) as error:
        raise SoundError(f"sound devices cannot be reached ({error}); {portaudio_fix()}") from error
