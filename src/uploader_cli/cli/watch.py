"""`uploader watch`."""

from typing import Annotated

import typer

from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError
from uploader_cli.settings import Invalid
from uploader_cli.settings.values import seconds


def watch(
    sessions: Annotated[list[str], typer.Argument(metavar="SESSION...", help="Session IDs.", show_default=False)],
    wait: Annotated[
        str, typer.Option("--wait", metavar="S", help="Seconds to wait until the server knows the sessions.")
    ] = "30",
    profile: opt.Profile = None,
    server: opt.Server = None,
    json: opt.Json = None,
    progress: opt.Progress = None,
    max_wait: opt.MaxWait = None,
    stall: opt.Stall = None,
    warn_latency: opt.WarnLatency = None,
    warn_error_rate: opt.WarnErrorRate = None,
    quiet: opt.Quiet = None,
    verbose: opt.Verbose = 0,
    log_file: opt.LogFile = None,
    log_level: opt.LogLevel = None,
    token_file: opt.TokenFile = None,
    token_command: opt.TokenCommand = None,
    header: opt.Header = None,
    ca_bundle: opt.CaBundle = None,
    client_cert: opt.ClientCert = None,
    insecure: opt.Insecure = None,
    proxy: opt.Proxy = None,
) -> None:
    """Follow sessions of other uploaders until they end."""
    settings = opt.load(locals())
    wanted = tuple(dict.fromkeys(opt.valid_uuid(session, "SESSION") for session in sessions))
    try:
        patience = seconds(zero=True)(wait)
    except Invalid as error:
        raise UsageError(f"--wait: {error}") from None
    from uploader_cli.run import watch as run

    raise typer.Exit(run.watch_command(settings, wanted, patience))
