"""What the checks made on the server, to be removed at the end. Pure bookkeeping: `cleaning` does it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StoredThing:
    """A file that the server has: its id for `DELETE`, and its path under `/uploads/` where that is known."""

    id: str
    location: str = ""

    def __str__(self) -> str:
        return f"{self.location} (file {self.id})" if self.location else f"file {self.id}"


@dataclass
class Made:
    """Sessions that have not ended, files, and unfinished tus uploads (their URLs)."""

    sessions: set[str] = field(default_factory=set)
    files: list[StoredThing] = field(default_factory=list)
    uploads: set[str] = field(default_factory=set)
    unowned: list[str] = field(default_factory=list)
    """What stays because no token was given."""
    left: list[str] = field(default_factory=list)
    """What else could not be removed, and why."""

    @property
    def remains(self) -> tuple[str, ...]:
        """All that stays on the server, in words."""
        return (*self.left, *(f"{thing}: no token" for thing in self.unowned))

    def owed(self, *, with_token: bool) -> int:
        """Calls that removing all of it takes; files can't be removed without a token."""
        return len(self.sessions) + len(self.uploads) + (len(self.files) if with_token else 0)
