"""How a user names a sink; imports nothing slow, so that a command line may."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from engines.errors import SinkError
from streamer.places import camera_number, is_address, output_file

SINK_NAMES = ("window", "virtualcam")  # any other name is a file's
SINK_CHOICES = "window, virtualcam, virtualcam:NAME, or a file name that ends in .mp4"
DEFAULT_SINK = "window"

MOTION_TO_CHOICES = "vmc://HOST:PORT"
_VMC_PORT = 39539  # of who receives motion; who passes it on listens at 39540


@dataclass(frozen=True, slots=True)
class MotionTarget:
    """Where motion is sent to: an address of numbers, and a port."""

    host: str
    port: int


def motion_target(text: str) -> MotionTarget:
    """What `--motion-to` names: this computer where no host is; raises SinkError naming what to write instead."""
    example = f"write vmc://127.0.0.1:{_VMC_PORT}"
    try:
        split = urlsplit(text)
        host, port = split.hostname or "127.0.0.1", split.port
        ipaddress.ip_address(host)
    except ValueError as error:
        raise SinkError(f"{text!r:.80} is no address of numbers ({error}); {example}") from error
    if split.scheme != "vmc" or "://" not in text or port == 0 or split.username:
        raise SinkError(f"{text!r:.80} is nowhere that motion is sent to; {example}")
    if split.path not in ("", "/") or split.query or split.fragment:
        raise SinkError(f"{text!r:.80} is more than an address and a port; {example}")
    return MotionTarget(host, port or _VMC_PORT)


def sink_named(spec: str) -> str:
    """`spec` as `open_sink` takes it: a sink's name as it is, else the path of a file.

    Raises SinkError for nothing, a device or an address, naming what to write instead.
    """
    if not spec.strip():
        raise SinkError(f"no output was named; choose {SINK_CHOICES}")
    if spec.partition(":")[0] in SINK_NAMES:
        return spec
    if camera_number(spec) is not None:
        raise SinkError(f"{spec} is a camera; write virtualcam:{spec}")
    if is_address(spec):
        raise SinkError(
            f"{spec} is an address, and there are no network outputs: write virtualcam and send that with OBS"
        )
    return str(output_file(spec))
