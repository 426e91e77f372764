"""What limits a run: a stop, `--limit-rate`, the server's rate limit, and the limits it was last seen with."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uploader_cli.core.packs import parse_offer
from uploader_cli.core.protocol import as_object, number, parse_http_date, parse_limits, whole
from uploader_cli.core.tus import parse_capabilities
from uploader_cli.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uploader_cli.core.packs import PackOffer
    from uploader_cli.core.plan import Limits
    from uploader_cli.core.tus import Capabilities

CREDIT = 0.2
"""Seconds of unused time that may be made up for: sleeps overshoot, and between two chunks nothing is sent."""
GRAIN = 0.05
"""A grant is what the rate sends in this many seconds: bursts stay short, and early answers are seen soon."""
LEAST_GRANT = 32
MOST_GRANT = 1 << 20
KEPT_BACK = 5
"""Calls that polls leave unused, besides two for each session still to come (docs/protocol.md, section 2)."""
POLL_INTERVAL = 1.0
ROOMY = 60
"""With this many calls to spare there is a poll every second; with fewer the interval grows in proportion."""
DEFAULT_WAIT = 60.0
"""Seconds to wait after a 429 that names no time."""
MOST_SERVERS = 100
"""Servers whose limits are remembered."""


class Stop:
    """A flag that is set once, from any thread or from a signal handler's loop, and never cleared."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Stop at the next resumable point."""
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Interrupted` once stopped."""
        if self._event.is_set():
            raise Interrupted("interrupted")

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`, or raise `Interrupted` as soon as stopped."""
        if self._event.wait(min(seconds, threading.TIMEOUT_MAX)):  # a server may ask for any number of years
            raise Interrupted("interrupted")


class Limiter:
    """Grant bytes at `rate` bytes/s, first come, first served (`--limit-rate`). No thread waits under the lock."""

    def __init__(
        self, rate: float, sleep: Callable[[float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`sleep` is `Stop.sleep`: an interrupt ends the wait with `Interrupted`."""
        self._rate, self._sleep, self._clock = rate, sleep, clock
        self._most = int(min(MOST_GRANT, max(LEAST_GRANT, rate * GRAIN)))
        self._lock = threading.Lock()
        self._free_at = clock()

    def __call__(self, wanted: int) -> int:
        """Wait until bytes may be sent and return how many of `wanted` (0 only for 0): asked before each piece."""
        granted = min(wanted, self._most)
        if granted <= 0:
            return 0
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now - CREDIT)
            wait = self._free_at - now
            self._free_at += granted / self._rate
        if wait > 0:
            self._sleep(wait)
        return granted


def unlimited(wanted: int) -> int:
    """Grant everything."""
    return wanted


