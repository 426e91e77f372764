"""The commands `config` and `completion`."""

from typing import Annotated, Any

import typer

from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError
from uploader_cli.exit_status import Exit
from uploader_cli.settings import config_template, profiles, user_config_file, working_directory

SHELLS = ("bash", "zsh", "fish", "powershell")
ACTIONS = ("show", "init", "path")


@opt.with_options("profile json")
def config(
    action: Annotated[
        str,
        opt.argument(
            "[show|init|path]",
            "show the effective settings and their sources; init writes a config file with every setting "
            "commented out; path prints the path of the config file.",
            autocompletion=opt.among(ACTIONS),
        ),
    ] = "show",
    force: Annotated[bool, opt.option("--force", "", "With init: overwrite the existing file.")] = False,
    **given: Any,
) -> int:
    """Show the effective settings, or create a config file."""
    if action not in ACTIONS:
        raise UsageError(f"config: unknown action {action!r}", hint=f"use {', '.join(ACTIONS)}")
    used = {"--force": force, "--profile": given["profile"] is not None, "--json": given["json"] is not None}
    for flag, belongs in {"--force": "init", "--profile": "show", "--json": "show"}.items():
        if used[flag] and action != belongs:
            raise UsageError(f"config {action}: {flag} is only for `config {belongs}`", hint="omit it")
    own = user_config_file()
    if own is None:
        raise UsageError("this user has no home directory", hint="set HOME")
    if action == "path":
        typer.echo(own)
        return Exit.OK
    from uploader_cli.run import config as run

    if action == "init":
        return run.init(own, config_template(opt.hints()), force=force)
    settings = opt.load({**given, "tus_endpoint": None, "upload_url": None}, need_server=False)  # as in an upload
    return run.show(settings, own, profiles(working_directory(), own))


def completion(
    shell: Annotated[str, opt.argument("|".join(SHELLS), "The shell.", autocompletion=opt.among(SHELLS))],
) -> int:
    """Print the shell script for completion."""
    if shell not in SHELLS:
        raise UsageError(f"completion: unknown shell {shell!r}", hint=f"use {', '.join(SHELLS)}")
    from typer.completion import get_completion_script  # type: ignore[attr-defined] # re-exported

    typer.echo(get_completion_script(prog_name="uploader", complete_var="_UPLOADER_COMPLETE", shell=shell))
    return Exit.OK
