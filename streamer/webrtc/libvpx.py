"""VP8 by libvpx itself: its bitrate changes from one picture to the next.

libavcodec needs a new encoder for that, which begins with a key frame: many times a picture's bits, just when a path
carries less.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from functools import cache
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType

from engines.errors import VisavisError
from streamer.webrtc.shared_library import declared

logger = logging.getLogger(__name__)

CLOCK_HZ = 90_000
USUAL_TICKS = 3000  # how long a picture is shown, at 30 a second; libvpx measures the rest itself
CHANGE = 0.02  # share of the bitrate below which a change is none
_I420 = 0x102  # VPX_IMG_FMT_I420
_FORCE_KEY, _REALTIME, _CBR, _FRAME_PACKET, _ABI_MISMATCH = 1, 1, 1, 0, 3
_CPU_USED, _NOISE, _STATIC, _PARTITIONS = 13, 15, 17, 18  # VP8E_SET_…, vp8cx.h
_MOST_ABI = 100
_U32, _POINTER, _LONG, _ULONG = ctypes.c_uint, ctypes.c_void_p, ctypes.c_long, ctypes.c_ulong


class VpxError(VisavisError):
    """What libvpx refuses."""


class _Buffer(ctypes.Structure):
    _fields_ = (("data", _POINTER), ("bytes", ctypes.c_size_t))


class _Configuration(ctypes.Structure):
    """vpx_codec_enc_cfg_t as far as it is needed (vpx_encoder.h), and room for what newer versions have behind."""

    _fields_ = (
        *(
            (name, _U32)
            for name in ("usage", "threads", "profile", "width", "height", "depth", "input_depth")
        ),
        ("timebase_num", ctypes.c_int),
        ("timebase_den", ctypes.c_int),
        *((name, _U32) for name in ("resilient", "passes", "lag", "drop", "resize", "scaled_width")),
        *((name, _U32) for name in ("scaled_height", "resize_up", "resize_down", "rate_mode")),
        ("stats", _Buffer),
        ("mb_stats", _Buffer),
        *((name, _U32) for name in ("kbps", "least_q", "most_q", "undershoot", "overshoot")),
        *((name, _U32) for name in ("buffer_ms", "initial_ms", "optimal_ms")),
        *((name, _U32) for name in ("bias", "least_section", "most_section", "complexity")),
        *((name, _U32) for name in ("key_mode", "least_key_distance", "most_key_distance")),
        ("rest", ctypes.c_char * 4096),
    )

    @property
    def is_known(self) -> bool:
        """Whether libvpx's own defaults stand where they are looked for."""
        c: Any = self
        told = (c.width, c.height, c.timebase_num, c.timebase_den, c.kbps, c.most_q, c.most_key_distance)
        return told == (320, 240, 1, 30, 256, 63, 128)


class _Packet(ctypes.Structure):
    """vpx_codec_cx_pkt_t of a picture, up to its size."""

    _fields_ = (("kind", ctypes.c_int), ("data", _POINTER), ("bytes", ctypes.c_size_t))


@cache
def _library() -> ctypes.CDLL | None:
    codec, int_ = _POINTER, ctypes.c_int
    configuration = ctypes.POINTER(_Configuration)
    encode = [codec, _POINTER, ctypes.c_int64, _ULONG, _LONG, _ULONG]
    wrap = [_POINTER, int_, _U32, _U32, _U32, _POINTER]
    return declared(
        "vpx",
        {
            "vpx_codec_vp8_cx": (_POINTER, []),
            "vpx_codec_enc_config_default": (int_, [_POINTER, configuration, _U32]),
            "vpx_codec_enc_init_ver": (int_, [codec, _POINTER, configuration, _LONG, int_]),
            "vpx_codec_enc_config_set": (int_, [codec, configuration]),
            "vpx_codec_encode": (int_, encode),
            "vpx_codec_get_cx_data": (ctypes.POINTER(_Packet), [codec, _POINTER]),
            "vpx_codec_control_": (int_, [codec, int_]),  # variadic
            "vpx_codec_destroy": (int_, [codec]),
            "vpx_img_wrap": (_POINTER, wrap),
            "vpx_img_free": (None, [_POINTER]),
        },
    )


