"""`uploader serve`."""

import inspect
from typing import Annotated, Any

import typer

from uploader_cli import extras, signals
from uploader_cli.cli.options import among

_REALTIME = "off, hang, refuse, flap:SECONDS or kill-after:SECONDS"
_OPTIONS = (
    ("--host", "ADDRESS", "Listen on ADDRESS; :: for all, IPv4 and IPv6. [default: 127.0.0.1]"),
    ("--port", "N", "Port; 0 selects a free one. [default: 8005]"),
    ("--root", "DIR", "Store files in DIR. [default: a temporary directory]"),
    (
        "--durability",
        "KIND",
        "fsync (confirmed data survives a power failure) or none. [default: fsync with --root]",
        "fsync",
        "none",
    ),
    ("--as", "KIND", "bundled, or reference with its quirks. [default: bundled]", "bundled", "reference"),
    ("--max-files", "N", "Maximum files in one session."),
    ("--max-size", "SIZE", "Maximum file size, as 300M or 8MB."),
    ("--types", "LIST", "Allowed types, as mp4,avi. [default: any]"),
    ("--rate-limit", "N", "Maximum requests in 15 minutes; 0: no limit."),
    ("--session-ttl", "TIME", "Time until an unused session expires, as 90, 10m or 1h30m."),
    ("--no-tus", "", "Disable resumable uploads (tus 1.0)."),
    ("--no-packs", "", "Disable packs of small files and the lookup."),
    ("--no-anonymous-tus", "", "Accept tus uploads only within sessions."),
    ("--no-ui", "", "Disable the web page at / and the list of sessions."),
    ("--upload-ttl", "TIME", "Time until an idle, unfinished tus upload expires."),
    ("--min-rate", "SIZE", "Minimum bytes per second of an upload's body; 0: no minimum. [default: 1K]"),
    ("--fault", "RULE", "Inject a fault, as status:patch#2:503; repeatable."),
    ("--list-faults", "", "Print all faults with examples and exit."),
    ("--fault-control", "", "Let tests change the faults at /faults (loopback only)."),
    ("--realtime", "HOW", f"Break Socket.IO: {_REALTIME}."),
    ("--websocket", "HOW", "The same for the websocket transport only."),
    ("--latency", "MS", "Delay every response by MS milliseconds."),
    ("--processing", "TIME", "Duration of processing for each file after its last byte."),
    ("--fail-file", "GLOB", "Fail files with matching names; repeatable."),
    ("--analysis-seconds", "TIME", "Duration of an analysis. [default: 3]"),
    ("--analysis", "HOW", "Break analyses: silent, hang, fail:STAGE or refuse:STAGE, separated by commas."),
    ("--jwt-secret-file", "FILE", "Secret for signing tokens. [default: random]"),
    ("--auth-token-file", "FILE", "Token that all requests and sockets must send."),
    ("--cors-origin", "ORIGIN", "Allow web pages of this origin, as https://app.example; repeatable."),
    ("--allow-host", "NAME", "Accept this host name; repeatable."),
    ("--behind-proxy", "ADDRESS", "Trust X-Forwarded-For from this address or network; repeatable."),
    ("--max-connections", "N", "Maximum sockets per client; 0: no limit. [default: 500]"),
    ("--max-joins", "N", "Maximum sessions joined per socket; 0: no limit. [default: 10000]"),
    (
        "--max-share",
        "PERCENT",
        "Part of sessions, unfinished uploads, joins and connections that one client may hold. [default: 25]",
    ),
    ("--access-log", "FILE|-", "Append a line per request to FILE, or to stderr (-)."),
    ("--access-log-format", "KIND", "Line format: plain or json. [default: plain]", "plain", "json"),
    ("--print-token", "", "Print a token for `delete` and exit; needs --jwt-secret-file."),
    ("--verbose", "", "Print a token for `delete` at the start, and the server's log."),
)
"""Flag, metavar (empty for a switch), help, and the allowed values."""


def serve(**given: Any) -> int:
    """Run the bundled server, with optional faults, until Ctrl-C."""
    extras.need("server", "`uploader serve`", "the bundled server")
    from uploader_server.__main__ import main

    with signals.unwinding():
        return main(_as_argv(given), prog="uploader serve")


def _parameter(flag: str, metavar: str, help: str, *values: str) -> inspect.Parameter:  # noqa: A002
    kind: Any = list[str] | None if help.endswith("; repeatable.") else str | None if metavar else bool
    short = ["-v"] if flag == "--verbose" else []
    option = typer.Option(
        flag, *short, metavar=metavar or None, help=help, show_default=False, autocompletion=among(values)
    )
    name = "flavour" if flag == "--as" else flag[2:].replace("-", "_")
    default = None if metavar else False
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


serve.__signature__ = inspect.Signature([_parameter(*row) for row in _OPTIONS])  # type: ignore[attr-defined]


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
