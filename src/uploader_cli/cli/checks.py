"""The commands `doctor` and `smoke`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from uploader_cli import extras
from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError


def doctor(
    session: Annotated[str | None, opt.option("--session", "ID", "Check this session as well.")] = None,
    new_session: Annotated[bool, opt.option("--new-session", "", "Create, join and cancel a session.")] = False,
    new_upload: Annotated[bool, opt.option("--new-upload", "", "Create and delete an upload by tus.")] = False,
    **given: Any,
) -> int:
    """Diagnose the connection to the server and suggest fixes."""
    if session is not None and new_session:
        raise UsageError("--session and --new-session exclude each other", hint="omit one of them")
    settings = opt.load(given, ignored=opt.UPLOAD_URL)
    if settings.tus_endpoint and (session is not None or new_session):
        option = "--new-session" if new_session else "--session"
        raise UsageError(f"{option} and --tus-endpoint exclude each other", hint="a tus server has no sessions")
    asked = opt.valid_uuid(session, "--session") if session is not None else None
    from uploader_cli.checks import doctor as run

    return run.doctor(settings, session=asked, new_session=new_session, new_upload=new_upload)


def _checks(incomplete: str) -> list[tuple[str, str]]:
    run = extras.load("smoke")
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
    ] = 150,
    **given: Any,
) -> int:
    """Check an upload server or a tus server from outside, for CI.

    The checks upload a few small files and delete them again; deleting all of them needs a token (--token-file).
    """
    run = extras.load("smoke")
    if list_:
        return int(run.list_checks())
    settings = opt.load(given, ignored=opt.UPLOAD_URL)
    return int(run.smoke(settings, only=only or (), skip=skip or (), file=junit, strict=strict, budget=budget))
