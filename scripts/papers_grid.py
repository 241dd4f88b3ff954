"""The grid of docs/papers.md: rows people, columns source, driver, the five, visavis, truth, from evaluated takes.

    python -m scripts.evaluate DATA -o runs/evaluation/now --generators ifaceuv,multiguidance,pwm,pncc,idmatch,visavis
    python -m scripts.papers_grid runs/evaluation/now -o docs/papers-grid.jpg --takes self-ada_01,cross-ada_01+berta_02

Without --takes as many takes as --rows, spread over both protocols. Where one person drives another there is no truth.
Show only people whose pictures may be shown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # also when run as a file

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.errors import VisavisError
from engines.files import whole_file
from scripts.evaluation.clips import spread_indices
from scripts.evaluation.pictures import DRIVER, PHOTO, TILES, grid

U8 = NDArray[np.uint8]

FIVE = ("ifaceuv", "multiguidance", "pwm", "pncc", "idmatch")
COLUMNS = (*FIVE, "visavis")
TRUTH = "truth"
QUALITY = 92


class GridError(VisavisError):
    """There is no such grid; the message names the fix."""


def takes_of(evaluated: Path, rows: int) -> list[str]:
    """Names of `rows` takes at most, as many of each protocol as can be, spread over people. Raises GridError."""
    found = sorted(p.name for p in (evaluated / TILES).glob("*") if p.is_dir())
    ways = [[n for n in found if n.startswith(f"{way}-")] for way in ("self", "cross")]
    ways = [way for way in ways if way]
    if not ways:
        raise GridError(
            f"{evaluated} has no evaluated takes; run: python -m scripts.evaluate DATA -o {evaluated}"
        )
    counts = [rows // len(ways) + (k < rows % len(ways)) for k in range(len(ways))]
    return [way[k] for way, count in zip(ways, counts, strict=True) for k in spread_indices(len(way), count)]


def row_of(evaluated: Path, take: str, columns: Sequence[str], tile_px: int) -> dict[str, U8]:
    """A take's pictures by what is written above them; grey where there is none. Raises GridError."""
    folder = evaluated / TILES / take
    if not folder.is_dir():
        raise GridError(f"{evaluated} has no take {take}; there are: {', '.join(takes_of(evaluated, 10**6))}")
    grey = np.full((tile_px, tile_px, 3), 128, np.uint8)

    def tile(name: str) -> U8:
        path = folder / f"{name}.png"
        if not path.is_file():
            return grey
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"), np.uint8)
        return np.asarray(cv2.resize(pixels, (tile_px, tile_px), interpolation=cv2.INTER_AREA), np.uint8)

    drawn = {name: tile(name) for name in columns}
    if all(picture is grey for picture in drawn.values()):
        raise GridError(
            f"none of {', '.join(columns)} was evaluated in {evaluated}; evaluate with --generators or --weights"
        )
    driver = tile(DRIVER)
    return {
        "source": tile(PHOTO),
        DRIVER: driver,
        **drawn,
        TRUTH: grey if take.startswith("cross-") else driver,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("evaluated", type=Path, help="what scripts.evaluate has written")
    parser.add_argument("-o", "--out", type=Path, required=True, help="picture, .jpg or .png")
    parser.add_argument("--takes", help="rows by commas (default: spread over people)")
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument(
        "--columns", default=",".join(COLUMNS), help=f"generators (default: {','.join(COLUMNS)})"
    )
    parser.add_argument("--tile", type=int, default=160, help="side of a picture in pixels (default: 160)")
    given = parser.parse_args()
    try:
        takes = given.takes.split(",") if given.takes else takes_of(given.evaluated, given.rows)
        rows = [row_of(given.evaluated, take, given.columns.split(","), given.tile) for take in takes]
        with whole_file(given.out) as part:
            Image.fromarray(grid(rows)).save(part, quality=QUALITY, optimize=True)
    except VisavisError as error:
        sys.exit(f"papers_grid: {error}")
    print(f"{given.out}: {', '.join(takes)}")


if __name__ == "__main__":
    main()
