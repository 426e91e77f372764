"""The configuration of a server, which declares the options of the command line."""

# ruff: noqa: RUF009 - `option` returns a new field for each call

from __future__ import annotations

import functools
import ipaddress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from uploader_server.errors import Code, Refusal
from uploader_server.feature import Feature, features
from uploader_server.options import (
    Option,
    check_network,
    check_origin,
    checked,
    option,
    parse_auth_token,
    parse_count,
    parse_duration,
    parse_files,
    parse_log,
    parse_percent,
    parse_port,
    parse_rate,
    parse_seconds,
    parse_size,
    parse_types,
    random_secret,
    secret_in,
)
from uploader_server.pace import Pace
from uploader_server.wire import extension

Flavour = Literal["bundled", "reference"]
Durability = Literal["fsync", "none"]

T = TypeVar("T")
MIB = 1 << 20
WRONG_TYPE: Code = "INVALID_FILE_FORMAT"


def _parse_rule(text: str) -> str:
    from uploader_server.simulation.rules import parse_rule  # only with its options

    return parse_rule(text).text


def socket_rule(side: str, mode: str) -> str:
    """Return the rule of a short form: `socket-flap:realtime:4` for `flap:4`."""
    kind, colon, seconds = mode.partition(":")
    return f"socket-{kind}:{side}{colon}{seconds}"


def analysis_rules(modes: str) -> list[str]:
    """Return the rules of short forms: `analysis-fail:report` for `fail:report`."""
    return [f"analysis-{mode.strip()}" for mode in modes.split(",")]


def _check_realtime(text: str) -> None:
    from uploader_server.simulation.rules import parse_short

    parse_short(text, socket_rule("realtime", text))


def _check_analysis(text: str) -> None:
    from uploader_server.simulation.rules import parse_short

    parse_short(text, *analysis_rules(text))


def _with_features(config: type[T]) -> type[T]:
    """Add the options of the features to the fields, each before the one that it names."""
    for feature in features():
        for one in feature.options:
            parse = functools.partial(_parsed, feature, one.parse)
            setattr(config, one.name, option(one.default, one.flag, one.text, parse))
            rows = list(config.__annotations__.items())
            rows.insert([name for name, _ in rows].index(one.before), (one.name, Any))
            config.__annotations__ = dict(rows)
    return config


def _parsed(feature: Feature, parser: str, text: str) -> Any:
    return feature.load(parser)(text)


