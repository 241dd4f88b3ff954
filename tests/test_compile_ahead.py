"""Networks compiled ahead of time: where files go, what is refused, the command, and the lane without a card."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerators import FakeGpu
from rtx_stand_in import StandIn
from torch import nn

from engines.compile import ahead, tensorrt_rtx_engine
from engines.compile.ahead import AHEAD_NAMES, Built, build_ahead
from engines.compile.engine import Precision
from engines.compile.exports import engine_cache_folder
from engines.compile.network import Network
from engines.compile.openvino_engine import OpenVinoEngine
from engines.compile.tensorrt_rtx_engine import TensorRtRtxEngine
from engines.enrollment import Enrollment, save_enrollment
from engines.errors import EngineError
from scripts import tensorrt_lane
from streamer.cli import main as cli

GIVEN = (torch.rand(1, 3, 8, 8),)
NETWORKS = [
    Network(name, nn.Conv2d(3, 4, 3).eval(), GIVEN, f"{name}-weights-source") for name in ("one", "two")
]


class Exporting(TensorRtRtxEngine):
    """Exports no ONNX, which takes seconds: the module's name and precision instead."""

    def __init__(self, library: StandIn) -> None:
        super().__init__(FakeGpu(), library)
        self.exports: list[Precision] = []

    def builds(self) -> str | None:
        return self._library.refusal()

    def exported(self, module: Any, example: Any, precision: Precision, targets: Any) -> bytes:
        self.exports.append(precision)
        return b"model"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return engine_cache_folder()


@pytest.fixture
def engine() -> Exporting:
    pytest.importorskip(
        "onnxscript", reason="onnxscript is not installed"
    )  # whose version is part of the key
    return Exporting(StandIn())


def told(found: list[Built]) -> list[tuple[str, str]]:
    return [(b.network, b.target) for b in found]


def test_each_network_is_exported_once_and_built_for_each_card(engine: Exporting, tmp_path: Path) -> None:
    out, cards = tmp_path / "out", ("sm89", "sm120")
    found = list(build_ahead(NETWORKS, "tensorrt-rtx", cards, folder=out, rtx=engine))
    assert told(found) == [("one", "sm89"), ("one", "sm120"), ("two", "sm89"), ("two", "sm120")]
    assert engine.exports == ["fp16", "fp16"]
    assert sorted(out.iterdir()) == sorted(b.path for b in found)
    assert all(b.byte_count == len(f"{b.target}\nmodel") and b.seconds > 0 for b in found)
    again = list(build_ahead(NETWORKS, "tensorrt-rtx", cards, folder=out, rtx=engine))
    assert told(again) == told(found)
    assert [b.seconds for b in again] == [0, 0, 0, 0]
    assert len(engine.exports) == 2


def test_without_a_folder_it_goes_where_calls_look(engine: Exporting, cache: Path) -> None:
    (built,) = build_ahead(NETWORKS[:1], "tensorrt-rtx", rtx=engine)  # for the card that is here
    assert (built.target, built.path.parent) == ("sm89", cache)
    kept = engine.kept("sm89", GIVEN, "fp16", NETWORKS[0].key)
    assert kept.read() == b"sm89\nmodel"


@pytest.mark.slow
def test_openvino_ahead_is_what_a_call_reads(tmp_path: Path, cache: Path) -> None:
    (built,) = build_ahead(NETWORKS[:1], "openvino")
    assert (built.path.parent, built.path.suffix) == (cache, ".xml")
    assert sorted(p.suffix for p in cache.iterdir()) == [".bin", ".sha256", ".xml"]
    other = nn.Conv2d(3, 4, 3).eval()  # the kept one is read, under its key
    got = OpenVinoEngine().compile(other, GIVEN, "fp32", NETWORKS[0].key)(*GIVEN)[0]
    assert torch.allclose(got, NETWORKS[0].module(*GIVEN), atol=1e-5)
    before = built.path.stat().st_mtime_ns
    list(build_ahead(NETWORKS[:1], "openvino"))
    assert built.path.stat().st_mtime_ns == before
    built.path.write_bytes(built.path.read_bytes()[:-9])  # damaged: made anew
    list(build_ahead(NETWORKS[:1], "openvino"))
    assert torch.allclose(
        OpenVinoEngine().compile(other, GIVEN, "fp32", NETWORKS[0].key)(*GIVEN)[0], got, atol=1e-6
    )


