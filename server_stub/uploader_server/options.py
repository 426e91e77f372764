"""Declares options of the command line, and parses their values."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import Field, field
from pathlib import Path
from typing import Any, NamedTuple

_SIZE = re.compile(r"(?P<number>\d{1,18}(?:\.\d{1,18})?)\s*(?P<unit>[kmgt]?)(?P<decimal>i?b?)", re.IGNORECASE)
_EXTENSION = re.compile(r"[\w+~-]+")
_DURATION = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)


class StartupError(Exception):
    """The server can't start; the message names the option, `hint` the fix."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def parse_size(text: str) -> int:
    """Parse a size in bytes: `512`, `8M` or `8MiB` (binary), `8MB` (decimal). Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write 8M (8 MiB) or 8MB (8,000,000 bytes)")
    power = " kmgt".index(match["unit"].lower() or " ")
    base = 1000 if match["decimal"].lower() == "b" else 1024
    number = match["number"]
    size = int(float(number) * base**power) if "." in number else int(number) * base**power
    if size < 1:
        raise ValueError(f"{text!r} is not a size: it must be at least one byte")
    return size


def parse_number(text: str) -> float:
    """Parse a finite number of at least 0. Raises ValueError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{text!r} is not a number of at least 0")
    return value


def parse_duration(text: str) -> float:
    """Parse a duration into seconds: `90`, `10m` or `1h30m`. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        return parse_number(text)
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def parse_seconds(text: str) -> float:
    """Parse a duration greater than 0. Raises ValueError."""
    value = parse_duration(text)
    if value == 0:
        raise ValueError("it must be more than 0 seconds")
    return value


def check_network(text: str) -> None:
    """Raise ValueError unless the text is an IP address or network."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an address or network; write 10.0.0.7 or 10.0.0.0/8") from None


def check_origin(text: str) -> None:
    """Raise ValueError unless the text is the origin of a web page."""
    if text != "*" and re.fullmatch(r"https?://[^/\s?#@]+", text) is None:
        raise ValueError(f"{text!r} is not an origin; write it as https://app.example, without a path (or * for any)")


def whole_number(lowest: int, highest: float, what: str) -> Callable[[str], int]:
    """Return a parser of a number in this range, which is `what` in its errors."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= highest:
            raise ValueError(f"{text!r} is not {what}")
        return int(text)

    return parse


parse_count = whole_number(0, math.inf, "a whole number of at least 0")
parse_files = whole_number(1, math.inf, "a whole number of at least 1")
parse_port = whole_number(0, 65535, "a port: a number from 0 to 65535")
parse_percent = whole_number(1, 100, "a percentage: a whole number from 1 to 100")
parse_status = whole_number(200, 599, "an HTTP status from 200 to 599")


def parse_types(text: str) -> tuple[str, ...]:
    types = tuple(part.strip().lower().lstrip(".") for part in text.split(",") if part.strip())
    if not types:
        raise ValueError("give at least one file extension, e.g. mp4,avi (or * for any)")
    for one in types:
        if one != "*" and _EXTENSION.fullmatch(one) is None:
            raise ValueError(f"{one!r} is not a file extension; separate several with commas: mp4,avi")
    return types


def parse_rate(text: str) -> int:
    return 0 if text == "0" else parse_size(text)


def parse_log(text: str) -> Path | str:
    return text if text == "-" else Path(text)


class Option(NamedTuple):
    """An option of the command line, which sets the field `name`; `metavar` is empty for a switch."""

    name: str
    flag: str
    metavar: str
    help: str
    parse: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    many: bool = False
    short: tuple[str, ...] = ()

    @classmethod
    def of(cls, spec: Field[Any]) -> Option:
        """Return the option of a field. The default () makes it repeatable."""
        flag, _, metavar = spec.metadata["flag"].partition(" ")
        parse = spec.metadata["parse"]
        choices = parse if isinstance(parse, tuple) else ()
        parse = _one_of(*choices) if choices else parse
        return cls(spec.name, flag, metavar, spec.metadata["help"], parse, choices, spec.default == ())


def option(
    default: Any, flag: str, text: str, parse: Callable[[str], Any] | tuple[str, ...] = str, *, shown: bool = True
) -> Any:
    """Declare a field with a command line option: `--flag METAVAR`, or `--flag` for a switch.

    `parse` converts the text of the option, or has its choices. A `default` that is a function is called for each
    server.
    """
    values: dict[str, Any] = {"default_factory" if callable(default) else "default": default}
    return field(**values, repr=shown, metadata={"flag": flag, "help": text, "parse": parse})


def _one_of(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"{text!r} is not one of {', '.join(names)}")
        return text

    return parse


def random_secret() -> str:
    import secrets  # late import, for `uploader --help`

    return secrets.token_hex(32)


def secret_in(flag: str) -> Callable[[str], str]:
    """Return a parser that reads a file; it raises StartupError if the file can't be read or is empty."""

    def read(path: str) -> str:
        try:
            secret = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise StartupError(f"{flag} {path}: can't be read ({why})", "name a readable text file") from error
        if not secret:
            raise StartupError(f"{flag} {path}: it is empty", "write a secret to it")
        return secret

    return read


def parse_auth_token(path: str) -> str:
    flag = "--auth-token-file"
    token = secret_in(flag)(path)
    if not token.isascii() or not token.isprintable() or " " in token:
        raise StartupError(f"{flag} {path}: a token is one line of printable ASCII without spaces", "fix it")
    return token


def checked(check: Callable[[str], object]) -> Callable[[str], str]:
    """Return a parser that checks a value and keeps its text."""

    def parse(text: str) -> str:
        check(text)
        return text

    return parse
