"""What each measure is called and which way is better; the bars against the baseline, and their verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engines.geometry import F64
from engines.head.names import HEAD_MODEL_KINDS
from scripts.evaluation.measure import Row
from scripts.evaluation.statistics import Estimate, Kind, compare, mean
from scripts.evaluation.take import BINS_DEG, Protocol, bin_of

BASELINE = "geometric"
_WAYS: tuple[Protocol, Protocol] = ("self", "back")


@dataclass(frozen=True, slots=True)
class Measure:
    """A column: `key` in the rows, how it is printed, which way is better (None: neither)."""

    key: str
    label: str
    unit: str
    better: Literal["low", "high"] | None
    digits: int


MEASURES: tuple[Measure, ...] = (
    Measure("l1", "L1", "of 255", "low", 2),
    Measure("psnr", "PSNR", "dB", "high", 2),
    Measure("ssim", "SSIM", "", "high", 3),
    Measure("lpips", "LPIPS-efflite0", "", "low", 3),
    Measure("seg_l1", "L1, person only", "of 255", "low", 2),
    Measure("seg_psnr", "PSNR, person only", "dB", "high", 2),
    Measure("seg_ssim", "SSIM, person only", "", "high", 3),
    Measure("seg_lpips", "LPIPS-efflite0, person only", "", "low", 3),
    Measure("head_l1", "head L1", "of 255", "low", 2),
    Measure("head_psnr", "head PSNR", "dB", "high", 2),
    Measure("mouth", "mouth L1", "of 255", "low", 2),
    Measure("eyes", "eye L1", "of 255", "low", 2),
    Measure("csim_faceres", "CSIM-faceres", "", "high", 3),
    Measure("csim_mobileface", "CSIM-mobileface", "", "high", 3),
    Measure("akd", "AKD-mediapipe", "px at 256²", "low", 3),
    Measure("aed", "AED-arkit52", "", "low", 4),
    Measure("aed_shape", "AED in space", "% of eye distance", "low", 3),
    Measure("apd", "APD", "°", "low", 3),
    *(
        measure
        for judge in ("regressor", *HEAD_MODEL_KINDS)
        for measure in (
            Measure(f"aed_{judge}", f"AED-{judge}", "", "low", 4),
            Measure(f"aed_shape_{judge}", f"AED-{judge} in space", "% of eye distance", "low", 3),
            Measure(f"apd_{judge}", f"APD-{judge}", "°", "low", 3),
        )
    ),
    *(
        measure
        for key, label in (("opening", "mouth opening"), ("width", "mouth width"), ("blink", "blink"))
        for measure in (
            Measure(f"{key}_r", f"read back: {label}, r", "", "high", 3),
            Measure(f"{key}_slope", f"read back: {label}, slope", "1: as far as the driver", None, 3),
        )
    ),
    Measure("lips", "lip closure error", "% of mouth width", "low", 2),
    Measure("jitter", "jitter, drawn − driver", "% of eye distance", "low", 3),
    Measure("jitter_error", "jitter of the error", "% of eye distance", "low", 3),
    Measure("shake", "landmark shake", "% of eye distance", None, 3),
    Measure("flicker", "flicker, drawn − real", "of 255", "low", 3),
    Measure("flicker_raw", "flicker", "of 255", None, 3),
    Measure("unseen", "no face found", "% of frames", "low", 2),
)
BY_KEY: dict[str, Measure] = {m.key: m for m in MEASURES}


@dataclass(frozen=True, slots=True)
class Bar:
    """What a generator must reach against the baseline: a paired difference or ratio, up or down to `limit`.

    `gain` says that it must be better: the interval must exclude no change. Otherwise it must be no worse.
    """

    protocol: Protocol
    key: str
    kind: Kind
    limit: float
    gain: bool
    text: str

    @property
    def upwards(self) -> bool:
        """Whether more is better."""
        return BY_KEY[self.key].better == "high"

    @property
    def no_change(self) -> float:
        """The value that says that both are alike."""
        return 1.0 if self.kind == "ratio" else 0.0


BARS: tuple[Bar, ...] = (
    Bar("self", "psnr", "difference", 1.5, True, "PSNR at least 1.5 dB higher"),
    Bar("self", "head_psnr", "difference", 1.5, True, "the same of the head alone"),
    Bar("self", "lpips", "ratio", 0.80, True, "LPIPS at least 20 % lower"),
    Bar("self", "mouth", "ratio", 0.75, True, "mouth L1 at least 25 % lower"),
    Bar("self", "eyes", "ratio", 0.80, True, "eye L1 at least 20 % lower"),
    Bar("self", "akd", "difference", 0.0, True, "AKD lower"),
    Bar("self", "aed", "difference", 0.0, True, "AED lower"),
    Bar("self", "aed_shape", "difference", 0.0, True, "AED in space lower"),
    Bar("self", "jitter", "difference", 0.0, False, "jitter no higher"),
    Bar("self", "jitter_error", "difference", 0.0, False, "jitter of the error no higher"),
    Bar("self", "flicker", "difference", 0.0, False, "flicker no higher"),
    Bar("cross", "csim_faceres", "difference", -0.01, False, "CSIM no lower than −0.01"),
    Bar("cross", "csim_mobileface", "difference", -0.01, False, "CSIM no lower than −0.01"),
    Bar("cross", "aed", "difference", 0.0, True, "AED lower"),
    Bar("cross", "aed_shape", "difference", 0.0, True, "AED in space lower"),
    Bar("cross", "apd", "difference", 0.0, True, "APD lower"),
    Bar("cross", "jitter", "difference", 0.0, False, "jitter no higher"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A bar and what was found. `reached` by the mean; `certain` by the whole interval.

    `excludes_none`: the interval excludes "no change".
    """

    bar: Bar
    found: Estimate

    @property
    def reached(self) -> bool:
        """Whether the mean is on the good side of the limit; never for none."""
        return self._good(self.found.value)

    @property
    def certain(self) -> bool:
        """Whether the worse end of the interval is on the good side too."""
        return self._good(self.found.low if self.bar.upwards else self.found.high)

    @property
    def excludes_none(self) -> bool:
        """Whether the interval excludes that nothing changed."""
        return self.found.excludes(self.bar.no_change)

    @property
    def worse(self) -> bool:
        """Whether the mean is on the bad side of no change."""
        value = self.found.value
        return value < self.bar.no_change if self.bar.upwards else value > self.bar.no_change

    def _good(self, value: float) -> bool:
        return value >= self.bar.limit if self.bar.upwards else value <= self.bar.limit


