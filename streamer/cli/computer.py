"""The commands that look at this computer: `doctor` and `devices`."""

from __future__ import annotations

from typing import Annotated

import typer

from streamer.cli.terminal import quiet_native


def doctor(json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check what this computer has, and print the one command that fixes what it lacks.

    Example: `visavis doctor`
    """
    with quiet_native():
        from streamer.check.doctor import diagnose, render_text, to_json

        checks = diagnose()
    print(to_json(checks) if json_output else render_text(checks))


def devices() -> None:
    """List cameras, microphones, speakers and virtual cameras.

    Example: `visavis devices`
    """
    with quiet_native():
        from streamer.check.devices import list_devices

        found = list_devices()
    print(found.render())


def add_computer_commands(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (doctor, devices):
        app.command()(command)
