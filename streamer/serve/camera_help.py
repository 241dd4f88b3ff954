"""`CameraHelp`: what makes an avatar of this server a camera of the computer that it runs on, in commands to copy."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from fastapi import APIRouter, Request

from streamer.check.devices import virtual_cameras
from streamer.serve.errors import documented
from streamer.serve.requests import StrictRoute
from streamer.serve.service import Served
from streamer.serve.store import Entry
from streamer.sinks.virtualcam import SYSTEMS, camera_name, driver_fix

camera_help = APIRouter(route_class=StrictRoute)


@dataclass(frozen=True, slots=True)
class CameraHelp:
    """For whoever looks at the page.

    `system` (as `sys.platform`): of this computer if they sit at it, else None: then what follows is for theirs, and
    visavis has to be there too. `drivers`: per system the sentence that makes a virtual camera appear; `missing`:
    the sentences for what is not here yet; `cameras`: per system what the camera is called in the applications;
    `program`: what to type for `visavis`; `avatar`: what `visavis run` takes for the avatar asked about, None for one
    that has no file.
    """

    system: str | None
    drivers: dict[str, str]
    missing: list[str]
    cameras: dict[str, str]
    program: str
    avatar: str | None


@camera_help.get("/api/camera", responses=documented(422))
async def camera(request: Request, service: Served, avatar: str = "") -> dict[str, object]:
    """How `avatar` gets into Zoom and the like."""
    is_here = comes_from_here(request.client.host if request.client else "")
    entry = service.store.get(avatar)
    return await service.aside(lambda: asdict(help_for(entry, is_here=is_here)))


def help_for(
    entry: Entry | None,
    *,
    is_here: bool,
    system: str = sys.platform,
    has_package: bool | None = None,
    made: tuple[str, ...] | None = None,
) -> CameraHelp:
    """For an avatar, or None of those there are.

    `has_package`: whether pyvirtualcam is installed; `made`: the virtual cameras that there are already, on Linux.
    Both are looked for where they are None.
    """
    drivers = {each: driver_fix(each) for each in SYSTEMS}
    names = {each: camera_name(each) for each in SYSTEMS}
    if not is_here:
        return CameraHelp(None, drivers, [], names, "visavis", None)
    missing: list[str] = []
    if not (importlib.util.find_spec("pyvirtualcam") if has_package is None else has_package):
        missing.append(f"run `{_quoted(_near(Path(sys.executable)), system)} -m pip install pyvirtualcam`")
    if system.startswith("linux"):
        made = virtual_cameras() if made is None else made
        if made:
            names[system] = made[0]
        else:
            missing.append(driver_fix(system))
    elif system not in SYSTEMS:
        missing.append(driver_fix(system))
    return CameraHelp(system, drivers, missing, names, _program(system), _argument(entry, system))


def comes_from_here(host: str) -> bool:
    """Whether a request from the address `host` was made on this computer."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _argument(entry: Entry | None, system: str) -> str | None:
    if entry is None or entry.file is None:
        return None
    if entry.kept:  # every command knows it by its name
        return _quoted(entry.file.stem, system)
    return _quoted(_near(entry.file.absolute()), system)


def _program(system: str) -> str:
    """What starts visavis: its name where the shell finds it, else where it lies beside the Python at work."""
    if shutil.which("visavis"):
        return "visavis"
    beside = Path(sys.executable).with_name("visavis")
    return _quoted(_near(beside), system) if beside.exists() else "visavis"


def _near(path: Path) -> str:
    """As seen from where the server was started, if it lies below; else its name: no answer tells where on the disk."""
    here = Path.cwd()
    return os.fspath(path.relative_to(here)) if path.is_relative_to(here) else path.name


def _quoted(text: str, system: str) -> str:
    if system != "win32":
        return shlex.quote(text)
    return f'"{text}"' if any(c in text for c in " &()^;,=") else text
