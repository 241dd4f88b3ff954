"""Clips, pairs and the whole evaluation, on clips without any recorded person."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import DemoClip
from fakes import FakeGenerator, entry
from numpy.typing import NDArray
from PIL import Image
from test_head_models import FIELDS, write

from calibration.enroll import enroll
from calibration.neutral import DriverNeutral
from engines.enrollment import Enrollment
from engines.errors import GeneratorError, PhotoError
from engines.generators.geometric.generator import GeometricGenerator
from engines.generators.names import generators_with_weights
from engines.generators.registry import GENERATORS, Entry
from engines.head.model import HeadModel, load_head_model
from engines.renderer import Renderer
from scripts.evaluate import parse
from scripts.evaluation import protocols, readback
from scripts.evaluation.clips import (
    EvaluationError,
    choose_frames,
    find_clips,
    find_portraits,
    load_clips,
    read_frames,
    spread_indices,
)
from scripts.evaluation.measure import draw, driver_head
from scripts.evaluation.pictures import LABEL_PX, differences, flicker_strip, grid
from scripts.evaluation.protocols import absolute_motions, driven, pair_up, png_of
from scripts.evaluation.run import Config, evaluate
from scripts.evaluation.take import turn_deg
from scripts.evaluation.variants import DRIVER_IDENTITY, SOURCE_COPY, known_names, registered
from scripts.people.tracks import Tracked, is_held_out

U8 = NDArray[np.uint8]


def tracked(name: str, subject: str, frames: int = 40) -> Tracked:
    none = np.zeros((frames, 478, 3))
    return Tracked(
        name,
        subject,
        Path(f"{name}.mp4"),
        none,
        np.zeros((frames, 52)),
        np.arange(frames, dtype=np.float64),
        (9, 9),
    )


# --- whom and what -------------------------------------------------------------------------------


def test_only_held_out_people_unless_all_are_asked_for(tmp_path: Path) -> None:
    names = [f"p{k}" for k in range(30)]
    for name in names:
        (tmp_path / f"{name}_01.mp4").touch()
    held = [s for _, s in find_clips(tmp_path, everyone=False)]
    assert held == sorted(n for n in names if is_held_out(n))
    assert len(find_clips(tmp_path, everyone=True)) == 30
    assert len(find_clips(tmp_path, everyone=True, count=7)) == 7


def test_nothing_to_evaluate_on_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"holds no \.mp4 clips"):
        find_clips(tmp_path, everyone=False)
    trained_on = next(n for n in "abcdefgh" if not is_held_out(n))
    (tmp_path / f"{trained_on}_1.mp4").write_bytes(b"no video at all")
    with pytest.raises(EvaluationError, match="--everyone"):
        find_clips(tmp_path, everyone=False)
    with pytest.raises(EvaluationError, match="is no clip"):
        load_clips(find_clips(tmp_path, everyone=True), tmp_path / "cache")


def test_frames_are_spread_and_runs_are_consecutive() -> None:
    chosen = choose_frames(np.arange(100.0), 10)
    assert chosen.apart == (5, 15, 25, 35, 45, 55, 65, 75, 85, 95)
    assert 0 not in chosen.rows  # the photo
    assert [len(run) for run in chosen.runs] == [8, 8]
    assert all(b - a == 1 for run in chosen.runs for a, b in pairwise(run))
    gappy = choose_frames(np.arange(0.0, 200.0, 2), 10)
    assert gappy.runs == ()
    assert choose_frames(np.arange(5.0), 10).apart == (1, 2, 3, 4)
    assert spread_indices(3, 9) == [0, 1, 2]


def test_pairs_never_mix_a_person_with_itself() -> None:
    clips = [tracked("a_01", "a"), tracked("a_02", "a"), tracked("b_01", "b"), tracked("c_01", "c")]
    portraits = [
        (Path("portraits/a.png"), "a"),
        (Path("portraits/d.png"), "d"),
        (Path("portraits/e.png"), "e"),
    ]
    pairs = pair_up(clips, portraits, 10)
    assert [p.clip.subject for p in pairs] == ["a", "b", "c"]
    assert [p.name for p in pairs] == ["d", "c_01", "a"]
    only_frames = pair_up(clips, [], 10)
    assert [(p.clip.subject, p.name) for p in only_frames] == [("a", "b_01"), ("b", "c_01"), ("c", "a_01")]
    assert pair_up(clips[:2], [], 10) == []


# --- generators ----------------------------------------------------------------------------------


def test_variants_are_known_to_the_evaluation_alone(
    astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(GENERATORS)
    left_out: list[Collection[str]] = []

    def opened(
        model: HeadModel, *, without: Collection[str] = (), weights: Path | None = None
    ) -> GeometricGenerator:
        assert weights is None
        left_out.append(without)
        return GeometricGenerator(model)

    monkeypatch.setitem(GENERATORS, "plain", Entry(opened, switches=("left_ear",)))
    assert {SOURCE_COPY, "plain", "plain-no-left-ear", f"plain{DRIVER_IDENTITY}", *before} <= set(
        known_names()
    )
    with registered([SOURCE_COPY, "plain-no-left-ear", "geometric"]):
        pictures = [
            Renderer(astronaut, generator=name, size_px=128).render(astronaut.motion)
            for name in ("plain-no-left-ear", "geometric")
        ]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert left_out == [("left_ear",)]
    assert sorted(GENERATORS) == sorted([*before, "plain"])
    with pytest.raises(GeneratorError, match="nobody"), registered(["nobody"]):
        pass


# --- pictures ------------------------------------------------------------------------------------


def test_grid_and_strip_have_a_place_for_everything() -> None:
    dark, light = np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 10, np.uint8)
    page = grid([{"photo": dark, "driver": light}] * 3)
    assert page.shape == (3 * (40 + LABEL_PX), 80, 3)
    assert (page[LABEL_PX : LABEL_PX + 40, 40:] == 10).all()
    assert [int(d.max()) for d in differences([dark, light, light])] == [60, 0]
    strip = flicker_strip({"new": [dark, light, dark], "real": [dark] * 3}, tile_px=40)
    assert strip.shape == (2 * (40 + LABEL_PX), 80, 3)
    assert (strip[LABEL_PX : LABEL_PX + 40] == 60).all()
    assert not strip[2 * LABEL_PX + 40 :].any()
    with pytest.raises(ValueError, match="a row"):
        grid([])


# --- the whole -----------------------------------------------------------------------------------


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the command line has it; several threads only wait for each other at these sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(demo_clip: DemoClip, astronaut: Enrollment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two "people" with a clip each, and a portrait of a third."""
    data = tmp_path_factory.mktemp("people")
    clip = demo_clip(seconds=1.6, size=256)
    for name in ("anna_01", "berta_01"):
        shutil.copy(clip, data / f"{name}.mp4")
    (data / "portraits").mkdir()
    (data / "portraits" / "carla_01.png").write_bytes(png_of(astronaut.photo))
    return data


