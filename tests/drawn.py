"""An Item that geometry drew: a photo and frames of it in motion, with all that training looks up of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.generators.geometric.generator import GeometricGenerator
from engines.generators.networked.boxes import Window, where_in_photo
from engines.generators.networked.openings import Openings
from engines.head.model import load_head_model
from engines.motion import Motion
from engines.motion_descriptor import describe
from engines.picture.composite import make_background
from engines.raster.gbuffer import rasterise
from engines.raster.pose import head_viewport, photo_viewport, pose_head, pose_in_viewport
from engines.renderer import Renderer
from scripts.generators.item import Item, grey_png, joined, jpeg, rgba_png, rounded

U8 = NDArray[np.uint8]
MODEL = load_head_model()


def drawn_item(
    photo: Enrollment,
    motions: Sequence[Motion],
    name: str = "ada_01",
    *,
    held_out: bool = False,
    tint: float = 1.0,
) -> Item:
    """`photo` (512 × 512) drives nobody; each of `motions` drives it: pairs 0 → 1, 0 → 2, … and frames 25 a second.

    `tint` of the true frames: below 1 they are darker than geometry draws them.
    """
    assert photo.photo.shape == (512, 512, 3)
    renderer = Renderer(photo, generator="geometric", framing="photo")
    frames = [photo.photo, *(np.asarray(renderer.render(m) * tint, np.uint8) for m in motions)]
    generator, viewport = GeometricGenerator(MODEL), head_viewport(photo, 512)
    cache, window = generator.prepare(photo, viewport), Window.of(photo, viewport)
    openings = Openings.of(MODEL, photo, viewport)
    layers, laid, wheres = list[U8](), list[U8](), list[NDArray[np.float16]]()
    for motion in motions:
        gbuffer = rasterise(
            MODEL, pose_head(MODEL, photo, motion, viewport), viewport, generator.config.grid_px
        )
        drawn = generator.draw(cache, gbuffer, motion)
        layers.append(drawn.picture)
        laid.append(openings.picture(gbuffer.mesh, viewport, motion))
        wheres.append(where_in_photo(drawn.flow, gbuffer, window).astype(np.float16))
    whole, count = photo_viewport(photo), len(frames)
    own = [photo.motion, *motions]
    told = np.stack([describe(m, pose_in_viewport(photo, m, whole)) for m in own])
    heads = [pose_head(MODEL, photo, m, whole) for m in own]
    vertices = np.stack([rounded(head.vertices_px) for head in heads])
    background = jpeg(make_background(photo, head_viewport(photo, 256)))
    pictures = {
        **joined("rgb", [jpeg(f) for f in frames]), **joined("matte", [grey_png(photo.matte)] * count),
        **joined("colour", [jpeg(photo.uv_colour)] * count),
        **joined("visibility", [grey_png(photo.uv_visibility)] * count),
        **joined("background", [background] * count), **joined("degraded", [b""] * count),
        **joined("picture", [jpeg(p[..., :3]) for p in layers]),
        **joined("alpha", [grey_png(p[..., 3]) for p in layers]),
        **joined("openings", [rgba_png(p) for p in laid]),
    }  # fmt: skip
    return Item(
        name=name, subject=name, held_out=held_out, sharpness=1.0, head_model=MODEL.digest, clip="0" * 64, **pictures,
        crop_px=np.tile(np.array(photo.crop_px, np.float32), (count, 1)),
        neutral_hu=np.tile(photo.neutral_hu, (count, 1, 1)).astype(np.float32),
        identity=np.zeros((count, len(MODEL.identity_hu)), np.float32),
        landmarks_px=np.stack([head.landmarks_px for head in heads]).astype(np.float32),
        number=np.arange(count, dtype=np.int32),
        own_vertices=vertices, own_motion=told, fps=np.array(25, np.float32),
        motion=np.tile(told, (count, 1, 1)), motion_number=np.arange(count, dtype=np.int32),
        source=np.zeros(count - 1, np.int32), target=np.arange(1, count, dtype=np.int32),
        vertices=vertices[1:], where=np.stack(wheres),
    )  # fmt: skip
