"""One path for every generator: what a blueprint of thirty lines says is all that training, judging, serving, export,
command line and page need."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from test_generator import moved
from torch import Tensor, nn

from engines.compile.openvino_engine import OpenVinoEngine
from engines.compile.torch_engine import TorchEngine
from engines.compile.weights import NetworkKind, load_weights
from engines.enrollment import Enrollment
from engines.errors import WeightsError
from engines.generators import names, weights_file
from engines.generators.networked.blueprint import Blueprint, Made, warped
from engines.generators.networked.lesson import Judges, Lesson
from engines.generators.networked.picture import Size
from engines.generators.networked.scene import Scene
from engines.generators.networked.window import WindowGenerator
from engines.generators.registry import GENERATORS, windowed
from engines.head.model import load_head_model
from engines.renderer import Renderer
from scripts import train
from scripts.evaluation.cost import opened_work
from scripts.training.table import read_table

ROOT = Path(__file__).parents[1]


# --- a generator, told once --------------------------------------------------------------------------


@dataclass(frozen=True)
class Widths:
    """Of either toy."""

    width: int = 6


class Painting(nn.Module):
    """Two convolutions."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.both = nn.Sequential(nn.Conv2d(inputs, width, 3, 1, 1), nn.SiLU(), nn.Conv2d(width, 4, 3, 1, 1))

    def forward(self, guide: Tensor) -> Tensor:
        return self.both(guide).sigmoid()


class Plain(Blueprint[Widths]):
    """Paints the head out of what its rendered face shows."""

    kind = NetworkKind("plain", 1, "scripts.train")
    config_type = Widths
    window = Size(48, 64)

    def networks(self) -> nn.Module:
        return Painting(10, self.config.width)

    def inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        return (torch.cat([scene.rendered_face(), scene.pncc(), scene.photo_at(self.window)], 1),)

    def losses(self, made: Made, lesson: Lesson, judges: Judges) -> dict[str, Tensor]:
        return {"l1": (lesson.over(made.rgba) - lesson.truth_at(self.window)).abs().mean()}


# --- and one with a flow, an encoder and a window of motions -----------------------------------------


class Moving(nn.Module):
    """Completes a flow by the photo's features and by how the head has moved lately."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(4, width, 4, 4)
        self.motion = nn.Linear(3 * 65, width)
        self.last = nn.Conv2d(2 + width, 2, 3, 1, 1)
        self.colour = nn.Conv2d(2 + width, 4, 3, 1, 1)
        for layer in (self.last, self.colour):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, photo: Tensor, flow: Tensor, motion: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        large = nn.functional.interpolate(features, scale_factor=4.0, mode="nearest")
        seen = torch.cat([flow, large + self.motion(motion)[:, :, None, None]], 1)
        own = flow + 0.1 * self.last(seen)
        return warped(photo, own.float()) + 0.1 * self.colour(seen), own


class Warped(Blueprint[Widths]):
    """See above."""

    kind = NetworkKind("warped", 1, "scripts.train")
    config_type = Widths
    window = Size(64, 64)
    past = 2

    def networks(self) -> Moving:
        return Moving(self.config.width)

    def photo_inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        return (scene.photo_at(self.window),)

    def encode(self, networks: nn.Module, photo: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert isinstance(networks, Moving)
        return (networks.encoder(*photo),)

    def inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        return scene.photo_at(self.window), scene.flow(), scene.motions.flatten(1)

    def losses(self, made: Made, lesson: Lesson, judges: Judges) -> dict[str, Tensor]:
        return {"l1": (lesson.over(made.rgba) - lesson.truth_at(self.window)).abs().mean()}


# --- and one that completes what geometry draws -------------------------------------------------------


class Completed(Plain):
    """Paints over the picture of `geometric`."""

    kind = NetworkKind("completed", 1, "scripts.train")
    base = "geometric"

    def inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        assert scene.picture is not None
        return (torch.cat([scene.picture.at(self.window), scene.pncc(), scene.rendered_face()], 1),)


TOYS: dict[str, type[Blueprint[Widths]]] = {"plain": Plain, "warped": Warped, "completed": Completed}


@pytest.fixture(params=sorted(TOYS))
def toy(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A toy's name, known to the registry; its weights are those that a training is yet to write."""
    name: str = request.param
    blueprint = TOYS[name]
    monkeypatch.setitem(GENERATORS, name, windowed(lambda: blueprint))
    monkeypatch.setattr(weights_file, "DATA", tmp_path)
    return name


