"""Any picture's colours → sRGB: by its ICC profile, by the code points of its file (HDR too), by a PNG's gamma."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# ITU-T H.273: the code points that say otherwise than sRGB, and the chromaticities (x, y) of red, green, blue, white
_PQ, _HLG, _LINEAR = 16, 18, 8
_GAMMAS = {4: 2.2, 5: 2.8}
_D65 = (0.3127, 0.3290)
_SRGB_PRIMARIES = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65)
_PRIMARIES = {
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),  # BT.2020
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),  # DCI-P3
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),  # Display P3
}
_ADOBE_RGB = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060), _D65)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

# BT.2408 § 2: what is white in ordinary pictures, in cd/m², and the brightest of an HLG screen
_WHITE_CD_M2, _HLG_PEAK_CD_M2 = 203.0, 1000.0
_KNEE = 0.75  # darker than this share of white stays as it is; what is brighter is pressed into the rest
_SAME = 2  # a profile that moves no colour by more, of 255, is sRGB
_STRIP_ROWS = 256

Primaries = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Signal:
    """How a picture's numbers are meant: `transfer` a code point of H.273, or `gamma` instead; `primaries` (x, y)."""

    transfer: int = 13
    primaries: Primaries = _SRGB_PRIMARIES
    gamma: float | None = None

    @property
    def is_hdr(self) -> bool:
        """Whether it goes beyond what an ordinary screen shows."""
        return self.transfer in (_PQ, _HLG) and self.gamma is None


ADOBE_RGB = Signal(primaries=_ADOBE_RGB, gamma=2.2)


def signal_of(primaries: int, transfer: int) -> Signal | None:
    """By code points of ITU-T H.273; None where they mean sRGB, or nothing that is known here."""
    meant = _PRIMARIES.get(primaries, _SRGB_PRIMARIES)
    gamma = _GAMMAS.get(transfer)
    if meant is _SRGB_PRIMARIES and gamma is None and transfer not in (_PQ, _HLG, _LINEAR):
        return None
    return Signal(transfer, meant, gamma)


def to_srgb(
    image: Image.Image, profile: bytes | None, signal: Signal | None, notices: list[str]
) -> Image.Image:
    """`image` (any mode of 8 bits a channel) as RGB without alpha, in sRGB.

    By `signal` where there is one, else by `profile`, an ICC profile; `notices` gets a phrase for what its owner may
    want to know.
    """
    if image.mode in {"LA", "RGBA"}:
        image = image.convert("L" if image.mode == "LA" else "RGB")
    if image.mode == "LAB":
        source = ImageCms.createProfile("LAB")
        return _through_profile(image, ImageCms.ImageCmsProfile(source))
    if signal is not None and image.mode in {"L", "RGB"}:
        if signal.is_hdr:
            notices.append("HDR: its brightest parts are darkened to what any screen shows")
        return _through_signal(image.convert("RGB"), signal)
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if image.mode != "RGB" or not _is_srgb(source):
                return _through_profile(image, source)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            notices.append("its colour profile is unusable: taken as sRGB")
    elif image.mode == "CMYK":
        notices.append("print colours (CMYK) without a profile: colours are approximate")
    return image.convert("RGB")


def _through_profile(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    target = ImageCms.createProfile("sRGB")
    out = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    return cast("Image.Image", out)


def _is_srgb(source: ImageCms.ImageCmsProfile) -> bool:
    """By what it does to colours: names lie, and converting for nothing would round every pixel."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3)
    moved = np.asarray(_through_profile(Image.fromarray(grid), source), int)
    return int(np.abs(moved - grid).max()) <= _SAME


def _through_signal(image: Image.Image, signal: Signal) -> Image.Image:
    # what a channel's 256 values mean, then the primaries, a few rows at a time: floats of it all take twelve times
    # the picture
    light = _light_of(np.linspace(0, 1, 256), signal).astype(np.float32)
    matrix = between(signal.primaries, _SRGB_PRIMARIES).astype(np.float32)
    pixels = np.array(image, np.uint8)
    for top in range(0, len(pixels), _STRIP_ROWS):
        rows = light[pixels[top : top + _STRIP_ROWS]]
        if signal.transfer == _HLG and signal.is_hdr:
            rows = _shown_on_hlg_screen(rows)
        rows = rows @ matrix.T
        if signal.is_hdr:
            rows = _pressed(rows)
        pixels[top : top + _STRIP_ROWS] = _srgb_encoded(rows)
    return Image.fromarray(pixels)


def _light_of(values: F64, signal: Signal) -> F64:
    """Light of code values 0 … 1: 1 is white; with HDR more, and for HLG the scene's, 0 … 1."""
    if signal.gamma is not None:
        return values**signal.gamma
    if signal.transfer == _PQ:  # SMPTE ST 2084, eq. 4.1: in cd/m², up to 10 000
        m1, m2 = 2610 / 16384, 2523 / 4096 * 128
        c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
        power = values ** (1 / m2)
        return 10_000 / _WHITE_CD_M2 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    if signal.transfer == _HLG:  # BT.2100 table 5: the inverse of its OETF
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    if signal.transfer == _LINEAR:
        return values
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _shown_on_hlg_screen(scene: F32) -> F32:
    """BT.2100 table 5: the OOTF of a screen of 1 000 cd/m², in terms of white."""
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593], np.float32)
    gain = np.float32(_HLG_PEAK_CD_M2 / _WHITE_CD_M2) * np.maximum(luminance, 1e-6) ** np.float32(0.2)
    return (scene * gain[..., None]).astype(np.float32)


