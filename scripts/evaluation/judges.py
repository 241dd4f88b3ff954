"""Second opinions on expression and pose: our own networks and fit are not alone to judge what they drew.

The eye fits our 52 coefficients to MediaPipe's landmarks, as the product does. Beside it stand the shipped regressor,
which reads the pixels and sees no landmark, and a head model of somebody else's, when the user names one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from engines.geometry import F64, rotation_vector
from engines.head.fit import ExpressionFit, fit_driver, fit_source
from engines.head.landmarks import FaceLandmarks
from engines.head.model import HeadModel, load_head_model
from engines.head.open import open_head_model
from engines.head.regressor.crop import box_around, cut
from engines.head.regressor.file import load_regressor
from engines.head.regressor.network import as_input
from engines.head.regressor.prediction import read_output

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a judge reads in one picture: β (52,) and the rotation vector (3,)."""

    expression: F32
    rotation_rad: F64


Look = Callable[[U8, FaceLandmarks], Opinion]


class Judge(Protocol):
    """`name` stands in the figures (`aed_NAME`); `about` says in words who it is."""

    name: str
    about: str

    def meet(self, picture: U8, face: FaceLandmarks) -> Look:
        """Get to know a person from a picture of theirs (H, W, 3): what looks at their other pictures."""
        ...

    def offset(self, expression: F32) -> F64:
        """(478, 3): what an expression (52,) does to the landmarks on the judge's head, in head units."""
        ...


class RegressorJudge:
    """The shipped regressor on the upright crop around the face. It knows nobody: each picture for itself."""

    name = "regressor"
    about = "the shipped regressor, which reads pixels (its teacher was our own fit)"

    def __init__(self) -> None:
        self._net = load_regressor()
        self._fit = ExpressionFit(load_head_model())

    def meet(self, picture: U8, face: FaceLandmarks) -> Look:
        return self._look

    def offset(self, expression: F32) -> F64:
        return self._fit.offset(expression)

    def _look(self, picture: U8, face: FaceLandmarks) -> Opinion:
        crop = cut(picture, box_around(face.points_px))
        with torch.inference_mode():
            raw = self._net(as_input(crop))[0].numpy().astype(np.float32)
        read = read_output(raw, self._net.layout)
        return Opinion(read.expression, rotation_vector(read.rotation))


class HeadJudge:
    """Another head model fitted to the same landmarks: identity from one picture, then pose and β of the others."""

    def __init__(self, model: HeadModel, name: str, about: str) -> None:
        self.name, self.about = name, about
        self._model = model
        self._fit = ExpressionFit(model)

    def meet(self, picture: U8, face: FaceLandmarks) -> Look:
        source = fit_source(self._model, face.points_px, face.scores)
        neutral = source.pose.invert(face.points_px) - self._fit.offset(source.expression)

        def look(picture: U8, face: FaceLandmarks) -> Opinion:
            fitted = fit_driver(self._fit, neutral, face.points_px, face.scores)
            return Opinion(fitted.expression, rotation_vector(fitted.pose.rotation))

        return look

    def offset(self, expression: F32) -> F64:
        return self._fit.offset(expression)


def open_judges(second_head: str | None) -> tuple[list[Judge], str]:
    """The regressor and, where `second_head` names one as users do (`ict:FILE`), that head model.

    And why the head model is left out when none is named (else "").

    Raises ModelError for a file that is no head model, WeightsError when the regressor's weights do not load.
    """
    judges: list[Judge] = [RegressorJudge()]
    if second_head is None:
        return judges, "give a head model of somebody else's with --second-head (docs/head-models.md)"
    kind = second_head.partition(":")[0]
    judges.append(HeadJudge(open_head_model(second_head), kind, f"{kind}'s head model, {second_head}"))
    return judges, ""
