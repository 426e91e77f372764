"""`uploader doctor`."""

from typing import Annotated

import typer

from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError


def doctor(
    session: Annotated[
        str | None, typer.Option("--session", metavar="ID", help="Check this session as well.", show_default=False)
    ] = None,
    new_session: Annotated[bool, typer.Option("--new-session", help="Create, join and cancel a session.")] = False,
    profile: opt.Profile = None,
    server: opt.Server = None,
    category: opt.Category = None,
    max_wait: opt.MaxWait = None,
    state_dir: opt.StateDir = None,
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
    """Diagnose the connection to the server step by step and suggest fixes."""
    if session is not None and new_session:
        raise UsageError("--session and --new-session exclude each other", hint="omit one of them")
    settings = opt.load(locals())
    asked = opt.valid_uuid(session, "--session") if session is not None else None
    from uploader_cli.run import doctor as run

    raise typer.Exit(run.doctor(settings, session=asked, new_session=new_session))
