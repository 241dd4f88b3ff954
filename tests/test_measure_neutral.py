"""The measure of the live neutral: near nothing for who is calm, and it sees a neutral that is not this face's rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.neutral import DriverNeutral
from engines.head.fit import ExpressionFit
from engines.head.model import load_head_model
from engines.motion import ARKIT_INDEX, Motion
from scripts.measure_neutral import STRETCHED, measure_neutral, played, rest_of, samples_of, wrong_by
from scripts.people.tracks import Tracked

MODEL = load_head_model()
FIT = ExpressionFit(MODEL)
JAW = ARKIT_INDEX["jawOpen"]
LIPS = ((82, 87), (13, 14), (312, 317))
FRAMES = 50


def clip(jaws: NDArray[np.float64]) -> Tracked:
    """A face in the middle of a picture, every second frame of 25 a second, that opens its mouth by `jaws`."""
    face = MODEL.landmarks(MODEL.mean_hu).astype(np.float64)
    for pair in LIPS:
        face[list(pair), :2] = face[list(pair), :2].mean(0)
    scores = np.zeros((len(jaws), 52))
    scores[:, JAW] = jaws
    points = (face + np.tensordot(scores, FIT.basis, 1)) * 70 + np.array([128, 128, 0])
    return Tracked(
        "a_1", "a", Path("a_1"), points, scores, np.linspace(0, 2 * len(jaws) - 2, len(jaws)), (256, 256)
    )


def test_who_is_calm_from_the_start_has_the_right_rest_in_a_second() -> None:
    figures = {f.key: f for f in measure_neutral(MODEL, [clip(np.zeros(FRAMES))], 1, 5.0).figures}
    assert figures["wrong_1.6"].value == 0
    assert figures["taken_s"].value == pytest.approx(1.0, abs=0.1)
    assert figures["revisions"].value == 1


def test_a_neutral_with_an_open_mouth_is_wrong_by_as_much() -> None:
    talk = clip(0.3 + 0.3 * np.sin(np.arange(FRAMES)))
    rest = rest_of(samples_of(FIT, talk))
    right = FIT.solve(rest.unposed_hu, rest.unposed_hu, rest.scores)
    calm = DriverNeutral(rest.unposed_hu, Motion(expression=right))
    assert wrong_by(FIT, calm, rest) < 1e-6
    open_ = right.copy()
    open_[JAW] += 0.5
    assert wrong_by(FIT, replace(calm, motion=Motion(expression=open_)), rest) == pytest.approx(0.5, abs=1e-5)
    assert STRETCHED < 0.5


def test_a_clip_is_played_round_from_where_it_is_entered() -> None:
    frames = list(played(clip(np.zeros(10)), 7, 0.5))
    assert [k for _, k in frames[:5]] == [7, 8, 9, 0, 1]
    assert [t for t, _ in frames[:3]] == pytest.approx([0, 0.08, 0.16])
