"""Making pairs: what is stored is right, the same each time, and no clip, disk or process spoils more than itself."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import write_video
from items import tiny_item
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file

from engines.enrollment import Enrollment
from engines.errors import PhotoError
from engines.generators.geometric.generator import GeometricGenerator
from engines.generators.networked.boxes import Window, where_in_photo
from engines.head.landmarks import LandmarkDetector
from engines.head.model import load_head_model
from engines.motion import Motion
from engines.raster.gbuffer import HeadMesh, draw_in_uv, rasterise
from engines.raster.pose import head_viewport, photo_viewport, pose_head
from engines.renderer import Renderer
from engines.retarget import Controls, retarget
from scripts.generators import making, pairs, plans, source
from scripts.generators.item import (
    Item,
    decode_colour,
    decode_grey,
    files,
    in_pixels,
    load_item,
    photo_files,
    read_about,
    save_item,
)
from scripts.generators.making import Region, choose_frames, choose_pairs, region_of, windows
from scripts.generators.motions import motion_of
from scripts.generators.pairs import build
from scripts.generators.plans import plan_items
from scripts.generators.source import CAMERA
from scripts.people.tracks import is_held_out
from scripts.training.errors import TrainingError
from streamer.drive.demo import demo_track, looped

U8 = NDArray[np.uint8]
ROOT = Path(__file__).parents[1]
MODEL = load_head_model()
LEARNT, JUDGED = (
    next(n for n in (f"p{k}" for k in range(99)) if is_held_out(n) == out) for out in (False, True)
)


def clip(astronaut: Enrollment, path: Path, start_s: float = 0, fast_start: bool = False) -> Path:
    """22 frames of the astronaut who talks, 256 × 256."""
    renderer = Renderer(astronaut, generator="geometric", size_px=256)
    rest = demo_track().neutral or Motion()
    motions = (looped(demo_track(), start_s + 0.2 * k) for k in range(22))
    frames = (renderer.render(retarget(m, rest, astronaut.motion, Controls())) for m in motions)
    options = {"movflags": "faststart"} if fast_start else {}
    return write_video(path, frames, fps=25, audio=None, options=options)


@pytest.fixture(scope="module")
def few_frames() -> Iterator[None]:
    """Five frames of each clip, three of those held out: the rest is the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "FRAMES", 5)
        patch.setattr(plans, "HELD_OUT_FRAMES", 3)
        patch.setattr(plans, "COPIES", 1)
        yield


@pytest.fixture(scope="module")
def data(astronaut: Enrollment, few_frames: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    clip(astronaut, folder / f"{LEARNT}_01.mp4", fast_start=True)
    clip(astronaut, folder / f"{JUDGED}_01.mp4", 1.5)
    (folder / "portraits").mkdir()
    Image.fromarray(astronaut.photo).save(folder / "portraits" / f"{LEARNT}_02.png")
    return folder


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    build([data], cache)
    return cache


@pytest.fixture(scope="module")
def talk(made: Path) -> Item:
    return load_item(made / f"{LEARNT}_01.safetensors")


@pytest.fixture(scope="module")
def portrait(made: Path) -> Item:
    return load_item(made / f"{LEARNT}_02.safetensors")


def enrollment_of(item: Item, frame: int) -> Enrollment:
    """A photo's enrollment from what an item holds of it."""
    motion, _ = motion_of(item.own_motion[frame], CAMERA)
    none = np.zeros((1, 1, 3), np.uint8)
    left, top, side = (float(v) for v in item.crop_px[frame])
    return Enrollment(
        name=item.name, created_utc="", photo_sha256="", crop_px=(left, top, side), motion=motion,
        photo=decode_colour(photo_files(item)[frame]), matte=decode_grey(files(item, "matte")[frame]),
        landmarks_px=item.landmarks_px[frame], identity=item.identity[frame], neutral_hu=item.neutral_hu[frame],
        uv_position_px=draw_in_uv(MODEL, in_pixels(item.own_vertices[frame])[:, :2].copy(), 512),
        uv_visibility=decode_grey(files(item, "visibility")[frame]),
        uv_colour=decode_colour(files(item, "colour")[frame]), uv_pncc=none, plate=none,
    )  # fmt: skip


# --- what is stored -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_clip_and_portrait_has_its_item(made: Path) -> None:
    report = json.loads((made / "report.json").read_text())
    assert report["version"] == 3
    assert report["left_out"] == {}
    assert report["items"] == {
        f"{LEARNT}_01": {"subject": LEARNT, "held_out": False},
        f"{LEARNT}_02": {"subject": LEARNT, "held_out": False},
        f"{JUDGED}_01": {"subject": JUDGED, "held_out": True},
    }
    counts = {name: len(load_item(made / f"{name}.safetensors").source) for name in report["items"]}
    assert counts == {f"{LEARNT}_01": 20, f"{LEARNT}_02": 1, f"{JUDGED}_01": 6}
    assert read_about(made / f"{JUDGED}_01.safetensors").held_out


@pytest.mark.slow
def test_pairs_go_both_ways_round(talk: Item) -> None:
    ways = set(zip(talk.source.tolist(), talk.target.tolist(), strict=True))
    assert all((b, a) in ways and a != b for a, b in ways)
    assert talk.motion.shape == (5, 22, 65)
    assert talk.motion_number.tolist() == list(range(22))
    assert float(talk.fps) == 25


@pytest.mark.slow
@pytest.mark.parametrize("name", ["talk", "portrait"])
def test_a_photo_s_head_moves_to_where_the_driver_s_landmarks_are(
    name: str, request: pytest.FixtureRequest
) -> None:
    item: Item = request.getfixturevalue(name)
    for k, (photo, driver) in enumerate(zip(item.source, item.target, strict=True)):
        reached = MODEL.landmarks(in_pixels(item.vertices[k]))[:468, :2]
        away = np.linalg.norm(reached - item.landmarks_px[driver, :468, :2], axis=1)
        still = np.linalg.norm(item.landmarks_px[photo] - item.landmarks_px[driver], axis=1)[:468]
        assert away.mean() < 2, (photo, driver)
        assert away.mean() < still.mean()


@pytest.mark.slow
def test_landmarks_are_those_of_the_stored_picture(talk: Item) -> None:
    detector = LandmarkDetector(video=False)
    for data, points in zip(files(talk, "rgb"), talk.landmarks_px, strict=True):
        (face,) = detector.detect(decode_colour(data))
        assert np.linalg.norm((face.points_px - points)[:, :2], axis=1).mean() < 2
    detector.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["talk", "portrait"])
