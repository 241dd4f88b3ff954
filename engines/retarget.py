"""Retargeting: the driver's motion, told relative to its neutral, becomes motion of the source photo's head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from engines.errors import VisavisError
from engines.geometry import F64, rotation_matrix, rotation_vector
from engines.mood import Mood, mood_of
from engines.motion import ARKIT_INDEX, ARKIT_NAMES, EXPRESSION_COUNT, Motion
from engines.presets import PRESET_NAMES
from engines.rest import resting
from engines.turn_limits import turn_limits_deg

MotionMode = Literal["relative", "absolute"]
Region = Literal["all", "exp", "pose", "lip", "eyes"]
HeadFrom = Literal["driver", "recording"]


class ControlsError(VisavisError):
    """A setting is unknown or outside its range; the message names the setting and what it may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """What a user may change while it runs; saved with the avatar.

    Strengths are 0 … 2 (1 = as the driver does it). `expression` multiplies `lips`, `eyes` and `brows`;
    `head` turns the head, `position` moves it. `region` limits what of the driver gets through.
    `place_absolutely` also takes the head's place from the driver's picture (absolute motion in the
    photo's own framing). `keep_lips` and `keep_blink` let closed lips and blinks through whatever the
    strengths and the photo say. `head_from` gives the head's pose to a recorded motion, whatever `region` is
    (`streamer.drive.recorded_head`). `preset` shows an emotion (`engines.presets`) of `preset_strength` in the place of
    the photo's own expression, whatever strengths and region are; the driver moves on top of it. `rest`: how much of
    the photo's own expression the face rests in, 1 all of it … 0 the neutral face (`engines.rest`). `turn_reach`:
    how far the head may turn, 1 as far as the photo bears (`engines.turn_limits`) … 0 not at all.
    Raises ControlsError for a value outside its range.
    """

    expression: float = 1.0
    lips: float = 1.0
    eyes: float = 1.0
    brows: float = 1.0
    gaze: float = 1.0
    head: float = 1.0
    position: float = 1.0
    region: Region = "all"
    head_from: HeadFrom = "driver"
    motion: MotionMode = "relative"
    place_absolutely: bool = False
    keep_lips: bool = True
    keep_blink: bool = True
    preset: str = "none"
    preset_strength: float = 1.0
    rest: float = 1.0
    turn_reach: float = 1.0

    def __post_init__(self) -> None:
        for name in (*STRENGTHS, *SHARES):
            value: object = getattr(self, name)
            most = 1.0 if name in SHARES else STRENGTH_MAX
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                raise ControlsError(f"{name} is {value!r:.60}; give a number from 0 to {most:g}")
            object.__setattr__(self, name, float(value))
        for name in SWITCHES:
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise ControlsError(f"{name} is {value!r:.60}; give true or false")
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ControlsError(f"{name} is {value!r:.60}; choose one of: {', '.join(allowed)}")

    def to_dict(self) -> dict[str, float | bool | str]:
        """Every field by name, ready for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @staticmethod
    def from_dict(data: Mapping[str, object], base: Controls | None = None) -> Controls:
        """`base` (default: the defaults) with the fields in `data` replaced.

        Raises ControlsError for an unknown field, a wrong type or a value outside its range.
        """
        known = [f.name for f in fields(Controls)]
        for name in data:
            if name not in known:
                raise ControlsError(f"there is no setting {name!r}; choose one of: {', '.join(known)}")
        return replace(base or Controls(), **data)  # pyright: ignore[reportArgumentType]


STRENGTH_MAX = 2.0
STRENGTHS = ("expression", "lips", "eyes", "brows", "gaze", "head", "position", "preset_strength")
SHARES = ("rest", "turn_reach")  # 0 … 1
SWITCHES = ("place_absolutely", "keep_lips", "keep_blink")
CHOICES: dict[str, tuple[str, ...]] = {
    "region": get_args(Region),
    "head_from": get_args(HeadFrom),
    "motion": get_args(MotionMode),
    "preset": ("none", *PRESET_NAMES),
}


SHIFT_KNEE_HU, SHIFT_LIMIT_HU = 0.3, 0.6
ZOOM_KNEE, ZOOM_LIMIT = 0.15, 0.3  # of log distance
PLACED_ZOOM_LIMIT, PLACED_SHIFT_PER_HU = 1.1, 0.4  # with `place_absolutely`: the head stays in the picture
HIGH_KNEE, HIGH_LIMIT = 1.0, 1.3  # of a coefficient of β
LOW_KNEE, LOW_LIMIT = -0.1, -0.3
GAZE_KNEE_RAD, GAZE_LIMIT_RAD = np.array([0.4, 0.28]), np.array([0.55, 0.4])  # yaw, pitch
INSANE = 4.0  # a coefficient of β beyond this is a tracker's fault
LEAST_ROOM = 0.02  # beyond what the photo itself shows


def _region_of(name: str) -> str:
    if name.startswith(("mouth", "jaw")) or name in ("cheekPuff", "tongueOut"):
        return "lips"
    if name.startswith(("eye", "cheekSquint")):
        return "eyes"
    if name.startswith(("brow", "noseSneer")):
        return "brows"
    raise ValueError(f"{name} belongs to no region")


# coefficient → the strength that scales it
REGION_OF: dict[str, str] = {name: _region_of(name) for name in ARKIT_NAMES}
_IN_REGION = {
    region: np.array([REGION_OF[name] == region for name in ARKIT_NAMES])
    for region in ("lips", "eyes", "brows")
}
# `Controls.region` → what of the driver gets through
_LETS_THROUGH: dict[Region, frozenset[str]] = {
    "all": frozenset({"lips", "eyes", "brows", "gaze", "head", "position"}),
    "exp": frozenset({"lips", "eyes", "brows", "gaze"}),
    "pose": frozenset({"head", "position"}),
    "lip": frozenset({"lips"}),
    "eyes": frozenset({"eyes", "gaze"}),
}


def _indices(*names: str) -> NDArray[np.int64]:
    return np.array([ARKIT_INDEX[name] for name in names])


# what parts the lips
LIP_OPENERS = (
    "jawOpen", "mouthFunnel", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight",
)  # fmt: skip
_OPENERS = _indices(*LIP_OPENERS)
_BLINK = _indices("eyeBlinkRight", "eyeBlinkLeft")  # in the order of `Motion.closure`
_WIDE = _indices("eyeWideRight", "eyeWideLeft")
# movements that undo each other: at once they would only fold the skin. (Smile and frown do not: both widen the mouth,
# and a fit tells width by the two together.)
_OPPOSED = np.stack(
    [
        _indices("mouthLeft", "jawLeft", "eyeLookInLeft", "eyeLookInRight", "eyeLookUpLeft", "eyeLookUpRight"),
        _indices("mouthRight", "jawRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookDownLeft",
                 "eyeLookDownRight"),
    ]
)  # fmt: skip
_JAW_OPEN, _MOUTH_CLOSE = ARKIT_INDEX["jawOpen"], ARKIT_INDEX["mouthClose"]
# so much opening (of β, all openers together) lets go of lips or lids that the photo shows closed
OPENED_KNEE, OPENED_LETS_GO = 0.05, 0.2
# lids that rest further down are no rest: a blink shuts them all the same
RESTING_LIDS = 0.5


def soft_limit(value: F64 | float, knee: F64 | float, limit: F64 | float) -> F64:
    """|value| up to `knee` as it is, then easing towards ±`limit` (> knee): nothing can go beyond it."""
    size = np.abs(value)
    room = np.subtract(limit, knee)
    return np.where(size <= knee, value, np.sign(value) * (knee + room * np.tanh((size - knee) / room)))


def retarget(
    driver: Motion,
    neutral: Motion,
    source: Motion,
    controls: Controls,
    *,
    mood: Mood | None = None,
    talking: float = 0.0,
) -> Motion:
    """Motion for the photo's head, in the photo's own camera.

    `driver` and `neutral` are in the driver's camera, `source` is the photo's own motion. Relative:
    `source + strength · (driver − neutral)`. Absolute: the driver's own, on the way from the photo's own for
    strengths below 1. Only β, pose, gaze and closure travel, never a shape, so the photo stays the person it is.
    Whatever finite motion comes in, the result is finite and within the limits above; the limits make room
    for what the photo itself shows, so a driver at rest shows the photo as it is, or as much of its expression as
    `Controls.rest` leaves.

    With an emotion the photo's own expression, lips and lids give way to the emotion's; a driver at rest shows the
    emotion as `emotion_motion` does. `mood`: the emotion now, where that is not yet the one of `controls`. An emotion
    that parts the lips parts those of a driver at rest, however closed they are, but not while that driver is `talking`
    (0 … 1): then they close whenever the driver's do, as in p, b and m.
    """
    driver, neutral = _sane(driver), _sane(neutral)
    source = resting(source, controls.rest, min(controls.eyes, 1.0))
    named = _strengths(controls)
    mood = mood or mood_of(controls.preset, controls.preset_strength)
    closure, closing = _closure(driver, neutral, source, controls, named, mood, talking)
    expression = _expression(driver, neutral, source, controls, named, mood, closure, closing)
    if controls.motion == "absolute":
        gaze = _towards(_f64(source.gaze_rad), _f64(driver.gaze_rad), named["gaze"])
    else:
        gaze = source.gaze_rad + named["gaze"] * (_f64(driver.gaze_rad) - neutral.gaze_rad)
    own_gaze = np.abs(_f64(source.gaze_rad))
    gaze_knee = np.maximum(GAZE_KNEE_RAD, own_gaze)
    gaze = soft_limit(gaze, gaze_knee, np.maximum(GAZE_LIMIT_RAD, gaze_knee + LEAST_ROOM))
    return Motion(
        time_s=driver.time_s,
        expression=expression.astype(np.float32),
        rotation_rad=_rotation(driver, neutral, source, controls, named["head"]).astype(np.float32),
        translation_hu=_translation(driver, neutral, source, controls, named["position"]).astype(np.float32),
        gaze_rad=gaze.astype(np.float32),
        confidence=driver.confidence,
        closure=closure.astype(np.float32),
    )


# what a face does at rest: its lips are closed
CALM = Motion(closure=np.array([1, 0, 0], np.float32))


def emotion_motion(source: Motion, name: str, strength: float = 1.0) -> Motion:
    """The photo `source` with the emotion `name`, as a driver at rest shows it live: the photo's pose and gaze.

    Raises ControlsError for an emotion or a strength that there is not.
    """
    return retarget(CALM, CALM, source, Controls(preset=name, preset_strength=strength))


def _sane(motion: Motion) -> Motion:
    """Without sizes that no face has: the differences of huge numbers would be noise."""
    return replace(motion, expression=np.clip(motion.expression, -INSANE, INSANE))


def _strengths(controls: Controls) -> dict[str, float]:
    """Strength by the name of what it scales: 0 where the region lets nothing through."""
    let = _LETS_THROUGH[controls.region]
    named: dict[str, float] = {}
    for name in _LETS_THROUGH["all"]:
        strength: float = getattr(controls, name) if name in let else 0.0
        named[name] = strength * controls.expression if name in _IN_REGION else strength
    return named


def _f64(values: NDArray[np.float32]) -> F64:
    return np.asarray(values, np.float64)


def _towards(source: F64, driver: F64, strength: F64 | float) -> F64:
    """Absolute motion: the photo's own at strength 0, the driver's at 1, more of the driver's beyond."""
    return (1 - np.minimum(strength, 1.0)) * source + strength * driver