@pytest.mark.slow
def test_a_clip_that_begins_in_a_blink_gives_a_later_photo(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clip, *_), _ = load_clips(find_clips(folder, everyone=True), tmp_path / "tracks")
    tried: list[str] = []

    def enroll_but_the_first(photo: bytes, *, name: str) -> Enrollment:
        tried.append(name)
        if len(tried) < 3:
            raise PhotoError("the eyes are closed")
        return enroll(photo, name=name)

    monkeypatch.setattr(protocols, "enroll", enroll_but_the_first)
    enrollment, rest = protocols.first_photo(clip)
    assert len(tried) == 3
    assert rest.frame[0] == clip.frame[10]
    assert enrollment.name == clip.name

    def never(photo: bytes, *, name: str) -> Enrollment:
        raise PhotoError("the eyes are closed")

    monkeypatch.setattr(protocols, "enroll", never)
    with pytest.raises(PhotoError, match="eyes are closed"):
        protocols.first_photo(clip)


@pytest.mark.slow
def test_motions_of_a_clip(folder: Path, tmp_path: Path, astronaut: Enrollment) -> None:
    """Absolute motion turns the head as the live tracker sees it turn, told from the same neutral."""
    (clip, *_), skipped = load_clips(find_clips(folder, everyone=True), tmp_path / "tracks")
    assert not skipped
    assert (np.diff(clip.frame) == 1).all()
    model = load_head_model()
    rows = list(range(0, len(clip.frame), 6))
    neutral = np.asarray(model.landmarks(astronaut.neutral_hu), np.float64)
    own = absolute_motions(model, neutral, clip)
    live, rest = driven(model, clip)
    assert sorted(live) == list(range(len(clip.frame)))
    assert len(own) == len(clip.frame)
    assert np.isfinite(rest.mesh_hu).all()
    pairs = list(combinations(rows, 2))
    turned = [turn_deg(own[b].rotation_rad, own[a].rotation_rad) for a, b in pairs]
    live_turned = [turn_deg(live[b].rotation_rad, live[a].rotation_rad) for a, b in pairs]
    assert max(turned) > 3
    np.testing.assert_allclose(turned, live_turned, atol=1.5)