def _pressed(light: F32) -> F32:
    """Highlights brought below white; colours keep their hue, as all channels shrink alike."""
    brightest = np.maximum(light.max(-1, keepdims=True), 1e-6)
    room = 1 - _KNEE
    shown = np.where(
        brightest > _KNEE,
        _KNEE + room * (1 - np.exp(-(np.maximum(brightest, _KNEE) - _KNEE) / room)),
        brightest,
    )
    return (light * (shown / brightest)).astype(np.float32)


def _srgb_encoded(light: F32) -> NDArray[np.uint8]:
    """IEC 61966-2-1."""
    light = np.clip(light, 0, 1)
    values = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return (values * 255 + 0.5).astype(np.uint8)


def between(source: Primaries, target: Primaries) -> F64:
    """The matrix (3, 3) from linear RGB of one set of primaries to that of another, white to white."""
    cone_from, cone_to = _BRADFORD @ _xyz(source[3]), _BRADFORD @ _xyz(target[3])
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(cone_to / cone_from) @ _BRADFORD
    return np.linalg.inv(_to_xyz(target)) @ adapted @ _to_xyz(source)


def _xyz(xy: tuple[float, float]) -> F64:
    x, y = xy
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _to_xyz(primaries: Primaries) -> F64:
    columns = np.stack([_xyz(xy) for xy in primaries[:3]], 1)
    return columns * np.linalg.solve(columns, _xyz(primaries[3]))


def signal_of_png(data: bytes, gamma: float | None, chromaticity: tuple[float, ...] | None) -> Signal | None:
    """By a PNG's `cICP` chunk, else by its `gAMA` and `cHRM` (white, red, green, blue) (PNG 3rd edition § 11.3.2)."""
    before = data[: max(0, data.find(b"IDAT"))]
    at = before.find(b"\0\0\0\4cICP")
    if at >= 0 and len(before) > at + 12:
        return signal_of(before[at + 8], before[at + 9])
    if b"\0\0\0\1sRGB" in before:
        return None
    primaries = _plausible(chromaticity)
    exponent = 1 / gamma if gamma and 0.1 <= gamma <= 2.0 else None
    # 1/2.2 is how sRGB is told in this chunk
    usual = exponent is None or abs(exponent - 2.2) < 0.1
    if usual and primaries is None:
        return None
    return Signal(primaries=primaries or _SRGB_PRIMARIES, gamma=None if usual else exponent)


def _plausible(chromaticity: tuple[float, ...] | None) -> Primaries | None:
    """Chromaticities that differ from sRGB's and from which colours can be made; None for others."""
    if chromaticity is None or len(chromaticity) != 8 or not all(0.001 < v < 0.999 for v in chromaticity):
        return None
    x, y = chromaticity[::2], chromaticity[1::2]
    white, red, green, blue = zip(x, y, strict=True)
    primaries = (red, green, blue, white)
    if np.abs(np.array(primaries) - np.array(_SRGB_PRIMARIES)).max() < 0.01:
        return None
    area = abs((green[0] - red[0]) * (blue[1] - red[1]) - (blue[0] - red[0]) * (green[1] - red[1]))
    return primaries if area > 0.02 else None


def signal_of_boxes(data: bytes) -> Signal | None:
    """By the `colr` box of a HEIF or AVIF file (ISO/IEC 14496-12 § 12.1.5) that holds code points; the first counts."""
    at = data[:1_000_000].find(b"colrnclx")
    if at < 4 or len(data) < at + 15:
        return None
    primaries, transfer = struct.unpack(">HH", data[at + 8 : at + 12])
    return signal_of(primaries, transfer)


def stretched(values: F32) -> NDArray[np.uint8]:
    """32-bit grey (H, W), whose file does not say what white is: the customary range that holds it."""
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    if low >= 0:
        low = 0.0
        high = next((white for white in (1.0, 255.0, 65535.0) if high <= white), high)
    scale = 255 / (high - low) if high > low else 0.0
    return ((finite - low) * scale + 0.5).astype(np.uint8)
