"""One tus upload: what was said at its creation, and how far it has come."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from uploader_server.session import FileState
from uploader_server.tus.headers import Concat, parse_concat, parse_metadata

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_server.tus.headers import Place

OPEN, FINISHED = "open", "finished"
"""The states of an upload that exists; any other says why it is gone."""
JOINED = "concatenated"
"""The state of a part that is in another upload now."""


@dataclass(eq=False)
class Upload:
    """One upload resource (tus 1.0). Sizes in bytes."""

    owner: str
    session: str
    """Id of its session, or empty."""
    category: str
    metadata: str | None
    """Upload-Metadata as it was sent."""
    concat_header: str | None
    length: int | None
    """None: not known yet (creation-defer-length)."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = OPEN
    touched: float = field(default_factory=time.time)
    counted: int | None = None
    """How many bytes count, as its row says; None: as many as its data file has."""
    data: str = ""
    """Name of the data file."""
    place: Place | None = None
    """Where its bytes go in a file that it shares with other parts; None: it has a data file of its own."""
    claimed: int = 0
    """Bytes that it will have when the request under way has ended."""
    path: Path | None = None
    """Where the finished file is stored; None for a part."""
    sha256: bytes = b""
    """Of all bytes; empty where it is not known."""
    offset: int = 0
    writer: asyncio.Future[Any] | None = None
    """The request that is sending bytes."""
    waiting: int = 0
    """How many requests wait for their turn."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.data = self.data or self.id
        self.fields = parse_metadata(self.metadata or "")
        self.concat: Concat = parse_concat(self.concat_header)
        self.file = FileState(self.name, self.fields.get("relativePath") or None, self.length, self.id)

    @property
    def name(self) -> str:
        """The file's name as its sender calls it; the id where it has none."""
        return self.fields.get("filename") or self.fields.get("name") or self.id

    @property
    def wanted_path(self) -> str:
        """Where it is to be stored below its category."""
        return self.fields.get("relativePath") or self.name.rpartition("/")[2]

    @property
    def key(self) -> str:
        """What makes its creation idempotent (docs/protocol.md, section 5); empty where there is none."""
        return self.fields.get("uploadKey", "")

    @property
    def start(self) -> int:
        """Where its first byte is in the data file."""
        return 0 if self.place is None else self.place.start

    @property
    def gone(self) -> bool:
        """Whether its URL answers 410."""
        return self.status not in {OPEN, FINISHED}

    @property
    def has_data(self) -> bool:
        """Whether it has a data file: an unfinished upload, or a part that waits for its concatenation."""
        return self.status == OPEN or (self.status == FINISHED and self.path is None)

    @property
    def complete(self) -> bool:
        """Whether every byte is here."""
        return self.length == self.offset
