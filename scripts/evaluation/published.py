"""Rows that papers print of themselves and others: other data, other networks, for orientation only.

Tables stand as printed, figures as text: rounding and trailing zeros are the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
# What the same word means in each paper, as far as it says so.
REMARKS: tuple[str, ...] = (
    f"{PROGRESSIVE}: every pair of frames forward and backward. FID of the cross protocol is against the sources' "
    "pictures. AED and APD by FLAME, in table 3 (columns with BFM) by a fitted BFM too. The model trained on VoxCeleb1 "
    "is also tried on VoxCeleb2. Its tables 1 and 3 differ in one figure (cross AED on VoxCeleb2, 0.178 and 0.177).",
    f"{MULTIPLE}: absolute motion; AED and APD as PIRenderer has them. It does not say against whose pictures FID is.",
    f"{IFACEUV}: FID of the cross protocol is against the drivers' pictures. Bi-layer, which draws no background, is "
    "judged without it.",
    f"{THESIS}: all pictures without background; LPIPS by AlexNet. Of table 6.2 it does not say on what data it is.",
)

ProtocolOf = Literal["self", "cross"]
_EVEN: tuple[ProtocolOf, ...] = ("self", "cross")


@dataclass(frozen=True, slots=True)
class Published:
    """One row as printed: which paper and table, which data and protocol, and its figures by name."""

    paper: str
    table: str
    data: str
    protocol: ProtocolOf
    method: str
    figures: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Speed:
    """A row of the thesis' table 3.5: so many requests at once; whole pictures from photo to picture on a server."""

    paper: str
    table: str
    requests: int
    per_second: str
    latency_s: str


def _read(
    paper: str,
    table: str,
    data: str,
    columns: Mapping[ProtocolOf, Sequence[str]],
    printed: str,
) -> Iterator[Published]:
    """Rows `method | figures of the first protocol | of the second`."""
    rows = [[part.strip() for part in line.split("|")] for line in printed.strip().splitlines()]
    for k, (protocol, names) in enumerate(columns.items(), start=1):
        for row in rows:
            yield Published(
                paper, table, data, protocol, row[0], dict(zip(names, row[k].split(), strict=True))
            )


_PROGRESSIVE_1: Mapping[ProtocolOf, Sequence[str]] = {
    "self": ("FID", "CSIM", "AKD", "AED", "APD"),
    "cross": ("FID", "CSIM", "AED", "APD"),
}
_PROGRESSIVE_2: Mapping[ProtocolOf, Sequence[str]] = {"self": ("L1", "SSIM", "LPIPS")}
_PROGRESSIVE_3: Mapping[ProtocolOf, Sequence[str]] = dict.fromkeys(
    _EVEN, ("AED", "APD", "AED (BFM)", "APD (BFM)")
)
_FOUR = ("CSIM", "AED", "APD", "FID")

