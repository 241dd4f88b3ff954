"""`MicrophoneSource`: a microphone of this computer, heard as it speaks, surviving its being unplugged."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.errors import DriverError
from engines.speech.features import RATE_HZ
from streamer.clock import Clock, SystemClock
from streamer.drive.voice import Voice
from streamer.sources.blocks import Block, RingSource
from streamer.sources.heard import heard_info
from streamer.sources.portaudio import load_portaudio, portaudio_fix
from streamer.sources.source import SourceInfo, SourceState

F32 = NDArray[np.float32]

# Asked of the device. With less, PulseAudio stalls for up to two seconds when it starts.
LATENCY_S = 0.1
_SILENCE_NS = 2_000_000_000  # no block for this long counts as lost, although the driver says nothing
_LOOK_S = 0.1
_JOIN_S = 3.0


class Input(Protocol):
    """An open device: `active` until it is gone; `latency_s` is how long sound waits in it."""

    @property
    def name(self) -> str: ...

    @property
    def latency_s(self) -> float: ...

    @property
    def active(self) -> bool: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class InputConfig:
    """Which device: by `name` where it is known (numbers change when something is plugged in), else by `index`.

    Neither is the system's default. `anew`: look for devices again first.
    """

    index: int | None = None
    name: str | None = None
    anew: bool = False


# samples (S, C) float32, their rate in Hz, whether the device says that it lost some before them
OnBlock = Callable[[F32, float, bool], None]


class MicrophoneSource(RingSource):
    """A microphone whose sound is heard as it comes; `read` gives moments whose motion is known.

    The device's thread only leaves blocks in a ring, and opening it again is another thread's work: nothing
    waits for the device. Raises DriverError when it cannot be opened. Later, when it goes away or hangs for
    2 s, `state` is LOST and it is opened again every `retry_s` until it is back, with `pts_s` going on in
    real time. `overflows` counts the device's own losses, `dropped` blocks that nobody read in time.
    """

    def __init__(
        self,
        index: int | None = None,
        voice: Voice | None = None,
        *,
        open_device: Callable[[InputConfig, OnBlock], Input] | None = None,
        clock: Clock | None = None,
        retry_s: float = 1.0,
    ) -> None:
        clock = clock or SystemClock()
        super().__init__(voice or Voice(), clock)
        self._open_device = open_device or open_input
        self._retry_s = retry_s
        self._stop = threading.Event()
        self._config = InputConfig(index)
        self._opening = 0
        self._lost = False
        self._last_ns = clock.now_ns()
        self.overflows = 0
        device = self._open()
        # the default is asked for again by being the default, not by its name
        self._config = InputConfig(index, device.name if index is not None else None, anew=True)
        self._name = device.name
        self._latency_s = device.latency_s
        self._info = heard_info(f"microphone {device.name}", is_live=True)
        self._thread = threading.Thread(target=self._keep, args=(device,), name="microphone", daemon=True)
        self._thread.start()

    @property
    def info(self) -> SourceInfo:
        """Name and rate."""
        return self._info

    @property
    def state(self) -> SourceState:
        """LOST while the microphone is away or gives nothing."""
        if self._stop.is_set():
            return SourceState.ENDED
        return SourceState.LOST if self._lost else SourceState.READY

    @property
    def notices(self) -> tuple[str, ...]:
        """What to tell the user: the microphone is gone, muted, or too loud."""
        if self.state is SourceState.LOST:
            return (f"the microphone {self._name} is gone; plug it in again and it goes on by itself",)
        opposite = self._downmix.notice(f"the microphone {self._name}")
        return (*super().notices, *([opposite] if opposite else []))

    @property
    def capture_ms(self) -> float:
        """What the device says of itself."""
        return 1e3 * self._latency_s

    def close(self) -> None:
        """Let go of the microphone; a driver that hangs is left to its daemon thread after 3 s."""
        self._stop.set()
        self._ring.close()
        self._thread.join(_JOIN_S)

    @property
    def _mute_notice(self) -> str:
        return (
            f"the microphone {self._name} gives nothing but silence: unmute it, allow this program to hear it, "
            "or choose another with mic:N (`visavis devices` lists them)"
        )

    @property
    def _clipped_notice(self) -> str:
        return f"the microphone {self._name} is too loud and clips; turn its level down"

    def _arrived(self, opening: int, samples: F32, rate_hz: float, overflowed: bool) -> None:
        """In the device's thread."""
        if opening != self._opening:
            return  # the last words of a device that was given up
        self._last_ns = self._clock.now_ns()
        self._lost = False
        self.overflows += overflowed
        self._ring.put(Block(samples, rate_hz, self._last_ns, opening))

    def _open(self) -> Input:
        self._opening += 1
        device = self._open_device(self._config, partial(self._arrived, self._opening))
        self._last_ns = self._clock.now_ns()
        return device

    def _keep(self, device: Input | None) -> None:
        """Watch the device and open it again; all that may take its time is here."""
        try:
            while not self._stop.is_set():
                if (
                    device is not None
                    and device.active
                    and self._clock.now_ns() - self._last_ns < _SILENCE_NS
                ):
                    self._stop.wait(_LOOK_S)
                    continue
                self._opening += 1  # what the old one still says no longer counts
                self._lost = True
                if device is not None:
                    device.close()
                    device = None
                if self._stop.wait(self._retry_s):
                    return
                try:
                    device = self._open()
                except DriverError:
                    continue
        finally:
            if device is not None:
                device.close()