@pytest.mark.slow
def test_the_way_back_begins_at_the_greatest_turn(folder: Path, tmp_path: Path) -> None:
    (clip, *_), _ = load_clips(find_clips(folder, everyone=True), tmp_path / "tracks")
    model = load_head_model()
    forward = protocols.self_take(model, clip, 4, 96)
    back = protocols.back_take(model, forward, clip, 96)
    assert (forward.protocol, back.protocol, back.name) == ("self", "back", forward.name)
    assert back.photo_number != forward.photo_number
    numbers = {s.number for s in back.apart}
    assert numbers == {forward.photo_number, *(s.number for s in forward.apart)} - {back.photo_number}
    assert back.runs == ()
    # the pair that was driven the one way is there the other way round, as far apart
    ways = absolute_motions(model, forward.neutral_hu, clip)
    turns = {
        int(clip.frame[row]): turn_deg(m.rotation_rad, forward.enrollment.motion.rotation_rad)
        for row, m in enumerate(ways)
    }
    assert turns[back.photo_number] == max(turns.values()) > 2.5
    (first,) = [s for s in back.apart if s.number == forward.photo_number]
    assert first.turn_deg == pytest.approx(turns[back.photo_number], abs=2.5)
    assert not np.array_equal(forward.photo, back.photo)


@pytest.mark.slow
def test_each_shot_is_drawn_among_the_motions_around_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator that looks at a window sees the clip's own, though shots are drawn seconds apart."""
    (driver, other), _ = load_clips(find_clips(folder, everyone=True), tmp_path / "tracks")
    model = load_head_model()
    fake = FakeGenerator(past=3, ahead=2)
    monkeypatch.setitem(GENERATORS, "fake", entry(lambda _: fake))
    for take in (
        protocols.self_take(model, driver, 3, 64),
        protocols.cross_take(model, driver, enroll(png_of(read_frames(other, [0])[0])), 3, 64),
    ):
        fake.windows.clear()
        draw(take, "fake", 64)
        known = sorted(m.time_s for m in take.motions)
        assert len(fake.windows) == len(take.shots)
        for shot, window in zip(take.shots, fake.windows, strict=True):
            assert window.now is shot.motion
            wanted = [shot.motion.time_s + k / 25 for k in (-3, -2, -1, 0, 1, 2)]
            within = np.clip(wanted, known[0], known[-1])
            np.testing.assert_allclose([m.time_s for m in window.motions], within, atol=1e-6)


@pytest.mark.slow
def test_sources_are_the_photo_and_frames_of_its_clip_cut_alike(folder: Path, tmp_path: Path) -> None:
    (driver, other), _ = load_clips(find_clips(folder, everyone=True), tmp_path / "tracks")
    model = load_head_model()
    photo, rest_of_clip = protocols.first_photo(other)
    take = protocols.cross_take(model, driver, photo, 3, 96, rest_of_clip)
    assert not take.has_truth
    assert len(take.sources) == 4
    np.testing.assert_array_equal(take.sources[0], take.photo)
    for picture in take.sources[1:]:
        assert picture.shape == take.photo.shape
        # the same person in the same place; not the same frame
        assert 0 < np.abs(picture.astype(float) - take.photo).mean() < 30
    alone = protocols.cross_take(model, driver, photo, 3, 96)
    assert len(alone.sources) == 1


