"""`VirtualMicrophone`: what the microphone hears, in other programs, as late as the avatar's picture.

Two threads, of which neither waits for the other: one reads the microphone into a `SoundLine`, one takes out of it what
is to be heard next. A device that goes away is opened again every second, and meanwhile there is silence.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Self

from streamer.clock import Clock, SystemClock
from streamer.frame import LatencyTrace
from streamer.sound.devices import F32, PIECE, RATE_HZ, DeviceGone, SoundError, SoundIn, SoundOut
from streamer.sound.lag import Lag
from streamer.sound.line import SoundLine

RETRY_S = 1.0
LATE_NOTICE_S = 0.045  # what is later than this is seen to be (ITU-R BT.1359: 45 ms early, 125 ms late)
_JOIN_S = 2.0


class VirtualMicrophone:
    """Opens both devices at once; raises SoundError. Tell it of each picture that leaves by `sent`.

    `trim_s`: the sound later (> 0) or earlier by hand. `muted` silences it, at once.
    """

    def __init__(
        self,
        open_in: Callable[[], SoundIn],
        open_out: Callable[[], SoundOut],
        *,
        trim_s: float = 0.0,
        clock: Clock | None = None,
        retry_s: float = RETRY_S,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.muted = False
        self._clock = clock or SystemClock()
        self._open_in, self._open_out = open_in, open_out
        self._trim_s, self._retry_s, self._on_close = trim_s, retry_s, on_close
        self._lag = Lag()
        self._line = SoundLine(RATE_HZ)
        self._lock = threading.Lock()  # of the line; held for microseconds
        self._stop = threading.Event()
        self._gone: dict[str, str] = {}
        out = open_out()
        try:
            microphone = open_in()
        except BaseException:
            out.close()
            raise
        self.name = out.name
        self._threads = [
            threading.Thread(target=self._hear, args=(microphone,), name="microphone", daemon=True),
            threading.Thread(target=self._speak, args=(out,), name="virtual microphone", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def sent(self, trace: LatencyTrace) -> None:
        """A picture has left: sound is to wait as long as it took."""
        self._lag = self._lag.after(trace)

    @property
    def delay_s(self) -> float:
        """By how much what is spoken is to be heard later."""
        return max(0.0, (self._lag.seconds or 0.0) + self._trim_s)

    def skew_ms(self, trace: LatencyTrace) -> float | None:
        """How much later than its sound a picture that has left is seen (> 0), or sooner; None while a device is gone.

        A shift by hand is meant, and so is none of it.
        """
        captured_ns, sent_ns = trace.stamps_ns.get("captured"), trace.stamps_ns.get("sent")
        if captured_ns is None or sent_ns is None or self._gone:
            return None
        sound_s = self.delay_s + self.late_s - self._trim_s
        return (sent_ns - captured_ns) / 1e6 - 1000 * sound_s

    @property
    def late_s(self) -> float:
        """How much later than that it is heard, because the sound devices take longer than the picture."""
        return self._line.late_s

    @property
    def notices(self) -> tuple[str, ...]:
        """What to tell the user: a device is gone, or the sound cannot be as early as the picture."""
        if self.late_s <= LATE_NOTICE_S:
            return tuple(self._gone.values())
        late = f"the sound in {self.name} comes about {1000 * self.late_s:.0f} ms after the picture"
        return (*self._gone.values(), f"{late}: this computer's sound devices are slower than its picture")

    def close(self) -> None:
        """Let go of both devices; one that hangs is left to its daemon thread. Idempotent."""
        if self._stop.is_set():
            return
        self._stop.set()
        for thread in self._threads:
            thread.join(_JOIN_S)
        self._on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the two threads ------------------------------------------------------------------------------

    def _hear(self, first: SoundIn) -> None:
        device: SoundIn | None = first
        try:
            while not self._stop.is_set():
                try:
                    device = device or self._open_in()
                    samples, ago_s = device.read()
                    self._gone.pop("in", None)
                    self._heard(samples, ago_s)
                except SoundError as error:
                    device = self._lost("in", device, error)
        finally:
            if device is not None:
                device.close()

    def _speak(self, first: SoundOut) -> None:
        device: SoundOut | None = first
        try:
            while not self._stop.is_set():
                try:
                    device = device or self._open_out()
                    device.write(self._next(device.latency_s()))
                    self._gone.pop("out", None)
                except SoundError as error:
                    device = self._lost("out", device, error)
        finally:
            if device is not None:
                device.close()

    def _heard(self, samples: F32, ago_s: float) -> None:
        spoken_ns = self._clock.now_ns() - round(1e9 * (ago_s + len(samples) / RATE_HZ))
        with self._lock:
            self._line.put(samples, spoken_ns)

    def _next(self, latency_s: float) -> F32:
        heard_ns = self._clock.now_ns() + round(1e9 * latency_s)
        with self._lock:
            piece = self._line.take(PIECE, heard_ns, self.delay_s)
        return piece * 0 if self.muted else piece

    def _lost(self, which: str, device: SoundIn | SoundOut | None, error: SoundError) -> None:
        again = "; it goes on by itself once it is back" if isinstance(error, DeviceGone) else ""
        self._gone[which] = f"{error}{again}"
        if device is not None:
            device.close()
        self._stop.wait(self._retry_s)


def open_virtual_microphone(
    name: str, *, trim_s: float = 0.0, platform: str = sys.platform
) -> VirtualMicrophone:
    """The default microphone into the virtual one called `name`: made on Linux, a virtual cable's input elsewhere.

    Raises SoundError naming the fix.
    """
    if not platform.startswith("linux"):
        from streamer.sound.portaudio_pair import PortAudioIn, PortAudioOut

        return VirtualMicrophone(PortAudioIn, lambda: PortAudioOut(name), trim_s=trim_s)
    from streamer.sound.pulse import PulseIn, PulseMicrophone, PulseOut

    made = PulseMicrophone(name)

    def open_out() -> SoundOut:
        made.open()  # again where the server was started anew meanwhile
        return PulseOut(made.sink, name)

    try:
        return VirtualMicrophone(PulseIn, open_out, trim_s=trim_s, on_close=made.close)
    except BaseException:
        made.close()
        raise
