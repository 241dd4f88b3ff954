"""Opus by libopus itself: libavcodec passes on neither its loss concealment nor in-band FEC that can be adjusted."""

from __future__ import annotations

import ctypes
import weakref
from functools import cache

import numpy as np
from numpy.typing import NDArray

from engines.errors import VisavisError
from streamer.webrtc.shared_library import declared

I16 = NDArray[np.int16]

RATE_HZ = 48_000
STEP = RATE_HZ // 400  # samples of 2.5 ms, the shortest frame: what is concealed is a multiple of it
MOST_SAMPLES = RATE_HZ * 120 // 1000  # of one packet (RFC 6716 § 2.1.4)
MOST_BYTES = 1275  # of one frame (RFC 6716 § 3.4)
_VOIP = 2048  # OPUS_APPLICATION_VOIP
_SET_BITRATE, _SET_INBAND_FEC, _SET_LOSS_PERCENT = 4002, 4012, 4014  # opus_defines.h: OPUS_SET_…_REQUEST
_INT, _POINTER = ctypes.c_int, ctypes.c_void_p


class OpusError(VisavisError):
    """What libopus refuses."""


@cache
def _library() -> ctypes.CDLL | None:
    int32 = ctypes.c_int32
    return declared(
        "opus",
        {
            "opus_decoder_create": (_POINTER, [int32, _INT, _POINTER]),
            "opus_decoder_destroy": (None, [_POINTER]),
            "opus_decode": (_INT, [_POINTER, ctypes.c_char_p, int32, _POINTER, _INT, _INT]),
            "opus_encoder_create": (_POINTER, [int32, _INT, _INT, _POINTER]),
            "opus_encoder_destroy": (None, [_POINTER]),
            "opus_encode": (int32, [_POINTER, _POINTER, _INT, _POINTER, int32]),
            "opus_encoder_ctl": (_INT, [_POINTER, _INT]),  # variadic
            "opus_strerror": (ctypes.c_char_p, [_INT]),
        },
    )


def has_libopus() -> bool:
    """Whether the classes below can be made."""
    return _library() is not None


def has_fec(data: bytes) -> bool:
    """Whether a packet repeats the frame before it (LBRR, RFC 6716 § 4.2.4): only those of SILK or both layers can."""
    if len(data) < 2 or data[0] >> 3 >= 16:  # CELT alone
        return False
    config, stereo, code = data[0] >> 3, data[0] >> 2 & 1, data[0] & 3
    frames = max(1, (10, 20, 40, 60)[config & 3] // 20) if config < 12 else 1  # of SILK in one of Opus
    at = {0: 1, 1: 1, 2: 2 if data[1] < 252 else 3}.get(code)
    if at is None or len(data) <= at:  # of many frames, as no browser sends them
        return False
    flags = data[at]
    middle = flags >> (7 - frames) & 1
    return bool(middle or (stereo and flags >> (6 - 2 * frames) & 1))


def _made(library: ctypes.CDLL, name: str, *arguments: int) -> int:
    error = _INT(0)
    pointer = getattr(library, f"opus_{name}_create")(*arguments, ctypes.byref(error))
    if not pointer:
        raise OpusError(f"libopus makes no {name} ({_said(library, error.value)})")
    return pointer


def _said(library: ctypes.CDLL, error: int) -> str:
    return library.opus_strerror(error).decode()


class OpusDecoder:
    """(S, channels) int16 of 48 kHz. Not for several threads at once."""

    def __init__(self, channels: int = 2) -> None:
        """Raises OpusError where there is no libopus."""
        library = _library()
        if library is None:
            raise OpusError("there is no libopus; install PyAV from its wheel")
        self._library = library
        self._pointer = _made(library, "decoder", RATE_HZ, channels)
        weakref.finalize(self, library.opus_decoder_destroy, self._pointer)
        self._room = np.empty((MOST_SAMPLES, channels), np.int16)

    def decode(self, data: bytes) -> I16:
        """A packet. Raises OpusError for one that is none."""
        return self._decoded(data, MOST_SAMPLES, 0)

    def missing(self, count: int, following: bytes | None = None) -> I16:
        """(count, channels): what was lost before the packet `following`, which comes next.

        Its FEC where it has some (RFC 6716 § 2.1.7), which is the last of it; the rest is concealed, softer the longer
        it lasts. `count`: a multiple of `STEP`, at most `MOST_SAMPLES`. Raises OpusError.
        """
        return self._decoded(following, count, 0 if following is None else 1)

    def _decoded(self, data: bytes | None, count: int, fec: int) -> I16:
        size = 0 if data is None else len(data)
        got = self._library.opus_decode(self._pointer, data, size, self._room.ctypes.data, count, fec)
        if got < 0:
            raise OpusError(f"libopus: {_said(self._library, got)}")
        return self._room[:got].copy()


class OpusEncoder:
    """Of 48 kHz int16, for voices, with FEC as much as `expected_loss` asks for. Not for several threads at once."""

    def __init__(self, channels: int, bitrate: int) -> None:
        """Raises OpusError where there is no libopus."""
        library = _library()
        if library is None:
            raise OpusError("there is no libopus; install PyAV from its wheel")
        self._library = library
        self._pointer = _made(library, "encoder", RATE_HZ, channels, _VOIP)
        weakref.finalize(self, library.opus_encoder_destroy, self._pointer)
        self._set(_SET_BITRATE, bitrate)
        self._set(_SET_INBAND_FEC, 1)
        self._out = ctypes.create_string_buffer(MOST_BYTES)
        self._loss_percent = 0

    def expect(self, loss_percent: int) -> None:
        """How much of what is sent will be lost: with the next packet, and without a seam."""
        if loss_percent != self._loss_percent:
            self._set(_SET_LOSS_PERCENT, loss_percent)
            self._loss_percent = loss_percent

    def encode(self, samples: I16) -> bytes:
        """A packet of (S, channels), S of one of Opus' lengths. Raises OpusError."""
        whole = np.ascontiguousarray(samples, np.int16)
        got = self._library.opus_encode(self._pointer, whole.ctypes.data, len(whole), self._out, MOST_BYTES)
        if got < 0:
            raise OpusError(f"libopus: {_said(self._library, got)}")
        return self._out.raw[:got]

    def _set(self, request: int, value: int) -> None:
        got = self._library.opus_encoder_ctl(self._pointer, request, ctypes.c_int32(value))
        if got < 0:
            raise OpusError(f"libopus: {_said(self._library, got)}")
