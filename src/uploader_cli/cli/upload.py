"""`uploader upload`."""

from typing import Annotated, Any

import typer

from uploader_cli.cli import options as opt


def _print_schema(wanted: bool) -> None:
    if wanted:
        from uploader_cli.render import ndjson

        typer.echo(ndjson.schema_text())
        raise typer.Exit


@opt.with_options(opt.ALL)
def upload(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH...]", help="Files and directories.", show_default=False)
    ] = None,
    json_schema: Annotated[  # noqa: ARG001 - its callback acts
        bool,
        typer.Option(
            "--json-schema",
            callback=_print_schema,
            is_eager=True,
            help="Print the JSON Schema of --json and exit.",
            rich_help_panel="Output",
        ),
    ] = False,
    **given: Any,
) -> None:
    """Upload files and directories."""
    settings = opt.load(given)
    if settings.dry_run:
        from uploader_cli.run.dry_run import dry_run as command
    else:
        from uploader_cli.run.commands import upload_command as command
    raise typer.Exit(command(settings, paths or []))
