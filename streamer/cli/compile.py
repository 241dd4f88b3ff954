"""The command that compiles networks ahead of time: `compile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engines.errors import SinkError, VisavisError
from engines.generators.names import DEFAULT_GENERATOR
from streamer.cli.options import GeneratorName
from streamer.cli.terminal import quiet_native, say_note, working
from streamer.places import avatar_file, output_file

if TYPE_CHECKING:
    from engines.compile.network import Network


def compile_networks(
    avatar: Annotated[
        Path | None,
        typer.Argument(
            help="An avatar, whose generator's networks are meant (default: all networks that have weights).",
            parser=avatar_file,
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(metavar="[tensorrt-rtx|openvino|onnx|triton]", help="What to compile with.")
    ] = "tensorrt-rtx",
    target: Annotated[
        str,
        typer.Option(
            metavar="sm89,sm120",
            help="Cards to build for, by compute capability (default: the one that is here).",
        ),
    ] = "",
    precision: Annotated[
        str | None,
        typer.Option(metavar="[fp32|fp16|bf16]", help="Numbers to compute in (default: what calls ask for)."),
    ] = None,
    any_batch: Annotated[
        bool, typer.Option("--any-batch", help="With onnx: for any number of calls at once.")
    ] = False,
    generator: GeneratorName = DEFAULT_GENERATOR,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Where files go (default: the cache that calls look into; of triton the model repository).",
            parser=output_file,
        ),
    ] = None,
) -> None:
    """Compile networks ahead of time, for this computer or for cards that are not here.

    Example: `visavis compile --engine tensorrt-rtx --target sm89,sm120 -o engines`, or for NVIDIA's Triton Inference
    Server `visavis compile --engine triton -o models`.
    """
    if precision not in (None, "fp32", "fp16", "bf16"):
        raise VisavisError(f"there is no precision {precision!r:.80}; choose one of: fp32, fp16, bf16")
    if any_batch and engine != "onnx":
        raise VisavisError(f"{engine} builds for one call; leave --any-batch out, or choose --engine onnx")
    targets = tuple(dict.fromkeys(name.strip() for name in target.split(",") if name.strip()))
    with working("compiling"), quiet_native():
        from engines.compile.ahead import build_ahead

        found = _networks(avatar, generator)
        try:
            for built in build_ahead(found, engine, targets, precision, output, any_batch=any_batch):
                took = f"{built.seconds:.1f} s" if built.seconds else "was there"
                print(f"{built.path}\t{built.network}\t{built.target}\t{built.byte_count} bytes\t{took}")
        except OSError as error:
            where = output or "the cache"
            raise SinkError(
                f"{where} cannot be written ({error.strerror or error}); choose another with -o"
            ) from error
    if output is not None and engine not in ("onnx", "triton"):
        say_note(
            "calls look into ~/.cache/visavis/engines (XDG_CACHE_HOME moves it): copy the files there, on the computer "
            "that they are for"
        )


def _networks(avatar: Path | None, generator: str) -> list[Network]:
    """Those that draw `avatar`, or all that have weights. Raises VisavisError where there are none."""
    from engines.enrollment import head_model_of, load_enrollment
    from engines.generators.names import generators_with_weights
    from engines.generators.networked.base import NetworkedGenerator
    from engines.generators.open import open_generator
    from engines.networks import networks_of, owners

    if avatar is None:
        able = {*generators_with_weights(), "regressor", "speech"}
        return [network for owner in owners() if owner in able for network in networks_of(owner)]
    drawing = open_generator(generator, head_model_of(load_enrollment(avatar)))
    if not isinstance(drawing, NetworkedGenerator):
        raise VisavisError(f"{generator} has no networks; choose another with --generator")
    return list(drawing.compiled)


def add_compile_command(app: typer.Typer) -> None:
    """Add it to the command line."""
    app.command(name="compile")(compile_networks)
