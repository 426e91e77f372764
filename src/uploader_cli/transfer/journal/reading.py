"""What the journal has of uploads in progress: values, rows, and the queries for them."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from msgspec import Meta, convert, field
from msgspec.json import decode as from_json
from msgspec.json import encode as to_json
from msgspec.structs import astuple, replace

from uploader_cli.core.codes import VerifiedBy
from uploader_cli.core.confirmation import Ending
from uploader_cli.core.presence import ClaimState
from uploader_cli.core.record import Record
from uploader_cli.transfer.journal.file_keys import paths_in
from uploader_cli.transfer.journal.receipts import Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from sqlite3 import Connection

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.journal.file_keys import Files


_PENDING = """
SELECT path, run = ?2, run != ?2 AND alive((SELECT CAST(id AS BLOB) FROM run WHERE number = pending.run)), size,
  mtime_ns, upload_key, url, session, checked_until, pledged_until, uncertain, parts, server_id, sent_until, ending,
  replaced, awaited, identity
FROM pending WHERE target = ?1"""
_Session = tuple[str, str, Annotated[str, Meta(pattern=r"^[!-~]*\Z")]]  # the secret becomes a header


class RunTarget(Record, frozen=True):
    """A server URL without credentials, and a category or tus endpoint."""

    server: str
    destination: str


def new_key() -> str:
    """Return a random `uploadKey` (docs/resumable-uploads.md)."""
    return secrets.token_hex(16)


class PendingPart(Record, frozen=True):
    """One part of a file, with an upload of its own; fields as in `PendingUpload`."""

    index: int
    offset: int
    size: int
    upload_key: str
    url: str | None = None
    checked_until: int = 0
    pledged_until: int = 0
    sent_until: int | None = None
    ending: str = Ending.NONE

    @property
    def reach(self) -> int:
        """The end of all requests that may have been sent; the size where that is unknown."""
        return self.size if self.sent_until is None else self.sent_until


class Awaited(Record, frozen=True):
    """A stored file that the server still processes: what its receipt and its event need.

    `values` are by the names of `Feature.awaits`.
    """

    values: dict[str, str]
    server_id: str | None = None
    location: str | None = None
    content_location: str | None = None
    sha256: str | None = None
    verified: bool = False
    verified_by: VerifiedBy | None = None


class PendingUpload(Record, frozen=True):
    """An upload in progress. `url` None: its creation was not answered; POST `upload_key` first.

    The `upload_key` of a file in a pack is that of the pack, a colon and its position.
    Bytes up to `checked_until` have accepted checksums. `pledged_until` is the end of the chunk with a checksum being
    sent (0: none). `sent_until` is the end of the last request that was begun (None: unknown), `ending` how the one
    that would complete the upload ended. `replaced` are uploads to delete once the file is stored. `parts` is empty for
    one piece. `uncertain`: the file may be stored. `server_id` is from the answer to the creation. `awaited`: the file
    is stored, and the server processes it.
    """

    upload_key: Annotated[str, Meta(pattern=r"^[^:]*(:[0-9]{1,9})?\Z")] = field(default_factory=new_key)
    url: str | None = None
    session: str | None = None
    checked_until: int = 0
    pledged_until: int = 0
    uncertain: bool = False
    parts: tuple[PendingPart, ...] = ()
    server_id: str | None = None
    sent_until: int | None = None
    ending: str = Ending.NONE
    replaced: tuple[str, ...] = ()
    awaited: Awaited | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        known = (self.url, *(part.url for part in self.parts), *self.replaced)
        return tuple(url for url in known if url is not None)

    def outdated(self) -> PendingUpload:
        """Return it without what another process may have changed since: how far requests reach."""
        parts = tuple(replace(part, sent_until=None) for part in self.parts)
        return replace(self, sent_until=None, parts=parts)

    def piece(self, size: int, *, url: str | None) -> PendingPart:
        """Return the upload of a file that is sent in one piece, at `url`."""
        known = (self.upload_key, url, self.checked_until, self.pledged_until)
        return PendingPart(0, 0, size, *known, self.sent_until if self.url is not None else None, self.ending)


class Pending(Record, frozen=True):
    """The upload of `file` in progress: `own` by this run, `busy` by another live run.

    `identity` is that of the file when the upload began, as `written_identity`; None where it is unknown.
    """

    file: LocalFile
    upload: PendingUpload
    own: bool = True
    busy: bool = False
    identity: bytes | None = None


class SavedSession(NamedTuple):
    """A session of a run; an empty category is that of the run, as in journals of version 8.

    A session with failed files is kept after its end (`open` is False): a later run needs its secret to request the
    answers to its packs.
    """

    category: str = ""
    secret: str = ""
    open: bool = True


class Claim(Record, frozen=True):
    """What is known of a file. `doubtful`: its ctime or inode has changed since an earlier run has sent some of it."""

    state: ClaimState
    upload: PendingUpload | None = None
    receipt: Stored | None = None
    outdated: PendingUpload | None = None
    doubtful: bool = False


def pack_position(claim: Claim) -> tuple[str, int] | None:
    """Return the key and position of a file in a pack; None if it is in none."""
    key, colon, index = claim.upload.upload_key.partition(":") if claim.upload is not None else ("", "", "")
    return (key, int(index)) if colon else None


def pending_row(target: int, run: int, key: bytes, pending: Pending) -> tuple[Any, ...]:
    file, upload = pending.file, pending.upload
    parts = json.dumps(upload.parts, default=astuple) if upload.parts else "[]"  # nearly always: `dumps` costs 2 µs
    replaced = json.dumps(upload.replaced) if upload.replaced else "[]"
    known = (upload.upload_key, upload.url, upload.session, upload.checked_until, upload.pledged_until)
    ended = (upload.server_id, upload.sent_until, upload.ending, replaced)
    awaited = to_json(upload.awaited).decode() if upload.awaited is not None else None
    return (
        target,
        key,
        file.size,
        file.mtime_ns,
        run,
        *known,
        upload.uncertain,
        parts,
        *ended,
        awaited,
        pending.identity,
    )


def find_pending(
    db: Connection, target: int, run: int, files: Files, on_odd: Callable[[str], None] = lambda _path: None
) -> Iterator[tuple[bytes, Pending]]:
    """Yield uploads in progress for the paths of `files`, as seen by run number `run`.

    A row of another shape is left out; `on_odd` gets the path of its file.
    """
    for key, own, busy, size, mtime_ns, *known, identity in db.execute(
        _PENDING + paths_in(files), (target, run, *files)
    ):
        try:
            upload = _upload(known)
            file = replace(files[key], size=convert(size, int), mtime_ns=convert(mtime_ns, int))
        except (ValueError, TypeError):
            on_odd(files[key].path)
            continue
        yield key, Pending(file, upload, bool(own), bool(busy), identity)


def _upload(known: Sequence[Any]) -> PendingUpload:
    """Return the upload of a row's columns. Raise `ValueError` or `TypeError` for another shape."""
    fields = dict(zip(PendingUpload.__struct_fields__, known, strict=True))
    fields["uncertain"] = bool(fields["uncertain"])
    names = PendingPart.__struct_fields__  # earlier versions wrote the first ones
    fields["parts"] = [
        dict(zip(names, part, strict=False)) for part in from_json(fields["parts"], type=list[list[Any]])
    ]
    fields["replaced"] = from_json(fields["replaced"])
    fields["awaited"] = from_json(fields["awaited"]) if fields["awaited"] else None
    return convert(fields, PendingUpload)


def get_sessions(
    db: Connection, run: int, on_odd: Callable[[object], None] = lambda _session: None
) -> dict[str, SavedSession]:
    """Return the sessions of a run by their ids, oldest first; rows of another shape as in `saved_sessions`."""
    rows = db.execute("SELECT id, category, secret, open FROM session WHERE run = ? ORDER BY rowid", (run,))
    return saved_sessions(rows, on_odd)


def saved_sessions(
    rows: Iterable[Sequence[Any]], on_odd: Callable[[object], None] = lambda _session: None
) -> dict[str, SavedSession]:
    """Return sessions by their ids. A row of another shape is left out; `on_odd` gets its id."""
    sessions = dict[str, SavedSession]()
    for *known, is_open in rows:
        try:
            session, category, secret = convert(known, _Session)
        except ValueError:
            on_odd(known[0])
            continue
        sessions[session] = SavedSession(category, secret, bool(is_open))
    return sessions