@pytest.mark.slow
def test_onnx_files_are_named_after_what_they_are(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    found = [*build_ahead(NETWORKS[:1], "onnx", folder=tmp_path / "o", any_batch=True)]
    found += build_ahead(NETWORKS[:1], "onnx", precision="fp16", folder=tmp_path / "o")
    assert [b.path.name for b in found] == ["one-fp32-any.onnx", "one-fp16.onnx"]
    assert all(b.path.stat().st_size == b.byte_count for b in found)


def test_what_is_refused_is_said_with_the_network_and_the_fix(
    engine: Exporting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*arguments: Any, **options: Any) -> list[Built]:
        return list(build_ahead(NETWORKS, *arguments, folder=tmp_path, rtx=engine, **options))

    with pytest.raises(
        EngineError, match="no engine that compiles ahead 'torch'; choose one of: tensorrt-rtx, "
    ):
        build("torch")
    with pytest.raises(EngineError, match="leave --target out"):
        build("openvino", ("sm89",))
    assert isinstance(engine._library, StandIn)
    engine._library.fails_in = "build"
    with pytest.raises(EngineError, match=r"^one for sm89 in bf16: .*no build today"):
        build("tensorrt-rtx", ("sm89",), "bf16")
    engine._library.refuses = "not installed; type: this"
    with pytest.raises(EngineError, match=r"^tensorrt-rtx: not installed; type: this$"):
        build("tensorrt-rtx", ("sm89",))
    monkeypatch.setattr(ahead, "export_refusal", lambda: "no onnx; type: that")
    with pytest.raises(EngineError, match=r"^no onnx; type: that$"):
        build("onnx")


def test_cards_and_precisions_that_there_are_not_are_refused_before_the_export(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object, **__: object) -> bytes:
        raise AssertionError("exported")

    monkeypatch.setattr(tensorrt_rtx_engine, "onnx_of", never)
    engine = TensorRtRtxEngine(FakeGpu(), StandIn())
    module = NETWORKS[0].module
    with pytest.raises(EngineError, match="no target 'sm90'; choose one of: sm75"):
        engine.exported(module, GIVEN, "fp16", ["sm89", "sm90"])
    with pytest.raises(EngineError, match="sm75 do not compute in bf16"):
        engine.exported(module, GIVEN, "bf16", ["sm75"])
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match="to build for other cards name them: --target sm75,"):
            TensorRtRtxEngine(library=StandIn()).own_target()


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], tuple[Any, ...], dict[str, Any]]]:
    """What the command asks `build_ahead` for: names of the networks, the rest."""
    asked: list[tuple[list[str], tuple[Any, ...], dict[str, Any]]] = []

    def build(networks: list[Network], *rest: Any, **options: Any) -> list[Built]:
        asked.append(([n.name for n in networks], rest, options))
        return [Built(networks[0].name, "sm89", Path("/there/file.engine"), 123, 0.25)]

    monkeypatch.setattr(ahead, "build_ahead", build)
    return asked


def visavis(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str | Path
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["visavis", "compile", *map(str, arguments)])
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capfd.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_command_compiles_all_that_has_weights(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = visavis(monkeypatch, capfd, "--target", "sm89, sm120,sm89", "-o", tmp_path / "e")
    assert code == 0
    assert out == "/there/file.engine\tvisavis-head\tsm89\t123 bytes\t0.2 s\n"
    assert "copy the files there" in err
    ((names, rest, options),) = calls
    assert {"visavis-head", "visavis-paths", "visavis-encoder", "regressor", "speech"} <= set(names)
    assert rest == ("tensorrt-rtx", ("sm89", "sm120"), None, tmp_path / "e")
    assert options == {"any_batch": False}


@pytest.mark.slow
def test_the_command_compiles_what_draws_an_avatar(
    calls: list[Any],
    astronaut: Enrollment,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.avatar"
    save_enrollment(astronaut, path)
    code, _, err = visavis(monkeypatch, capfd, path, "--engine", "onnx", "--any-batch", "--precision", "bf16")
    assert (code, err) == (0, "")
    assert calls == [(["visavis-head", "visavis-paths"], ("onnx", (), "bf16", None), {"any_batch": True})]
    code, _, err = visavis(monkeypatch, capfd, path, "--generator", "geometric")
    assert code == 1
    assert "geometric has no networks; choose another with --generator" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--engine", "torch"], "no engine that compiles ahead 'torch'; choose one of: "),
        (["--engine", "openvino", "--target", "sm89"], "leave --target out"),
        (["--precision", "fp8"], "no precision 'fp8'; choose one of: fp32, fp16, bf16"),
        (["--engine", "triton", "--target", "sm89"], "leave --target out"),
        (["--engine", "triton"], "triton needs a model repository; name a folder for it with -o"),
        (["--any-batch"], "tensorrt-rtx builds for one call; leave --any-batch out"),
        (["nobody"], "nobody"),
    ],
)
def test_the_command_refuses_in_one_line(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = visavis(monkeypatch, capfd, *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert said in err


def test_the_command_says_where_it_cannot_write(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def build(*_: Any, **__: Any) -> list[Built]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ahead, "build_ahead", build)
    code, _, err = visavis(monkeypatch, capfd, "-o", tmp_path / "e")
    assert code == 1
    assert "cannot be written (No space left on device); choose another with -o" in err


def test_the_names_that_the_command_offers_are_those_there_are() -> None:
    assert AHEAD_NAMES == ("tensorrt-rtx", "openvino", "onnx", "triton")
    text = (Path(__file__).parents[1] / "streamer/cli/compile.py").read_text(encoding="utf-8")
    assert f'metavar="[{"|".join(AHEAD_NAMES)}]"' in text


# --- the lane -------------------------------------------------------------------------------------


@pytest.fixture
def two_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_lane, "networks_of", lambda owner: NETWORKS)
    monkeypatch.setattr(tensorrt_rtx_engine, "onnx_of", lambda *_, **__: b"model")
    monkeypatch.setattr(tensorrt_rtx_engine, "export_refusal", lambda: None)


@pytest.mark.usefixtures("two_networks")
def test_the_lane_builds_each_export_for_each_card(capsys: pytest.CaptureFixture[str]) -> None:
    library = StandIn()
    assert tensorrt_lane.main(["--owner", "speech"], library) == 0
    assert library.built == [*tensorrt_lane.TARGETS] * 4  # two networks in two precisions
    out = capsys.readouterr().out
    assert "4 exports, all built" in out
    assert len([line for line in out.splitlines() if "sm120" in line and "onnx" in line]) == 4


@pytest.mark.usefixtures("two_networks")
def test_the_lane_ends_with_the_first_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    library = StandIn()
    library.fails_in = "build"
    assert tensorrt_lane.main(["--owner", "speech"], library) == 1
    assert library.built == []
    found = capsys.readouterr()
    assert "refused: one in fp16, sm86: " in found.err
    assert "no build today" in found.err
    assert "all built" not in found.out
    library.refuses = "not installed; type: this"
    assert tensorrt_lane.main([], library) == 1
    assert "nothing can be built: not installed; type: this" in capsys.readouterr().err
