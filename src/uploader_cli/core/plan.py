"""Files and the server's limits → sessions, and sessions → requests. Pure: no file is opened, no clock is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uploader_cli.core.codes import FailureCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MIB = 1024 * 1024
SESSION_FILES = 1000
"""Files that one session gets at most, where the server would take more: none is begun late to hold many."""
REQUEST_SECONDS = 150.0
"""A request should arrive in this time: half of the reference backend's limit (wire contract 3.10)."""
UNMEASURED_RATE = 1e6
"""Bytes/s taken for granted until a rate was measured: what one file of 300 MiB needs at least (wire contract 3.10)."""
UNMETERED_FILES = 16
UNMETERED_BYTES = 64 * MIB
"""Where calls cost nothing a request stays small: a broken one is sent again whole, and files are confirmed sooner."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` runs that share a selection; `index` is from 1."""

    index: int
    count: int

    @classmethod
    def of(cls, text: str | None) -> Shard | None:
        """Parse `2/4` as `--shard` has it; None for None."""
        if text is None:
            return None
        index, _, count = text.partition("/")
        return cls(int(index), int(count))


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A selected file. `path` is as selected, `relative_path` what the server may call it; `mtime_ns` as at the walk.

    Of a listed file that could not be looked at `size` and `mtime_ns` are 0: it is told of, and never sent.

    `named` is True for a file that was given as an argument or in a list: it may not be left out in silence.
    A list may give it a `category` of its own, and the `sha256` (hex) that it must have. `destination` is empty where
    path and run say where it goes; else it sets the file apart from the same one sent elsewhere.
    """

    file: int
    path: str
    relative_path: str
    size: int
    mtime_ns: int
    named: bool = False
    category: str | None = None
    sha256: str | None = None
    destination: str = ""

    @property
    def name(self) -> str:
        """The base name."""
        return self.relative_path.rsplit("/", 1)[-1]

    @property
    def kind(self) -> str:
        """The type as servers count it: the extension, lower case, without its dot."""
        stem, dot, suffix = self.name.rpartition(".")
        return suffix.lower() if dot and stem else ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes: files per session, bytes per file (that size included), extensions (`*` is any)."""

    max_files: int
    max_file_size: int
    allowed_types: frozenset[str]
    mixed_types: bool = False
    relative_paths: bool = False
    empty_files: bool = False
    """Whether a file of size 0 can be sent: by tus it can."""


ASSUMED = Limits(max_files=3, max_file_size=300 * MIB, allowed_types=frozenset({"mp4", "avi"}))
"""The reference backend's limits (wire contract 3.12), for a server that has not told its own yet."""

ENDLESS = 1 << 62
"""The limit of a tus server that names none."""


def endless(max_size: int | None) -> Limits:
    """Return what a tus server takes: one endless session, as it were, of files of `max_size` bytes at most."""
    return Limits(ENDLESS, max_size or ENDLESS, frozenset({"*"}), mixed_types=True)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the server would not take a file."""

    code: FailureCode
    message: str


@dataclass(slots=True)
class PlannedSession:
    """Files that go into one session, in their order."""

    files: list[LocalFile] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @property
    def category(self) -> str | None:
        """Of all its files; None: the run's own."""
        return self.files[0].category if self.files else None


def refusal(file: LocalFile, limits: Limits) -> Refusal | None:
    """Why `file` would be refused, or None: checked here because the server reads a whole body first (3.12)."""
    if "*" not in limits.allowed_types and file.kind not in limits.allowed_types:
        allowed = ", ".join(sorted(limits.allowed_types))
        kind = f".{file.kind}" if file.kind else "no extension"
        return Refusal(FailureCode.REFUSED_TYPE, f"the server takes {allowed} only, this is {kind}")
    if file.size == 0 and not limits.empty_files:
        return Refusal(FailureCode.EMPTY, "the file is empty, and servers refuse size 0")
    if file.size > limits.max_file_size:
        return Refusal(
            FailureCode.REFUSED_SIZE,
            f"{file.size} bytes are more than the server's limit of {limits.max_file_size}",
        )
    return None


_Kind = tuple[str | None, str]
"""Category and type."""


class Planner:
    """Cuts acceptable files into sessions: at most `max_files` and `SESSION_FILES` each, of one type and category.

    No two files of equal base name share a session unless the server tells paths apart (`relative_paths`).
    """

    def __init__(self, limits: Limits) -> None:
        """No file is planned yet."""
        self._limits, self._most = limits, min(limits.max_files, SESSION_FILES)
        self._open: dict[_Open, None] = {}  # in the order of their first files
        self._by_kind: dict[_Kind, list[_Open]] = {}

    def add(self, file: LocalFile) -> PlannedSession | None:
        """Plan one more file; the session that is full with it, if one is."""
        kind = (file.category, "" if self._limits.mixed_types else file.kind)
        candidates = self._by_kind.setdefault(kind, [])
        name = file.relative_path if self._limits.relative_paths else file.name
        target = next((item for item in candidates if name not in item.names), None)
        if target is None:
            target = _Open(kind)
            candidates.append(target)
            self._open[target] = None
        target.session.files.append(file)
        target.names.add(name)
        return self._close(target) if len(target.session.files) >= self._most else None

    def cut(self) -> PlannedSession | None:
        """The session that has waited longest, full or not; None where none is open."""
        oldest = next(iter(self._open), None)
        return self._close(oldest) if oldest is not None else None

    def _close(self, target: _Open) -> PlannedSession:
        del self._open[target]
        candidates = self._by_kind[target.kind]
        candidates.remove(target)
        if not candidates:
            del self._by_kind[target.kind]
        return target.session


@dataclass(slots=True, eq=False)
class _Open:
    kind: _Kind
    session: PlannedSession = field(default_factory=PlannedSession)
    names: set[str] = field(default_factory=set)


def plan_sessions(files: Iterable[LocalFile], limits: Limits) -> Iterator[PlannedSession]:
    """Cut acceptable `files` into sessions, as `Planner` does.

    A session is yielded as soon as it is full, the others at the end, each in the order of its first file.
    """
    planner = Planner(limits)
    for file in files:
        session = planner.add(file)
        if session is not None:
            yield session
    while (session := planner.cut()) is not None:
        yield session


def request_length(files: Sequence[LocalFile], rate: float | None, *, metered: bool) -> int:
    """How many of `files` go into the next request: what should arrive in 150 s at `rate` (bytes/s), at least one.

    `metered` says that the server counts calls; where it does not, a request also stays small.
    """
    budget = (rate if rate is not None else UNMEASURED_RATE) * REQUEST_SECONDS
    most = len(files)
    if not metered:
        budget = min(budget, UNMETERED_BYTES)
        most = min(most, UNMETERED_FILES)
    total = 0
    for count, file in enumerate(files[:most]):
        total += file.size
        if total > budget:
            return max(1, count)
    return most
