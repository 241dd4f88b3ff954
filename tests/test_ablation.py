"""Ablations: arms that can be trained, what is done is not done again, rows and tables; toy sizes."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.compile.weights import load_weights
from engines.generators.idmatch.blueprint import IdmatchBlueprint
from engines.generators.registry import GENERATORS
from scripts import ablate
from scripts.ablation import learn as learning
from scripts.ablation import verdict
from scripts.ablation.judge import Judged, Tools, drawn, judge, opened
from scripts.ablation.learn import Budget, is_done, learn
from scripts.ablation.plans import ABLATIONS, Ablation, Arm
from scripts.ablation.report import direction, to_markdown
from scripts.evaluation import metrics
from scripts.evaluation.bars import BY_KEY
from scripts.evaluation.features import PerceptualMeasure
from scripts.evaluation.measure import Row
from scripts.evaluation.published import PUBLISHED
from scripts.evaluation.results import Results
from scripts.evaluation.run import Config
from scripts.evaluation.statistics import Estimate
from scripts.evaluation.variants import DRIVER_IDENTITY, SOURCE_COPY
from scripts.generators.blueprint_task import BlueprintTask
from scripts.generators.judges import Judges
from scripts.generators.store import Store
from scripts.training.errors import TrainingError

TINY = (
    "--config keys=4,4,4,4 --config widths=4,4,4,8 --config hidden=4,4,4 --config key=32 --config blocks=1 "
    "--batch 4 --no-perceptual --threads 1 --device cpu"
)
CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]


# --- plans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", sorted(ABLATIONS))
def test_arms_are_of_their_generator_and_differ(number: str) -> None:
    ablation = ABLATIONS[number]
    make = GENERATORS[ablation.generator].blueprint
    assert make is not None
    for arm in ablation.arms:
        make()(None, arm.without, 128)  # raises for a part or size that there is not
    names = [arm.name for arm in ablation.arms]
    assert len(set(names)) == len({frozenset(arm.without) for arm in ablation.arms}) == len(names)
    assert set(ablation.compared().values()) <= set(names)
    assert {of for of, _ in ablation.at_test_time.values()} <= set(names)


def test_all_that_papers_print_is_compared() -> None:
    """Table 3 of 001, the rows of progressive warping in table 1 of 002, table 6.2 of 003."""
    for number, count in (("001", 4), ("002", 5), ("003", 6)):
        ablation = ABLATIONS[number]
        printed = {r.method for r in PUBLISHED if r.paper == ablation.paper and r.table in ablation.tables}
        ours = {arm.printed for arm in ablation.arms if arm.printed is not None}
        assert ours <= printed
        assert len(ours) == count
        assert set(ablation.figures.values()) <= set(BY_KEY)


# --- training ------------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []

    def run(command: list[str], log: Path) -> None:
        told.append(command)
        (log.parent / learning.WEIGHTS).touch()

    monkeypatch.setattr(learning, "_run", run)
    arms = (Arm("all"), Arm("less", ("skips", "correspondence"), "all"))
    budget = Budget(100, 32, ("--batch", "4"))

    def names() -> list[str]:
        told.clear()
        weights = learn(Path("pairs"), "idmatch", arms, budget, tmp_path, lambda _: None)
        assert list(weights) == ["all", "less"]
        return [Path(c[c.index("--runs") + 1]).name for c in told]

    assert names() == ["all", "less"]
    assert told[1][told[1].index("--without") + 1] == "skips,correspondence"
    assert told[1][-2:] == ["--batch", "4"]
    assert names() == []
    (tmp_path / "less" / learning.WEIGHTS).unlink()
    assert names() == ["less"]
    budget = replace(budget, samples=200)
    assert names() == ["all", "less"]
    assert not is_done(tmp_path / "all", Arm("all", ("skips",)), budget)


def test_a_training_that_fails_is_told_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"there are no pairs in .*train\.log"):
        learn(tmp_path / "none", "idmatch", [Arm("all")], Budget(8, 32), tmp_path / "out", lambda _: None)
    assert not (tmp_path / "out" / "all" / learning.DONE).exists()


# --- judging -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ablated(drawn_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command leaves of 004, of the tiniest networks and eight samples each."""
    out = tmp_path_factory.mktemp("ablated")
    told = [
        "ablate",
        str(drawn_pairs),
        "004",
        "-o",
        str(out),
        "--samples",
        "8",
        "--size",
        "32",
        "--rows",
        "9",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*told, "--arms", "all,no-skips", "--train", TINY])
        ablate.main()
    return out / "004"


