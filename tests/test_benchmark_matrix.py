"""The matrix of measurements: by turns, what is told of each arm, and a tiny run for its shape, never for its times."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from engines.compile.names import ENGINES_SETTING, PRECISION_SETTING
from scripts import benchmark_matrix
from scripts.benchmarks.matrix import Arm, Spread, as_dict, as_markdown, by_turns

ARMS = [
    Arm("geometric", 256),
    Arm("visavis", 256, "openvino", "fp32"),
    Arm("visavis", 256, "openvino", "int8"),
]


def test_arms_take_turns_and_each_is_first_as_often() -> None:
    now_s, drawn = [0.0], list[tuple[Arm, int]]()
    takes_s = {ARMS[0]: 0.010, ARMS[1]: 0.030, ARMS[2]: 0.020}

    def draw(arm: Arm, k: int) -> None:
        drawn.append((arm, k))
        # the computer is slower and slower: all arms alike
        now_s[0] += takes_s[arm] * (1 + 0.01 * max(len(drawn) - 24, 0))

    measured = by_turns(ARMS, 12, draw, lambda: now_s[0])
    counted = drawn[24:]  # eight rounds to warm up
    assert len(drawn) == 24 + 36
    for k in range(12):
        in_turn = counted[3 * k : 3 * k + 3]
        assert {arm for arm, _ in in_turn} == set(ARMS)
        assert {n for _, n in in_turn} == {k}
    assert [sum(counted[3 * k][0] == arm for k in range(12)) for arm in ARMS] == [4, 4, 4]
    assert all(s.count == 12 for s in measured.values())
    slowed = [measured[arm].p50_ms / (1e3 * takes_s[arm]) for arm in ARMS]
    assert max(slowed) - min(slowed) < 0.03
    assert measured[ARMS[0]].p5_ms < measured[ARMS[0]].p50_ms < measured[ARMS[0]].p95_ms


def test_what_is_told() -> None:
    told = {"cpu": "A", "cores": 2, "system": "S", "versions": {"torch": "2"}}
    measured, unable = {ARMS[2]: Spread(20.0, 18.0, 25.0, 100)}, {Arm("pwm", 256): "no weights"}
    text = as_markdown(measured, unable, told)
    assert "| visavis | 256 | openvino | int8 | 20.0 | 18.0 … 25.0 | 50 |" in text
    assert "- not measured: pwm 256: no weights" in text
    kept = json.loads(json.dumps(as_dict(measured, unable, told)))
    assert kept["measured"][0]["precision"] == "int8"
    assert kept["not_measured"] == [
        {"generator": "pwm", "size_px": 256, "engine": "", "precision": "", "reason": "no weights"}
    ]
    assert ARMS[1].label == "visavis 256 (openvino fp32)"


@pytest.mark.slow
def test_a_tiny_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: os.environ.get(name) for name in (ENGINES_SETTING, PRECISION_SETTING)}
    out = tmp_path / "out"
    benchmark_matrix.main(
        ["--generators", "geometric,visavis,pwm", "--sizes", "128", "--engines", "openvino,torch",
         "--precisions", "fp32", "--pictures", "2", "-o", str(out)]
    )  # fmt: skip
    assert {name: os.environ.get(name) for name in before} == before
    kept = json.loads((out / "matrix.json").read_text())
    # geometry once, for it has no networks
    arms = [(m["generator"], m["engine"]) for m in kept["measured"]]
    assert arms[:3] == [("geometric", ""), ("visavis", "openvino"), ("visavis", "torch")]
    assert all(m["count"] == 2 for m in kept["measured"])
    told = [(n["generator"], n["reason"]) for n in kept["not_measured"]]
    assert len(arms) + len(told) == 5
    assert all(name == "pwm" and "geometric" in reason for name, reason in told)
    assert kept["conditions"]["versions"]["torch"]
    assert (out / "matrix.md").read_text() == capsys.readouterr().out
    with Image.open(out / "matrix.png") as picture:
        assert picture.width > 300


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--generators", "nobody", "there is no generator nobody; there are"),
        ("--precisions", "int4", "there is no precision int4"),
        ("--engines", "abacus", "there is no engine abacus"),
        ("--sizes", "32", "64 … 2048"),
        ("--pictures", "0", "must be positive"),
    ],
)
def test_what_there_is_not(
    option: str, value: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        benchmark_matrix.main([option, value, "-o", str(tmp_path)])
    assert told in " ".join(capsys.readouterr().err.split())
