"""The options of `engines.retarget.Controls`, given to every command that moves an avatar.

An option that was not typed leaves what is saved with the avatar; nothing here is imported that is slow.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer


class MotionMode(StrEnum):
    """How the driver's motion is taken."""

    relative = "relative"
    absolute = "absolute"


class RegionChoice(StrEnum):
    """What of the driver gets through."""

    all = "all"
    exp = "exp"
    pose = "pose"
    lip = "lip"
    eyes = "eyes"


class HeadChoice(StrEnum):
    """Who moves the head."""

    driver = "driver"
    recording = "recording"


STRENGTH_PANEL = "Strengths (0 to 2; 1 is as the driver does it)"
MOTION_PANEL = "Motion"


def _up_to(most: float, text: str, panel: str) -> Any:
    return Annotated[
        float | None, typer.Option(min=0, max=most, help=text, rich_help_panel=panel, show_default=False)
    ]


def _strength(text: str) -> Any:
    return _up_to(2, text, STRENGTH_PANEL)


def _share(text: str) -> Any:
    return _up_to(1, text, MOTION_PANEL)


def _motion(annotation: Any, text: str, *names: str) -> Any:
    return Annotated[
        annotation | None, typer.Option(*names, help=text, rich_help_panel=MOTION_PANEL, show_default=False)
    ]


# in the order of the fields of `Controls`; a test compares them
OPTIONS: dict[str, Any] = {
    "expression": _strength("The whole face: multiplies lips, eyes and brows."),
    "lips": _strength("Mouth and jaw."),
    "eyes": _strength("Eyelids."),
    "brows": _strength("Brows and nose."),
    "gaze": _strength("Where the eyes look."),
    "head": _strength("Turning of the head."),
    "position": _strength("Moving of the head in the picture."),
    "region": _motion(RegionChoice, "What of the driver gets through: all, exp, pose, lip, eyes."),
    "head_from": _motion(
        HeadChoice,
        "Who moves the head: driver, or recording (--head-motion), while the driver moves the face.",
    ),
    "motion": _motion(MotionMode, "relative: from the driver's rest; absolute: as it is."),
    "place_absolutely": _motion(
        bool,
        "With --motion absolute: take the head's place from the driver's picture too.",
        "--place-absolutely/--no-place-absolutely",
    ),
    "keep_lips": _motion(
        bool, "Lips that the driver closes close, whatever the strengths.", "--keep-lips/--no-keep-lips"
    ),
    "keep_blink": _motion(
        bool, "Eyes that the driver closes close, whatever the strengths.", "--keep-blink/--no-keep-blink"
    ),
    "preset": _motion(
        str,
        "Show an emotion in place of the photo's expression: happy, awed, … (`visavis emotions` draws all), or none.",
    ),
    "preset_strength": _strength("The emotion of --preset."),
    "rest": _share("What the face rests in: 1, the photo's own expression, to 0, neutral."),
    "turn_reach": _share("How far the head may turn: 1, as far as the photo bears, to 0, not at all."),
}


def with_controls(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with an option for each control; it gets what was typed as the dictionary `controls`."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for name, p in signature.parameters.items() if name != "controls"]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in OPTIONS.items()
    ]

    @wraps(command)
    def run(**given: Any) -> None:
        typed = {name: given.pop(name, None) for name in OPTIONS}
        command(**given, controls={name: _plain(v) for name, v in typed.items() if v is not None})

    run.__signature__ = signature.replace(parameters=[*own, *more])  # pyright: ignore[reportAttributeAccessIssue]
    return run


def moved_by(head_motion: Path | None, controls: dict[str, object]) -> dict[str, object]:
    """`controls` as typed; a file that moves the head is meant to, unless they say otherwise."""
    return controls if head_motion is None else {"head_from": "recording"} | controls


def _plain(value: Any) -> object:
    return value.value if isinstance(value, StrEnum) else value