@dataclass(frozen=True)
@_with_features
class ServerConfig:
    """The configuration; None is the flavour's value (see `_OWN`). In bytes and seconds, except `latency_ms`."""

    host: str = option(
        "127.0.0.1", "--host ADDRESS", "Listen on ADDRESS; :: for all, IPv4 and IPv6. [default: 127.0.0.1]"
    )
    port: int = option(8005, "--port N", "Port; 0 selects a free one. [default: 8005]", parse_port)
    root: Path | None = option(None, "--root DIR", "Store files in DIR. [default: a temporary directory]", Path)
    durability: Durability | None = option(
        None,
        "--durability KIND",
        "fsync (confirmed data survives a power failure) or none. [default: fsync with --root]",
        ("fsync", "none"),
    )
    flavour: Flavour = option(
        "bundled", "--as KIND", "bundled, or reference with its quirks. [default: bundled]", ("bundled", "reference")
    )
    max_files: int | None = option(None, "--max-files N", "Maximum files in one session.", parse_files)
    max_size: int | None = option(None, "--max-size SIZE", "Maximum file size, as 300M or 8MB.", parse_size)
    types: tuple[str, ...] | None = option(
        None, "--types LIST", "Allowed types, as mp4,avi. [default: any]", parse_types
    )
    mixed_types: bool = True
    relative_paths: bool = True
    rate_limit: int | None = option(None, "--rate-limit N", "Maximum requests in 15 minutes; 0: no limit.", parse_count)
    rate_window: float = 900.0
    session_ttl: float = option(
        24 * 3600.0, "--session-ttl TIME", "Time until an unused session expires, as 90, 10m or 1h30m.", parse_seconds
    )
    tus: bool = option(default=True, flag="--no-tus", text="Disable resumable uploads (tus 1.0).")
    packs: bool = option(default=True, flag="--no-packs", text="Disable packs of small files and the lookup.")
    anonymous_tus: bool = option(
        default=True, flag="--no-anonymous-tus", text="Accept tus uploads only within sessions."
    )
    upload_ttl: float = option(
        7 * 24 * 3600.0, "--upload-ttl TIME", "Time until an idle, unfinished tus upload expires.", parse_seconds
    )
    request_timeout: float | None = None  # maximum time to receive a request (reference: 300 s); 0: no limit
    min_rate: int | None = option(
        None,
        "--min-rate SIZE",
        "Minimum bytes per second of an upload's body; 0: no minimum. [default: 1K]",
        parse_rate,
    )
    min_rate_window: float = 60.0  # time over which `min_rate` is measured
    idle_timeout: float = 300.0  # maximum time without data while receiving a body; else 408
    body_timeout: float = 30.0  # maximum time to receive the body of a call other than an upload; else 408
    progress_linger: float = 5.0  # reference only: time from the end of a session until `/progress` is 404
    faults: tuple[str, ...] = option(
        (), "--fault RULE", "Inject a fault, as status:patch#2:503; repeatable.", _parse_rule
    )
    fault_control: bool = option(
        default=False, flag="--fault-control", text="Let tests change the faults at /faults (loopback only)."
    )
    realtime: str | None = option(
        None,
        "--realtime HOW",
        "Break Socket.IO: off, hang, refuse, flap:SECONDS or kill-after:SECONDS.",
        checked(_check_realtime),
    )
    websocket: str | None = option(
        None, "--websocket HOW", "The same for the websocket transport only.", checked(_check_realtime)
    )
    latency_ms: float = option(0.0, "--latency MS", "Delay every response by MS milliseconds.", parse_count)
    processing_seconds: float | None = option(
        None,
        "--processing TIME",
        "Processing of each file of a batch or tus upload after its last byte; none of packs.",
        parse_duration,
    )
    fail_files: tuple[str, ...] = option((), "--fail-file GLOB", "Fail files with matching names; repeatable.")
    analyses: bool = option(
        default=False, flag="--analyses", text="Answer analyses, which are simulated, also with --root."
    )
    analysis_seconds: float | None = option(
        None, "--analysis-seconds TIME", "Duration of an analysis. [default: 3]", parse_duration
    )
    analysis: str | None = option(
        None,
        "--analysis HOW",
        "Break analyses: silent, hang, fail:STAGE or refuse:STAGE, separated by commas.",
        checked(_check_analysis),
    )
    jwt_secret: str = option(
        random_secret,
        "--jwt-secret-file FILE",
        "Secret for signing tokens. [default: random]",
        secret_in("--jwt-secret-file"),
        shown=False,
    )
    auth_token: str | None = option(
        None, "--auth-token-file FILE", "Token that all requests and sockets must send.", parse_auth_token, shown=False
    )
    """Bearer token required by all calls except `middleware.free_paths`, and by Socket.IO; None: no token."""
    cors_origins: tuple[str, ...] = option(
        (),
        "--cors-origin ORIGIN",
        "Allow web pages of this origin, as https://app.example; repeatable.",
        checked(check_origin),
    )
    allow_hosts: tuple[str, ...] = option((), "--allow-host NAME", "Accept this host name; repeatable.")
    behind_proxy: tuple[str, ...] = option(
        (),
        "--behind-proxy ADDRESS",
        "Trust X-Forwarded-For from this address or network; repeatable.",
        checked(check_network),
    )
    max_connections: int = option(
        500, "--max-connections N", "Maximum sockets per client; 0: no limit. [default: 500]", parse_count
    )
    max_joins: int = option(
        10_000, "--max-joins N", "Maximum sessions joined per socket; 0: no limit. [default: 10000]", parse_count
    )
    max_share: int = option(
        25,
        "--max-share PERCENT",
        "Part of sessions, unfinished uploads, joins and connections that one client may hold. [default: 25]",
        parse_percent,
    )
    access_log: Path | Literal["-"] | None = option(
        None, "--access-log FILE|-", "Append a line per request to FILE, or to stderr (-).", parse_log
    )
    access_log_format: Literal["plain", "json"] = option(
        "plain", "--access-log-format KIND", "Line format: plain or json. [default: plain]", ("plain", "json")
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
        for mode in (self.realtime, self.websocket):
            if mode is not None:
                _check_realtime(mode)
        if self.analysis is not None:
            _check_analysis(self.analysis)

    @property
    def durable(self) -> bool:
        """Whether confirmed data survives a power loss (docs/extensions.md)."""
        return self.root is not None if self.durability is None else self.durability == "fsync"

    @property
    def has_analyses(self) -> bool:
        """Whether analyses are answered: a root with real files has no simulated ones unless an option asks for them.

        Those are `--analyses`, `--as reference` and all about analyses.
        """
        asked = self.analyses or self.analysis_seconds is not None
        return self.root is None or self.reference or asked or any(rule.startswith("analysis-") for rule in self.rules)

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
            if mode is not None:
                rules.append(socket_rule(side, mode))
        if self.latency_ms:
            rules.append(f"latency:{self.latency_ms}")
        rules += [f"fail-file:{glob}" for glob in self.fail_files]
        rules += [] if self.analysis is None else analysis_rules(self.analysis)
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


OPTIONS = (
    *(Option.of(spec) for spec in fields(ServerConfig) if spec.metadata),
    Option("list_faults", "--list-faults", "", "Print all faults with examples and exit."),
    Option("print_token", "--print-token", "", "Print a token for `delete` and exit; needs --jwt-secret-file."),
    Option("verbose", "--verbose", "", "Print a token for `delete` at the start, and the server's log.", short=("-v",)),
)
"""All options of the command line; the last three are about the process, not about the server."""


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

    def allows(self, ending: str) -> bool:
        """Return whether a file extension (without the dot, lower case) is allowed."""
        return "*" in self.types or ending in self.types

    def check(self, name: str, first: str | None) -> None:
        """Raise Refusal for a file whose type a session refuses; `first` is the extension of its first file."""
        if not self.allows(extension(name)):
            message = f"Files of this type are not accepted: {name}"
            raise Refusal(WRONG_TYPE, message, allowedFormats=[f".{kind}" for kind in self.types])
        if not self.mixed_types and first not in {None, extension(name)}:
            raise Refusal(WRONG_TYPE, "All files of a session must have the same type")


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
