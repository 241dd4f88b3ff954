"""Learning one clip by heart: what is printed is the PSNR that the training saw, of that clip alone."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from test_ablation import TINY

from engines.compile.weights import load_weights
from engines.generators.idmatch.blueprint import IdmatchBlueprint
from scripts import overfit
from scripts.training.table import read_table


def run(monkeypatch: pytest.MonkeyPatch, *told: str) -> object:
    """What the command ends with; None where all is well."""
    monkeypatch.setattr(
        sys,
        "argv",
        ["overfit", *told, "--generator", "idmatch", "--size", "32", "--train", f"{TINY} --rate 0.02"],
    )
    try:
        overfit.main()
    except SystemExit as ended:
        return ended.code
    return None


@pytest.mark.slow
def test_one_clip_alone(
    drawn_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    item, out = drawn_pairs / "ada_01.safetensors", tmp_path / "out"
    assert run(monkeypatch, str(item), "-o", str(out), "--samples", "60", "--least", "1") is None
    found = re.search(
        r"idmatch: (\d+\.\d+) dB on (\d+) pairs of ada_01 .* unmoved (\d+\.\d+) dB", capsys.readouterr().out
    )
    assert found is not None
    assert abs(float(found[1]) - float(found[3])) > 0.1
    folder = out / "idmatch" / "ada_01"
    assert [p.name for p in (folder / "pairs").iterdir()] == ["ada_01.safetensors"]
    judged = read_table(folder / "all" / "judged.csv")
    _, header = load_weights(folder / "all" / "w.safetensors", IdmatchBlueprint.kind)
    # a training does not cut its pictures off, and so few steps at such a rate draw far beyond 0 … 1
    assert float(found[1]) == pytest.approx(-header.metrics["db"], abs=0.5)
    assert float(found[3]) == pytest.approx(-judged[-1]["db_base"], abs=0.05)
    assert "less than 99 dB" in str(
        run(monkeypatch, str(item), "-o", str(out), "--samples", "60", "--least", "99")
    )
    assert "done before" in capsys.readouterr().out


def test_people_held_out_stay_so(drawn_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "held out" in str(run(monkeypatch, str(drawn_pairs / "eve_01.safetensors"), "-o", str(tmp_path)))
    assert not any(tmp_path.iterdir())
