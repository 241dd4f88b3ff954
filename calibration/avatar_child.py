"""The child process that looks at an `.avatar` that a page sent: bytes on stdin → one line of JSON on stdout.

It limits itself before it looks at a byte, reads the file as the server would, and draws one picture: what brings a
reader or a drawing down, or takes too long, ends here. `calibration.avatar_apart` starts it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from calibration.photo_child import limit_this_process
from engines.enrollment import head_model_of
from engines.errors import VisavisError
from engines.head.open import open_head_model
from engines.native.loader import SETTING

TOO_MUCH = "this file needs more memory than an avatar may take; make the avatar again from its photo"
DRAWN_PX = 256
# an avatar of the largest photo, 2048 × 2048, takes 590 MB of data with its file, 890 MB of addresses and 2.6 s
DATA_BYTES, ADDRESSES_BYTES = 800 << 20, 1100 << 20
CPU_S = 8


def main() -> None:
    """Answer for what is on stdin: the last two arguments are the server's head model and the most seconds."""
    spec, wall_s = sys.argv[-2] or None, float(sys.argv[-1])
    # one picture is drawn, and what is compiled would be looked for by a thread that opens files meanwhile
    os.environ[SETTING] = "off"
    open_head_model(None)  # read now, while files can be opened
    open_head_model(spec)
    from calibration.avatar_apart import read_bounded
    from engines.renderer import Renderer

    importlib.import_module("numpy.ma")  # which some releases of NumPy load when a median first asks for it

    given_bytes = os.fstat(0).st_size
    limit_this_process(
        given_bytes,
        wall_s,
        files=4,  # one more, for what is on stdin
        data_bytes=DATA_BYTES,
        addresses_bytes=ADDRESSES_BYTES,
        cpu_s=CPU_S,
    )
    told: dict[str, object] = {"ok": True}
    try:
        enrollment = read_bounded(Path("/proc/self/fd/0"), spec)
        head_model_of(enrollment)
        Renderer(enrollment, generator="geometric", size_px=DRAWN_PX).render(enrollment.motion)
    except VisavisError as error:
        told = {"error": str(error)}
    except MemoryError:
        told = {"error": TOO_MUCH}
    os.write(1, json.dumps(told).encode() + b"\n")
    os._exit(0)  # nothing is left to tidy up


if __name__ == "__main__":
    main()
