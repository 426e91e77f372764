"""Values and rows of the journal, and its queries."""

from __future__ import annotations

import json
import os
import re
import secrets
from struct import Struct
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import quote

from msgspec import Meta, convert, field
from msgspec.json import decode as from_json
from msgspec.json import encode as to_json
from msgspec.structs import astuple, replace

from uploader_cli.core.codes import VerifiedBy
from uploader_cli.core.confirmation import Ending
from uploader_cli.core.presence import ClaimState
from uploader_cli.core.protocol import UPLOADS
from uploader_cli.core.record import Record
from uploader_cli.sources.files import absolute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from sqlite3 import Connection

    from uploader_cli.core.plan import LocalFile

    Files = Mapping[bytes, LocalFile]


_PENDING = """
SELECT path, run = ?2, run != ?2 AND alive((SELECT id FROM run WHERE number = pending.run)), size, mtime_ns, upload_key,
  url, session, checked_until, pledged_until, uncertain, parts, server_id, sent_until, ending, replaced, awaited,
  identity
FROM pending WHERE target = ?1"""
_RECEIPTS = """
SELECT path, size, mtime_ns, server_id, location, checksum, verified, link, identity
FROM receipt WHERE target = ?1 AND period > ?2"""
_Known = tuple[
    str | None, str | None, str | None, str | None, Annotated[bytes, Meta(min_length=16, max_length=16)] | None
]
_Session = tuple[str, str, Annotated[str, Meta(pattern=r"^[!-~]*\Z")]]  # the secret becomes a header
_is_plain = re.compile(r"[A-Za-z0-9_.~/-]*").fullmatch  # matches a path that `quote` does not change
_two_numbers, _64_BITS = Struct(">QQ").pack, (1 << 64) - 1
_parts = re.compile(r"(\d+)([ /])(.*)", re.DOTALL).fullmatch


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

    `values` are those of the template of `--result-url`: `url`, `id`, `header:NAME`.
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


class Stored(Record, frozen=True):
    """A stored file. `checksum` is a hex SHA-256; `verified`: it was compared; `link` is that of `--result-link`.

    `identity` is that of the file then (see `written_identity`).
    """

    file: LocalFile
    server_id: str | None = None
    location: str | None = None
    checksum: str | None = None
    verified: bool = False
    link: str | None = None
    identity: bytes | None = None


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


def path_key(file: LocalFile) -> bytes:
    """Return the absolute path of `file` as bytes, with the file's own destination after a NUL."""
    name = file.path
    if name[:1] != "/" or "//" in name or "/." in name or name[-1:] == "/":  # else it is absolute: `abspath` costs 5 µs
        name = absolute(name)
    path = os.fsencode(name)
    return path + b"\0" + file.destination.encode() if file.destination else path


def written_identity(file: LocalFile) -> bytes | None:
    """Return what distinguishes a file from others of its size and mtime; no device, whose number a restart changes."""
    known = file.identity
    return None if known is None else _two_numbers(known.inode & _64_BITS, known.ctime_ns & _64_BITS)


def is_recorded(file: LocalFile, receipt: Stored) -> bool:
    """Return whether the digest of a receipt counts for a file: size, mtime, ctime and inode are those of then.

    Otherwise the file has to be read. Of a file at a URL only size and mtime are known (see `RemoteStatus`); receipts
    of early versions of the journal have no identity, so they do not count for a local file.
    """
    return is_same(file, receipt.file) and written_identity(file) == receipt.identity


def is_doubtful(file: LocalFile, receipt: Stored) -> bool:
    """Return whether a file has another ctime or inode than that of its receipt, so that only its bytes can tell."""
    return receipt.identity is not None and not is_recorded(file, receipt)


def is_same(one: LocalFile, other: LocalFile) -> bool:
    return one.size == other.size and one.mtime_ns == other.mtime_ns


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
    for key, own, busy, size, mtime_ns, *known, identity in db.execute(_PENDING + _paths(files), (target, run, *files)):
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


def find_receipts(
    db: Connection, target: int, files: Files, since: int, on_odd: Callable[[str], None] = lambda _path: None
) -> Iterator[tuple[bytes, Stored]]:
    """Yield receipts for the paths of `files` from periods after `since`.

    A row of another shape is left out; `on_odd` gets the path of its file.
    """
    rows = db.execute(_RECEIPTS + _paths(files), (target, since, *files))
    for key, size, mtime_ns, server_id, location, checksum, verified, link, identity in rows:
        try:
            if isinstance(location, bytes):
                location = _lengthened(location, key)
            known = (_unpacked(server_id), location, _unpacked(checksum), link, identity)
            server_id, location, checksum, link, identity = convert(known, _Known)
            file = replace(files[key], size=convert(size, int), mtime_ns=convert(mtime_ns, int))
        except (ValueError, TypeError):
            on_odd(files[key].path)
            continue
        yield key, Stored(file, server_id, location, checksum, bool(verified), link, identity)


def _paths(files: Files) -> str:
    """Return the end of a query for a group of files: three times as fast as one query each."""
    return f" AND path IN ({','.join(f'?{number}' for number in range(3, len(files) + 3))})"


def receipt_row(target: int, run: int, key: bytes, row: Stored, period: int, at: int) -> tuple[Any, ...]:
    known = (_packed(row.server_id), _shortened(row.location, key, row.file), _packed(row.checksum), row.verified)
    return (target, key, row.file.size, row.file.mtime_ns, run, period, *known, at, row.link, row.identity)


def _shortened(location: str | None, key: bytes, file: LocalFile) -> str | bytes | None:
    """Return `location` without the file's path at its end: its length, a mark, the prefix.

    The mark "/" stands for the prefix `UPLOADS`.
    """
    if location is not None:
        for name in (file.relative_path, file.name):
            raw = os.fsencode(name)
            tail = name if _is_plain(name) else quote(raw)  # `quote` costs 9 µs
            if raw and location.endswith(tail) and key.partition(b"\0")[0].endswith(raw):
                prefix = location.removesuffix(tail)
                mark, rest = ("/", prefix.removeprefix(UPLOADS)) if prefix.startswith(UPLOADS) else (" ", prefix)
                return f"{len(raw)}{mark}{rest}".encode()
    return location


def _lengthened(location: bytes, key: bytes) -> str:
    known = _parts(location.decode())
    if known is None:
        raise ValueError("no location")
    digits, mark, prefix = known.groups()
    return (UPLOADS if mark == "/" else "") + prefix + quote(key.partition(b"\0")[0][-int(digits) :])


def _packed(text: str | None) -> str | bytes | None:
    """Return hex digits or a UUID in half their bytes, if `_unpacked` restores them exactly."""
    if text is None:
        return None
    try:
        value = (b"u" if "-" in text else b"h") + bytes.fromhex(text.replace("-", ""))
    except ValueError:
        return text
    return value if _unpacked(value) == text else text


def _unpacked(value: str | bytes | None) -> str | None:
    if not isinstance(value, bytes):
        return value
    digits = value[1:].hex()
    return digits if value[:1] == b"h" else f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


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
