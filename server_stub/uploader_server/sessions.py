"""The sessions of the bundled server, with their events and files."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from uploader_server.auth import bearer, hashed_secret, owner_of, same_secret, same_token
from uploader_server.config import ServerConfig
from uploader_server.errors import Refusal
from uploader_server.progress import ProgressResponses
from uploader_server.session import EVENT_INTERVAL, Session, counted
from uploader_server.shares import Share
from uploader_server.storage.clock import Clock
from uploader_server.storage.file_state import FileState
from uploader_server.storage.put import put
from uploader_server.storage.store import Change, SavedSession, Store
from uploader_server.storage.writing import SMALL
from uploader_server.wire import extension, is_uuid, timestamp

logger = logging.getLogger(__name__)

MAX_KNOWN = 100_000  # maximum sessions in memory; the oldest ended ones are removed first
SESSIONS_LISTED = 100  # maximum sessions in a list
MOST_MARKS = 200_000  # maximum marks of counted pack files in memory; each needs about 100 bytes
BURST = 20  # events sent before a pause
MAX_DIGITS = 15  # of a number of bytes: JavaScript knows it exactly
PAUSE = 0.001  # seconds in which other tasks run and watchers receive the burst, so that it doesn't fill their backlog


@dataclass(eq=False)
class Sessions:
    """All sessions of one server (docs/protocol.md, section 1). Not thread-safe: used on the event loop."""

    config: ServerConfig
    store: Store
    emit: Callable[[str, dict[str, Any]], Awaitable[None]]  # sends an event to the Socket.IO room of a session id
    fails: Callable[..., bool]  # whether a file with one of these names fails by `--fail-file`

    def __post_init__(self) -> None:
        self.limits = self.config.limits
        self.known = {saved.row["id"]: _restored(saved, self.store.clock) for saved in self.store.sessions(MAX_KNOWN)}
        """Sessions by id, including those restored from the database."""
        self._marked: list[Session] = []  # open sessions with marks; the last ones were recalled last
        self._progress = ProgressResponses(self.store)
        self.share: Share[Session] = Share(
            "sessions", self.config.max_share, ended=self._is_over, now=self.store.clock.now
        )
        for session in self.known.values():
            if not session.ended:
                self.share.add(session.holder, session)

    async def create(self, category: str, expected: int, headers: Mapping[str, str], holder: str) -> tuple[str, str]:
        """Create a session of a client (`holder`); return its id and creation time.

        Raises Refusal for a wrong header, if the client holds its share, or if too many are open.
        """
        secret, owner = hashed_secret(headers), self.owner(headers)
        if len(self.known) >= MAX_KNOWN:
            await self.forget(next(known for known in self.known.values() if known.ended))
        while (empty := self.share.make_room(holder)) is not None:
            await self.forget(empty)
        session = Session(
            str(uuid.uuid4()), category, expected, self.store.clock, owner=owner, secret=secret, holder=holder
        )
        session.expected_bytes = expected_bytes(headers)
        self.share.add(holder, session)
        self.known[session.id] = session
        try:
            await self.keep(session)
        except BaseException:
            del self.known[session.id]
            raise
        return session.id, session.created

    async def forget(self, session: Session) -> None:
        """Remove an expired session. Raises sqlite3.Error; the row is removed after a restart then."""
        logger.info("session %s is forgotten", session.id)
        self.known.pop(session.id, None)
        await self.store.save(self.store.session_forgotten(session.id), frees=True)

    def _is_over(self, session: Session) -> bool:
        return session.ended or session.id not in self.known

    def find(self, session_id: str) -> Session:
        """Return the session with this id. Raises Refusal if there is none."""
        session = self.known.get(session_id.lower()) if is_uuid(session_id) else None
        if session is None:
            raise Refusal("SESSION_NOT_FOUND", "There is no such upload session")
        return session

    def check_writer(self, session_id: str, headers: Mapping[str, str]) -> None:
        """Raise Refusal if the headers of a request don't allow it to write to a session.

        One that was created without a secret is open to all (docs/extensions.md); an unknown one passes.
        """
        session = self.known.get(session_id.lower())
        if session is None or not session.secret:
            return
        mine = same_secret(headers, session.secret)
        if not mine or (session.owner and self.owner(headers) != session.owner):
            raise Refusal("NOT_YOURS", "Another client created this session; send its X-Session-Secret")

    def owner(self, headers: Mapping[str, str]) -> str:
        """Return the owner of what a request creates: the subject of its JWT, also of an expired one; empty without."""
        return owner_of(headers.get("authorization"), self.config.jwt_secret)

    def check_deleter(self, owner: str, headers: Mapping[str, str]) -> None:
        """Raise Refusal if a request, whose token is valid, may not delete a file of `owner`.

        That may its subject and the shared token; a file without a subject, anyone with a token.
        """
        shared = self.config.auth_token
        if not owner or self.owner(headers) == owner:
            return
        if shared is None or not same_token(bearer(headers.get("authorization")), shared):
            raise Refusal("NOT_YOURS", "Another client stored this file")

    def find_writable(self, session_id: str, headers: Mapping[str, str]) -> Session:
        """Return the session with this id. Raises Refusal if there is none, or as `check_writer`."""
        self.check_writer(session_id, headers)
        return self.find(session_id)

    def find_open(self, session_id: str, headers: Mapping[str, str]) -> Session:
        """Return the open session with this id. Raises Refusal as `find_writable`, and if it has ended."""
        session = self.find_writable(session_id, headers)
        session.check_open()
        session.touch()  # it must not expire before the request registers with it
        return session

    def newest(self) -> list[dict[str, Any]]:
        """Return the summaries of the SESSIONS_LISTED newest sessions, newest first."""
        return [session.summary() for session in itertools.islice(reversed(self.known.values()), SESSIONS_LISTED)]

    def snapshot(self, session_id: str) -> dict[str, Any] | None:
        """Return the event for a client that joins, or None for an unknown session."""
        try:
            session = self.find(session_id)
        except Refusal:
            return None
        return session.event(f"Joined: {session.status}", session.current)

    async def progress(self, session_id: str) -> bytes:
        """Return the response of `/progress` as JSON. Raises Refusal for an unknown session, sqlite3.Error."""
        session = self.find(session_id)
        session.touch()
        return await self._progress.get(session)

    async def keep(self, session: Session) -> None:
        await self.store.save(self.store.session_saved(session.row()))

    async def recall(self, session: Session) -> None:
        """Load the marks of a session. Raises sqlite3.Error.

        Beyond MOST_MARKS those of the sessions that were recalled longest ago are forgotten: the database has them.
        The marks of a session with a running request stay.
        """
        if session.counted is None:
            marks = await self.store.marks(session.id)
            if session.counted is None:  # no other request has loaded them meanwhile
                session.counted = marks
        others = [known for known in self._marked if known is not session and not known.ended]
        over = len(session.counted) + sum(len(known.counted or ()) for known in others) - MOST_MARKS
        for known in others if over > 0 else ():
            if over > 0 and not known.requests:
                over -= len(known.counted or ())
                known.counted = None
        self._marked = [*(known for known in others if known.counted is not None), session]

    async def put(
        self,
        session: Session | None,
        category: str,
        files: list[FileState],
        more: Callable[[], Iterable[Change]] = lambda: (),
        *,
        client: str,
        resumable: bool = False,
    ) -> None:
        """Store and record files of a client with `more` changes; see `storage.put`.

        With `resumable` the data files are those of uploads, and an error of the disk is raised instead of failing its
        file. After an error all files are as they were. Raises OSError, sqlite3.Error.
        """
        self.fail_chosen(files)

        def changes() -> Iterable[Change]:
            for file in files:
                if resumable and file.cause is not None:
                    raise file.cause
                file.ended = timestamp()
            return [*self._rows(session, files), *more()]

        at_once = len(files) == 1 and files[0].size <= SMALL
        try:
            await put(self.store, category, files, changes, client=client, resumable=resumable, at_once=at_once)
        except BaseException:
            for file in files:
                file.reopen()
            raise

    def fail_chosen(self, files: Iterable[FileState]) -> None:
        """Fail the files that the option --fail-file names."""
        for file in files:
            if self.fails(file.original_name, file.wanted_path):
                file.fail("UPLOAD_FAILED", "Failed by the server's option --fail-file")

    def _rows(self, session: Session | None, files: list[FileState]) -> list[Change]:
        if session is None:
            return [self.store.files_saved([file.row("", n) for n, file in enumerate(files)])]
        rows = [file.row(session.id, position) for position, file in enumerate(files, session.file_count)]
        return [self.store.files_saved(rows), self.store.session_saved(session.row())]

    async def record(self, session: Session, files: list[FileState], *more: Change) -> None:
        """Save ended files, their session and further changes in one transaction. Raises sqlite3.Error."""
        await self.store.save(*self._rows(session, files), *more)

    async def notify(self, session: Session, message: str, file: FileState | None = None) -> None:
        await self.emit(session.id, session.event(message, file))

    async def arriving(self, session: Session, file: FileState, percent: int, speed: float) -> None:
        """Update the progress of a file, and its speed; emit an event at most ten times per second."""
        percent = min(99, percent)
        if percent > file.progress:
            session.advance(file, percent)
        session.measure(file)
        now = time.monotonic()
        if now - session.reported >= EVENT_INTERVAL:
            session.reported, file.speed = now, speed
            await self.notify(session, f"Receiving {file.original_name}", file)

    @asynccontextmanager
    async def storing(self, session: Session | None) -> AsyncIterator[None]:
        """Keep a session open while files of it are stored and counted; then end it if they were its last ones.

        Raises Refusal if it has ended: nothing may be stored then. Raises sqlite3.Error.
        """
        if session is None:
            yield
            return
        with session.storing():
            yield
        await self.settle(session)

    async def announce(self, session: Session, files: list[FileState]) -> None:
        """Count recorded files and emit events."""
        for number, file in enumerate(files):
            session.count(file)
            if number % BURST == BURST - 1:
                await asyncio.sleep(PAUSE)
            await self.notify(session, f"{file.original_name}: {file.status}", file)

    async def settle(self, session: Session) -> None:
        """End the session after its last file. Raises sqlite3.Error."""
        session.touch()
        if session.settle():
            await self.keep(session)
            await self.notify(session, ending(session))

    def statuses(self) -> dict[str, int]:
        return counted(session.status for session in self.known.values())


def expected_bytes(headers: Mapping[str, str]) -> int:
    """Return the size of all files of a new session, as its creator announces it; 0 if unknown. Raises Refusal."""
    text = headers.get("x-expected-bytes", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise Refusal("INVALID_HEADER", f"X-Expected-Bytes must be a number of at most {MAX_DIGITS} digits")
    return int(text)


def _restored(saved: SavedSession, clock: Clock) -> Session:
    """Restore a session; its status may be older than the sums of its files."""
    session = Session(**saved.row, clock=clock, failed=saved.row["given_up"], counted=None)
    if saved.first is not None:
        session.name = saved.first["relative_path"] or saved.first["original_name"]
        session.first_ending = extension(saved.first["original_name"])
    session.count_recorded(*saved.counts)
    if session.file_count and session.status == "pending":
        session.start()
    session.settle()
    return session


def ending(session: Session) -> str:
    if session.status == "completed":
        return "All files were uploaded"
    return f"{session.failed} of {session.completed + session.failed} files failed"
