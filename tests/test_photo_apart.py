"""Uploads are decoded in a process of their own: the same photo or the same error, and hostile bytes end with it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from bombs import BOMBS, jpeg_of_many_scans
from fakes import AT_LAST_S, encoded, picture
from PIL import Image

from calibration import photo_apart
from calibration.photo import Photo, open_photo
from calibration.photo_apart import CHILD, Cancelled, open_photo_apart
from calibration.photo_child import DATA_BYTES
from calibration.photo_kinds import count_scans
from engines.errors import PhotoError

pytestmark = pytest.mark.slow  # real child processes

PICTURE = picture(0, 200, 160)


def apart(data: bytes, within_s: float = AT_LAST_S, **options: object) -> Photo:
    return open_photo_apart(io.BytesIO(data), within_s=within_s, **options)  # pyright: ignore[reportArgumentType]


def fake(code: str) -> Sequence[str]:
    """A child that does something else; it has read what it was given."""
    return (
        sys.executable,
        "-I",
        "-c",
        f"import os, sys, time, json; given = os.read(0, 99); say = lambda b: os.write(1, b)\n{code}",
    )


@pytest.fixture(autouse=True)
def no_child_is_left() -> Generator[None]:
    """Whatever happened, every child has been waited for."""
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "HEIF", "AVIF", "GIF", "TIFF", "BMP"])
def test_a_photo_is_the_same_apart(kind: str) -> None:
    """Nothing of a decoder is loaded late: the child cannot open a file any more."""
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if kind in {"GIF", "BMP"} else {"exif": exif.tobytes()}
    data = encoded(PICTURE, kind, **options)
    one, other = open_photo(data), apart(data)
    assert (one.image == other.image).all()
    assert other.image.flags.writeable
    for name in ("original_size_px", "sha256", "format", "notices"):
        assert getattr(one, name) == getattr(other, name)


def test_colours_are_converted_apart_too() -> None:
    from test_photo import swapped_profile

    for options in ({"icc_profile": swapped_profile()}, {"icc_profile": b"junk"}):
        data = encoded(PICTURE, "PNG", **options)
        one, other = open_photo(data), apart(data)
        assert (one.image == other.image).all()
        assert one.notices == other.notices
    cmyk = encoded(Image.fromarray(PICTURE).convert("CMYK"), "JPEG")
    assert apart(cmyk).notices == open_photo(cmyk).notices


def test_a_large_photo_is_scaled_apart() -> None:
    data = encoded(picture(0, 3000, 1500), "JPEG")
    assert apart(data, max_side_px=512).image.shape == (256, 512, 3)
    assert apart(data).original_size_px == (3000, 1500)


@pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.7", encoded(PICTURE, "PNG")[:500]])
def test_an_error_is_the_same_apart(data: bytes) -> None:
    with pytest.raises(PhotoError) as one:
        open_photo(data)
    with pytest.raises(PhotoError) as other:
        apart(data)
    assert str(one.value) == str(other.value)


def test_a_file_is_read_from_its_place_on() -> None:
    file = io.BytesIO(b"junk" + encoded(PICTURE, "PNG"))
    file.seek(4)
    assert (open_photo_apart(file).image == PICTURE).all()


# a child that is not what it should be


def test_a_child_that_hangs_is_ended() -> None:
    with pytest.raises(PhotoError, match="takes too long to open; save it smaller, as JPEG"):
        apart(b"x", command=fake("time.sleep(3600)"), within_s=0.2)


def test_a_child_that_hangs_in_the_middle_of_its_answer_is_ended() -> None:
    with pytest.raises(PhotoError, match="takes too long"):
        apart(b"x", command=fake("say(b'{'); time.sleep(3600)"), within_s=0.2)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("os.kill(os.getpid(), 9)", "damaged or too large to open here"),
        ("os.abort()", "damaged or too large to open here"),
        ("os.kill(os.getpid(), 24)", "takes too long"),  # SIGXCPU
        ("sys.exit(0)", "damaged or too large"),
        ("say(b'nonsense')", "damaged or too large"),
        ("say(b'nonsense\\n')", "damaged or too large"),
        ("say(b'[]\\n')", "damaged or too large"),
        ("say(b'{}\\n')", "damaged or too large"),
        ("say(b'[' * 9000 + b'\\n')", "damaged or too large"),
        ("say(b'x' * 100000)", "damaged or too large"),
        ("say(json.dumps({'error': 'two ' * 9999}).encode() + b'\\n')", "damaged or too large"),
        ("say(json.dumps({'error': 'one\\ntwo'}).encode() + b'\\n')", "^one two$"),
    ],
)
def test_a_child_that_dies_or_talks_nonsense_is_an_error(code: str, says: str) -> None:
    with pytest.raises(PhotoError, match=says):
        apart(b"x", command=fake(code))


GOOD = {"size_px": [64, 64], "original_size_px": [64, 64], "format": "PNG", "notices": []}


@pytest.mark.parametrize(
    "lie",
    [
        {},
        {"size_px": [64, 65]},
        {"size_px": [64, 63]},
        {"size_px": [-64, -64]},
        {"size_px": [64, 64, 3]},
        {"size_px": [1e999, 64]},
        {"size_px": ["64", None]},
        {"size_px": [1 << 40, 1 << 40]},
        {"size_px": [3, 4096]},
        {"original_size_px": [0, 0]},
        {"original_size_px": [1 << 60, 1]},
        {"format": "EPS"},
        {"notices": "none"},
        {"notices": ["x"] * 99},
        {"notices": None},
    ],
)
def test_a_child_that_lies_is_not_believed(lie: dict[str, object]) -> None:
    told = json.dumps(GOOD | lie)
    code = f"say({told!r}.encode() + b'\\n' + bytes(64 * 64 * 3))"
    if not lie:
        assert apart(b"x", command=fake(code)).image.shape == (64, 64, 3)
        return
    with pytest.raises(PhotoError, match="damaged or too large to open here"):
        apart(b"x", command=fake(code))


def test_a_child_that_never_stops_talking_is_cut_off() -> None:
    code = "while True: say(bytes(1 << 16))"
    with pytest.raises(PhotoError, match="damaged or too large"):
        apart(b"x", command=fake(code), max_side_px=256)


def test_when_nobody_waits_any_more_the_child_is_ended() -> None:
    cancelled = threading.Event()
    failed: list[BaseException] = []

    def wait() -> None:
        try:
            apart(b"x", command=fake("time.sleep(3600)"), cancelled=cancelled)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    cancelled.set()
    thread.join(AT_LAST_S)
    assert [type(error) for error in failed] == [Cancelled]


# what the child can do


def in_the_child(code: str) -> str:
    """What `code` prints to stderr in a child that has limited itself."""
    start = (
        f"import sys, os, resource as limits; sys.path.append({CHILD[-1]!r})\n"
        "from calibration.photo_child import limit_this_process\nlimit_this_process(0, 100)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", start + code], capture_output=True, timeout=AT_LAST_S, check=False
    )
    return done.stderr.decode() + str(done.returncode)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("open('/etc/hostname')", "Too many open files"),
        ("os.pipe()", "Too many open files"),
        ("os.open('/tmp/x', os.O_CREAT | os.O_WRONLY)", "Too many open files"),
        (f"bytearray({DATA_BYTES})", "MemoryError"),
        ("[bytearray(1 << 20) for _ in range(2000)]", "MemoryError"),
        (
            "limits.setrlimit(limits.RLIMIT_CPU, (1, 4))\nwhile True: pass",
            "-24",
        ),  # SIGXCPU: it was not switched off
    ],
)
def test_what_the_child_may_not(code: str, says: str) -> None:
    assert says in in_the_child(code)


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_the_child_works_where_it_may_raise_no_limit_and_no_priority() -> None:
    """A server that was started with low priority and under `ulimit`, by a user who may change neither."""
    code = (
        "import os, sys, ctypes, resource as limits\nos.nice(15)\n"
        "for what, most in ((limits.RLIMIT_CPU, 3), (limits.RLIMIT_AS, 600 << 20), (limits.RLIMIT_NOFILE, 64)):\n"
        "    limits.setrlimit(what, (most, most))\n"
        # PR_CAPBSET_DROP of CAP_SYS_NICE and CAP_SYS_RESOURCE: not even root has them from here on
        "for capability in (23, 24): ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = (sys.executable, "-I", "-c", code, *CHILD)
    assert (apart(encoded(PICTURE, "PNG"), command=command).image == PICTURE).all()
    assert apart(encoded(PICTURE, "HEIF"), command=command).format == "HEIF"


def test_the_child_knows_nothing_of_the_servers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_TOKEN", "secret")
    code = "say(json.dumps({'error': ' '.join(os.environ)}).encode() + b'\\n')"
    with pytest.raises(PhotoError) as caught:
        apart(b"x", command=fake(code))
    assert "VISAVIS_TOKEN" not in str(caught.value)
    assert "OMP_NUM_THREADS" in str(caught.value)


def test_the_child_imports_no_network_and_no_torch() -> None:
    code = "import sys; sys.path.append(sys.argv[1]); import calibration.photo_child; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", code, CHILD[-1]], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "mediapipe", "cv2", "scipy", "openvino", "socket", "urllib.request", "av"}


# bombs


def test_scans_of_a_jpeg_are_counted() -> None:
    assert count_scans(encoded(PICTURE, "JPEG")) == 1
    assert 5 < count_scans(encoded(PICTURE, "JPEG", progressive=True)) < 15
    assert count_scans(jpeg_of_many_scans(500)) > 500
    # what follows the picture, such as the film of a motion photo, is not looked at
    assert count_scans(encoded(PICTURE, "JPEG") + b"\xff\xda" * 500) == 1
    assert count_scans(encoded(PICTURE, "JPEG", comment=b"\xff\xda" * 500)) == 1
    assert count_scans(b"\xff\xd8") == count_scans(b"\xff\xd8\xff\xda") - 1 == 0


def test_a_jpeg_of_thousands_of_scans_is_refused_unopened() -> None:
    with pytest.raises(PhotoError, match="3009 scans, which takes minutes to open; save it"):
        open_photo(jpeg_of_many_scans())


# Runs the child and notes what it had in memory at most: `RUSAGE_CHILDREN` of this process would tell what *it* has,
# which its children share until they are programs of their own.
COUNTING = """
import os, sys
place, *command = sys.argv[1:]
child = os.posix_spawn(command[0], command, os.environ)
_, _, usage = os.wait4(child, 0)
with open(place, "w") as file:
    file.write(str(usage.ru_maxrss))
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_a_photo_or_one_sentence(name: str, tmp_path: Path) -> None:
    """Within a count of bytes, not of seconds."""
    counted = tmp_path / "counted"
    command = (sys.executable, "-I", "-c", COUNTING, str(counted), *CHILD)
    said = ""
    try:
        photo = apart(BOMBS[name](), command=command)
        assert max(photo.image.shape) <= 2048
    except PhotoError as error:
        said = str(error)
    assert not said or "; " in said
    assert "\n" not in said
    if name == "png_of_zeros":
        assert "needs more memory than an upload may take; save it with at most" in said
    assert int(counted.read_text()) * 1024 < 550e6


@pytest.mark.timing
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_less_than_five_seconds(name: str) -> None:
    data = BOMBS[name]()
    begun_s = time.monotonic()
    with suppress(PhotoError):
        apart(data, 4.5)
    assert time.monotonic() - begun_s < 5


def test_the_answer_is_never_believed_beyond_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_apart, "_MAX_HEADER_BYTES", 64)
    with pytest.raises(PhotoError, match="damaged"):
        apart(encoded(PICTURE, "PNG"))


def test_pixels_are_pixels(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 301, 3), np.uint8)
    path = tmp_path / "noise.png"
    path.write_bytes(encoded(noise, "PNG"))
    with path.open("rb") as file:
        assert (open_photo_apart(file).image == noise).all()
