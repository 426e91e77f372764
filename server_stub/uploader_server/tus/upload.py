"""The state of one tus upload."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from uploader_server.session import FileState
from uploader_server.tus.headers import parse_concat, parse_metadata

if TYPE_CHECKING:
    from uploader_server.tus.headers import Place

OPEN, FINISHED = "open", "finished"  # states of an existing upload; any other state is the reason why it is gone
JOINED = "concatenated"  # state of a part that was joined into a final upload


@dataclass(eq=False)
class Upload:
    """One upload resource (tus 1.0). Sizes in bytes."""

    owner: str
    session: str  # session id, or empty
    category: str
    metadata: str | None  # Upload-Metadata as it was sent
    concat_header: str | None
    length: int | None  # None while deferred (creation-defer-length)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = OPEN
    touched: float = field(default_factory=time.time)
    counted: int | None = None  # offset saved in the database row; None: the length of the data file
    path: str | None = None  # path of the finished file below the root; None for a part
    sha256: bytes = b""  # SHA-256 of all bytes; empty if unknown
    data: str = ""  # name of the data file
    place: Place | None = None  # range in a data file shared with other parts; None: it has its own data file
    claimed: int = 0  # bytes it will have at the end of the running request
    offset: int = 0
    writer: asyncio.Future[Any] | None = None  # the request that is sending bytes
    waiting: int = 0  # number of requests waiting for `lock`
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.data = self.data or self.id
        self.fields = parse_metadata(self.metadata or "")
        self.concat = parse_concat(self.concat_header)
        self.is_part = self.concat.kind == "partial"
        name = self.fields.get("filename") or self.fields.get("name") or self.id
        self.file = FileState(name, self.fields.get("relativePath") or None, self.length, self.id)
        self.file.may_rename = self.fields.get("ifExists") != "fail"

    @property
    def key(self) -> str:
        """`uploadKey` of an idempotent creation (docs/protocol.md, section 5), or empty."""
        return self.fields.get("uploadKey", "")

    @property
    def start(self) -> int:
        """Offset of its first byte in the data file."""
        return 0 if self.place is None else self.place.start

    @property
    def gone(self) -> bool:
        """Whether its URL answers 410."""
        return self.status not in {OPEN, FINISHED}

    @property
    def has_data(self) -> bool:
        """Whether it has a data file: an unfinished upload or an unjoined part."""
        return self.status == OPEN or (self.status == FINISHED and self.path is None)

    @property
    def complete(self) -> bool:
        """Whether all bytes were received."""
        return self.length == self.offset
