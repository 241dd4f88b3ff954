"""The command line: enroll, animate, run; the other commands are beside it, each group in a module of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

# Before numpy is imported: its BLAS threads spin after each small product, and a call has two cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from engines.files import require_apart, require_writable
from engines.generators.names import DEFAULT_GENERATOR
from streamer import __version__
from streamer.cli.avatars import add_avatar_commands
from streamer.cli.compile import add_compile_command
from streamer.cli.computer import add_computer_commands
from streamer.cli.controls import moved_by, with_controls
from streamer.cli.explain import explain
from streamer.cli.latency import latency
from streamer.cli.options import (
    AspectChoice,
    AspectName,
    AvatarFile,
    BackgroundText,
    FramingChoice,
    GeneratorName,
    HeadModelSpec,
    HeadMotion,
    Height,
    MicTo,
    MotionTo,
    SinkName,
    SourceName,
    TraceFile,
    TrackerName,
    TrimMs,
    head_model_file,
    height_px,
)
from streamer.cli.serve import add_serve_command
from streamer.cli.stills import add_still_commands
from streamer.cli.tell import add_tell_command
from streamer.cli.terminal import (
    log_to_terminal,
    progress_bar,
    quiet_native,
    ready_streams,
    require_here,
    say_line,
    say_note,
    working,
)
from streamer.drive.trackers.names import DEFAULT_TRACKER
from streamer.places import input_file, output_file
from streamer.sinks.names import DEFAULT_SINK
from streamer.sources.names import DEFAULT_SOURCE

# Heavy imports (torch-sized libraries, MediaPipe) happen inside the commands: `--help` answers at once.

app = typer.Typer(
    name="visavis",
    help="Be an avatar in a video call, live, from one photo.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)

INTERRUPTED = 130


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"visavis {__version__}")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and a detailed log.")] = False,
    version: Annotated[  # eager: no command is asked for
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Be an avatar in a video call, live, from one photo."""
    log_to_terminal(debug=debug, times=context.invoked_subcommand == "serve")


@app.command()
def enroll(
    photo: Annotated[
        Path, typer.Argument(help="Any photo with one face that looks at the camera.", parser=input_file)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Where the avatar goes (default: beside you, named after the photo).",
            parser=output_file,
        ),
    ] = None,
    consent: Annotated[
        str | None, typer.Option(help="Who agreed to be an avatar; stored in the file.")
    ] = None,
    head_model: HeadModelSpec = None,
) -> None:
    """Turn one photo into an avatar file.

    Example: `visavis enroll me.jpg -o me.avatar --consent "Ada Lovelace"`
    """
    target = output or Path(f"{photo.stem}.avatar")
    require_apart({"-o": target}, {"the photo": photo, "the head model": head_model_file(head_model)})
    require_writable(target, "-o", "me.avatar")
    if consent is None and sys.stdin.isatty() and sys.stdout.isatty():
        consent = typer.prompt(
            "Whose face is this, and did they agree? Type their name", default="", show_default=False
        )
    with working("enrolling"), quiet_native():
        from calibration.enroll import enroll as enroll_photo
        from engines.enrollment import save_enrollment

        enrollment = enroll_photo(photo, consent=(consent or "").strip() or None, head_model=head_model)
        save_enrollment(enrollment, target)
    for notice in enrollment.notices:
        say_note(notice)
    if enrollment.consent is None:
        say_note("no consent was recorded; add --consent NAME")
    print(target)


@app.command()
@with_controls
def animate(
    avatar: AvatarFile,
    driver: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="A video of a face, speech (.wav …), or a motion file (.jsonl).",
            parser=input_file,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The .mp4 to write; a transparent one is a .mov or .webm.",
            parser=output_file,
        ),
    ],
    generator: GeneratorName = DEFAULT_GENERATOR,
    tracker: TrackerName = DEFAULT_TRACKER,
    size: Height = None,
    background: BackgroundText = "keep",
    aspect: AspectName = AspectChoice.square,
    framing: Annotated[
        FramingChoice,
        typer.Option(help="head: the standard crop; photo: the photo's own framing, pixel for pixel."),
    ] = FramingChoice.head,
    trim_ms: TrimMs = 0.0,
    head_motion: HeadMotion = None,
    motion_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the motion here (.jsonl).", parser=output_file),
    ] = None,
    trace: TraceFile = None,
    *,
    controls: dict[str, object],
) -> None:
    """Move an avatar by a video, by speech or a recorded motion, into a file, with the driver's sound.

    Example: `visavis animate me.avatar --driver talk.mp4 -o out.mp4 --head 0.7 --preset happy`
    """
    require_apart(
        {"-o": output, "--motion-out": motion_out, "--trace": trace},
        {"the avatar": avatar, "the driving video": driver, "the background": background,
         "the head's motion": head_motion},
    )  # fmt: skip
    with quiet_native():
        from engines.enrollment import load_enrollment
        from engines.motion import read_motion
        from engines.retarget import Controls
        from streamer.animate import Job
        from streamer.animate import animate as run_job
        from streamer.look import Look, read_background

        look = Look(read_background(background), aspect.value)
        enrollment = load_enrollment(avatar)
        if framing is FramingChoice.photo and size is not None:
            say_note("--size is for the head crop; with --framing photo the picture has the photo's own size")
        job = Job(
            driver=driver,
            output=output,
            generator=generator,
            tracker=tracker,
            size_px=height_px(size, aspect),
            controls=Controls.from_dict(moved_by(head_motion, controls), enrollment.controls),
            head_motion=None if head_motion is None else read_motion(head_motion),
            framing=framing.value,
            look=look,
            motion_output=motion_out,
            trace=trace,
            trim_ms=trim_ms,
        )
        with progress_bar("animating") as advance:
            done = run_job(enrollment, job, progress=advance)
    for notice in done.notices:
        say_note(notice)
    print(f"{done.frames} frames, {done.seconds:.2f} s, {done.fps:.1f} fps")


