"""One session in batch mode: request after request (wire contract 3.17), and what to do when one fails."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, SkipReason
from uploader_cli.core.plan import request_length
from uploader_cli.core.protocol import utf8, wire_name
from uploader_cli.transfer.api import stored_path
from uploader_cli.transfer.multipart import MultipartBody
from uploader_cli.transfer.reconcile import Fate, Reconciler
from uploader_cli.transfer.retrying import retrying

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.core.protocol import StoredFile
    from uploader_cli.transfer.confirm import Confirmation
    from uploader_cli.transfer.context import Context
    from uploader_cli.transfer.session import SessionDesk, Work

MEASURABLE = 8 * 1024 * 1024
"""Bytes a request must have for its speed to count: less fits into socket buffers."""
REQUEST_LIMIT = 300.0
"""Seconds in which the reference backend wants a whole request (wire contract 3.10)."""
SPLIT_REFUSALS = (400, 413, 415, 422)
"""A refused request says nothing of which file it is about: each goes alone then."""
UNAVAILABLE = 503
"""The one 5xx that says nothing was done."""


class Batch:
    """Sends the files of one session at a time."""

    def __init__(self, context: Context, desk: SessionDesk, confirm: Confirmation) -> None:
        """`context.ledger` is told how each file goes on."""
        self._context, self._desk, self._confirm = context, desk, confirm
        self._api, self._settings, self._emit, self._stop = context.api, context.settings, context.emit, context.stop
        self._ledger = context.ledger
        self._reconciler = Reconciler(context.api, context.last_heard, context.stop)
        self._rate: float | None = None
        self.body_out = False
        """True while the server has a whole request and has not answered: what is in it may be stored."""

    def send(self, work: Work) -> None:
        """Send all files of a session. Raises what ends the whole run: no server, no permission, an interrupt."""
        failures = self._ledger.failures
        self._desk.open(work)
        while work.waiting:
            self._stop.check()
            if self._settings.fail_fast and self._ledger.failures:
                self._skip_the_rest(work)
                break
            ahead = list(islice(work.waiting, work.most))
            count = request_length(ahead, self._rate, metered=self._api.budget.metered)
            self._send_group(work, [work.waiting.popleft() for _ in range(count)])
        self._desk.close(work, failures=self._ledger.failures > failures)

    def _skip_the_rest(self, work: Work) -> None:
        for file in work.waiting:
            self._ledger.skip(file, SkipReason.FAIL_FAST)
        work.waiting.clear()

    # --- one request --------------------------------------------------------------------------------------------------

    def _send_group(self, work: Work, group: list[LocalFile]) -> None:
        """One request's files, until each is over or waits again. `group` shrinks as files are settled."""

        def announce(error: BaseException | None, delay: float) -> None:
            self._ledger.again(group, error, delay)

        try:
            retrying(self._settings, self._stop, announce)(self._attempt, work, group)
        except errors.FileError as error:
            for file in group:
                if file.path == error.path:
                    self._ledger.fail(file, error)
            self._wait_again(work, group, error)
        except errors.TooSlow as error:
            if len(group) > 1:
                self._wait_again(work, group, error, most=len(group) // 2)
            else:
                self._give_up(group, _too_slow(group[0], error))
        except errors.SessionLost as error:
            self._renew(work, group, error)
        except (errors.Unauthorized, errors.RateLimited):
            raise
        except errors.AnswerError as error:
            if error.status in SPLIT_REFUSALS and len(group) > 1:
                self._wait_again(work, group, error, most=1)
            else:
                self._give_up(group, error)
        except (errors.NetworkError, errors.ProtocolError) as error:
            self._give_up(group, error)
            self._api.health()  # a server that is gone ends the run here, not after as many waits as files are left

    def _attempt(self, work: Work, group: list[LocalFile]) -> None:
        for file in group:
            self._ledger.start(file, work.session.session_id, _name_on_server(work, file))
        try:
            stored, body = self._api.batch(lambda: self._body(work, group), len(group))
        except errors.UploaderError as error:
            self._stop.check()
            if self._may_have_landed(error):
                self._settle(work, group, error)
            self.body_out = False
            if group:
                raise
            return
        self.body_out = False
        if len(body) >= MEASURABLE and body.seconds > 0:
            self._rate = len(body) / body.seconds
        self._receive(work, group, stored)

    def _body(self, work: Work, group: Sequence[LocalFile]) -> MultipartBody:
        self.body_out = False
        session_id, paths = work.session.session_id, work.limits.relative_paths
        fields = [("sessionId", session_id), ("category", work.session.category)]
        if paths:
            fields += [("relativePath", utf8(file.relative_path)) for file in group]
        numbers = tuple(file.file for file in group)

        def on_sent(file: LocalFile, sent: int) -> None:
            self._emit(ev.BytesSent(file.file, self._ledger.attempt(file), sent))

        def on_through() -> None:
            self.body_out = True
            self._emit(ev.BodySent(numbers))
            self._context.followers.body_sent(session_id)

        return MultipartBody(
            fields,
            group,
            on_sent=on_sent,
            on_through=on_through,
            check=self._stop.check,
            throttle=self._context.throttle,
            sized=paths,
        )

    def _receive(self, work: Work, group: list[LocalFile], stored: Sequence[StoredFile]) -> None:
        """Take the answer's word for each file (3.5), matched by what was sent (3.13)."""
        for file, item in _matched(work, group, stored):
            group.remove(file)
            if item is None:
                self._ledger.fail(file, errors.ProtocolError("the server's answer does not mention this file"))
            elif item.status != "completed":
                words = item.error or f"its status is {item.status or 'missing'}"
                self._ledger.fail_with(file, FailureCode.SERVER_FAILED, f"the server could not store it: {words}")
            elif item.size is not None and item.size != file.size:
                words = f"the server stored {item.size} of {file.size} bytes"
                self._ledger.fail_with(file, FailureCode.INTEGRITY, words)
            else:
                location = stored_path(work.session.category, item.location) if item.location else None
                self._confirm.stored(
                    self._api, file, server_id=item.server_id, location=location, file_path=item.file_path
                )

    # --- when it fails ------------------------------------------------------------------------------------------------

    def _may_have_landed(self, error: errors.UploaderError) -> bool:
        """True where the server had the whole request and nobody knows what it did with it (3.15)."""
        match error:
            case errors.ConnectionLost():
                return error.body_sent
            case errors.ServerFault():
                return self.body_out and error.status != UNAVAILABLE
            case _:
                return isinstance(error, errors.ProtocolError)

    def _settle(self, work: Work, group: list[LocalFile], error: errors.UploaderError) -> None:
        """Look, and take out of `group` what needs no other attempt."""
        verdicts = self._reconciler.verdicts(work, group)
        for file in list(group):
            verdict = verdicts[file.file]
            if verdict.fate is Fate.STORED:
                path = utf8(file.relative_path) if work.limits.relative_paths else None
                location = stored_path(work.session.category, path) if path else None
                self._confirm.stored(
                    self._api, file, server_id=verdict.server_id, location=location, checksum=verdict.checksum
                )
            elif verdict.fate is Fate.FAILED:
                words = verdict.error or "it says no more"
                self._ledger.fail_with(file, FailureCode.SERVER_FAILED, f"the server could not store it: {words}")
            elif verdict.fate is Fate.UNKNOWN and not self._settings.resend_unknown:
                self._ledger.fail(file, errors.OutcomeUnknown(f"{error}; the server may have stored it, or not"))
            else:
                continue
            group.remove(file)

    def _renew(self, work: Work, group: list[LocalFile], error: errors.SessionLost) -> None:
        """The server forgot the session: a new one, once (3.14)."""
        if work.renewed:
            self._give_up([*group, *work.waiting], error)
            work.waiting.clear()
            return
        self._desk.renew(work, len(group) + len(work.waiting))
        self._wait_again(work, group, error)
        self._desk.open(work)

    def _wait_again(
        self, work: Work, group: list[LocalFile], error: errors.UploaderError, *, most: int | None = None
    ) -> None:
        """Put what is left of a group back to the front, to be cut anew."""
        left = [file for file in group if file.file in self._ledger.open]
        self._ledger.again(left, error)
        work.waiting.extendleft(reversed(left))
        if most is not None:
            work.most = most

    def _give_up(self, group: Sequence[LocalFile], error: errors.UploaderError) -> None:
        for file in group:
            self._ledger.fail(file, error)


def _matched(
    work: Work, group: Sequence[LocalFile], stored: Sequence[StoredFile]
) -> list[tuple[LocalFile, StoredFile | None]]:
    """Each file with what the answer says of it: by name, and those whose names came back otherwise by their order."""
    left = list(stored)
    found: dict[int, StoredFile] = {}
    for file in group:
        names = (_name_on_server(work, file), wire_name(file.name))
        item = next((item for item in left if (item.relative_path or item.name) in names), None)
        if item is not None:
            left.remove(item)
            found[file.file] = item
    strange = iter(left if len(stored) == len(group) else ())
    return [(file, found.get(file.file) or next(strange, None)) for file in group]


def _name_on_server(work: Work, file: LocalFile) -> str:
    return utf8(file.relative_path) if work.limits.relative_paths else wire_name(file.name)


def _too_slow(file: LocalFile, error: errors.TooSlow) -> errors.TooSlow:
    """3.10: the one file alone, with the rate it would need. Trying again as it was can't help."""
    needed = max(0.01, file.size / REQUEST_LIMIT / 1e6)
    words = f"{error}; {file.size} bytes need {needed:.2f} MB/s to arrive in {REQUEST_LIMIT:.0f} s"
    out = errors.TooSlow(words, status=error.status, error=error.error)
    out.retryable = False
    return out