@pytest.mark.slow
def test_one_command_trains_judges_and_reports(ablated: Path) -> None:
    for arm, without in (("all", []), ("no-skips", ["skips"])):
        _, header = load_weights(ablated / arm / learning.WEIGHTS, IdmatchBlueprint.kind)
        assert (header.notes["without"], header.notes["steps"], header.notes["height_px"]) == (without, 2, 32)
    with (ablated / "rows.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["generator"] for r in rows] == [n for n in ("source-copy", "all", "no-skips") for _ in range(4)]
    assert {r["subject"] for r in rows} == {"eve_01"}
    same = [
        [(r["take"], r["frame"], r["turn_deg"]) for r in rows if r["generator"] == g]
        for g in ("all", "no-skips")
    ]
    assert same[0] == same[1]
    turns = {round(float(r["turn_deg"])) for r in rows}
    assert len(turns) > 1  # frames turned by 4° from one another
    assert turns <= {8, 12, 16, 20}
    text = (ablated / "report.md").read_text(encoding="utf-8")
    assert "| no-skips | all |" in text
    assert "4 rows of 1 held-out people" in text
    assert (ablated / "plot.png").stat().st_size > 5000


@pytest.mark.slow
def test_figures_are_of_the_pictures_that_a_call_shows(ablated: Path, drawn_pairs: Path) -> None:
    """The file's own networks draw; `db` of a training is the PSNR with its sign turned, mean over rows."""
    weights = ablated / "all" / learning.WEIGHTS
    blueprint, networks = opened("idmatch", weights)
    store = Store(drawn_pairs, blueprint, CPU, judging=True)
    rows = store.held_out[:4]
    found = list(drawn(blueprint, networks, store, rows))
    told = BlueprintTask(blueprint, CPU, Judges(None, {}, {"perceptual": ""})).figures(
        networks, store.gather(rows, None)
    )
    ours = [metrics.psnr_db(s.ours, s.truth) for s in found]
    np.testing.assert_allclose(-told["db"], ours, atol=0.05)
    np.testing.assert_allclose(
        -told["db_base"], [metrics.psnr_db(s.photo, s.truth) for s in found], atol=0.05
    )
    judged = judge("all", "idmatch", weights, drawn_pairs, 4, Tools(PerceptualMeasure(), {}))
    assert [r.values["psnr"] for r in judged["source-copy"].rows] != [
        r.values["psnr"] for r in judged["all"].rows
    ]
    assert judged["all"].fid > 0
    mouth = [r.values["mouth"] for r in judged["all"].rows]
    assert all(np.isfinite(mouth))


def test_judging_takes_people_held_out_alone(drawn_pairs: Path, tmp_path: Path) -> None:
    blueprint = IdmatchBlueprint(height_px=32)
    store = Store(drawn_pairs, blueprint, CPU, judging=True)
    assert store.names == ["eve_01"]
    (tmp_path / "ada_01.safetensors").symlink_to(drawn_pairs / "ada_01.safetensors")
    with pytest.raises(TrainingError, match="no held-out person"):
        Store(tmp_path, blueprint, CPU, judging=True)


# --- report --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "interval", "said"),
    [
        (-0.1, (-2.0, -3.0, -1.0), "as the paper"),
        (-0.1, (-2.0, -5.0, 1.0), "as the paper, not certainly"),
        (-0.1, (2.0, -1.0, 5.0), "the other way, not certainly"),
        (0.1, (-2.0, -3.0, -1.0), "**the other way**"),
    ],
)
def test_directions(printed: float, interval: tuple[float, float, float], said: str) -> None:
    assert direction(printed, Estimate(*interval, 30, 5)) == said