def test_what_an_item_holds_draws_its_pictures_anew(name: str, request: pytest.FixtureRequest) -> None:
    item: Item = request.getfixturevalue(name)
    generator = GeometricGenerator(MODEL)
    for k in range(0, len(item.source), 7):
        photo = int(item.source[k])
        enrollment = enrollment_of(item, photo)
        viewport = head_viewport(enrollment, 512)
        motion, _ = motion_of(item.motion[photo, item.row[item.target[k]]], CAMERA)
        posed = pose_head(MODEL, enrollment, motion, photo_viewport(enrollment))
        assert np.abs(posed.vertices_px - in_pixels(item.vertices[k])).max() < 0.04
        own = pose_head(MODEL, enrollment, enrollment.motion, photo_viewport(enrollment))
        assert np.abs(own.vertices_px - in_pixels(item.own_vertices[photo])).max() < 0.04

        cache = generator.prepare(enrollment, viewport)
        points = viewport.from_photo(in_pixels(item.vertices[k])).astype(np.float32)
        scaled = replace(posed.pose, scale=posed.pose.scale * viewport.scale)
        corner = np.array([viewport.origin_x_px, viewport.origin_y_px, 0])
        pose = replace(scaled, shift=(posed.pose.shift - corner) * viewport.scale)
        mesh = HeadMesh(points, pose, MODEL.landmarks(points).astype(np.float32))
        gbuffer = rasterise(MODEL, mesh, viewport, generator.config.grid_px)
        layers = generator.draw(cache, gbuffer, motion)
        stored = np.dstack([decode_colour(files(item, "picture")[k]), decode_grey(files(item, "alpha")[k])])
        assert np.abs(layers.picture.astype(int) - stored).mean() < 1.5
        where = where_in_photo(layers.flow, gbuffer, Window.of(enrollment, viewport))
        assert np.abs(where - item.where[k].astype(np.float32)).mean() < 2e-3


@pytest.mark.slow
def test_the_geometric_picture_shows_the_driver_s_moment(talk: Item) -> None:
    """The clip is drawn by geometry, so what is stored as its picture must be near the true frame."""
    truth = [decode_colour(data) for data in files(talk, "rgb")]
    behind = [decode_colour(data) for data in files(talk, "background")]
    for k, (photo, driver) in enumerate(zip(talk.source, talk.target, strict=True)):
        enrollment = enrollment_of(talk, int(photo))
        viewport = head_viewport(enrollment, 512)

        clear = 1 - decode_grey(files(talk, "alpha")[k])[..., None] / 255
        drawn = decode_colour(files(talk, "picture")[k]) + clear * cv2.resize(behind[photo], (512, 512))
        affine = viewport.affine_from_photo()
        shown = cv2.warpAffine(truth[driver], affine, (512, 512), borderMode=cv2.BORDER_REFLECT_101)
        assert np.abs(drawn - shown).mean() < 14, (photo, driver)