PUBLISHED: tuple[Published, ...] = (
    *_read(PROGRESSIVE, "table 1", "VoxCeleb1", _PROGRESSIVE_1, """
        X2Face | 36.02 0.532 10.94 0.201 5.189 | 51.14 0.437 0.297 7.421
        Bi-Layer | 79.05 0.580 3.11 0.129 0.866 | 87.54 0.461 0.230 1.493
        LSR | 20.53 0.311 2.73 0.153 1.012 | 28.04 0.229 0.217 1.606
        FOMM | 10.87 0.788 2.25 0.087 0.688 | 30.84 0.562 0.218 1.612
        3D-FOMM | 5.47 0.792 2.23 0.091 0.770 | 22.34 0.605 0.247 2.149
        HeadGAN | 10.72 0.779 3.80 0.087 1.097 | 25.79 0.505 0.234 1.849
        PIRender | 9.47 0.745 3.41 0.119 1.148 | 23.82 0.530 0.222 1.916
        PWM + NMFC | 5.57 0.784 2.32 0.091 0.786 | 15.73 0.647 0.225 1.641
        PWM + geom. disp. | 3.95 0.794 2.29 0.081 0.756 | 14.19 0.653 0.228 1.668
        PWM + neural codes | 3.93 0.793 2.15 0.067 0.670 | 14.32 0.584 0.174 1.214
        PWM + geom. disp. + neural codes | 4.33 0.794 2.14 0.066 0.664 | 15.39 0.590 0.173 1.224
        PWM + geom. disp. + neural codes (BFM) | 4.80 0.779 4.04 0.087 1.110 | 16.78 0.546 0.233 1.956
    """),
    *_read(PROGRESSIVE, "table 1", "VoxCeleb2", _PROGRESSIVE_1, """
        X2Face | 30.34 0.538 21.66 0.188 7.780 | 41.31 0.379 0.280 9.757
        Bi-Layer | 57.26 0.541 2.84 0.138 1.153 | 66.22 0.436 0.221 1.780
        LSR | 12.43 0.275 2.66 0.156 1.388 | 18.17 0.217 0.214 1.928
        FOMM | 8.32 0.718 2.69 0.118 1.291 | 26.00 0.475 0.231 2.545
        3D-FOMM | 3.49 0.723 3.11 0.118 1.498 | 14.52 0.567 0.240 3.189
        HeadGAN | 8.59 0.704 3.87 0.112 1.665 | 19.47 0.473 0.227 2.647
        PIRender | 7.77 0.677 3.47 0.144 1.758 | 19.15 0.508 0.229 2.852
        PWM + NMFC | 4.17 0.725 2.64 0.118 1.162 | 10.68 0.601 0.230 2.142
        PWM + geom. disp. | 3.14 0.732 2.69 0.111 1.203 | 9.83 0.612 0.234 2.564
        PWM + neural codes | 3.29 0.723 2.37 0.087 0.954 | 10.15 0.528 0.177 1.498
        PWM + geom. disp. + neural codes | 3.18 0.726 2.36 0.088 0.954 | 9.97 0.541 0.178 1.533
        PWM + geom. disp. + neural codes (BFM) | 3.63 0.721 3.70 0.109 1.552 | 11.15 0.516 0.227 2.569
    """),
    *_read(PROGRESSIVE, "table 2", "VoxCeleb1", _PROGRESSIVE_2, """
        PWM + geom. disp. | 11.93 0.779 0.106
        PWM + neural codes | 11.38 0.782 0.103
    """),
    *_read(PROGRESSIVE, "table 2", "VoxCeleb2", _PROGRESSIVE_2, """
        PWM + geom. disp. | 13.60 0.743 0.137
        PWM + neural codes | 13.04 0.747 0.133
    """),
    *_read(PROGRESSIVE, "table 3", "VoxCeleb1", _PROGRESSIVE_3, """
        PWM + geom. disp. + neural codes (FLAME) | 0.066 0.664 0.088 0.791 | 0.173 1.224 0.228 1.702
        PWM + geom. disp. + neural codes (BFM) | 0.087 1.110 0.087 1.245 | 0.233 1.956 0.230 2.128
    """),
    *_read(PROGRESSIVE, "table 3", "VoxCeleb2", _PROGRESSIVE_3, """
        PWM + geom. disp. + neural codes (FLAME) | 0.088 0.954 0.116 1.366 | 0.177 1.533 0.241 2.294
        PWM + geom. disp. + neural codes (BFM) | 0.109 1.552 0.110 1.937 | 0.227 2.569 0.238 2.885
    """),
    *_read(MULTIPLE, "table 1", "VoxCeleb", dict.fromkeys(_EVEN, _FOUR), """
        X2Face | 0.613 2.679 0.2096 36.75 | 0.462 4.071 0.2898 50.09
        FOMM | 0.759 1.350 0.0379 9.80 | 0.521 3.329 0.0775 32.40
        PIRenderer | 0.760 1.322 0.0413 9.05 | 0.572 2.923 0.0744 21.73
        DaGAN | 0.763 1.300 0.0366 8.65 | 0.495 3.191 0.0678 36.88
        theirs | 0.761 1.255 0.0372 8.51 | 0.625 2.919 0.0589 16.77
    """),
    *_read(MULTIPLE, "table 2", "CelebV", {"cross": _FOUR}, """
        X2Face | 0.556 3.702 0.0761 55.72
        FOMM | 0.516 3.540 0.0854 39.21
        PIRenderer | 0.567 2.968 0.0611 26.57
        DaGAN | 0.500 3.442 0.0779 47.46
        theirs | 0.620 2.944 0.0484 21.96
    """),
    *_read(MULTIPLE, "table 3", "CelebV", {"cross": _FOUR}, """
        base: flow and occlusion predicted by the network | 0.595 3.195 0.0550 23.36
        base + computed flow (FG) | 0.615 3.055 0.0542 24.03
        base + FG + computed occlusion (OG) | 0.616 3.043 0.0544 22.39
        base + FG + OG + rendered image (SG) | 0.620 2.944 0.0484 21.96
    """),
    *_read(IFACEUV, "table 1", "VoxCeleb", {
        "self": ("FID", "LPIPS", "AED", "APD"), "cross": ("FID", "CSIM", "AED", "APD"),
    }, """
        X2Face | 32.20 0.240 0.168 0.115 | 65.04 0.450 0.250 0.141
        Bi-layer, without background | 44.92 0.166 0.113 0.054 | 90.43 0.463 0.183 0.070
        FOMM | 14.01 0.127 0.203 0.076 | 59.77 0.570 0.188 0.076
        PIRenderer | 22.55 0.191 0.136 0.074 | 59.58 0.524 0.210 0.096
        theirs | 10.36 0.126 0.082 0.045 | 45.26 0.582 0.156 0.069
    """),
    *_read(THESIS, "table 6.1", "VoxCeleb, segmented", {"self": ("PSNR", "SSIM", "LPIPS", "FID", "CSIM")}, """
        BiLayer | 14.009 0.571 0.311 39.146 0.412
        Head Synthesis | 22.955 0.779 0.136 14.382 0.523
        FOMM | 23.615 0.797 0.139 14.541 0.583
        theirs | 24.077 0.803 0.118 12.655 0.598
    """),
    *_read(THESIS, "table 6.2", "not said, segmented", {"self": ("SSIM", "PSNR", "FID", "LPIPS")}, """
        default without perceptual loss | 0.8428 26.073 7.401 0.0746
        default | 0.8518 26.678 8.17 0.0632
        default + 3DMM parameters injected | 0.8588 26.974 7.309 0.0603
        default + PNCC conditioning | 0.8653 27.266 7.008 0.0583
        default + mouth discriminator | 0.8634 27.295 5.328 0.0581
        default + residual connections | 0.8642 27.24 6.526 0.0585
    """),
)  # fmt: skip

