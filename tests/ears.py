"""Where a picture shows ears: ironed flat under hair, their texels are drawn out, places between them less exact."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from calibration.hair import ear_box
from engines.head.model import load_head_model
from engines.raster.conditioning import lookup_map
from engines.raster.gbuffer import draw_in_uv


@lru_cache(maxsize=1)
def _drawn() -> NDArray[np.float32]:
    model = load_head_model()
    return draw_in_uv(model, np.repeat(ear_box(model)[:, None].astype(np.float32), 3, 1), 512)[..., 0]


def on_ears(uv: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(…) whether texture coordinates (…, 2) lie on ears or beside them."""
    return np.asarray(lookup_map(_drawn(), uv) > 0.01)
