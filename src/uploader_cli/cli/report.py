"""`uploader report`."""

from typing import Annotated, Any

import typer

from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError


@opt.with_options("json quiet")
def report(
    action: Annotated[
        str, opt.argument("merge", "merge: combine several reports.", autocompletion=opt.among(["merge"]))
    ],
    files: Annotated[list[str], opt.argument("FILE...", "JSON reports.")],
    reports: Annotated[
        list[str] | None,
        typer.Option(
            "--report", "-o", metavar="FILE", help="Write the combined report: .json, .csv, .xml or .md; repeatable."
        ),
    ] = None,
    failed_to: Annotated[
        str | None, opt.option("--failed-to", "FILE", "Write a list of the files to upload again.")
    ] = None,
    **given: Any,
) -> None:
    """Combine the reports of several runs or shards: each file once, and which are missing."""
    if action != "merge":
        raise UsageError(f"report: unknown action {action!r}", hint="use merge")
    settings = opt.load(given, need_server=False)
    from uploader_cli.run.report_merge import report_merge

    raise typer.Exit(report_merge(files, reports or [], failed_to, json=settings.json, quiet=settings.quiet))
