"""Parsers that turn raw text into a value or raise `Invalid`.

Each accepts the text of a flag or the environment as well as the types of TOML (text, number, boolean).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from uploader_cli.core.masking import MASK, is_secret_header, remember
from uploader_cli.feature import formats


class Invalid(ValueError):
    """An invalid value: `str(error)` follows "--option: "; `hint` says how to fix it where that isn't obvious."""

    def __init__(self, problem: str, *, hint: str = "") -> None:
        super().__init__(problem)
        self.hint = hint


class Header(NamedTuple):
    """One `--header`. `repr` masks the value if the name looks secret."""

    name: str
    value: str

    @property
    def secret(self) -> bool:
        """True for Authorization, Cookie and similar names."""
        return is_secret_header(self.name)

    def __repr__(self) -> str:
        return f"Header({self.name}: {MASK if self.secret else self.value})"


FIELDS = ("path", "name", "stem", "ext", "type", "size", "sha256", "date")
FIELD = re.compile(r"\{(\w+)\}")


class Metadata(NamedTuple):
    """One `--metadata`: a key of `Upload-Metadata` and the template of its value; None: each line of a list has it."""

    name: str
    template: str | None

    def __str__(self) -> str:
        return self.name if self.template is None else f"{self.name}={self.template}"


class ChunkRule(NamedTuple):
    """The chunk sizes that a service accepts, in bytes: from `least` to `most`, in multiples of `multiple`."""

    least: int
    most: int
    multiple: int

    def __str__(self) -> str:
        if self.least == self.most:
            return written_size(self.least)
        return f"{written_size(self.least)}-{written_size(self.most)}/{written_size(self.multiple)}"

    def allows(self, size: int) -> bool:
        """Return whether chunks of `size` bytes are accepted."""
        return self.least <= size <= self.most and size % self.multiple == 0


class ReportFile(NamedTuple):
    """One `--report`: format and path."""

    kind: str
    path: Path

    @property
    def digests(self) -> bool:
        """True if the format lists the SHA-256 of the files."""
        return any(one.digests for _, one in formats().values() if one.name == self.kind)

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}"


class Moment(NamedTuple):
    """One `--newer-than`: as it was `written` (`2d`, `2026-01-31`), and the time `at` in seconds since the epoch.

    `str` returns the time with its zone: a resumed run, which stores it, selects the same files.
    """

    written: str
    at: float

    def __str__(self) -> str:
        from datetime import UTC, datetime

        return datetime.fromtimestamp(self.at, UTC).isoformat()


def text(raw: object) -> str:
    """Parse non-empty text."""
    if not isinstance(raw, str) or not raw.strip():
        raise Invalid(f"must be text, not {raw!r}")
    return raw


def or_none(parse: Callable[[object], Any]) -> Callable[[object], Any]:
    """Return a parser that also accepts the word none, for None."""
    return lambda raw: None if raw == "none" else parse(raw)


def switch(raw: object) -> bool:
    """Parse a boolean; as text also 1/0, yes/no, on/off."""
    if isinstance(raw, bool):
        return raw
    match str(raw).strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise Invalid(f"must be true or false, not {raw!r}")


def whole(minimum: int, **words: str) -> Callable[[object], Any]:
    """Return a parser for whole numbers of at least `minimum`, and for `words` with their values."""
    what = f"a whole number, {minimum} or more"
    return _number(what, lambda value: value.is_integer() and value >= minimum, words, convert=int)


def seconds(*, zero: bool, **words: float | None) -> Callable[[object], Any]:
    """Return a parser for durations: a number of seconds, or `10m`, `1h30m`; `zero` allows 0. The value is in seconds.

    It also accepts `words` with their values.
    """
    what = f"a number of seconds (or 10m, 1h30m), {'0 or more' if zero else 'more than 0'}"
    number = _number(what, lambda value: value > 0 or (zero and value == 0), words)

    def parse(raw: object) -> Any:
        duration = parse_duration(raw) if isinstance(raw, str) else None
        return number(raw if duration is None or (duration == 0 and not zero) else duration)

    return parse


def threshold(unit: str, *, most: float = math.inf) -> Callable[[object], Any]:
    """Return a parser for numbers above 0 and below `most`; `none` disables the threshold."""
    what = f"a number {unit}, more than 0{f' and less than {most:g}' if most < math.inf else ''}"
    return _number(what, lambda value: 0 < value < most, {"none": None})