def _closure(
    driver: Motion,
    neutral: Motion,
    source: Motion,
    controls: Controls,
    named: dict[str, float],
    mood: Mood,
    talking: float,
) -> tuple[F64, float]:
    """How closed lips, right and left eye are drawn (3,); and how far the driver closes an emotion's lips, 0 … 1.

    Relative: closing beyond the driver's rest closes; what the photo shows closed stays so until the driver
    opens it. Absolute: the driver's own. Kept (`keep_lips`, `keep_blink`): at least as closed
    as the driver is, whatever the strengths and the photo: an open mouth in the photo closes with the driver's.
    By as much as an emotion is there, its own lips and open eyes stand for the photo's, and the driver's rest is
    nothing to be kept.
    """
    own, theirs, rest = (np.clip(_f64(m.closure), 0, 1) for m in (source, driver, neutral))
    # half-closed lids and lips do not close the more for an exaggerated face
    strength = np.minimum([named["lips"], named["eyes"], named["eyes"]], 1.0)
    let = _LETS_THROUGH[controls.region]
    kept = np.array([controls.keep_lips and "lips" in let, *[controls.keep_blink and "eyes" in let] * 2])
    change = _f64(driver.expression) - neutral.expression
    opened = np.array([np.maximum(change[_OPENERS], 0).sum(), *(change[_WIDE] - change[_BLINK])])
    let_go = (
        strength * np.maximum(rest - theirs, 0)
        + np.maximum(strength * opened - OPENED_KNEE, 0) / OPENED_LETS_GO
    )

    def closed(shown: F64, closes: F64 | float = 1.0) -> F64:
        return np.maximum(shown * np.clip(1 - let_go, 0, 1), closes * strength * (theirs - rest))

    moved = _towards(own, theirs, strength) if controls.motion == "absolute" else closed(own)
    without = np.clip(np.where(kept, np.maximum(moved, theirs), moved), 0, 1)
    if mood.share <= 0:
        return without, 0.0
    shown = np.array([mood.lips_closed, 0.0, 0.0])
    # no neutral says whether lips rest closed: only who talks closes those that an emotion parts
    closes = max(talking, mood.lips_closed)
    lips = closes * theirs[:1]
    lids_rest = np.minimum(rest[1:], RESTING_LIDS)
    lids = np.maximum(theirs[1:] - lids_rest, 0) / (1 - lids_rest)
    moved = closed(shown, np.array([closes, 1.0, 1.0]))
    felt = np.clip(np.where(kept, np.maximum(moved, np.concatenate([lips, lids])), moved), 0, 1)
    return (1 - mood.share) * without + mood.share * felt, float(_on_the_way(shown, felt)[0])


