"""`python -m uploader_server`: the bundled server on its own."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from uploader_server.analysis.stages import STAGES, AnalysisMode
from uploader_server.config import RealtimeMode, ServerConfig, StartupError, check_network, check_origin, parse_size
from uploader_server.faults.rules import parse_rule
from uploader_server.faults.table import listing
from uploader_server.http.auth import issue_token

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROG = "python -m uploader_server"

_EPILOG = """\
values of --realtime (both transports of Socket.IO) and --websocket (that transport alone):
  off            the path answers 404, as if there were no Socket.IO
  refuse         every connection is refused at once (403)
  hang           connections are accepted and never answered
  flap:S         from the first connection on: S seconds up, S seconds down, and so on; going down cuts
                 every live connection and refuses new ones
  kill-after:S   S seconds after the first connection it is cut and never comes back
Uploads over HTTP are not affected by any of them. These options, --latency, --fail-file and --analysis are short
forms of rules of --fault: --realtime flap:4 is --fault socket-flap:realtime:4.

values of --analysis, several with commas between them:
  silent         no event is sent; the status tells how far it is
  hang           it stops for good in its first stage and is never answered
  fail:STAGE     that stage fails with 503, and may succeed another time
  refuse:STAGE   that stage fails with 422, for good
stages: {stages}
"""


class Parser(argparse.ArgumentParser):
    """argparse, with one line for an error instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Exit 2 with the message."""
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def parser(prog: str = PROG) -> argparse.ArgumentParser:
    """The options; `None` takes the flavour's own value."""
    options = Parser(
        prog=prog,
        description="The bundled upload server, with faults on demand.",
        epilog=_EPILOG.format(stages=" ".join(STAGES)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = options.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)")
    add("--port", type=_checked(_port), default=8005, help="port; 0 takes a free one (default: %(default)s)")
    add("--root", type=Path, help="directory to keep files in (default: a temporary one, removed at the stop)")
    add("--durability", choices=("fsync", "none"), help="what survives a loss of power (default: fsync with --root)")
    add("--as", dest="flavour", choices=("bundled", "reference"), default="bundled", help="whom to behave like")
    add("--max-files", type=_checked(_at_least(1)), metavar="N", help="files in one session")
    add("--max-size", type=_checked(parse_size), metavar="SIZE", help="largest file: 8M is 8 MiB, 8MB 8,000,000")
    add("--types", type=_checked(_types), metavar="A,B", help="allowed file name endings, e.g. mp4,avi")
    add("--rate-limit", type=_checked(_at_least(0)), metavar="N", help="API requests in 15 minutes; 0: no limit")
    add("--session-ttl", type=_checked(_seconds), default=24 * 3600.0, metavar="S", help="idle seconds to live")
    add("--no-tus", dest="tus", action="store_false", help="no resumable uploads (tus 1.0)")
    add("--no-packs", dest="packs", action="store_false", help="no packs of small files, and no lookup")
    add("--no-anonymous-tus", dest="anonymous_tus", action="store_false", help="tus uploads only within sessions")
    add("--upload-ttl", type=_checked(_seconds), default=7 * 24 * 3600.0, metavar="S", help="the same for tus uploads")
    add("--fault", type=_checked(_rule), action="append", default=[], metavar="RULE", help="break something on purpose")
    add("--list-faults", action="store_true", help="print every fault with an example, and exit")
    add("--fault-control", action="store_true", help="let tests change the faults at /faults (loopback only)")
    add("--realtime", type=_checked(_mode), metavar="V", help="break Socket.IO, see below")
    add("--websocket", type=_checked(_mode), metavar="V", help="break the websocket transport alone")
    add("--latency", type=_checked(_at_least(0)), default=0, metavar="MS", help="delay of every request")
    add("--processing", type=_checked(_seconds_or_none), metavar="S", help="seconds of processing for each file")
    add("--fail-file", action="append", default=[], metavar="GLOB", help="fail these files inside a 200")
    add("--analysis-seconds", type=_checked(_seconds_or_none), default=3.0, metavar="S", help="seconds of an analysis")
    add("--analysis", type=_checked(_analysis), metavar="V", help="break analyses, see below")
    add("--jwt-secret-file", type=Path, metavar="FILE", help="secret of the tokens (default: a random one)")
    add("--auth-token-file", type=Path, metavar="FILE", help="a token that all calls and sockets need from now on")
    add(
        "--cors-origin",
        type=_checked(_origin),
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let web pages of this origin call; repeatable, * is any",
    )
    add(
        "--behind-proxy",
        type=_checked(_network),
        action="append",
        default=[],
        metavar="ADDRESS",
        help="believe the X-Forwarded-For of this address or network; repeatable",
    )
    add("--allow-host", action="append", default=[], metavar="NAME", help="a name the server is called by; repeatable")
    add(
        "--max-connections",
        type=_checked(_at_least(0)),
        default=500,
        metavar="N",
        help="sockets of one address; 0: any",
    )
    add("--max-joins", type=_checked(_at_least(0)), default=10_000, metavar="N", help="rooms of one socket; 0: any")
    add("--access-log", metavar="FILE", help="append a line for each request to FILE; - is stderr")
    add("--access-log-format", choices=("plain", "json"), default="plain", help="of its lines (default: %(default)s)")
    add("--print-token", action="store_true", help="print a token for DELETE and exit; needs --jwt-secret-file")
    add("-v", "--verbose", action="store_true", help="show a token at the start, and what the server logs")
    return options


def _checked(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Let argparse show the words of a ValueError."""

    def converted(text: str) -> Any:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

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


def _seconds_or_none(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{text!r} is not a number of seconds")
    return seconds


def _seconds(text: str) -> float:
    seconds = _seconds_or_none(text)
    if seconds == 0:
        raise ValueError("it must be more than 0 seconds")
    return seconds


def _types(text: str) -> tuple[str, ...]:
    types = tuple(part.strip().lower().lstrip(".") for part in text.split(",") if part.strip())
    if not types:
        raise ValueError("name at least one file name ending, e.g. mp4,avi (or * for any)")
    return types


def _origin(text: str) -> str:
    check_origin(text)
    return text


def _network(text: str) -> str:
    check_network(text)
    return text


def _rule(text: str) -> str:
    parse_rule(text)
    return text


def _mode(text: str) -> str:
    RealtimeMode.parse(text)
    return text


def _analysis(text: str) -> str:
    AnalysisMode.parse(text)
    return text


def _secret(option: str, path: Path) -> str:
    """The text of a file. Raises StartupError where it can't be read, or is empty."""
    try:
        secret: str = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{option} {path}: can't be read ({error}); name a readable text file") from error
    if not secret:
        raise StartupError(f"{option} {path}: it is empty; put a secret into it")
    return secret


def _auth_token(path: Path) -> str:
    """The bearer token of a file. Raises StartupError as well where no header could carry it."""
    token = _secret("--auth-token-file", path)
    if not token.isascii() or not token.isprintable() or " " in token:
        raise StartupError(f"--auth-token-file {path}: a token is one line of printable ASCII without spaces; fix it")
    return token


def configured(options: argparse.Namespace) -> ServerConfig:
    """The configuration that the options ask for. Raises StartupError where a file can't be read."""
    secret: dict[str, Any] = {}
    if options.jwt_secret_file is not None:
        secret["jwt_secret"] = _secret("--jwt-secret-file", options.jwt_secret_file)
    if options.auth_token_file is not None:
        secret["auth_token"] = _auth_token(options.auth_token_file)
    log = options.access_log
    return ServerConfig(
        host=options.host,
        port=options.port,
        root=options.root,
        durability=options.durability,
        flavour=options.flavour,
        max_files=options.max_files,
        max_size=options.max_size,
        types=options.types,
        rate_limit=options.rate_limit,
        session_ttl=options.session_ttl,
        tus=options.tus,
        packs=options.packs,
        anonymous_tus=options.anonymous_tus,
        upload_ttl=options.upload_ttl,
        faults=tuple(options.fault),
        fault_control=options.fault_control,
        realtime=options.realtime,
        websocket=options.websocket,
        latency_ms=options.latency,
        processing_seconds=options.processing,
        fail_files=tuple(options.fail_file),
        analysis_seconds=options.analysis_seconds,
        analysis=options.analysis,
        cors_origins=tuple(options.cors_origin),
        behind_proxy=tuple(options.behind_proxy),
        allow_hosts=tuple(options.allow_host),
        max_connections=options.max_connections,
        max_joins=options.max_joins,
        access_log_format=options.access_log_format,
        access_log=log if log in {None, "-"} else Path(log),
        **secret,
    )


def main(argv: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Serve until SIGTERM or SIGINT; the exit code: 0, or 2 where it can't start.

    `prog` is what the person typed: it begins each message about an error.
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
                raise StartupError("--print-token: a random secret is of no use; add --jwt-secret-file FILE")
            sys.stdout.write(issue_token(config.jwt_secret) + "\n")
            return 0
        from uploader_server.serving import serve  # late: --help and a bad option need none of it

        serve(config, lambda url, root: _announce(url, root, config, verbose=options.verbose))
    except StartupError as error:
        sys.stderr.write(f"{prog}: {error}\n")
        return 2
    return 0


def _announce(url: str, root: Path, config: ServerConfig, *, verbose: bool) -> None:
    shown = os.fsencode(root).decode(errors="backslashreplace")
    kept = f"files in {shown}" + (", removed at the stop" if config.root is None else "")
    sys.stdout.write(f"uploader server ready on {url} ({kept}; Ctrl-C stops)\n")
    if verbose:
        sys.stdout.write(f"token for DELETE: {issue_token(config.jwt_secret)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