def size(minimum: int, *, why: str = "", **words: str | None) -> Callable[[object], Any]:
    """Return a parser for sizes of at least `minimum` bytes (`why` explains it), and for `words` with their values."""

    def read(raw: object) -> int | None:
        whole = int(raw) if isinstance(raw, float) and raw.is_integer() else raw  # 50e6
        amount = None if isinstance(raw, bool) or not isinstance(whole, int | str) else parse_size(str(whole))
        return amount if amount is not None and amount >= minimum else None

    return _parser(f"a size of at least {minimum}{why}", read, words)


def _number(
    what: str, fits: Callable[[float], bool], words: Mapping[str, str | float | None], convert: type[float] = float
) -> Callable[[object], Any]:
    def read(raw: object) -> float | None:
        if isinstance(raw, bool) or not isinstance(raw, int | float | str):
            return None
        try:
            value = float(raw)
        except (ValueError, OverflowError):
            return None
        return convert(value) if math.isfinite(value) and fits(value) else None

    return _parser(what, read, words)


def _parser(
    what: str, read: Callable[[object], float | None], words: Mapping[str, str | float | None]
) -> Callable[[object], Any]:
    def parse(raw: object) -> Any:
        if isinstance(raw, str) and raw in words:
            return words[raw]
        value = read(raw)
        if value is None:
            raise Invalid(f"must be {''.join(f'{word} or ' for word in words)}{what}, not {raw!r}")
        return value

    return parse


_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*(?:([kmgt])(i?b)?|b)?", re.IGNORECASE)


def parse_size(raw: str) -> int:
    """Parse a size into bytes: `8M` and `8MiB` are 8 × 1024², `8MB` is 8,000,000. Raises `Invalid`."""
    found = _SIZE.fullmatch(raw.strip())
    if not found:
        raise Invalid(f"must be a size, not {raw!r}", hint="for example 8M (8 × 1024²), 8MB (8,000,000) or 8388608")
    number, unit, suffix = found.groups()
    base = 1000 if (suffix or "").lower() == "b" else 1024
    power = " kmgt".index(unit.lower()) if unit else 0
    return int(float(number) * base**power) if "." in number else int(number) * base**power


def chunk_rule(raw: object) -> ChunkRule:
    """Parse `SIZE` (exactly), `LEAST-MOST` or `LEAST-MOST/MULTIPLE`."""
    bounds, _, multiple = str(raw).partition("/")
    least, dash, most = bounds.partition("-")
    low = parse_size(least)
    high = parse_size(most) if dash else low
    rule = ChunkRule(low, high, parse_size(multiple) if multiple else 1)
    if not 0 < rule.multiple <= low <= high or low % rule.multiple or high % rule.multiple:
        raise Invalid(
            f"must be SIZE or LEAST-MOST/MULTIPLE, not {raw!r}",
            hint="for example 6M, or 5M-200M/256K; all are multiples",
        )
    return rule


def character(raw: object) -> str:
    """Parse a regular expression for one character."""
    pattern = text(raw)
    try:
        re.compile(pattern)
    except re.error as error:
        raise Invalid(f"must be a regular expression, not {raw!r}: {error}") from None
    return pattern


def written_size(count: int) -> str:
    """Format `count` bytes so that `parse_size` returns it."""
    return f"{count >> 20}M" if count and count % (1 << 20) == 0 else str(count)


_DURATION = re.compile("".join(rf"(?:(\d{{1,9}}(?:\.\d{{1,9}})?){unit})?" for unit in "wdhms"), re.IGNORECASE)


def parse_duration(raw: str) -> float | None:
    """Parse a duration into seconds: `2d`, `1h30m`, `1.5h`. None for other text."""
    found = _DURATION.fullmatch(raw.strip()) if raw.strip() else None
    if found is None:
        return None
    units = zip(found.groups(), (7 * 86400, 86400, 3600, 60, 1), strict=True)
    return sum(float(number) * seconds for number, seconds in units if number)


