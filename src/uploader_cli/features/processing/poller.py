"""Questions about files that a tus server processes after their upload (docs/tus-servers.md, "Wait for processing")."""

from __future__ import annotations

import heapq
import math
import threading
import time
from itertools import count
from typing import TYPE_CHECKING

from msgspec import Struct

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.codes import FailureCode
from uploader_cli.core.masking import hide
from uploader_cli.core.origins import resolved
from uploader_cli.feature import options_of
from uploader_cli.features.processing.answers import filled, found_at, link_at, pause_before, reason_in, written
from uploader_cli.features.processing.events import StillProcessing
from uploader_cli.features.processing.options import Results
from uploader_cli.transfer.answers import answer_error
from uploader_cli.transfer.budget import pause_after
from uploader_cli.transfer.engine import TICK
from uploader_cli.transfer.http_client import REDIRECTS
from uploader_cli.transfer.ledger import RUN_ENDING
from uploader_cli.transfer.station import Carrier, Station

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.transfer.answers import Answer
    from uploader_cli.transfer.results import FileResult
    from uploader_cli.transfer.upload_session import RunContext, UploadSession

LEAST_GAP = 0.02  # seconds between two requests
NOT_YET = 60.0  # seconds in which a server may not know a file that it has just stored
NO_BODY = (202, 204)  # still processing; any other success has JSON
_TEMPORARY = (408, 425, 429)


class _Waiting(Struct):
    session: UploadSession | None
    outcome: FileResult
    url: str
    began: float
    state: str = "nothing was answered"  # what the last answer said
    unknown_since: float | None = None  # of the answers 404 and 410


