"""Does a photo's person wear glasses? Gradients around the eyes (HOG, Dalal & Triggs 2005) and a linear classifier.

Learned by `scripts.build_glasses` from photos that somebody looked at, one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from engines.errors import ModelError
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

GLASSES_PATH = Path(__file__).parents[1] / "engines" / "data" / "glasses.safetensors"
FORMAT, VERSION = "visavis-glasses", "1"
STRIP_PX = (160, 80)  # width, height of what is looked at
# in the strip: how far the eyes' middles are apart, and the place between them
_BETWEEN_PX, _EYES_AT = 84.0, (80.0, 34.0)
LEAST_SCORE = 0.3  # one of 543 portraits without glasses is beyond it, and 9 of 10 with glasses
_AGAIN = "install visavis again, or in a checkout rebuild it: python -m scripts.build_glasses --help"


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """`weights` (6156,) of `gradients` and a `bias`: glasses where their sum is high."""

    weights: F32
    bias: float

    def score(self, strip: U8) -> float:
        """Of a strip (80, 160, 3), mean over it and its mirror image."""
        both = np.stack([gradients(strip), gradients(np.ascontiguousarray(strip[:, ::-1]))])
        return float((both @ self.weights).mean() + self.bias)


def wears_glasses(photo: U8, landmarks_px: F32) -> bool:
    """Of `photo` (H, W, 3) and the landmarks (478, 2 or 3) of a face in it. Raises ModelError without its file."""
    return load_classifier().score(eye_strip(photo, landmarks_px)) > LEAST_SCORE


def eye_strip(photo: U8, landmarks_px: F32) -> U8:
    """(80, 160, 3) of `photo` (H, W, 3): upright, the eyes always at the same two places."""
    points = np.asarray(landmarks_px, np.float64)[:, :2]
    right, left = points[list(EYE_RIGHT)].mean(0), points[list(EYE_LEFT)].mean(0)
    along = left - right
    apart = max(float(np.linalg.norm(along)), 1e-6)
    scale = _BETWEEN_PX / apart
    x, y = scale * along / apart
    turn = np.array([[x, y], [-y, x]])
    middle = (right + left) / 2
    shift = np.array(_EYES_AT) - turn @ middle
    # a large photo is made smooth first, or its grain would count; only the part around the eyes
    reach, size = 1.2 * apart + 8, np.array([photo.shape[1], photo.shape[0]])
    low = np.clip(np.floor(middle - reach), 0, size - 1).astype(int)
    high = np.clip(np.ceil(middle + reach), low + 1, size).astype(int)
    part = photo[low[1] : high[1], low[0] : high[0]]
    if scale < 0.8:
        part = cv2.GaussianBlur(part, (0, 0), 0.45 / scale)
    affine = np.column_stack([turn, shift + turn @ low])
    strip = cv2.warpAffine(part, affine, STRIP_PX, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(strip, np.uint8)


def gradients(strip: U8) -> F32:
    """(6156,) histograms of oriented gradients of a strip (80, 160, 3): cells of 8, blocks of 16, 9 directions."""
    grey = cv2.cvtColor(strip, cv2.COLOR_RGB2GRAY)
    return np.asarray(_HOG.compute(grey), np.float32).ravel()


_HOG = cv2.HOGDescriptor(STRIP_PX, (16, 16), (8, 8), (8, 8), 9)
COUNT = int(_HOG.getDescriptorSize())


def classifier_bytes(classifier: Classifier) -> bytes:
    """What the file holds."""
    tensors = {
        "weights": classifier.weights.astype(np.float16),
        "bias": np.array([classifier.bias], np.float32),
    }
    return save(tensors, metadata={"format": FORMAT, "version": VERSION})


@cache
def load_classifier(path: Path = GLASSES_PATH) -> Classifier:
    """The committed classifier; raises ModelError when the file is none, or does not fit."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            weights, bias = (
                np.asarray(file.get_tensor(name), np.float32).ravel() for name in ("weights", "bias")
            )
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} tells no glasses or is truncated; {_AGAIN}") from error
    if (metadata.get("format"), metadata.get("version")) != (FORMAT, VERSION):
        raise ModelError(f"{path} is not a {FORMAT} of version {VERSION}; {_AGAIN}")
    if len(weights) != COUNT or len(bias) != 1 or not np.isfinite([*weights, *bias]).all():
        raise ModelError(f"{path}: weights or bias are not finite, or not {COUNT} and 1; {_AGAIN}")
    return Classifier(weights, float(bias[0]))
