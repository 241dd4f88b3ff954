"""Networks in eight bits: which convolutions, by which ranges, how close, and when a CPU is served so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.compile.background_engine import BackgroundEngine
from engines.compile.engine import Compiled, Engine, Precision, Tier
from engines.compile.int8 import (
    Ranges,
    know_ranges,
    known_ranges,
    quantise,
    ranges_of,
    ranges_path,
    read_ranges,
)
from engines.compile.names import PRECISION_SETTING
from engines.compile.openvino_engine import OpenVinoEngine
from engines.compile.openvino_import import load_openvino
from engines.compile.precision import int8_pays
from engines.compile.torch_engine import TorchEngine
from engines.enrollment import Enrollment
from engines.errors import EngineError
from engines.generators.networked.blueprint import load_networks
from engines.generators.registry import GENERATORS
from engines.generators.visavis.blueprint import VisavisBlueprint
from engines.renderer import Renderer, range_of_motion
from scripts import calibrate

EIGHT_BITS = [name for name, entry in GENERATORS.items() if entry.blueprint and entry.blueprint().eight_bits]


class Two(nn.Module):
    """Two convolutions in a row, and one beside the second."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.beside = (nn.Conv2d(n, 16, 3, padding=1) for n in (3, 16, 16))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.silu(self.first(x))
        return self.second(y), self.beside(y)


RANGES: Ranges = {"first": (0.0, 1.0), "second": (-0.28, 1.5), "beside": (-0.28, 1.5)}


@pytest.fixture(autouse=True)
def _nothing_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(PRECISION_SETTING, raising=False)


def _two(ranges: Ranges = RANGES) -> tuple[Two, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    module = Two().eval()
    know_ranges(module, ranges)
    return module, (torch.rand(1, 3, 24, 24),)


def _computed_in(module: nn.Module, example: tuple[Tensor, ...], precision: Precision) -> tuple[Tensor, ...]:
    return OpenVinoEngine().compile(module, example, precision)(*example)


# --- the numbers ------------------------------------------------------------------------------------------


def test_eight_bits_are_close_to_all() -> None:
    module, example = _two()
    exact = _computed_in(module, example, "fp32")
    for ours, true in zip(_computed_in(module, example, "int8"), exact, strict=True):
        off = (ours - true).abs()
        assert 0 < off.max() < 0.02  # other numbers, but near ones: outputs are 0.5 and less
        assert off.mean() < 0.004


def test_what_lies_beyond_its_range_is_cut_off() -> None:
    module, example = _two({"first": (0.0, 0.5)})
    (cut,) = [x.clamp(0, 0.5) for x in example]
    expected = _computed_in(module, (cut,), "fp32")[0]
    assert (_computed_in(module, example, "int8")[0] - expected).abs().max() < 0.02


def _network(module: nn.Module, example: tuple[Tensor, ...]) -> Any:
    return load_openvino().convert_model(module, example_input=example)


def test_only_known_convolutions_count_in_eight_bits() -> None:
    module, example = _two()
    assert quantise(_network(module, example), {}) == 0
    assert quantise(_network(module, example), {"second": RANGES["second"]}) == 1
    network = _network(module, example)
    assert quantise(network, RANGES) == 3
    marks = [n for n in network.get_ops() if n.get_type_name() == "FakeQuantize"]
    # three weights, the picture, and once what both of the later ones are given
    assert len(marks) == 5


def test_nothing_stays_nothing() -> None:
    """0 is one of the steps: what pads a picture, and what is off, is exactly 0."""
    module, _ = _two({"first": (-0.3, 1.1)})
    with torch.no_grad():
        module.first.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]
        module.second.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]
    nothing = (torch.zeros(1, 3, 24, 24),)
    assert _computed_in(module, nothing, "int8")[0].abs().max() == 0


def test_a_network_without_ranges_is_refused() -> None:
    module, example = _two({})
    with pytest.raises(EngineError, match=r"nobody has measured.*scripts\.calibrate"):
        OpenVinoEngine().compile(module, example, "int8")
    with pytest.raises(EngineError, match="choose bf16 or fp32"):
        TorchEngine().compile(module, example, "int8")


# --- ranges -----------------------------------------------------------------------------------------------


def test_ranges_are_those_of_the_weights(tmp_path: Path) -> None:
    path = ranges_path(tmp_path / "mine.safetensors")
    assert path == tmp_path / "mine.ranges.json"
    assert read_ranges(path, "abc") is None
    path.write_text(json.dumps({"weights": "abc", "ranges": {"head.stem": [0, 1.5]}}))
    assert read_ranges(path, "abc") == {"head.stem": (0.0, 1.5)}
    assert read_ranges(path, "abd") is None
    for broken in ("", "[]", "{}", '{"weights": "abc"}', '{"weights": "abc", "ranges": {"a": [1]}}', "\0"):
        path.write_text(broken)
        assert read_ranges(path, "abc") is None


