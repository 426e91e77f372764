"""The commands `upload`, `resume` and `runs`."""

from typing import Annotated, Any

import typer

from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError


def _print_schema(wanted: bool) -> None:
    if wanted:
        from uploader_cli.render import event_schema

        typer.echo(event_schema.schema_text())
        raise typer.Exit


_SCHEMA = opt.option(
    "--json-schema",
    "",
    "Print the JSON Schema of --json and exit.",
    callback=_print_schema,
    is_eager=True,
    rich_help_panel="Output",
)


def upload(
    paths: Annotated[
        list[str] | None, opt.argument("[PATH...]", "Files, directories or their URLs; - is stdin.")
    ] = None,
    json_schema: Annotated[bool, _SCHEMA] = False,  # noqa: ARG001 - its callback acts
    **given: Any,
) -> int:
    """Upload files and directories."""
    settings = opt.load(given, ignored=opt.of_others("upload"))
    paths = opt.require_paths("upload", settings, paths)
    from uploader_cli.run.commands import upload_command

    return upload_command(settings, paths)


def resume(
    run_id: Annotated[
        str | None,
        opt.argument(
            "[RUN]",
            "Run ID or its first characters. [default: the newest; a terminal asks]",
            autocompletion=opt.complete_runs,
        ),
    ] = None,
    list_: Annotated[bool, opt.option("--list", "", "List the stored runs and how they ended, and exit.")] = False,
    forget: Annotated[
        str | None,
        opt.option(
            "--forget",
            "RUN",
            "Delete the stored run and exit; it can't be resumed then.",
            autocompletion=opt.complete_runs,
        ),
    ] = None,
    **given: Any,
) -> int:
    """Resume an interrupted upload. Options given here replace its own."""
    things = {"RUN": run_id, "--list": list_ or None, "--forget": forget}
    asked = [name for name, value in things.items() if value is not None]
    if len(asked) > 1:
        raise UsageError(f"{asked[0]} and {asked[1]} exclude each other", hint="omit one of them")
    if "" in (run_id, forget):
        raise UsageError(f"{asked[0]}: '' is not an ID", hint="list the runs with: uploader resume --list")
    if list_ or forget is not None:
        from uploader_cli.run import runs as stored

        return stored.show(given) if forget is None else stored.forget(forget, given)
    from uploader_cli.run import commands

    return commands.resume_command(run_id, given)


def runs(**given: Any) -> int:
    """List the stored runs and how they ended, as `resume --list`."""
    from uploader_cli.run import runs as stored

    return stored.show(given)
