"""What the page is told about becoming a camera: the words of the virtual camera, for the system at hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from calls import GREEN, RED, plain_enrollment
from fastapi.testclient import TestClient

from engines.enrollment import save_enrollment
from streamer.serve.app import create_app
from streamer.serve.camera_help import comes_from_here, help_for
from streamer.serve.config import ServeSettings
from streamer.serve.store import AvatarStore, Entry
from streamer.sinks.virtualcam import driver_fix


def entry(file: Path | None) -> Entry:
    return Entry(plain_enrollment(RED, "red"), "red", public=True, file=file)


@pytest.mark.parametrize(
    ("system", "called"),
    [("linux", "visavis"), ("win32", "OBS Virtual Camera"), ("darwin", "OBS Virtual Camera")],
)
def test_each_system_gets_the_words_of_the_virtual_camera(system: str, called: str) -> None:
    told = help_for(None, is_here=True, system=system, has_package=True, made=())
    assert told.system == system
    assert told.drivers[system] == driver_fix(system)
    assert told.cameras[system] == called
    assert told.missing == ([driver_fix("linux")] if system == "linux" else [])


def test_what_is_there_is_not_asked_for_again() -> None:
    told = help_for(None, is_here=True, system="linux", has_package=True, made=("my camera",))
    assert told.missing == []
    assert told.cameras["linux"] == "my camera"
    told = help_for(None, is_here=True, system="linux", has_package=False, made=("my camera",))
    assert [each.endswith("-m pip install pyvirtualcam`") for each in told.missing] == [True]


def test_a_system_without_virtual_cameras_is_told_so() -> None:
    told = help_for(None, is_here=True, system="freebsd14", has_package=True)
    assert told.missing == [driver_fix("freebsd14")]


def test_only_an_avatar_with_a_file_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def argument(file: Path | None, system: str = "linux") -> str | None:
        return help_for(entry(file), is_here=True, system=system, has_package=True, made=()).avatar

    assert argument(None) is None
    assert argument(tmp_path / "faces" / "me.avatar") == str(Path("faces/me.avatar"))
    assert argument(Path("it's me.avatar")) == """'it'"'"'s me.avatar'"""
    assert argument(Path("my face.avatar"), "win32") == '"my face.avatar"'
    kept = Entry(plain_enrollment(RED, "me"), "me", public=True, file=Path("/somewhere/me.avatar"), kept=True)
    assert help_for(kept, is_here=True, system="linux", has_package=True, made=()).avatar == "me"
    # what lies elsewhere is named, and not where it lies
    assert argument(tmp_path.parent / "elsewhere" / "you.avatar") == "you.avatar"


def test_who_sits_elsewhere_hears_nothing_of_this_computer(tmp_path: Path) -> None:
    told = help_for(entry(tmp_path / "me.avatar"), is_here=False, has_package=False, made=("my camera",))
    assert (told.system, told.missing, told.avatar, told.program) == (None, [], None, "visavis")
    assert "my camera" not in told.cameras.values()


@pytest.mark.parametrize(
    ("host", "is_here"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("192.168.1.2", False), ("testclient", False)],
)
def test_only_the_loopback_is_here(host: str, is_here: bool) -> None:
    assert comes_from_here(host) is is_here


def test_the_page_is_told(tmp_path: Path) -> None:
    store = AvatarStore()
    file = tmp_path / "green.avatar"
    save_enrollment(plain_enrollment(GREEN, "green"), file)
    store.add_public(plain_enrollment(GREEN, "green"), file)
    with TestClient(
        create_app(ServeSettings(), store), base_url="http://localhost", client=("127.0.0.1", 5)
    ) as client:
        told = client.get("/api/camera", params={"avatar": "green"}).json()
        assert (told["system"], told["avatar"]) == (sys.platform, "green.avatar")
        assert client.get("/api/camera", params={"avatar": "nobody"}).json()["avatar"] is None
    with TestClient(
        create_app(ServeSettings(), store), base_url="http://localhost", client=("10.0.0.5", 5)
    ) as client:
        assert client.get("/api/camera", params={"avatar": "green"}).json()["system"] is None
