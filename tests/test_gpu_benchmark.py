"""The measurements of drawing on a GPU, run on the CPU for their shape; never for their time."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from device_calls import toy_drawing, toy_frame, toy_head

from engines.compile.accelerator import NvidiaGpu
from engines.device.batch import Batch
from engines.device.sizes import Sizes
from engines.enrollment import Enrollment, save_enrollment
from scripts.benchmarks import gpu, gpu_calls
from scripts.benchmarks.gpu import Call, Row, measure, table

SIZE = 48


def toy_call(generator: str = "geometric", networks: bytes = b"") -> Call:
    drawing = toy_drawing(size=SIZE)
    frames = [toy_frame(drawing, seed) for seed in range(2)]
    batch = Batch(drawing)
    row = batch.enter(drawing)
    wanted = [shown for f in frames if (shown := batch.draw({row: f})[row]) is not None]
    return Call(
        generator, SIZE, Sizes(SIZE, SIZE), drawing.state, drawing.fields, frames, wanted, toy_head(), networks, 1.5
    )  # fmt: skip


@pytest.mark.slow
def test_everything_is_measured_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "calls.pt", tmp_path / "gpu.json"
    torch.save([toy_call()], path)
    asked = [str(path), "--device", "cpu", "--modes", "eager", "graph", "--batches", "1", "2"]
    assert gpu.main([*asked, "--json", str(out)]) == 0
    told: dict[str, Any] = json.loads(out.read_text())
    (row,) = told["rows"]
    assert set(row["latency_ms"]) == {"eager", "graph"}
    assert all(0 < ms["p50"] <= ms["p95"] for ms in row["latency_ms"].values())
    assert set(row["batch_ms"]) == {"1", "2"}
    assert (row["largest"], row["beyond"], row["left_out"]) == (0, 0.0, [])
    assert torch.__version__ in capsys.readouterr().out


def test_a_wrong_picture_is_seen() -> None:
    call = toy_call()
    call.wanted[1][3, 4, 0] ^= 128
    row = measure(call, None, [], [], lambda: False)
    assert row.largest == 128
    assert row.beyond == pytest.approx(1 / (2 * SIZE * SIZE * 3))


def test_what_time_does_not_allow_is_left_out_and_said() -> None:
    row = measure(toy_call(), None, ["graph"], [1], lambda: True)
    assert row.left_out == [f"{name}: time was up" for name in ("equality", "graph", "batch 1")]
    assert (row.latency_ms, row.batch_ms, row.calls, row.largest) == ({}, {}, 0, None)
    assert "time was up" in table([row], "a card")


def test_networks_that_cannot_be_made_are_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scripts.benchmarks.gpu_calls", None)
    row = measure(toy_call("visavis", b"something"), None, ["graph"], [1], lambda: False)
    assert row.left_out[0].startswith("all of it: ")
    assert "gpu_calls" in row.left_out[0]


def test_a_fault_in_one_measurement_leaves_the_others() -> None:
    call = toy_call()
    call.frames[0] = call.frames[0][:-16]
    row = measure(call, None, [], [1], lambda: False)
    assert [r.partition(":")[0] for r in row.left_out] == ["equality", "batch 1"]


def test_calls_are_what_a_thirtieth_of_a_second_leaves_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = {1: 2.0, 4: 5.0, 8: 16.0, 16: 40.0}

    def pretend(row: Row, call: Call, drawing: object, accelerator: object, count: int) -> None:
        row.batch_ms[count] = spent[count]

    monkeypatch.setattr(gpu, "_batch", pretend)
    row = measure(toy_call(), None, [], list(spent), lambda: False)
    # four in five milliseconds: 26 in a thirtieth of a second; sixteen take longer than that
    assert row.calls == 26
    assert "| 26 |" in table([row], "a card")


def test_without_a_gpu_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(NvidiaGpu, "refusal", lambda self: "no usable NVIDIA GPU")
    assert gpu.main([str(tmp_path / "none.pt")]) == 2
    assert "no usable NVIDIA GPU" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["geometric", "visavis", "pwm"])
def test_calls_of_every_kind_are_written_and_drawn_alike(
    astronaut: Enrollment, tmp_path: Path, name: str
) -> None:
    avatar, path = tmp_path / "a.avatar", tmp_path / "calls.pt"
    save_enrollment(astronaut, avatar)
    asked = [str(avatar), "-o", str(path), "--sizes", "64", "--frames", "2", "--generators", name]
    assert gpu_calls.main(asked) == 0
    (call,) = torch.load(path, weights_only=False)
    assert (call.generator, call.size_px, len(call.frames)) == (name, 64, 2)
    row = measure(call, None, [], [], lambda: False)
    assert row.left_out == []
    assert row.beyond is not None
    assert row.beyond < 5e-4
    assert call.wanted[0].std() > 10
