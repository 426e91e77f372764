"""`python -m uploader_server`: the command line of the bundled server."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from uploader_server.analysis.stages import AnalysisMode
from uploader_server.config import (
    RealtimeMode,
    ServerConfig,
    StartupError,
    check_network,
    check_origin,
    parse_number,
    parse_seconds,
    parse_size,
)
from uploader_server.faults.rules import parse_rule
from uploader_server.faults.table import listing
from uploader_server.http.auth import issue_token

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROG = "python -m uploader_server"

_EPILOG = """\
--realtime (both transports of Socket.IO) and --websocket: off, refuse, hang, flap:S or kill-after:S
--analysis: silent, hang, fail:STAGE or refuse:STAGE, separated by commas
They and --latency and --fail-file are short forms of --fault rules, which --list-faults describes.
"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that prints errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with code 2."""
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def _at_least(lowest: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < lowest:
            raise ValueError(f"{text!r} is not a whole number of at least {lowest}")
        return int(text)

    return convert


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ValueError(f"{text!r} is not a port: a number from 0 to 65535")
    return int(text)


def _types(text: str) -> tuple[str, ...]:
    types = tuple(part.strip().lower().lstrip(".") for part in text.split(",") if part.strip())
    if not types:
        raise ValueError("give at least one file extension, e.g. mp4,avi (or * for any)")
    return types


def _log(text: str) -> Path | str:
    return text if text == "-" else Path(text)


def _text(check: Callable[[str], object]) -> Callable[[str], str]:
    """Return a converter that checks a value and keeps its text."""

    def convert(text: str) -> str:
        check(text)
        return text

    return convert


_OPTIONS: tuple[tuple[str, str, Any, str], ...] = (
    ("--host", "ADDRESS", str, "address to listen on (default: 127.0.0.1, this machine only)"),
    ("--port", "N", _port, "port; 0 selects a free one (default: 8005)"),
    ("--root", "DIR", Path, "directory for files (default: a temporary one, removed on exit)"),
    ("--durability", "", ("fsync", "none"), "flush confirmed data to disk (default: fsync with --root)"),
    ("--as", "", ("bundled", "reference"), "behaviour to emulate"),
    ("--max-files", "N", _at_least(1), "maximum files per session"),
    ("--max-size", "SIZE", parse_size, "maximum file size: 8M is 8 MiB, 8MB 8,000,000"),
    ("--types", "A,B", _types, "allowed file extensions, e.g. mp4,avi"),
    ("--rate-limit", "N", _at_least(0), "API requests per 15 minutes; 0: no limit"),
    ("--session-ttl", "S", parse_seconds, "expiry of idle sessions in seconds"),
    ("--upload-ttl", "S", parse_seconds, "expiry of idle tus uploads"),
    ("--fault", "RULE", _text(parse_rule), "inject a fault; repeatable"),
    ("--realtime", "V", _text(RealtimeMode.parse), "inject faults into Socket.IO, see below"),
    ("--websocket", "V", _text(RealtimeMode.parse), "inject faults into websockets only"),
    ("--latency", "MS", _at_least(0), "delay of every request in ms"),
    ("--processing", "S", parse_number, "simulated processing time per file"),
    ("--fail-file", "GLOB", str, "fail matching files inside a 200 response; repeatable"),
    ("--analysis-seconds", "S", parse_number, "duration of an analysis (default: 3)"),
    ("--analysis", "V", _text(AnalysisMode.parse), "inject faults into analyses, see below"),
    ("--jwt-secret-file", "FILE", Path, "secret that signs tokens (default: random)"),
    ("--auth-token-file", "FILE", Path, "token required for all calls and sockets"),
    ("--cors-origin", "ORIGIN", _text(check_origin), "allow web pages of this origin, * allows any; repeatable"),
    ("--behind-proxy", "ADDRESS", _text(check_network), "trust X-Forwarded-For of this address or network; repeatable"),
    ("--allow-host", "NAME", str, "allowed Host header; repeatable"),
    ("--max-connections", "N", _at_least(0), "realtime connections per address; 0: no limit"),
    ("--max-joins", "N", _at_least(0), "rooms per connection; 0: no limit"),
    ("--access-log", "FILE", _log, "append a line per request to FILE; - is stderr"),
    ("--access-log-format", "", ("plain", "json"), "format of the log (default: plain)"),
)
"""Option, metavar, converter or choices, and help text."""
_SWITCHES = (
    ("--no-tus", "disable resumable uploads (tus 1.0)"),
    ("--no-packs", "disable packs of small files and the lookup"),
    ("--no-anonymous-tus", "require a session for tus uploads"),
    ("--list-faults", "list all faults with examples, and exit"),
    ("--fault-control", "change faults at run time at /faults (loopback only)"),
    ("--print-token", "print a token for DELETE and exit; needs --jwt-secret-file"),
)
_FIELDS = {
    "--as": "flavour",
    "--fault": "faults",
    "--latency": "latency_ms",
    "--processing": "processing_seconds",
    "--fail-file": "fail_files",
    "--cors-origin": "cors_origins",
    "--allow-host": "allow_hosts",
}
"""Field of ServerConfig, if it has another name."""


def parser(prog: str = PROG) -> argparse.ArgumentParser:
    """Return the argument parser. The default None means the value of ServerConfig."""
    options = Parser(
        prog=prog,
        description="The bundled upload server, with fault injection.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for flag, metavar, convert, text in _OPTIONS:
        named: dict[str, Any] = {"dest": _FIELDS.get(flag, flag[2:].replace("-", "_")), "help": text}
        if isinstance(convert, tuple):
            options.add_argument(flag, choices=convert, **named)
        else:
            action = "append" if text.endswith("repeatable") else "store"
            options.add_argument(flag, metavar=metavar, type=_checked(convert), action=action, **named)
    for flag, text in _SWITCHES:
        name = flag[2:].removeprefix("no-").replace("-", "_")
        action = "store_false" if flag.startswith("--no-") else "store_true"
        options.add_argument(flag, dest=name, action=action, help=text)
    options.add_argument("-v", "--verbose", action="store_true", help="print a token at the start, and the server log")
    return options


def _checked(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Wrap a converter so that argparse shows the message of its ValueError."""

    def converted(text: str) -> Any:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return converted


def _secret(option: str, path: Path) -> str:
    """Return the text of a file. Raises StartupError if it can't be read or is empty."""
    try:
        secret: str = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{option} {path}: can't be read ({error}); name a readable text file") from error
    if not secret:
        raise StartupError(f"{option} {path}: it is empty; write a secret to it")
    return secret


def _auth_token(path: Path) -> str:
    """Return the bearer token of a file. Raises StartupError also if it is not valid in a header."""
    token = _secret("--auth-token-file", path)
    if not token.isascii() or not token.isprintable() or " " in token:
        raise StartupError(f"--auth-token-file {path}: a token is one line of printable ASCII without spaces; fix it")
    return token


def configured(options: argparse.Namespace) -> ServerConfig:
    """Return the configuration from the options. Raises StartupError if a file can't be read."""
    names = {field.name for field in dataclasses.fields(ServerConfig)}
    given = {name: value for name, value in vars(options).items() if name in names and value is not None}
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    if options.jwt_secret_file is not None:
        values["jwt_secret"] = _secret("--jwt-secret-file", options.jwt_secret_file)
    if options.auth_token_file is not None:
        values["auth_token"] = _auth_token(options.auth_token_file)
    return ServerConfig(**values)


def main(argv: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Serve until SIGTERM or SIGINT. Return the exit code: 0, or 2 if the server can't start.

    `prog` is the prefix of error messages.
    """
    options = parser(prog).parse_args(argv)
    if options.list_faults:
        sys.stdout.write(listing())
        return 0
    logging.basicConfig(level=logging.INFO if options.verbose else logging.ERROR, format="%(levelname)s: %(message)s")
    try:
        config = configured(options)
        if options.print_token:
            if options.jwt_secret_file is None:
                raise StartupError("--print-token: it needs a fixed secret; add --jwt-secret-file FILE")
            sys.stdout.write(issue_token(config.jwt_secret) + "\n")
            return 0
        from uploader_server.serving import serve  # late import, to start --help fast

        serve(config, lambda url, root: _announce(url, root, config, verbose=options.verbose))
    except StartupError as error:
        sys.stderr.write(f"{prog}: {error}\n")
        return 2
    return 0


def _announce(url: str, root: Path, config: ServerConfig, *, verbose: bool) -> None:
    shown = os.fsencode(root).decode(errors="backslashreplace")
    kept = f"files in {shown}" + (", removed on exit" if config.root is None else "")
    sys.stdout.write(f"uploader server ready on {url} ({kept}; Ctrl-C stops)\n")
    if verbose:
        sys.stdout.write(f"token for DELETE: {issue_token(config.jwt_secret)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