def _expression(
    driver: Motion,
    neutral: Motion,
    source: Motion,
    controls: Controls,
    named: dict[str, float],
    mood: Mood,
    closure: F64,
    closing_mood: float,
) -> F64:
    stays = 1 - mood.share
    own, theirs = stays * _f64(source.expression), _f64(driver.expression)
    strength = sum(
        (named[name] * members for name, members in _IN_REGION.items()), np.zeros(EXPRESSION_COUNT)
    )
    if controls.motion == "absolute":
        share = (1 - np.minimum(strength, 1)) * own
        value = share + strength * theirs
    else:
        share = own
        value = own + strength * (theirs - neutral.expression)
    # closed lips: the photo's own opening and the emotion's yield, so that lips meet without being stretched
    own_closure = np.clip(_f64(source.closure), 0, 1)
    closing = _on_the_way(own_closure, closure)
    yields = np.minimum(closing[0] * np.maximum(share[_OPENERS], 0), np.maximum(value[_OPENERS], 0))
    value[_OPENERS] -= yields
    felt = mood.expression.copy()
    felt[_OPENERS] *= 1 - closing_mood
    value += felt
    # a lid that is down cannot be wide
    shut = np.maximum(value[_BLINK], closure[1:])
    own_shut = np.maximum(own[_BLINK], stays * own_closure[1:])
    value[_WIDE] -= np.maximum(value[_WIDE], 0) * _on_the_way(own_shut, shut)
    one, other = _OPPOSED
    conflict = _conflict(value[one], value[other], own[one], own[other])
    value[one] -= conflict
    value[other] -= conflict
    high_knee, low_knee = np.maximum(HIGH_KNEE, own), np.minimum(LOW_KNEE, own)
    value = np.where(
        value >= 0,
        soft_limit(value, high_knee, np.maximum(HIGH_LIMIT, high_knee + LEAST_ROOM)),
        soft_limit(value, -low_knee, np.maximum(-LOW_LIMIT, LEAST_ROOM - low_knee)),
    )
    # ARKit's mouthClose closes lips over an open jaw; beyond that it would push one lip into the other
    beyond = max(0.0, own[_MOUTH_CLOSE] - max(own[_JAW_OPEN], 0.0))
    value[_MOUTH_CLOSE] = min(value[_MOUTH_CLOSE], max(value[_JAW_OPEN], 0.0) + beyond)
    return value


