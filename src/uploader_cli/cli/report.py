"""`uploader report`."""

from typing import Annotated, Any

import typer

from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError


def report(
    action: Annotated[
        str,
        opt.argument(
            "merge|show",
            "merge: combine several reports; show: draw one in the terminal.",
            autocompletion=opt.among(["merge", "show"]),
        ),
    ],
    files: Annotated[list[str], opt.argument("FILE...", "JSON reports.")],
    reports: Annotated[
        list[str] | None,
        typer.Option(
            "--report",
            "-o",
            metavar="FILE",
            help="Write the report: .json, .csv, .xml, .md, .html or .sha256; repeatable.",
        ),
    ] = None,
    failed_to: Annotated[
        str | None, opt.option("--failed-to", "FILE", "Write a list of the files to upload again.")
    ] = None,
    **given: Any,
) -> int:
    """Combine the reports of several runs or shards, or draw one."""
    settings = opt.load(given, need_server=False)
    from uploader_cli.report import report_commands as run

    if action == "merge":
        return run.merge(files, reports or [], failed_to, json=settings.json, quiet=settings.quiet)
    if action != "show":
        raise UsageError(f"report: unknown action {action!r}", hint="use merge or show")
    if len(files) > 1:
        raise UsageError("report show takes one report", hint="combine several with: uploader report merge")
    if settings.json:
        raise UsageError("report show writes no JSON", hint="omit --json: the report is JSON itself")
    return run.show(files[0], reports or [], failed_to, quiet=settings.quiet)
