"""Contact sheets: poses, expressions, emotions and the G-buffer, on faces that may be shown to anybody.

    python -m scripts.contact_sheet -o docs [--photo FILE ...] [--only pose,emotions]

Without photos: an astronaut (NASA; scikit-image) and an admiral (US Navy; matplotlib), both public domain,
and somebody who does not exist (`scripts/head/clay.py`). Writes into the folder:

- `contact-pose.png`: yaw, pitch and roll, told absolutely.
- `contact-expression.png`: one movement at a time, as a driver's, added to what the photo shows.
- `contact-emotions.png`: the 22 emotions of `engines.presets`.
- `contact-gbuffer.png`: what `engines.raster.conditioning` gives a generator, for the first face.
- `contact-sheet.png`: six moments of the recorded motion that ships, over the first two faces.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from calibration.enroll import enroll
from engines.edit import Edit, apply_edit
from engines.enrollment import Enrollment
from engines.files import write_whole
from engines.geometry import Camera, yaw_pitch_roll_deg
from engines.head.model import Part, load_head_model
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT, Motion, MotionTrack, read_motion
from engines.presets import PRESET_NAMES
from engines.raster.conditioning import computed_flow, computed_occlusion, face_mask, pncc, rendered_face
from engines.raster.gbuffer import front_facing, rasterise
from engines.raster.pose import head_viewport, pose_head
from engines.renderer import Renderer
from engines.retarget import Controls, emotion_motion, retarget
from scripts.head.clay import clay_face
from scripts.measure.figures import astronaut_png
from streamer.drive.demo import DEMO_MOTION

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

RENDER_PX = 512  # as a call draws it; cells are made smaller afterwards
MAX_FILE_BYTES = 1_500_000
LABEL_PX, MARGIN_PX = 22, 26
INK, PAPER = (20, 20, 20), (255, 255, 255)
CLAY_SEEDS = (2,)
SHEETS = ("pose", "expression", "emotions", "gbuffer", "sheet")


@dataclass(frozen=True, slots=True)
class Face:
    """A photo and what is written beside its row."""

    name: str
    photo: Path | bytes


@dataclass(frozen=True, slots=True)
class Sheet:
    """Rows of pictures (RGB, square, all alike) with a name each, and what is written beside each row."""

    rows: Sequence[Mapping[str, U8]]
    names: Sequence[str]
    cell_px: int


# A driver's coefficients, gaze (yaw, pitch) in radians and closure (lips, right eye, left eye), by caption.
# A name that ends in * stands for left and right.
EXPRESSIONS: dict[str, tuple[dict[str, float], tuple[float, float], tuple[float, float, float]]] = {
    "rest": ({}, (0, 0), (0, 0, 0)),
    "jaw 0.4": ({"jawOpen": 0.4}, (0, 0), (0, 0, 0)),
    "jaw 0.9, teeth": (
        {"jawOpen": 0.9, "mouthUpperUp*": 0.35, "mouthLowerDown*": 0.35},
        (0, 0),
        (0, 0, 0),
    ),
    "blink, half": ({"eyeBlink*": 0.5}, (0, 0), (0, 0, 0)),
    "blink": ({"eyeBlink*": 1.0}, (0, 0), (0, 1, 1)),
    "smile": ({"mouthSmile*": 0.8, "cheekSquint*": 0.4}, (0, 0), (0, 0, 0)),
    "pucker": ({"mouthPucker": 0.9}, (0, 0), (0, 0, 0)),
    "lips closed": ({}, (0, 0), (1, 0, 0)),
    "gaze left": ({"eyeLookOutRight": 0.7, "eyeLookInLeft": 0.7}, (-0.4, 0), (0, 0, 0)),
    "gaze right": ({"eyeLookInRight": 0.7, "eyeLookOutLeft": 0.7}, (0.4, 0), (0, 0, 0)),
    "gaze up": ({"eyeLookUp*": 0.7}, (0, -0.28), (0, 0, 0)),
    "brows up": ({"browInnerUp": 0.8, "browOuterUp*": 0.8}, (0, 0), (0, 0, 0)),
    "brows down": ({"browDown*": 0.9}, (0, 0), (0, 0, 0)),
}


def safe_faces() -> list[Face]:
    """Faces that may be shown: public domain, or of nobody."""
    admiral = Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    faces = [Face("astronaut (NASA)", astronaut_png()), Face("admiral (US Navy)", admiral)]
    return faces + [Face(f"nobody, seed {seed}", _png(clay_face(seed))) for seed in CLAY_SEEDS]


def _png(picture: U8) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()


def pose_edits() -> dict[str, Edit]:
    """Caption → the pose shown there."""
    edits = {
        f"yaw {yaw:+d}°" if yaw else "yaw 0°": Edit(yaw_deg=yaw, pitch_deg=0, roll_deg=0)
        for yaw in range(-30, 31, 10)
    }
    edits |= {f"pitch {pitch:+d}°": Edit(yaw_deg=0, pitch_deg=pitch, roll_deg=0) for pitch in (-15, 15)}
    return edits | {"roll +15°": Edit(yaw_deg=0, pitch_deg=0, roll_deg=15)}


def expression_motion(caption: str) -> Motion:
    """The driver's motion of one of `EXPRESSIONS`, against a driver at rest."""
    coefficients, gaze, closure = EXPRESSIONS[caption]
    expression = np.zeros(EXPRESSION_COUNT, np.float32)
    for name, value in coefficients.items():
        for one in (name[:-1] + "Left", name[:-1] + "Right") if name.endswith("*") else (name,):
            expression[ARKIT_INDEX[one]] = value
    return Motion(
        expression=expression,
        gaze_rad=np.array([gaze, gaze], np.float32),
        closure=np.array(closure, np.float32),
    )


