"""`python -m uploader_server`: the command line of the bundled server."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from uploader_server.config import ServerConfig, StartupError
from uploader_server.faults.rules import parse_rule
from uploader_server.faults.table import listing
from uploader_server.http.auth import issue_token
from uploader_server.logs import Formatter

PROG = "python -m uploader_server"

_EPILOG = """\
--realtime (both transports of Socket.IO) and --websocket: off, refuse, hang, flap:S or kill-after:S
--analysis: silent, hang, fail:STAGE or refuse:STAGE, separated by commas
They and --latency and --fail-file are short forms of --fault rules, which --list-faults describes.
"""


OPEN_TO_ALL = (
    "warning: everyone who can reach {host} may upload, watch and read: require a token with --auth-token-file FILE,"
    " or accept only the names of --allow-host NAME, against web pages that use DNS rebinding\n"
)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that prints errors without the usage."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with code 2."""
        self.exit(2, in_two_lines(message.removeprefix("argument "), f"see: {self.prog} --help"))


def in_two_lines(message: str, hint: str) -> str:
    """Return an error in the style of the client."""
    return f"error: {message}\n" + (f"hint: {hint}\n" if hint else "")


def parser(prog: str = PROG) -> argparse.ArgumentParser:
    """Return the argument parser. The default None means the value of ServerConfig."""
    options = Parser(
        prog=prog,
        description="The bundled upload server, with fault injection.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = options.add_argument
    for field in dataclasses.fields(ServerConfig):
        if field.metadata:
            flag, _, metavar = field.metadata["flag"].partition(" ")
            parse: Any = _rule if field.name == "faults" else field.metadata["parse"]
            named: dict[str, Any] = {"dest": field.name, "help": field.metadata["help"]}
            if isinstance(field.default, bool):
                add(flag, action=f"store_{not field.default}".lower(), **named)
            elif isinstance(parse, tuple):
                add(flag, choices=parse, **named)
            else:
                action = "append" if field.default == () else "store"
                add(flag, metavar=metavar, type=_checked(parse), action=action, **named)
    add("--jwt-secret-file", type=Path, metavar="FILE", help="secret that signs tokens (default: random)")
    add("--auth-token-file", type=Path, metavar="FILE", help="token required for all calls and sockets")
    add("--list-faults", action="store_true", help="list all faults with examples, and exit")
    add("--print-token", action="store_true", help="print a token for DELETE and exit; needs --jwt-secret-file")
    add("-v", "--verbose", action="store_true", help="print a token at the start, and the server log")
    return options


def _rule(text: str) -> str:
    return parse_rule(text).text


def _checked(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Wrap a parser so that argparse shows the message of its ValueError."""

    def converted(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return converted


def _secret(option: str, path: Path) -> str:
    """Return the text of a file. Raises StartupError if it can't be read or is empty."""
    try:
        secret: str = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise StartupError(f"{option} {path}: can't be read ({why})", "name a readable text file") from error
    if not secret:
        raise StartupError(f"{option} {path}: it is empty", "write a secret to it")
    return secret


def _auth_token(path: Path) -> str:
    """Return the bearer token of a file. Raises StartupError also if it is not valid in a header."""
    token = _secret("--auth-token-file", path)
    if not token.isascii() or not token.isprintable() or " " in token:
        raise StartupError(f"--auth-token-file {path}: a token is one line of printable ASCII without spaces", "fix it")
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
    """Serve until a signal; return 0, or 2 if the server can't start. `prog` is the command in hints."""
    options = parser(prog).parse_args(argv)
    if options.list_faults:
        sys.stdout.write(listing())
        return 0
    lines = logging.StreamHandler()
    lines.setFormatter(Formatter())
    logging.basicConfig(level=logging.INFO if options.verbose else logging.ERROR, handlers=[lines])
    try:
        config = configured(options)
        if options.print_token:
            if options.jwt_secret_file is None:
                raise StartupError("--print-token: it needs a fixed secret", "add --jwt-secret-file FILE")
            sys.stdout.write(issue_token(config.jwt_secret) + "\n")
            return 0
        from uploader_server.serving import serve  # late import, to start --help fast

        serve(config, lambda url, root: _announce(url, root, config, verbose=options.verbose))
    except StartupError as error:
        sys.stderr.write(in_two_lines(str(error), error.hint))
        return 2
    return 0


def _announce(url: str, root: Path, config: ServerConfig, *, verbose: bool) -> None:
    if config.open_to_all:
        sys.stderr.write(OPEN_TO_ALL.format(host=config.host))
    shown = os.fsencode(root).decode(errors="backslashreplace")
    kept = f"files in {shown}" + (", removed on exit" if config.root is None else "")
    sys.stdout.write(f"uploader server ready on {url} ({kept}; Ctrl-C stops)\n")
    if verbose:
        sys.stdout.write(f"token for DELETE: {issue_token(config.jwt_secret)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
