"""Networks of rival systems, from the user's own checkout, with random weights: what a picture costs them.

Only what they run for every picture counts, without finding the face, cropping and pasting back; nothing of theirs is
kept here. What weights hold does not change how long they take.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engines.errors import VisavisError

Draw = Callable[[], None]

# src/config/models.yaml of github.com/KwaiVGI/LivePortrait
_KEYPOINTS = 21
_WARPING: Mapping[str, Any] = {
    "num_kp": _KEYPOINTS, "block_expansion": 64, "max_features": 512, "num_down_blocks": 2, "reshape_channel": 32,
    "estimate_occlusion_map": True,
    "dense_motion_params": {
        "block_expansion": 32, "max_features": 1024, "num_blocks": 5, "reshape_depth": 16, "compress": 4,
    },
}  # fmt: skip
_DECODER: Mapping[str, Any] = {
    "upscale": 2, "block_expansion": 64, "max_features": 512, "num_down_blocks": 2,
}  # fmt: skip
_PACKAGE = "src"  # as theirs is called


class RivalError(VisavisError):
    """A rival's networks cannot be had; the message names the fix."""


@contextmanager
def _imported_from(checkout: Path) -> Generator[None]:
    """Modules of `checkout` can be imported, and are forgotten afterwards: other checkouts call theirs the same."""
    sys.path.insert(0, str(checkout))
    try:
        yield
    finally:
        sys.path.remove(str(checkout))
        for name in [n for n in sys.modules if n.split(".")[0] == _PACKAGE]:
            del sys.modules[name]


def liveportrait(checkout: Path) -> Draw:
    """Motion extractor at 256², warping network and SPADE decoder to 512², one after the other, in float32.

    Raises RivalError where `checkout` does not hold them.
    """
    if not (checkout / "src" / "modules" / "warping_network.py").is_file():
        raise RivalError(
            f"{checkout} is no checkout of LivePortrait: it has no src/modules/warping_network.py"
        )
    with _imported_from(checkout):
        try:
            extractor = _named("motion_extractor", "MotionExtractor")(
                num_kp=_KEYPOINTS, backbone="convnextv2_tiny"
            )
            warping = _named("warping_network", "WarpingNetwork")(**_WARPING)
            decoder = _named("spade_generator", "SPADEDecoder")(**_DECODER)
        except (ImportError, AttributeError, TypeError) as error:
            raise RivalError(f"LivePortrait in {checkout} is of another version ({error})") from error
    for network in (extractor, warping, decoder):
        network.eval()
    random = torch.Generator().manual_seed(0)
    photo = torch.rand(1, 3, 256, 256, generator=random)
    volume = torch.rand(1, 32, 16, 64, 64, generator=random)  # f_s, taken once a photo
    points = torch.rand(1, _KEYPOINTS, 3, generator=random)

    def draw() -> None:
        with torch.inference_mode():
            told: dict[str, Tensor] = extractor(photo)
            moved = points + told["exp"].view(1, _KEYPOINTS, 3)
            warped: dict[str, Tensor] = warping(volume, kp_source=points, kp_driving=moved)
            decoder(warped["out"])

    return draw


def _named(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"{_PACKAGE}.modules.{module}"), name)


RIVALS: Mapping[str, Callable[[Path], Draw]] = {"liveportrait": liveportrait}
SIZES_PX: Mapping[str, int] = {"liveportrait": 512}
