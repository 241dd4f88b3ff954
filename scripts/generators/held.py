"""`Held`: one item in memory as a blueprint wants it: small arrays, and pictures that are decoded when asked for."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from engines.generators.networked.blueprint import Blueprint
from engines.head.model import HeadModel
from engines.motion_descriptor import SCALE
from engines.raster.gbuffer import draw_ids
from scripts.generators.item import OF_FRAME, Item, Kind, decode_colour, decode_grey, decode_rgba, files
from scripts.generators.lessons import in_raster
from scripts.generators.moments import moment_rows
from scripts.people.recognition import five_points

Array = NDArray[Any]

Of = Literal["source", "target", "pair"]
Entries = dict[str, tuple[str, Of]]

# what each row of a batch holds: of the photo's frame, of the frame that drives, or of the pair
_ALWAYS: Entries = {
    **{
        name: (name, "source")
        for name in (
            "photo", "maps", "background", "own", "own_vertices", "own_motion", "crop", "sharpness",
        )
    },
    **{name: (name, "target") for name in ("truth", "points")},
    **{name: (name, "pair") for name in ("posed", "vertices", "motions")},
}  # fmt: skip
# for a generator that completes a base's picture
_OF_BASE: Entries = {name: (name, "pair") for name in ("picture", "where")}
# for one over whose warped photo lies what shows between lids and lips
_OF_OPENINGS: Entries = {"openings": ("openings", "pair")}
# for one that learns from the way back too: there the frame that drives is the photo
_OF_BACK: Entries = {
    **{f"back_{n}": (n, "target") for n in ("photo", "maps", "own", "own_vertices", "own_motion", "crop")},
    "back_motions": ("back_motions", "pair"),
}
RASTERS = ("own", "posed")


def entries_of(blueprint: Blueprint[Any]) -> Entries:
    """What each row of a batch holds for a blueprint: by its name there, the name in `Held`, and of what it is."""
    base = _OF_BASE if blueprint.base is not None else {}
    laid = _OF_OPENINGS if blueprint.laid else {}
    return _ALWAYS | base | laid | (_OF_BACK if blueprint.looks_back() else {})


class Held:
    """`small`: arrays by name, one row for each frame or pair; all else comes from `make`.

    `poor` (K,): whether the photo that was enrolled is a poorer one than the clip's frame. `size`: of the rasters.
    """

    def __init__(self, item: Item, model: HeadModel, blueprint: Blueprint[Any]) -> None:
        self.name, self.held_out, self.source, self.target = (
            item.name, item.held_out, item.source.astype(np.int64), item.target.astype(np.int64),
        )  # fmt: skip
        self._model, self.size = model, blueprint.raster_size()
        rows = moment_rows(item.motion_number, float(item.fps), item.row, blueprint.past, blueprint.ahead)
        motions = item.motion[item.source[:, None], rows[item.target]]
        frames = len(item.number)
        self.small: dict[str, Array] = {
            "own_vertices": item.own_vertices, "own_motion": item.own_motion, "crop": item.crop_px,
            "sharpness": np.full(frames, item.sharpness, np.float32),
            "points": np.stack([five_points(p) for p in item.landmarks_px]).astype(np.float32),
            "vertices": item.vertices, "motions": motions,
        }  # fmt: skip
        kinds: list[Kind] = [*OF_FRAME]
        if blueprint.looks_back():
            self.small["back_motions"] = item.motion[item.target[:, None], rows[item.source]]
        if blueprint.base is not None:
            self.small["where"] = item.where
            kinds.extend(("picture", "alpha"))
        if blueprint.laid:
            kinds.append("openings")
        self._files = {kind: files(item, kind) for kind in kinds}
        self.poor = np.array([bool(f) for f in self._files["degraded"]])
        self._scale = {"own": item.own_motion[:, SCALE], "posed": motions[:, blueprint.past, SCALE]}

    @property
    def pairs(self) -> int:
        return len(self.source)

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        small = sum(a.nbytes for a in self.small.values())
        return small + sum(len(f) for kind in self._files.values() for f in kind)

    def number(self, of: Of, pair: int) -> int:
        """Which of all frames, or of all pairs."""
        return pair if of == "pair" else int((self.source if of == "source" else self.target)[pair])

    def forget_files(self) -> None:
        """Once all is made."""
        self._files.clear()

    def make(self, name: str, number: int) -> Array:
        """An array of frame or pair `number`, from its files: pictures (512, 512, 4) uint8, `background` (256, 256, 3),
        `own` and `posed` (h, w) int16. Raises TrainingError."""
        if name in RASTERS:
            return self._raster(name, number)
        if name == "background":
            return decode_colour(self._files["background"][number])
        if name == "openings":
            return decode_rgba(self._files["openings"][number])
        colour, alpha = _PARTS[name]
        return _beside(decode_colour(self._files[colour][number]), decode_grey(self._files[alpha][number]))

    def corners(self, name: str, numbers: slice, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Of heads to rasterise: corners (n, N, 3) in pixels of the grid, (n,) pixels of a head unit there."""
        vertices = self.small["own_vertices" if name == "own" else "vertices"][numbers]
        crop = self.small["crop"][numbers if name == "own" else self.source[numbers]]
        placed = torch.from_numpy(crop).to(device)
        scale = torch.from_numpy(self._scale[name][numbers]).to(device) * self.size.height_px / placed[:, 2]
        return in_raster(torch.from_numpy(vertices).to(device), placed, self.size), scale

    def _raster(self, name: str, number: int) -> Array:
        points, scale = self.corners(name, slice(number, number + 1), torch.device("cpu"))
        size = self.size
        drawn, _ = draw_ids(self._model, points[0].numpy(), float(scale), size.width_px, size.height_px)
        return drawn.astype(np.int16)


_PARTS: dict[str, tuple[Kind, Kind]] = {
    "truth": ("rgb", "matte"),
    "photo": ("degraded", "matte"),
    "maps": ("colour", "visibility"),
    "picture": ("picture", "alpha"),
}


def _beside(colour: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> Array:
    out = np.empty((*alpha.shape, 4), np.uint8)
    cv2.mixChannels([colour, alpha], [out], [0, 0, 1, 1, 2, 2, 3, 3])
    return out
