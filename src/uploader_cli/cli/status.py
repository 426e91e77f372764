"""`uploader status`."""

from typing import Annotated

import typer

from uploader_cli.cli import options as opt


def status(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Session ID.", show_default=False)],
    profile: opt.Profile = None,
    server: opt.Server = None,
    json: opt.Json = None,
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
    """Show the status of a session."""
    settings, session = opt.load(locals()), opt.valid_uuid(session, "SESSION")
    from uploader_cli.run import rest_commands

    raise typer.Exit(rest_commands.status(settings, session))
