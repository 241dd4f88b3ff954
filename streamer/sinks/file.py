"""`FileSink`: an H.264 MP4, or a film with alpha; exact frame times, the driver's audio, whole or not at all."""

from __future__ import annotations

import errno
import shutil
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import cast

import numpy as np
from numpy.typing import NDArray

from engines.errors import SinkError
from engines.files import WholeFile, require_writable
from streamer.frame import Frame
from streamer.pyav import ColorRange, Colorspace, av
from streamer.sinks.sink import Sink, SinkInfo, fit_picture
from streamer.sinks.soundtrack import MP4_SOUND, WEBM_SOUND, SoundFormat, Soundtrack, open_soundtrack

U8 = NDArray[np.uint8]

_TICKS_HZ = 90000  # 24, 25, 30, 60 fps and their /1.001 kin are whole numbers of ticks
_BT709 = 1
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class _Format:
    """What a file ending stands for: FFmpeg's names, options of container and encoder, and which sound it takes."""

    container: str
    codec: str
    pixels: str
    options: Mapping[str, str]
    sound: SoundFormat
    container_options: Mapping[str, str] = field(default_factory=dict[str, str])


# Without B-frames decoding order is display order, which keeps the length of uneven timing exact.
_H264 = _Format(
    "mp4", "libx264", "yuv420p", {"preset": "veryfast", "bf": "0"}, MP4_SOUND, {"movflags": "+faststart"}
)
_OPAQUE = {".mp4": _H264, ".m4v": _H264}
_VP9_OPTIONS = {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "5", "auto-alt-ref": "0"}
_WITH_ALPHA = {
    ".mov": _Format("mov", "prores_ks", "yuva444p10le", {"profile": "4444"}, MP4_SOUND),
    ".webm": _Format("webm", "libvpx-vp9", "yuva420p", _VP9_OPTIONS, WEBM_SOUND),
}


def _format_of(path: Path, alpha: bool) -> _Format:
    """Raises SinkError naming the endings that work."""
    suffix = path.suffix.lower()
    if alpha and suffix in _WITH_ALPHA:
        return _WITH_ALPHA[suffix]
    if alpha:
        raise SinkError(
            f"{path} cannot be transparent; name a file that ends in .mov (ProRes 4444, for editors) or "
            ".webm (VP9, for browsers and OBS)"
        )
    if suffix not in _OPAQUE:
        raise SinkError(f"{path} is no output visavis knows; name a file that ends in .mp4")
    return _OPAQUE[suffix]


