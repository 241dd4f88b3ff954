"""Calls to measure on a GPU, and OpenCV's pictures of their frames: written where visavis is installed.

python -m scripts.benchmarks.gpu_calls me.avatar -o calls.pt
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from engines.compile.torch_engine import TorchEngine
from engines.compile.weights import WeightsHeader, arrays_of, save_weights
from engines.device.drawing import Draw, Drawing, State, packed_frame
from engines.device.enrolled import head_of
from engines.device.packet import Told
from engines.device.sizes import Head, grids
from engines.device.telling_window import inputs_of
from engines.device.twins import Prepared, twin_of
from engines.device.visavis import VisavisNets, VisavisPerson, VisavisSizes, draw_visavis
from engines.device.window import WindowPerson, WindowSizes, draw_window
from engines.enrollment import Enrollment, head_model_of, load_enrollment
from engines.errors import VisavisError, WeightsError
from engines.generators.generator import Generator
from engines.generators.geometric.generator import GeometricGenerator
from engines.generators.networked.base import NetworkedGenerator
from engines.generators.networked.blueprint import Blueprint
from engines.generators.networked.discriminators import folded
from engines.generators.networked.window import WindowGenerator
from engines.generators.registry import GENERATORS
from engines.generators.visavis.generator import VisavisGenerator
from engines.head.model import HeadModel, load_head_model
from engines.motion import Motion
from engines.motion_window import MotionHistory, MotionWindow
from engines.picture.composite import composite
from engines.raster.gbuffer import rasterise, rasterise_triangles, seen_triangles
from engines.raster.pose import head_viewport, pose_head
from engines.renderer import range_of_motion
from engines.retarget import Controls, retarget
from scripts.benchmarks.gpu import Call
from streamer.drive.demo import demo_track, looped

U8 = NDArray[np.uint8]
SIZES_PX = (256, 512)
FRAMES = 12
_GREY = 127


def call_of(e: Enrollment, name: str, size_px: int, frames: int = FRAMES) -> Call:
    """One generator's frames of one person in the head's square. Raises VisavisError."""
    model = head_model_of(e)
    generator = _opened(name, model)
    viewport = head_viewport(e, size_px)
    ranged = [pose_head(model, e, m, viewport) for m in range_of_motion(e.motion)]
    box: Prepared[Any] = Prepared(
        generator.prepare(e, viewport), viewport, viewport, generator.window(e, viewport),
        seen_triangles(model, ranged, viewport),
    )  # fmt: skip
    generator.wait_until_compiled(60)
    twin = twin_of(generator, model, box, torch.device("cpu"))
    if twin is None:
        raise VisavisError(f"{name} has no twin that draws on a GPU")
    background = np.full((size_px, size_px, 3), _GREY, np.uint8)
    state = State(twin.person(), torch.from_numpy(background.transpose(2, 0, 1).copy())[None])
    fields = tuple(twin.fields())
    layout = Drawing("", twin.draw(), state, fields, False).layout()
    history = MotionHistory(generator.config.past, generator.config.ahead)
    sent: list[U8] = []
    wanted: list[U8] = []
    spent_ms: list[float] = []
    for motion in _motions(e, frames):
        motions = history.window(motion)
        begin = time.perf_counter()
        mesh = pose_head(model, e, motion, viewport)
        sent.append(packed_frame(layout, twin.tell(mesh, motions)))
        spent_ms.append(1e3 * (time.perf_counter() - begin))
        wanted.append(composite(_drawn(generator, box, e, motions, model), background))
    return Call(
        name, size_px, twin.sizes, state, fields, sent, wanted, head_of(model), _networks(generator),
        float(np.median(spent_ms)),
    )  # fmt: skip


def _motions(e: Enrollment, count: int) -> list[Motion]:
    rest = demo_track().neutral or Motion()
    return [retarget(looped(demo_track(), k * 0.37), rest, e.motion, Controls()) for k in range(count)]


def _drawn(
    generator: Generator[Any], box: Prepared[Any], e: Enrollment, motions: MotionWindow, model: HeadModel
) -> U8:
    mesh = pose_head(model, e, motions.now, box.viewport)
    if box.window is None:
        gbuffer = rasterise(model, mesh, box.viewport, generator.config.grid_px, box.triangles)
    else:
        gbuffer = rasterise_triangles(model, mesh.seen_in(box.there, box.window), box.window, box.triangles)
    return generator.render(box.cache, gbuffer, motions)


def _opened(name: str, model: HeadModel) -> Generator[Any]:
    """With torch, so that what is compared is the drawing; with weights by chance where none ship."""
    entry = GENERATORS[name]
    if entry.blueprint is None:
        return GeometricGenerator(model)
    if name == "visavis":
        return VisavisGenerator(model, engines=[TorchEngine()])
    blueprint = entry.blueprint()
    try:
        return WindowGenerator(blueprint, model, engines=[TorchEngine()])
    except WeightsError:
        made = blueprint()
        torch.manual_seed(0)
        networks = folded(made.networks())
        for values in networks.parameters():
            if not bool(values.any()):  # what says nothing before it has learned would compare nothing
                nn.init.normal_(values, std=0.02)
        header = WeightsHeader(blueprint.kind.name, blueprint.kind.version, made.config_dict(), "MIT")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.safetensors"
            save_weights(path, arrays_of(networks, np.float32), header)
            return WindowGenerator(blueprint, model, weights=path, engines=[TorchEngine()])


def _networks(generator: Generator[Any]) -> bytes:
    if not isinstance(generator, NetworkedGenerator):
        return b""
    out = io.BytesIO()
    torch.save((generator.blueprint, generator.nets), out)
    return out.getvalue()


def draw_with_networks(call: Call, head: Head, device: torch.device) -> Draw:
    """How a call's frames are drawn, its networks on the device."""
    blueprint: Blueprint[Any]
    nets: nn.Module
    blueprint, nets = torch.load(io.BytesIO(call.networks), map_location="cpu", weights_only=False)
    served = {s.name: s.module.to(device) for s in blueprint.served(nets)}
    if isinstance(call.sizes, VisavisSizes):
        visavis_sizes = call.sizes
        at = grids(visavis_sizes.base, device)
        both = VisavisNets(served["head"], served["paths"], blueprint.without)

        def draw_both(person: VisavisPerson, told: Told) -> tuple[torch.Tensor, torch.Tensor]:
            return draw_visavis(head, both, person, told, visavis_sizes, at)

        return draw_both
    sizes: WindowSizes = call.sizes
    inputs = inputs_of(blueprint, nets, load_head_model(), device)

    def draw(person: WindowPerson, told: Told) -> tuple[torch.Tensor, torch.Tensor]:
        return draw_window(head.triangles, head.behind, inputs, served["window"], person, told, sizes)

    return draw


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0."""
    parser = argparse.ArgumentParser(description="write calls to measure on a GPU")
    parser.add_argument("avatar", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES_PX)
    parser.add_argument("--generators", nargs="+", choices=list(GENERATORS), default=list(GENERATORS))
    parser.add_argument("--frames", type=int, default=FRAMES)
    asked = parser.parse_args(arguments)
    e = load_enrollment(asked.avatar)
    calls = [call_of(e, name, size, asked.frames) for name in asked.generators for size in asked.sizes]
    torch.save(calls, asked.output)
    print(f"{len(calls)} calls, {asked.output.stat().st_size / 2**20:.1f} MiB: {asked.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