class Table:
    """Rows by protocol and generator, for means and paired comparisons."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self.generators = list(dict.fromkeys(r.generator for r in rows))

    def of(self, protocol: Protocol, generator: str, key: str, turn: str | None = None) -> Estimate:
        """Mean of a measure; `turn` limits it to a rotation bin."""
        rows = self._having(protocol, generator, key, turn)
        return mean([r.values[key] for r in rows.values()], [r.subject for r in rows.values()])

    def against(
        self, bar: Bar, generator: str, baseline: str = BASELINE, turn: str | None = None
    ) -> Estimate:
        """The bar's difference or ratio over the frames, runs or takes that both have."""
        return self.paired(bar.protocol, bar.key, generator, baseline, bar.kind, turn)

    def paired(
        self,
        protocol: Protocol,
        key: str,
        generator: str,
        baseline: str = BASELINE,
        kind: Kind = "difference",
        turn: str | None = None,
    ) -> Estimate:
        """A measure less the baseline's, or over it, over the frames, runs or takes that both have."""
        ours = self._having(protocol, generator, key, turn)
        theirs = self._having(protocol, baseline, key, turn)
        both = [k for k in ours if k in theirs]

        def values(of: Mapping[tuple[str, str, int], Row]) -> F64:
            return np.array([of[k].values[key] for k in both], np.float64)

        return compare(values(ours), values(theirs), [ours[k].subject for k in both], kind)

    def verdicts(self, generator: str, baseline: str = BASELINE) -> list[Verdict]:
        """Every bar for which there are values."""
        found = [Verdict(bar, self.against(bar, generator, baseline)) for bar in BARS]
        return [v for v in found if v.found.count]

    def verdicts_by_bin(self, generator: str, baseline: str = BASELINE) -> dict[str, list[Verdict]]:
        """Every bar in every rotation bin for which there are values."""
        out: dict[str, list[Verdict]] = {}
        for low, _ in (*BINS_DEG, (BINS_DEG[-1][1], np.inf)):
            name = bin_of(low)
            found = [Verdict(bar, self.against(bar, generator, baseline, name)) for bar in BARS]
            out[name] = [v for v in found if v.found.count]
        return {name: verdicts for name, verdicts in out.items() if verdicts}

    def both_ways(self, generator: str, key: str) -> tuple[Estimate, Estimate, Estimate]:
        """Forward, backward and the mean of the two, over the clips that have both; each clip counts once."""
        forward, backward = (self._by_take(protocol, generator, key) for protocol in _WAYS)
        both = [take for take in forward if take in backward]
        subjects = [forward[take][1] for take in both]
        f, b = (np.array([way[take][0] for take in both], np.float64) for way in (forward, backward))
        return mean(f, subjects), mean(b, subjects), mean((f + b) / 2, subjects)

    def _by_take(self, protocol: Protocol, generator: str, key: str) -> dict[str, tuple[float, str]]:
        """(mean, subject) of each take."""
        values: dict[str, list[float]] = {}
        subjects: dict[str, str] = {}
        for row in self._having(protocol, generator, key, None).values():
            values.setdefault(row.take, []).append(row.values[key])
            subjects[row.take] = row.subject
        return {take: (float(np.mean(v)), subjects[take]) for take, v in values.items()}

    def measured(self, protocol: Protocol) -> list[Measure]:
        """The measures of which this protocol has values."""
        keys = {
            key for r in self._rows if r.protocol == protocol for key, v in r.values.items() if np.isfinite(v)
        }
        return [m for m in MEASURES if m.key in keys]

    def _having(
        self, protocol: Protocol, generator: str, key: str, turn: str | None
    ) -> dict[tuple[str, str, int], Row]:
        return {
            (r.take, r.kind, r.frame): r
            for r in self._rows
            if r.protocol == protocol
            and r.generator == generator
            and key in r.values
            and np.isfinite(r.values[key])
            and (turn is None or r.bin == turn)
        }
