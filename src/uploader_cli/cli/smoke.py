"""`uploader smoke`."""

from pathlib import Path
from typing import Annotated

import typer

from uploader_cli.cli import options as opt
from uploader_cli.cli.candidates import smoke_checks


def smoke(
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="ID|GLOB",
            help="Make only these checks; repeatable.",
            show_default=False,
            autocompletion=smoke_checks,
        ),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            "--skip",
            metavar="ID|GLOB",
            help="Leave these checks out; repeatable.",
            show_default=False,
            autocompletion=smoke_checks,
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the checks, and end. Needs no server.")] = False,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit report to FILE.", show_default=False)
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Warnings and checks that are not required count as well.")
    ] = False,
    budget: Annotated[
        int, typer.Option("--budget", metavar="N", min=1, help="Calls to /api at most, the clean-up included.")
    ] = 100,
    profile: opt.Profile = None,
    server: opt.Server = None,
    category: opt.Category = None,
    json: opt.Json = None,
    quiet: opt.Quiet = None,
    verbose: opt.Verbose = 0,
    token_file: opt.TokenFile = None,
    token_command: opt.TokenCommand = None,
    header: opt.Header = None,
    ca_bundle: opt.CaBundle = None,
    client_cert: opt.ClientCert = None,
    insecure: opt.Insecure = None,
    proxy: opt.Proxy = None,
) -> None:
    """Check an upload server from outside, for CI: a verdict for each promise it makes, and an exit code.

    The checks upload a few small files and remove them again; with --token-file (a token for `delete`) all of them.
    """
    given = dict(locals())
    from uploader_cli.run import smoke as run

    if list_:
        run.smoke_list()
        return
    settings = opt.load(given)
    code = run.smoke(settings, only=only or (), skip=skip or (), file=junit, strict=strict, budget=budget)
    raise typer.Exit(code)
