"""`uploader serve`."""

from typing import Annotated

import typer

from uploader_cli import signals
from uploader_cli.cli.candidates import among
from uploader_cli.cli.server_extra import need_server_extra

_REALTIME = "off, hang, refuse, flap:SECONDS or kill-after:SECONDS"


def _option(flag: str, metavar: str, help: str, *names: str) -> object:  # noqa: A002 - typer's word
    return typer.Option(flag, metavar=metavar, help=help, show_default=False, autocompletion=among(names))


def serve(
    host: Annotated[str | None, _option("--host", "ADDRESS", "Listen here. [default: 127.0.0.1]")] = None,
    port: Annotated[str | None, _option("--port", "N", "0 takes a free one. [default: 8005]")] = None,
    root: Annotated[
        str | None, _option("--root", "DIR", "Keep files here. [default: a directory that goes away at the end]")
    ] = None,
    durability: Annotated[
        str | None,
        _option(
            "--durability",
            "KIND",
            "fsync: what was confirmed survives a loss of power; none. [default: fsync with --root]",
            "fsync",
            "none",
        ),
    ] = None,
    flavour: Annotated[
        str | None,
        _option(
            "--as", "KIND", "bundled, or reference with all its quirks. [default: bundled]", "bundled", "reference"
        ),
    ] = None,
    max_files: Annotated[str | None, _option("--max-files", "N", "Files in one session at most.")] = None,
    max_size: Annotated[str | None, _option("--max-size", "SIZE", "Bytes in one file at most, as 300M or 8MB.")] = None,
    types: Annotated[str | None, _option("--types", "LIST", "Allowed types, as mp4,avi. [default: any]")] = None,
    rate_limit: Annotated[str | None, _option("--rate-limit", "N", "Requests in 15 minutes; 0: no limit.")] = None,
    session_ttl: Annotated[
        str | None, _option("--session-ttl", "S", "Seconds until an unused session expires.")
    ] = None,
    no_tus: Annotated[bool, typer.Option("--no-tus", help="Without resumable uploads (tus 1.0).")] = False,
    no_packs: Annotated[bool, typer.Option("--no-packs", help="Without packs of small files and the lookup.")] = False,
    no_anonymous_tus: Annotated[
        bool, typer.Option("--no-anonymous-tus", help="Take tus uploads only within sessions.")
    ] = False,
    upload_ttl: Annotated[
        str | None, _option("--upload-ttl", "S", "Seconds until an unfinished tus upload that nobody uses expires.")
    ] = None,
    fault: Annotated[
        list[str] | None, _option("--fault", "RULE", "Break something on purpose, as status:patch#2:503; repeatable.")
    ] = None,
    list_faults: Annotated[
        bool, typer.Option("--list-faults", help="Print all faults with examples, and end.")
    ] = False,
    fault_control: Annotated[
        bool, typer.Option("--fault-control", help="Let tests change the faults at /faults (loopback only).")
    ] = False,
    realtime: Annotated[str | None, _option("--realtime", "HOW", f"Break Socket.IO: {_REALTIME}.")] = None,
    websocket: Annotated[
        str | None, _option("--websocket", "HOW", "The same for its websocket transport alone.")
    ] = None,
    latency: Annotated[str | None, _option("--latency", "MS", "Delay everything by MS milliseconds.")] = None,
    processing: Annotated[
        str | None, _option("--processing", "S", "Seconds of processing for each file after its last byte.")
    ] = None,
    fail_file: Annotated[
        list[str] | None, _option("--fail-file", "GLOB", "Fail files of such names; repeatable.")
    ] = None,
    analysis_seconds: Annotated[
        str | None, _option("--analysis-seconds", "S", "Seconds of an analysis. [default: 3]")
    ] = None,
    analysis: Annotated[
        str | None,
        _option("--analysis", "HOW", "Break analyses: silent, hang, fail:STAGE or refuse:STAGE, with commas between."),
    ] = None,
    jwt_secret_file: Annotated[
        str | None, _option("--jwt-secret-file", "FILE", "The secret that signs tokens. [default: a random one]")
    ] = None,
    auth_token_file: Annotated[
        str | None, _option("--auth-token-file", "FILE", "A token that all calls and sockets need.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        _option("--cors-origin", "ORIGIN", "Let web pages of this origin call, as https://app.example; repeatable."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, _option("--allow-host", "NAME", "A name by which the server is called; repeatable.")
    ] = None,
    behind_proxy: Annotated[
        list[str] | None,
        _option("--behind-proxy", "ADDRESS", "Believe the X-Forwarded-For of this address or network; repeatable."),
    ] = None,
    max_connections: Annotated[
        str | None, _option("--max-connections", "N", "Sockets of one address; 0: any number. [default: 500]")
    ] = None,
    max_joins: Annotated[
        str | None, _option("--max-joins", "N", "Sessions joined by one socket; 0: any number. [default: 10000]")
    ] = None,
    access_log: Annotated[
        str | None, _option("--access-log", "FILE|-", "Append a line for each request; - is stderr.")
    ] = None,
    access_log_format: Annotated[
        str | None, _option("--access-log-format", "KIND", "plain or json lines. [default: plain]", "plain", "json")
    ] = None,
    print_token: Annotated[
        bool, typer.Option("--print-token", help="Print a token for `delete`, and end; needs --jwt-secret-file.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show a token for `delete` at the start, and what the server logs.")
    ] = False,
) -> None:
    """Run the bundled server, with faults on demand, until Ctrl-C."""
    given = dict(locals())
    need_server_extra("`uploader serve`")
    from uploader_server.__main__ import main

    with signals.unwinding():
        code = main(_as_argv(given), prog="uploader serve")
    raise typer.Exit(code)


def _as_argv(given: dict[str, object]) -> list[str]:
    """The server's own command line: it checks the values, and `python -m uploader_server` says the same."""
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
