"""`python -m scripts.measure.watched_server COUNTS serve …`: visavis that writes what runs in it when SIGUSR1 comes."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import threading
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


def main() -> None:
    """Command line: where to write, then visavis' own arguments."""
    counts = Path(sys.argv.pop(1))

    def write(*_: object) -> None:
        gc.collect()
        new = counts.with_suffix(".new")
        new.write_text(json.dumps(counted()))
        new.replace(counts)

    signal.signal(signal.SIGUSR1, write)
    from streamer.cli.main import main as visavis

    visavis()


if __name__ == "__main__":
    main()
