"""`uploader doctor`."""

from typing import Annotated, Any

import typer

from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError


@opt.with_options(f"profile server category max_wait state_dir json quiet verbose {opt.REQUESTS}")
def doctor(
    session: Annotated[
        str | None, typer.Option("--session", metavar="ID", help="Check this session as well.", show_default=False)
    ] = None,
    new_session: Annotated[bool, typer.Option("--new-session", help="Create, join and cancel a session.")] = False,
    **given: Any,
) -> None:
    """Diagnose the connection to the server step by step and suggest fixes."""
    if session is not None and new_session:
        raise UsageError("--session and --new-session exclude each other", hint="omit one of them")
    settings = opt.load(given)
    asked = opt.valid_uuid(session, "--session") if session is not None else None
    from uploader_cli.run import checks as run

    raise typer.Exit(run.doctor(settings, session=asked, new_session=new_session))
