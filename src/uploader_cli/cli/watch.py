"""`uploader watch`."""

from typing import Annotated, Any

import typer

from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError
from uploader_cli.settings import Invalid
from uploader_cli.settings.values import seconds


@opt.with_options(
    f"profile server json progress max_wait stall warn_latency warn_error_rate {opt.OUTPUT} {opt.REQUESTS}"
)
def watch(
    sessions: Annotated[list[str], typer.Argument(metavar="SESSION...", help="Session IDs.", show_default=False)],
    wait: Annotated[
        str, typer.Option("--wait", metavar="S", help="Seconds to wait until the server knows the sessions.")
    ] = "30",
    **given: Any,
) -> None:
    """Follow sessions of other uploaders until they end."""
    settings = opt.load(given)
    wanted = tuple(dict.fromkeys(opt.valid_uuid(session, "SESSION") for session in sessions))
    try:
        patience = seconds(zero=True)(wait)
    except Invalid as error:
        raise UsageError(f"--wait: {error}") from None
    from uploader_cli.run import watch as run

    raise typer.Exit(run.watch_command(settings, wanted, patience))
