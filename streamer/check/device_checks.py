"""What `visavis doctor` finds of cameras, microphones and their virtual ones."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from streamer.check.finding import DEADLINE_S, Check
from streamer.sound.portaudio_pair import cable_fix

_LOOPBACK_PARAMETER = Path("/sys/module/v4l2loopback/parameters/exclusive_caps")
_PYTHON = shlex.quote(sys.executable)


def device_checks(devices: Mapping[str, Any] | None, platform: str) -> list[Check]:
    """Cameras and microphones."""
    if devices is None or devices.get("error"):
        reason = (devices or {}).get("error") or f"not answered within {DEADLINE_S:g} s"
        return [Check("devices", "warn", f"cannot be listed: {reason}", "try `visavis devices`")]
    cameras: list[str] = list(devices["cameras"])
    refused: list[str] = list(devices["refused"])
    if not platform.startswith("linux"):
        how = "AVFoundation" if platform == "darwin" else "DirectShow"
        checks = [Check("cameras", "ok", f"through {how}; `visavis devices` opens each to list them")]
    elif refused:
        detail = f"{', '.join(refused)} may not be opened by this user"
        fix = "sudo usermod -aG video $USER, then log out and in"
        checks = [Check("cameras", "warn", detail, fix)]
    elif cameras:
        checks = [Check("cameras", "ok", ", ".join(cameras))]
    else:
        fix = "plug in a camera, drive with a video file, or use the browser's camera through `visavis serve`"
        checks = [Check("cameras", "warn", "none found", fix)]
    microphones: list[str] = list(devices["microphones"])
    if microphones:
        checks.append(Check("microphones", "ok", ", ".join(microphones)))
    else:
        fix = "plug in a microphone, or drive with a sound file or the browser's microphone (`visavis serve`)"
        checks.append(Check("microphones", "warn", str(devices.get("audio_note") or "none found"), fix))
    return checks


def virtual_camera_checks(
    devices: Mapping[str, Any] | None, platform: str, parameter: Path = _LOOPBACK_PARAMETER
) -> list[Check]:
    """What `--to virtualcam` needs: the optional package, and a driver with the right option."""
    name = "virtual camera"
    if importlib.util.find_spec("pyvirtualcam") is None:
        fix = f"{_PYTHON} -m pip install pyvirtualcam"
        return [Check(name, "warn", "optional package pyvirtualcam is not installed", fix)]
    driver_fix = str((devices or {}).get("driver_fix") or "see what `visavis devices` says")
    if not platform.startswith("linux"):
        return [Check(name, "ok", f"pyvirtualcam with OBS's camera; if it does not open: {driver_fix}")]
    virtual: list[str] = list((devices or {}).get("virtual_cameras", []))
    if not virtual:
        return [Check(name, "warn", "v4l2loopback gives no camera", driver_fix)]
    try:
        exclusive = parameter.read_text().strip().split(",")[0] != "N"
    except OSError:
        exclusive = True  # not v4l2loopback's, or not readable: nothing to complain of
    if exclusive:
        return [Check(name, "ok", ", ".join(virtual))]
    fix = "sudo modprobe -r v4l2loopback && sudo modprobe v4l2loopback exclusive_caps=1 card_label=visavis"
    return [
        Check(name, "warn", f"{', '.join(virtual)}: browsers will not see it without exclusive_caps=1", fix)
    ]


def virtual_microphone_checks(platform: str, why_not: Callable[[], str | None]) -> list[Check]:
    """What `--mic-to` needs: libpulse and a server on Linux, a virtual cable elsewhere. `why_not`: "reason; fix"."""
    name = "virtual microphone"
    if not platform.startswith("linux"):
        return [Check(name, "ok", f"through a virtual cable: {cable_fix(platform)}")]
    if (told := why_not()) is None:
        return [Check(name, "ok", "made when it is asked for: --mic-to 'visavis mic'")]
    reason, _, fix = told.partition("; ")
    return [Check(name, "warn", reason, fix)]