@pytest.mark.slow
def test_the_driver_s_identity_is_drawn_with_the_photo_s_colours(folder: Path, tmp_path: Path) -> None:
    """Only across people: the head that is posed gets the driver's shape, everything else stays."""
    (clip, *_), _ = load_clips(find_clips(folder, everyone=True), tmp_path / "tracks")
    model = load_head_model()
    forward = protocols.self_take(model, clip, 2, 96)
    broad = model.mean_hu * np.array([1.25, 1, 1], np.float32)
    landmarks = np.asarray(model.landmarks(broad), np.float64)
    rest = DriverNeutral(landmarks, forward.enrollment.motion)
    head = driver_head(forward.enrollment, rest)
    assert head.shape == model.mean_hu.shape

    def width(points: NDArray[np.floating]) -> float:
        return float(np.ptp(points[:, 0]) / np.ptp(points[:, 1]))

    mean = np.asarray(model.landmarks(model.mean_hu))
    assert width(np.asarray(model.landmarks(head))) > 0.6 * width(landmarks) + 0.4 * width(mean)
    name = f"geometric{DRIVER_IDENTITY}"
    with registered([name]):
        own = draw(forward, name, 96)  # nobody else drives: as ever
        cross = draw(replace(forward, protocol="cross", rest=rest), name, 96)
        usual = draw(replace(forward, protocol="cross", rest=rest), "geometric", 96)
    for shot in forward.apart:
        plain = usual.pictures[shot.number].astype(float)
        np.testing.assert_array_equal(own.pictures[shot.number], plain)
        assert np.abs(cross.pictures[shot.number] - plain).mean() > 2
        assert cross.pictures[shot.number].mean() == pytest.approx(plain.mean(), abs=15)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_evaluate_writes_tables_and_pictures(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readback, "LEAST_SPREAD", np.full(4, 0.01))  # the demo hardly opens its mouth
    assert [s for _, s in find_portraits(folder, everyone=True)] == ["carla"]
    config = Config(
        data=folder, out=tmp_path / "out", generators=(SOURCE_COPY, "geometric"), clips=1, frames=4, pairs=1,
        size_px=160, cache=tmp_path / "tracks", everyone=True, both_ways=True,
        second_head=f"bfm:{write(tmp_path, 'bfm', FIELDS['bfm']())}",
    )  # fmt: skip
    results = evaluate(config)
    assert any("--recognition" in reason for reason in results.skipped)
    with (tmp_path / "out" / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kinds = [(r["protocol"], r["kind"]) for r in rows if r["generator"] == "geometric"]
    counts = {kind: kinds.count(kind) for kind in kinds}
    back = counts.pop(
        ("back", "frame")
    )  # the photo and four that drove forward, but for what is the photo now
    assert back in (4, 5)
    assert counts == {
        ("self", "frame"): 4, ("self", "run"): 2, ("self", "take"): 1,
        ("back", "take"): 1,
        ("cross", "frame"): 2, ("cross", "run"): 1, ("cross", "take"): 1,
    }  # fmt: skip

    def mean(generator: str, key: str) -> float:
        return float(np.mean([float(r[key]) for r in rows if r["generator"] == generator and r[key]]))

    # the geometric generator drew this very clip: it must follow, and the photo that stands still must not
    assert mean("geometric", "psnr") > mean(SOURCE_COPY, "psnr") + 2
    for key in (
        "l1", "lpips", "head_l1", "mouth", "akd", "aed_shape", "apd", "jitter_error", "seg_l1", "seg_lpips",
        "aed_regressor", "aed_shape_regressor", "apd_regressor", "apd_bfm",
    ):  # fmt: skip
        assert mean("geometric", key) < mean(SOURCE_COPY, key)
    assert mean(SOURCE_COPY, "shake") == 0
    assert results.costs["geometric"].generate_ms > 0
    assert mean(SOURCE_COPY, "opening_r") == 0
    assert mean("geometric", "opening_r") > 0.5
    assert mean("geometric", "blink_r") > 0
    for cost in results.costs.values():  # of so few frames: there, but no measure
        counts = {name: (f.drawn, f.real) for name, f in cost.fids.items()}
        # a portrait is one picture of its person: no distance to the sources
        assert counts == {"self": (4, 4), "segmented": (4, 4), "back": (back, back), "drivers": (2, 2)}
        assert all(f.value > 0 for f in cost.fids.values())
    text = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "## source-copy against geometric, the same frames" in text
    summary = text.partition("## One table")[2].partition("## ")[0]
    assert summary.count("\n| geometric |") == summary.count("\n| source-copy |") == 1
    assert summary.count("\n| *other data*:") > 9
    with Image.open(tmp_path / "out" / "grid.png") as picture:
        assert picture.size[0] == 4 * 160  # photo, driver and two generators
    assert {p.name for p in (tmp_path / "out" / "sheets").iterdir()} == {
        "self-berta_01.png", "back-berta_01.png", "cross-berta_01+carla_01.png",
    }  # fmt: skip
    assert len(list((tmp_path / "out" / "strips").iterdir())) == 2
    tiles = {
        p.relative_to(tmp_path / "out" / "tiles").as_posix() for p in (tmp_path / "out").glob("tiles/*/*")
    }
    assert tiles == {
        f"{take}/{name}.png"
        for take in ("self-berta_01", "back-berta_01", "cross-berta_01+carla_01")
        for name in ("photo", "driver", SOURCE_COPY, "geometric")
    }


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, threads = parse([str(tmp_path), "-o", "out", "--generators", "geometric", "--clips", "5"])
    assert config.generators == (SOURCE_COPY, "geometric")  # the floor and the baseline are always there
    assert (config.clips, config.frames, threads) == (5, 24, 1)
    assert (config.both_ways, config.second_head) == (False, None)  # the default costs as before
    assert parse([str(tmp_path), "-o", "out"])[0].generators == (
        SOURCE_COPY, "geometric", *[n for n in sorted(generators_with_weights()) if n != "geometric"],
    )  # fmt: skip
    for arguments, reason in (
        ([str(tmp_path), "-o", "out", "--generators", "nobody"], "no generator nobody"),
        ([str(tmp_path / "none"), "-o", "out"], "is no folder"),
        ([str(tmp_path), "-o", "out", "--frames", "0"], "less than 1"),
    ):
        with pytest.raises(SystemExit):
            parse(arguments)
        assert reason in capsys.readouterr().err
