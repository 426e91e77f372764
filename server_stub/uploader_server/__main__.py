"""`python -m uploader_server`: the command line of the bundled server."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from uploader_server.analysis.stages import STAGES, AnalysisMode
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
values of --realtime (both transports of Socket.IO) and --websocket (that transport alone):
  off            the path answers 404, as if there were no Socket.IO
  refuse         every connection is refused (403)
  hang           connections are accepted and get no response
  flap:S         alternates S seconds up and S seconds down from the first connection on; while down, live
                 connections are cut and new ones refused
  kill-after:S   S seconds after the first connection all connections are cut, and new ones refused
They do not affect uploads over HTTP. These options, --latency, --fail-file and --analysis are short forms of
--fault rules: --realtime flap:4 is --fault socket-flap:realtime:4.

values of --analysis, separated by commas:
  silent         no events are sent; the status shows the progress
  hang           the analysis stops in its first stage and gets no response
  fail:STAGE     the stage fails with 503 (retryable)
  refuse:STAGE   the stage fails with 422 (permanent)
stages: {stages}
"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that prints errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with code 2."""
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def parser(prog: str = PROG) -> argparse.ArgumentParser:
    """Return the argument parser. The default None means the flavour's value."""
    options = Parser(
        prog=prog,
        description="The bundled upload server, with fault injection.",
        epilog=_EPILOG.format(stages=" ".join(STAGES)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = options.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)")
    add("--port", type=_checked(_port), default=8005, help="port; 0 selects a free one (default: %(default)s)")
    add("--root", type=Path, help="directory for files (default: a temporary one, removed on exit)")
    add("--durability", choices=("fsync", "none"), help="flush confirmed data to disk (default: fsync with --root)")
    add("--as", dest="flavour", choices=("bundled", "reference"), default="bundled", help="behaviour to emulate")
    add("--max-files", type=_checked(_at_least(1)), metavar="N", help="maximum files per session")
    add("--max-size", type=_checked(parse_size), metavar="SIZE", help="maximum file size: 8M is 8 MiB, 8MB 8,000,000")
    add("--types", type=_checked(_types), metavar="A,B", help="allowed file extensions, e.g. mp4,avi")
    add("--rate-limit", type=_checked(_at_least(0)), metavar="N", help="API requests per 15 minutes; 0: no limit")
    add(
        "--session-ttl",
        type=_checked(parse_seconds),
        default=24 * 3600.0,
        metavar="S",
        help="expiry of idle sessions in seconds",
    )
    add("--no-tus", dest="tus", action="store_false", help="disable resumable uploads (tus 1.0)")
    add("--no-packs", dest="packs", action="store_false", help="disable packs of small files and the lookup")
    add("--no-anonymous-tus", dest="anonymous_tus", action="store_false", help="require a session for tus uploads")
    add(
        "--upload-ttl",
        type=_checked(parse_seconds),
        default=7 * 24 * 3600.0,
        metavar="S",
        help="expiry of idle tus uploads",
    )
    add(
        "--fault",
        dest="faults",
        type=_checked(parse_rule, keep=True),
        action="append",
        default=[],
        metavar="RULE",
        help="inject a fault; repeatable",
    )
    add("--list-faults", action="store_true", help="list all faults with examples, and exit")
    add("--fault-control", action="store_true", help="change faults at run time at /faults (loopback only)")
    add(
        "--realtime",
        type=_checked(RealtimeMode.parse, keep=True),
        metavar="V",
        help="inject faults into Socket.IO, see below",
    )
    add(
        "--websocket",
        type=_checked(RealtimeMode.parse, keep=True),
        metavar="V",
        help="inject faults into websockets only",
    )
    add(
        "--latency",
        dest="latency_ms",
        type=_checked(_at_least(0)),
        default=0,
        metavar="MS",
        help="delay of every request in ms",
    )
    add(
        "--processing",
        dest="processing_seconds",
        type=_checked(parse_number),
        metavar="S",
        help="simulated processing time per file",
    )
    add(
        "--fail-file",
        dest="fail_files",
        action="append",
        default=[],
        metavar="GLOB",
        help="fail matching files inside a 200 response",
    )
    add("--analysis-seconds", type=_checked(parse_number), default=3.0, metavar="S", help="duration of an analysis")
    add(
        "--analysis",
        type=_checked(AnalysisMode.parse, keep=True),
        metavar="V",
        help="inject faults into analyses, see below",
    )
    add("--jwt-secret-file", type=Path, metavar="FILE", help="secret that signs tokens (default: random)")
    add("--auth-token-file", type=Path, metavar="FILE", help="token required for all calls and sockets")
    add(
        "--cors-origin",
        dest="cors_origins",
        type=_checked(check_origin, keep=True),
        action="append",
        default=[],
        metavar="ORIGIN",
        help="allow web pages of this origin; repeatable, * allows any",
    )
    add(
        "--behind-proxy",
        type=_checked(check_network, keep=True),
        action="append",
        default=[],
        metavar="ADDRESS",
        help="trust X-Forwarded-For of this address or network; repeatable",
    )
    add(
        "--allow-host",
        dest="allow_hosts",
        action="append",
        default=[],
        metavar="NAME",
        help="allowed Host header; repeatable",
    )
    add(
        "--max-connections",
        type=_checked(_at_least(0)),
        default=500,
        metavar="N",
        help="realtime connections per address; 0: no limit",
    )
    add(
        "--max-joins",
        type=_checked(_at_least(0)),
        default=10_000,
        metavar="N",
        help="rooms per connection; 0: no limit",
    )
    add("--access-log", metavar="FILE", help="append a line per request to FILE; - is stderr")
    add(
        "--access-log-format",
        choices=("plain", "json"),
        default="plain",
        help="format of the log (default: %(default)s)",
    )
    add("--print-token", action="store_true", help="print a token for DELETE and exit; needs --jwt-secret-file")
    add("-v", "--verbose", action="store_true", help="print a token at the start, and the server log")
    return options


def _checked(convert: Callable[[str], Any], *, keep: bool = False) -> Callable[[str], Any]:
    """Wrap `convert` so that argparse shows the message of a ValueError; with `keep` the value is the text itself."""

    def converted(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text if keep else value

    return converted


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
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(options).items()
        if name in names
    }
    if options.jwt_secret_file is not None:
        values["jwt_secret"] = _secret("--jwt-secret-file", options.jwt_secret_file)
    if options.auth_token_file is not None:
        values["auth_token"] = _auth_token(options.auth_token_file)
    if options.access_log not in {None, "-"}:
        values["access_log"] = Path(options.access_log)
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