@pytest.mark.slow
def test_a_poor_photo_is_shown_as_it_was_enrolled(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "DEGRADED_SHARE", 1.0)
    monkeypatch.setattr(plans, "FRAMES", 2)
    plan = next(p for p in plan_items([data], data / "none") if p.name == f"{LEARNT}_01")
    item, _ = making.clip_item(source.Tools(), plan)
    for poor, clean in zip(files(item, "degraded"), files(item, "rgb"), strict=True):
        assert poor != clean
        assert np.abs(decode_colour(poor).astype(int) - decode_colour(clean)).mean() < 12
    assert photo_files(item) == files(item, "degraded")


@pytest.mark.slow
def test_who_blinks_is_drawn_but_is_no_photo(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = source.look_at_face
    asked: list[bool] = []

    def second_blinks(*given: object) -> object:
        asked.append(True)
        if len(asked) == 2:
            raise PhotoError("the eyes are closed; use a photo with open eyes")
        return judged(*given)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(source, "look_at_face", second_blinks)
    monkeypatch.setattr(plans, "FRAMES", 3)
    plan = next(p for p in plan_items([data], data / "none") if p.name == f"{LEARNT}_01")
    item, _ = making.clip_item(source.Tools(), plan)
    ways = set(zip(item.source.tolist(), item.target.tolist(), strict=True))
    assert ways == {(0, 1), (0, 2), (2, 0), (2, 1)}


@pytest.mark.slow
def test_the_same_clip_gives_the_same_item(data: Path, made: Path) -> None:
    tools = source.Tools()
    for plan in plan_items([data], data / "none"):
        if plan.name == f"{LEARNT}_01":
            continue
        item, _ = (making.clip_item if plan.is_clip else making.portrait_item)(tools, plan)
        kept = load_item(made / f"{plan.name}.safetensors")
        for field in fields(Item):
            assert np.array_equal(getattr(item, field.name), getattr(kept, field.name)), field.name


# --- going on -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_there_is_not_made_again_and_what_is_damaged_is(
    data: Path, made: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(made, cache)
    spoilt = cache / f"{LEARNT}_02.safetensors"
    spoilt.write_bytes(spoilt.read_bytes()[:5000])
    before = {p.name: p.stat().st_mtime_ns for p in cache.glob("*.safetensors") if p != spoilt}
    told: list[str] = []
    report = build([data], cache, say=told.append)
    assert {p.name: p.stat().st_mtime_ns for p in cache.glob("*.safetensors") if p != spoilt} == before
    assert len(load_item(spoilt).source) == 1
    assert list(report.remade) == [f"{LEARNT}_02"]
    assert any("is damaged: made again" in line for line in told)
    assert len(report.items) == 3


def test_a_stranger_s_file_in_the_cache_is_left_alone(tmp_path: Path, data: Path) -> None:
    path = tmp_path / f"{LEARNT}_01.safetensors"
    save_file({"a": np.zeros(3, np.float32)}, path)
    before = path.read_bytes()
    with pytest.raises(TrainingError, match=r"holds no pairs of visavis; move it away"):
        build([data], tmp_path)
    assert path.read_bytes() == before


def test_a_cache_of_the_version_before_is_left_alone(tmp_path: Path, data: Path) -> None:
    (tmp_path / "report.json").write_text('{"version": 2, "items": {}}')
    with pytest.raises(TrainingError, match=r"version 2, this visavis makes 3; choose another folder"):
        build([data], tmp_path)


@pytest.mark.slow
def test_a_clip_that_ends_early_gives_what_came(data: Path, tmp_path: Path) -> None:
    """Cut where the index is at the front, the beginning can be seen; where it is at the end, nothing can."""
    folder, cache = tmp_path / "data", tmp_path / "cache"
    folder.mkdir()
    for name, share in ((f"{LEARNT}_01", 0.8), (f"{JUDGED}_01", 0.8)):
        whole = (data / f"{name}.mp4").read_bytes()
        (folder / f"{name}.mp4").write_bytes(whole[: int(share * len(whole))])
    report = build([folder], cache)
    assert list(report.items) == [f"{LEARNT}_01"]
    assert "ends early, after" in report.notes[f"{LEARNT}_01"]
    assert "is cut off" in report.left_out[f"{JUDGED}_01"]
    item = load_item(cache / f"{LEARNT}_01.safetensors")
    assert 10 <= len(item.motion_number) < 22
    assert len(item.source) > 0


@pytest.mark.slow
def test_a_full_disk_stops_with_the_fix_and_loses_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Path.write_bytes
    count = 0

    def make(tools: object, plan: plans.Plan) -> tuple[Item, None]:
        return tiny_item(plan.name, vertices=20), None

    def full(path: Path, given: bytes) -> int:
        nonlocal count
        if path.suffix == ".safetensors":
            count += 1
            if count == 2:
                written(path, given[:100])
                raise OSError(errno.ENOSPC, "No space left on device")
        return written(path, given)

    monkeypatch.setattr(pairs, "clip_item", make)
    monkeypatch.setattr(pairs, "portrait_item", make)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        TrainingError, match=r"the disk is full; free some space there and give the same command"
    ):
        build([data], tmp_path)
    (kept,) = tmp_path.glob("*.safetensors")
    load_item(kept)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([kept.name, "report.json"])
    assert list(json.loads((tmp_path / "report.json").read_text())["items"]) == [kept.stem]
    monkeypatch.setattr(Path, "write_bytes", written)
    assert len(build([data], tmp_path).items) == 3