def test_differences_are_with_the_arm_that_is_named_and_papers_stand_beside() -> None:
    def row(arm: str, who: str, lpips: float) -> Row:
        return Row("self", arm, f"{who}_01", who, "frame", 1, 12.0, {"seg_lpips": lpips, "lpips": lpips})

    rows = [row(a, w, v + 0.01 * k) for k, w in enumerate("abcd") for a, v in (
        ("default", 0.5), ("+mouth", 0.4), ("+residual", 0.6),
    )]  # fmt: skip
    lines = to_markdown(ABLATIONS["003"], rows, {"default": 7.0}, ["four people"])
    text = "\n".join(lines)
    assert "| +mouth | default | **-0.100 [-0.100, -0.100]** |" in text
    # printed: 0.0581 and 0.0585 against 0.0632
    assert (
        "not said, segmented, self | LPIPS | -0.0051 | **-0.100 [-0.100, -0.100]** | as the paper |" in text
    )
    assert "self | LPIPS | -0.0047 | **+0.100 [+0.100, +0.100]** | **the other way** |" in text
    assert "| LPIPS-efflite0 | +mouth |  | 0.415 [" in text  # turned by 12°
    assert "| default | 0.515" in text
    assert "+conditioning" not in text  # nothing is known of it
    assert Ablation("idmatch", "", (Arm("all"),)).paper is None


def test_a_machine_that_only_trains_needs_nothing_that_judges(tmp_path: Path) -> None:
    """What scripts.pack does not bring is not imported before all arms are trained."""
    told = (
        "import sys; from scripts import ablate; from scripts.ablation import learn; "
        f"learn._run = lambda told, log: (log.parent / learn.WEIGHTS).touch(); "
        f"sys.argv = ['ablate', 'pairs', '004', '-o', {str(tmp_path)!r}, '--train-only']; ablate.main(); "
        "print(sorted({'skimage', 'matplotlib', 'PIL', 'mediapipe', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    arms = ABLATIONS["004"].arms
    assert all(is_done(tmp_path / "004" / arm.name, arm, Budget(20_000, 128)) for arm in arms)


def test_weights_from_elsewhere_are_judged_and_across_people_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained; the driver's identity is the arm's own weights, drawn otherwise."""
    clips, configs = tmp_path / "clips", list[Config]()
    (tmp_path / "004" / "all").mkdir(parents=True)

    def run(*told: str) -> None:
        arguments = ["ablate", "pairs", "004", "-o", str(tmp_path), "--judge-only", *told]
        monkeypatch.setattr(sys, "argv", arguments)
        ablate.main()

    with pytest.raises(SystemExit, match="train first"):
        run()
    (tmp_path / "004" / "all" / learning.WEIGHTS).touch()

    def judged(name: str, *_: object) -> dict[str, Judged]:
        rows = [Row("self", "", f"{w}_01", w, "frame", 1, 5.0, {"lpips": 1.0, "mouth": 2.0}) for w in "abcd"]
        none = np.random.default_rng(0).random((4, 3))
        return {n: Judged([replace(r, generator=n) for r in rows], none, none) for n in (name, SOURCE_COPY)}

    def evaluated(config: Config) -> Results:
        configs.append(config)
        rows = [
            Row("cross", g, f"{w}_01", w, "frame", 1, 5.0, {"apd": float(k)})
            for k, g in enumerate(config.generators) for w in "abcd"
        ]  # fmt: skip
        return Results(rows, {}, 256, skipped=["CSIM: none"])

    monkeypatch.setattr(verdict, "judge", judged)
    monkeypatch.setattr(verdict, "evaluate", evaluated)
    run("--clips", str(clips))
    (config,) = configs
    assert config.generators == (SOURCE_COPY, "all", f"all{DRIVER_IDENTITY}")
    assert config.weights == {"all": tmp_path / "004" / "all" / learning.WEIGHTS}
    text = (tmp_path / "004" / "report.md").read_text(encoding="utf-8")
    assert "| driver-identity | all | **+1.000 [+1.000, +1.000]** |" in text.partition("## Clips")[2]
