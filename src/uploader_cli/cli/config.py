"""`uploader config`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from uploader_cli.cli import options as opt
from uploader_cli.cli.candidates import among
from uploader_cli.errors import UsageError
from uploader_cli.settings import config_template, profiles, user_config_file

ACTIONS = ("show", "init", "path")


@opt.with_options("profile json")
def config(
    action: Annotated[
        str,
        typer.Argument(
            metavar="[show|init|path]",
            help="show the effective settings and their sources; init writes a config file with every setting "
            "commented out; path prints the path of the config file.",
            show_default=False,
            autocompletion=among(ACTIONS),
        ),
    ] = "show",
    force: Annotated[bool, typer.Option("--force", help="With init: overwrite the existing file.")] = False,
    **given: Any,
) -> None:
    """Show the effective settings and their sources, or create a config file."""
    if action not in ACTIONS:
        raise UsageError(f"config: unknown action {action!r}", hint=f"use {', '.join(ACTIONS)}")
    _check(action, {"--force": force, "--profile": given["profile"] is not None, "--json": given["json"] is not None})
    if action == "path":
        typer.echo(user_config_file())
        return
    from uploader_cli.run import config as run

    if action == "init":
        raise typer.Exit(run.init(user_config_file(), config_template(opt.hints()), force=force))
    asked = {**given, "tus_endpoint": None}  # as in an upload
    settings = opt.load(asked, need_server=False)
    raise typer.Exit(run.show(settings, user_config_file(), profiles(Path.cwd(), user_config_file())))


def _check(action: str, given: dict[str, bool]) -> None:
    belongs = {"--force": "init", "--profile": "show", "--json": "show"}
    for flag, used in given.items():
        if used and belongs[flag] != action:
            raise UsageError(f"config {action}: {flag} is only for `config {belongs[flag]}`", hint="omit it")