def _default(library: ctypes.CDLL) -> _Configuration | None:
    configuration = _Configuration()
    failed = library.vpx_codec_enc_config_default(library.vpx_codec_vp8_cx(), configuration, 0)
    return configuration if not failed and configuration.is_known else None


@cache
def has_libvpx() -> bool:
    """Whether `Vp8Codec` can be made: a libvpx is there, and its structures are those known here."""
    library = _library()
    if library is None:
        return False
    try:
        Vp8Codec(64, 64, 100_000, 1)
    except VpxError as error:
        logger.warning("%s: another bitrate means another encoder", error)
        return False
    return True


class Vp8Codec:
    """Stands in for the `CodecContext` in aiortc's encoder, set up alike. Not for several threads at once.

    `bit_rate` may be set at any time; the next picture keeps to it.
    """

    def __init__(self, width: int, height: int, bit_rate: int, threads: int) -> None:
        """Raises VpxError."""
        library = _library()
        configuration = None if library is None else _default(library)
        if library is None or configuration is None:
            raise VpxError("there is no libvpx that can be used")
        self.width, self.height, self.bit_rate = width, height, bit_rate
        self._library, self._configuration = library, configuration
        c: Any = configuration
        c.width, c.height, c.threads = width, height, threads
        c.timebase_num, c.timebase_den = 1, CLOCK_HZ
        c.lag, c.rate_mode, c.kbps = 0, _CBR, bit_rate // 1000
        c.least_q, c.most_q, c.undershoot, c.overshoot = 2, 56, 100, 15
        c.buffer_ms, c.initial_ms, c.optimal_ms = 1000, 750, 833
        c.most_key_distance = 3000
        self._codec = self._opened()
        for control, value in ((_CPU_USED, -6), (_NOISE, 4), (_STATIC, 1), (_PARTITIONS, 0)):
            self._check(library.vpx_codec_control_(self._codec, control, ctypes.c_int(value)))

    def _opened(self) -> Any:
        """The codec. Its interface counts its versions by adding those of its parts, so the right one is tried for."""
        library, codec = self._library, ctypes.create_string_buffer(512)
        for version in range(_MOST_ABI):
            got = library.vpx_codec_enc_init_ver(
                codec, library.vpx_codec_vp8_cx(), self._configuration, 0, version
            )
            if got != _ABI_MISMATCH:
                self._check(got)
                weakref.finalize(self, library.vpx_codec_destroy, codec)
                return codec
        raise VpxError("libvpx is of another kind")

    def encode(self, frame: av.VideoFrame) -> list[bytes]:
        """A yuv420p picture of the codec's size; a key frame where its `pict_type` says so. Raises VpxError."""
        self._keep_to_bitrate()
        planes = np.ascontiguousarray(frame.to_ndarray())
        library, flags = self._library, _FORCE_KEY if frame.pict_type == PictureType.I else 0
        image = library.vpx_img_wrap(None, _I420, self.width, self.height, 1, planes.ctypes.data)
        if not image:
            raise VpxError("libvpx has no memory for a picture")
        at = (
            0
            if frame.pts is None or frame.time_base is None
            else round(frame.pts * frame.time_base * CLOCK_HZ)
        )
        try:
            self._check(library.vpx_codec_encode(self._codec, image, at, USUAL_TICKS, flags, _REALTIME))
        finally:
            library.vpx_img_free(image)
        return self._packets()

    def _keep_to_bitrate(self) -> None:
        c: Any = self._configuration
        wanted = self.bit_rate // 1000
        if abs(wanted - c.kbps) > CHANGE * c.kbps:
            c.kbps = wanted
            self._check(self._library.vpx_codec_enc_config_set(self._codec, self._configuration))

    def _packets(self) -> list[bytes]:
        at, packets = _POINTER(None), list[bytes]()
        while packet := self._library.vpx_codec_get_cx_data(self._codec, ctypes.byref(at)):
            if packet.contents.kind == _FRAME_PACKET:
                packets.append(ctypes.string_at(packet.contents.data, packet.contents.bytes))
        return packets

    @staticmethod
    def _check(got: int) -> None:
        if got:
            raise VpxError(f"libvpx refuses (error {got})")
