"""What an avatar's numbers must be so that it can be drawn: its sha256 can be computed by whoever forges it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from engines.head.landmark_names import LANDMARK_COUNT
from engines.motion import Motion

F32 = NDArray[np.float32]
Tensors = Mapping[str, NDArray[np.generic]]

MAX_FILE_BYTES = 256_000_000  # the largest photo, 2048 × 2048, makes 30 MB; a larger file is not even read
MAX_HEADER_CHARACTERS = 1_000_000
MAX_PATH_CHARACTERS = 4200  # Linux opens up to 4096 bytes; a KIND: stands before them

_MIN_PHOTO_PX, _MAX_PHOTO_PX, _MAX_MAP_PX = 8, 8192, 4096
_MAX_SIDES_RATIO = 32  # as of the photos that `calibration.photo` opens
_MAX_VERTICES, _MAX_MODES = 1_000_000, 4096
_MAX_FEATURES, _MAX_FEATURE_VALUES = 64, 1 << 24
_MAX_TEXT_CHARACTERS, _MAX_NOTICES = 1000, 64
# Lengths in head units (10 cm): a head is 2 to 3 wide. Places are told in sides of the photo around it.
_MAX_HEAD_HU = 100.0
_MAX_SIDES = 16.0
_MAX_COEFFICIENT, _MAX_ANGLE_RAD = 10.0, 7.0
_DISTANCE_HU = (0.2, 10_000.0)


def require_consistent(tensors: Tensors) -> None:
    """Raise ValueError when sizes are out of bounds, those that belong together differ, or a number is not finite."""
    height, width = tensors["photo"].shape[:2]
    count = len(tensors["neutral_hu"])
    texels = tensors["uv_visibility"].shape
    plate = tensors["plate"].shape[:2]
    for name, sides, least, most in (
        ("photo", (height, width), _MIN_PHOTO_PX, _MAX_PHOTO_PX),
        ("uv_visibility", texels, 1, _MAX_MAP_PX),
        ("plate", plate, 1, _MAX_PHOTO_PX),
    ):
        if not least <= min(sides) <= max(sides) <= most:
            raise ValueError(f"{name} has {sides[1]}x{sides[0]} pixels, not {least} to {most} a side")
    if max(height, width) > _MAX_SIDES_RATIO * min(height, width):
        raise ValueError(f"photo is a strip of {width}x{height} pixels")
    expected: dict[str, tuple[int, ...]] = {
        "photo": (height, width, 3),
        "matte": (height, width),
        "landmarks_px": (LANDMARK_COUNT, 3),
        "neutral_hu": (count, 3),
        "uv_position_px": (*texels, 2),
        "uv_colour": (*texels, 3),
        "uv_pncc": (*texels, 3),
        "plate": (*plate, 3),
    }
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name} is {tensors[name].shape}, not {shape}")
    if count < LANDMARK_COUNT:
        raise ValueError(f"neutral_hu has {count} vertices, fewer than the {LANDMARK_COUNT} landmarks")
    if count > _MAX_VERTICES or len(tensors["identity"]) > _MAX_MODES:
        raise ValueError(f"{count} vertices and {len(tensors['identity'])} shapes are no head's")
    reach_px = _MAX_SIDES * max(height, width)
    for name, most in (
        ("landmarks_px", reach_px),
        ("uv_position_px", reach_px),
        ("neutral_hu", _MAX_HEAD_HU),
        ("identity", _MAX_HEAD_HU),
    ):
        _require_within(name, tensors[name], most)
    spread = np.ptp(np.asarray(tensors["neutral_hu"], np.float32), axis=0)
    if not spread.min() > 0:
        raise ValueError("neutral_hu is flat")


def require_features(features: Tensors) -> None:
    """Raise ValueError for cached features that are no finite float arrays of a bounded size."""
    if len(features) > _MAX_FEATURES:
        raise ValueError(f"{len(features)} cached features are too many")
    for name, values in features.items():
        if values.dtype.kind != "f" or not 1 <= values.size <= _MAX_FEATURE_VALUES:
            raise ValueError(f"the cached feature {name:.80} has the wrong type or size")
        if not np.isfinite(values).all():
            raise ValueError(f"the cached feature {name:.80} has a number that is not finite")


def require_crop(crop_px: tuple[float, float, float], width_px: int, height_px: int) -> None:
    """Raise ValueError for a (left, top, side) that is no square around something in the photo."""
    left, top, side = crop_px
    if not np.isfinite(crop_px).all():
        raise ValueError("crop_px has a number that is not finite")
    if not 1 <= side <= _MAX_SIDES * max(width_px, height_px):
        raise ValueError(f"crop_px has a side of {side:g} pixels")
    if not (-side < left < width_px and -side < top < height_px):
        raise ValueError("crop_px is outside the photo")


def require_motion(motion: Motion) -> None:
    """Raise ValueError for a pose or an expression that no photo shows."""
    near, far = _DISTANCE_HU
    if not near <= float(motion.translation_hu[2]) <= far:
        raise ValueError(f"the head is {float(motion.translation_hu[2]):g} head units away")
    for name, values, most in (
        ("translation_hu", motion.translation_hu, far),
        ("rotation_rad", motion.rotation_rad, _MAX_ANGLE_RAD),
        ("gaze_rad", motion.gaze_rad, _MAX_ANGLE_RAD),
        ("expression", motion.expression, _MAX_COEFFICIENT),
        ("closure", motion.closure, _MAX_COEFFICIENT),
    ):
        _require_within(name, values, most)


def texts(told: object) -> tuple[str, ...]:
    """A list of short texts; raises ValueError or TypeError for anything else."""
    if not isinstance(told, list) or len(told) > _MAX_NOTICES:
        raise TypeError("the notices are no short list")
    return tuple(text(one) for one in told)


def text(told: object) -> str:
    """A text of one line; raises ValueError or TypeError for anything else."""
    if not isinstance(told, str):
        raise TypeError(f"{type(told).__name__} in the place of a text")
    if len(told) > _MAX_TEXT_CHARACTERS or any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in told):
        raise ValueError(f"{told[:20]!r} … is no short line of text")
    return told


def _require_within(name: str, values: NDArray[np.generic], most: float) -> None:
    numbers = np.asarray(values, np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} has a number that is not finite")
    if numbers.size and float(np.abs(numbers).max()) > most:
        raise ValueError(f"{name} has a number beyond {most:g}")