def open_input(config: InputConfig, on_block: OnBlock) -> Input:
    """The real microphone, started: at 16 kHz where it can, else at its own rate.

    Raises DriverError naming the fix: PortAudio is missing, there is no such microphone, or it is refused.
    """
    try:
        sound = load_portaudio()
    except (ImportError, OSError) as error:  # it loads PortAudio, a system library, when it is imported
        raise DriverError(f"microphones cannot be reached ({error}); {portaudio_fix()}") from error
    try:
        if config.anew:  # PortAudio lists devices once, when it starts
            sound._terminate()
            sound._initialize()
        facts = _find(sound, config)
        channels = min(2, int(facts["max_input_channels"]))
        rate_hz = _rate(sound, facts, channels)
        return _PortAudioInput(sound, facts, channels, rate_hz, on_block)
    except (sound.PortAudioError, ValueError) as error:
        which = "no microphone" if config.index is None else f"no microphone {config.index}"
        raise DriverError(
            f"{which} can be opened ({' '.join(str(error).split())}); `visavis devices` lists them: choose one "
            "with mic:N, plug one in, or drive with a sound file"
        ) from error


def _find(sound: Any, config: InputConfig) -> dict[str, Any]:
    """What PortAudio says of the device; raises ValueError when it is not there."""
    if config.name is not None:
        named = (d for d in sound.query_devices() if d["name"] == config.name)
        facts = next((d for d in named if d["max_input_channels"] > 0), None)
    elif config.index is not None:
        devices = list(sound.query_devices())
        facts = devices[config.index] if config.index < len(devices) else None
    else:
        facts = sound.query_devices(kind="input")
    if facts is None or int(facts["max_input_channels"]) < 1:
        raise ValueError("it is not there" if config.name else "it has no input")
    return dict(facts)


def _rate(sound: Any, facts: dict[str, Any], channels: int) -> float:
    try:
        sound.check_input_settings(facts["index"], channels, "float32", samplerate=RATE_HZ)
    except sound.PortAudioError:
        return float(facts["default_samplerate"])
    return float(RATE_HZ)


class _PortAudioInput:
    """A started `sounddevice.InputStream`."""

    def __init__(
        self, sound: Any, facts: dict[str, Any], channels: int, rate_hz: float, on_block: OnBlock
    ) -> None:
        def callback(samples: F32, _count: int, _times: Any, status: Any) -> None:
            on_block(samples.copy(), rate_hz, bool(status.input_overflow))

        self.name = str(facts["name"])
        self._stream: Any = sound.InputStream(
            samplerate=rate_hz, device=facts["index"], channels=channels, dtype="float32", latency=LATENCY_S,
            callback=callback,
        )  # fmt: skip
        self._errors: type[Exception] = sound.PortAudioError
        try:
            self._stream.start()
        except sound.PortAudioError:
            self.close()
            raise

    @property
    def latency_s(self) -> float:
        return float(self._stream.latency)

    @property
    def active(self) -> bool:
        try:
            return bool(self._stream.active)
        except self._errors:
            return False

    def close(self) -> None:
        # not `stop`: it waits for a device that may be gone
        self._stream.close(ignore_errors=True)
