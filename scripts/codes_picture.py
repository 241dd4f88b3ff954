"""Draw what codes the networks of `pwm` have learned for the head's places, from the front and from behind.

    python -m scripts.codes_picture -o codes.png [--weights my.safetensors]

As figure 2 of paper 002 (Progressive Warping): t-SNE makes three numbers of each code, which are its colour, so that
similar colours are similar codes. Needs scikit-learn (`pip install "visavis[eval]"`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # also when run as a file

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import KDTree
from torch import Tensor

from engines.errors import VisavisError, WeightsError
from engines.generators.networked.blueprint import load_networks
from engines.generators.networked.surface import HeadTables, Seen, Surface
from engines.generators.pwm.blueprint import PwmBlueprint
from engines.generators.pwm.networks import PwmNetworks
from engines.head.model import HeadModel, Part, load_head_model
from engines.raster.gbuffer import draw_ids

_EMBEDDED = (
    1500  # codes that t-SNE is given: it takes minutes for all; each other has the colour of the nearest
)
_PERPLEXITY = 30.0
_MIDDLE = (2.0, 98.0)  # percent of the vertices whose colours are told apart
_FILL = 0.45  # of the picture's height: half the head's


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights", type=Path, default=PwmBlueprint.weights_path(), help="default: what ships"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("codes.png"))
    parser.add_argument("--size", type=int, default=512, help="height in pixels")
    arguments = parser.parse_args()
    try:
        picture = codes_picture(codes_of(arguments.weights), load_head_model(), arguments.size)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(arguments.output)
    except (VisavisError, OSError) as error:
        print(f"codes_picture: {error}", file=sys.stderr)
        sys.exit(1)
    print(arguments.output)


def codes_of(weights: Path) -> Tensor:
    """(N, d) of a weights file. Raises WeightsError, also for networks that were trained without codes."""
    _, networks, _ = load_networks(PwmBlueprint, weights)
    assert isinstance(networks, PwmNetworks)
    if networks.codes is None:
        raise WeightsError(f"{weights} was trained without codes; give weights that have some with --weights")
    return networks.codes.detach()


def colours_of(codes: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N, d) → (N, 3) 0 … 1 by t-SNE; the same for the same codes. Raises VisavisError without scikit-learn."""
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise VisavisError('scikit-learn is missing; type: pip install "visavis[eval]"') from error
    chosen = codes[np.linspace(0, len(codes) - 1, min(len(codes), _EMBEDDED)).astype(np.int64)]
    perplexity = min(_PERPLEXITY, (len(chosen) - 1) / 3)
    embedded = TSNE(3, perplexity=perplexity, init="pca", random_state=0).fit_transform(chosen)
    along = embedded[KDTree(chosen).query(codes)[1]]
    low, high = np.percentile(along, _MIDDLE, axis=0)
    return ((along - low) / np.maximum(high - low, 1e-9)).clip(0, 1).astype(np.float32)


def codes_picture(codes: Tensor, model: HeadModel, size_px: int) -> NDArray[np.uint8]:
    """(size, 2 · size, 3): the mean head from the front and from behind, on white."""
    tables = HeadTables.of(model)
    # what lies at one place has one code; the others were never learned
    head = np.unique(model.weld[model.triangles[model.part != Part.BODY]])
    colours = torch.zeros(model.vertex_count, 3)
    colours[head] = torch.from_numpy(colours_of(codes.numpy()[head]))
    places = model.mean_hu - (model.mean_hu[head].min(0) + model.mean_hu[head].max(0)) / 2
    scale = _FILL * size_px / float(abs(places[head, 1]).max())
    views: list[NDArray[np.float32]] = []
    for side in (1, -1):
        points = (places * np.array([side, 1, side], np.float32) * scale).astype(np.float32)
        points[:, :2] += size_px / 2
        triangle, _ = draw_ids(
            model, points, scale, size_px, size_px, np.flatnonzero(model.part != Part.BODY)
        )
        seen = Seen(Surface(torch.from_numpy(triangle)[None], torch.from_numpy(points)[None]), tables)
        drawn = seen.mix(colours[tables.weld[seen.corner]]) + 1 - seen.covered
        views.append(drawn[0].permute(1, 2, 0).numpy())
    return np.rint(255 * np.concatenate(views, 1).clip(0, 1)).astype(np.uint8)


if __name__ == "__main__":
    main()
