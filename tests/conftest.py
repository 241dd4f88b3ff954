"""What many tests share: one public-domain person, enrolled once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# as the command line does, before numpy is imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from PIL import Image
from skimage import data

from calibration.enroll import enroll
from engines.enrollment import Enrollment

# a busy computer must not fail a property; each run draws the same examples
settings.register_profile("visavis", deadline=None, derandomize=True)
settings.load_profile("visavis")


# a shell that starts the tests in the background has them ignore these, and so would every program that
# the tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("SIGHUP", "SIGTERM"):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


@pytest.fixture(scope="session")
def astronaut_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Portrait of an astronaut (NASA, public domain), 512 × 512 PNG."""
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


@pytest.fixture(scope="session")
def astronaut(astronaut_photo: Path) -> Enrollment:
    """The astronaut, enrolled. Shared by all tests: never change its arrays in place."""
    return enroll(astronaut_photo, consent="public domain")