def test_names_are_those_in_the_module_that_serves() -> None:
    class Served(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.networks = Two()

    told = {"head.first": (0.0, 1.0), "second": (0.0, 2.0), "head.networks.beside": (0.0, 3.0)}
    assert ranges_of(Served(), told) == {"networks.second": (0.0, 2.0), "networks.beside": (0.0, 3.0)}
    assert known_ranges(nn.Conv2d(1, 1, 1)) == {}


@pytest.mark.parametrize(
    "name", sorted(n for n, e in GENERATORS.items() if e.blueprint and e.blueprint().eight_bits)
)
def test_all_that_ships_is_measured(name: str) -> None:
    """Each convolution of the parts that may count in eight bits, of the weights that ship, and no other."""
    kind = GENERATORS[name].blueprint
    assert kind is not None
    blueprint, networks, digest = load_networks(kind(), kind().weights_path())
    kept = read_ranges(ranges_path(kind().weights_path()), digest)
    assert kept is not None, f"python -m scripts.calibrate PAIRS --generator {name}"
    told = {
        n for n, m in networks.named_modules() if isinstance(m, nn.Conv2d) and _of(n, blueprint.eight_bits)
    }
    assert set(kept) == told
    assert all(least <= 0 < most < 1000 for least, most in kept.values())
    served = [set(ranges_of(s.module, kept)) for s in blueprint.served(networks)]
    assert sum(map(len, served)) >= len(told)  # those of the eyes serve twice


def _of(name: str, parts: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(f"{part}.") for part in parts)


@pytest.mark.slow
def test_measuring(drawn_pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ranges.json"
    calibrate.main([str(drawn_pairs), "--rows", "8", "-o", str(out)])
    _, networks, digest = load_networks(VisavisBlueprint, VisavisBlueprint.weights_path())
    kept = read_ranges(out, digest)
    assert kept is not None
    assert f"{len(kept)} convolutions over 8 pairs" in capsys.readouterr().out
    assert kept["paths.mouth.stem"] == pytest.approx((0, 1), abs=0.05)  # pictures and masks
    named = {n for n, m in networks.named_modules() if isinstance(m, nn.Conv2d)}
    assert {n for n in named if n.startswith("paths.")} == set(kept)  # the head's flow would move edges
    assert not any(m._forward_hooks for m in networks.modules())


def test_measuring_a_part(drawn_pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "ranges.json"
    calibrate.main([str(drawn_pairs), "--rows", "4", "--only", "paths.eye", "-o", str(out)])
    names = json.loads(out.read_text())["ranges"]
    assert len(names) == 16
    assert all(n.startswith("paths.eye.") for n in names)
    with pytest.raises(SystemExit, match="visavis has no part path with convolutions"):
        calibrate.main([str(drawn_pairs), "--rows", "4", "--only", "path"])
    with pytest.raises(SystemExit, match="pwm has no part for eight bits"):
        calibrate.main([str(drawn_pairs), "--rows", "4", "--generator", "pwm", "-o", str(out)])


def test_measuring_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="visavis: "):
        calibrate.main([str(tmp_path / "none")])


# --- when -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("able", "pays"),
    [
        ({}, False),
        ({"avx2": True}, False),
        ({"avx_vnni": True}, True),
        ({"avx512_vnni": True, "avx512_bf16": True}, True),
        ({"avx512_vnni": True, "amx_bf16": True, "amx_int8": True}, False),
    ],
)
def test_where_it_pays(able: dict[str, bool], pays: bool) -> None:
    assert int8_pays({"architecture": "x86_64", **able}) is pays


class Asked(Engine):
    """Remembers what precision it was asked for."""

    name = "asked"

    def __init__(self, *, eight_bits: bool = True, native: Precision | None = None) -> None:
        self.eight_bits, self.native = eight_bits, native
        self.precision: Precision | None = None

    def tier(self) -> Tier:
        return Tier(self.name, True, "here")

    def build(
        self, module: nn.Module, example: tuple[Tensor, ...], precision: Precision, key: str | None
    ) -> Compiled:
        self.precision = precision
        return lambda *inputs: tuple(x.clone() for x in module(*inputs))


@pytest.mark.parametrize(
    ("said", "pays", "ranges", "engine", "asked"),
    [
        ("", True, RANGES, Asked(), "int8"),
        ("", False, RANGES, Asked(), "fp32"),
        ("int8", False, RANGES, Asked(), "int8"),
        ("fp32", True, RANGES, Asked(), "fp32"),
        ("bf16", True, RANGES, Asked(), "bf16"),
        ("", True, {}, Asked(), "fp32"),  # nobody has measured it
        ("", True, RANGES, Asked(eight_bits=False), "fp32"),
        ("", True, RANGES, Asked(native="fp16"), "fp16"),  # a GPU
    ],
)
def test_what_an_engine_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, said: str, pays: bool, ranges: Ranges, engine: Asked, asked: str
) -> None:
    monkeypatch.setattr("engines.compile.background_engine.int8_pays", lambda: pays)
    monkeypatch.setattr("engines.compile.background_engine.fast_precision", lambda: "fp32")
    monkeypatch.setenv(PRECISION_SETTING, said)
    module, example = _two(ranges)
    serving = BackgroundEngine(module, example, "two", order=(engine,))
    assert serving.wait(600)
    assert engine.precision == asked


def test_a_word_that_is_no_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRECISION_SETTING, "int4")
    module, example = _two()
    with pytest.raises(EngineError, match=r"VISAVIS_PRECISION.*int4.*int8"):
        BackgroundEngine(module, example, "two", order=())


@pytest.mark.slow
@pytest.mark.parametrize("name", EIGHT_BITS)
def test_a_call_looks_the_same(name: str, astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the 6 of 255 that an engine may be off."""

    def drawn(precision: str) -> np.ndarray[Any, Any]:
        monkeypatch.setenv(PRECISION_SETTING, precision)
        renderer = Renderer(astronaut, generator=name, size_px=512)
        assert renderer.wait_until_compiled()
        return np.stack([renderer.render(m) for m in range_of_motion(astronaut.motion)[::4]]).astype(int)

    off = np.abs(drawn("int8") - drawn("fp32"))
    assert 0 < off.mean() < 0.2
    assert off.max() <= 6


def test_every_generator_may_have_ranges() -> None:
    for name, entry in GENERATORS.items():
        if entry.blueprint is not None:
            assert ranges_path(entry.blueprint().weights_path()).name == f"{name}.ranges.json"
