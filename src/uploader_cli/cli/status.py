"""`uploader status`."""

from typing import Annotated, Any

import typer

from uploader_cli.cli import options as opt


@opt.with_options(f"profile server json {opt.OUTPUT} {opt.REQUESTS}")
def status(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Session ID.", show_default=False)],
    **given: Any,
) -> None:
    """Show the status of a session."""
    settings, session = opt.load(given), opt.valid_uuid(session, "SESSION")
    from uploader_cli.run import rest_commands

    raise typer.Exit(rest_commands.status(settings, session))
