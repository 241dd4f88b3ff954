"""What an encoded picture says of itself before anybody decodes it: whether it is a key frame, and its size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Look:
    """`is_key`: needs no picture before it. `size_px`: (width, height) where the picture tells it."""

    is_key: bool
    size_px: tuple[int, int] | None = None


def look(codec: str, data: bytes) -> Look:
    """Of a whole encoded picture; `codec` is `VP8` or `H264`. What makes no sense is no key frame. Never raises."""
    return _look_vp8(data) if codec.upper() == "VP8" else _look_h264(data)


def _look_vp8(data: bytes) -> Look:
    """RFC 6386 § 9.1: a key frame has bit 0 clear, the start code 9d 01 2a, and 14 bits each of width and height."""
    if len(data) < 10 or data[0] & 1 or data[3:6] != b"\x9d\x01\x2a":
        return Look(False)
    width, height = (int.from_bytes(data[k : k + 2], "little") & 0x3FFF for k in (6, 8))
    return Look(True, (width, height))


def begins(codec: str, payload: bytes) -> bool | None:
    """Whether a picture begins with this RTP payload; None where it does not tell.

    VP8: S set, partition 0 (RFC 7741 § 4.2). H.264: a parameter set comes first (RFC 6184 § 5.7.1 for a packet of
    several units).
    """
    if not payload:
        return None
    if codec.upper() == "VP8":
        return bool(payload[0] & 0x10) and not payload[0] & 0x07
    first = payload[3] if payload[0] & 0x1F == _SEVERAL and len(payload) > 3 else payload[0]
    return True if first & 0x1F == _PARAMETERS else None


_START = b"\x00\x00\x01"
_IDR, _PARAMETERS, _SEVERAL = 5, 7, 24  # nal_unit_type: H.264 table 7-1, RFC 6184 table 1


_SLICES = range(1, 6)  # nal_unit_type of what comes last in a picture
MOST_LOOKED_AT = 2048  # octets of a picture before its first slice …
MOST_UNITS = 16
MOST_PARAMETERS = 2  # … of them, parameter sets that are read …
MOST_READ = 64  # … octets of each …
MOST_CODES = 64  # … and variable-length numbers in one: 10 and 8 scaling lists, most of them left as they are


def _look_h264(data: bytes) -> Look:
    """By the units before the first slice; with more of them than any encoder makes it is no key frame."""
    size, left = None, MOST_PARAMETERS
    for unit in _units(data):
        kind = unit[0] & 0x1F
        if kind in _SLICES:
            return Look(kind == _IDR, size)
        if kind == _PARAMETERS:
            if not left:
                break
            left -= 1
            size = _size_of_parameters(unit) or size
    return Look(False, size)


def _units(data: bytes) -> Iterator[bytes]:
    """The first octets of the first NAL units, by their start codes (H.264 annex B)."""
    at = data.find(_START, 0, MOST_LOOKED_AT)
    for _ in range(MOST_UNITS):
        if at < 0:
            return
        begin = at + len(_START)
        at = data.find(_START, begin, MOST_LOOKED_AT)
        end = begin + MOST_READ
        unit = data[begin : end if at < 0 else min(at, end)]
        if unit:
            yield unit


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._rest = int.from_bytes(data, "big")
        self._left = 8 * len(data)
        self._codes_left = MOST_CODES

    def take(self, count: int = 1) -> int:
        """The next bits as a number. Raises ValueError at the end."""
        self._left -= count
        if self._left < 0:
            raise ValueError
        taken = self._rest >> self._left
        self._rest -= taken << self._left
        return taken

    def golomb(self) -> int:
        """ue(v), H.264 § 9.1. Raises ValueError for one too many, too."""
        zeros = self._left - self._rest.bit_length()
        self._codes_left -= 1
        if zeros > 32 or self._codes_left < 0:
            raise ValueError
        self.take(zeros)
        return self.take(zeros + 1) - 1

    def skip_golombs(self, count: int) -> None:
        """Numbers that nobody asks for."""
        for _ in range(count):
            self.golomb()

    def signed(self) -> int:
        """se(v), H.264 § 9.1.1."""
        k = self.golomb()
        return (k + 1) // 2 if k % 2 else -(k // 2)


_HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)


def _size_of_parameters(unit: bytes) -> tuple[int, int] | None:
    """Coded size in whole macroblocks of a sequence parameter set (H.264 § 7.3.2.1.1); None for a broken one."""
    try:
        return _read_parameters(_Bits(unit[1:].replace(b"\x00\x00\x03", b"\x00\x00")))
    except ValueError:
        return None


def _read_parameters(bits: _Bits) -> tuple[int, int]:
    profile = bits.take(8)
    bits.take(16)  # constraints, level
    bits.golomb()  # seq_parameter_set_id
    if profile in _HIGH_PROFILES:
        chroma = bits.golomb()
        if chroma == 3:
            bits.take()
        bits.skip_golombs(2)  # depths
        bits.take()  # transform bypass
        if bits.take():  # scaling matrices
            for k in range(8 if chroma != 3 else 12):
                if bits.take():
                    _skip_scaling(bits, 16 if k < 6 else 64)
    bits.golomb()  # log2_max_frame_num_minus4
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take()
        bits.skip_golombs(2)
        bits.skip_golombs(min(255, bits.golomb()))
    bits.golomb()  # max_num_ref_frames
    bits.take()  # gaps allowed
    width, height = bits.golomb() + 1, bits.golomb() + 1
    fields = 1 if bits.take() else 2  # frame_mbs_only_flag
    return 16 * width, 16 * height * fields


def _skip_scaling(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last