class FileSink(Sink):
    """Writes `path`: libx264 (yuv420p, BT.709), each frame shown at its own `pts_s`, playable while loading.

    With `alpha`, frames are (H, W, 4) with straight colours, and `path` is a .mov (ProRes 4444) or .webm (VP9).

    With `audio_from`, frame times are that file's media times and its audio comes along in sync (or
    `audio_delay_s` later), trimmed to the video: AAC, MP3, AC-3 and Opus are copied, others become AAC.
    Without, time starts at the first frame. A frame no later than the one before is moved to just behind it;
    odd sizes are padded by their edge to even ones. The last frame lasts `1 / fps`.

    Everything goes into a hidden file beside `path`, which takes the name at `close` (any old file stays
    until then). A failure, Ctrl-C, SIGTERM or a full disk removes it and leaves `path` as it was. For
    that, while open in the main thread, SIGTERM and SIGHUP raise SystemExit unless the program has its
    own handlers.
    """

    def __init__(
        self,
        path: Path,
        *,
        audio_from: Path | None = None,
        audio_delay_s: float = 0.0,
        crf: int = 18,
        alpha: bool = False,
    ) -> None:
        """Raises SinkError when `path` cannot be written, before any work is done; `crf` is x264's."""
        self._format = _format_of(path, alpha)
        self._layout = "rgba" if alpha else "rgb24"
        require_writable(path, "-o", "out.mp4")
        if audio_from is not None and path.exists() and audio_from.exists() and path.samefile(audio_from):
            raise SinkError(f"{path} is the driving video itself; choose another name with -o")
        self._path = path
        self._audio_from = audio_from
        self._audio_delay_s = audio_delay_s
        self._crf = crf
        self._file: WholeFile | None = None
        self._container: av.container.OutputContainer | None = None
        self._soundtrack: Soundtrack | None = None
        self._info = SinkInfo(2, 2, 1.0)
        self._first_s: float | None = None
        self._last_tick = -1
        self._termination = _Termination()
        self._lock = threading.RLock()

    @property
    def path(self) -> Path:
        """The final name."""
        return self._path

    def open(self, info: SinkInfo) -> None:
        """Start the hidden file; raises SinkError (folder not writable) or DriverError (`audio_from`)."""
        with self._lock:
            if self._container is not None:
                raise SinkError(f"{self._path} is being written already; open a sink once")
            try:
                self._open(info)
            except BaseException as error:
                self.abort()
                self._explain(error)
                raise

    def write(self, frame: Frame) -> None:
        """Encode one frame; raises SinkError (disk full, not open), after which nothing is kept."""
        with self._lock:
            if self._container is None:
                raise SinkError(f"{self._path} is not open for writing; call open() first")
            try:
                self._write(frame)
            except BaseException as error:
                self.abort()
                self._explain(error)
                raise

    def close(self) -> None:
        """Finish the file and give it its name; raises SinkError when that fails or no frame was written."""
        with self._lock:
            if self._container is None or self._file is None:
                return
            try:
                if self._first_s is None:
                    raise SinkError(f"no frame was written, so {self._path} was not made; check the driver")
                for packet in self._stream.encode(None):
                    self._mux(packet)
                if self._soundtrack is not None:
                    self._soundtrack.finish(self._last_tick / _TICKS_HZ + 1 / self._info.fps)
                self._container.close()
                self._file.keep()
                self._file = None
            except BaseException as error:
                self.abort()
                self._explain(error)
                raise
            self._release()

    def abort(self) -> None:
        """Remove the hidden file; `path` stays as it was."""
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                file.drop()  # before it is closed, so that closing does not spend time on the file's index
            if self._container is not None:
                with suppress(av.error.FFmpegError, OSError, ValueError):
                    self._container.close()
            if file is not None:
                file.drop()
            self._release()

    def _open(self, info: SinkInfo) -> None:
        self._termination.guard()
        self._info = info
        self._first_s = None
        self._last_tick = -1
        self._file = WholeFile(self._path)
        # `file:` keeps FFmpeg from reading a colon in the name as a protocol.
        kind = self._format
        self._container = av.open(
            f"file:{self._file.part}", "w", format=kind.container, options=dict(kind.container_options)
        )
        rate = Fraction(info.fps).limit_denominator(1001)
        stream = cast(av.VideoStream, self._container.add_stream(kind.codec, rate=rate))
        stream.width = info.width_px + info.width_px % 2
        stream.height = info.height_px + info.height_px % 2
        stream.pix_fmt = kind.pixels
        stream.time_base = Fraction(1, _TICKS_HZ)
        context = stream.codec_context
        context.time_base = Fraction(1, _TICKS_HZ)
        context.options = dict(kind.options) | ({"crf": str(self._crf)} if kind is _H264 else {})
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
        self._stream = stream
        if self._audio_from is not None:
            self._soundtrack = open_soundtrack(
                self._audio_from, self._container, kind.sound, self._audio_delay_s
            )

    def _write(self, frame: Frame) -> None:
        if self._first_s is None:
            self._first_s = 0.0 if self._audio_from is not None else frame.pts_s
        image = pad_to_even(fit_picture(frame.image, self._info.width_px, self._info.height_px))
        picture = av.VideoFrame.from_ndarray(image, self._layout).reformat(
            format=self._format.pixels, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        tick = max(round((frame.pts_s - self._first_s) * _TICKS_HZ), self._last_tick + 1)
        self._last_tick = tick
        picture.pts = tick
        picture.time_base = Fraction(1, _TICKS_HZ)
        for packet in self._stream.encode(picture):
            self._mux(packet)
        if self._soundtrack is not None:
            self._soundtrack.pump(tick / _TICKS_HZ)

    def _mux(self, packet: av.Packet[av.VideoStream]) -> None:
        # The muxer takes every sample's length from its successor and the last one's from here.
        packet.duration = round(_TICKS_HZ / self._info.fps)
        assert self._container is not None
        self._container.mux(packet)

    def _release(self) -> None:
        self._container = None
        if self._soundtrack is not None:
            self._soundtrack.close()
            self._soundtrack = None
        self._termination.release()

    def _explain(self, error: BaseException) -> None:
        """Raise `error` as a SinkError when it is about the disk."""
        if not isinstance(error, OSError | av.error.FFmpegError):
            return
        if error.errno in _FULL_DISK:
            raise SinkError(
                f"disk full while writing {self._path}: free {self._missing_mb()} MB there or choose another "
                "folder with -o; nothing was kept"
            ) from error
        raise SinkError(
            f"cannot write {self._path} ({error.strerror}); choose another file with -o"
        ) from error

    def _missing_mb(self) -> int:
        """A guess at how much more room the whole file would have needed, in MB."""
        with suppress(OSError):
            free_mb = shutil.disk_usage(self._path.parent).free / 1e6
            done_s = max(self._last_tick, 1) / _TICKS_HZ
            whole = 2.0 if self._info.duration_s is None else max(1.0, self._info.duration_s / done_s)
            return max(10, round(free_mb * (whole - 1) * 1.2))
        return 100


class _Termination:
    """While on guard, SIGTERM and SIGHUP end the program through its `with` blocks instead of at once."""

    def __init__(self) -> None:
        self._guarded: list[signal.Signals] = []

    def guard(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _exit)
                self._guarded.append(number)

    def release(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self._guarded:
            if signal.getsignal(number) is _exit:
                signal.signal(number, signal.SIG_DFL)
        self._guarded.clear()


def _exit(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def pad_to_even(image: U8) -> U8:
    """`image` (H, W, C) with its last row and column repeated where H or W is odd, as 4:2:0 video needs."""
    bottom, right = image.shape[0] % 2, image.shape[1] % 2
    return np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="edge") if bottom or right else image
