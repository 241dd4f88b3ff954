"""The command line as a person and a script meet it: examples, one-line failures, whole jobs."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import av
import numpy as np
import pytest
from clips import DemoClip, length_s, pictures_of
from fakes import AT_LAST_S, picture, write_video
from numpy.typing import NDArray
from PIL import Image

from engines.enrollment import Enrollment, load_enrollment, save_enrollment
from engines.presets import PRESET_NAMES
from engines.retarget import CHOICES, Controls
from engines.templates import load_templates
from streamer import __version__
from streamer.cli import main as cli
from streamer.cli.controls import OPTIONS, HeadChoice, MotionMode, RegionChoice
from streamer.cli.terminal import log_to_terminal

ROOT = Path(__file__).parent.parent
COMMANDS = (
    "enroll", "animate", "run", "serve", "avatars", "emotions", "frontalize", "edit", "settings", "latency", "doctor",
    "devices", "compile",
)  # fmt: skip
# started as users start it; every run is a real process, so only whole flows are
VISAVIS = [sys.executable, "-m", "streamer.cli.main"]


def visavis(
    *arguments: str | Path, cwd: Path | None = None, timeout_s: float = 5 * AT_LAST_S
) -> subprocess.CompletedProcess[str]:
    """One real run, without a terminal."""
    return subprocess.run(
        [*VISAVIS, *map(str, arguments)],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip


class Called:
    """Exit code and output of `main` called in this process."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Call = Callable[..., Called]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """`call("enroll", …)`: the entry point in this process, quicker than a new one."""

    def run(*arguments: str | Path) -> Called:
        monkeypatch.setattr(sys, "argv", ["visavis", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return Called(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture(scope="module")
def avatar(astronaut: Enrollment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("avatar") / "a.avatar"
    save_enrollment(astronaut, path)
    return path


def assert_one_line(called: Called, *, code: int, says: str) -> None:
    lines = called.err.strip().splitlines()
    assert called.code == code, called.err
    assert len(lines) == 1, called.err
    assert lines[0].startswith("visavis: ")
    assert re.search(says, lines[0]), lines[0]
    assert "Traceback" not in called.err
    assert called.out == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_it_does_with_an_example(call: Call, command: str) -> None:
    called = call(command, "--help")
    assert called.code == 0
    text = " ".join(called.out.split())
    assert f"Example: visavis {command}" in text.replace("`", "")
    assert called.err == ""


def test_help_lists_every_command_and_is_what_no_command_shows(call: Call) -> None:
    listed, bare = call("--help"), call()
    assert listed.code == bare.code == 0
    assert listed.out == bare.out
    assert all(f" {command} " in listed.out for command in COMMANDS)


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; sys.argv = ['visavis', 'animate', '--help']\n"
        "import streamer.cli.main\n"
        "try: streamer.cli.main.main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'mediapipe', 'cv2', 'av', 'openvino', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=AT_LAST_S, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_version(call: Call) -> None:
    called = call("--version")
    assert (called.code, called.out.strip(), called.err) == (0, f"visavis {__version__}", "")


FAILURES: list[tuple[Sequence[str], int, str]] = [
    (["frob"], 2, "No such command 'frob'; see `visavis --help`"),
    (["enroll"], 2, "Missing argument .*see `visavis enroll --help`"),
    (["animate", "A"], 2, "Missing option '--driver'"),
    (["animate", "A", "--driver", "V", "-o", "o.mp4", "--size", "5"], 2, r"'--size': .*64"),
    (["animate", "A", "--driver", "V", "-o", "o.mp4", "--size", "9000"], 2, r"'--size': .*1024"),
    (["animate", "A", "--driver", "V", "-o", "o.mp4", "--size", "big"], 2, r"'--size'"),
    (["animate", "A", "--driver", "V", "-o", "o.mp4", "--motion", "x"], 2, "'relative', 'absolute'"),
    (["animate", "A", "--driver", "V", "-o", "o.mp4", "--framing", "x"], 2, "'head', 'photo'"),
    (["animate", "A", "--driver", "V", "-o", "o.mp4", "--bogus"], 2, "No such option.*--bogus"),
    (["animate", "A", "--driver", "V", "-o", "o.mp4", "--expression", "7"], 2, "'--expression'"),
    (
        ["animate", "A", "--driver", "V", "-o", "o.mp4", "--region", "x"],
        2,
        "'all', 'exp', 'pose', 'lip', 'eyes'",
    ),
    (["run", "A", "--from", "V", "--to", "o.mp4", "--lips", "2.5"], 2, "'--lips': .*2"),
    (
        ["run", "A", "--from", "V", "--to", "o.mp4", "--preset", "bored"],
        1,
        "'bored'; choose one of: none, neutral",
    ),
    (
        ["animate", "A", "--driver", "V", "-o", "o.mp4", "--preset", "bored"],
        1,
        "'bored'; choose one of: none",
    ),
    (
        ["serve", "--avatar", "A", "--port", "0", "--preset", "bored"],
        1,
        "'bored'; choose one of: none, neutral",
    ),
    (["emotions", "A"], 2, "Missing option .*'--output'"),
    (["emotions", "A", "-o", "faces", "--strength", "3"], 2, "'--strength'"),
    (["emotions", "A", "-o", "no/where"], 1, "the folder no does not exist; make it with `mkdir -p no`"),
    (["emotions", "A", "-o", "TEXT"], 1, "text.txt is a file; name a folder with -o"),
    (["emotions", "A", "-o", "faces", "--generator", "x"], 1, "choose one of: .*geometric"),
    (["emotions", "A", "-o", "faces", "--faces", "bored"], 1, "'bored' is no file; .*presets or templates"),
    (["emotions", "A", "-o", "faces", "--faces", "TEXT"], 1, "text.txt is no templates file .*scripts.build"),
    (["emotions", "nope.avatar", "-o", "faces"], 1, "no avatar file .*visavis enroll"),
    (["frontalize", "nope.jpg", "-o", "o.png"], 1, "no file nope.jpg"),
    (["frontalize", "NOBODY", "-o", "o.png"], 1, "no face found; use a photo"),
    (["frontalize", "A", "-o", "o.gif"], 1, r"o\.gif is no picture file; name one that ends in \.png"),
    (["frontalize", "nope.avatar", "-o", "o.png"], 1, "no avatar file .*visavis enroll"),
    (
        ["edit", "A", "-o", "o.png", "--set", "jawOpen"],
        1,
        "'jawOpen' has no name or no value; .*--set jawOpen=0.4",
    ),
    (
        ["edit", "A", "-o", "o.png", "--set", "jawOpen=wide"],
        1,
        "'wide' is no number; write it as --set jawOpen=0.4",
    ),
    (["edit", "A", "-o", "o.png", "--set", "grin=1"], 1, "no coefficient 'grin'; choose one of: browDown"),
    (["edit", "A", "-o", "o.png", "--set", "jawOpen=2"], 1, "jawOpen is 2; give a number from -0.3 to 1.3"),
    (["edit", "A", "-o", "o.png", "--yaw", "90"], 1, "yaw is 90; give a number from -60 to 60"),
    (["edit", "A", "-o", "o.png", "--yaw", "left"], 2, "'--yaw'"),
    (
        ["edit", "A", "-o", "o.png", "--shape", "nose=1"],
        1,
        "a shape has a number, not a name; .*--shape 0=1.5",
    ),
    (["edit", "A", "-o", "no/o.png"], 1, "mkdir -p no"),
    (["settings", "A", "--set", "lips=3"], 1, "lips is 3.0; give a number from 0 to 2"),
    (["settings", "A", "--set", "lip=1"], 1, "no setting 'lip'; choose one of: expression, lips"),
    (["settings", "A", "--set", "keep_lips=0.5"], 1, "keep_lips is 0.5; give true or false"),
    (["settings", "A", "--set", "lips"], 1, "write it as --set lips=0.8"),
    (["settings", "TEXT"], 1, "not an avatar .*visavis enroll"),
    (["enroll", "nope.jpg"], 1, "no file nope.jpg"),
    (["enroll", "TEXT"], 1, "text.txt"),
    (["enroll", "NOBODY"], 1, "no face found; use a photo"),
    (["animate", "nope.avatar", "--driver", "V", "-o", "o.mp4"], 1, "no avatar file .*visavis enroll"),
    (["animate", "TEXT", "--driver", "V", "-o", "o.mp4"], 1, "not an avatar .*visavis enroll"),
    (["animate", "A", "--driver", "nope.mp4", "-o", "o.mp4"], 1, "nope.mp4 does not exist"),
    (["animate", "A", "--driver", "nope.jsonl", "-o", "o.mp4"], 1, "cannot read the motion file nope.jsonl"),
    (["animate", "A", "--driver", "TEXT", "-o", "o.mp4"], 1, "is not a video"),
    (["animate", "A", "--driver", "V", "-o", "o.avi"], 1, r"ends in \.mp4"),
    (["animate", "A", "--driver", "V", "-o", "no/where/o.mp4"], 1, "mkdir -p no/where"),
    (["animate", "A", "--driver", "V", "-o", "o.mp4", "--motion-out", "no/where/m.jsonl"], 1, "mkdir -p"),
    (
        ["animate", "A", "--driver", "V", "-o", "o.mp4", "--trace", "no/where/t.jsonl"],
        1,
        "cannot write the tr",
    ),
    (["animate", "A", "--driver", "V", "-o", "o.mp4"], 1, "no face found in v.mp4"),
    (["animate", "A", "--driver", "V", "-o", "o.mp4", "--generator", "x"], 1, "choose one of: .*geometric"),
    (["run", "A", "--from", "V", "--to", "o.mp4", "--generator", "x"], 1, "choose one of: .*geometric"),
    (["animate", "A", "--driver", "V", "-o", "o.mp4", "--tracker", "x"], 1, "choose one of: .*regressor"),
    (["run", "A", "--from", "V", "--to", "o.mp4", "--tracker", "x"], 1, "choose one of: .*regressor"),
    (["run", "A", "--from", "nope.mp4", "--to", "o.mp4"], 1, "nope.mp4 does not exist"),
    (["run", "A", "--from", "webcam:x", "--to", "o.mp4"], 1, "webcam:N"),
    (["run", "A", "--from", "V", "--to", "V"], 1, "the driving video itself"),
    (["run", "A", "--from", "/dev/video3", "--to", "o.mp4"], 1, "/dev/video3 is a camera; write webcam:3"),
    (["run", "A", "--from", "rtsp://cam/1", "--to", "o.mp4"], 1, "rtsp://cam/1 is .*no network sources"),
    (["run", "A", "--from", "vts:10.0.0.7", "--to", "o.mp4"], 1, "no slashes; write vts://"),
    (["run", "A", "--from", "vmc://0.0.0.0", "--to", "o.mp4"], 1, r"name who may, vmc://.*\?from=ADDRESS"),
    (["run", "A", "--from", "V", "--to", "o.mp4", "--motion-to", "osc://h"], 1, "write vmc://127.0.0.1"),
    (["run", "A", "--from", "V", "--to", "/dev/video10"], 1, "write virtualcam:/dev/video10"),
    (["run", "A", "--from", "V", "--to", "rtmp://live/key"], 1, "rtmp://live/key is .*no network outputs"),
    (["animate", "A", "--driver", "/dev/video0", "-o", "o.mp4"], 1, "visavis run --from webcam:0"),
    (["animate", "A", "--driver", "http://h/v.mp4", "-o", "o.mp4"], 1, "http://h/v.mp4 is an address"),
    (["animate", "A", "--driver", "V", "-o", "/dev/video10"], 1, "run --to virtualcam:/dev/video10"),
    (["animate", "A", "--driver", "V", "-o", "rtmp://live/key"], 1, "rtmp://live/key is an address"),
    (["enroll", "/dev/video0"], 1, "/dev/video0 is a camera, no file"),
    (["enroll", "https://h/me.jpg"], 1, "https://h/me.jpg is an address"),
    (["edit", "A", "-o", "o.png", "--background", "https://h/b.png"], 1, "https://h/b.png is an address"),
    (["run", "A", "--from", "V", "--to", "nonsense"], 1, r"ends in \.mp4"),
    (["latency", "nope.jsonl"], 1, "no trace file at nope.jsonl"),
    (["latency", "TEXT"], 1, "is not a visavis latency trace"),
    (["serve", "--host", "0.0.0.0"], 1, "--token"),
    (["serve", "--port", "99999"], 2, "'--port'"),
    (["serve", "--tls-cert", "x.pem"], 1, "--tls-key"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "code", "says"), FAILURES, ids=[" ".join(f[0]) for f in FAILURES])
def test_every_failure_is_one_line(
    call: Call, avatar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: Sequence[str], code: int, says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VISAVIS_TOKEN", raising=False)
    names = {
        "A": avatar,
        "V": tmp_path / "v.mp4",
        "TEXT": tmp_path / "text.txt",
        "NOBODY": tmp_path / "n.png",
    }
    write_video(names["V"], [picture(k, 160, 120) for k in range(8)])
    names["TEXT"].write_text("just text\n" * 50)
    if "NOBODY" in arguments:
        Image.fromarray(picture(0, 320, 240)).save(names["NOBODY"])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    called = call(*[names.get(a, a) for a in arguments])
    assert_one_line(called, code=code, says=says)
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert after == before, "something was left behind"


@pytest.mark.slow
def test_a_failure_in_a_real_process_is_one_line_too(avatar: Path, tmp_path: Path) -> None:
    """With what native libraries print at their start and end."""
    write_video(tmp_path / "v.mp4", [picture(k, 160, 120) for k in range(8)])
    done = visavis("animate", avatar, "--driver", "v.mp4", "-o", "o.mp4", cwd=tmp_path)
    assert_one_line(Called(done.returncode, done.stdout, done.stderr), code=1, says="no face found in v.mp4")


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_anywhere_shows_the_traceback(tmp_path: Path, place: int) -> None:
    arguments = ["latency", "nope.jsonl"]
    arguments.insert(place, "--debug")
    done = visavis(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback (most recent call last)" in done.stderr
    assert "TraceError: no trace file at nope.jsonl" in done.stderr


def test_a_bug_is_one_line_that_asks_for_the_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamer.check import devices

    def broken() -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(devices, "list_devices", broken)
    called = call("devices")
    assert_one_line(called, code=70, says=r"ZeroDivisionError: division by zero.*visavis --debug")


def test_ctrl_c_says_stopped(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamer.check import devices

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(devices, "list_devices", interrupted)
    called = call("devices")
    assert (called.code, called.err.strip()) == (130, "visavis: stopped")


@pytest.mark.slow
def test_from_photo_to_report(astronaut_photo: Path, demo_clip: DemoClip, tmp_path: Path) -> None:
    """enroll -> animate -> latency -> doctor --json -> devices, each as its own process."""
    enrolled = visavis("enroll", astronaut_photo, "--consent", "Ada Lovelace", cwd=tmp_path)
    assert (enrolled.returncode, enrolled.stderr) == (0, "")
    assert enrolled.stdout == "astronaut.avatar\n"
    avatar = tmp_path / "astronaut.avatar"
    assert avatar.stat().st_mode & 0o777 == 0o600
    consent = load_enrollment(avatar).consent
    assert consent is not None
    assert consent.name == "Ada Lovelace"

    clip = demo_clip(3, 25, 512)
    animated = visavis(
        "animate", avatar, "--driver", clip, "-o", "o.mp4", "--size", "256",
        "--motion-out", "m.jsonl", "--trace", "t.jsonl", cwd=tmp_path,
    )  # fmt: skip
    assert (animated.returncode, animated.stderr) == (0, "")
    last = animated.stdout.splitlines()[-1]
    told = re.fullmatch(r"(\d+) frames, ([\d.]+) s, ([\d.]+) fps", last)
    assert told, last
    frames, seconds, fps = int(told[1]), float(told[2]), float(told[3])
    assert frames == 75 == len(pictures_of(tmp_path / "o.mp4"))
    assert fps == pytest.approx(frames / seconds, rel=0.01)
    assert pictures_of(tmp_path / "o.mp4")[0].shape == (256, 256, 3)

    again = visavis("animate", avatar, "--driver", "m.jsonl", "-o", "o2.mp4", "--size", "64", cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout.startswith("75 frames, ")

    reported = visavis("latency", "t.jsonl", "--perfetto", "p.json", cwd=tmp_path)
    assert (reported.returncode, reported.stdout) == (0, "t.html\n")
    assert re.fullmatch(r"75 frames, total p50 [\d.]+ ms, p95 [\d.]+ ms\n", reported.stderr)
    assert (tmp_path / "t.html").read_text().lstrip().lower().startswith("<!doctype html")
    assert json.loads((tmp_path / "p.json").read_text())

    checked = visavis("doctor", "--json", cwd=tmp_path)
    assert checked.returncode == 0
    assert json.loads(checked.stdout)
    assert checked.stderr == ""

    listed = visavis("devices", cwd=tmp_path)
    assert listed.returncode == 0
    assert all(title in listed.stdout for title in ("Cameras", "Virtual cameras", "Microphones", "Speakers"))


def png(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@pytest.mark.slow
def test_emotions_draws_22_faces_and_a_sheet(call: Call, avatar: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    called = call("emotions", avatar, "-o", out, "--size", "128", "--sheet")
    assert (called.code, called.out, called.err) == (0, f"{out}\n", "")
    assert {p.name for p in out.iterdir()} == {f"{n}.png" for n in (*PRESET_NAMES, "sheet")}
    faces = {n: png(out / f"{n}.png") for n in PRESET_NAMES}
    assert {f.shape for f in faces.values()} == {(128, 128, 3)}
    for one, other in combinations(PRESET_NAMES, 2):
        assert not np.array_equal(faces[one], faces[other]), (one, other)
    assert png(out / "sheet.png").shape[1] == 6 * 256
    theirs = tmp_path / "theirs"
    assert call("emotions", avatar, "-o", theirs, "--size", "128", "--faces", "templates").code == 0
    assert {p.stem for p in theirs.iterdir()} == set(load_templates().by_emotion)
    assert not np.array_equal(png(theirs / "happy.png"), faces["happy"])
    weak = tmp_path / "weak"
    assert call("emotions", avatar, "-o", weak, "--size", "128", "--strength", "0").code == 0
    # nothing of an emotion: the photo, which smiles
    assert np.array_equal(png(weak / "angry.png"), png(weak / "neutral.png"))
    assert not np.array_equal(png(weak / "neutral.png"), faces["neutral"])
    assert not (weak / "sheet.png").exists()


@pytest.mark.slow
def test_frontalize_takes_a_photo_or_an_avatar(
    call: Call, avatar: Path, astronaut_photo: Path, tmp_path: Path
) -> None:
    pictures = []
    for number, source in enumerate((avatar, astronaut_photo)):
        out = tmp_path / f"{number}.png"
        called = call("frontalize", source, "-o", out, "--size", "128")
        assert (called.code, called.out) == (0, f"{out}\n"), called.err
        pictures.append(png(out))
    assert pictures[0].shape == (128, 128, 3)
    difference = np.abs(pictures[0].astype(int) - pictures[1].astype(int))
    assert difference.mean() < 1, "the same face, enrolled now or before"
    bare = tmp_path / "n.png"
    assert call("frontalize", avatar, "-o", bare, "--size", "128", "--neutral").code == 0
    assert not np.array_equal(png(bare), pictures[0])


@pytest.mark.slow
def test_edit_changes_what_is_told(call: Call, avatar: Path, tmp_path: Path) -> None:
    def edited(*arguments: str) -> NDArray[np.uint8]:
        out = tmp_path / "o.png"
        called = call("edit", avatar, "-o", out, "--size", "128", *arguments)
        assert (called.code, called.out, called.err) == (0, f"{out}\n", "")
        return png(out)

    same = edited()
    told = [
        ("--set", "jawOpen=0.6"), ("--yaw", "25"), ("--pitch", "-12"), ("--roll", "10"), ("--gaze-yaw", "20"),
        ("--gaze-pitch", "15"), ("--shape", "0=2.5"), ("--neutral",),
    ]  # fmt: skip
    for arguments in told:
        assert not np.array_equal(edited(*arguments), same), arguments
    assert np.array_equal(
        edited("--set", "jawOpen=0.3", "--set", "jawOpen=0.6"), edited("--set", "jawOpen=0.6")
    )


def test_settings_are_kept_in_the_file_and_shown(call: Call, avatar: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.avatar"
    shutil.copy(avatar, own)
    shown = call("settings", own)
    assert shown.code == 0
    assert "lips=1\n" in shown.out
    assert "changed" not in shown.out
    assert load_enrollment(own).controls is None, "showing saves nothing"

    done = call("settings", own, "--set", "lips=0.8", "--set", "preset=happy", "--set", "keep_blink=off")
    assert (done.code, done.err) == (0, "")
    assert load_enrollment(own).controls == Controls(lips=0.8, preset="happy", keep_blink=False)
    more = call("settings", own, "--set", "eyes=0")
    assert "lips=0.8  (changed)\n" in more.out
    assert "keep_blink=false  (changed)\n" in more.out
    assert load_enrollment(own).controls == Controls(lips=0.8, preset="happy", keep_blink=False, eyes=0)

    assert call("settings", own, "--reset", "--set", "head=0.5").code == 0
    assert load_enrollment(own).controls == Controls(head=0.5)
    assert call("settings", own, "--reset").code == 0
    assert load_enrollment(own).controls is None
    assert own.stat().st_mode & 0o777 == 0o600


def test_settings_through_a_link_change_the_file_itself(call: Call, avatar: Path, tmp_path: Path) -> None:
    own, link = tmp_path / "own.avatar", tmp_path / "link.avatar"
    shutil.copy(avatar, own)
    link.symlink_to(own)
    assert call("settings", link, "--set", "lips=0").code == 0
    assert link.is_symlink()
    assert load_enrollment(own).controls == Controls(lips=0)


def test_a_head_that_no_motion_file_moves_is_refused(call: Call, avatar: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "talk.mp4"
    wrong.write_bytes(b"no motion")
    done = call("animate", avatar, "--driver", wrong, "-o", tmp_path / "o.mp4", "--head-motion", wrong)
    assert done.code != 0
    assert "--motion-out" in done.err
    assert not (tmp_path / "o.mp4").exists()


def test_every_control_has_its_option() -> None:
    assert set(OPTIONS) == set(Controls().to_dict())
    assert tuple(RegionChoice) == CHOICES["region"]
    assert tuple(HeadChoice) == CHOICES["head_from"]
    assert tuple(MotionMode) == CHOICES["motion"]


@pytest.mark.slow
def test_options_come_before_what_is_saved(
    call: Call, avatar: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In `animate`, `run` and `serve` alike; what was not typed is as it was saved."""
    from streamer import animate, start_live
    from streamer.serve import start as start_server

    own = tmp_path / "own.avatar"
    shutil.copy(avatar, own)
    assert call("settings", own, "--set", "lips=0.5", "--set", "preset=sad").code == 0
    seen: list[Controls | None] = []

    class Enough(Exception):
        pass

    def stop(controls: Controls | None) -> None:
        seen.append(controls)
        raise Enough

    monkeypatch.setattr(animate, "animate", lambda _enrollment, job, **_: stop(job.controls))
    monkeypatch.setattr(
        start_live, "Avatar", lambda _enrollment, _driver, options, **__: stop(options.controls)
    )
    monkeypatch.setattr(
        start_server, "create_app", lambda _, store, **__: stop(store.public()[0][1].enrollment.controls)
    )
    typed = ["--lips", "1.5", "--no-keep-blink", "--region", "exp", "--motion", "absolute"]
    video = tmp_path / "v.mp4"
    write_video(video, [picture(k, 160, 120) for k in range(8)])
    commands: list[list[str | Path]] = [
        ["animate", own, "--driver", video, "-o", tmp_path / "o.mp4"],
        ["run", own, "--from", video, "--to", tmp_path / "o.mp4"],
        ["serve", "--avatar", own, "--port", "0"],
    ]
    handler = signal.getsignal(signal.SIGTERM)
    try:
        for command in commands:
            assert "Enough" in call(*command, *typed).err
            assert "Enough" in call(*command).err
    finally:
        signal.signal(signal.SIGTERM, handler)
    wanted = Controls(lips=1.5, preset="sad", keep_blink=False, region="exp", motion="absolute")
    assert seen == [wanted, Controls(lips=0.5, preset="sad")] * 3


