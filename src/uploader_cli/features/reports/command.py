"""`uploader report`."""

from typing import Annotated, Any

import typer

from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError
from uploader_cli.feature import features
from uploader_cli.settings.spelling import lacking

_ACTIONS = {action.name: (feature, action) for feature in features() for action in feature.actions}
"""Those that features add."""


def report(
    action: Annotated[
        str,
        opt.argument(
            "|".join((*_ACTIONS, "show")),
            "".join(f"{name}: {action.text}; " for name, (_, action) in _ACTIONS.items())
            + "show: draw one in the terminal.",
            autocompletion=opt.among([*_ACTIONS, "show"]),
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
    """Read the JSON reports of runs."""
    settings = opt.load(given, need_server=False)
    if action in _ACTIONS:
        feature, own = _ACTIONS[action]
        run = feature.load(own.function)
        return int(run(files, reports or [], failed_to, json=settings.json, quiet=settings.quiet))
    if action != "show":
        hint = lacking(action, of="action") or f"use {' or '.join((*_ACTIONS, 'show'))}"
        raise UsageError(f"report: unknown action {action!r}", hint=hint)
    if len(files) > 1:
        raise UsageError("report show takes one report", hint="name one of them")
    from uploader_cli.features.reports.show import show

    if settings.json:
        raise UsageError("report show writes no JSON", hint="omit --json: the report is JSON itself")
    return show(files[0], reports or [], failed_to, quiet=settings.quiet)
