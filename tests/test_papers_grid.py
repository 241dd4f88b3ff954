"""The grid of docs/papers.md, of what an evaluation has written."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.evaluation.pictures import LABEL_PX
from scripts.papers_grid import COLUMNS, GridError, main, row_of, takes_of

PX = 8


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    """Four takes, each picture of one grey that tells which it is."""
    for k, take in enumerate(("self-ada_01", "self-bob_01", "self-cy_01", "cross-ada_01+bob_01")):
        folder = tmp_path / "tiles" / take
        folder.mkdir(parents=True)
        for n, name in enumerate(("photo", "driver", "pwm", "visavis")):
            Image.fromarray(np.full((32, 32, 3), 40 * k + 10 * n, np.uint8)).save(folder / f"{name}.png")
    return tmp_path


def test_columns_and_what_there_is_none_of(evaluated: Path) -> None:
    row = row_of(evaluated, "self-bob_01", COLUMNS, PX)
    assert list(row) == [
        "source",
        "driver",
        "ifaceuv",
        "multiguidance",
        "pwm",
        "pncc",
        "idmatch",
        "visavis",
        "truth",
    ]
    shades = {name: int(tile[0, 0, 0]) for name, tile in row.items()}
    assert shades == {
        "source": 40, "driver": 50, "ifaceuv": 128, "multiguidance": 128, "pwm": 60, "pncc": 128, "idmatch": 128,
        "visavis": 70, "truth": 50,
    }  # fmt: skip
    cross = row_of(evaluated, "cross-ada_01+bob_01", COLUMNS, PX)
    assert [int(cross[n][0, 0, 0]) for n in ("driver", "truth")] == [
        130,
        128,
    ]  # nobody knows what it should be


def test_rows_are_of_both_protocols_and_of_all_people(evaluated: Path) -> None:
    assert takes_of(evaluated, 3) == ["self-ada_01", "self-cy_01", "cross-ada_01+bob_01"]
    with pytest.raises(GridError, match=r"scripts\.evaluate"):
        takes_of(evaluated / "tiles", 3)
    with pytest.raises(GridError, match="there are: self-ada_01"):
        row_of(evaluated, "self-nobody", COLUMNS, PX)
    with pytest.raises(GridError, match="--weights"):
        row_of(evaluated, "self-ada_01", ["pncc"], PX)


def test_one_command_writes_it(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = evaluated / "grid.png"
    told = ["--takes", "self-ada_01,cross-ada_01+bob_01", "--columns", "pwm,visavis", "--tile", str(PX)]
    monkeypatch.setattr(sys, "argv", ["papers_grid", str(evaluated), "-o", str(out), *told])
    main()
    with Image.open(out) as picture:
        assert picture.size == (5 * PX, 2 * (PX + LABEL_PX))