@pytest.mark.slow
def test_enroll_never_asks_without_a_terminal(call: Call, astronaut_photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.avatar"
    called = call("enroll", astronaut_photo, "-o", target)
    assert called.code == 0
    assert called.out == f"{target}\n"
    assert called.err.splitlines() == ["note: no consent was recorded; add --consent NAME"]
    assert load_enrollment(target).consent is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are a Unix thing")
def test_enroll_asks_on_a_terminal(astronaut_photo: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    target = tmp_path / "a.avatar"
    process = subprocess.Popen(
        [*VISAVIS, "enroll", str(astronaut_photo), "-o", str(target)],
        cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        deadline_s = time.monotonic() + AT_LAST_S
        with suppress(OSError):  # how Linux says that the other side has closed
            while time.monotonic() < deadline_s and (piece := os.read(ours, 4096)):
                if b"did they agree" in seen + piece and b"did they agree" not in seen:
                    os.write(ours, b"Grace Hopper\n")
                seen += piece
        assert process.wait(AT_LAST_S) == 0, seen
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"did they agree" in seen
    consent = load_enrollment(target).consent
    assert consent is not None
    assert consent.name == "Grace Hopper"


@pytest.mark.slow
def test_run_from_a_clip_to_a_file(call: Call, avatar: Path, demo_clip: DemoClip, tmp_path: Path) -> None:
    out, trace = tmp_path / "out.mp4", tmp_path / "t.jsonl"
    clip = demo_clip(3, 25, 512)
    called = call("run", avatar, "--from", clip, "--to", out, "--size", "128", "--trace", trace)
    assert called.code == 0, called.err
    told = re.fullmatch(
        r"(\d+) frames, ([\d.]+) s, ([\d.]+) fps, (\d+) dropped, lag p50 (\d+) ms\n", called.out
    )
    assert told, called.out
    frames, dropped = int(told[1]), int(told[4])
    assert frames + dropped == 75
    assert frames > 0
    assert len(pictures_of(out)) == frames
    assert length_s(out) == pytest.approx(3.0, abs=0.25)
    assert float(told[2]) > 2.8, "a clip is played at its own pace"
    assert '"sent"' in trace.read_text()


@pytest.mark.slow
def test_run_stops_by_itself(
    call: Call,
    avatar: Path,
    demo_clip: DemoClip,
    tmp_path: Path,
) -> None:
    arguments = ["--from", demo_clip(1, 25, 512), "--to", tmp_path / "o.mp4", "--size", "64"]
    called = call("run", avatar, *arguments, "--loop", "--seconds", "4")
    assert called.code == 0, called.err
    assert length_s(tmp_path / "o.mp4") > 1.1, "no longer than the clip"


@pytest.mark.parametrize(
    "line",
    [
        "enroll P -o P",
        "enroll P -o LINK",
        "enroll P -o H --head-model ict:H",
        "frontalize P -o A.png --head-model flame:A.png",
        "frontalize P -o P",
        "edit A -o A.png --background A.png",
        "animate A --driver V -o V",
        "animate A --driver V -o O --trace V",
        "animate A --driver V -o O --trace A",
        "animate A --driver V -o O --motion-out A",
        "animate A --driver V -o O --motion-out O",
        "animate A --driver V -o O --trace T --motion-out T",
        "run A --from V --to V",
        "run A --from V --to A",
        "run A --from V --to O --trace V",
        "run A --from V --to O --trace A",
        "latency T -o T",
        "latency T --perfetto T",
        "latency T -o O --perfetto O",
    ],
)
def test_nothing_that_is_read_is_written_over(line: str, call: Call, tmp_path: Path) -> None:
    names = {
        "P": "p.png",
        "A": "a.avatar",
        "V": "v.mp4",
        "T": "t.jsonl",
        "O": "o.mp4",
        "A.png": "a.png",
        "H": "h.npz",
    }
    places = {word: tmp_path / name for word, name in names.items()}
    for word in ("P", "A", "V", "T", "A.png", "H"):
        places[word].write_bytes(word.encode())
    places["LINK"] = tmp_path / "link.avatar"
    places["LINK"].symlink_to(places["P"])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    words = (word.rpartition(":") for word in line.split())
    called = call(*(f"{kind}{colon}{places.get(word, word)}" for kind, colon, word in words))
    assert called.code == 1
    assert re.search("itself; choose another name with -", " ".join(called.err.split())), called.err
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_head_model_of_the_setting_is_not_written_over(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, photo = tmp_path / "h.npz", tmp_path / "p.png"
    for path in (model, photo):
        path.write_bytes(b"x")
    monkeypatch.setenv("VISAVIS_HEAD_MODEL", f"ict:{model}")
    assert_one_line(call("enroll", photo, "-o", model), code=1, says="h.npz is the head model itself; choose")


@pytest.mark.parametrize("name", ["neutral", "sheet"])
def test_pictures_of_emotions_are_not_written_over_the_avatar(
    name: str, call: Call, avatar: Path, tmp_path: Path
) -> None:
    kept = Path(shutil.copy(avatar, tmp_path / f"{name}.png"))
    before = kept.read_bytes()
    called = call("emotions", kept, "-o", tmp_path, "--sheet")
    assert_one_line(called, code=1, says=rf"{name}\.png is the avatar itself; choose another name with -o")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [before]


def test_a_folder_where_a_picture_of_an_emotion_goes_is_said_before_the_work(
    call: Call, avatar: Path, tmp_path: Path
) -> None:
    (tmp_path / "neutral.png").mkdir()
    assert_one_line(call("emotions", avatar, "-o", tmp_path), code=1, says=r"neutral\.png is a folder")


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_the_caller_closed_is_not_needed(
    closed: str, astronaut_photo: Path, tmp_path: Path
) -> None:
    line = f'exec "$@" {closed}'
    words = [*VISAVIS, "enroll", str(astronaut_photo), "-o", str(tmp_path / "a.avatar")]
    done = subprocess.run(
        ["bash", "-c", line, "bash", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert load_enrollment(tmp_path / "a.avatar").consent is None
    assert ("no consent was recorded" in done.stderr) == ("2>&-" not in closed)
    assert str(tmp_path / "a.avatar") in done.stdout or " >&-" in f" {closed}"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_a_name_that_is_no_text_is_told_as_it_is(astronaut_photo: Path, tmp_path: Path) -> None:
    photo = tmp_path / os.fsdecode(b"M\xfcller.png")
    photo.write_bytes(astronaut_photo.read_bytes())
    done = subprocess.run(
        [*VISAVIS, "enroll", str(photo), "--consent", "x"], cwd=tmp_path, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8:strict"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == b"M\xfcller.avatar"
    assert (tmp_path / os.fsdecode(b"M\xfcller.avatar")).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_keeps_what_was_recorded(
    number: int, avatar: Path, demo_clip: DemoClip, tmp_path: Path
) -> None:
    """Unlike in `animate`, that is how a recording ends."""
    out = tmp_path / "out.mp4"
    arguments = ["run", avatar, "--from", demo_clip(3, 25, 512), "--loop", "--to", out, "--size", "512"]
    process = subprocess.Popen(
        [*VISAVIS, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline_s = time.monotonic() + AT_LAST_S
        while not [p for p in tmp_path.glob(".*.part*") if p.stat().st_size > 0]:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline_s, "nothing was being written"
            time.sleep(0.02)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=AT_LAST_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, stderr
    told = re.match(r"(\d+) frames, ", stdout)
    assert told, stdout
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == int(told[1])


# --- the look of the picture


@pytest.fixture(scope="module")
def short_motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first four frames of the demo motion."""
    lines = (ROOT / "streamer/data/demo_motion.jsonl").read_text().splitlines()[:5]
    path = tmp_path_factory.mktemp("motion") / "short.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.slow
def test_a_transparent_picture(call: Call, avatar: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    done = call("edit", avatar, "-o", out, "--yaw", "10", "--size", "128", "--background", "transparent")
    assert done.code == 0, done.err
    with Image.open(out) as image:
        assert image.mode == "RGBA"
        assert image.size == (128, 128)
        alpha = np.asarray(image)[..., 3]
    assert (alpha == 0).mean() > 0.2
    assert (alpha == 255).mean() > 0.2


@pytest.mark.slow
def test_a_wide_picture_on_a_picture(call: Call, avatar: Path, tmp_path: Path) -> None:
    wall, out = tmp_path / "wall.png", tmp_path / "out.png"
    Image.fromarray(np.full((90, 160, 3), (10, 20, 200), np.uint8)).save(wall)
    done = call("frontalize", avatar, "-o", out, "--aspect", "16:9", "--size", "144", "--background", wall)
    assert done.code == 0, done.err
    image = np.asarray(Image.open(out))
    assert image.shape == (144, 256, 3)
    assert (image[:40, :30] == (10, 20, 200)).all()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mov", ".webm"])
def test_a_transparent_film(
    call: Call, avatar: Path, short_motion: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"out{suffix}"
    done = call(
        "animate", avatar, "--driver", short_motion, "-o", out, "--size", "96", "--aspect", "16:9",
        "--background", "transparent",
    )  # fmt: skip
    assert done.code == 0, done.err
    with av.open(str(out)) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (170, 96)


@pytest.mark.slow
def test_a_wide_film_is_720_high(call: Call, avatar: Path, short_motion: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    done = call(
        "animate", avatar, "--driver", short_motion, "-o", out, "--aspect", "16:9", "--background", "#00f"
    )
    assert done.code == 0, done.err
    pictures = pictures_of(out)
    assert pictures[0].shape == (720, 1280, 3)
    assert np.abs(pictures[-1][20, 20].astype(int) - (0, 0, 255)).max() < 12


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--background", "transparent"], r"out\.mp4 cannot be transparent; .*\.mov.*\.webm"),
        (["--background", "nope"], "choose keep, soft, blur, transparent"),
        (["--background", "#12"], "write it as #rrggbb"),
        (["--background", __file__], "no background: .*not a picture"),
        (["--aspect", "16:9", "--framing", "photo"], "own shape"),
    ],
)
def test_a_look_that_cannot_be(
    call: Call, avatar: Path, short_motion: Path, tmp_path: Path, more: list[str], says: str
) -> None:
    out = tmp_path / "out.mp4"
    called = call("animate", avatar, "--driver", short_motion, "-o", out, *more)
    assert_one_line(called, code=1, says=says)
    assert not out.exists()


def test_a_shape_that_is_none_is_a_usage_error(call: Call, avatar: Path, tmp_path: Path) -> None:
    called = call("edit", avatar, "-o", tmp_path / "out.png", "--aspect", "4:3")
    assert_one_line(called, code=2, says="4:3.*16:9")


def test_live_pictures_cannot_be_transparent(call: Call, avatar: Path, tmp_path: Path) -> None:
    called = call("run", avatar, "--to", tmp_path / "out.mp4", "--background", "transparent")
    assert_one_line(called, code=1, says="run.*cannot be transparent; .*#00ff00")
    called = call("serve", "--port", "0", "--background", "transparent")
    assert_one_line(called, code=1, says="a video call cannot be transparent; .*#00ff00")


def test_what_our_own_code_warns_of_is_a_note_said_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    log_to_terminal(debug=False, times=False)
    for _ in range(3):
        logging.getLogger("engines.compile.exports").warning("nothing can be kept in\n%s", "/ro")
    logging.getLogger("matplotlib").warning("mkdir -p failed for path /ro")
    logging.getLogger("somebody").warning("a warning of a library")
    logging.getLogger("engines.compile").info("a detail")
    logging.getLogger("asyncio").error("a task failed")
    assert capsys.readouterr().err.splitlines() == [
        "note: nothing can be kept in /ro",
        "note: asyncio: a task failed",
    ]


def test_a_folder_that_is_gone_is_said(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert_one_line(
        call("settings", "a.avatar"), code=1, says="the folder that you are in is gone; cd into another"
    )


@pytest.mark.slow
def test_a_home_that_cannot_be_written_costs_one_note(avatar: Path, tmp_path: Path) -> None:
    """Neither the cache of networks nor what libraries want to keep says more than that."""
    (tmp_path / "home").write_text("no folder can be made in this")
    home = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("XDG_") and name != "MPLCONFIGDIR"
    }
    done = subprocess.run(
        [*VISAVIS, "edit", avatar, "-o", tmp_path / "o.png", "--size", "64"],
        env={**home, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=5 * AT_LAST_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"note: compiled networks cannot be kept in {tmp_path / 'home'}")
    assert "set XDG_CACHE_HOME" in lines[0]


@pytest.mark.slow
def test_pictures_of_emotions_go_where_a_link_leads(call: Call, avatar: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("faces")
    (tmp_path / "circle").symlink_to("circle")
    short = ("--size", "64", "--generator", "geometric")
    assert call("emotions", avatar, "-o", tmp_path / "link", *short).code == 0
    assert (tmp_path / "link").is_symlink()
    assert len(list((tmp_path / "faces").iterdir())) == 22
    assert_one_line(
        call("emotions", avatar, "-o", tmp_path / "circle", *short), code=1, says="leads in a circle"
    )