Draw = Callable[[Enrollment, Callable[[Motion], U8]], list[Mapping[str, U8]]]


def draw_poses(enrollment: Enrollment, draw: Callable[[Motion], U8]) -> list[Mapping[str, U8]]:
    """One row: the head turned."""
    return [{name: draw(apply_edit(enrollment.motion, edit)) for name, edit in pose_edits().items()}]


def draw_expressions(enrollment: Enrollment, draw: Callable[[Motion], U8]) -> list[Mapping[str, U8]]:
    """One row: one movement at a time."""
    return [
        {
            name: draw(retarget(expression_motion(name), Motion(), enrollment.motion, Controls()))
            for name in EXPRESSIONS
        }
    ]


def draw_emotions(enrollment: Enrollment, draw: Callable[[Motion], U8]) -> list[Mapping[str, U8]]:
    """Two rows: 22 emotions are too many for one."""
    pictures = {
        name.replace("_", " "): draw(emotion_motion(enrollment.motion, name)) for name in PRESET_NAMES
    }
    names = list(pictures)
    half = len(names) // 2
    return [{n: pictures[n] for n in part} for part in (names[:half], names[half:])]


def zoomed(picture: U8, share: float) -> U8:
    """The middle `share` of a picture's width, a little below the middle of its height: the face alone."""
    side = picture.shape[0]
    size = round(side * share)
    left, top = (side - size) // 2, round((side - size) * 0.6)
    return picture[top : top + size, left : left + size]


def face_sheet(
    enrollments: Mapping[str, Enrollment], draw: Draw, cell_px: int, zoom_share: float = 1.0
) -> Sheet:
    """The same row or rows of every face."""
    rows: list[Mapping[str, U8]] = []
    names: list[str] = []
    for name, enrollment in enrollments.items():
        renderer = Renderer(enrollment, size_px=RENDER_PX)
        own = draw(enrollment, renderer.render)
        rows += [{n: zoomed(p, zoom_share) for n, p in row.items()} for row in own]
        names += [name] * len(own)
    return Sheet(rows, names, cell_px)


_PART_RGB = {
    Part.NONE: (0, 0, 0), Part.SKIN: (224, 172, 140), Part.EYE: (240, 240, 255), Part.MOUTH: (110, 20, 40),
    Part.TEETH: (255, 250, 200), Part.TONGUE: (230, 80, 110), Part.SOCKET: (70, 130, 180),
}  # fmt: skip


