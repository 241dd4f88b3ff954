"""The command line: `visavis enroll | animate | run | serve | latency | doctor | devices`."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

# Before numpy is imported: its BLAS threads spin after each small product, and a call has two cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from engines.errors import VisavisError
from streamer import __version__

# Heavy imports (torch-sized libraries, MediaPipe) happen inside the commands: `--help` answers at once.

app = typer.Typer(
    name="visavis",
    help="Be an avatar in a video call, live, from one photo.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
err = Console(stderr=True)

INTERRUPTED = 130
# Newer typers carry a click of their own, so the class is named through what typer exports.
UsageError = typer.BadParameter.__mro__[1]


class MotionMode(StrEnum):
    """How the driver's motion is taken."""

    relative = "relative"
    absolute = "absolute"


class FramingChoice(StrEnum):
    """What the picture shows."""

    head = "head"
    photo = "photo"


def _notice(text: str) -> None:
    err.print(f"note: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"visavis {__version__}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and a detailed log.")] = False,
    version: Annotated[  # eager: no command is asked for
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Be an avatar in a video call, live, from one photo."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if not debug:
        for name in ("aiortc", "aioice", "libav"):
            logging.getLogger(name).setLevel(logging.ERROR)


@app.command()
def enroll(
    photo: Annotated[Path, typer.Argument(help="Any photo with one face that looks at the camera.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Where the avatar goes (default: beside you, named after the photo)."
        ),
    ] = None,
    consent: Annotated[
        str | None, typer.Option(help="Who agreed to be an avatar; stored in the file.")
    ] = None,
) -> None:
    """Turn one photo into an avatar file.

    Example: `visavis enroll me.jpg -o me.avatar --consent "Ada Lovelace"`
    """
    target = output or Path(f"{photo.stem}.avatar")
    if consent is None and sys.stdin.isatty() and sys.stdout.isatty():
        consent = typer.prompt(
            "Whose face is this, and did they agree? Type their name", default="", show_default=False
        )
    with _working("enrolling"), quiet_native():
        from calibration.enroll import enroll as enroll_photo
        from engines.enrollment import save_enrollment

        enrollment = enroll_photo(photo, consent=(consent or "").strip() or None)
        save_enrollment(enrollment, target)
    for notice in enrollment.notices:
        _notice(notice)
    if enrollment.consent is None:
        _notice("no consent was recorded; add --consent NAME")
    print(target)


@app.command()
def animate(
    avatar: Annotated[Path, typer.Argument(help="An .avatar file from `visavis enroll`.")],
    driver: Annotated[Path, typer.Option(help="A video of a face, or a recorded motion (.jsonl).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .mp4 to write.")],
    generator: Annotated[str, typer.Option(help="Which generator draws.")] = "geometric",
    size: Annotated[
        int | None, typer.Option(min=64, max=1024, help="Side of the head crop in pixels (default 512).")
    ] = None,
    motion: Annotated[
        MotionMode, typer.Option(help="relative: from the driver's rest; absolute: as it is.")
    ] = MotionMode.relative,
    framing: Annotated[
        FramingChoice,
        typer.Option(help="head: the standard crop; photo: the photo's own framing, pixel for pixel."),
    ] = FramingChoice.head,
    motion_out: Annotated[Path | None, typer.Option(help="Also write the motion here (.jsonl).")] = None,
    trace: Annotated[Path | None, typer.Option(help="Also write each frame's times here (.jsonl).")] = None,
    expression: Annotated[float, typer.Option(min=0, max=2, help="Strength of the expression.")] = 1.0,
    head: Annotated[float, typer.Option(min=0, max=2, help="Strength of the head's motion.")] = 1.0,
) -> None:
    """Move an avatar by a video or a recorded motion, into a file, with the driver's sound.

    Example: `visavis animate me.avatar --driver talk.mp4 -o out.mp4`
    """
    with quiet_native():
        from engines.enrollment import load_enrollment
        from engines.retarget import Controls
        from streamer.animate import Job
        from streamer.animate import animate as run_job

        enrollment = load_enrollment(avatar)
        if framing is FramingChoice.photo and size is not None:
            _notice("--size is for the head crop; with --framing photo the picture has the photo's own size")
        job = Job(
            driver=driver,
            output=output,
            generator=generator,
            size_px=(size or 512) & ~1,
            controls=Controls(expression=expression, head=head, motion=motion.value),
            framing=framing.value,
            motion_output=motion_out,
            trace=trace,
        )
        with _bar("animating") as advance:
            done = run_job(enrollment, job, progress=advance)
    for notice in done.notices:
        _notice(notice)
    print(f"{done.frames} frames, {done.seconds:.2f} s, {done.fps:.1f} fps")


@app.command()
def run(
    avatar: Annotated[Path, typer.Argument(help="An .avatar file from `visavis enroll`.")],
    source: Annotated[str, typer.Option("--from", help="webcam, webcam:N, or a video file.")] = "webcam",
    sink: Annotated[
        str, typer.Option("--to", help="window, virtualcam, virtualcam:NAME, or a .mp4 file.")
    ] = "window",
    generator: Annotated[str, typer.Option(help="Which generator draws.")] = "geometric",
    size: Annotated[int, typer.Option(min=64, max=1024, help="Side of the picture in pixels.")] = 512,
    loop: Annotated[bool, typer.Option("--loop", help="Repeat a video file for ever.")] = False,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop by itself after this long.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Also write each frame's times here (.jsonl).")] = None,
) -> None:
    """Be the avatar, live: a camera or video in, a window, virtual camera or file out. Ctrl-C ends it.

    Example: `visavis run me.avatar --from webcam --to virtualcam`
    """
    with quiet_native():
        from streamer.start_live import LiveOptions, run_live

        options = LiveOptions(
            avatar=avatar, source=source, sink=sink, generator=generator, size_px=size & ~1,
            loop=loop, seconds=seconds, trace=trace,
        )  # fmt: skip
        outcome, snapshot = run_live(options)
    if outcome.notice:
        _notice(outcome.notice)
    lag = f", lag p50 {snapshot.run_total_ms.p50:.0f} ms" if snapshot.run_total_ms else ""
    rate = outcome.frames / outcome.seconds if outcome.seconds else 0.0
    print(f"{outcome.frames} frames, {outcome.seconds:.2f} s, {rate:.1f} fps, {outcome.dropped} dropped{lag}")


@app.command()
def serve(
    avatar: Annotated[
        list[Path] | None, typer.Option(help="An .avatar file to offer; may be repeated (default: a demo).")
    ] = None,
    host: Annotated[str, typer.Option(envvar="VISAVIS_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(envvar="VISAVIS_PORT", min=0, max=65535, help="Port to listen on (0: any free one)."),
    ] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="VISAVIS_TOKEN", help="Secret that callers must present; needed beyond this computer."
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM) for https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
) -> None:
    """Serve the page: open it in a browser, press "use my webcam", be the avatar.

    Example: `visavis serve --avatar me.avatar` then open http://localhost:8000
    """
    from streamer.config import read_settings

    settings = read_settings(host=host, port=port, token=token, tls_cert=tls_cert, tls_key=tls_key)
    if not settings.loopback and not token:
        raise VisavisError(
            f"{host} can be reached from other computers: give --token SECRET (and --tls-cert, --tls-key)"
        )
    if (tls_cert is None) != (tls_key is None):
        raise VisavisError("https needs both --tls-cert and --tls-key")
    # before the slow imports, so that a taken port is known at once
    listener = listen(host, port)
    with quiet_native():
        from streamer.start_server import serve_forever

        serve_forever(
            settings,
            [*(avatar or [])],
            listener,
            on_ready=lambda url: print(f"visavis is ready: {url}", flush=True),
        )


def listen(host: str, port: int) -> socket.socket:
    """A bound, listening socket; raises VisavisError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # now, not when the imports are done: two servers that start at once must not share a port
    except OSError as error:
        listener.close()
        raise VisavisError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another with --port"
        ) from error
    return listener


@app.command()
def latency(
    trace: Annotated[Path, typer.Argument(help="A trace from --trace.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The report to write (default: TRACE.html).")
    ] = None,
    perfetto: Annotated[Path | None, typer.Option(help="Also write a Perfetto trace (.json).")] = None,
) -> None:
    """Draw a latency report from a trace: one HTML file with plots.

    Example: `visavis latency trace.jsonl -o report.html`
    """
    from streamer.report import summarise, write_perfetto, write_report
    from streamer.trace import read_trace

    data = read_trace(trace)
    target = output or trace.with_suffix(".html")
    write_report(data, target)
    if perfetto:
        write_perfetto(data, perfetto)
    for notice in data.notices:
        _notice(notice)
    summary = summarise(data)
    total = summary.total_ms
    if total is not None:
        err.print(
            f"{summary.frames} frames, total p50 {total.p50:.1f} ms, p95 {total.p95:.1f} ms", highlight=False
        )
    print(target)


@app.command()
def doctor(json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check what this computer has, and print the one command that fixes what it lacks.

    Example: `visavis doctor`
    """
    with quiet_native():
        from streamer.doctor import diagnose, render_text, to_json

        checks = diagnose()
    print(to_json(checks) if json_output else render_text(checks))


@app.command()
def devices() -> None:
    """List cameras, microphones, speakers and virtual cameras.

    Example: `visavis devices`
    """
    with quiet_native():
        from streamer.devices import list_devices

        found = list_devices()
    print(found.render())


@contextmanager
def _working(text: str) -> Generator[None]:
    if err.is_terminal:
        with err.status(text):
            yield
    else:
        yield


@contextmanager
def _bar(text: str) -> Generator[Callable[[int, int | None], None]]:
    """Progress on a terminal's stderr; silent elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as progress:
        task = progress.add_task(text, total=None)

        def advance(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        yield advance


@contextmanager
def quiet_native() -> Generator[None]:
    """Send what C++ libraries write to stderr (MediaPipe's start-up chatter) nowhere; Python's stays.

    With --debug everything is shown.
    """
    if logging.getLogger().isEnabledFor(logging.DEBUG):
        yield
        return
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    stream, own = sys.stderr, os.fdopen(os.dup(kept), "w", buffering=1)
    # only the handlers that write to the terminal: a log file keeps its file
    handlers = [
        h for h in logging.getLogger().handlers if isinstance(h, logging.StreamHandler) and h.stream is stream
    ]
    sys.stderr = own  # `err` follows by itself
    for handler in handlers:
        handler.setStream(own)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
        sys.stderr = stream
        for handler in handlers:
            handler.setStream(stream)
        own.close()


def main() -> None:
    """Entry point: every failure is one line that names the fix."""
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1  # anywhere on the line, not only before the command
    try:
        code = app(
            args=["--debug", *arguments] if debug else arguments or ["--help"],
            standalone_mode=False,
            prog_name="visavis",
        )
    except KeyboardInterrupt:
        if debug:
            raise
        code = INTERRUPTED
    except typer.Abort:  # Ctrl-C or Ctrl-D at a question
        code = INTERRUPTED
    except Exception as error:
        if debug:
            raise
        code, message = _explain(error)
        err.print(f"visavis: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    if code == INTERRUPTED:
        err.print("visavis: stopped", highlight=False)
    sys.exit(code)


def _explain(error: Exception) -> tuple[int, str]:
    """Exit code and the one line for `error`."""
    if isinstance(error, UsageError):
        context = error.ctx  # pyright: ignore[reportAttributeAccessIssue]
        command = context.command_path if context else "visavis"
        return 2, f"{_one_line(error.format_message()).rstrip('.')}; see `{command} --help`"  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(error, VisavisError):
        return 1, _one_line(str(error))
    what = _one_line(f"{type(error).__name__}: {error}")
    return 70, f"something broke ({what}); run it again as `visavis --debug …` and report the traceback"


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    main()
