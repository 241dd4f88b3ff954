"""The command that tells a running avatar what to do: `tell`."""

from __future__ import annotations

from typing import Annotated

import typer

from engines.errors import VisavisError, no_such
from streamer.commands import COMMANDS


def _command(name: str) -> str:
    if name not in COMMANDS:
        raise VisavisError(no_such("command", name, COMMANDS))
    return name


def tell_run(
    command: Annotated[
        str,
        typer.Argument(
            metavar=f"[{'|'.join(COMMANDS)}]",
            help="; ".join(f"{name}: {what}" for name, what in COMMANDS.items()) + ".",
            callback=_command,
        ),
    ],
) -> None:
    """Tell a running `visavis run` to recalibrate, freeze, hide … Bind it to keys in your desktop's keyboard settings.

    Example: `visavis tell freeze`
    """
    from streamer.tell import tell

    print(tell(command))


def add_tell_command(app: typer.Typer) -> None:
    """Add `tell` to `app`."""
    app.command("tell")(tell_run)
