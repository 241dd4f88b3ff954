"""Devices, addresses and homes where a file belongs: each is told what to write instead."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from engines.errors import DriverError, SinkError, VisavisError
from streamer.places import camera_number, input_file, is_address, output_file, path_of
from streamer.sinks.names import sink_named
from streamer.sources.names import source_named


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("/dev/video0", "/dev/video0 is a camera; write webcam:0"),
        ("2", "2 is a camera; write webcam:2"),
        ("webcam:/dev/video4", "write webcam:4"),
        ("webcam:front", "write webcam:N"),
        ("mic:front", "write mic:N"),
        (
            "rtsp://user@cam.local:554/live",
            "rtsp://user@cam.local:554/live is an address.*no network sources",
        ),
        ("http://host/talk.mp4", "http://host/talk.mp4 is an address"),
        ("HTTPS://host/talk.mp4", "HTTPS://host/talk.mp4 is an address"),
        ("/dev/video", "there is no camera /dev/video; write webcam:N with a number from `visavis devices`"),
        ("/dev/v4l/by-id/x", "there is no camera /dev/v4l/by-id/x; write webcam:N"),
        ("rtsp:/x", "rtsp:/x is an address"),
        (f"https://h/{5000 * 'x'}", "is an address"),
        (f"/dev/v4l/{5000 * 'x'}", "there is no camera"),
        ("http:host/talk.mp4", "is an address"),
        ("", "no source was named; choose webcam, webcam:N, mic"),
        (" ", "no source was named"),
        ("/dev/snd/pcmC0D0c", "is a microphone; write mic:N"),
        ("hw:1,0", "is a microphone; write mic:N"),
        ("-", "no standard input"),
        ("/dev/stdin", "no standard input"),
        ("/dev/null", "/dev/null is a device, no file"),
        ("*.mp4", "is a pattern"),
        ("nod.jsonl", "nod.jsonl is a recorded motion; `visavis animate --driver nod.jsonl`"),
        ("camera", "no source or file 'camera'; choose webcam, webcam:N, mic"),
        ("a" * 300 + ".mp4", "cannot be looked at .*name another file"),
    ],
)
def test_what_is_no_source_is_told_what_to_write(spec: str, says: str) -> None:
    with pytest.raises(VisavisError, match=says) as caught:
        source_named(spec)
    assert "does not exist" not in str(caught.value)


@pytest.mark.parametrize(
    "spec", ["webcam", "webcam:1", "mic", "mic:2", "talk.mp4", "/no/talk.mp4", "C:/talk.mp4"]
)
def test_names_and_files_stay_as_they_are(spec: str) -> None:
    assert source_named(spec) == spec


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("/dev/video10", "/dev/video10 is a camera; write virtualcam:/dev/video10"),
        (
            "rtmp://a.example/live/key",
            "rtmp://a.example/live/key is an address.*no network outputs: write virtualcam",
        ),
        ("srt://host:9000", "no network outputs"),
        ("-", "nothing to standard output"),
        ("/dev/stdout", "nothing to standard output"),
    ],
)
def test_what_is_no_sink_is_told_what_to_write(spec: str, says: str) -> None:
    with pytest.raises(VisavisError, match=says):
        sink_named(spec)


def test_sinks_stay_as_they_are() -> None:
    for spec in ("window", "virtualcam", "virtualcam:/dev/video10", "virtualcam:visavis", "out.mp4"):
        assert sink_named(spec) == spec


@pytest.mark.parametrize(
    "text",
    ["/dev/video0", "/dev/video", "https://h/me.jpg", "https:/h/me.jpg", "-", "hw:0", "me*.jpg", "", " "],
)
def test_a_photo_is_a_file(text: str) -> None:
    with pytest.raises(VisavisError) as caught:
        input_file(text)
    assert text in str(caught.value)
    assert "does not exist" not in str(caught.value)


@pytest.mark.parametrize("text", ["", " ", "rtmp:/h/x"])
def test_what_is_written_has_a_name(text: str) -> None:
    with pytest.raises(VisavisError, match=r"is empty; name a file|is an address"):
        output_file(text)


def test_home_and_file_addresses_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a talk.mp4").write_bytes(b"x")
    assert input_file("~/a talk.mp4") == tmp_path / "a talk.mp4"
    assert input_file(f"file://{tmp_path}/a%20talk.mp4") == tmp_path / "a talk.mp4"
    assert input_file(f"file://localhost{tmp_path}/a%20talk.mp4") == tmp_path / "a talk.mp4"
    assert output_file("~/out.mp4") == tmp_path / "out.mp4"
    assert source_named("~/a talk.mp4") == str(tmp_path / "a talk.mp4")
    assert sink_named("~/out.mp4") == str(tmp_path / "out.mp4")
    assert not is_address(f"file://{tmp_path}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    (tmp_path / "~" / "b.mp4").write_bytes(b"x")
    assert path_of("~/b.mp4") == "~/b.mp4", "a folder of that name is no home"
    assert path_of("~nobody-of-this-name/b.mp4") == "~nobody-of-this-name/b.mp4"


def test_what_is_there_is_a_file_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("0", "talk[1].mp4", "camera", "-x"):
        (tmp_path / name).write_bytes(b"x")
        assert source_named(name) == name


def test_pipes_sockets_and_dead_links_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VisavisError, match=r"pipe\.mp4 is a pipe, no file"):
        input_file(str(tmp_path / "pipe.mp4"))
    with pytest.raises(VisavisError, match=r"pipe\.mp4 is a pipe, no file; name a file"):
        output_file(str(tmp_path / "pipe.mp4"))
    assert output_file("/dev/null") == Path("/dev/null"), "a trace may go there"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.mp4"))
        with pytest.raises(VisavisError, match=r"s\.mp4 is a socket, no file"):
            input_file(str(tmp_path / "s.mp4"))
    (tmp_path / "dead.mp4").symlink_to("gone.mp4")
    (tmp_path / "round.mp4").symlink_to("round.mp4")
    for name in ("dead", "round"):
        with pytest.raises(VisavisError, match=rf"{name}\.mp4 is a link that leads nowhere"):
            input_file(str(tmp_path / f"{name}.mp4"))


def test_cameras_by_other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert camera_number("/dev/video12") == 12
    assert camera_number("/dev/videos") is None
    monkeypatch.setattr("streamer.places.os.path.realpath", lambda _: "/dev/video7")  # as udev links them
    assert camera_number("/dev/v4l/by-id/usb-Webcam-index0") == 7


def test_errors_are_of_the_family() -> None:
    with pytest.raises(DriverError):
        source_named("/dev/video0")
    with pytest.raises(SinkError):
        sink_named("/dev/video0")
