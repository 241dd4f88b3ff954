"""A tiny Item: every field filled, no face in it; and rows of no items at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.head.model import load_head_model
from scripts.generators.item import OF_FRAME, OF_PAIR, Item, grey_png, joined, jpeg, rgba_png


@dataclass(frozen=True)
class FewRows:
    """Rows (n, 2) of nobody."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]

    def name_of(self, item: int) -> str:
        return f"nobody_{item}"


_SIDE_PX = {"background": 256}


def tiny_item(
    name: str = "ada_01",
    *,
    subject: str = "ada",
    held_out: bool = False,
    frames: int = 3,
    moments: int = 5,
    seed: int = 0,
    vertices: int | None = None,
    **changed: Any,
) -> Item:
    """K `frames`, T `moments`, all ordered pairs of the frames; noise that fits the shapes.

    `vertices`: of the mesh, all of our head model's by default. `changed`: fields to replace.
    """
    rng = np.random.default_rng(seed)
    model = load_head_model()
    count = model.vertex_count if vertices is None else vertices
    source, target = (
        np.array(x, np.int32)
        for x in zip(*[(a, b) for a in range(frames) for b in range(frames) if a != b], strict=True)
    )
    numbers = np.sort(rng.choice(moments, frames, replace=False)).astype(np.int32)

    def picture(side: int, grey: bool) -> bytes:
        small = rng.integers(0, 255, (8, 8) if grey else (8, 8, 3), dtype=np.uint8)
        image = np.kron(
            small, np.ones((side // 8, side // 8) if grey else (side // 8, side // 8, 1), np.uint8)
        )
        return grey_png(image) if grey else jpeg(image)

    def between_lips() -> bytes:
        image = np.zeros((512, 512, 4), np.uint8)
        image[300:340, 220:290] = (90, 40, 40, 255)
        return rgba_png(image)

    pictures: dict[str, NDArray[np.generic]] = {}
    for kind in (*OF_FRAME, *OF_PAIR):
        many = len(source) if kind in OF_PAIR else frames
        grey = kind in ("matte", "visibility", "alpha")
        made = [picture(_SIDE_PX.get(kind, 512), grey) for _ in range(many)]
        if kind == "openings":
            made = [between_lips() for _ in range(many)]
        if kind == "degraded":  # the second photo alone is a poor one
            made = [data if k == 1 else b"" for k, data in enumerate(made)]
        pictures |= joined(kind, made)

    def motion(*shape: int) -> NDArray[np.float32]:
        out = rng.uniform(0, 0.6, (*shape, 65)).astype(np.float32)
        out[..., 59:62] = rng.normal(0, 0.2, (*shape, 3))
        out[..., 62] = rng.uniform(90, 110, shape)
        out[..., 63:] = rng.uniform(230, 280, (*shape, 2))
        return out

    def mesh(many: int) -> NDArray[np.int16]:
        shape = np.resize(model.mean_hu, (count, 3)) * 100 + (256, 256, 0)
        return np.rint((shape + rng.normal(0, 2, (many, 1, 3))) * 32).astype(np.int16)

    values: dict[str, Any] = {
        "name": name, "subject": subject, "held_out": held_out, "sharpness": 1.0,
        "head_model": model.digest, "clip": f"{seed:064x}", **pictures,
        "crop_px": np.tile(np.array([30, 20, 450], np.float32), (frames, 1)),
        "neutral_hu": np.resize(model.mean_hu, (frames, count, 3)).astype(np.float32),
        "identity": rng.normal(0, 1, (frames, len(model.identity_hu))).astype(np.float32),
        "landmarks_px": rng.uniform(100, 400, (frames, 478, 3)).astype(np.float32),
        "number": numbers, "own_vertices": mesh(frames), "own_motion": motion(frames),
        "fps": np.array(25, np.float32), "motion": motion(frames, moments),
        "motion_number": np.arange(moments, dtype=np.int32),
        "source": source, "target": target, "vertices": mesh(len(source)),
        "where": rng.uniform(-1, 1, (len(source), 32, 32, 2)).astype(np.float16),
    }  # fmt: skip
    return Item(**(values | changed))
