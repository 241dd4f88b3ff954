"""The log of a training, and curves of it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from engines.files import whole_file

LOG, JUDGED = "log.csv", "judged.csv"


class Table:
    """A CSV file that grows by rows; new columns begin a new header line."""

    def __init__(self, path: Path, *, fresh: bool) -> None:
        """`fresh`: rows of an earlier training under this name are not kept."""
        self._path = path
        self._columns: list[str] = []
        if fresh:
            path.unlink(missing_ok=True)

    def write(self, row: dict[str, float]) -> None:
        """Append one row."""
        with self._path.open("a", newline="", encoding="utf-8") as out:
            table = csv.writer(out)
            if list(row) != self._columns:
                self._columns = list(row)
                table.writerow(self._columns)
            table.writerow(list(row.values()))


def read_table(path: Path) -> list[dict[str, float]]:
    """Rows of a `Table`, whatever its columns were in between."""
    rows: list[dict[str, float]] = []
    columns: list[str] = []
    with path.open(encoding="utf-8") as source:
        for cells in csv.reader(source):
            if cells and cells[0] == "step":
                columns = cells
            elif cells:
                rows.append(dict(zip(columns, map(float, cells), strict=False)))
    return rows


def draw_curves(folder: Path) -> None:
    """curves.png of losses and figures; nothing where matplotlib is missing (it is not needed to train)."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(11, 4))
    for place, name in ((1, LOG), (2, JUDGED)):
        rows = read_table(folder / name) if (folder / name).exists() else []
        if not rows:
            continue
        axes = figure.add_subplot(1, 2, place)
        keys = [k for k in rows[-1] if k not in ("step", "minutes", "per_s")]
        if name == JUDGED:
            keys = [k for k in keys if not k.endswith("_base")]
        for key in keys:
            points = [(r["step"], r[key]) for r in rows if key in r]
            x, y = zip(*points, strict=True)
            y = np.abs(y) if key == "db" else np.asarray(y)
            axes.plot(x, y / max(float(y[0]), 1e-9) if name == JUDGED else y, label=key, linewidth=1)
        axes.set_xlabel("step")
        axes.set_yscale("log")
        axes.set_title("losses" if name == LOG else "held-out people, relative to the first")
        axes.legend(fontsize=6)
    figure.tight_layout()
    with whole_file(folder / "curves.png") as part:
        figure.savefig(part, dpi=90)
