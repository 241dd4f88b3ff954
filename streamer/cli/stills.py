"""Commands that make or change something still: emotions, frontalize, edit, settings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engines.errors import VisavisError
from engines.files import require_apart
from engines.generators.names import DEFAULT_GENERATOR
from streamer.cli.options import (
    AspectChoice,
    AspectName,
    AvatarFile,
    BackgroundText,
    GeneratorName,
    HeadModelSpec,
    Side,
    head_model_file,
)
from streamer.cli.terminal import progress_bar, quiet_native, say_note, working
from streamer.places import avatar_file, input_file, output_file

if TYPE_CHECKING:
    from engines.enrollment import Enrollment
    from engines.motion import Motion
    from streamer.look import Look

PngFile = Annotated[
    Path, typer.Option("-o", "--output", metavar="FILE", help="The .png to write.", parser=output_file)
]


# of `--faces`; else a file
PRESETS, TEMPLATES = "presets", "templates"


def _faces(text: str) -> str:
    if text in (PRESETS, TEMPLATES):
        return text
    path = input_file(text)
    if not path.is_file():
        raise ArgumentError(
            f"--faces {text!r:.80} is no file; give one of templates, or choose presets or templates"
        )
    return str(path)


class ArgumentError(VisavisError):
    """An option's text that cannot be read; the message shows what it looks like."""


def emotions(
    avatar: AvatarFile,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The folder for the pictures; made if needed.")
    ],
    strength: Annotated[
        float,
        typer.Option(
            min=0, max=2, help="Strength of the emotions; below 1 some of the photo's own face stays."
        ),
    ] = 1.0,
    sheet: Annotated[
        bool, typer.Option("--sheet", help="Also write sheet.png: all of them, with their names.")
    ] = False,
    faces: Annotated[
        str,
        typer.Option(
            metavar="PRESETS|TEMPLATES|FILE",
            help="Where the expressions come from: presets (action units), templates (people's own, of those with "
            "the most similar head), or a file of templates.",
            parser=_faces,
        ),
    ] = PRESETS,
    size: Side = 512,
    generator: GeneratorName = DEFAULT_GENERATOR,
) -> None:
    """Draw an avatar with each of 22 emotions: neutral, six basic ones and 15 mixed ones.

    Example: `visavis emotions me.avatar -o faces --sheet --faces templates`
    """
    with quiet_native():
        from engines.enrollment import load_enrollment
        from engines.errors import SinkError
        from engines.files import require_folder, require_writable, target_of, why_not
        from engines.templates import SHIPPED, load_templates
        from streamer.cli.pictures import write_png
        from streamer.emotions import draw_emotions, emotion_motions, sheet_of
        from streamer.options import AvatarOptions

        enrollment = load_enrollment(avatar)
        templates = (
            None if faces == PRESETS else load_templates(SHIPPED if faces == TEMPLATES else Path(faces))
        )
        motions = emotion_motions(enrollment, strength, templates)
        if output.exists() and not output.is_dir():
            raise SinkError(f"{output} is a file; name a folder with -o")
        try:
            folder = target_of(output)
        except OSError as error:
            raise SinkError(f"{why_not(output, error)}; name a folder with -o") from error
        require_folder(folder if folder.is_dir() else folder.parent, "-o")
        inputs = {"the avatar": avatar, "the templates": None if faces in (PRESETS, TEMPLATES) else faces}
        for name in (*motions, *(["sheet"] if sheet else [])):
            place = folder / f"{name}.png"
            require_apart({"-o": place}, inputs)
            if folder.is_dir():
                require_writable(place, "-o", "out.png")
        renderer = AvatarOptions(generator=generator, size_px=size & ~1).renderer_for(enrollment)
        renderer.wait_until_compiled()  # one engine for all pictures
        with progress_bar("drawing") as advance:
            pictures = draw_emotions(renderer.render, motions, advance)
        if renderer.notice:
            say_note(renderer.notice)
        if sheet:
            pictures["sheet"] = sheet_of(pictures)
        folder.mkdir(exist_ok=True)
        for name, picture in pictures.items():
            write_png(folder / f"{name}.png", picture)
    print(output)


def frontalize(
    photo: Annotated[
        Path, typer.Argument(help="A photo with one face, or an .avatar file.", parser=avatar_file)
    ],
    output: PngFile,
    neutral: Annotated[bool, typer.Option("--neutral", help="Also take the expression away.")] = False,
    size: Side = 512,
    background: BackgroundText = "keep",
    aspect: AspectName = AspectChoice.square,
    generator: GeneratorName = DEFAULT_GENERATOR,
    head_model: HeadModelSpec = None,
) -> None:
    """Turn the head of a photo to look straight at the camera.

    Example: `visavis frontalize me.jpg -o front.png --neutral`
    """
    with quiet_native():
        from dataclasses import replace

        from engines.edit import FRONTAL, apply_edit
        from streamer.cli.pictures import enrollment_of, require_png
        from streamer.look import Look, read_background

        require_png(output)
        inputs = {
            "the photo": photo,
            "the background": background,
            "the head model": head_model_file(head_model),
        }
        require_apart({"-o": output}, inputs)
        look = Look(read_background(background), aspect.value)
        with working("enrolling"):
            enrollment = enrollment_of(photo, head_model)
        motion = apply_edit(enrollment.motion, replace(FRONTAL, neutral=neutral))
        _draw(enrollment, motion, output, size, generator, look)
    for notice in enrollment.notices:
        say_note(notice)
    print(output)