def test_what_goes_wrong_with_one_clip_costs_that_clip(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(tools: object, plan: plans.Plan) -> tuple[Item, None]:
        if plan.held_out:
            raise RuntimeError("nobody thought of this")
        return tiny_item(plan.name, vertices=20), None

    monkeypatch.setattr(pairs, "clip_item", make)
    monkeypatch.setattr(pairs, "portrait_item", make)
    report = build([data], tmp_path)
    assert len(report.items) == 2
    assert "nobody thought of this" in report.left_out[f"{JUDGED}_01"]
    assert json.loads((tmp_path / "report.json").read_text())["left_out"] == report.left_out


# --- several folders ----------------------------------------------------------------------------------


def folder_of(path: Path, **contents: bytes) -> Path:
    path.mkdir()
    for name, content in contents.items():
        (path / f"{name}.mp4").write_bytes(content)
    return path


def test_two_clips_of_one_name_are_two_items(tmp_path: Path) -> None:
    one, two = (
        folder_of(tmp_path / "one", a_01=b"a", b_01=b"b"),
        folder_of(tmp_path / "two", a_01=b"c", x_09=b"b"),
    )
    (one / "manifest.csv").write_text("id,subject,tags\na_01,ada,\nb_01,bob,upscaled\n")
    (two / "manifest.csv").write_text("id,subject,tags\na_01,amy,\n")
    found = plan_items([one, two], tmp_path / "cache")
    assert len(found) == 3, "the same file in both folders is one item"
    names = {p.subject: p.name for p in found}
    assert names["ada"] == "a_01"
    assert names["amy"].startswith("a_01-")
    assert {p.name: p.sharpness for p in found}["b_01"] < 1


def test_a_name_in_the_cache_stays_with_its_clip(tmp_path: Path) -> None:
    one, two = folder_of(tmp_path / "one", a_01=b"a"), folder_of(tmp_path / "two", a_01=b"c")
    cache = tmp_path / "cache"
    cache.mkdir()
    (first,) = plan_items([two], cache)
    save_item(cache / "a_01.safetensors", tiny_item("a_01", vertices=20, clip=first.clip))
    for folders in ([one, two], [two, one]):
        names = {p.path: p.name for p in plan_items(folders, cache)}
        assert names[two / "a_01.mp4"] == "a_01"
        assert names[one / "a_01.mp4"].startswith("a_01-")


def test_the_order_mixes_and_is_always_the_same(tmp_path: Path) -> None:
    names = {f"a_{k:02d}": bytes([k]) for k in range(20)}
    folder = folder_of(tmp_path / "one", **names)
    found = [p.name for p in plan_items([folder], tmp_path)]
    assert found == [p.name for p in plan_items([folder], tmp_path)]
    assert found != sorted(found)


def test_people_held_out_are_made_first(tmp_path: Path) -> None:
    """A training judges by those who are there when it begins."""
    names = {f"p{k:02d}_01": bytes([k]) for k in range(30)}
    held = [p.held_out for p in plan_items([folder_of(tmp_path / "one", **names)], tmp_path)]
    assert 0 < sum(held) < 30
    assert held == sorted(held, reverse=True)


def test_a_folder_that_is_not_there_or_empty_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="there is no folder"):
        build([tmp_path / "none"], tmp_path / "cache")
    with pytest.raises(TrainingError, match=r"no usable clip in .*put clips"):
        build([tmp_path], tmp_path / "cache")


