"""What every command shares at the terminal: notes, progress, and silence from native libraries."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from streamer.places import PlaceError

err = Console(stderr=True)
_OURS = {"engines", "calibration", "streamer"}


def ready_streams() -> None:
    """Make standard input, output and errors usable, whatever the caller closed and whatever will be printed."""
    # a file that is opened later must not get the number of a closed stream: libraries write to these by number
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # a file's name is bytes, and leaves as the bytes it was (PEP 383)
            utf_8 = stream.encoding.lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="surrogateescape" if utf_8 else "backslashreplace")
    atexit.register(_forget_unprinted)


def require_here() -> None:
    """Raises PlaceError where the folder that the user is in was removed: no path can be found from there."""
    try:
        Path.cwd()
    except OSError as error:
        raise PlaceError("the folder that you are in is gone; cd into another one") from error


def say_line(text: str, style: str) -> None:
    """One line on stderr; where that cannot be written (a full disk), nothing: what is said never ends what is done."""
    with suppress(OSError, ValueError):
        err.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def say_note(text: str) -> None:
    """One line on stderr that is no failure."""
    say_line(f"note: {text}", "yellow")


def _forget_unprinted() -> None:
    """Drop what standard output and errors do not take: Python would complain of it and change the exit code."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)


class _AsNotes(logging.Handler):
    """Our own warnings as notes, each once; of others only what they call an error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        ours = record.name.partition(".")[0] in _OURS
        if not ours and record.levelno < logging.ERROR:
            return
        text = record.getMessage() if ours else f"{record.name}: {record.getMessage()}"
        text = " ".join(text.split())
        if text not in self._said:
            self._said.add(text)
            say_note(text)


def log_to_terminal(*, debug: bool, times: bool) -> None:
    """Where log lines go: all of them with `debug`, warnings with `times` for a service, else warnings as notes."""
    if debug or times:
        logging.basicConfig(
            level=logging.DEBUG if debug else logging.WARNING,
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
    else:
        logging.basicConfig(level=logging.WARNING, handlers=[_AsNotes()])
    if not debug:
        logging.getLogger("streamer.serve.app").setLevel(logging.INFO)  # its line a minute
        for name in ("aiortc", "aioice", "libav", "matplotlib"):
            logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def working(text: str) -> Generator[None]:
    """A spinner on a terminal's stderr; silent elsewhere."""
    if err.is_terminal:
        with err.status(text):
            yield
    else:
        yield


@contextmanager
def progress_bar(text: str) -> Generator[Callable[[int, int | None], None]]:
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
    stream = sys.stderr
    own = os.fdopen(
        os.dup(kept),
        "w",
        buffering=1,
        encoding=getattr(stream, "encoding", None),
        errors=getattr(stream, "errors", None) or "backslashreplace",
    )
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
        with suppress(OSError):  # what could not be written before cannot now
            own.close()
