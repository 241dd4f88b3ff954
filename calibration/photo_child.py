"""The child process that decodes an upload: bytes on stdin → one line of JSON and the pixels on stdout.

It limits itself before it looks at a byte: hostile bytes get a little memory, a few seconds and no way to open a file
or a socket. `calibration.photo_apart` starts it and believes nothing that it says.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys

from calibration.photo import Photo, open_photo
from engines.errors import PhotoError

# A 48-megapixel HEIC, the largest that phones make, takes 430 MB. What the file itself takes, in standard input and in
# the server, goes from it: all of that together stays under 600 MB.
DATA_BYTES = 500 << 20
ADDRESSES_BYTES = 704 << 20  # the same for kernels that do not count data: shared libraries have 150 MB of it
CPU_S = 4
NICE = 10  # calls come first

TOO_MUCH = (
    "the photo needs more memory than an upload may take; save it with at most 25 million pixels and use that"
)


def main() -> None:
    """Answer for what is on stdin: the last two arguments are the most pixels a side, and the most seconds."""
    max_side_px, wall_s = int(sys.argv[-2]), float(sys.argv[-1])
    limit_this_process(os.fstat(0).st_size, wall_s)
    with os.fdopen(0, "rb") as given:
        data = given.read()
    answer = answer_of(data, max_side_px)
    while answer:
        answer = answer[os.write(1, answer) :]
    os._exit(0)  # nothing is left to tidy up


def limit_this_process(
    given_bytes: int,
    wall_s: float,
    files: int = 3,
    *,
    data_bytes: int = DATA_BYTES,
    addresses_bytes: int = ADDRESSES_BYTES,
    cpu_s: int = CPU_S,
) -> None:
    """Memory, less twice what was given, time, priority; from now on no more than `files` can be open, none written."""
    os.setpriority(
        os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0))
    )  # raising it is root's alone
    signal.setitimer(signal.ITIMER_REAL, wall_s)  # should the parent not be there any more to end it
    for what, most in (
        (resource.RLIMIT_DATA, data_bytes - 2 * given_bytes),
        (resource.RLIMIT_AS, addresses_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, files),
    ):
        _limit(what, most, most)
    _limit(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)  # first a signal that tells why it ended


def _limit(what: int, soft: int, hard: int) -> None:
    have = resource.getrlimit(what)[1]
    if have != resource.RLIM_INFINITY:  # it is limited already, and that only root may widen
        soft, hard = min(soft, have), min(hard, have)
    resource.setrlimit(what, (soft, hard))


def answer_of(data: bytes, max_side_px: int) -> memoryview:
    """One line of JSON, {"error": …} or what there is besides the pixels, and the pixels."""
    try:
        photo = open_photo(data, max_side_px=max_side_px)
    except PhotoError as error:
        text = TOO_MUCH if ran_out(error) else str(error)
        return memoryview(json.dumps({"error": text}).encode() + b"\n")
    except MemoryError:
        return memoryview(json.dumps({"error": TOO_MUCH}).encode() + b"\n")
    return memoryview(header_of(photo) + photo.image.tobytes())


def header_of(photo: Photo) -> bytes:
    """The line before the pixels."""
    told = {
        "size_px": [photo.image.shape[1], photo.image.shape[0]],
        "original_size_px": list(photo.original_size_px),
        "format": photo.format,
        "notices": list(photo.notices),
    }
    return json.dumps(told).encode() + b"\n"


def ran_out(error: BaseException) -> bool:
    """Whether the limit of memory was the cause: decoders say it in their own words, or not at all."""
    cause = error.__cause__
    return isinstance(cause, MemoryError) or "memory" in str(cause or "").lower()