@app.command()
@with_controls
def run(
    avatar: AvatarFile,
    source: SourceName = DEFAULT_SOURCE,
    sink: SinkName = DEFAULT_SINK,
    generator: GeneratorName = DEFAULT_GENERATOR,
    tracker: TrackerName = DEFAULT_TRACKER,
    size: Height = None,
    background: BackgroundText = "keep",
    aspect: AspectName = AspectChoice.square,
    loop: Annotated[bool, typer.Option("--loop", help="Repeat a file for ever.")] = False,
    mic_to: MicTo = None,
    trim_ms: TrimMs = 0.0,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop by itself after this long.")] = None,
    head_motion: HeadMotion = None,
    motion_to: MotionTo = None,
    trace: TraceFile = None,
    *,
    controls: dict[str, object],
) -> None:
    """Be the avatar, live: a camera, microphone or file in, a window, virtual camera or file out. Ctrl-C ends it.

    A microphone alone moves the face by the voice; a phone or another program may track it: vts://192.168.1.7,
    vmc://:39539 (docs/drivers.md). A file's sound goes into a file, your voice into a virtual microphone.

    Example: `visavis run me.avatar --from webcam --to virtualcam --mic-to "visavis mic"`
    """
    require_apart(
        {"--to": sink, "--trace": trace},
        {"the avatar": avatar, "the driving video": source, "the background": background,
         "the head's motion": head_motion},
    )  # fmt: skip
    with quiet_native():
        from engines.enrollment import load_enrollment
        from engines.motion import read_motion
        from engines.retarget import Controls
        from streamer.look import Look, read_background
        from streamer.start_live import LiveOptions, run_live

        look = Look(read_background(background), aspect.value)
        enrollment = load_enrollment(avatar)
        options = LiveOptions(
            source=source,
            sink=sink,
            mic_to=mic_to,
            generator=generator,
            tracker=tracker,
            size_px=height_px(size, aspect),
            look=look,
            loop=loop,
            seconds=seconds,
            trace=trace,
            trim_ms=trim_ms,
            motion_to=motion_to,
            controls=Controls.from_dict(moved_by(head_motion, controls), enrollment.controls),
            head_motion=None if head_motion is None else read_motion(head_motion),
        )
        outcome, snapshot = run_live(enrollment, options, say_note)
    if outcome.notice:
        say_note(outcome.notice)
    lag = f", lag p50 {snapshot.run_total_ms.p50:.0f} ms" if snapshot.run_total_ms else ""
    rate = outcome.frames / outcome.seconds if outcome.seconds else 0.0
    print(f"{outcome.frames} frames, {outcome.seconds:.2f} s, {rate:.1f} fps, {outcome.dropped} dropped{lag}")


add_serve_command(app)
add_tell_command(app)
app.command()(latency)
add_computer_commands(app)
add_compile_command(app)
add_avatar_commands(app)
add_still_commands(app)


def main() -> None:
    """Entry point: every failure is one line that names the fix."""
    ready_streams()
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1  # anywhere on the line, not only before the command
    try:
        require_here()
        code = app(
            args=["--debug", *arguments] if debug else arguments or ["--help"],
            standalone_mode=False,
            prog_name="visavis",
        )
        sys.stdout.flush()  # here a full disk can still be told
    except KeyboardInterrupt:
        if debug:
            raise
        code = INTERRUPTED
    except BrokenPipeError:  # such as `visavis devices | head -1`: who reads has had enough
        if debug:
            raise
        code = 1
    except typer.Abort:  # Ctrl-C or Ctrl-D at a question
        code = INTERRUPTED
    except Exception as error:
        if debug:
            raise
        code, message = explain(error)
        say_line(f"visavis: {message}", "red")
    if code == INTERRUPTED:
        say_line("visavis: stopped", "default")
    sys.exit(code)


if __name__ == "__main__":
    main()
