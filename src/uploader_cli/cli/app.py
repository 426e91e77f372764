"""The command line: one Typer app and one module per command, imported when the command is used."""

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.main import get_command

from uploader_cli import __version__
from uploader_cli.cli.options import FLAGS

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
"""The commands in the order of the help. Each is a function in a module of this package; both have that name."""

_APPEARANCE: dict[str, Any] = {
    "rich_markup_mode": None,  # rich would cost --help 60 ms
    "pretty_exceptions_enable": False,  # __main__ reports errors
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 1000},  # the terminal's width
}


class _Command(TyperCommand):
    """A command whose help lists the options by section."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of `options.FLAGS` after the arguments; options in no section are in the first one."""
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Arguments", *FLAGS)}
        for param in self.get_params(ctx):
            names, text = param.get_help_record(ctx) or ("", "")
            if names:
                title = "Arguments" if isinstance(param, TyperArgument) else getattr(param, "rich_help_panel", "")
                sections[title or "Options"].append((re.sub(r"--(\S+) / --no-\1$", r"--[no-]\1", names), text))
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class _Commands(Mapping[str, Any]):
    """The commands by name, each imported on first use."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        if name not in self._made:
            alone = typer.Typer(add_completion=False, **_APPEARANCE)
            alone.command(cls=_Command)(getattr(import_module(f"uploader_cli.cli.{name}"), name))
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
    help="Upload files and directories, follow the server's progress, and resume after interruptions.",
    add_completion=False,  # `uploader completion` is the one way to install it
    epilog="No server? `uploader demo` runs an upload against a bundled one.",
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
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
