"""What networks cost: counted by torch, the same whatever they have learned; and the numbers that documents give."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import entry
from torch import nn

from engines.compile.weights import WeightsHeader, arrays_of, save_weights
from engines.errors import GeneratorError, WeightsError
from engines.generators.geometric.generator import GeometricGenerator
from engines.generators.idmatch.blueprint import IdmatchBlueprint
from engines.generators.idmatch.networks import IdmatchConfig
from engines.generators.networked.blueprint import Served
from engines.generators.networked.discriminators import folded
from engines.generators.registry import GENERATORS
from engines.head.model import load_head_model
from scripts.evaluate import parse
from scripts.evaluation.cost import frame_ms, opened_work, shipped_work, width_one, width_one_ms, work_of
from scripts.evaluation.variants import known_names, registered

TINY = IdmatchConfig((4, 4, 4, 4), (4, 4, 4, 8), (4, 4, 4), 32, 1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an idmatch that has learned nothing."""
    blueprint = IdmatchBlueprint(TINY)
    kind = blueprint.kind
    header = WeightsHeader(kind.name, kind.version, blueprint.config_dict(), "none")
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_weights(path, arrays_of(folded(blueprint.networks()), np.float16), header)
    return path


@pytest.mark.slow
def test_gflop_of_the_networks_that_a_generator_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_head_model()

    def frame_of(name: str) -> float:
        work = opened_work(model, name)
        assert work is not None
        return work.frame_gflop

    assert frame_of("geometric") == 0

    class Two(GeometricGenerator):
        networks = ((nn.Conv2d(3, 8, 3, padding=1, bias=False), (torch.zeros(1, 3, 32, 32),)),) * 2

    monkeypatch.setitem(GENERATORS, "two", entry(Two))
    assert frame_of("two") == pytest.approx(2 * 2 * 3 * 8 * 9 * 32 * 32 / 1e9)

    class Wrong(GeometricGenerator):
        networks = ((nn.Conv2d(3, 8, 3), (torch.zeros(1, 5, 32, 32),)),)

    monkeypatch.setitem(GENERATORS, "wrong", entry(Wrong))
    assert opened_work(model, "wrong") is None


@pytest.mark.slow
def test_weights_of_a_file_are_judged_under_any_name(weights: Path) -> None:
    """The file's generator, with the file's widths; its parts too. Afterwards nobody knows of it."""
    model, named = load_head_model(), {"tiny": weights, "idmatch": weights}
    before = dict(GENERATORS)
    with registered(["tiny", "tiny-no-skips", "idmatch"], named):
        small, same = opened_work(model, "tiny"), opened_work(model, "idmatch")
        assert small == same
        assert small == work_of(IdmatchBlueprint(TINY))
        less = opened_work(model, "tiny-no-skips")
        assert small is not None
        assert less is not None
        assert 0 < less.frame_gflop < small.frame_gflop
    assert before == dict(GENERATORS)
    with registered(["tiny"], {"tiny": weights}):
        assert "idmatch" in GENERATORS
        assert GENERATORS["idmatch"] is before["idmatch"]


def test_what_is_no_weights_file_is_refused(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    with pytest.raises(GeneratorError, match="no weights file"):
        known_names({"a": tmp_path / "no.safetensors"})
    with pytest.raises(GeneratorError, match="give another name"):
        known_names({"pwm": weights})
    config, _ = parse(
        [str(tmp_path), "-o", "out", "--generators", "geometric", "--weights", f"tiny={weights}"]
    )
    assert config.generators == ("source-copy", "geometric", "tiny")
    assert config.weights == {"tiny": weights}
    for told in ("tiny", f"tiny={tmp_path / 'none'}", f"pwm={weights}"):
        with pytest.raises(SystemExit):
            parse([str(tmp_path), "-o", "out", "--weights", told])
        assert "give" in capsys.readouterr().err


def test_weights_that_do_not_load_are_not_judged_by_the_fallback(weights: Path, tmp_path: Path) -> None:
    broken = tmp_path / "w.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 0x11
    broken.write_bytes(data)
    with registered(["broken"], {"broken": broken}), pytest.raises(WeightsError, match="sha256"):
        opened_work(load_head_model(), "broken")


@pytest.mark.slow
def test_papers_md_says_what_the_networks_cost() -> None:
    """The table of docs/papers.md: GFLOP of a frame and of a photo, MB, millions of numbers, also at width 1."""
    text = (Path(__file__).parents[1] / "docs" / "papers.md").read_text(encoding="utf-8")
    found = re.findall(
        r"^\| `(\w+)` \| [^|]*\| ([^|]*) \| ([^|]*) \| ([^|]*) \| ([^|]*)\|$", text, re.MULTILINE
    )
    assert sorted(name for name, *_ in found) == sorted(n for n, e in GENERATORS.items() if e.blueprint)
    for name, told, kept, millions, wide in found:
        make = GENERATORS[name].blueprint
        assert make is not None
        work = shipped_work(name)
        assert work is not None
        said = f"{work.frame_gflop:.2f} ({work.once_gflop:.2f})"
        assert told.partition(",")[0] == said, name
        assert kept == f"{work.kept_mb:.1f}", name
        assert millions == f"{_millions(make()().networks()):.1f}", name
        full = width_one(name)
        if full is None:
            assert not wide.strip()
            continue
        most = work_of(full)
        said = f"{most.frame_gflop:.1f} ({most.once_gflop:.1f}), {most.kept_mb:.1f} MB"
        assert wide.startswith(f"{said}, {_millions(full.networks()):.1f} M"), name


def _millions(networks: nn.Module) -> float:
    return sum(p.numel() for p in networks.parameters()) / 1e6


def test_a_frame_is_timed_after_one_that_does_not_count() -> None:
    calls: list[int] = []

    class Counted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(len(x))
            return x

    served = [Served("a", Counted(), (torch.zeros(1),)), Served("b", Counted(), (torch.zeros(2),))]
    assert frame_ms(served, frames=3) >= 0
    assert calls == [1, 2] * 4
    assert width_one_ms("visavis") is None  # no paper has it
    assert width_one_ms("geometric") is None
