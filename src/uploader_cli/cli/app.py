"""The command line: one Typer app, one module for each command."""

from importlib.metadata import version
from typing import Annotated

import typer

from uploader_cli.cli.cancel import cancel
from uploader_cli.cli.completion import completion
from uploader_cli.cli.config import config
from uploader_cli.cli.delete import delete
from uploader_cli.cli.demo import demo
from uploader_cli.cli.doctor import doctor
from uploader_cli.cli.report import report
from uploader_cli.cli.resume import resume
from uploader_cli.cli.serve import serve
from uploader_cli.cli.smoke import smoke
from uploader_cli.cli.status import status
from uploader_cli.cli.upload import upload
from uploader_cli.cli.validate import validate
from uploader_cli.cli.watch import watch

app = typer.Typer(
    name="uploader",
    help="Upload files in sessions, follow the server's progress, lose nothing when the connection drops.",
    epilog="No server at hand? `uploader demo` shows the whole thing.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich would cost --help 60 ms
    pretty_exceptions_enable=False,  # __main__ is the one place that speaks of errors
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _command in (
    demo,
    upload,
    resume,
    watch,
    status,
    cancel,
    delete,
    validate,
    report,
    doctor,
    smoke,
    serve,
    config,
    completion,
):
    app.command()(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"uploader {version('uploader-cli')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    pass
