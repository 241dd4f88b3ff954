"""Ranges for eight bits: what goes into each convolution, without the ends that a few odd pictures have."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scripts.calibrate import Watch


def test_ends_are_those_of_most_batches() -> None:
    networks = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Conv2d(1, 1, 1))
    watch = Watch(networks)
    for most in [*range(1, 20), 1000]:
        networks(torch.full((1, 1, 2, 2), float(most)))
    least, most = watch.ranges(0.9)["0"]
    assert least == 0.0  # a picture of nothing is within, whatever was seen
    assert 17 <= most <= 19
    assert watch.ranges(1.0)["0"] == (0.0, 1000.0)
    assert set(watch.ranges()) == {"0", "2"}


def test_nothing_is_watched_after_the_end() -> None:
    networks = nn.Sequential(nn.Conv2d(1, 1, 1))
    watch = Watch(networks)
    networks(torch.full((1, 1, 2, 2), -3.0))
    watch.end()
    networks(torch.full((1, 1, 2, 2), -9.0))
    assert watch.ranges(1.0) == {"0": pytest.approx((-3.0, 0.0))}
