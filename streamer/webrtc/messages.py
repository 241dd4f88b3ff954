"""What the data channel says and hears, as plain data: docs/webrtc.md has the list."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from engines.errors import VisavisError
from streamer.webrtc.call_options import MOST_TRIM_MS
from streamer.webrtc.media import MOST_DELAY_MS, Outgoing

MESH_UNITS = 4095
MAX_MESSAGE_CHARS = 4096
MAX_ANSWER_CHARS = 600  # holds the list of all emotions
_MAX_REASON_CHARS = 200

Message = Mapping[str, object]


class MessageError(VisavisError):
    """A page's message that makes no sense; told to the page."""


# --- what the page hears --------------------------------------------------------------------------------


def text_of(message: Message) -> str:
    """`message` as it goes over the channel."""
    return json.dumps(message, separators=(",", ":"))


def notice(text: str, level: Literal["info", "error"] = "error") -> Message:
    """A sentence for the user."""
    return {"type": "notice", "level": level, "text": text}


def refusal(error: VisavisError) -> Message:
    """The answer to a message that makes no sense."""
    return notice(one_line(error, MAX_ANSWER_CHARS))


def unchanged(change: int, kept: int, why: str) -> Message:
    """That a change which was accepted cannot be; `change` is its number, `kept` that of what the call stays."""
    return {"type": "unchanged", "change": change, "kept": kept, "text": why}


def no_room(why: str, retry_after_s: int) -> Message:
    """That the call ends before it began: others connected first."""
    return {"type": "full", "text": why, "retry_after_s": retry_after_s}


def frame_message(outgoing: Outgoing, dropped: int, generator: str | None, change: int = 0) -> Message:
    """What is told of a picture that was sent; `dropped`: driving frames so far.

    At work are the `generator`, and the page's wish number `change`: 0 is the offer's.
    """
    return {
        "type": "frame",
        "pts": outgoing.pts & 0xFFFFFFFF,
        "capture_ms": None if outgoing.capture_ms is None else round(outgoing.capture_ms, 2),
        "clock_ms": None if outgoing.moved_by_ns is None else round(outgoing.moved_by_ns / 1e6, 2),
        "stage_ms": {name: round(ms, 2) for name, ms in outgoing.trace.stage_ms().items()},
        "dropped": dropped,
        "face": outgoing.face,
        "state": outgoing.state,
        "generator": generator,
        "change": change,
    }


def sound_message(rtp_time: int, captured_ns: float) -> Message:
    """When the sound with this RTP time was captured, by the clock of a `frame` message's `clock_ms`."""
    return {"type": "sound", "rtp": rtp_time, "clock_ms": round(captured_ns / 1e6, 2)}


def mesh_message(landmarks_px: NDArray[np.float32], camera_size_px: tuple[int, int]) -> Message:
    """Landmarks (478, 3) → x0, y0, x1, y1, … in 0 … 4095 over the camera picture of this (width, height)."""
    width_px, height_px = camera_size_px
    scaled = landmarks_px[:, :2] * (MESH_UNITS / width_px, MESH_UNITS / height_px)
    return {"type": "mesh", "points": [int(v) for v in np.clip(np.rint(scaled), 0, MESH_UNITS).ravel()]}


def one_line(error: BaseException, limit: int = _MAX_REASON_CHARS) -> str:
    """What `error` says, in one line of at most `limit` characters, never empty."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


# --- what the page says ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a pong with the same `t`."""

    t: float

    def pong(self) -> Message:
        """The answer."""
        return {"type": "pong", "t": self.t}


@dataclass(frozen=True, slots=True)
class Recalibrate:
    """Asks that the driver's neutral be taken anew."""


@dataclass(frozen=True, slots=True)
class SetControls:
    """Controls by name, as `Controls.from_dict` takes them."""

    given: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SetSound:
    """When the sound is heard; None is as it was.

    `trim_ms`: later by hand. `waits_ms`: what sound waits in the page's own buffers. `heard`: whether anybody there
    hears it. `skew_ms`: how much later than its sound a picture is seen there, measured.
    """

    trim_ms: float | None
    waits_ms: float | None
    heard: bool | None = None
    skew_ms: float | None = None


Command = Ping | Recalibrate | SetControls | SetSound


def read_command(message: object) -> Command:
    """What a page's message asks for. Raises MessageError with what is wrong and what would be right."""
    data = _parsed(message)
    kind = data.get("type")
    if kind == "ping":
        t = data.get("t")
        # no NaN: the page could not read it
        if not isinstance(t, int | float) or not abs(t) < 1e15:
            raise MessageError("ping: t is not a number of milliseconds")
        return Ping(t)
    if kind == "recalibrate":
        return Recalibrate()
    if kind == "controls":
        return SetControls({name: value for name, value in data.items() if name != "type"})
    if kind == "sound":
        return SetSound(
            milliseconds_of("trim_ms", data["trim_ms"], MOST_TRIM_MS) if "trim_ms" in data else None,
            milliseconds_of("waits_ms", data["waits_ms"], MOST_DELAY_MS) if "waits_ms" in data else None,
            _yes_or_no("heard", data["heard"]) if "heard" in data else None,
            milliseconds_of("skew_ms", data["skew_ms"], MOST_DELAY_MS) if "skew_ms" in data else None,
        )
    raise MessageError(
        f"there is no message {reprlib.repr(kind)}; send one of: controls, recalibrate, sound, ping"
    )


def milliseconds_of(name: str, value: object, most_ms: float) -> float:
    """A number of the page's "sound" message. Raises MessageError for anything beyond ± `most_ms`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= most_ms:
        raise MessageError(f"sound: {name} must be a number from {-most_ms:g} to {most_ms:g}")
    return float(value)


def _yes_or_no(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise MessageError(f"sound: {name} must be true or false")
    return value


def _parsed(message: object) -> dict[str, object]:
    if not isinstance(message, str) or len(message) > MAX_MESSAGE_CHARS:
        raise MessageError(f"a message was no text of at most {MAX_MESSAGE_CHARS} characters; send less")
    try:
        data: object = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise MessageError("a message was not JSON; send an object with a type") from error
    if not isinstance(data, dict):
        raise MessageError("a message was no JSON object; send an object with a type")
    return cast(dict[str, object], data)
