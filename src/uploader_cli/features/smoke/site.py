"""The tested server: requests to it within the budget, values shared by the checks, and what they created."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from uploader_cli import errors
from uploader_cli.core.capabilities import TUS_VERSION
from uploader_cli.core.protocol import error_code, parse_session, whole
from uploader_cli.features.checks.check import NotOffered, OutOfCalls, Prevented, Violation
from uploader_cli.features.checks.target import DOWN_OR_BUSY, CheckedServer
from uploader_cli.features.smoke.expect import said
from uploader_cli.settings import Settings
from uploader_cli.transfer.answers import Answer, answer_error, is_tus, not_an_upload_server

BUDGET = 250  # a server with everything needs 100, the checks of features 150; a rate limit is respected as well
CALL_LIMIT = 30.0  # seconds; the reference backend takes 2.7 per file (docs/protocol.md section 3.2)
TUS = {"Tus-Resumable": TUS_VERSION}
EVENT_LIMIT = 10.0  # seconds to wait for expected events, which usually arrive within a fraction of one

Value = TypeVar("Value")


class Site(CheckedServer):
    """A server in one run. Counted requests never exceed the budget."""

    def __init__(self, settings: Settings, *, budget: int = BUDGET, patience: float = EVENT_LIMIT) -> None:
        """Does not connect yet. Raises `UsageError` for an unreadable token."""
        super().__init__(settings, settings.bearer())
        self.budget, self.patience = budget, patience
        self.names = f"uploader-smoke-{secrets.token_hex(4)}-"  # the beginning of the names of all files
        self.answered = self.speaks = False  # whether there was any response, and one of an upload server
        self.admitted: set[bool] = set()
        """Whether counted requests with our own token were accepted, or got 401 or 403."""
        self.meter: list[Mapping[str, str] | None] = []
        """The headers of the response to each counted request, in order of their starts; None without a response."""
        self.limited = ""  # after a 429, when requests are accepted again
        self.gone = False  # whether the server no longer answers
        self.sessions: set[str] = set()  # created sessions that have not ended
        self.slots: list[str] = []  # sessions for tus uploads, each as often as it has space
        self.uploads: set[str] = set()  # URLs of unfinished uploads
        self.spoken: dict[str, Mapping[str, str]] = {}  # headers of requests to uploads that are not of tus, by URL
        self.files: dict[str, str] = {}  # IDs of stored files, with their paths under `/uploads/` if known
        self.tus_files: dict[str, str] = {}
        """The URLs of uploads of stored files, which some servers delete without a token."""
        self.unowned: list[str] = []
        """What stays because there was no token, or the server deletes nothing, with the reason."""
        self.notes: list[str] = []  # what checks found out about the server, for the end of the report
        self.undeleted: list[str] = []  # what else could not be deleted, with the reason
        self.terminates = True  # whether the server deletes tus uploads
        self.cleaning = False
        self._remaining: int | None = None
        self._once: dict[object, object] = {}

    # --- requests -----------------------------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        where: str,
        *,
        token: str | None = "",
        may_refuse: bool = False,
        leaves: int = 0,
        limit: float = CALL_LIMIT,
        **request: Any,
    ) -> Answer:
        """Send a request, as `send` does, to a path or URL of the server.

        `may_refuse` is for a request that may get a 403. `leaves` is the number of requests to delete what this one
        creates. Raises `OutOfCalls`, `NetworkError`, the error for 429, 502, 503 and 504, and for 401 and 403 with our
        own token.
        """
        url, place = self.url(where), len(self.meter)
        counted = self._count(url, leaves)
        answer = self.send(method, url, token=token, limit=limit, **request)
        if is_tus(answer) and not (self.settings.tus_endpoint or self.speaks):
            raise not_an_upload_server(answer, self.option)
        self.answered = True
        if counted:
            self._note(answer, place)
        if answer.status in (429, *DOWN_OR_BUSY):
            raise answer_error(answer)
        if counted and token == "" and not may_refuse:
            self.admitted.add(answer.status not in (401, 403))
            if answer.status in (401, 403):
                raise answer_error(answer)
        return answer

    def _count(self, url: str, leaves: int = 0) -> bool:
        """Count a request that the rate limit counts. Raises `OutOfCalls`."""
        if not self.counts(url):
            return False
        if (self.remaining if self.cleaning else self.spare) < 1 + leaves:
            raise OutOfCalls(self.no_calls())
        self.calls += 1
        if self._remaining:
            self._remaining -= 1  # a request that is given up has no answer with the number
        self.meter.append(None)
        return True

    def answers(self) -> bool:
        """Return whether the server still answers, even with an error; uses an uncounted request."""
        url = self.settings.tus_endpoint or self.url("/health")
        try:
            self.http.request("GET", url, read_timeout=EVENT_LIMIT)
        except errors.UploaderError as error:
            return not isinstance(error, errors.NetworkError)
        return True

    def read(self, where: str) -> bytes | None:
        """Return the bytes at a path or URL of the server; None if it does not return them."""
        url = self.url(where)
        self._count(url)
        with self.http.stream(url, self.authorization) as (answer, pieces):
            return b"".join(pieces) if answer.status == 200 else None

    @property
    def may_delete(self) -> bool:
        """Whether requests carry an authorization for `DELETE`: a token, or a header."""
        return bool(self.token) or self.own_authorization

    @property
    def shut_out(self) -> bool:
        """Whether all requests so far got 401 or 403."""
        return self.admitted == {False}

    @property
    def remaining(self) -> int:
        """Remaining requests, by the budget and the server's rate limit."""
        own = self.budget - self.calls
        return max(0, own if self._remaining is None else min(own, self._remaining))

    @property
    def spare(self) -> int:
        """Remaining requests for checks, without those to delete what was created."""
        files = len(self.files) if self.may_delete else len(self.files.keys() & self.tus_files.keys())
        return self.remaining - len(self.sessions) - len(self.uploads) - files

    def _note(self, answer: Answer, place: int) -> None:
        self.meter[place] = answer.headers
        if place == len(self.meter) - 1:  # a longer request has older numbers
            self._remaining = whole(answer.headers.get("X-RateLimit-Remaining"))
        if self.settings.tus_endpoint:
            self.speaks |= is_tus(answer)
        else:
            self.speaks |= bool(error_code(answer.body)) or parse_session(answer.body) is not None
        if answer.status == 429:
            wait = answer.retry_after
            self._remaining, again = 0, "" if wait is None else f"; again in {wait:,.0f} s"
            self.limited = f"the server's rate limit is used up (429){again}"

    def no_calls(self) -> str:
        if self.limited:
            return self.limited
        if self.remaining < self.budget - self.calls:
            return "the server's rate limit leaves calls only for the clean-up"
        return f"the budget of {self.budget} calls is used up, except for the clean-up"

    # --- shared values ------------------------------------------------------------------------------------------------

    def once(self, make: Callable[..., Value], *given: object) -> Value:
        """Return `make(self, *given)`, computed once; an error is raised again."""
        key = (make, *given)
        if key not in self._once:
            try:
                self._once[key] = make(self, *given)
            except (errors.UploaderError, NotOffered, Prevented, Violation) as error:
                self._once[key] = error
        found = self._once[key]
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[return-value]  # the type of `make`

    # --- clean-up -----------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Delete what is left; what can't be deleted is added to `undeleted`. Can be called again."""
        self.cleaning = True
        while self.uploads:
            url = self.uploads.pop()
            if self.terminates or url in self.spoken:
                self._remove(f"the upload {url}", "DELETE", url, self.spoken.get(url, TUS))
            else:
                self.unowned.append(f"the upload {url}: the server has no termination")
        while self.sessions:
            session = self.sessions.pop()
            self._remove(f"session {session}", "POST", f"/api/upload/cancel/{session}")
        while self.files:
            file, path = self.files.popitem()
            name = _named(file, path)
            if self.may_delete:
                self._remove(name, "DELETE", f"/api/upload/file/{file}")
            elif file in self.tus_files and self.terminates:
                url = self.tus_files[file]
                self._remove(name, "DELETE", url, self.spoken.get(url, TUS))
            else:
                self.unowned.append(f"{name}: no token")

    def note_interrupted(self) -> None:
        """Add everything that is left to `undeleted`."""
        left = (*(_named(*file) for file in self.files.items()), *self.sessions, *self.uploads)
        self.undeleted += [f"{thing}: interrupted" for thing in left]

    def _remove(self, what: str, method: str, where: str, headers: Mapping[str, str] | None = None) -> None:
        why = ""
        try:
            if self.gone:
                why = "the server no longer answers"
            elif not (answer := self.call(method, where, headers=headers)).ok and answer.status not in (404, 410):
                why = said(answer)
        except OutOfCalls:
            why = "no calls left"
        except errors.UploaderError as error:
            if isinstance(error, errors.Unauthorized) and not self.may_delete:
                self.unowned.append(f"{what}: no token")
            else:
                why = str(error)
        if why:
            self.undeleted.append(f"{what}: {why}")


def _named(file: str, path: str) -> str:
    return f"{path} (file {file})" if path else f"file {file}"
