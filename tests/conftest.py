"""What many tests share: one public-domain person, enrolled once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

# as the command line does, before numpy is imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from browser import launched, required_chromium, write_camera
from clips import DemoClip, render
from fakes import AT_LAST_S, sine, write_video
from hypothesis import HealthCheck, settings
from PIL import Image
from skimage import data
from visitor import Visitor

from calibration import photo_apart
from calibration.enroll import enroll
from engines.enrollment import Enrollment
from engines.native.loader import wait_for_kernels
from engines.renderer import Framing
from streamer.kept import ENVIRONMENT_FOLDER

# a busy computer must not fail a property; each run draws the same examples
settings.register_profile(
    "visavis", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("visavis")


# nor a photo that a child process opens
photo_apart.WITHIN_S = AT_LAST_S

# a shell that starts the tests in the background has them ignore these, and so would every program that
# the tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("SIGHUP", "SIGTERM"):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def kept_avatars(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where avatars are kept, for every test and what it starts: never where this computer's user keeps theirs."""
    folder = tmp_path_factory.mktemp("kept") / "avatars"
    os.environ[ENVIRONMENT_FOLDER] = str(folder)
    yield folder
    del os.environ[ENVIRONMENT_FOLDER]


@pytest.fixture(scope="session", autouse=True)
def _settled() -> None:
    """The compiled drawing is there before the first picture, so that no two of one test are drawn by two hands."""
    assert wait_for_kernels()


@pytest.fixture(scope="session")
def astronaut_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Portrait of an astronaut (NASA, public domain), 512 × 512 PNG."""
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


@pytest.fixture(scope="session")
def astronaut(astronaut_photo: Path) -> Enrollment:
    """The astronaut, enrolled; at rest she smiles as in the photo. Shared: never change its arrays in place."""
    return replace(enroll(astronaut_photo, consent="public domain"), controls=None)


@pytest.fixture(scope="session")
def drawn_pairs(astronaut: Enrollment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of two people to train on and one held out, whose true frames are darker than geometry draws them.

    Shared by all tests: copy the folder to change what is in it.
    """
    from drawn import drawn_item
    from test_generator import moved

    from scripts.generators.item import save_item

    folder = tmp_path_factory.mktemp("pairs")
    for k, name in enumerate(("ada_01", "bea_01", "eve_01")):
        motions = [moved(astronaut.motion, yaw=4 * (k + n), jawOpen=0.2 * n) for n in range(4)]
        item = drawn_item(astronaut, motions, name, held_out=k == 2, tint=0.7)
        save_item(folder / f"{name}.safetensors", item)
    return folder


@pytest.fixture(scope="session")
def demo_clip(astronaut: Enrollment, tmp_path_factory: pytest.TempPathFactory) -> DemoClip:
    """`demo_clip(seconds, fps, size)`: an .mp4 with a sine; made once for each set of arguments."""
    folder = tmp_path_factory.mktemp("clips")

    def make(
        seconds: float = 3.0, fps: float | Fraction = 25, size: int = 512, framing: Framing = "head"
    ) -> Path:
        rate = Fraction(fps).limit_denominator(1001)
        path = folder / f"{seconds:g}s-{float(rate):.2f}fps-{size}-{framing}.mp4"
        if not path.exists():
            count = round(seconds * rate)
            times_s = [float(k / rate) for k in range(count)]
            pictures = render(astronaut, times_s, size, framing)
            part = path.with_name(f"part-{path.name}")
            write_video(part, pictures, fps=rate, audio=sine(float(count / rate)))
            part.rename(path)
        return path

    return make


@pytest.fixture(scope="module")
def chromium(demo_clip: DemoClip, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium whose camera sees a face; skips, with the reason, where there is none."""
    required_chromium()
    with launched(*write_camera(demo_clip(3, 30, 480), tmp_path_factory.mktemp("camera"), 3)) as browser:
        yield browser


@pytest.fixture
def context(chromium: Any) -> Iterator[Any]:
    """One visitor's part of the browser, on a desktop."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    yield context
    context.close()


@pytest.fixture
def visitor(context: Any) -> Visitor:
    """A visitor that has not opened anything yet."""
    return Visitor(context)
