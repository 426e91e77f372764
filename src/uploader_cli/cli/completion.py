"""`uploader completion`."""

from typing import Annotated

import typer

from uploader_cli.cli.candidates import among
from uploader_cli.errors import UsageError

SHELLS = ("bash", "zsh", "fish", "powershell")


def enable() -> None:
    """Make the program answer the shell's questions, which come in environment variables."""
    from typer.completion import completion_init  # type: ignore[attr-defined] # re-exported

    completion_init()


def completion(
    shell: Annotated[
        str,
        typer.Argument(metavar="|".join(SHELLS), help="The shell.", show_default=False, autocompletion=among(SHELLS)),
    ],
) -> None:
    """Print the shell script that completes commands, options and values."""
    if shell not in SHELLS:
        raise UsageError(f"completion: unknown shell {shell!r}", hint=f"use {', '.join(SHELLS)}")
    from typer.completion import get_completion_script  # type: ignore[attr-defined] # re-exported

    typer.echo(get_completion_script(prog_name="uploader", complete_var="_UPLOADER_COMPLETE", shell=shell))
