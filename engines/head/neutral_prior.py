"""The neutral under an expression: how far an expression has moved each landmark, learned from people seen both ways.

A photo alone does not say which part of a wide mouth is smile and which is the person's own: a fit of identity and
expression guesses, and a smile that it takes for identity stays in whatever is drawn later. Here a linear map, learned
by ridge regression from pairs of one person (at rest and not; `scripts.build_neutral_prior`), tells the displacement
from the landmarks and the scores. It is of low rank: few numbers say what a face does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from engines.errors import ModelError
from engines.geometry import F64, align_similarity
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LANDMARK_COUNT, LIPS_INNER, LIPS_OUTER, SURFACE
from engines.motion import EXPRESSION_COUNT

F32 = NDArray[np.float32]

PRIOR_PATH = Path(__file__).parents[1] / "data" / "neutral_prior.safetensors"
FORMAT, VERSION = "visavis-neutral-prior", "1"
INPUTS = 3 * SURFACE + EXPRESSION_COUNT
_AGAIN = "install visavis again, or in a checkout rebuild it: python -m scripts.build_neutral_prior --help"


@dataclass(frozen=True, slots=True, eq=False)
class NeutralPrior:
    """Shapes: R is the rank.

    - `template_hu` (478, 3) the face that landmarks are brought to, by Procrustes with `rigid` (478,).
    - `middle` (1456,): of 468 landmarks (x, y, z) and 52 scores, what is taken off before
      `into` (1456, R) and `out` (R, 1404) are applied; `always` (1404,) is added.
    """

    template_hu: F64
    rigid: F64
    middle: F64
    into: F64
    out: F64
    always: F64

    def displacement_px(self, landmarks_px: F32 | F64, scores: F32 | F64) -> F64:
        """(478, 3) pixels: from where each landmark (478, 3) rests to where it is; `scores` (52,) are the detector's.

        An iris moves as its eye does. Raises ValueError for landmarks that are not finite or lie on a line.
        """
        pose = align_similarity(self.template_hu, landmarks_px, self.rigid)
        told = inputs_of(pose.invert(landmarks_px), scores)
        moved = np.zeros((LANDMARK_COUNT, 3))
        moved[:SURFACE] = ((told - self.middle) @ self.into @ self.out + self.always).reshape(-1, 3)
        irises = np.arange(SURFACE, LANDMARK_COUNT).reshape(2, -1)
        for iris, contour in zip(irises, (EYE_RIGHT, EYE_LEFT), strict=True):
            moved[iris] = moved[list(contour)].mean(0)
        return pose.scale * moved @ pose.rotation.T


def inputs_of(unposed_hu: F64, scores: F32 | F64) -> F64:
    """(1456,) what the map sees of landmarks (478, 3) in the template's place and scores (52,)."""
    return np.concatenate([unposed_hu[:SURFACE].ravel(), np.asarray(scores, np.float64)])


def lips_moved(landmarks: F32 | F64, moved: F64) -> float:
    """How far lips are from where they rest, as a share of the face's height; both (478, 3) in one unit."""
    high = float(np.linalg.norm(landmarks[10, :2] - landmarks[152, :2]))
    return float(np.linalg.norm(moved[[*LIPS_INNER, *LIPS_OUTER], :2], axis=1).mean()) / max(high, 1e-9)


_FIELDS: dict[str, tuple[int, ...]] = {
    "template_hu": (LANDMARK_COUNT, 3), "rigid": (LANDMARK_COUNT,), "middle": (INPUTS,), "into": (INPUTS, -1),
    "out": (-1, 3 * SURFACE), "always": (3 * SURFACE,),
}  # fmt: skip


@cache
def load_neutral_prior(path: Path = PRIOR_PATH) -> NeutralPrior:
    """The committed prior; raises ModelError when the file is none, or a field of it does not fit."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            t: dict[str, F64] = {n: np.asarray(file.get_tensor(n), np.float64) for n in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is no neutral prior or is truncated; {_AGAIN}") from error
    if (metadata.get("format"), metadata.get("version")) != (FORMAT, VERSION):
        raise ModelError(f"{path} is not a {FORMAT} of version {VERSION}; {_AGAIN}")
    rank = t["into"].shape[-1] if "into" in t else 0
    for name, shape in _FIELDS.items():
        wanted = tuple(rank if side < 0 else side for side in shape)
        if name not in t or t[name].shape != wanted or not np.isfinite(t[name]).all():
            raise ModelError(f"{path}: {name} is missing, not finite or not {wanted}; {_AGAIN}")
    return NeutralPrior(**{name: t[name] for name in _FIELDS})
