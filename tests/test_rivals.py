"""Rivals' networks beside ours: from a checkout, of which nothing stays, and refused where it is another."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts import benchmark_matrix
from scripts.benchmarks.rivals import RivalError, liveportrait

NETWORKS = {
    "motion_extractor": """
class MotionExtractor(Network):
    def forward(self, photo):
        assert photo.shape == (1, 3, 256, 256)
        return {"exp": torch.zeros(1, 3 * self.told["num_kp"])}
""",
    "warping_network": """
class WarpingNetwork(Network):
    def forward(self, volume, kp_source, kp_driving):
        assert volume.shape == (1, 32, 16, 64, 64)
        assert kp_source.shape == kp_driving.shape == (1, self.told["num_kp"], 3)
        return {"out": torch.zeros(1, 256, 64, 64)}
""",
    "spade_generator": """
class SPADEDecoder(Network):
    def forward(self, feature):
        DRAWN.append((tuple(feature.shape), torch.is_inference_mode_enabled(), self.training))
""",
}
HEAD = """
import torch
from torch import nn
DRAWN = torch.DRAWN

class Network(nn.Module):
    def __init__(self, **told):
        super().__init__()
        self.told = told
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    modules = tmp_path / "src" / "modules"
    modules.mkdir(parents=True)
    for name, text in NETWORKS.items():
        (modules / f"{name}.py").write_text(HEAD + text)
    return tmp_path


def test_what_runs_for_every_picture_runs(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    drawn: list[object] = []
    monkeypatch.setattr(torch, "DRAWN", drawn, raising=False)
    draw = liveportrait(checkout)
    draw()
    draw()
    assert drawn == [((1, 256, 64, 64), True, False)] * 2
    assert str(checkout) not in sys.path
    assert not [name for name in sys.modules if name.split(".")[0] == "src"]


def test_another_checkout_is_refused(tmp_path: Path, checkout: Path) -> None:
    with pytest.raises(RivalError, match="no checkout of LivePortrait"):
        liveportrait(tmp_path / "elsewhere")
    (checkout / "src" / "modules" / "spade_generator.py").write_text("class Other: ...\n")
    with pytest.raises(RivalError, match="another version"):
        liveportrait(checkout)
    assert str(checkout) not in sys.path


def test_the_command_line_names_who_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark_matrix.main(["--rival", "somebody=/tmp", "-o", "out"])
    assert "NAME of liveportrait" in capsys.readouterr().err
