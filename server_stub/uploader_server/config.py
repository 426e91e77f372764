"""What a server is told before it starts: limits, flavour, faults, and the values people may write for them."""

from __future__ import annotations

import ipaddress
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from uploader_server.analysis.stages import AnalysisMode

if TYPE_CHECKING:
    from pathlib import Path

Flavour = Literal["bundled", "reference"]
Durability = Literal["fsync", "none"]

MIB = 1 << 20
_SIZE = re.compile(r"(?P<number>\d{1,18}(?:\.\d{1,18})?)\s*(?P<unit>[kmgt]?)(?P<decimal>i?b?)", re.IGNORECASE)


class StartupError(Exception):
    """The server can't start as asked; the message names the option at fault and what to do about it."""


@dataclass(frozen=True)
class RealtimeMode:
    """How one side of Socket.IO misbehaves.

    - `up`: it works.
    - `off`: the path answers 404, as if there were no Socket.IO.
    - `refuse`: every connection is refused at once (403).
    - `hang`: connections are accepted and never answered.
    - `flap`: from the first connection on, `seconds` up, `seconds` down, and so on. Going down cuts every live
      connection and refuses new ones.
    - `kill-after`: `seconds` after the first connection it is cut and never comes back.
    - `kick`: every `seconds`, counted from the first connection, live connections are cut; new ones are welcome.
    - `freeze`: `seconds` after the first connection nothing gets through any more, and nothing is closed.
    """

    kind: Literal["up", "off", "refuse", "hang", "flap", "kill-after", "kick", "freeze"] = "up"
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str | None) -> RealtimeMode:
        """Read `off`, `hang`, `refuse`, or `flap`, `kill-after`, `kick`, `freeze` with `:SECONDS`; None: it works.

        Raises ValueError, with the legal values, for anything else.
        """
        if text is None:
            return cls()
        kind, _, seconds = text.partition(":")
        if not seconds:
            for plain in ("up", "off", "refuse", "hang"):
                if text == plain:
                    return cls(plain)
        for timed in ("flap", "kill-after", "kick", "freeze"):
            if kind == timed and re.fullmatch(r"\d+(\.\d+)?", seconds) and float(seconds) > 0:
                return cls(timed, float(seconds))
        raise ValueError(
            f"{text!r} is none of off, hang, refuse, flap:SECONDS, kill-after:SECONDS, kick:SECONDS, freeze:SECONDS"
        )


def parse_size(text: str) -> int:
    """Bytes from `512`, `8M` or `8MiB` (binary), `8MB` (decimal). Raises ValueError for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write 8M (8 MiB) or 8MB (8,000,000 bytes)")
    power = " kmgt".index(match["unit"].lower() or " ")
    base = 1000 if match["decimal"].lower() == "b" else 1024
    number = match["number"]
    size = int(float(number) * base**power) if "." in number else int(number) * base**power
    if size < 1:
        raise ValueError(f"{text!r} is no size: it must be at least one byte")
    return size


def check_network(text: str) -> None:
    """Raise ValueError for what is neither an address nor a network."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is no address and no network; write 10.0.0.7 or 10.0.0.0/8") from None


def check_origin(text: str) -> None:
    """Raise ValueError for what is no origin of a web page."""
    if text != "*" and re.fullmatch(r"https?://[^/\s?#@]+", text) is None:
        raise ValueError(f"{text!r} is no origin; write it as https://app.example, without a path (or * for any)")


