"""Commands to a running `visavis run` from another process of the same user: `listening` there, `tell` here.

Through a local socket (a named pipe on Windows) whose address and key lie in the user's own cache, mode 0600.
So a desktop's own shortcuts can be bound to `visavis tell COMMAND`, in Wayland too, where no program hears the keys of
others.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from pathlib import Path

from platformdirs import user_cache_path

from engines.errors import VisavisError
from engines.files import write_whole

logger = logging.getLogger(__name__)

SUFFIX = ".told"
MOST_BYTES = 64
ANSWER_WITHIN_S = 5.0
ENDS_WITHIN_S = 2.0
_FAULTS = (OSError, EOFError, AuthenticationError, ValueError)


def runtime_folder() -> Path:
    """Where running programs leave their addresses: the user's own."""
    # not the runtime folder: where none is set, that is one of everybody
    return user_cache_path("visavis", appauthor=False) / "run"


@contextmanager
def listening(obey: Callable[[str], str], folder: Path | None = None) -> Generator[None]:
    """While open, commands are obeyed, by a thread of its own. Where it cannot listen, that is logged and no more."""
    folder = folder or runtime_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = secrets.token_bytes(32)
        name = f"run-{os.getpid()}-{secrets.token_hex(3)}"
        address = rf"\\.\pipe\visavis-{name}" if sys.platform == "win32" else str(folder / f"{name}.sock")
        listener = Listener(address, authkey=key)
    except OSError as error:
        logger.info("`visavis tell` cannot reach this run (%s)", error)
        yield
        return
    file = folder / f"{name}{SUFFIX}"
    write_whole(file, json.dumps({"address": address, "key": key.hex()}).encode(), mode=0o600)
    over = threading.Event()
    thread = threading.Thread(target=_listen, args=(listener, obey, over), name="tell", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        file.unlink(missing_ok=True)
        # one more, so that it looks up; where it has gone already, nobody answers before the listener is closed
        _within(ENDS_WITHIN_S, lambda: thread.join(), lambda: Client(address, authkey=key).close())
        listener.close()


def _within(seconds: float, *works: Callable[[], object]) -> None:
    """Do all of `works` at once, and wait for the first of them; whatever hangs is left to its daemon thread."""
    threads = [threading.Thread(target=_quietly, args=(work,), name="tell", daemon=True) for work in works]
    for thread in threads:
        thread.start()
    threads[0].join(seconds)


def _quietly(work: Callable[[], object]) -> None:
    with suppress(*_FAULTS):
        work()


def _listen(listener: Listener, obey: Callable[[str], str], over: threading.Event) -> None:
    while not over.is_set():
        try:
            with listener.accept() as connection:
                if over.is_set() or not connection.poll(ANSWER_WITHIN_S):
                    continue
                command = connection.recv_bytes(MOST_BYTES).decode()
                connection.send_bytes(_answer(obey, command).encode())
        except _FAULTS as error:  # a stranger, or one that went away
            logger.debug("a command came to nothing (%s)", type(error).__name__)


def _answer(obey: Callable[[str], str], command: str) -> str:
    try:
        return obey(command)
    except VisavisError as error:
        return f"!{error}"


def _asked(address: str, key: bytes, command: str) -> str | None:
    """What is answered; None where nobody is there. Raises VisavisError where somebody is, and says nothing."""
    answers: list[str] = []
    faults: list[BaseException] = []

    def ask() -> None:
        try:
            with Client(address, authkey=key) as connection:
                connection.send_bytes(command.encode()[:MOST_BYTES])
                answers.append(connection.recv_bytes(4096).decode())
        except _FAULTS as error:
            faults.append(error)

    _within(ANSWER_WITHIN_S, ask)
    if not answers and not faults:
        raise VisavisError("visavis does not answer; is it busy, or hung? Ctrl-C in its terminal ends it")
    return answers[0] if answers else None


def tell(command: str, folder: Path | None = None) -> str:
    """What the newest run that listens says to `command`. Raises VisavisError where none runs, or it refuses."""
    folder = folder or runtime_folder()
    files = (
        sorted(folder.glob(f"*{SUFFIX}"), key=lambda f: f.stat().st_mtime, reverse=True)
        if folder.is_dir()
        else []
    )
    for file in files:
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            address, key = str(told["address"]), bytes.fromhex(told["key"])
        except (*_FAULTS, KeyError, TypeError):  # of a program that was killed
            answer = None
        else:
            answer = _asked(address, key, command)
        if answer is None:
            with suppress(OSError):
                file.unlink()
            continue
        if answer.startswith("!"):
            raise VisavisError(answer[1:])
        return answer
    raise VisavisError("no `visavis run` of yours is running; start one first")
