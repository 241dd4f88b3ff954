"""Draw a scripted motion on a face, track the picture, compare: does what is asked for arrive?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engines.enrollment import Enrollment
from engines.geometry import F64, rotation_from_degrees, rotation_matrix, rotation_vector, yaw_pitch_roll_deg
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT, Motion
from engines.renderer import Renderer
from engines.retarget import Controls, retarget
from scripts.measure.figures import (
    Figure,
    Section,
    astronaut_png,
    column,
    enrolled,
    mean_of,
    pearson,
    worst,
)
from scripts.people.tracks import Tracked
from streamer.drive.trackers.mediapipe import MediaPipeTracker
from streamer.frame import Frame

U8 = NDArray[np.uint8]

FPS = 25.0
REST_FRAMES, TURN_FRAMES, FACE_FRAMES = 50, 76, 50
TURN_DEG, GAZE_RAD = 25.0, 0.4
SIZE_PX, TILE_PX = 512, 224
AXES = ("yaw", "pitch", "roll")
# coefficients that each channel drives and is read from
CHANNELS: dict[str, tuple[str, ...]] = {
    "jaw": ("jawOpen",),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "blink": ("eyeBlinkLeft", "eyeBlinkRight"),
    "brow": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
}
WANTED = {"jaw": 0.9, "smile": 0.9, "blink": 0.9, "brow": 0.8, "gaze": 0.8}


@dataclass(frozen=True, slots=True)
class Sweep:
    """Frames `first` … `first + count − 1` of the script, which move `name`."""

    name: str
    first: int
    count: int

    @property
    def frames(self) -> slice:
        """Its frames."""
        return slice(self.first, self.first + self.count)


@dataclass(frozen=True, slots=True)
class Script:
    """Motions against a neutral of zeros, and `drive` (F,) by channel: what each one asks for."""

    motions: Sequence[Motion]
    sweeps: Sequence[Sweep]
    drive: dict[str, F64]


def make_script() -> Script:
    """Rest, then each axis and channel by itself, then a little of all of them."""
    there_and_back = np.sin(np.linspace(0, 2 * np.pi, TURN_FRAMES))
    once = (1 - np.cos(np.linspace(0, 2 * np.pi, FACE_FRAMES))) / 2
    parts: list[tuple[str, int, dict[str, F64]]] = [("rest", REST_FRAMES, {})]
    parts += [(axis, TURN_FRAMES, {axis: TURN_DEG * there_and_back}) for axis in AXES]
    parts += [(channel, FACE_FRAMES, {channel: once}) for channel in CHANNELS]
    parts += [("gaze", FACE_FRAMES, {"gaze": GAZE_RAD * np.sin(np.linspace(0, 2 * np.pi, FACE_FRAMES))})]
    t = np.linspace(0, 2 * np.pi, TURN_FRAMES)
    combined = {
        "yaw": 8 * np.sin(t), "pitch": 6 * np.sin(2 * t), "roll": 5 * np.sin(t + 1) - 5 * np.sin(1),
        "jaw": 0.3 * np.sin(t) ** 2, "smile": 0.3 * np.sin(1.5 * t) ** 2,
    }  # fmt: skip
    parts += [("combined", TURN_FRAMES, combined)]
    total = sum(count for _, count, _ in parts)
    drive = {name: np.zeros(total) for name in (*AXES, *CHANNELS, "gaze")}
    sweeps: list[Sweep] = []
    first = 0
    for name, count, curves in parts:
        sweeps.append(Sweep(name, first, count))
        for channel, curve in curves.items():
            drive[channel][first : first + count] = curve
        first += count
    motions = [motion_at(drive, k) for k in range(total)]
    return Script(motions, sweeps, drive)


def motion_at(drive: dict[str, F64], k: int) -> Motion:
    """Frame `k` of the channels as a motion."""
    expression = np.zeros(EXPRESSION_COUNT, np.float32)
    for channel, names in CHANNELS.items():
        expression[[ARKIT_INDEX[n] for n in names]] = drive[channel][k]
    gaze = np.zeros((2, 2), np.float32)
    gaze[:, 0] = drive["gaze"][k]
    yaw, pitch, roll = (float(drive[axis][k]) for axis in AXES)
    return Motion(
        time_s=k / FPS,
        expression=expression,
        rotation_rad=rotation_from_degrees(yaw, pitch, roll).astype(np.float32),
        gaze_rad=gaze,
    )


def relative_deg(rotation_rad: NDArray[np.floating], rest_rad: NDArray[np.floating]) -> F64:
    """(3,) yaw, pitch and roll of the turn that leads from one pose to the other."""
    turn = rotation_matrix(rotation_rad.astype(np.float64)) @ rotation_matrix(rest_rad.astype(np.float64)).T
    return np.array(yaw_pitch_roll_deg(rotation_vector(turn)))


def wanted_motions(script: Script, enrollment: Enrollment) -> list[Motion]:
    """The script on a face, composed as the product does."""
    rest = Motion()
    return [retarget(m, rest, enrollment.motion, Controls()) for m in script.motions]


def track_back(renderer: Renderer, motions: Sequence[Motion]) -> tuple[list[Motion | None], Motion, list[U8]]:
    """Draw every motion and track the pictures: (tracked motions, the neutral at the end of the rest, pictures)."""
    tracked: list[Motion | None] = []
    pictures: list[U8] = []
    neutral = Motion()
    with MediaPipeTracker() as tracker:
        for k, motion in enumerate(motions):
            picture = renderer.render(motion)
            pictures.append(picture)
            tracked.append(tracker.track(Frame(k / FPS, 0, sequence=k, image=picture)).motion)
            if k == REST_FRAMES - 1:
                rest = tracker.driver_neutral
                if rest is not None:
                    tracker.use_neutral(rest, for_good=True)  # the face rests by construction, smile and all
                    neutral = rest.motion
    return tracked, neutral, pictures


def compare(
    script: Script,
    wanted: Sequence[Motion],
    source: Motion,
    tracked: Sequence[Motion | None],
    neutral: Motion,
) -> dict[str, float]:
    """Mean and greatest error of each angle in degrees, correlation of each channel, share of faces lost in %."""
    seen = np.array([m is not None for m in tracked])
    filled = [m or neutral for m in tracked]
    asked = np.array([relative_deg(m.rotation_rad, source.rotation_rad) for m in wanted])
    got = np.array([relative_deg(m.rotation_rad, neutral.rotation_rad) for m in filled])
    error = np.abs(got - asked)
    after = np.arange(len(filled)) >= REST_FRAMES
    row = {"lost": float(100 * (~seen).mean())}
    read = {
        name: np.array([m.expression[[ARKIT_INDEX[n] for n in names]].mean() for m in filled], np.float64)
        for name, names in CHANNELS.items()
    }
    read["gaze"] = np.array([m.gaze_rad[:, 0].mean() for m in filled], np.float64)
    for k, axis in enumerate(AXES):
        row[f"{axis}_mean"] = float(error[after & seen, k].mean())
        row[f"{axis}_max"] = float(error[after & seen, k].max())
        for sweep in script.sweeps[1:]:
            own = np.zeros(len(filled), bool)
            own[sweep.frames] = True
            row[f"{axis}_in_{sweep.name}"] = (
                float(error[own & seen, k].mean()) if (own & seen).any() else np.nan
            )
    for sweep in script.sweeps:
        own = seen[sweep.frames]
        if sweep.name in read and own.any():
            drive, back = script.drive[sweep.name][sweep.frames][own], read[sweep.name][sweep.frames][own]
            row[sweep.name] = pearson(drive, back)
            row[f"{sweep.name}_range"] = float(np.ptp(back) / np.ptp(drive))
        elif sweep.name in AXES:
            k = AXES.index(sweep.name)
            row[f"{sweep.name}_gain"] = float(
                np.ptp(got[sweep.frames][own, k]) / max(np.ptp(asked[sweep.frames][own, k]), 1e-6)
            )
    return row


def moments(script: Script) -> list[tuple[str, int]]:
    """(caption, frame): rest and the extremes of each sweep."""
    out = [("rest", REST_FRAMES - 1)]
    for sweep in script.sweeps[1:]:
        if sweep.name == "combined":
            continue
        curve = script.drive[sweep.name][sweep.frames]
        out.append((f"{sweep.name} {curve.max():.3g}", sweep.first + int(curve.argmax())))
        if curve.min() < -1e-6:
            out.append((f"{sweep.name} {curve.min():.3g}", sweep.first + int(curve.argmin())))
    return out


def tile_row(name: str, pictures: Sequence[U8], picks: Sequence[tuple[str, int]]) -> U8:
    """One row of a contact sheet, captioned."""
    tiles: list[U8] = []
    for caption, k in picks:
        tile = cv2.resize(pictures[k], (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA).astype(np.uint8)
        text = caption if caption != "rest" else name
        for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(
                tile, text, (5, TILE_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, thick, cv2.LINE_AA
            )
        tiles.append(tile)
    return np.hstack(tiles)


def measure_loop(photos: dict[str, Path | bytes], sheet: Path | None) -> Section:
    """The loop on each photo by name; `sheet` is where the contact sheet goes."""
    script = make_script()
    items: dict[str, dict[str, float]] = {}
    rows: list[U8] = []
    for name, photo in tqdm(photos.items(), desc="loop"):
        enrollment = enrolled(photo)
        wanted = wanted_motions(script, enrollment)
        tracked, neutral, pictures = track_back(Renderer(enrollment, size_px=SIZE_PX), wanted)
        items[name] = compare(script, wanted, enrollment.motion, tracked, neutral)
        rows.append(tile_row(name, pictures, moments(script)))
    if sheet is not None:
        cv2.imwrite(str(sheet), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))
    return Section("loop", _figures(items, script), items)


def loop_photos(portraits: Sequence[Tracked]) -> dict[str, Path | bytes]:
    """The faces of the loop: these portraits and the astronaut."""
    return {t.name: t.path for t in portraits} | {"astronaut": astronaut_png()}


def _figures(items: dict[str, dict[str, float]], script: Script) -> list[Figure]:
    figures = [Figure(key="faces", label="faces", value=len(items), at_least=4)]
    for axis in AXES:
        where = {s.name: mean_of(column(items, f"{axis}_in_{s.name}")) for s in script.sweeps[1:]}
        most = max(where, key=lambda n: where[n])
        figures += [
            Figure(key=f"{axis}_mean", label=f"{axis} error, mean over the script",
                   value=mean_of(column(items, f"{axis}_mean")), unit="°", at_most=2.5,
                   note=f"most in the {most} sweep ({where[most]:.2f}°); {worst(items, f'{axis}_mean')}"),
            Figure(key=f"{axis}_own", label=f"{axis} error over its own sweep, worst face",
                   value=mean_of(column(items, f"{axis}_in_{axis}"), np.max), unit="°", at_most=2.5,
                   note=f"{worst(items, f'{axis}_in_{axis}', 5)}; mean {where[axis]:.2f}"),
            Figure(key=f"{axis}_max", label=f"{axis} error, greatest",
                   value=mean_of(column(items, f"{axis}_max"), np.max), unit="°", at_most=2.5,
                   note=worst(items, f"{axis}_max")),
            Figure(key=f"{axis}_gain", label=f"{axis}, tracked range over asked, mean",
                   value=mean_of(column(items, f"{axis}_gain"))),
        ]  # fmt: skip
    for channel, least in WANTED.items():
        own = column(items, channel)
        figures += [
            Figure(key=channel, label=f"{channel}, correlation, worst face", value=mean_of(own, np.min),
                   at_least=least, note=f"{worst(items, channel, low=True)}; mean {mean_of(own):.3f}"),
            Figure(key=f"{channel}_range", label=f"{channel}, tracked range over asked, mean",
                   value=mean_of(column(items, f"{channel}_range"))),
        ]  # fmt: skip
    figures.append(Figure(key="lost", label="frames without a face", value=column(items, "lost").max(), unit="%",
                          note=worst(items, "lost", 1)))  # fmt: skip
    return figures
