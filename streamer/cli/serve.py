"""The command that serves the page and calls: `serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engines.errors import VisavisError
from streamer.cli.controls import with_controls
from streamer.cli.options import (
    AspectChoice,
    AspectName,
    BackgroundText,
    HeadModelSpec,
    PublishTokenFile,
    PublishUrl,
)
from streamer.cli.terminal import quiet_native
from streamer.places import avatar_file


@with_controls
def serve(
    avatar: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="An .avatar file to offer; may be repeated (default: a demo).",
            parser=avatar_file,
        ),
    ] = None,
    host: Annotated[str, typer.Option(envvar="VISAVIS_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(envvar="VISAVIS_PORT", min=0, max=65535, help="Port to listen on (0: any free one)."),
    ] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="VISAVIS_TOKEN", help="Secret that callers must present; needed beyond this computer."
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM) for https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    stun: Annotated[
        str,
        typer.Option(
            envvar="VISAVIS_STUN", metavar="URL", help="STUN server for callers elsewhere: stun:HOST:3478."
        ),
    ] = "",
    turn: Annotated[
        str,
        typer.Option(
            envvar="VISAVIS_TURN",
            metavar="URL",
            help="TURN servers, by commas: turn:HOST:3478; VISAVIS_TURN_SECRET, or …_USER and …_PASSWORD, let in.",
        ),
    ] = "",
    udp_ports: Annotated[
        str | None,
        typer.Option(
            envvar="VISAVIS_UDP_PORTS", metavar="FROM-TO", help="UDP ports that calls keep to: 50000-50100."
        ),
    ] = None,
    publish: PublishUrl = None,
    publish_token_file: PublishTokenFile = None,
    head_model: HeadModelSpec = None,
    background: BackgroundText = "keep",
    aspect: AspectName = AspectChoice.square,
    *,
    controls: dict[str, object],
) -> None:
    """Serve the page: open it in a browser, press "use my webcam", be the avatar.

    The options of the motion, the background and the shape say how calls start; the page changes them.

    Example: `visavis serve --avatar me.avatar` then open http://localhost:8000
    """
    from streamer.serve.config import read_settings
    from streamer.serve.listener import listen

    settings = read_settings(
        host=host, port=port, token=token, tls_cert=tls_cert, tls_key=tls_key, head_model=head_model,
        stun=stun, turn=turn, udp_ports=udp_ports, publish=publish, publish_token_file=publish_token_file,
    )  # fmt: skip
    if not settings.loopback and not token:
        raise VisavisError(
            f"{host} can be reached from other computers: give --token SECRET (and --tls-cert, --tls-key)"
        )
    if (tls_cert is None) != (tls_key is None):
        raise VisavisError("https needs both --tls-cert and --tls-key")
    # before the slow imports, so that a taken port is known at once
    listener = listen(settings.host, settings.port)
    with quiet_native():
        from streamer.look import Look, read_background, require_opaque
        from streamer.serve.start import serve_forever

        look = Look(read_background(background), aspect.value)
        require_opaque(look.background, "a video call")
        serve_forever(
            settings,
            [*(avatar or [])],
            listener,
            on_ready=lambda url: print(f"visavis is ready: {url}", flush=True),
            controls=controls,
            look=look,
        )


def add_serve_command(app: typer.Typer) -> None:
    """Add `serve` to `app`."""
    app.command()(serve)