@dataclass(frozen=True)
class ServerConfig:
    """Everything that decides how a server behaves. A value of None takes the flavour's own (see `_OWN`).

    Units: sizes are bytes, times are seconds, except `latency_ms`.
    """

    host: str = "127.0.0.1"
    port: int = 8005
    root: Path | None = None
    """Where files are kept; None: a temporary directory that is removed at the stop."""
    durability: Durability | None = None
    """What was confirmed survives a loss of power (`fsync`), or the end of the process. None: `fsync` with a root."""
    flavour: Flavour = "bundled"
    max_files: int | None = None
    max_size: int | None = None
    types: tuple[str, ...] | None = None
    """Allowed file name endings without the dot; `("*",)` allows any."""
    mixed_types: bool = True
    relative_paths: bool = True
    rate_limit: int | None = None
    """Requests over `/api/*` for each client address in one `rate_window`; 0: no limit."""
    rate_window: float = 900.0
    session_ttl: float = 24 * 3600.0
    """A session that nobody used for this long is forgotten; one with a request under way never is."""
    tus: bool = True
    """Whether uploads can be resumed by tus 1.0 (bundled only)."""
    anonymous_tus: bool = True
    """Whether tus uploads may come without a session."""
    packs: bool = True
    """Whether packs of small files and the lookup are offered (bundled only)."""
    upload_ttl: float = 7 * 24 * 3600.0
    """A tus upload that nobody used for this long expires: unfinished data goes, a stored file stays.

    The answer to a pack is remembered for as long.
    """
    faults: tuple[str, ...] = ()
    """Rules of what goes wrong, see `faults.table`. The next three, `fail_files` and `analysis` are short forms."""
    fault_control: bool = False
    """Whether `/faults` changes the rules at run time. For tests: only on a loopback address."""
    realtime: str | None = None
    """How both transports of Socket.IO misbehave, see `RealtimeMode.parse`."""
    websocket: str | None = None
    """The same for the websocket transport alone."""
    latency_ms: float = 0.0
    """Added to every request, and to every message that a websocket sends."""
    processing_seconds: float | None = None
    """How long each file is processed after the last byte of its request."""
    request_timeout: float | None = None
    """A whole request must arrive within this time (reference: 300 s); 0: no such limit."""
    idle_timeout: float = 300.0
    """A body that sends nothing for this long is given up with 408."""
    body_timeout: float = 30.0
    """The whole body of a call that is no upload must arrive within this time; else 408."""
    progress_linger: float = 5.0
    """Reference only: `/progress` is gone this long after the end."""
    fail_files: tuple[str, ...] = ()
    """Files whose name matches one of these globs fail inside a 200."""
    analysis_seconds: float = 3.0
    """How long a simulated analysis takes."""
    analysis: str | None = None
    """How analyses misbehave, see `AnalysisMode.parse`."""
    jwt_secret: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    auth_token: str | None = field(default=None, repr=False)
    """Where it is set, all calls but `middleware.FREE` need it as a bearer token, and Socket.IO's handshake as well."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose web pages may call, as `https://app.example`; `*` is any. The server's own one always may."""
    allow_hosts: tuple[str, ...] = ()
    """Names by which the server may be called beside addresses and `localhost`. Checked on loopback, or where given."""
    behind_proxy: tuple[str, ...] = ()
    """Addresses or networks of proxies: what these say in `X-Forwarded-For` and `X-Forwarded-Host` is believed."""
    max_connections: int = 500
    """Realtime connections of one client address at a time; 0: no limit. See also `max_per_address`."""
    max_joins: int = 10_000
    """Rooms of one realtime connection at a time; 0: no limit."""
    access_log: Path | Literal["-"] | None = None
    """A file to append a line for each request to; `-` is stderr."""
    access_log_format: Literal["plain", "json"] = "plain"
    remembered_requests: int = 10_000
    """How many of the last requests `Faults.requests` keeps."""

    def __post_init__(self) -> None:
        """Check the values that are written as text. Raises ValueError."""
        if self.flavour not in _OWN:
            raise ValueError(f"flavour: {self.flavour!r} is none of {', '.join(_OWN)}")
        for proxy in self.behind_proxy:
            check_network(proxy)
        for origin in self.cors_origins:
            check_origin(origin)
        RealtimeMode.parse(self.realtime)
        RealtimeMode.parse(self.websocket)
        AnalysisMode.parse(self.analysis)

    @property
    def durable(self) -> bool:
        """Whether what was confirmed survives a loss of power (docs/protocol.md, section 8)."""
        return self.root is not None if self.durability is None else self.durability == "fsync"

    @property
    def reference(self) -> bool:
        """Whether this server behaves like the reference backend (docs/protocol.md, section 3)."""
        return self.flavour == "reference"

    @property
    def max_per_address(self) -> int:
        """Connections of any kind of one client address at a time; 0: no limit.

        A client on long polling has two for each realtime connection; the rest is for its uploads.
        """
        return 2 * self.max_connections + 256 if self.max_connections else 0

    @property
    def loopback(self) -> bool:
        """Whether it listens to this machine alone."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # another name
            return False

    @property
    def rules(self) -> tuple[str, ...]:
        """Every fault as a rule, with those that have short forms."""
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

    @property
    def limits(self) -> Limits:
        """The limits in force: what was asked for, else the flavour's own."""
        own = _OWN[self.flavour]
        return Limits(
            max_files=own.max_files if self.max_files is None else self.max_files,
            max_size=own.max_size if self.max_size is None else self.max_size,
            types=own.types if self.types is None else tuple(t.lower().lstrip(".") for t in self.types),
            mixed_types=own.mixed_types and self.mixed_types,
            relative_paths=own.relative_paths and self.relative_paths,
            rate=own.rate if self.rate_limit is None else self.rate_limit,
            processing=own.processing if self.processing_seconds is None else self.processing_seconds,
            request_timeout=own.request_timeout if self.request_timeout is None else self.request_timeout,
        )


@dataclass(frozen=True)
class Limits:
    """The limits in force, all of them known (bytes, seconds)."""

    max_files: int
    max_size: int
    types: tuple[str, ...]
    mixed_types: bool
    relative_paths: bool
    rate: int
    processing: float
    request_timeout: float

    def allows(self, extension: str) -> bool:
        """Whether a file name ending (without the dot, lower case) may be uploaded."""
        return "*" in self.types or extension in self.types


_OWN: dict[Flavour, Limits] = {
    "bundled": Limits(
        max_files=10_000,
        max_size=1 << 40,
        types=("*",),
        mixed_types=True,
        relative_paths=True,
        rate=0,
        processing=0.0,
        request_timeout=0.0,
    ),
    # Wire contract 3.2, 3.10, 3.11 and 3.12.
    "reference": Limits(
        max_files=3,
        max_size=300 * MIB,
        types=("mp4", "avi"),
        mixed_types=False,
        relative_paths=False,
        rate=100,
        processing=2.7,
        request_timeout=300.0,
    ),
}