def flow_colours(flow: F32, most_px: float) -> U8:
    """(h, w, 3): direction as hue, length as saturation; white where nothing moves."""
    angle = np.arctan2(flow[..., 1], flow[..., 0])
    hsv = np.full((*flow.shape[:2], 3), 255, np.uint8)
    hsv[..., 0] = np.round((angle / (2 * np.pi) % 1) * 179).astype(np.uint8)
    hsv[..., 1] = np.round(np.clip(np.linalg.norm(flow, axis=-1) / max(most_px, 1e-6), 0, 1) * 255).astype(
        np.uint8
    )
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def gbuffer_sheet(name: str, enrollment: Enrollment, cell_px: int) -> Sheet:
    """Two rows, two poses with the mouth open: all that is looked up for one frame, and the result."""
    model, viewport = load_head_model(), head_viewport(enrollment, RENDER_PX)
    renderer = Renderer(enrollment, size_px=RENDER_PX)
    rows: list[Mapping[str, U8]] = []
    for edit in (
        Edit(expression={"jawOpen": 0.5}, yaw_deg=-20),
        Edit(expression={"jawOpen": 0.5}, yaw_deg=25, pitch_deg=8),
    ):
        motion = apply_edit(enrollment.motion, edit)
        gbuffer = rasterise(model, pose_head(model, enrollment, motion, viewport), viewport, RENDER_PX)
        covered = face_mask(gbuffer) > 0
        flow = computed_flow(enrollment.uv_position_px, gbuffer)
        most_px = float(np.percentile(np.linalg.norm(flow[covered], axis=-1), 99))
        coloured = flow_colours(flow, most_px)
        coloured[~covered] = 0
        uv = np.dstack([gbuffer.uv, np.zeros_like(gbuffer.uv[..., 0])])
        parts = np.array([_PART_RGB.get(Part(p), (255, 0, 255)) for p in sorted(Part)], np.uint8)
        rows.append(
            {
                "uv": _to_u8(uv * covered[..., None]),
                "part": parts[gbuffer.part],
                "PNCC": _to_u8(pncc(enrollment.uv_pncc, gbuffer)),
                f"computed flow, to {most_px:.0f} px": coloured,
                "occlusion, white = seen": _to_u8(
                    np.repeat(computed_occlusion(enrollment.uv_visibility, gbuffer)[..., None], 3, 2)
                ),
                "rendered face": _to_u8(rendered_face(enrollment.uv_colour, gbuffer)),
                "result": renderer.render(motion),
            }
        )
    return Sheet(rows, [name] * len(rows), cell_px)


def _to_u8(image: F32) -> U8:
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def telling_moments(track: MotionTrack) -> list[tuple[str, Motion]]:
    """The motion's extremes, by name: what a viewer should see follow."""
    angles = np.array([yaw_pitch_roll_deg(m.rotation_rad) for m in track.motions])
    expression = np.array([m.expression for m in track.motions])

    def of(*names: str) -> F32:
        return expression[:, [ARKIT_INDEX[n] for n in names]].sum(1)

    blink = of("eyeBlinkLeft", "eyeBlinkRight")
    picks = {
        "mouth open": int((of("jawOpen") - of("mouthClose")).argmax()),
        "eyes closed": int(blink.argmax()),
        "turned left": int((angles[:, 0] + 10 * blink).argmin()),
        "turned right": int((angles[:, 0] - 10 * blink).argmax()),
        "head down": int(angles[:, 1].argmax()),
        "smile": int((of("mouthSmileLeft", "mouthSmileRight") - blink).argmax()),
    }
    return [(name, track.motions[i]) for name, i in picks.items()]


def wire_face(motion: Motion, side_px: int) -> U8:
    """The mean head, posed and moved by `motion`, as lines (side, side, 3)."""
    model = load_head_model()
    points = Camera(side_px, side_px).to_similarity(motion.rotation_rad, motion.translation_hu * (1, 1, 0.66))
    px = points.apply(model.decode(model.mean_hu, motion.expression, motion.gaze_rad))[:, :2].astype(
        np.float32
    )
    image = np.full((side_px, side_px, 3), 24, np.uint8)
    shown = front_facing(px, model.triangles) & (model.part == Part.SKIN)
    for triangle in model.triangles[shown]:
        corners = np.rint(px[triangle] * 16).astype(np.int32)
        cv2.polylines(image, [corners], True, (90, 190, 170), 1, cv2.LINE_AA, 4)
    return image


def motion_sheet(enrollments: Mapping[str, Enrollment], track: MotionTrack, cell_px: int) -> Sheet:
    """Rows: the recorded motion, then each face; columns: the moments."""
    moments = telling_moments(track)
    rest = track.neutral or track.motions[0]
    rows: list[Mapping[str, U8]] = [{name: wire_face(m, RENDER_PX) for name, m in moments}]
    for enrollment in enrollments.values():
        renderer = Renderer(enrollment, size_px=RENDER_PX)
        rows.append(
            {name: renderer.render(retarget(m, rest, enrollment.motion, Controls())) for name, m in moments}
        )
    return Sheet(rows, ["the motion", *enrollments], cell_px)


