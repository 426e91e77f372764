"""The command line: one Typer app, one module for each command, which is imported when the command is needed."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from uploader_cli import __version__

COMMANDS = (
    "demo",
    "upload",
    "resume",
    "watch",
    "status",
    "cancel",
    "delete",
    "validate",
    "report",
    "doctor",
    "smoke",
    "serve",
    "config",
    "completion",
)
"""The commands in the order of the help. Each is a function in a module of this package, both of that name."""

_APPEARANCE: dict[str, Any] = {
    "rich_markup_mode": None,  # rich would cost --help 60 ms
    "pretty_exceptions_enable": False,  # __main__ is the one place that speaks of errors
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


class _Commands(Mapping[str, Any]):
    """The commands by name; each is imported at its first use."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        if name not in self._made:
            alone = typer.Typer(add_completion=False, **_APPEARANCE)
            alone.command()(getattr(import_module(f"uploader_cli.cli.{name}"), name))
            self._made[name] = get_command(alone)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Group(TyperGroup):
    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.commands = _Commands()  # type: ignore[assignment]  # nothing writes to it


app = typer.Typer(
    cls=_Group,
    name="uploader",
    help="Upload files in sessions, follow the server's progress, lose nothing when the connection drops.",
    epilog="No server at hand? `uploader demo` shows the whole thing.",
    no_args_is_help=True,
    **_APPEARANCE,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"uploader {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    pass
