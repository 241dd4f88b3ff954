"""The commands about avatars that are kept on this computer: `avatars`, and with it rename, delete and keep."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from engines.errors import VisavisError
from streamer.cli.terminal import quiet_native, say_note
from streamer.kept import SUFFIX, KeptAvatars, shown_folder
from streamer.places import input_file

KeptName = Annotated[str, typer.Argument(metavar="NAME", help="As `visavis avatars` lists it.")]

avatars = typer.Typer(
    name="avatars",
    invoke_without_command=True,
    rich_markup_mode="markdown",
    help="""List, keep, rename and delete the avatars that are kept on this computer.

    Example: `visavis avatars`, then `visavis run NAME --to virtualcam` with one of the names.
    """,
)


@avatars.callback()
def list_kept(context: typer.Context) -> None:
    """Print their names, one a line; the folder goes to the terminal only."""
    if context.invoked_subcommand is not None:
        return
    kept = KeptAvatars()
    files = kept.files()
    for file in files:
        print(file.stem)
    if not files:
        say_note(
            f"no avatar is kept in {shown_folder(kept.folder)}; keep one on the page, or with `visavis avatars keep`"
        )
    elif sys.stdout.isatty():
        print(f"in {shown_folder(kept.folder)}")


@avatars.command()
def keep(
    file: Annotated[Path, typer.Argument(help="An .avatar file.", parser=input_file)],
    name: Annotated[str | None, typer.Option(help="What to call it (default: as the file).")] = None,
) -> None:
    """Keep a copy of an avatar file, to be had by its name from then on.

    Example: `visavis avatars keep me.avatar --name ada`
    """
    with quiet_native():
        from engines.enrollment import avatar_bytes, load_enrollment, renamed

        enrollment = load_enrollment(file)
        called = name or file.stem
        kept = KeptAvatars().keep(called, avatar_bytes(renamed(enrollment, called)))
    print(kept.stem)


@avatars.command()
def rename(name: KeptName, new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")]) -> None:
    """Give a kept avatar another name.

    Example: `visavis avatars rename ada countess`
    """
    print(KeptAvatars().rename(name, new).stem)


@avatars.command()
def delete(name: KeptName, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete a kept avatar, with the photo in it.

    Example: `visavis avatars delete ada`
    """
    kept = KeptAvatars()
    file = kept.get(name)
    if not yes:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise VisavisError(f"{file.stem} is deleted for good; say --yes where nobody can be asked")
        typer.confirm(f"Delete {file.stem} and the photo in it for good?", abort=True)
    kept.delete(file.stem)
    print(f"deleted {file.stem}{SUFFIX}; a server that is running has it until it ends")


def add_avatar_commands(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(avatars)
