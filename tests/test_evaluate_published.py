"""Figures of the papers, cell by cell where a typo would show."""

from __future__ import annotations

import pytest

from scripts.evaluation import published
from scripts.evaluation.published import IFACEUV, MULTIPLE, PROGRESSIVE, PUBLISHED, THESIS, ProtocolOf

BOTH = "PWM + geom. disp. + neural codes"


@pytest.mark.parametrize(
    ("paper", "table", "data", "protocol", "method", "figure", "printed"),
    [
        (PROGRESSIVE, "table 1", "VoxCeleb1", "self", "PWM + neural codes", "AKD", "2.15"),
        (PROGRESSIVE, "table 1", "VoxCeleb1", "self", "PWM + neural codes", "APD", "0.670"),  # not 0.67
        (PROGRESSIVE, "table 1", "VoxCeleb1", "cross", "PWM + NMFC", "FID", "15.73"),
        (PROGRESSIVE, "table 1", "VoxCeleb1", "self", f"{BOTH} (BFM)", "AKD", "4.04"),
        (PROGRESSIVE, "table 1", "VoxCeleb2", "self", "PWM + NMFC", "AKD", "2.64"),
        (PROGRESSIVE, "table 1", "VoxCeleb2", "cross", BOTH, "AED", "0.178"),
        (PROGRESSIVE, "table 1", "VoxCeleb2", "cross", "X2Face", "APD", "9.757"),
        (PROGRESSIVE, "table 2", "VoxCeleb1", "self", "PWM + geom. disp.", "L1", "11.93"),
        (PROGRESSIVE, "table 2", "VoxCeleb2", "self", "PWM + neural codes", "LPIPS", "0.133"),
        (PROGRESSIVE, "table 3", "VoxCeleb1", "cross", f"{BOTH} (FLAME)", "APD (BFM)", "1.702"),
        (PROGRESSIVE, "table 3", "VoxCeleb2", "self", f"{BOTH} (BFM)", "AED", "0.109"),
        (PROGRESSIVE, "table 3", "VoxCeleb2", "cross", f"{BOTH} (FLAME)", "AED", "0.177"),  # sic
        (MULTIPLE, "table 1", "VoxCeleb", "cross", "theirs", "FID", "16.77"),
        (MULTIPLE, "table 2", "CelebV", "cross", "DaGAN", "AED", "3.442"),
        (MULTIPLE, "table 3", "CelebV", "cross", "base + computed flow (FG)", "FID", "24.03"),
        (IFACEUV, "table 1", "VoxCeleb", "self", "theirs", "LPIPS", "0.126"),
        (IFACEUV, "table 1", "VoxCeleb", "cross", "PIRenderer", "CSIM", "0.524"),
        (THESIS, "table 6.1", "VoxCeleb, segmented", "self", "theirs", "PSNR", "24.077"),
        (THESIS, "table 6.2", "not said, segmented", "self", "default", "FID", "8.17"),
        (THESIS, "table 6.2", "not said, segmented", "self", "default + mouth discriminator", "FID", "5.328"),
    ],
)
def test_cells(
    paper: str, table: str, data: str, protocol: ProtocolOf, method: str, figure: str, printed: str
) -> None:
    (row,) = [
        r for r in PUBLISHED
        if (r.paper, r.table, r.data, r.protocol, r.method) == (paper, table, data, protocol, method)
    ]  # fmt: skip
    assert row.figures[figure] == printed


def test_no_table_lost_a_row() -> None:
    counts: dict[tuple[str, str], int] = {}
    for row in PUBLISHED:
        counts[row.paper, row.table] = counts.get((row.paper, row.table), 0) + 1
    assert counts == {
        (PROGRESSIVE, "table 1"): 48, (PROGRESSIVE, "table 2"): 4, (PROGRESSIVE, "table 3"): 8,
        (MULTIPLE, "table 1"): 10, (MULTIPLE, "table 2"): 5, (MULTIPLE, "table 3"): 4,
        (IFACEUV, "table 1"): 10, (THESIS, "table 6.1"): 4, (THESIS, "table 6.2"): 6,
    }  # fmt: skip


def test_all_is_printed() -> None:
    text = "\n".join(published.to_markdown())
    for row in PUBLISHED:
        for figure in row.figures.values():
            assert f" {figure} " in text
    assert f"| {THESIS} | table 3.5 | 2 | 0.92 | 2.163 |" in text
    assert "for orientation only" in text