class ResultPoller(Station):
    """Keep each file that the server processes, and ask for its state, in one thread and one request at a time.

    A file is asked for less and less often, and a refusal for now (429, 5xx, no answer) is waited out; both within
    `--result-timeout`.
    """

    def __init__(self, context: RunContext) -> None:
        self._context, self._options = context, options_of(context.settings, Results)
        self._api = context.api.another()
        self._due: list[tuple[float, int, _Waiting]] = []  # a heap, by times; those of the same time in their order
        self._numbers = count()
        self._free_at = 0.0  # the time of the next request
        self._asking = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None  # what has ended the thread

    @property
    def kept(self) -> int:
        return len(self._due) + self._asking

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def take(self, carrier: Carrier, results: Sequence[FileResult]) -> Sequence[FileResult]:
        """Begin to ask for the files that are processed; return the results of the others."""
        left = []
        for outcome in results:
            if outcome.error is not None or outcome.values is None:
                left.append(outcome)
                continue
            try:
                url = filled(self._options.result_url or "", outcome.values)
            except ValueError as error:
                left.append(_unasked(outcome, f"--result-url can't be filled: {error}", FailureCode.PROTOCOL))
                continue
            if outcome.file.upload_url:
                hide(url)
            self._begin(carrier, outcome, url)
        return left

    def _begin(self, carrier: Carrier, outcome: FileResult, url: str) -> None:
        file, context = outcome.file, self._context
        context.emit(ev.BytesConfirmed(file.file, context.ledger.attempt(file), file.size))
        context.emit(ev.BodySent((file.file,)))
        with self._changed:
            self._put(_Waiting(carrier.session, outcome, url, time.monotonic()), 0.0)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="uploader-results", daemon=True)
                self._thread.start()
            self._changed.notify()

    def shut(self) -> None:
        """End a running request, from another thread."""
        self._api.shut()

    def close(self) -> None:
        """Ask no further question, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while (one := self._next()) is not None:
                outcome = self._asked(one)
                if outcome is not None:
                    if outcome.error is None:
                        self._context.ledger.record([outcome])
                    self.go_on(Carrier(self._api, one.session), [outcome], self)
                self._asking = 0
        except BaseException as error:  # noqa: BLE001 - raised by the planner
            self._error = error
        finally:
            self._api.close()

    def _next(self) -> _Waiting | None:
        """Wait for the next question; None once closed. Raise `Interrupted`.

        A file whose time is over while no request may be sent is returned, too.
        """
        with self._changed:
            while not self._closed:
                self._context.stop.check()
                now, at = time.monotonic(), math.inf
                if self._due:
                    due, _, first = self._due[0]
                    at = max(due, min(self._free_at, self._deadline(first)))
                    if at <= now:
                        self._asking = 1
                        heapq.heappop(self._due)
                        return first
                self._changed.wait(min(at - now, TICK))
        return None

    def _put(self, one: _Waiting, pause: float) -> None:
        at = min(time.monotonic() + pause, self._deadline(one))
        heapq.heappush(self._due, (at, next(self._numbers), one))

    def _deadline(self, one: _Waiting) -> float:
        return one.began + self._options.result_timeout

    def _asked(self, one: _Waiting) -> FileResult | None:
        """Ask once; return the outcome, or None while the server still processes the file."""
        pause, is_allowed = 0.0, time.monotonic() >= self._free_at
        if is_allowed:
            try:
                answer = self._context.pacer.call(lambda: self._answer(one.url), at_most=0)
            except RUN_ENDING:
                raise
            except errors.UploaderError as error:
                if not error.retryable:
                    return _unasked(one.outcome, str(error), error.code)
                one.state = str(error)
            else:
                outcome = self._read(one, answer)
                if outcome is not None:
                    return outcome
                pause = self._pause(answer)
        waited = time.monotonic() - one.began
        if waited >= self._options.result_timeout:
            words = f"it is stored, and not processed after {waited:.0f} s (--result-timeout): {one.state}"
            return one.outcome._replace(error=errors.OutcomeUnknown(words))
        with self._changed:
            self._put(one, max(pause, pause_before(waited)))
        return None

    def _answer(self, url: str) -> Answer:
        """Ask at `url`, and where it redirects to. The credentials go only to the origin that gets them otherwise."""
        for _ in range(REDIRECTS + 1):
            answer = self._api.request("GET", url, headers=self._api.authorization())
            self._api.budget.note(answer.headers)
            interval = self._api.budget.poll_interval() if self._api.budget.metered else LEAST_GAP
            self._free_at = time.monotonic() + interval
            if answer.status == 401 and answer.authorized:
                raise answer_error(answer)  # a new token may help
            target = answer.headers.get("Location")
            if answer.status not in (301, 302, 303, 307, 308) or not target:
                return answer
            try:
                url = resolved(url, target)
            except ValueError as error:
                raise errors.ProtocolError(
                    f"--result-url is redirected to a URL that is not followed: {error}"
                ) from error
        raise errors.ProtocolError("--result-url is redirected too often")

    def _pause(self, answer: Answer) -> float:
        """Return the seconds that the server asks for; after 429 all questions wait for them."""
        error = answer_error(answer)
        if answer.status == 429:
            self._free_at = time.monotonic() + pause_after(error)
        return error.retry_after or 0.0

    def _read(self, one: _Waiting, answer: Answer) -> FileResult | None:
        """Return the outcome that an answer says; None for one that says nothing yet."""
        outcome, status = one.outcome, answer.status
        if status in (404, 410):
            now = time.monotonic()
            one.state, one.unknown_since = f"the server answers {status}", one.unknown_since or now
            if now - one.unknown_since < NOT_YET:
                return None
            words = (
                f"--result-url answers {status}, also {NOT_YET:.0f} s later: {answer.sentence or 'without a reason'}"
            )
            return _unasked(outcome, words, FailureCode.SERVER_REFUSED)
        one.unknown_since = None
        if status >= 500 or status in _TEMPORARY:
            one.state = f"the server answers {status}"
            return None
        if not answer.ok:
            error = answer_error(answer)
            withheld = "" if answer.authorized or status not in (401, 403) else "; it is no server that gets the token"
            words = f"--result-url answers {status}: {answer.sentence or 'without a reason'}{withheld}"
            return _unasked(outcome, words, error.code)
        if answer.body is None:
            one.state = f"the server answers {status}"
            words = f"--result-url answers {status} without JSON"
            return None if status in NO_BODY else _unasked(outcome, words, FailureCode.PROTOCOL)
        self._context.emit(StillProcessing())
        return self._judged(one, answer.body)

    def _judged(self, one: _Waiting, body: object) -> FileResult | None:
        options, outcome = self._options, one.outcome
        for path, value in options.result_failed:
            if written(found_at(body, path)) == value:
                why = reason_in(body, path) or f"{path} is {value}"
                return _failed_processing(outcome, why)
        for path, value in options.result_done:
            if written(found_at(body, path)) == value:
                link = link_at(body, options.result_link, one.url) if options.result_link else None
                return outcome._replace(values=None, link=link)
        paths = dict.fromkeys(path for path, _ in (*options.result_done, *options.result_failed))
        said = [f"{path} is {written(found)}" for path in paths if written(found := found_at(body, path)) is not None]
        one.state = ", ".join(said) or f"the answers have no {' or '.join(paths)}"
        return None


def _failed_processing(outcome: FileResult, why: str) -> FileResult:
    """Return the outcome of a file that the server could not process: a later run sends it anew."""
    error = errors.FileFailure(f"the server could not process it: {why}", code=FailureCode.SERVER_FAILED)
    error.forgets = True
    return outcome._replace(error=error)


def _unasked(outcome: FileResult, why: str, code: FailureCode) -> FileResult:
    """Return the outcome of a stored file about which the server says nothing: a later run asks again."""
    return outcome._replace(error=errors.FileFailure(f"it is stored, and its state is unknown: {why}", code=code))
