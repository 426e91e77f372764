"""`uploader serve`."""

from typing import Annotated

import typer

from uploader_cli import signals
from uploader_cli.cli.candidates import among
from uploader_cli.cli.server_extra import need_server_extra

_REALTIME = "off, hang, refuse, flap:SECONDS or kill-after:SECONDS"


def _option(flag: str, metavar: str, help: str, *names: str) -> object:  # noqa: A002 - typer's name
    return typer.Option(flag, metavar=metavar, help=help, show_default=False, autocompletion=among(names))


def serve(
    host: Annotated[str | None, _option("--host", "ADDRESS", "Listen on ADDRESS. [default: 127.0.0.1]")] = None,
    port: Annotated[str | None, _option("--port", "N", "Port; 0 selects a free one. [default: 8005]")] = None,
    root: Annotated[
        str | None, _option("--root", "DIR", "Store files in DIR. [default: a temporary directory]")
    ] = None,
    durability: Annotated[
        str | None,
        _option(
            "--durability",
            "KIND",
            "fsync (confirmed data survives a power failure) or none. [default: fsync with --root]",
            "fsync",
            "none",
        ),
    ] = None,
    flavour: Annotated[
        str | None,
        _option("--as", "KIND", "bundled, or reference with its quirks. [default: bundled]", "bundled", "reference"),
    ] = None,
    max_files: Annotated[str | None, _option("--max-files", "N", "Maximum files in one session.")] = None,
    max_size: Annotated[str | None, _option("--max-size", "SIZE", "Maximum file size, as 300M or 8MB.")] = None,
    types: Annotated[str | None, _option("--types", "LIST", "Allowed types, as mp4,avi. [default: any]")] = None,
    rate_limit: Annotated[
        str | None, _option("--rate-limit", "N", "Maximum requests in 15 minutes; 0: no limit.")
    ] = None,
    session_ttl: Annotated[
        str | None, _option("--session-ttl", "S", "Seconds until an unused session expires.")
    ] = None,
    no_tus: Annotated[bool, typer.Option("--no-tus", help="Disable resumable uploads (tus 1.0).")] = False,
    no_packs: Annotated[bool, typer.Option("--no-packs", help="Disable packs of small files and the lookup.")] = False,
    no_anonymous_tus: Annotated[
        bool, typer.Option("--no-anonymous-tus", help="Accept tus uploads only within sessions.")
    ] = False,
    upload_ttl: Annotated[
        str | None, _option("--upload-ttl", "S", "Seconds until an idle, unfinished tus upload expires.")
    ] = None,
    fault: Annotated[
        list[str] | None, _option("--fault", "RULE", "Inject a fault, as status:patch#2:503; repeatable.")
    ] = None,
    list_faults: Annotated[
        bool, typer.Option("--list-faults", help="Print all faults with examples and exit.")
    ] = False,
    fault_control: Annotated[
        bool, typer.Option("--fault-control", help="Let tests change the faults at /faults (loopback only).")
    ] = False,
    realtime: Annotated[str | None, _option("--realtime", "HOW", f"Break Socket.IO: {_REALTIME}.")] = None,
    websocket: Annotated[
        str | None, _option("--websocket", "HOW", "The same for the websocket transport only.")
    ] = None,
    latency: Annotated[str | None, _option("--latency", "MS", "Delay every response by MS milliseconds.")] = None,
    processing: Annotated[
        str | None, _option("--processing", "S", "Seconds of processing for each file after its last byte.")
    ] = None,
    fail_file: Annotated[
        list[str] | None, _option("--fail-file", "GLOB", "Fail files with matching names; repeatable.")
    ] = None,
    analysis_seconds: Annotated[
        str | None, _option("--analysis-seconds", "S", "Duration of an analysis in seconds. [default: 3]")
    ] = None,
    analysis: Annotated[
        str | None,
        _option("--analysis", "HOW", "Break analyses: silent, hang, fail:STAGE or refuse:STAGE, separated by commas."),
    ] = None,
    jwt_secret_file: Annotated[
        str | None, _option("--jwt-secret-file", "FILE", "Secret for signing tokens. [default: random]")
    ] = None,
    auth_token_file: Annotated[
        str | None, _option("--auth-token-file", "FILE", "Token that all requests and sockets must send.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        _option("--cors-origin", "ORIGIN", "Allow web pages of this origin, as https://app.example; repeatable."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, _option("--allow-host", "NAME", "Accept this host name; repeatable.")
    ] = None,
    behind_proxy: Annotated[
        list[str] | None,
        _option("--behind-proxy", "ADDRESS", "Trust X-Forwarded-For from this address or network; repeatable."),
    ] = None,
    max_connections: Annotated[
        str | None, _option("--max-connections", "N", "Maximum sockets per address; 0: no limit. [default: 500]")
    ] = None,
    max_joins: Annotated[
        str | None, _option("--max-joins", "N", "Maximum sessions joined per socket; 0: no limit. [default: 10000]")
    ] = None,
    access_log: Annotated[
        str | None, _option("--access-log", "FILE|-", "Append a line per request to FILE, or to stderr (-).")
    ] = None,
    access_log_format: Annotated[
        str | None,
        _option("--access-log-format", "KIND", "Line format: plain or json. [default: plain]", "plain", "json"),
    ] = None,
    print_token: Annotated[
        bool, typer.Option("--print-token", help="Print a token for `delete` and exit; needs --jwt-secret-file.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print a token for `delete` at the start, and the server's log.")
    ] = False,
) -> None:
    """Run the bundled server, with optional faults, until Ctrl-C."""
    given = dict(locals())
    need_server_extra("`uploader serve`")
    from uploader_server.__main__ import main

    with signals.unwinding():
        code = main(_as_argv(given), prog="uploader serve")
    raise typer.Exit(code)


def _as_argv(given: dict[str, object]) -> list[str]:
    """Build the command line of `python -m uploader_server`, which checks the values."""
    argv: list[str] = []
    for name, value in given.items():
        flag = "--as" if name == "flavour" else "--" + name.replace("_", "-")
        match value:
            case None | False:
                pass
            case True:
                argv.append(flag)
            case list():
                argv += [part for item in value for part in (flag, item)]
            case _:
                argv += [flag, str(value)]
    return argv
