"""`uploader validate`."""

from typing import Annotated

import typer

from uploader_cli.cli import options as opt


def validate(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files and directories.", show_default=False)],
    profile: opt.Profile = None,
    server: opt.Server = None,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    follow_links: opt.FollowLinks = None,
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
    """Check with the server whether it would accept these files, without sending them."""
    settings = opt.load(locals())
    from uploader_cli.run import rest_commands

    raise typer.Exit(rest_commands.validate(settings, paths))
