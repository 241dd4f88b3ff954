"""Rows that papers print of themselves and others: other data, other networks, for orientation only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

PROGRESSIVE = "Zhong, Geometry Driven Progressive Warping"
MULTIPLE = "Zhang et al., Exploiting Multiple Guidance from 3DMM"
IFACEUV = "Lee et al., IFaceUV"
THESIS = "Vei, One-shot Facial Expression Reenactment using 3D Morphable Models (thesis)"
NOTE = (
    "**Other data, for orientation only**: VoxCeleb or CelebV crops, true LPIPS and Inception FID, ArcFace CSIM, "
    "FLAME or BFM parameters for AED and APD. None of these numbers can be compared with the tables above."
)


@dataclass(frozen=True, slots=True)
class Published:
    """One row as printed: which paper and table, which data and protocol, and its figures by name."""

    paper: str
    table: str
    data: str
    protocol: Literal["self", "cross"]
    method: str
    figures: Mapping[str, float]


def _rows(
    paper: str,
    table: str,
    data: str,
    protocol: Literal["self", "cross"],
    names: tuple[str, ...],
    rows: Mapping[str, tuple[float, ...]],
) -> list[Published]:
    return [
        Published(paper, table, data, protocol, method, dict(zip(names, values, strict=True)))
        for method, values in rows.items()
    ]


_SELF_FIVE = ("FID", "CSIM", "AKD", "AED", "APD")
_CROSS_FOUR = ("FID", "CSIM", "AED", "APD")

PUBLISHED: tuple[Published, ...] = (
    *_rows(PROGRESSIVE, "table 1", "VoxCeleb1", "self", _SELF_FIVE, {
        "X2Face": (36.02, 0.532, 10.94, 0.201, 5.189),
        "Bi-Layer": (79.05, 0.580, 3.11, 0.129, 0.866),
        "LSR": (20.53, 0.311, 2.73, 0.153, 1.012),
        "FOMM": (10.87, 0.788, 2.25, 0.087, 0.688),
        "3D-FOMM": (5.47, 0.792, 2.23, 0.091, 0.770),
        "HeadGAN": (10.72, 0.779, 3.80, 0.087, 1.097),
        "PIRender": (9.47, 0.745, 3.41, 0.119, 1.148),
        "PWM + geom. disp.": (3.95, 0.794, 2.29, 0.081, 0.756),
        "PWM + neural codes": (3.93, 0.793, 2.15, 0.067, 0.670),
    }),
    *_rows(PROGRESSIVE, "table 2", "VoxCeleb1", "self", ("L1", "SSIM", "LPIPS"), {
        "PWM + geom. disp.": (11.93, 0.779, 0.106),
        "PWM + neural codes": (11.38, 0.782, 0.103),
    }),
    *_rows(PROGRESSIVE, "table 1", "VoxCeleb1", "cross", _CROSS_FOUR, {
        "X2Face": (51.14, 0.437, 0.297, 7.421),
        "Bi-Layer": (87.54, 0.461, 0.230, 1.493),
        "LSR": (28.04, 0.229, 0.217, 1.606),
        "FOMM": (30.84, 0.562, 0.218, 1.612),
        "3D-FOMM": (22.34, 0.605, 0.247, 2.149),
        "HeadGAN": (25.79, 0.505, 0.234, 1.849),
        "PIRender": (23.82, 0.530, 0.222, 1.916),
        "PWM + geom. disp.": (14.19, 0.653, 0.228, 1.668),
        "PWM + neural codes": (14.32, 0.584, 0.174, 1.214),
    }),
    *_rows(MULTIPLE, "table 1", "VoxCeleb", "self", ("CSIM", "AED", "APD", "FID"), {
        "X2Face": (0.613, 2.679, 0.2096, 36.75),
        "FOMM": (0.759, 1.350, 0.0379, 9.80),
        "PIRenderer": (0.760, 1.322, 0.0413, 9.05),
        "DaGAN": (0.763, 1.300, 0.0366, 8.65),
        "theirs": (0.761, 1.255, 0.0372, 8.51),
    }),
    *_rows(MULTIPLE, "table 1", "VoxCeleb", "cross", ("CSIM", "AED", "APD", "FID"), {
        "X2Face": (0.462, 4.071, 0.2898, 50.09),
        "FOMM": (0.521, 3.329, 0.0775, 32.40),
        "PIRenderer": (0.572, 2.923, 0.0744, 21.73),
        "DaGAN": (0.495, 3.191, 0.0678, 36.88),
        "theirs": (0.625, 2.919, 0.0589, 16.77),
    }),
    *_rows(MULTIPLE, "table 2", "CelebV", "cross", ("CSIM", "AED", "APD", "FID"), {
        "X2Face": (0.556, 3.702, 0.0761, 55.72),
        "FOMM": (0.516, 3.540, 0.0854, 39.21),
        "PIRenderer": (0.567, 2.968, 0.0611, 26.57),
        "DaGAN": (0.500, 3.442, 0.0779, 47.46),
        "theirs": (0.620, 2.944, 0.0484, 21.96),
    }),
    *_rows(IFACEUV, "table 1", "VoxCeleb", "self", ("FID", "LPIPS", "AED", "APD"), {
        "X2Face": (32.20, 0.240, 0.168, 0.115),
        "Bi-layer": (44.92, 0.166, 0.113, 0.054),
        "FOMM": (14.01, 0.127, 0.203, 0.076),
        "PIRenderer": (22.55, 0.191, 0.136, 0.074),
        "theirs": (10.36, 0.126, 0.082, 0.045),
    }),
    *_rows(IFACEUV, "table 1", "VoxCeleb", "cross", _CROSS_FOUR, {
        "X2Face": (65.04, 0.450, 0.250, 0.141),
        "Bi-layer": (90.43, 0.463, 0.183, 0.070),
        "FOMM": (59.77, 0.570, 0.188, 0.076),
        "PIRenderer": (59.58, 0.524, 0.210, 0.096),
        "theirs": (45.26, 0.582, 0.156, 0.069),
    }),
    *_rows(THESIS, "table 6.1", "VoxCeleb", "self", ("PSNR", "SSIM", "LPIPS", "FID", "CSIM"), {
        "BiLayer": (14.009, 0.571, 0.311, 39.146, 0.412),
        "Head Synthesis": (22.955, 0.779, 0.136, 14.382, 0.523),
        "FOMM": (23.615, 0.797, 0.139, 14.541, 0.583),
        "theirs": (24.077, 0.803, 0.118, 12.655, 0.598),
    }),
)  # fmt: skip

_ORDER = ("L1", "PSNR", "SSIM", "LPIPS", "FID", "CSIM", "AKD", "AED", "APD")


def to_markdown() -> list[str]:
    """All rows as one table, under the note that they are of other data."""
    lines = [
        NOTE, "",
        "| paper | table | data | protocol | method | " + " | ".join(_ORDER) + " |",
        "| --- | --- | --- | --- | --- |" + " ---: |" * len(_ORDER),
    ]  # fmt: skip
    for row in PUBLISHED:
        figures = " | ".join(f"{row.figures[k]:g}" if k in row.figures else "" for k in _ORDER)
        lines.append(
            f"| {row.paper} | {row.table} | {row.data} | {row.protocol} | {row.method} | {figures} |"
        )
    return lines