def compose(sheet: Sheet, cell_px: int) -> Image.Image:
    """One picture; captions stand above a row wherever they differ from those of the row before."""
    font = ImageFont.load_default(13)
    columns = max(len(row) for row in sheet.rows)
    captioned = [k == 0 or list(row) != list(sheet.rows[k - 1]) for k, row in enumerate(sheet.rows)]
    height = len(sheet.rows) * cell_px + sum(captioned) * LABEL_PX
    page = Image.new("RGB", (MARGIN_PX + columns * cell_px, height), PAPER)
    pen = ImageDraw.Draw(page)
    y = 0
    for row, name, with_caption in zip(sheet.rows, sheet.names, captioned, strict=True):
        if with_caption:
            for column, caption in enumerate(row):
                x = MARGIN_PX + (column + 0.5) * cell_px
                pen.text((x, y + LABEL_PX / 2), caption, INK, _fitting(caption, cell_px), anchor="mm")
            y += LABEL_PX
        side = Image.new("RGB", (cell_px, MARGIN_PX), PAPER)
        ImageDraw.Draw(side).text((cell_px / 2, MARGIN_PX / 2), name, INK, font, anchor="mm")
        page.paste(side.rotate(90, expand=True), (0, y))
        for column, picture in enumerate(row.values()):
            small = Image.fromarray(picture).resize((cell_px, cell_px), Image.Resampling.LANCZOS)
            page.paste(small, (MARGIN_PX + column * cell_px, y))
        y += cell_px
    return page


def _fitting(text: str, width_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The default font, as large as lets `text` stand over a cell."""
    for size in (14, 13, 12, 11, 10, 9):
        font = ImageFont.load_default(size)
        if font.getlength(text) < width_px - 4:
            return font
    return ImageFont.load_default(8)


def save_sheet(sheet: Sheet, path: Path) -> None:
    """Write a PNG of at most `MAX_FILE_BYTES`, with smaller cells if need be."""
    cell_px = sheet.cell_px
    while True:
        page = np.asarray(compose(sheet, cell_px), np.uint8)
        # the last two bits are mostly noise, and half the file; a palette would take the red out of lips
        coarse = np.where(page == 255, page, (page & 252) + 2).astype(np.uint8)
        data = io.BytesIO()
        Image.fromarray(coarse).save(data, "PNG", optimize=True)
        if data.tell() <= MAX_FILE_BYTES:
            write_whole(path, data.getvalue())
            print(
                f"{path}: {page.shape[1]} × {page.shape[0]} px, {data.tell()} bytes, cells {cell_px} px",
                flush=True,
            )
            return
        cell_px = round(cell_px * min(0.97, (MAX_FILE_BYTES / data.tell()) ** 0.5))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--photo", nargs="+", type=Path, default=[], metavar="FILE", help="your own faces instead"
    )
    parser.add_argument("--motion", type=Path, default=DEMO_MOTION, help="a recorded motion (.jsonl)")
    parser.add_argument("--only", default=",".join(SHEETS), help="which, by commas")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    wanted = set(arguments.only.split(","))
    if unknown := sorted(wanted - set(SHEETS)):
        parser.error(f"no sheet {', '.join(unknown)}; choose of {', '.join(SHEETS)}")
    faces = [Face(p.stem, p) for p in arguments.photo] or safe_faces()
    enrollments = {face.name: enroll(face.photo) for face in faces}
    arguments.output.mkdir(parents=True, exist_ok=True)
    first, *_ = enrollments

    def two() -> Sheet:
        pair = dict(list(enrollments.items())[:2])
        return motion_sheet(pair, read_motion(arguments.motion), 288)

    makers: dict[str, Callable[[], Sheet]] = {
        "pose": lambda: face_sheet(enrollments, draw_poses, 300),
        "expression": lambda: face_sheet(enrollments, draw_expressions, 240, 0.72),
        "emotions": lambda: face_sheet(enrollments, draw_emotions, 210, 0.72),
        "gbuffer": lambda: gbuffer_sheet(first, enrollments[first], 256),
        "sheet": two,
    }
    for name, make in makers.items():
        if name in wanted:
            save_sheet(make(), arguments.output / f"contact-{name}.png")


if __name__ == "__main__":
    main()
