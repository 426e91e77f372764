"""`uploader config`."""

import inspect
from pathlib import Path
from typing import Annotated, get_args

import typer

from uploader_cli.cli import options as opt
from uploader_cli.cli.candidates import among
from uploader_cli.cli.upload import upload
from uploader_cli.errors import UsageError
from uploader_cli.settings import OPTIONS, config_template, profiles, user_config_file

ACTIONS = ("show", "init", "path")


def config(
    action: Annotated[
        str,
        typer.Argument(
            metavar="[show|init|path]",
            help="show the settings in effect and where each comes from; init writes your config file with every "
            "setting commented out; path prints where that file is.",
            show_default=False,
            autocompletion=among(ACTIONS),
        ),
    ] = "show",
    force: Annotated[bool, typer.Option("--force", help="With init: replace the file that is there.")] = False,
    profile: opt.Profile = None,
    json: opt.Json = None,
) -> None:
    """Show the settings in effect and where each comes from, or begin a config file."""
    if action not in ACTIONS:
        raise UsageError(f"config: there is no {action!r}", hint=f"there are: {', '.join(ACTIONS)}")
    _check(action, {"--force": force, "--profile": profile is not None, "--json": json is not None})
    if action == "path":
        typer.echo(user_config_file())
        return
    from uploader_cli.run import config as run

    if action == "init":
        raise typer.Exit(run.init(user_config_file(), config_template(_hints()), force=force))
    asked = {"profile": profile, "json": json, "tus_endpoint": None}  # as it counts for an upload
    settings = opt.load(asked, need_server=False)
    raise typer.Exit(run.show(settings, user_config_file(), profiles(Path.cwd(), user_config_file())))


def _check(action: str, given: dict[str, bool]) -> None:
    belongs = {"--force": "init", "--profile": "show", "--json": "show"}
    for flag, used in given.items():
        if used and belongs[flag] != action:
            raise UsageError(f"config {action}: {flag} belongs to `config {belongs[flag]}`", hint="leave it out")


def _hints() -> dict[str, tuple[str, str]]:
    """For each setting what the help of `upload` says of it, and of its value."""
    found = {}
    for name, parameter in inspect.signature(upload).parameters.items():
        if name in OPTIONS:
            option = get_args(parameter.annotation)[1]
            found[name] = (option.help.partition(" [")[0], option.metavar or "")
    return found
