"""What others see and hear of a run is changed from outside it, by its own user; each command takes itself back."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Client
from pathlib import Path

import numpy as np
import pytest
from fakes import AT_LAST_S
from numpy.typing import NDArray
from typer.testing import CliRunner

from engines.errors import VisavisError
from streamer import tell as told
from streamer.cli import main as command_line
from streamer.commands import COMMANDS
from streamer.curtain import Curtain, Scene
from streamer.frame import Frame, Moment
from streamer.tell import MOST_BYTES, SUFFIX, listening, tell

U8 = NDArray[np.uint8]


def grey(level: int, width: int = 8) -> U8:
    return np.full((8, width, 3), level, np.uint8)


def frame(level: int, width: int = 8) -> Frame:
    return Frame(0.5, 7, image=grey(level, width))


@pytest.fixture
def curtain() -> Curtain:
    return Curtain(lambda: grey(9))


def level(picture: Frame | None) -> int | None:
    return None if picture is None else int(picture.image.mean())


# --- what is shown -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["freeze", "still", "camera"])
def test_each_command_again_takes_itself_back(command: str) -> None:
    scene = Scene().after(command)
    assert scene.shows == command
    assert scene.after(command) == Scene()
    assert scene.after("avatar") == Scene()


def test_one_picture_gives_way_to_another_and_the_mouth_is_apart() -> None:
    scene = Scene().after("mute").after("freeze").after("camera")
    assert scene == Scene("camera", muted=True)
    assert scene.after("mute") == Scene("camera")
    assert scene.after("recalibrate") == scene
    assert str(scene) == "your camera is shown, its mouth muted"


def test_the_avatar_passes_as_it_is(curtain: Curtain) -> None:
    picture = frame(100)
    assert curtain.chosen(picture) is picture
    assert curtain.chosen(None) is None


def test_frozen_is_the_last_picture_again_and_nothing_waits_meanwhile(curtain: Curtain) -> None:
    curtain.obey("freeze")
    assert curtain.chosen(frame(100)) is None
    curtain.obey("freeze")
    assert level(curtain.chosen(frame(101))) == 101


def test_a_still_keeps_the_time_of_the_picture_that_it_hides(curtain: Curtain) -> None:
    curtain.obey("still")
    hidden = curtain.chosen(frame(100))
    assert level(hidden) == 9
    assert hidden is not None
    assert (hidden.pts_s, hidden.capture_time_ns) == (0.5, 7)


def test_the_camera_is_shown_in_the_picture_s_size_and_where_there_is_none_a_still(curtain: Curtain) -> None:
    curtain.obey("camera")
    assert level(curtain.chosen(frame(100))) == 9
    curtain.captured(Moment(0.0, 0))
    assert level(curtain.chosen(frame(100))) == 9
    curtain.captured(frame(60, width=16))
    seen = curtain.chosen(frame(100))
    assert seen is not None
    assert seen.image.shape == (8, 8, 3)
    assert seen.image[4, 4, 0] == 60
    curtain.obey("avatar")
    assert level(curtain.chosen(frame(100))) == 100


def test_commands_do_more_than_pictures() -> None:
    done: list[object] = []
    curtain = Curtain(lambda: grey(9), on_scene=done.append, act={"quit": lambda: done.append("quit")})
    assert curtain.obey("mute") == "the avatar is live, its mouth muted"
    assert curtain.obey("quit") == "the run ends"
    assert done == [Scene(muted=True), Scene(muted=True), "quit"]
    with pytest.raises(VisavisError, match="choose one of: recalibrate, freeze"):
        curtain.obey("dance")


# --- from another process ----------------------------------------------------------------------------


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[list[str]]:
    said: list[str] = []

    def obey(command: str) -> str:
        said.append(command)
        if command == "bad":
            raise VisavisError("that is no command")
        return f"done: {command}"

    with listening(obey, tmp_path / "run"):
        yield said


def test_a_command_arrives_and_its_answer_comes_back(heard: list[str], tmp_path: Path) -> None:
    assert tell("freeze", tmp_path / "run") == "done: freeze"
    with pytest.raises(VisavisError, match="that is no command"):
        tell("bad", tmp_path / "run")
    assert tell("mute", tmp_path / "run") == "done: mute"
    assert heard == ["freeze", "bad", "mute"]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_nobody_else_can_read_the_key(heard: list[str], tmp_path: Path) -> None:
    [file] = (tmp_path / "run").glob(f"*{SUFFIX}")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


def test_who_has_no_key_is_not_heard_and_hurts_nobody(heard: list[str], tmp_path: Path) -> None:
    [file] = (tmp_path / "run").glob(f"*{SUFFIX}")
    address = json.loads(file.read_text())["address"]
    with pytest.raises(Exception):  # noqa: B017, PT011 (which one it is depends on who notices first)
        Client(address, authkey=b"guess")
    with Client(address, authkey=bytes.fromhex(json.loads(file.read_text())["key"])) as connection:
        connection.send_bytes(b"x" * (MOST_BYTES + 1))
    assert tell("freeze", tmp_path / "run") == "done: freeze"
    assert heard == ["freeze"]


def test_a_run_that_was_killed_is_passed_over(heard: list[str], tmp_path: Path) -> None:
    dead = tmp_path / "run" / f"run-1{SUFFIX}"
    dead.write_text(json.dumps({"address": str(tmp_path / "nowhere"), "key": "00"}))
    (tmp_path / "run" / f"run-2{SUFFIX}").write_text("{")
    for file in (dead, tmp_path / "run" / f"run-2{SUFFIX}"):
        os.utime(file, (4e9, 4e9))  # the newest
    assert tell("freeze", tmp_path / "run") == "done: freeze"
    assert not dead.exists()


def test_without_a_run_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(VisavisError, match="start one first"):
        tell("freeze", tmp_path / "nothing")


def test_what_ends_leaves_nothing_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    with listening(lambda _: "yes", tmp_path):
        assert tell("freeze", tmp_path) == "yes"
    assert [f.name for f in tmp_path.iterdir() if f.suffix == SUFFIX] == []
    end_s = time.monotonic() + AT_LAST_S
    while threading.active_count() > before and time.monotonic() < end_s:
        time.sleep(0.01)
    assert threading.active_count() <= before
    with pytest.raises(VisavisError, match="start one first"):
        tell("freeze", tmp_path)


def test_a_folder_that_cannot_be_written_stops_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with listening(lambda _: "yes", tmp_path / "file"):
        pass


def test_two_at_once_are_answered_one_after_the_other(heard: list[str], tmp_path: Path) -> None:
    threads = [threading.Thread(target=tell, args=("freeze", tmp_path / "run")) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(AT_LAST_S)
    assert heard == ["freeze"] * 5


def test_the_command_line_names_what_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "tell", lambda command: f"told {command}")
    done = CliRunner().invoke(command_line.app, ["tell", "freeze"])
    assert done.output == "told freeze\n"
    wrong = CliRunner().invoke(command_line.app, ["tell", "dance"])
    assert isinstance(wrong.exception, VisavisError)
    assert all(name in str(wrong.exception) for name in COMMANDS)