class RateBudget:
    """Calls left, by the `X-RateLimit-*` headers, and pauses after a 429. Uploads and polls of a run share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        """`clock` measures waits; `wall` is for the reset time, which servers give in unix seconds."""
        self._clock, self._wall = clock, wall
        self._lock = threading.Lock()
        self._remaining: int | None = None
        self._reset: float | None = None
        self._paused_until = self._polls_paused_until = 0.0
        self.sessions_to_come = 0
        self.answered = False
        """True once there was any answer."""

    @property
    def metered(self) -> bool:
        """True where the server counts calls."""
        return self._remaining is not None

    def note(self, headers: Mapping[str, str]) -> None:
        """Read the headers of an answer."""
        self.answered = True
        remaining, left = whole(headers.get("X-RateLimit-Remaining")), whole(headers.get("X-RateLimit-Reset"))
        if remaining is None:
            return
        with self._lock:
            self._remaining = remaining
            if left is not None:
                self._reset = self._clock() + max(0.0, left - self._wall() if left > 1e9 else left)

    def pause(self, seconds: float) -> None:
        """Let no call be made for `seconds`: one of the upload's was answered 429."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def pause_polls(self, seconds: float) -> None:
        """Let no poll be made for `seconds`: one was answered 429. The upload is not delayed."""
        with self._lock:
            self._polls_paused_until = max(self._polls_paused_until, self._clock() + seconds)

    def pause_left(self) -> float:
        """Return the seconds until calls of the upload are allowed again."""
        return max(0.0, self._paused_until - self._clock())

    def poll_interval(self) -> float:
        """Return the seconds between two polls: 1 while calls are left, more as they run out, then until the reset."""
        interval, until_reset = POLL_INTERVAL, DEFAULT_WAIT
        if self._remaining is not None:
            if self._reset is not None:
                until_reset = max(POLL_INTERVAL, self._reset - self._clock())
            room = self._remaining - (2 * self.sessions_to_come + KEPT_BACK)
            interval = until_reset if room <= 0 else max(POLL_INTERVAL, min(ROOMY / room, until_reset))
        return max(interval, max(self._paused_until, self._polls_paused_until) - self._clock())


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return `Retry-After` in seconds, a date counted from now; None where it is missing or can't be read."""
    value = headers.get("Retry-After") or ""
    seconds = whole(value)
    if seconds is not None:
        return float(seconds)
    date = parse_http_date(value)
    return None if date is None else max(0.0, date - time.time())


# --- what was last seen of each server, so that a dry run can plan without a call (docs/protocol.md, section 3.12) ----


@dataclass(frozen=True, slots=True)
class KnownServer:
    """What a server takes, what it offers of resumable uploads, and whether it counts calls."""

    limits: Limits
    tus: Capabilities | None = None
    metered: bool = False
    chunk: int | None = None
    """Bytes of the largest chunk that it takes, known from a 413 (`ChunkSize.limit`)."""
    lookup: int = 1
    """Files that it can be asked for in one call."""
    packs: PackOffer | None = None


def recall(server: str) -> KnownServer | None:
    """How `server` (its URL, or that of a tus endpoint) was when it was last asked; None where that isn't known."""
    known = as_object(_servers(_cache()).get(server))
    limits = parse_limits(known)
    if limits is None:
        return None
    tus, chunk = parse_capabilities(known.get("tus"), server), number(known.get("chunk"))
    lookup = max(1, int(number(known.get("lookup")) or 1))
    packs = parse_offer(known.get("packs"), server)
    limit = int(chunk) if chunk is not None else None
    return KnownServer(limits, tus, known.get("metered") is True, limit, lookup, packs)


def remember(server: str, seen: KnownServer) -> None:
    """Keep `seen` for `server`. A state directory that can't be written costs a dry run its knowledge, no more."""
    path = _cache()
    known = _servers(path)
    entry: dict[str, object] = {
        **_wire_form(seen.limits),
        "metered": seen.metered,
        "chunk": seen.chunk,
        "lookup": seen.lookup,
    }
    if seen.tus is not None:
        entry["tus"] = _wire_form(seen.tus)
    if seen.packs is not None:
        entry["packs"] = _wire_form(seen.packs)
    if known.pop(server, None) == entry:
        return
    known[server] = entry
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            fresh = Path(scratch, path.name)
            fresh.write_text(json.dumps(dict(list(known.items())[-MOST_SERVERS:])), encoding="utf-8")
            fresh.replace(path)


def _wire_form(value: Limits | Capabilities | PackOffer) -> dict[str, object]:
    """Return the fields as a server's answers name them: `max_files` is `maxFiles`."""
    fields: dict[str, object] = {}
    for name, item in asdict(value).items():
        first, *rest = name.split("_")
        fields[first + "".join(map(str.title, rest))] = sorted(item) if isinstance(item, frozenset) else item
    return fields


def _servers(path: Path) -> dict[str, object]:
    try:
        return as_object(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _cache() -> Path:
    from platformdirs import user_state_path

    return user_state_path("uploader") / "limits.json"