def test_a_folder_without_a_face_says_why(tmp_path: Path) -> None:
    grey = [np.full((128, 128, 3), 90, np.uint8)] * 12
    write_video(tmp_path / "nobody_01.mp4", iter(grey), fps=25, audio=None)
    with pytest.raises(
        TrainingError, match=r"no usable clip in .*nobody_01: a face shows in 0 of its frames"
    ):
        build([tmp_path], tmp_path / "cache")


# --- choosing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "partners", "pairs"), [(12, 6, 72), (4, 6, 12), (2, 6, 2), (1, 6, 0), (20, 6, 120)]
)
def test_each_frame_has_as_many_partners(count: int, partners: int, pairs: int) -> None:
    chosen = choose_pairs(count, partners, np.random.default_rng(0))
    assert len(chosen) == len(set(chosen)) == pairs
    assert {(b, a) for a, b in chosen} == set(chosen)
    if pairs:
        assert len({sum(a == k for a, _ in chosen) for k in range(count)}) == 1


def test_the_first_frame_and_the_farthest_are_chosen() -> None:
    rng = np.random.default_rng(0)
    points = np.repeat(rng.normal(0, 50, (1, 478, 3)), 40, 0)
    points[17] += rng.normal(0, 20, (478, 3))
    rows = choose_frames(points, np.zeros((40, 52), np.float32), 5, rng)
    assert {0, 17} <= set(rows)
    assert len(rows) == 5
    assert len(choose_frames(points[:3], np.zeros((3, 52), np.float32), 5, rng)) == 3


def test_windows_lie_around_what_is_chosen_and_are_not_endless() -> None:
    chosen = [0, 1000, 1003, 8999]
    around = windows(chosen, 9000)
    assert set(chosen) <= around
    assert len(around) <= making.MOST_FRAMES
    assert min(around) == 0
    assert max(around) == 8999
    assert {996, 1010} <= around


@pytest.mark.parametrize("size", [(1920, 1080), (640, 360), (700, 700), (360, 640)])
def test_what_is_stored_lies_within_the_picture_and_holds_the_head(
    astronaut: Enrollment, size: tuple[int, int]
) -> None:
    points = astronaut.landmarks_px * 0.5 + np.array([size[0] / 4, size[1] / 8, 0], np.float32)
    face = replace(source.FaceLandmarks(points.astype(np.float32), np.zeros(52, np.float32)))
    region = region_of([face, face], size)
    assert region.left_px >= 0
    assert region.top_px >= 0
    assert region.left_px + region.side_px <= size[0]
    assert region.top_px + region.side_px <= size[1]
    stored = region.stored(face).points_px
    assert stored[:, :2].min() > 0
    assert stored[:, :2].max() < 512
    assert np.ptp(stored[:, 1]) > 512 / 5


def test_a_small_square_clip_is_stored_whole(astronaut: Enrollment) -> None:
    face = source.FaceLandmarks(astronaut.landmarks_px, np.zeros(52, np.float32))
    assert region_of([face], (512, 512)) == Region(0, 0, 512)
    image = np.zeros((512, 512, 3), np.uint8)
    assert np.array_equal(Region(0, 0, 512).cut(image), image)


# --- the command --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_goes_on_where_it_was_and_says_what_there_is(data: Path, made: Path) -> None:
    command = [sys.executable, "-m", "scripts.generators.pairs", str(data), "-o", str(made), "--jobs", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 items with pairs, 0 left out")
    assert "pairs: 3 of 3 items are there" in done.stderr


@pytest.mark.slow
def test_interrupted_it_leaves_nothing_half_made(data: Path, made: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(made, cache)
    (cache / f"{LEARNT}_01.safetensors").unlink()
    command = [sys.executable, "-m", "scripts.generators.pairs", str(data), "-o", str(cache), "--jobs", "1"]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        assert "2 of 3 items are there" in run.stderr.readline()
        run.send_signal(signal.SIGINT)
        said = run.stderr.read()
    assert run.returncode == 130, said
    assert "pairs: stopped; the same command goes on" in said
    assert "Traceback" not in said
    whole = {f"{JUDGED}_01.safetensors", f"{LEARNT}_02.safetensors", "report.json"}
    assert {p.name for p in cache.iterdir()} == whole


def test_making_pairs_needs_neither_av_nor_tqdm() -> None:
    missing = "import sys; sys.modules.update(av=None, tqdm=None, torch=None, openvino=None)"
    code = f"{missing}; import scripts.generators.pairs"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