def _on_the_way(own: F64, now: F64) -> F64:
    """How far `now` has gone from the photo's `own` towards 1: 0 … 1."""
    return np.clip((now - own) / np.maximum(1 - own, 1e-6), 0, 1)


def _conflict(one: F64, other: F64, own_one: F64, own_other: F64) -> F64:
    """How much two movements that undo each other are both on, beyond what the photo itself shows."""
    return np.maximum(np.minimum(one, other) - np.maximum(np.minimum(own_one, own_other), 0), 0)


def _rotation(driver: Motion, neutral: Motion, source: Motion, controls: Controls, strength: float) -> F64:
    own = rotation_matrix(source.rotation_rad)
    rest = own if controls.motion == "absolute" else rotation_matrix(neutral.rotation_rad)
    # the turn that leads away from the photo's own pose
    turn = rotation_vector(rotation_matrix(driver.rotation_rad) @ rest.T) * strength
    angle = float(np.linalg.norm(turn))
    knee, limit = np.radians(turn_limits_deg(_f64(source.rotation_rad), turn)) * controls.turn_reach
    if controls.turn_reach == 0:
        return _f64(source.rotation_rad)
    if angle > knee:
        turn *= float(soft_limit(angle, knee, limit)) / angle
    return rotation_vector(rotation_matrix(turn) @ own)


def _translation(driver: Motion, neutral: Motion, source: Motion, controls: Controls, strength: float) -> F64:
    own, theirs = _f64(source.translation_hu), _f64(driver.translation_hu)
    placed = controls.motion == "absolute" and controls.place_absolutely
    rest = own if placed else _f64(neutral.translation_hu)
    zoom = strength * float(np.log(max(theirs[2], 1e-3) / max(rest[2], 1e-3)))
    shift = strength * (theirs[:2] - rest[:2])
    if placed:
        distance = own[2] * float(np.exp(np.clip(zoom, -PLACED_ZOOM_LIMIT, PLACED_ZOOM_LIMIT)))
        widest = np.maximum(PLACED_SHIFT_PER_HU, np.abs(own[:2]) / own[2]) * distance
        return np.array([*np.clip(own[:2] + shift, -widest, widest), distance])
    grow = float(np.exp(soft_limit(zoom, ZOOM_KNEE, ZOOM_LIMIT)))
    # the head moves by `shift` as seen at the photo's scale, whatever its distance becomes
    return np.array([*(own[:2] + soft_limit(shift, SHIFT_KNEE_HU, SHIFT_LIMIT_HU)), own[2]]) * [
        grow,
        grow,
        grow,
    ]
