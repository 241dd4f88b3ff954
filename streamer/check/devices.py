"""The cameras, microphones, speakers and virtual cameras of this computer, for `visavis devices`."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from streamer.sinks.virtualcam import V4L2_FOLDER, driver_fix
from streamer.sources.portaudio import load_portaudio, portaudio_fix

_PROBED_CAMERAS = 6
_LOOPBACK_DRIVERS = ("v4l2 loopback", "v4l2loopback")


@dataclass(frozen=True, slots=True)
class Device:
    """One device: `number` is what commands take (`webcam:0`), `is_default` the system's choice."""

    number: int
    name: str
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class Devices:
    """Everything found, and one sentence naming the fix for each kind that could not be listed."""

    cameras: tuple[Device, ...] = ()
    microphones: tuple[Device, ...] = ()
    speakers: tuple[Device, ...] = ()
    virtual_cameras: tuple[Device, ...] = ()
    notes: tuple[str, ...] = ()

    def render(self) -> str:
        """The list as text, one device a line, with what to type to use it."""
        parts = [
            _section("Cameras (--from webcam:N)", self.cameras, "none found; plug one in"),
            _section("Virtual cameras (--to virtualcam:NAME)", self.virtual_cameras, "none found"),
            _section("Microphones (--from mic:N)", self.microphones, "none found"),
            _section("Speakers", self.speakers, "none found"),
        ]
        return "\n".join(parts + [f"note: {note}" for note in self.notes])


def list_devices(
    *,
    platform: str = sys.platform,
    v4l2_folder: Path = V4L2_FOLDER,
    camera_opens: Callable[[int], bool] | None = None,
    query_audio: Callable[[], Iterable[dict[str, Any]]] | None = None,
) -> Devices:
    """Everything found. Never raises: what cannot be listed becomes a note."""
    notes: list[str] = []
    cameras: tuple[Device, ...] = ()
    virtual: tuple[Device, ...] = ()
    try:
        if platform.startswith("linux"):
            cameras, virtual = _v4l2_devices(v4l2_folder)
        else:
            cameras = _probe_cameras(camera_opens or _camera_opens)
    except Exception as error:  # whatever a driver throws, the other kinds are still worth listing
        notes.append(f"cameras could not be listed ({error}); close programs that use them and try again")
    if importlib.util.find_spec("pyvirtualcam") is None:
        notes.append("virtual cameras need one more package; run `pip install 'visavis[virtualcam]'`")
    if not virtual and platform.startswith("linux"):
        notes.append(f"for a virtual camera {driver_fix(platform)}")
    microphones: tuple[Device, ...] = ()
    speakers: tuple[Device, ...] = ()
    try:
        found = list((query_audio or _query_audio)())
        microphones = _audio_devices(found, "input")
        speakers = _audio_devices(found, "output")
    except Exception as error:
        notes.append(f"audio devices could not be listed ({error}); {portaudio_fix(platform)}")
    return Devices(cameras, microphones, speakers, virtual, tuple(notes))


def virtual_cameras(v4l2_folder: Path = V4L2_FOLDER) -> tuple[str, ...]:
    """The names of the virtual cameras that Linux has now."""
    return tuple(device.name for device in _v4l2_devices(v4l2_folder)[1])


def _v4l2_devices(folder: Path) -> tuple[tuple[Device, ...], tuple[Device, ...]]:
    """(cameras, virtual cameras); a camera's further nodes, which carry metadata, are left out."""
    cameras: list[Device] = []
    virtual: list[Device] = []
    entries = [e for e in folder.glob("video*") if e.name[5:].isdigit()] if folder.is_dir() else []
    for entry in sorted(entries, key=lambda e: int(e.name[5:])):
        number = int(entry.name[5:])
        name = _read(entry / "name") or f"camera {number}"
        index = _read(entry / "index")
        # Loopback devices hang below /sys/devices/virtual; real ones below a bus.
        if "virtual" in Path(os.path.realpath(entry)).parts or name.lower().startswith(_LOOPBACK_DRIVERS):
            virtual.append(Device(number, name))
        elif index in ("", "0"):
            cameras.append(Device(number, name))
    return tuple(cameras), tuple(virtual)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _probe_cameras(opens: Callable[[int], bool]) -> tuple[Device, ...]:
    return tuple(Device(n, f"camera {n}") for n in range(_PROBED_CAMERAS) if opens(n))


def _camera_opens(number: int) -> bool:
    capture = cv2.VideoCapture(number)
    try:
        return capture.isOpened()
    finally:
        capture.release()


def _query_audio() -> list[dict[str, Any]]:
    """`sounddevice`'s list with `default_input` and `default_output` marked on each."""
    # Importing it fails where the PortAudio library is missing, so nothing else depends on it.
    sounddevice = load_portaudio()
    chosen_input, chosen_output = sounddevice.default.device
    return [
        {**device, "default_input": n == chosen_input, "default_output": n == chosen_output}
        for n, device in enumerate(sounddevice.query_devices())
    ]


def _audio_devices(found: list[dict[str, Any]], direction: str) -> tuple[Device, ...]:
    return tuple(
        Device(n, str(device["name"]), bool(device.get(f"default_{direction}", False)))
        for n, device in enumerate(found)
        if int(device[f"max_{direction}_channels"]) > 0
    )


def _section(title: str, devices: tuple[Device, ...], nothing: str) -> str:
    lines = [f"  {d.number}: {d.name}{' (default)' if d.is_default else ''}" for d in devices]
    return "\n".join([title, *(lines or [f"  {nothing}"])])
