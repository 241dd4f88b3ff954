"""`python -m scripts.measure.watched_server COUNTS serve …`: visavis that writes what runs in it when SIGUSR1 comes."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil


def counted() -> dict[str, int]:
    """Threads, asyncio's tasks that have not ended, and open descriptors of this process.

    Without the threads that asyncio keeps for what blocks: they come one by one, up to a bound, and stay.
    """
    tasks = [o for o in gc.get_objects() if isinstance(o, asyncio.Task) and not o.done()]
    descriptors = psutil.Process().num_fds()
    threads = [t for t in threading.enumerate() if not t.name.startswith("asyncio_")]
    return {"threads": len(threads), "tasks": len(tasks), "descriptors": descriptors}


def tell_when_asked(counts: Path) -> None:
    """From here on this process writes what runs in it to `counts` when SIGUSR1 comes; called by its main thread."""

    def write(*_: object) -> None:
        gc.collect()
        new = counts.with_suffix(".new")
        new.write_text(json.dumps(counted()))
        new.replace(counts)

    signal.signal(signal.SIGUSR1, write)


def running_in(server: psutil.Process, counts: Path) -> dict[str, int]:
    """What a process that tells when it is asked has: `counted`, and its `sockets` of UDP. Raises TimeoutError."""
    counts.unlink(missing_ok=True)
    os.kill(server.pid, signal.SIGUSR1)
    end_s = time.monotonic() + 10
    while not counts.exists():
        if time.monotonic() > end_s:
            raise TimeoutError("the server does not tell what runs in it")
        time.sleep(0.05)
    return {**json.loads(counts.read_text()), "sockets": len(server.net_connections("udp"))}


def main() -> None:
    """Command line: where to write, then visavis' own arguments."""
    tell_when_asked(Path(sys.argv.pop(1)))
    from streamer.cli.main import main as visavis

    visavis()


if __name__ == "__main__":
    main()
