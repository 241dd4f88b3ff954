"""The terminal: notes that cannot be printed, signals that are ignored, an output that is full."""

# pyright: reportPrivateUsage=none

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engines.ending import told_to_end

ROOT = Path(__file__).parent.parent
SAY = """
import os
from streamer.cli.terminal import quiet_native, ready_streams, say_note
ready_streams()
with quiet_native():
    say_note("caf" + os.fsdecode(b"\\xe9") + ".mp4 ends early")
say_note("still there")
print("done")
"""


def said(*, encoding: str, to: str | None = None) -> subprocess.CompletedProcess[bytes]:
    # what a stream still holds at the exit is a part of it
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": encoding,
        "PYTHONUNBUFFERED": "",
    }
    command = [sys.executable, "-c", SAY]
    if to is None:
        return subprocess.run(command, env=environment, capture_output=True, check=False)
    with Path(to).open("wb") as errors:
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=errors, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", b"caf\xe9.mp4"), ("ascii", b"caf\\udce9.mp4")])
def test_a_note_of_a_name_that_is_no_text_ends_nothing(encoding: str, shown: bytes) -> None:
    done = said(encoding=encoding)
    assert (done.returncode, done.stdout) == (0, b"done\n"), done.stderr
    assert shown in done.stderr
    assert b"still there" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_a_note_that_cannot_be_printed_ends_nothing() -> None:
    done = said(encoding="utf-8", to="/dev/full")
    assert (done.returncode, done.stdout) == (0, b"done\n")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signal here")
def test_signals_that_the_caller_ignores_stay_ignored() -> None:
    """`nohup visavis run …` goes on when the terminal is closed."""
    handlers = {n: signal.getsignal(n) for n in (signal.SIGHUP, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with told_to_end():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
@pytest.mark.parametrize("words", ["--version", "--help"])
def test_an_output_that_is_full_is_one_sentence(words: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "streamer.cli.main", words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert re.fullmatch(
        r"visavis: a file, or what was to be printed, cannot be written \(No space left on device\); free .* there\n",
        done.stderr,
    ), done.stderr


def test_an_output_that_nobody_reads_is_no_bug() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb") as nobody:
        done = subprocess.run(
            [sys.executable, "-m", "streamer.cli.main", "--version"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=nobody, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
