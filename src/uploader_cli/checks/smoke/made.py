"""The objects that the checks created on the server. `cleanup` deletes them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StoredThing:
    """A stored file: its ID for `DELETE`, and its path under `/uploads/` if known."""

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
    """Files that stay because there was no token."""
    left: list[str] = field(default_factory=list)
    """What else could not be deleted, with the reason."""

    @property
    def remains(self) -> tuple[str, ...]:
        """Everything that stays on the server, in words."""
        return (*self.left, *(f"{thing}: no token" for thing in self.unowned))

    def owed(self, *, with_token: bool) -> int:
        """Return the requests needed to delete everything; files need a token."""
        return len(self.sessions) + len(self.uploads) + (len(self.files) if with_token else 0)
