"""`visavis avatars`: lists, keeps, renames and deletes; and an avatar's name where a command takes one."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.enrollment import Enrollment, load_enrollment, save_enrollment
from streamer.cli import main as cli

Called = tuple[int, str, str]
Call = Callable[..., Called]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """`main` in this process, with a folder of its own for what is kept: exit code, output, errors."""
    monkeypatch.setenv("VISAVIS_AVATARS", str(tmp_path / "kept"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Called:
        monkeypatch.setattr(sys, "argv", ["visavis", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def me(astronaut: Enrollment, tmp_path: Path, call: Call) -> str:
    """An avatar file in the current folder."""
    save_enrollment(astronaut, tmp_path / "me.avatar")
    return "me.avatar"


def test_an_empty_folder_prints_nothing_and_says_what_to_do(call: Call) -> None:
    code, out, err = call("avatars")
    assert (code, out) == (0, "")
    assert "no avatar is kept in" in err
    assert "visavis avatars keep" in err


def test_kept_listed_renamed_deleted(call: Call, me: str, tmp_path: Path) -> None:
    assert call("avatars", "keep", me, "--name", "Ada L.") == (0, "Ada-L\n", "")
    assert call("avatars", "keep", me)[1] == "me\n"
    assert call("avatars") == (0, "Ada-L\nme\n", "")
    assert load_enrollment(tmp_path / "kept" / "Ada-L.avatar").consent is not None
    assert call("avatars", "rename", "ada-l", "ada") == (0, "ada\n", "")
    code, out, err = call("avatars", "delete", "ada")
    assert (code, out) == (1, "")
    assert "say --yes" in err
    assert call("avatars")[1] == "ada\nme\n"
    code, out, _ = call("avatars", "delete", "ada", "--yes")
    assert code == 0
    assert "deleted ada.avatar" in out
    assert call("avatars")[1] == "me\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("rename", "nobody", "x"), "no avatar called 'nobody' is kept here; `visavis avatars` lists"),
        (("rename", "ada", "Me"), "'Me' is kept already; choose another name"),
        (("delete", "../me"), r"no avatar called '../me' is kept here"),
        (("keep", "nothing.avatar"), "there is no avatar file nothing.avatar"),
        (("keep", "broken.avatar"), "broken.avatar is not an avatar or is truncated"),
        (("eat",), "No such command"),
    ],
)
def test_every_failure_is_one_line(
    call: Call, me: str, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "broken.avatar").write_bytes(b"x")
    call("avatars", "keep", me)
    call("avatars", "keep", me, "--name", "ada")
    code, out, err = call("avatars", *arguments)
    assert code in (1, 2)
    assert out == ""
    assert len(err.splitlines()) == 1
    assert re.search(says, err), err
    assert call("avatars")[1] == "ada\nme\n"


@pytest.mark.parametrize("command", ["keep", "rename", "delete"])
def test_help_has_an_example(call: Call, command: str) -> None:
    code, out, err = call("avatars", command, "--help")
    assert (code, err) == (0, "")
    assert f"Example: visavis avatars {command}" in " ".join(out.split()).replace("`", "")


def test_a_command_takes_the_name_of_a_kept_one(call: Call, me: str, tmp_path: Path) -> None:
    call("avatars", "keep", me, "--name", "ada")
    assert call("settings", "ada", "--set", "lips=0.5")[0] == 0
    kept = load_enrollment(tmp_path / "kept" / "ada.avatar")
    assert kept.controls is not None
    assert kept.controls.lips == 0.5
    assert load_enrollment(tmp_path / me).controls is None
    code, _, err = call("settings", "eve")
    assert code == 1
    assert "there is no file eve, and no avatar of that name is kept here" in err


def test_naming_one_imports_nothing_heavy(me: str, call: Call) -> None:
    call("avatars", "keep", me, "--name", "ada")
    code = (
        "import sys; from streamer.places import avatar_file; avatar_file('ada')\n"
        "print([m for m in ('torch', 'mediapipe', 'cv2', 'av', 'openvino', 'numpy') if m in sys.modules])"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