def train_it(name: str, pairs: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> Path:
    weights = folder / f"{name}.safetensors"
    given = [
        "train", str(pairs), "--generator", name, "--steps", "30", "--batch", "4", "--no-perceptual", "--threads", "1",
        "--device", "cpu", "--runs", str(folder / "run"), "-o", str(weights), "--rate", "0.02", *more,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", given)
    threads = torch.get_num_threads()
    try:
        train.main()
    finally:
        torch.set_num_threads(threads)
    return weights


@pytest.mark.slow
def test_thirty_lines_are_a_generator(
    toy: str, astronaut: Enrollment, drawn_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained, judged, saved, served, exported and counted; nothing else is touched."""
    weights = train_it(toy, drawn_pairs, tmp_path, monkeypatch, "--config", "width=5")
    judged = read_table(tmp_path / "run" / "judged.csv")
    assert judged[-1]["step"] == 30
    assert judged[-1]["l1"] < judged[0]["l1"]
    assert judged[-1]["l1_base"] > 0
    assert (tmp_path / "run" / "grid.png").stat().st_size > 1000
    _, header = load_weights(weights, TOYS[toy].kind)
    assert header.config == {"width": 5}

    renderer = Renderer(astronaut, generator=toy, size_px=256)
    assert renderer.notice is None
    assert renderer.wait_until_compiled()
    assert renderer.generator_name == toy
    still, turned = (renderer.render(m) for m in (astronaut.motion, moved(astronaut.motion, yaw=15)))
    assert still.shape == (256, 256, 3)
    assert np.abs(still.astype(int) - turned).mean() > 0.5

    model = load_head_model()
    generator = GENERATORS[toy].open(model)
    assert isinstance(generator, WindowGenerator)
    for module, example in generator.networks:
        expected = TorchEngine().compile(module, example, "fp32")(*example)
        for a, b in zip(expected, OpenVinoEngine().compile(module, example, "fp32")(*example), strict=True):
            assert a.shape == b.shape
            assert float((a - b).abs().max()) < 1e-3
    work = opened_work(model, toy)
    assert work is not None
    assert 0 < work.frame_gflop < 0.1
    assert toy in names.generators_for_calls(2)
    weights.unlink()
    assert toy not in names.generators_for_calls(2)


@pytest.mark.parametrize("name", sorted(n for n, entry in GENERATORS.items() if entry.blueprint is not None))
def test_without_weights_geometric_draws_and_says_so(
    name: str, astronaut: Enrollment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = GENERATORS[name].blueprint
    assert make is not None
    monkeypatch.setattr(make(), "weights_path", lambda: tmp_path / f"{name}.safetensors")
    with pytest.raises(
        WeightsError, match=rf"{name}\.safetensors are missing; .* train anew: .*scripts\.train"
    ):
        GENERATORS[name].open(load_head_model())
    renderer = Renderer(astronaut, generator=name, size_px=64)
    assert renderer.generator_name == "geometric"
    assert renderer.notice is not None
    assert renderer.notice.startswith("drawing with geometric: ")
    assert f"{name}.safetensors are missing" in renderer.notice
    assert renderer.render(astronaut.motion).shape == (64, 64, 3)


@pytest.mark.slow
def test_a_warp_is_as_sharp_as_the_photo(
    astronaut: Enrollment, drawn_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a window of 64 pixels, in a picture of 512: the photo itself is warped, what networks drew is put on it."""
    monkeypatch.setattr(weights_file, "DATA", tmp_path)
    monkeypatch.setitem(GENERATORS, "warped", windowed(lambda: Warped))
    monkeypatch.setattr(sys, "argv", [])
    train_it("warped", drawn_pairs, tmp_path, monkeypatch)
    drawn = Renderer(astronaut, generator="warped", size_px=512).render(moved(astronaut.motion, yaw=8))
    floor = Renderer(astronaut, generator="geometric", size_px=512).render(moved(astronaut.motion, yaw=8))

    def detail(picture: np.ndarray) -> float:
        return float(np.abs(np.diff(picture[150:350, 150:350].astype(int), axis=1)).mean())

    assert detail(drawn) > 0.7 * detail(floor)


@pytest.mark.slow
def test_whoever_stands_in_the_registry_can_be_named_on_the_command_line() -> None:
    register = (
        "from engines.generators.registry import GENERATORS, windowed\n"
        "GENERATORS['toy'] = windowed(lambda: None)\n"
        "import sys\n"
    )
    commands = (
        ("sys.argv = ['visavis', 'animate', '--help']\nfrom streamer.cli.main import app\napp()", "toy"),
        ("sys.argv = ['train', '--help']\nfrom scripts.train import main\nmain()", "toy"),
    )
    for code, wanted in commands:
        done = subprocess.run(
            [sys.executable, "-c", register + code],
            cwd=ROOT, capture_output=True, text=True, timeout=600, env={"COLUMNS": "200", "PATH": "", "HOME": "/tmp"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert wanted in done.stdout


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--without", "left_ear"], "plain has no part left_ear"),
        (["--config", "height=3"], "--config height=3: there is width"),
        (["--config", "width=3,4"], "width is 6 by default"),
        (["--config", "width=wide"], "--config width=wide"),
        (["--config", "width=0"], "--config width=0"),
    ],
)
def test_what_cannot_be_left_out_or_set_is_told(given: list[str], message: str) -> None:
    without = given[1] if given[0] == "--without" else ""
    config = given[1:] if given[0] == "--config" else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GENERATORS, "plain", windowed(lambda: Plain))
        with pytest.raises(train.TrainingError, match=message):
            train.blueprint_of("plain", without, config, None)


def test_a_small_size_is_for_whoever_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GENERATORS, "plain", windowed(lambda: Plain))
    small = train.blueprint_of("plain", "", [], 32)
    assert (small.window, small.raster_size()) == (Size(24, 32), Size(24, 32))
    assert Plain.window == Size(48, 64)
    for size in (0, -4):
        with pytest.raises(train.TrainingError, match="16 or more"):
            train.blueprint_of("plain", "", [], size)
    with pytest.raises(train.TrainingError, match="visavis has one size, 128 px"):
        train.blueprint_of("visavis", "", [], 64)


@pytest.mark.parametrize(
    ("name", "refused", "window"),
    [
        ("ifaceuv", (32, 80, 250), Size(128, 128)),
        ("multiguidance", (32, 100), Size(128, 128)),
        ("pwm", (16, 40, 100), Size(128, 128)),
        ("pncc", (8, 72, 90), Size(96, 128)),
        ("idmatch", (8, 100), Size(128, 128)),
    ],
)
def test_a_size_that_layers_cannot_halve_is_refused(
    name: str, refused: tuple[int, ...], window: Size
) -> None:
    make = GENERATORS[name].blueprint
    assert make is not None
    blueprint = make()
    for height_px in refused:
        with pytest.raises(
            ValueError, match=f"{name}'s window is a multiple of .* px high, .* or more; {height_px} px"
        ):
            blueprint(height_px=height_px)
    assert blueprint(height_px=128).window == window
    least = blueprint(height_px=blueprint.least_px)
    assert least.window.height_px == blueprint.least_px
