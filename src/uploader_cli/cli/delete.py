"""`uploader delete`."""

from typing import Annotated

import typer

from uploader_cli.cli import options as opt


def delete(
    file_id: Annotated[str, typer.Argument(metavar="FILE_ID", help="File ID.", show_default=False)],
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
    """Delete a stored file. The server requires a token."""
    settings, file_id = opt.load(locals()), opt.valid_uuid(file_id, "FILE_ID")
    from uploader_cli.run import rest_commands

    raise typer.Exit(rest_commands.delete(settings, file_id))
