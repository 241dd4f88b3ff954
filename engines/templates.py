"""Templates: expressions that people showed, each kept with the identity shape of the head that showed it.

Vei, "One-shot Facial Expression Reenactment using 3D Morphable Models" (2022), § 3.3.1. A fit cannot tell shape and
expression apart wholly: what a face at rest has of a smile goes into either. So an expression taken from one head and
put on another brings some of the first one's shape along. Per emotion there are therefore several expressions, and a
photo is given that of the head most like its own: of templates (α_i, β_i) the one with the least |α_i − α|, α in
standard deviations of the head model's identity modes.

Ours: closure of the lips is kept beside β, because `Motion` has it apart; where the eyes look (and the eight
coefficients of lids that follow them) stays the photo's. There is no δ to keep: it is a person's in visavis, no
expression's. Which faces show an emotion is told by the nearest frames to its preset (`scripts.build_templates`), not
by labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import VisavisError, brief
from engines.files import write_whole
from engines.mood import Mood
from engines.motion import ARKIT_NAMES, EXPRESSION_COUNT, Motion
from engines.presets import PRESET_NAMES
from engines.retarget import CALM, Controls, retarget

F32 = NDArray[np.float32]

SHIPPED = Path(__file__).parent / "data" / "templates.json"
FORMAT, VERSION = "visavis-templates", 1
MAX_FILE_BYTES = 4_000_000
MOST_MODES = 4096
LARGEST = 10.0  # of a number in a file

# lids that follow the eyes
FOLLOWS_GAZE: NDArray[np.bool_] = np.array([name.startswith("eyeLook") for name in ARKIT_NAMES])


class TemplatesError(VisavisError):
    """A templates file cannot be read, or holds heads of another head model; the message names the fix."""


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """One expression and its head: `identity` (K,) α, `expression` (52,) β, `lips` closed, 0 … 1."""

    identity: F32
    expression: F32
    lips: float


@dataclass(frozen=True, slots=True)
class Templates:
    """Emotion → its templates, at least one, in the order of `PRESET_NAMES`; `head_model`: digest of what α means."""

    by_emotion: Mapping[str, Sequence[Template]]
    head_model: str


def shape_distances(templates: Sequence[Template], identity: F32) -> NDArray[np.float64]:
    """|α_i − α| (T,) in standard deviations; modes that one of both does not have are 0."""
    count = max(len(identity), *(len(t.identity) for t in templates))
    padded = np.zeros((len(templates) + 1, count))
    for row, values in zip(padded, (identity, *(t.identity for t in templates)), strict=True):
        row[: len(values)] = values
    return np.asarray(np.linalg.norm(padded[1:] - padded[0], axis=1))


def nearest(templates: Sequence[Template], identity: F32) -> Template:
    """That of the head whose shape is most like α = `identity` (K,); of several just as like the first."""
    return templates[int(shape_distances(templates, identity).argmin())]


def template_motion(source: Motion, template: Template, strength: float = 1.0) -> Motion:
    """The photo `source` with the template's expression, `strength` (0 … 2) times: the photo's pose and gaze.

    As `emotion_motion`, from strength 1 on nothing of the photo's own expression is left. Raises ControlsError.
    """
    share = min(strength, 1.0)
    controls = Controls(preset_strength=strength)
    expression = strength * np.where(FOLLOWS_GAZE, 0, template.expression.astype(np.float64))
    return retarget(CALM, CALM, source, controls, mood=Mood(expression, share, share * template.lips))


def require_head_model(templates: Templates, digest: str, name: str) -> None:
    """Raises TemplatesError where the templates' shapes are not told in the head model of `digest`, called `name`."""
    if templates.head_model != digest:
        raise TemplatesError(
            f"these templates are heads of another head model than {name}, on which this avatar was enrolled; use "
            "the presets, or in a checkout make templates on it: python -m scripts.build_templates --help"
        )


def templates_text(templates: Templates, licence: str) -> str:
    """What a templates file holds: JSON, one line a template; α to a tenth of σ, β and lips to a hundredth."""

    def numbers(values: F32, digits: int) -> list[float]:
        return [round(float(v), digits) + 0.0 for v in values]

    emotions = [
        f"{json.dumps(name)}: [\n"
        + ",\n".join(
            json.dumps(
                {
                    "identity": numbers(t.identity, 1),
                    "expression": numbers(t.expression, 2),
                    "lips": round(t.lips, 2),
                },
                separators=(",", ":"),
            )
            for t in several
        )
        + "\n]"
        for name, several in templates.by_emotion.items()
    ]
    head = {"format": FORMAT, "version": VERSION, "licence": licence, "head_model": templates.head_model}
    return json.dumps(head)[:-1] + ', "emotions": {\n' + ",\n".join(emotions) + "\n}}\n"


def save_templates(path: Path, templates: Templates, licence: str) -> None:
    """Write a templates file, whole or not at all. Raises OSError."""
    write_whole(path, templates_text(templates, licence))


def load_templates(path: Path = SHIPPED) -> Templates:
    """Read a templates file. Raises TemplatesError for what is none."""
    again = "in a checkout make one: python -m scripts.build_templates --help"
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TemplatesError(f"{path} is larger than {MAX_FILE_BYTES} bytes and so no templates; {again}")
        told: Any = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise ValueError("of another format")
        version = int(told["version"])
        if version == VERSION:
            return _read(told)
    except OSError as error:
        raise TemplatesError(f"cannot read the templates {path} ({error.strerror}); {again}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise TemplatesError(f"{path} is no templates file ({brief(error)}); {again}") from error
    raise TemplatesError(f"{path} is templates version {version}, this visavis reads {VERSION}; {again}")


def _read(told: Any) -> Templates:
    emotions = told["emotions"]
    if unknown := [name for name in emotions if name not in PRESET_NAMES]:
        raise ValueError(f"there is no emotion {unknown[0]!r:.40}")
    read = {name: tuple(_template(t) for t in emotions[name]) for name in PRESET_NAMES if name in emotions}
    if not read or not all(read.values()):
        raise ValueError("an emotion has no template")
    return Templates(read, str(told["head_model"]))


def _template(told: Any) -> Template:
    identity, expression = (np.array(told[n], np.float32) for n in ("identity", "expression"))
    lips = float(told["lips"])
    if identity.ndim != 1 or len(identity) > MOST_MODES or expression.shape != (EXPRESSION_COUNT,):
        raise ValueError(f"a template has {identity.shape} and {expression.shape} numbers")
    if not (np.abs(np.concatenate([identity, expression])) <= LARGEST).all() or not 0 <= lips <= 1:
        raise ValueError("a number of a template is out of range")
    return Template(identity, expression, lips)