def moment(raw: object) -> Moment:
    """Parse a time: a duration before now as `2d`, or a date with or without a time."""
    from datetime import datetime, timedelta

    written = text(raw).strip()
    duration = parse_duration(written)
    try:
        if duration is None:
            at = datetime.fromisoformat(written).astimezone()
        else:
            at = datetime.now().astimezone() - timedelta(seconds=duration)
        return Moment(written, at.timestamp())
    except (ValueError, OverflowError, OSError):
        problem = f"must be a duration or a date, not {written!r}"
        raise Invalid(problem, hint="for example 2d, 1h30m, 2026-01-31 or 2026-01-31T18:00") from None


def one_of(*names: str) -> Callable[[object], Any]:
    """Return a parser that accepts one of `names`."""

    def parse(raw: object) -> Any:
        if raw in names:
            return raw
        raise Invalid(f"must be {', '.join(names[:-1])} or {names[-1]}, not {raw!r}")

    return parse


def directory(raw: object) -> str | None:
    """Parse a directory on the server, as `trips/2026`; `.` for none, so that it overrides a config file."""
    written = text(raw).removesuffix("/")
    if written == ".":
        return None
    written = written.removeprefix("./")
    if any(part in ("", ".", "..") for part in written.split("/")):
        raise Invalid(
            f"must be a relative path without . and .., not {raw!r}", hint="for example trips/2026; . for no directory"
        )
    if re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", written):
        raise Invalid(f"contains a control character or invalid text: {raw!r}")
    if "\\" in written:
        raise Invalid(f"contains a backslash: {raw!r}", hint="separate directories with /")
    return written


def path(raw: object) -> Path:
    """Parse a local path; `~` is the home directory."""
    written = text(raw)
    if "\0" in written:
        raise Invalid(f"{raw!r} is not a path: it contains a NUL character")
    try:
        return Path(os.path.expanduser(written))  # `Path.expanduser` raises without a home directory
    except RuntimeError as error:  # "~nobody"
        raise Invalid(f"{raw!r}: {error}") from None


def path_or_stdin(raw: object) -> Path | Literal["-"]:
    """Parse a path, or `-` for standard input."""
    return "-" if raw == "-" else path(raw)


def secret(raw: object) -> str:
    """Parse a token: one word of printable ASCII. No message shows it."""
    if not isinstance(raw, str):
        raise Invalid("must be text")
    word = raw.strip()
    remember(word)
    if not word:
        raise Invalid("is empty")
    if not re.fullmatch(r"[\x21-\x7e]+", word):
        raise Invalid("must be one word of printable ASCII", hint="check for line breaks or a pasted 'Bearer '")
    return word


def command(raw: object) -> str:
    """Parse a shell command. No message shows it, since it may contain secrets."""
    if not isinstance(raw, str) or not raw.strip():
        raise Invalid("must be a shell command")
    return raw


def header(raw: object) -> Header:
    """Parse `Name: value` on one line."""
    name, colon, value = raw.partition(":") if isinstance(raw, str) else ("", "", "")
    name, value = name.strip(), value.strip(" \t")
    if is_secret_header(name):
        remember(value)
        remember(value.rpartition(" ")[2])
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise Invalid("must be written NAME:VALUE", hint="for example 'X-Team: video'")
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
        raise Invalid(f"the value of {name} contains a line break or control character")
    if not value.isascii():
        raise Invalid(f"the value of {name} must be ASCII")
    return Header(name, value)


def metadata(raw: object) -> Metadata:
    """Parse `KEY=TEMPLATE`, or `KEY` for a value that each line of a list has."""
    name, equals, template = text(raw).partition("=")
    if not re.fullmatch(r"[!-+\--~]+", name):
        raise Invalid(
            f"must be written KEY=TEMPLATE, not {raw!r}",
            hint="a key is ASCII without spaces and commas, for example 'title={stem}'",
        )
    unknown = next((field for field in FIELD.findall(template) if field not in FIELDS), None)
    if unknown is not None:
        fields = ", ".join(f"{{{field}}}" for field in FIELDS)
        raise Invalid(f"{name}: there is no field {{{unknown}}}", hint=f"fields are {fields}")
    return Metadata(name, template if equals else None)


def merged(own: tuple[Any, ...], named: tuple[Any, ...], *, ignore_case: bool) -> tuple[Any, ...]:
    """Return the headers or metadata of named defaults and `own`, which replace those of the same name."""
    names = {item.name.lower() if ignore_case else item.name for item in own}
    return (*(item for item in named if (item.name.lower() if ignore_case else item.name) not in names), *own)