# Not a measure of quality: how fast a server with the whole method answered, on an Nvidia Titan RTX.
SPEEDS: tuple[Speed, ...] = tuple(
    Speed(THESIS, "table 3.5", *row)
    for row in (
        (1, "0.8", "1.266"), (2, "0.92", "2.163"), (3, "1", "3.053"),
        (4, "0.98", "4.079"), (5, "1", "5.113"), (6, "0.98", "6.107"),
    )
)  # fmt: skip

_ORDER = ("L1", "PSNR", "SSIM", "LPIPS", "FID", "CSIM", "AKD", "AED", "APD", "AED (BFM)", "APD (BFM)")


def to_markdown() -> list[str]:
    """All rows as tables, under the note that they are of other data."""
    lines = [
        NOTE, "", *(f"- {remark}" for remark in REMARKS), "",
        "| paper | table | data | protocol | method | " + " | ".join(_ORDER) + " |",
        "| --- | --- | --- | --- | --- |" + " ---: |" * len(_ORDER),
    ]  # fmt: skip
    for row in PUBLISHED:
        figures = " | ".join(row.figures.get(k, "") for k in _ORDER)
        lines.append(
            f"| {row.paper} | {row.table} | {row.data} | {row.protocol} | {row.method} | {figures} |"
        )
    lines += [
        "", "How fast papers are, as printed: 15 pictures of emotions to a request, on an Nvidia Titan RTX.", "",
        "| paper | table | requests at once | requests a second | seconds until answered |",
        "| --- | --- | ---: | ---: | ---: |",
        *(f"| {s.paper} | {s.table} | {s.requests} | {s.per_second} | {s.latency_s} |" for s in SPEEDS),
    ]  # fmt: skip
    return lines
