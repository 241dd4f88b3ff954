"""`ABLATIONS`: what each paper leaves out, or what we leave out of it, and what it printed of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scripts.evaluation.published import MULTIPLE, PROGRESSIVE, THESIS
from scripts.evaluation.variants import DRIVER_IDENTITY

# a figure of a paper → ours; the thesis' pictures are segmented, so ours of the person only
PLAIN: Mapping[str, str] = {
    "L1": "l1", "PSNR": "psnr", "SSIM": "ssim", "LPIPS": "lpips", "CSIM": "csim_faceres", "AKD": "akd",
    "AED": "aed", "APD": "apd",
}  # fmt: skip
SEGMENTED: Mapping[str, str] = {"PSNR": "seg_psnr", "SSIM": "seg_ssim", "LPIPS": "seg_lpips"}


@dataclass(frozen=True, slots=True)
class Arm:
    """One network: `without` these parts, compared with the arm `against`; `printed`: what its paper calls it."""

    name: str
    without: tuple[str, ...] = ()
    against: str | None = None
    printed: str | None = None


@dataclass(frozen=True, slots=True)
class Ablation:
    """The arms of one generator, each trained alike.

    `paper`, `tables`: where what is printed stands; `figures`: how its figures are called here. `at_test_time`: arms
    that learn nothing of their own, by name: the arm whose weights they have, and the evaluation's variant of it.
    """

    generator: str
    title: str
    arms: tuple[Arm, ...]
    paper: str | None = None
    tables: tuple[str, ...] = ()
    figures: Mapping[str, str] = field(default_factory=lambda: dict(PLAIN))
    at_test_time: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])

    def compared(self) -> dict[str, str]:
        """Arm → arm that it is compared with, of all arms."""
        found = {arm.name: arm.against for arm in self.arms if arm.against is not None}
        return found | {name: of for name, (of, _) in self.at_test_time.items()}


_SYNTHESIS, _OCCLUSION, _FLOW = "synthesis_guidance", "occlusion_guidance", "flow_guidance"
_ADDED = ("mapping", "conditioning", "mouth", "residual")


def _but(*kept: str) -> tuple[str, ...]:
    return tuple(part for part in _ADDED if part not in kept)


ABLATIONS: Mapping[str, Ablation] = {
    "000": Ablation(
        "ifaceuv",
        "IFaceUV: refinement, consistency, window of motions (the paper prints no ablation)",
        (
            Arm("all"),
            Arm("no-refinement", ("refinement",), "all"),
            Arm("no-consistency", ("consistency",), "all"),
            Arm("one-moment", ("window",), "all"),
        ),
    ),
    "001": Ablation(
        "multiguidance",
        "Multiple guidance: table 3, and by how far the head is turned",
        (
            Arm("base", (_FLOW, _OCCLUSION, _SYNTHESIS), None, "base: flow and occlusion predicted by the network"),
            Arm("+FG", (_OCCLUSION, _SYNTHESIS), "base", "base + computed flow (FG)"),
            Arm("+OG", (_SYNTHESIS,), "+FG", "base + FG + computed occlusion (OG)"),
            Arm("+SG", (), "+OG", "base + FG + OG + rendered image (SG)"),
        ),
        MULTIPLE,
        ("table 3",),
    ),
    "002": Ablation(
        "pwm",
        "Progressive warping: what guides (table 1), a head or a face (its BFM rows), five levels or one (§ 4.5)",
        (
            Arm("nmfc", ("displacement", "codes"), None, "PWM + NMFC"),
            Arm("displacement", ("codes",), "nmfc", "PWM + geom. disp."),
            Arm("codes", ("displacement",), "nmfc", "PWM + neural codes"),
            Arm("both", (), "nmfc", "PWM + geom. disp. + neural codes"),
            Arm("face-only", ("whole_head",), "both", "PWM + geom. disp. + neural codes (BFM)"),
            Arm("nmfc-one-level", ("displacement", "codes", "progressive"), "nmfc"),
        ),
        PROGRESSIVE,
        ("table 1",),
    ),
    "003": Ablation(
        "pncc",
        "One-shot reenactment: table 6.2, the default plus one each; and all of them, which the thesis does not print",
        (
            Arm("default", _ADDED, None, "default"),
            Arm("no-perceptual", ("perceptual", *_ADDED), "default", "default without perceptual loss"),
            Arm("+mapping", _but("mapping"), "default", "default + 3DMM parameters injected"),
            Arm("+conditioning", _but("conditioning"), "default", "default + PNCC conditioning"),
            Arm("+mouth", _but("mouth"), "default", "default + mouth discriminator"),
            Arm("+residual", _but("residual"), "default", "default + residual connections"),
            Arm("all", (), "default"),
        ),
        THESIS,
        ("table 6.2",),
        SEGMENTED,
    ),
    "004": Ablation(
        "idmatch",
        "Identity-matched correspondence: correspondence, skips, the rebuilt PNCC (the abstract prints none)",
        (
            Arm("all"),
            Arm("no-correspondence", ("correspondence",), "all"),
            Arm("no-skips", ("skips",), "all"),
        ),
        at_test_time={"driver-identity": ("all", DRIVER_IDENTITY)},
    ),
}  # fmt: skip
