"""`uploader smoke`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from uploader_cli.cli import options as opt
from uploader_cli.cli.candidates import smoke_checks


@opt.with_options(f"profile server category json quiet verbose {opt.REQUESTS}")
def smoke(
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="ID|GLOB",
            help="Run only these checks; repeatable.",
            show_default=False,
            autocompletion=smoke_checks,
        ),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            "--skip",
            metavar="ID|GLOB",
            help="Skip these checks; repeatable.",
            show_default=False,
            autocompletion=smoke_checks,
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the checks and exit. Needs no server.")] = False,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit report to FILE.", show_default=False)
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail on warnings and on checks that are not required, too.")
    ] = False,
    budget: Annotated[
        int, typer.Option("--budget", metavar="N", min=1, help="Maximum calls to /api, including the clean-up.")
    ] = 100,
    **given: Any,
) -> None:
    """Check an upload server with black-box tests, for CI: a verdict per check and an exit code.

    The checks upload a few small files and delete them again; deleting all of them needs a token (--token-file).
    """
    from uploader_cli.run import checks as run

    if list_:
        run.smoke_list()
        return
    settings = opt.load(given)
    code = run.smoke(settings, only=only or (), skip=skip or (), file=junit, strict=strict, budget=budget)
    raise typer.Exit(code)