def edit(
    avatar: AvatarFile,
    output: PngFile,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=NUMBER", help="An ARKit coefficient, -0.3 to 1.3; may be repeated."
        ),
    ] = None,
    yaw: Annotated[
        float | None, typer.Option(help="Turn of the head in degrees; > 0: picture's right.")
    ] = None,
    pitch: Annotated[float | None, typer.Option(help="Nod in degrees; > 0 looks down.")] = None,
    roll: Annotated[float | None, typer.Option(help="Tilt in degrees; > 0 is clockwise.")] = None,
    gaze_yaw: Annotated[
        float | None, typer.Option(help="Both eyes in degrees; > 0: picture's right.")
    ] = None,
    gaze_pitch: Annotated[float | None, typer.Option(help="Both eyes in degrees; > 0 looks down.")] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INDEX=SIGMA",
            help="Another head: a shape by number, -3 to 3 deviations; may be repeated.",
        ),
    ] = None,
    neutral: Annotated[bool, typer.Option("--neutral", help="Start from no expression.")] = False,
    size: Side = 512,
    background: BackgroundText = "keep",
    aspect: AspectName = AspectChoice.square,
    generator: GeneratorName = DEFAULT_GENERATOR,
) -> None:
    """Draw an avatar with another expression, pose, gaze or shape of the head.

    Example: `visavis edit me.avatar -o out.png --set jawOpen=0.4 --yaw 15 --gaze-yaw -10 --background transparent`
    """
    change = dict(_numbers(settings or [], "--set", "jawOpen=0.4"))
    shapes = {_mode(name): sigma for name, sigma in _numbers(shape or [], "--shape", "0=1.5")}
    with quiet_native():
        from engines.edit import Edit, apply_edit, identity_change, reshape
        from engines.enrollment import head_model_of, load_enrollment
        from streamer.cli.pictures import require_png
        from streamer.look import Look, read_background

        require_png(output)
        require_apart({"-o": output}, {"the avatar": avatar, "the background": background})
        look = Look(read_background(background), aspect.value)
        enrollment = load_enrollment(avatar)
        what = Edit(change, yaw, pitch, roll, gaze_yaw, gaze_pitch, neutral)
        motion = apply_edit(enrollment.motion, what)
        if shapes:
            model = head_model_of(enrollment)
            enrollment = reshape(enrollment, model, identity_change(model, shapes))
        _draw(enrollment, motion, output, size, generator, look)
    print(output)


def settings(
    avatar: AvatarFile,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Save a setting, such as lips=0.8; may be repeated."
        ),
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Forget what was saved (before any --set).")] = False,
) -> None:
    """Show or save how an avatar moves; the options of `animate`, `run` and `serve` come before what is saved.

    Example: `visavis settings me.avatar --set lips=0.8 --set preset=happy --set keep_blink=false`
    """
    from dataclasses import replace

    with quiet_native():
        from engines.enrollment import load_enrollment, save_enrollment
        from engines.retarget import Controls

        path = avatar.resolve()  # the file itself is replaced, not a link to it
        enrollment = load_enrollment(avatar)
        saved = None if reset else enrollment.controls
        if values:
            saved = Controls.from_dict(dict(_setting(text) for text in values), saved)
        if values or reset:
            save_enrollment(replace(enrollment, controls=saved), path)
    usual = Controls().to_dict()
    for name, value in (saved or Controls()).to_dict().items():
        shown = (
            str(value).lower()
            if isinstance(value, bool)
            else f"{value:g}"
            if isinstance(value, float)
            else value
        )
        print(f"{name}={shown}" + ("" if value == usual[name] else "  (changed)"))


def add_still_commands(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (emotions, frontalize, edit, settings):
        app.command()(command)


def _draw(
    enrollment: Enrollment, motion: Motion, output: Path, size_px: int, generator: str, look: Look
) -> None:
    from streamer.cli.pictures import write_png
    from streamer.options import AvatarOptions

    renderer = AvatarOptions(generator=generator, size_px=size_px & ~1, look=look).renderer_for(enrollment)
    renderer.wait_until_compiled()  # the same picture each time
    if renderer.notice:
        say_note(renderer.notice)
    write_png(output, renderer.render(motion))


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name.strip() and value.strip()):
        raise ArgumentError(f"{option} {text!r} has no name or no value; write it as {option} {example}")
    return name.strip(), value.strip()


def _numbers(texts: Iterable[str], option: str, example: str) -> Iterable[tuple[str, float]]:
    for text in texts:
        name, value = _pair(text, option, example)
        try:
            yield name, float(value)
        except ValueError as error:
            raise ArgumentError(
                f"{option} {text!r}: {value!r} is no number; write it as {option} {example}"
            ) from error


def _mode(name: str) -> int:
    if not (name.isascii() and name.isdecimal()):
        raise ArgumentError(f"--shape {name!r}: a shape has a number, not a name; write it as --shape 0=1.5")
    return int(name)


def _setting(text: str) -> tuple[str, object]:
    """NAME=VALUE with the value as what it looks like: a switch, a number or a word."""
    name, value = _pair(text, "--set", "lips=0.8")
    switches = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if value.lower() in switches:
        return name, switches[value.lower()]
    try:
        return name, float(value)
    except ValueError:
        return name, value
