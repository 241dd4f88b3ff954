"""Intervals over people, paired comparisons, bars and bins, on rows whose answers are known."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap

from scripts.evaluation.bars import BARS, BY_KEY, Bar, Table, Verdict
from scripts.evaluation.cost import Work
from scripts.evaluation.measure import Row
from scripts.evaluation.one_table import against, one_table
from scripts.evaluation.report import to_markdown, write_csv
from scripts.evaluation.results import Cost, Fid, Results
from scripts.evaluation.statistics import Estimate, compare, mean
from scripts.evaluation.take import Protocol


def row(
    generator: str, subject: str, frame: int, value: float, turn: float = 3.0, key: str = "psnr",
    protocol: Protocol = "self",
) -> Row:  # fmt: skip
    return Row(protocol, generator, f"{subject}_01", subject, "frame", frame, turn, {key: value})


# --- intervals -----------------------------------------------------------------------------------


def test_interval_of_one_value_each_is_the_usual_bootstrap() -> None:
    values = np.random.default_rng(4).normal(10, 2, 40)
    got = mean(values, [str(k) for k in range(40)], rounds=9000)
    wanted = bootstrap(
        (values,), np.mean, method="percentile", n_resamples=9000, rng=np.random.default_rng(0)
    ).confidence_interval
    assert got.value == pytest.approx(values.mean())
    assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high), abs=0.06)
    assert (got.count, got.subjects) == (40, 40)


def test_more_frames_of_the_same_people_make_no_interval_narrower() -> None:
    people = np.random.default_rng(4).normal(10, 2, 12)
    names = [str(k) for k in range(12)]
    once, often = mean(people, names), mean(np.repeat(people, 50), np.repeat(names, 50).tolist())
    assert often.high - often.low == pytest.approx(once.high - once.low)


def test_paired_difference_does_not_see_who_is_hard() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(20, 5, 30)
    names = [str(k) for k in range(30)]
    ours, theirs = hard + 1 + rng.normal(0, 0.1, 30), hard
    apart = compare(ours, theirs, names, "difference")
    assert apart.value == pytest.approx(1, abs=0.1)
    assert apart.excludes(0)
    assert apart.high - apart.low < 0.1
    ratio = compare(0.7 * hard, hard, names, "ratio")
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.7, 0.7, 0.7))


def test_values_that_are_missing_and_too_few_people() -> None:
    found = compare(np.array([1.0, np.nan, 3.0]), np.array([1.0, 5.0, np.nan]), ["a", "b", "c"], "difference")
    assert (found.value, found.count, found.subjects) == (0, 1, 1)
    assert np.isnan(found.low)
    assert not found.excludes(5)
    nothing = mean(np.array([np.nan]), ["a"])
    assert nothing.count == 0
    assert np.isnan(nothing.value)


# --- bars ----------------------------------------------------------------------------------------

BETTER = Bar("self", "psnr", "difference", 1.5, True, "")
SHRINK = Bar("self", "lpips", "ratio", 0.8, True, "")
KEEP = Bar("cross", "csim_faceres", "difference", -0.01, False, "")


@pytest.mark.parametrize(
    ("bar", "interval", "reached", "excludes", "certain", "worse"),
    [
        (BETTER, (2.0, 1.6, 2.4), True, True, True, False),
        (BETTER, (1.6, 0.2, 3.0), True, True, False, False),
        (BETTER, (1.0, -0.5, 2.5), False, False, False, False),
        (BETTER, (-1.0, -1.5, -0.5), False, True, False, True),
        (SHRINK, (0.75, 0.7, 0.79), True, True, True, False),
        (SHRINK, (0.9, 0.85, 0.95), False, True, False, False),
        (SHRINK, (1.1, 0.9, 1.3), False, False, False, True),
        (KEEP, (-0.004, -0.02, 0.01), True, False, False, True),
        (KEEP, (0.02, 0.01, 0.03), True, True, True, False),
        (BETTER, (np.nan, np.nan, np.nan), False, False, False, False),
    ],
)
def test_verdicts(
    bar: Bar, interval: tuple[float, float, float], reached: bool, excludes: bool, certain: bool, worse: bool
) -> None:
    v = Verdict(bar, Estimate(*interval, 100, 20))
    assert (v.reached, v.excludes_none, v.certain, v.worse) == (reached, excludes, certain, worse)


def test_every_bar_and_direction_is_known() -> None:
    assert all(BY_KEY[bar.key].better in ("low", "high") for bar in BARS)


def test_table_pairs_the_same_frames_and_bins_them() -> None:
    rows = [row("geometric", s, f, 20 + f, turn=5 + 10 * f) for s in "abcd" for f in range(3)]
    rows += [row("new", s, f, 22 + f, turn=5 + 10 * f) for s in "abcd" for f in range(2)]
    table = Table(rows)
    assert table.of("self", "geometric", "psnr").value == 21
    assert table.of("self", "new", "psnr", "10–20°").value == 23
    (verdict,) = table.verdicts("new")
    assert verdict.found.value == 2  # frame 2 has no fellow
    assert verdict.found.count == 8
    assert list(table.verdicts_by_bin("new")) == ["0–10°", "10–20°"]


def test_both_ways_count_each_clip_once_and_both_directions_alike() -> None:
    rows = [row("new", "a", f, 20.0 + f) for f in (1, 2, 3)]  # 22
    rows += [row("new", "a", f, 30.0, protocol="back") for f in (1, 2)]
    rows += [row("new", "b", 1, 10.0), row("new", "b", 1, 14.0, protocol="back")]
    rows.append(row("new", "c", 1, 99.0))  # no way back: its photo could not be enrolled
    forward, backward, both = Table(rows).both_ways("new", "psnr")
    assert (forward.value, backward.value, both.value) == (16, 22, 19)
    assert (both.count, both.subjects) == (2, 2)


def test_a_take_has_figures_of_its_own_and_no_bin() -> None:
    rows = [Row("self", g, f"{s}_01", s, "take", 0, float("nan"), {"blink_r": r}) for s, g, r in (
        ("a", "geometric", 0.5), ("a", "new", 0.7), ("b", "geometric", 0.6), ("b", "new", float("nan")),
    )]  # fmt: skip
    table = Table([*rows, row("geometric", "a", 0, 20.0)])
    assert rows[0].bin == ""
    assert table.of("self", "geometric", "blink_r").value == pytest.approx(0.55)
    assert table.of("self", "new", "blink_r").count == 1  # the driver of b hardly moves
    assert table.of("self", "geometric", "blink_r", "over 30°").count == 0
    assert [m.key for m in table.measured("self")] == ["psnr", "blink_r"]


# --- reports -------------------------------------------------------------------------------------


def test_csv_and_markdown_say_the_same(tmp_path: Path) -> None:
    rows = [row(g, s, 1, v) for s in "abcd" for g, v in (("geometric", 20.0), ("new", 22.0))]
    rows.append(row("new", "a", 2, float("nan")))
    rows.append(Row("self", "new", "a_01", "a", "take", 0, float("nan"), {"blink_r": 0.5}))
    rows += [row(g, "a", 1, v, protocol="back") for g, v in (("geometric", 16.0), ("new", 17.0))]
    write_csv(rows, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert [(r["generator"], r["subject"], r["psnr"]) for r in read[:2]] == [
        ("geometric", "a", "20"), ("new", "a", "22"),
    ]  # fmt: skip
    assert read[8]["psnr"] == ""
    assert [read[9][key] for key in ("kind", "turn_deg", "bin", "blink_r")] == ["take", "", "", "0.5"]
    costs = {
        "geometric": Cost(
            5.0, 9.0, Work(0.0, 0.0, 0.0), {"self": Fid(41.5, 96, 96), "sources": Fid(60.25, 48, 30)}
        ),
        "new": Cost(6.0, 10.0, None, {"self": Fid(40.0, 96, 96)}),
    }
    text = to_markdown(Results(rows, costs, 256, about=["four people"], skipped=["e_01: no face"]))
    assert "| PSNR (dB) | higher | 20.00 [20.00, 20.00] | 22.00 [22.00, 22.00] | 4 / 4 |" in text
    wanted = "PSNR at least 1.5 dB higher | difference | 2.000 [2.000, 2.000] | yes | yes | yes | better |"
    assert wanted in text
    assert "e_01: no face" in text
    assert "| PSNR (dB) | higher | mean | 18.00 | 19.50 | 1 / 1 |" in text
    assert "| FID-efflite0 (self) | FID-efflite0 (cross, to the sources) |" in text
    assert "| 41.50 (96 drawn, 96 real) | 60.25 (48 drawn, 30 real) |" in text
    assert "| 40.00 (96 drawn, 96 real) |  |" in text
    assert "not countable" in text
    assert "Other data, for orientation only" in text


def test_one_table_has_costs_and_the_papers_beside() -> None:
    rows = [row(g, s, 1, v) for s in "abcd" for g, v in (("geometric", 20.0), ("new", 22.0))]
    costs = {
        "geometric": Cost(5.0, 9.0, Work(0.0, 0.0, 0.0)),
        "new": Cost(
            6.0, 10.0, Work(4.19, 0.82, 2.2), {"self": Fid(40.0, 9, 9)}, Work(137.0, 32.6, 16.9), 950.0
        ),
    }
    text = "\n".join(one_table(Results(rows, costs, 256), Table(rows)))
    (new,) = [line.split(" | ") for line in text.splitlines() if line.startswith("| new |")]
    assert [new[k] for k in (2, 11)] == ["22.00", "40.00"]
    assert new[17:] == ["6.00", "10.00", "4.19", "0.82", "2.2", "137.0", "32.6", "950 |"]
    assert "| geometric |  | 20.00 |" in text
    lines = text.splitlines()
    assert len({line.count("|") for line in lines}) == 1
    papers = [line for line in lines if line.startswith("| *other data*")]
    heads = lines[0].split(" | ")
    (iface,) = [line.split(" | ") for line in papers if "Lee et al.: theirs, VoxCeleb |" in line]
    assert iface[heads.index("cross FID, to drivers")] == "45.26"  # that paper's side
    (warping,) = [line.split(" | ") for line in papers if "PWM + NMFC, VoxCeleb2" in line]
    assert warping[heads.index("cross FID, to sources")] == "10.68"
    # tables 1 and 2 of one paper are of the same method and data: one row
    assert (
        sum(
            "PWM + neural codes, VoxCeleb1" in line and "11.38" in line and "0.793" in line for line in papers
        )
        == 1
    )


def test_every_measure_is_compared_with_the_baseline_person_by_person() -> None:
    rows = [row(g, s, 1, v) for s in "abcd" for g, v in (("geometric", 20.0), ("new", 22.0), ("worse", 19.0))]
    rows += [row("new", "a", 2, 99.0)]  # no fellow
    (line,) = against(Table(rows))[2:]
    assert line == (
        "| self | PSNR (dB) | above 0 | **+2.00 [+2.00, +2.00]** | **-1.00 [-1.00, -1.00]** worse | 4 / 4 |"
    )
    unsure = [
        row(g, s, 1, v) for k, s in enumerate("abcd") for g, v in (("geometric", 20.0), ("new", 19.0 + k))
    ]
    assert "**" not in against(Table(unsure))[2]
