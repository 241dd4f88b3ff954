"""`visavis devices`: what is found, and that it never fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamer.check.devices import Device, Devices, list_devices


def no_audio() -> list[dict[str, Any]]:
    return []


def v4l2(folder: Path, number: int, name: str, index: int = 0, virtual: bool = False) -> None:
    """A node as in /sys/class/video4linux, which is a link into the device tree."""
    where = "virtual" if virtual else "pci0000:00"
    real = folder / "devices" / where / f"video{number}"
    real.mkdir(parents=True)
    (real / "name").write_text(name + "\n")
    (real / "index").write_text(f"{index}\n")
    (folder / "class").mkdir(exist_ok=True)
    (folder / "class" / f"video{number}").symlink_to(real)


def test_linux_cameras_come_from_the_kernel(tmp_path: Path) -> None:
    v4l2(tmp_path, 0, "Integrated Camera")
    v4l2(tmp_path, 1, "Integrated Camera", index=1)  # its metadata node
    v4l2(tmp_path, 10, "visavis", virtual=True)
    v4l2(tmp_path, 2, "USB Camera")

    def never(number: int) -> bool:
        raise AssertionError("Linux need not open cameras to list them")

    found = list_devices(
        platform="linux", v4l2_folder=tmp_path / "class", camera_opens=never, query_audio=no_audio
    )
    assert found.cameras == (Device(0, "Integrated Camera"), Device(2, "USB Camera"))
    assert found.virtual_cameras == (Device(10, "visavis"),)


def test_elsewhere_cameras_are_tried(tmp_path: Path) -> None:
    found = list_devices(platform="darwin", camera_opens=lambda n: n in (0, 2), query_audio=no_audio)
    assert [c.number for c in found.cameras] == [0, 2]


def test_microphones_and_speakers() -> None:
    def query() -> list[dict[str, Any]]:
        return [
            {"name": "Mic", "max_input_channels": 1, "max_output_channels": 0, "default_input": True},
            {"name": "Headset", "max_input_channels": 1, "max_output_channels": 2, "default_output": True},
        ]

    found = list_devices(platform="darwin", camera_opens=lambda _: False, query_audio=query)
    assert found.microphones == (Device(0, "Mic", True), Device(1, "Headset"))
    assert found.speakers == (Device(1, "Headset", True),)


@pytest.mark.parametrize(
    "error", [OSError("PortAudio library not found"), RuntimeError("x"), KeyError("name")]
)
def test_nothing_that_drivers_do_raises(tmp_path: Path, error: Exception) -> None:
    def audio() -> list[dict[str, Any]]:
        raise error

    def camera(number: int) -> bool:
        raise error

    linux = list_devices(platform="linux", v4l2_folder=tmp_path / "none", query_audio=audio)
    assert any("apt-get install -y libportaudio2" in note for note in linux.notes)
    assert any("modprobe v4l2loopback" in note for note in linux.notes)
    other = list_devices(platform="win32", camera_opens=camera, query_audio=audio)
    assert any("cameras could not be listed" in note for note in other.notes)
    assert other.render().count("note: ") >= 2


def test_the_real_list_comes_without_raising() -> None:
    text = list_devices().render()
    for title in ("Cameras", "Virtual cameras", "Microphones", "Speakers"):
        assert title in text


def test_the_text_says_what_to_type() -> None:
    text = Devices(
        cameras=(Device(0, "Integrated Camera"),),
        microphones=(Device(3, "Mic", True),),
        notes=("plug it in",),
    ).render()
    assert text.splitlines()[:2] == ["Cameras (--from webcam:N)", "  0: Integrated Camera"]
    assert "Microphones (--from mic:N)\n  3: Mic (default)" in text
    assert "  none found" in text
    assert text.endswith("note: plug it in")
