"""Calls of people who never were, for drawings on a device; needs torch and NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from engines.device.drawing import Drawing, State, packed_frame
from engines.device.geometric import draw_geometric
from engines.device.packet import Field, Told
from engines.device.sampling import packed
from engines.device.sizes import Grids, Head, Person, Sizes, body_grid, grids
from engines.generators.geometric.limits import CAVITY, LOWER_TEETH, TONGUE, UPPER_TEETH

U8 = NDArray[np.uint8]
_SIDE = 20  # vertices of the bulge along each axis
_MAP = 32
NONE, SKIN, EYE, MOUTH = range(4)


def smooth(random: torch.Generator, channels: int, height: int, width: int) -> Tensor:
    """(1, C, h, w) 0 … 1: clouds."""
    return F.interpolate(torch.rand(1, channels, 8, 8, generator=random), (height, width), mode="bilinear")


def pixels(random: torch.Generator, height: int, width: int) -> Tensor:
    """(1, h · w) int32 of clouds, four bytes each."""
    cloud = (smooth(random, 4, height, width) * 255).round().to(torch.uint8)
    return packed(cloud.permute(0, 2, 3, 1))


def bulge() -> tuple[Tensor, Tensor, Tensor]:
    """(vertices (N, 3) −1 … 1, triangles (T, 3) that face the camera, places (N, 2) 0 … 1 in the atlas)."""
    y, x = np.mgrid[0:_SIDE, 0:_SIDE] / (_SIDE - 1) * 2 - 1
    z = -np.sqrt(np.clip(1.6 - x**2 - y**2, 0.01, None))
    vertices = np.stack([x * np.sqrt(1 - y**2 / 2), y * np.sqrt(1 - x**2 / 2), z], -1).reshape(-1, 3)
    at = np.arange(_SIDE * _SIDE).reshape(_SIDE, _SIDE)
    a, b, c, d = at[:-1, :-1], at[:-1, 1:], at[1:, :-1], at[1:, 1:]
    triangles = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, c, b), (b, c, d))])
    places = (np.stack([x, y], -1).reshape(-1, 2) + 1) / 2
    return torch.from_numpy(vertices).float(), torch.from_numpy(triangles), torch.from_numpy(places).float()


def toy_head() -> Head:
    """A bulge with two eyes and a mouth, behind which there is an inside."""
    vertices, triangles, places = bulge()
    middle = vertices[triangles].mean(1)
    part = torch.full((len(triangles),), SKIN)
    part[(middle[:, 1].abs() < 0.15) & ((middle[:, 0].abs() - 0.4).abs() < 0.15)] = EYE
    lips = (middle[:, 1] - 0.45).abs() < 0.15
    part[lips & (middle[:, 0].abs() < 0.3)] = MOUTH
    tables = torch.zeros(256, 6)
    for k, kind in enumerate((SKIN, EYE, MOUTH)):
        tables[kind, k] = 1
    inner = triangles[(middle[:, :2] - torch.tensor([0.0, 0.45])).abs().amax(1) < 0.4]
    codes = torch.tensor([CAVITY, TONGUE, UPPER_TEETH, LOWER_TEETH])
    flags = torch.zeros(3, len(vertices), 1)
    flags[0, ::3], flags[1, 2::3], flags[2, 1::3] = 1, 1, 1
    return Head(
        triangles, places[triangles], part, (part == MOUTH).float() * 0.3,
        torch.tensor([0.0, 1, 1, 0] + [0.0] * 252), torch.tensor([1.0, 1, 0, 0] + [1.0] * 252), tables,
        inner, places[inner], codes[torch.arange(len(inner)) % 4], *flags,
    )  # fmt: skip


def toy_person(sizes: Sizes, seed: int) -> Person:
    """Clouds for a photo."""
    random = torch.Generator().manual_seed(seed)
    rows, columns = sizes.canvas
    margin = sizes.margin_px
    place = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, _MAP)] * 2, indexing="xy"))[None]
    side = torch.tensor([sizes.width_px, sizes.height_px])[:, None, None]
    seen, apart = (smooth(random, 1, _MAP, _MAP) > least for least in (0.4, 0.6))
    mouth = sizes.own_mouth_px
    return Person(
        canvas=pixels(random, rows, columns),
        source=torch.cat(
            [
                (0.15 + 0.7 * place) * side + margin + 2 * smooth(random, 2, _MAP, _MAP),
                seen.float(),
                apart.float(),
            ],
            1,
        ),
        colour=pixels(random, _MAP, _MAP),
        chosen=torch.ones(1, len(toy_head().triangles), dtype=torch.bool),
        follow=smooth(random, 1, *body_grid(sizes)),
        head=(smooth(random, 1, sizes.rows, sizes.columns) > 0.5).float(),
        plates=smooth(random, 6, sizes.plate_px, sizes.plate_px).unflatten(1, (2, 3)) * 255,
        lids=smooth(random, 6, sizes.plate_px, sizes.plate_px).unflatten(1, (2, 3)) * 255,
        lash_rgb=torch.rand(1, 2, 3, generator=random) * 80,
        cavity_rgb=torch.rand(1, 3, generator=random) * 90,
        tongue_rgb=torch.rand(1, 3, generator=random) * 200,
        seam_rgb=torch.rand(1, 3, generator=random) * 200,
        teeth=smooth(random, 6, 16, 48).unflatten(1, (2, 3)) * 255,
        own_mouth=smooth(random, 4, mouth, mouth) * 120,
        folds=pixels(random, rows // 2, columns),
    )


def draw(head: Head, at: Grids, person: Person, told: Told) -> tuple[Tensor, Tensor]:
    """The geometric picture."""
    drawn = draw_geometric(head, person, told, at)
    return drawn.picture, drawn.full


def toy_drawing(
    seed: int = 0,
    size: int = 64,
    *,
    transparent: bool = False,
    device: str = "cpu",
    more: Sequence[Field] = (),
) -> Drawing:
    """A call of somebody."""
    sizes, head = Sizes(size, size), toy_head()
    there = head.to(torch.device(device))
    random = torch.Generator().manual_seed(seed + 1000)
    at = grids(sizes, torch.device(device))
    background = (smooth(random, 3, size, size) * 255).to(torch.uint8)
    fields = (*sizes.fields(len(head.upper)), *more)
    key = "toy", size, transparent, device
    return Drawing(
        key, lambda person, told: draw(there, at, person, told), State(toy_person(sizes, seed), background),
        fields, transparent,
    )  # fmt: skip


def toy_frame(drawing: Drawing, seed: int = 0) -> U8:
    """A frame of it: the bulge turned, its eyes and its mouth half open."""
    random = np.random.default_rng(seed)
    size = drawing.shape[0]
    vertices, _, _ = bulge()
    angle = random.uniform(-0.5, 0.5)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    points = vertices.numpy() @ turn.T * (0.35 * size) + [size / 2, size / 2, 0]
    values: dict[str, NDArray[np.generic]] = {}
    for field in drawing.fields:
        shape = field.shape
        if field.bytes:
            values[field.name] = random.integers(0, 256, shape).astype(np.uint8)
        else:
            values[field.name] = random.uniform(-0.1, 0.1, shape)
    eye, mouth = Sizes(size, size).eye_px, Sizes(size, size).mouth_px
    corner = np.array([[0.25, 0.4], [0.6, 0.4]]) * size // 1
    values |= {
        "vertices": points, "scale": np.array([0.35 * size]), "turned": np.array([1.0 if seed % 2 else 0.0]),
        "plane": np.array([[1, 0.02, 1.5], [0.01, 1, -0.5]]),
        "lid_corner": corner, "lid_box": np.concatenate([corner, corner + eye - 2], 1), "eye_corner": corner,
        "eye_box": np.concatenate([corner, corner + eye - 3], 1),
        "mouth_corner": np.array([size // 3, size // 2]),
        "mouth_box": np.array([size // 3, size // 2, size // 3 + mouth - 3, size // 2 + mouth - 4]),
        "mouth_numbers": np.array([0.2, -0.3 * size, 0.4, 0.7, 0.8, size / 3, size / 3 + mouth, 0.35 * size]),
        "mouth_affine": np.array([[1.1, 0.1, 0.5], [-0.1, 1.2, 0.7]]),
    }  # fmt: skip
    reach = Sizes(size, size).thread_px
    values["thread"] = np.where(np.abs(np.arange(-reach, reach + 1)) < 2, 1, -1)
    values["eye_affine"] = values["lid_affine"] = np.broadcast_to([[1.1, 0.1, 1.0], [0, 1.2, 1.5]], (2, 2, 3))
    if "crops" in values:  # of a generator that paints mouth and eyes by networks
        third = size // 3
        values["crops"] = np.array(
            [[place, place, 1, 0, 0, 1, third, 1] for place in (third, third + 9, 2 * third)]
        )
        values["crop_corner"] = np.full((3, 2), size // 8)
        values["crop_box"] = np.array([[size // 8] * 2 + [size // 8 + third] * 2] * 3)
    return packed_frame(drawing.layout(), values)
