"""`python -m uploader_server`: the command line of the bundled server."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from uploader_server.auth import issue_token
from uploader_server.config import OPTIONS, ServerConfig
from uploader_server.logs import Formatter, Seldom
from uploader_server.options import StartupError

PROG = "python -m uploader_server"

_EPILOG = (
    "--realtime, --websocket, --analysis, --latency and --fail-file are short forms of --fault rules, which"
    " --list-faults describes."
)
OPEN_TO_ALL = (
    "warning: everyone who can reach {host} may upload, watch and read: require a token with --auth-token-file FILE,"
    " or accept only the names of --allow-host NAME, against web pages that use DNS rebinding\n"
)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that prints errors without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, in_two_lines(message.removeprefix("argument "), f"see: {self.prog} --help"))


def in_two_lines(message: str, hint: str) -> str:
    """Return an error in the style of the client."""
    return f"error: {message}\n" + (f"hint: {hint}\n" if hint else "")


def parser() -> argparse.ArgumentParser:
    """Return the argument parser; it leaves the values to `configured`."""
    options = Parser(
        prog=PROG, description="The bundled upload server, with fault injection.", epilog=_EPILOG, allow_abbrev=False
    )
    for option in OPTIONS:
        action = "append" if option.many else "store" if option.metavar else "store_true"
        kind: dict[str, Any] = {"metavar": option.metavar} if option.metavar else {}
        options.add_argument(option.flag, *option.short, dest=option.name, action=action, help=option.help, **kind)
    return options


def configured(given: Mapping[str, Any], prog: str = PROG) -> ServerConfig:
    """Return the configuration from the values of `OPTIONS` as text; None and False are options that are not used.

    Raises `StartupError` for a wrong value.
    """
    values: dict[str, Any] = {}
    defaults = {field.name: field.default for field in dataclasses.fields(ServerConfig)}
    for option in OPTIONS:
        raw = given.get(option.name)
        if option.name not in defaults or raw in (None, False, []):
            continue
        if raw is True:
            values[option.name] = not defaults[option.name]
        else:
            try:
                values[option.name] = tuple(map(option.parse, raw)) if option.many else option.parse(raw)
            except ValueError as error:
                raise StartupError(f"{option.flag}: {error}", f"see: {prog} --help") from None
    return ServerConfig(**values)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see `run_server`."""
    return run_server(vars(parser().parse_args(argv)))


def run_server(given: Mapping[str, Any], prog: str = PROG) -> int:
    """Serve until a signal; return 0, or 2 if the server can't start.

    `given` are the values of `OPTIONS` as for `configured`, `prog` is the command in hints.
    """
    if given["list_faults"]:
        from uploader_server.simulation.table import listing

        sys.stdout.write(listing())
        return 0
    lines = logging.StreamHandler()
    lines.setFormatter(Formatter())
    lines.addFilter(Seldom(verbose=given["verbose"]))
    logging.basicConfig(level=logging.INFO if given["verbose"] else logging.ERROR, handlers=[lines])
    try:
        config = configured(given, prog)
        if given["print_token"]:
            if given["jwt_secret"] is None:
                raise StartupError("--print-token: it needs a fixed secret", "add --jwt-secret-file FILE")
            sys.stdout.write(issue_token(config.jwt_secret) + "\n")
            return 0
        from uploader_server.serving import serve  # late import, to start --help fast

        serve(config, lambda url, root: _announce(url, root, config, verbose=given["verbose"]))
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
