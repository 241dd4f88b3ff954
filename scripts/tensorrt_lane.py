"""Build every network with TensorRT-RTX for named cards, on a computer that has none of them: what it refuses shows.

    ./scripts/test --tensorrt [--owner visavis …]

Each export in fp16, and in bf16 where the card computes in it, for compute capabilities 8.6, 8.9 and 12.0. Ends with
the first operator that is refused. That a graph compiles says nothing of what it computes or how fast: loading needs
a card.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from engines.compile.engine import Precision
from engines.compile.network import Network
from engines.compile.rtx_library import RtxLibrary, TensorRtRtx, takes
from engines.compile.tensorrt_rtx_engine import TensorRtRtxEngine
from engines.errors import EngineError
from engines.networks import networks_of, owners

TARGETS = ("sm86", "sm89", "sm120")
PRECISIONS: tuple[Precision, ...] = ("fp16", "bf16")


def rows_of(network: Network, engine: TensorRtRtxEngine) -> list[str]:
    """A line for each precision: sizes and times. Raises EngineError naming network, card, precision and reason."""
    rows: list[str] = []
    for precision in PRECISIONS:
        targets = [t for t in TARGETS if takes(t, precision)]
        where = "its export"
        try:
            begin = time.monotonic()
            model = engine.exported(network.module, network.example, precision, targets)
            row = f"{network.name:24} {precision}  onnx {len(model) / 1e6:6.2f} MB {time.monotonic() - begin:5.1f} s"
            for target in targets:
                where, begin = target, time.monotonic()
                size = len(engine.built_for(target, model))
                row += f"   {target} {size / 1e6:6.2f} MB {time.monotonic() - begin:4.1f} s"
        except EngineError as error:
            raise EngineError(f"{network.name} in {precision}, {where}: {error}") from error
        rows.append(row)
        print(row, flush=True)
    return rows


def main(arguments: Sequence[str] | None = None, library: RtxLibrary | None = None) -> int:
    """0 when all is built, 1 at the first refusal."""
    parser = argparse.ArgumentParser(prog="scripts.tensorrt_lane", description=__doc__)
    parser.add_argument("--owner", action="append", choices=owners(), help="build these alone")
    wanted = parser.parse_args(arguments).owner or owners()
    library = library or TensorRtRtx()
    engine, begin, count = TensorRtRtxEngine(library=library), time.monotonic(), 0
    if refusal := engine.builds():
        print(f"nothing can be built: {refusal}", file=sys.stderr)
        return 1
    print(f"TensorRT-RTX {library.version}, for {', '.join(TARGETS)}", flush=True)
    try:
        for owner in wanted:
            for network in networks_of(owner):
                count += len(rows_of(network, engine))
    except EngineError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    print(f"{count} exports, all built, in {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
