"""The command `smoke`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from uploader_cli.cli import options as opt


def _checks(incomplete: str) -> list[tuple[str, str]]:
    from uploader_cli.features.smoke import runner as run

    return opt.described((check.id, check.description) for check in (*run.CHECKS, *run.ON_REQUEST))(incomplete)


def smoke(
    only: Annotated[
        list[str] | None,
        opt.option("--only", "ID|GLOB", "Run only these checks; repeatable.", autocompletion=_checks),
    ] = None,
    skip: Annotated[
        list[str] | None, opt.option("--skip", "ID|GLOB", "Skip these checks; repeatable.", autocompletion=_checks)
    ] = None,
    list_: Annotated[bool, opt.option("--list", "", "Print the checks and exit. Needs no server.")] = False,
    junit: Annotated[Path | None, opt.option("--junit", "FILE", "Write a JUnit report to FILE.")] = None,
    strict: Annotated[
        bool, opt.option("--strict", "", "Fail on warnings and on checks that are not required, too.")
    ] = False,
    budget: Annotated[
        int, typer.Option("--budget", metavar="N", min=1, help="Maximum calls to /api, including the clean-up.")
    ] = 250,
    **given: Any,
) -> int:
    """Check an upload server or a tus server from outside, for CI.

    The checks upload a few small files and delete them again; deleting all of them needs a token (--token-file).
    """
    from uploader_cli.features.smoke import runner as run

    if list_:
        return run.list_checks()
    settings = opt.load(given, ignored=("upload_url",))
    return run.smoke(settings, only=only or (), skip=skip or (), file=junit, strict=strict, budget=budget)
