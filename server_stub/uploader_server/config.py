"""The configuration of a server, and the parsing of its values."""

# ruff: noqa: RUF009 - `option` returns a new field for each call

from __future__ import annotations

import functools
import ipaddress
import math
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from uploader_server.analysis.stages import AnalysisMode
from uploader_server.http.pace import Pace

Flavour = Literal["bundled", "reference"]
Durability = Literal["fsync", "none"]

MIB = 1 << 20
_SIZE = re.compile(r"(?P<number>\d{1,18}(?:\.\d{1,18})?)\s*(?P<unit>[kmgt]?)(?P<decimal>i?b?)", re.IGNORECASE)
_DURATION = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
_MODE = re.compile(
    r"(?P<kind>up|off|refuse|hang)|(?P<timed>flap|kill-after|kick|freeze):(?P<seconds>\d+(\.\d+)?)", re.ASCII
)


class StartupError(Exception):
    """The server can't start; the message names the option, `hint` the fix."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class RealtimeMode:
    """A fault of one or both Socket.IO transports: `up` is none, for the others see `faults.table`."""

    kind: Literal["up", "off", "refuse", "hang", "flap", "kill-after", "kick", "freeze"] = "up"
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str | None) -> RealtimeMode:
        """Parse `off`, `hang`, `refuse`, or `flap`, `kill-after`, `kick`, `freeze` with `:SECONDS`; None is `up`.

        Raises ValueError with the allowed values.
        """
        if text is None:
            return cls()
        match = _MODE.fullmatch(text)
        if match is None or (match["seconds"] and not float(match["seconds"])):
            raise ValueError(
                f"{text!r} is not one of off, hang, refuse, flap:SECONDS, kill-after:SECONDS, kick:SECONDS,"
                " freeze:SECONDS"
            )
        return cls(match["kind"] or match["timed"], float(match["seconds"] or 0))  # type: ignore[arg-type]


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


def _at_least(lowest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < lowest:
            raise ValueError(f"{text!r} is not a whole number of at least {lowest}")
        return int(text)

    return parse


_COUNT = _at_least(0)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ValueError(f"{text!r} is not a port: a number from 0 to 65535")
    return int(text)


def _percent(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100:
        raise ValueError(f"{text!r} is not a percentage: a whole number from 1 to 100")
    return int(text)


def _types(text: str) -> tuple[str, ...]:
    types = tuple(part.strip().lower().lstrip(".") for part in text.split(",") if part.strip())
    if not types:
        raise ValueError("give at least one file extension, e.g. mp4,avi (or * for any)")
    return types


def _rate(text: str) -> int:
    return 0 if text == "0" else parse_size(text)


def _log(text: str) -> Path | str:
    return text if text == "-" else Path(text)


def option(default: Any, flag: str, text: str, parse: Any = str) -> Any:
    """Declare a field with a command line option: `--flag METAVAR`, or `--flag` for a switch or with choices.

    `parse` converts the text of the option, or has its choices. A field with the default `()` is repeatable.
    """
    return field(default=default, metadata={"flag": flag, "help": text, "parse": parse})


def _text(check: Callable[[str], object]) -> Callable[[str], str]:
    """Return a parser that checks a value and keeps its text."""

    def parse(text: str) -> str:
        check(text)
        return text

    return parse


@dataclass(frozen=True)
class ServerConfig:
    """The configuration; None is the flavour's value (see `_OWN`). In bytes and seconds, except `latency_ms`."""

    host: str = option(
        "127.0.0.1", "--host ADDRESS", "address to listen on; :: for all (default: 127.0.0.1, this machine only)"
    )
    port: int = option(8005, "--port N", "port; 0 selects a free one (default: 8005)", _port)
    root: Path | None = option(None, "--root DIR", "directory for files (default: temporary, removed on exit)", Path)
    durability: Durability | None = option(
        None, "--durability", "flush confirmed data to disk (default: fsync with --root)", ("fsync", "none")
    )
    flavour: Flavour = option("bundled", "--as", "behaviour to emulate", ("bundled", "reference"))
    max_files: int | None = option(None, "--max-files N", "maximum files per session", _at_least(1))
    max_size: int | None = option(None, "--max-size SIZE", "maximum file size: 8M is 8 MiB, 8MB 8,000,000", parse_size)
    types: tuple[str, ...] | None = option(None, "--types A,B", "allowed file extensions, or *", _types)
    mixed_types: bool = True
    relative_paths: bool = True
    rate_limit: int | None = option(None, "--rate-limit N", "API calls per 15 minutes; 0: no limit", _COUNT)
    rate_window: float = 900.0
    session_ttl: float = option(
        24 * 3600.0, "--session-ttl TIME", "expiry of idle sessions, as 90 or 1h30m", parse_seconds
    )
    tus: bool = option(default=True, flag="--no-tus", text="disable resumable uploads (tus 1.0)")
    anonymous_tus: bool = option(default=True, flag="--no-anonymous-tus", text="require a session for tus uploads")
    packs: bool = option(default=True, flag="--no-packs", text="disable packs of small files and the lookup")
    ui: bool = option(default=True, flag="--no-ui", text="disable the web page at / and the list of sessions")
    upload_ttl: float = option(7 * 24 * 3600.0, "--upload-ttl TIME", "expiry of idle tus uploads", parse_seconds)
    faults: tuple[str, ...] = option((), "--fault RULE", "inject a fault; repeatable")
    fault_control: bool = option(
        default=False, flag="--fault-control", text="change faults at run time at /faults (loopback only)"
    )
    realtime: str | None = option(None, "--realtime V", "faults of Socket.IO, see below", _text(RealtimeMode.parse))
    websocket: str | None = option(None, "--websocket V", "faults of websockets only", _text(RealtimeMode.parse))
    latency_ms: float = option(0.0, "--latency MS", "delay of every request in ms", _COUNT)
    processing_seconds: float | None = option(None, "--processing TIME", "processing time per file", parse_duration)
    request_timeout: float | None = None  # maximum time to receive a request (reference: 300 s); 0: no limit
    min_rate: int | None = option(None, "--min-rate SIZE", "least bytes per second of a body; 0: any", _rate)
    min_rate_window: float = 60.0  # time over which `min_rate` is measured
    idle_timeout: float = 300.0  # maximum time without data while receiving a body; else 408
    body_timeout: float = 30.0  # maximum time to receive the body of a call other than an upload; else 408
    progress_linger: float = 5.0  # reference only: time from the end of a session until `/progress` is 404
    fail_files: tuple[str, ...] = option((), "--fail-file GLOB", "fail matching files inside a 200; repeatable")
    analysis_seconds: float = option(3.0, "--analysis-seconds TIME", "duration of an analysis", parse_duration)
    analysis: str | None = option(None, "--analysis V", "faults of analyses, see below", _text(AnalysisMode.parse))
    jwt_secret: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    auth_token: str | None = field(default=None, repr=False)
    """Bearer token required by all calls except `middleware.FREE`, and by Socket.IO; None: no token."""
    cors_origins: tuple[str, ...] = option(
        (), "--cors-origin ORIGIN", "allow pages of this origin; repeatable", _text(check_origin)
    )
    allow_hosts: tuple[str, ...] = option((), "--allow-host NAME", "allowed Host header; repeatable")
    behind_proxy: tuple[str, ...] = option(
        (), "--behind-proxy ADDRESS", "trust headers of this address; repeatable", _text(check_network)
    )
    max_connections: int = option(500, "--max-connections N", "sockets per client; 0: no limit", _COUNT)
    max_joins: int = option(10_000, "--max-joins N", "rooms per socket; 0: no limit", _COUNT)
    max_share: int = option(25, "--max-share PERCENT", "part of each limit for one client", _percent)
    access_log: Path | Literal["-"] | None = option(None, "--access-log FILE", "a line per request; - is stderr", _log)
    access_log_format: Literal["plain", "json"] = option(
        "plain", "--access-log-format", "format of the access log", ("plain", "json")
    )
    remembered_requests: int = 10_000  # maximum length of `Faults.requests`

    def __post_init__(self) -> None:
        """Validate text values. Raises ValueError."""
        if self.flavour not in _OWN:
            raise ValueError(f"flavour: {self.flavour!r} is not one of {', '.join(_OWN)}")
        for proxy in self.behind_proxy:
            check_network(proxy)
        for origin in self.cors_origins:
            check_origin(origin)
        RealtimeMode.parse(self.realtime)
        RealtimeMode.parse(self.websocket)
        AnalysisMode.parse(self.analysis)

    @property
    def durable(self) -> bool:
        """Whether confirmed data survives a power loss (docs/protocol.md, section 8)."""
        return self.root is not None if self.durability is None else self.durability == "fsync"

    @property
    def reference(self) -> bool:
        """Whether this server behaves like the reference backend (docs/protocol.md, section 3)."""
        return self.flavour == "reference"

    @property
    def max_per_address(self) -> int:
        """Maximum connections of any kind per client address; 0: no limit.

        Long polling uses two connections per realtime connection; the rest is for uploads. `max_share` may be less.
        """
        return 2 * self.max_connections + 256 if self.max_connections else 0

    @functools.cached_property
    def pace(self) -> Pace:
        """How fast the body of an upload must arrive; else 408."""
        return Pace(self.limits.min_rate, self.min_rate_window, self.idle_timeout)

    @property
    def loopback(self) -> bool:
        """Whether `host` is a loopback address."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a host name
            return False

    @property
    def open_to_all(self) -> bool:
        """Whether other machines can reach the server without a token, under any name."""
        return not self.loopback and self.auth_token is None and not self.allow_hosts

    @property
    def rules(self) -> tuple[str, ...]:
        """All faults as rules, including those from short forms."""
        rules = list(self.faults)
        for side, mode in (("realtime", self.realtime), ("websocket", self.websocket)):
            if mode not in {None, "up"}:
                kind, colon, seconds = str(mode).partition(":")
                rules.append(f"socket-{kind}:{side}{colon}{seconds}")
        if self.latency_ms:
            rules.append(f"latency:{self.latency_ms}")
        rules += [f"fail-file:{glob}" for glob in self.fail_files]
        rules += [f"analysis-{word.strip()}" for word in (self.analysis or "").split(",") if word]
        return tuple(rules)

    @functools.cached_property
    def limits(self) -> Limits:
        """The effective limits: configured values, else those of the flavour."""
        own = _OWN[self.flavour]
        given: dict[str, Any] = {
            "max_files": self.max_files,
            "max_size": self.max_size,
            "types": None if self.types is None else tuple(t.lower().lstrip(".") for t in self.types),
            "rate": self.rate_limit,
            "processing": self.processing_seconds,
            "request_timeout": self.request_timeout,
            "min_rate": self.min_rate,
            "mixed_types": own.mixed_types and self.mixed_types,
            "relative_paths": own.relative_paths and self.relative_paths,
        }
        return replace(own, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class Limits:
    """Effective limits (bytes, seconds). The defaults are those of the bundled flavour."""

    max_files: int = 10_000
    max_size: int = 1 << 40
    types: tuple[str, ...] = ("*",)
    mixed_types: bool = True
    relative_paths: bool = True
    rate: int = 0
    processing: float = 0.0
    request_timeout: float = 0.0
    min_rate: int = 1024

    def allows(self, extension: str) -> bool:
        """Return whether a file extension (without the dot, lower case) is allowed."""
        return "*" in self.types or extension in self.types


_OWN: dict[Flavour, Limits] = {
    "bundled": Limits(),
    # docs/protocol.md, sections 3.2, 3.10, 3.11 and 3.12
    "reference": Limits(
        max_files=3,
        max_size=300 * MIB,
        types=("mp4", "avi"),
        mixed_types=False,
        relative_paths=False,
        rate=100,
        processing=2.7,
        request_timeout=300.0,
        min_rate=0,
    ),
}
