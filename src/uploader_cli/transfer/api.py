"""The REST calls of docs/protocol.md, section 1. Some are repeated, by the error of their answer."""

from __future__ import annotations

import threading
import time
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urljoin

from uploader_cli import errors
from uploader_cli.core import packs, protocol
from uploader_cli.core.capabilities import parse_capabilities
from uploader_cli.core.codes import WarningCode
from uploader_cli.core.events import Event, RunWarning, ServerClock, SessionProgress, Transport
from uploader_cli.core.origins import below, trusts, usable
from uploader_cli.core.terms import Offer
from uploader_cli.transfer.answers import (
    NO_ANSWER,
    NO_ROUTE,
    Answer,
    answer_error,
    is_tus,
    judged,
    not_an_upload_server,
    refuse_missing_page,
)
from uploader_cli.transfer.budget import RateBudget, pause_after
from uploader_cli.transfer.credentials import SESSION_SECRET, Token, new_secret
from uploader_cli.transfer.http_client import AS_STORED, READ_TIMEOUT, HttpClient, RequestIds
from uploader_cli.transfer.pacer import Pacer, Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from uploader_cli.core.packs import FoundFile, LookedUp, LookupOffer
    from uploader_cli.core.plan import Limits, LocalFile
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.bodies import Body
    from uploader_cli.transfer.protocols.machine import Ask

T = TypeVar("T")

EXPECTED_BYTES = "X-Expected-Bytes"  # the size of a session, for those who watch it (docs/protocol.md, section 1)
MOST_LISTED = 65_536  # most files of a session whose progress is read: it may be that of another client


class Api(HttpClient):
    """Calls to a server. Each thread has its own connections; budget, token and retry policy are shared."""

    offer = Offer()  # the last one, of `/health` or of an answer that opened a session
    _health_answer: Answer | None = None  # the last one

    def __init__(
        self,
        settings: Settings,
        emit: Callable[[Event], None],
        stop: Stop,
        *,
        run: str = "",
        budget: RateBudget | None = None,
    ) -> None:
        """`run` begins the ids of requests; runs that share a `budget` pause together."""
        super().__init__(settings, RequestIds(run, emit))
        self.emit, self._token, self.budget = emit, Token(settings, stop), budget or RateBudget()
        self.pacer = Pacer(stop, self.budget, settings, emit, refresh=self._token.refresh)
        self.has_created, self.has_patched = threading.Event(), threading.Event()  # uploads and PATCH of a tus server
        self._warned: set[WarningCode] = set()
        self._secrets: dict[str, str] = {}  # of sessions, by their ids
        self.earlier: tuple[str, ...] = ()  # sessions that the resumed run has opened
        self.server = settings.base_url
        self._uploads = urljoin(settings.target_url, below(self.server, protocol.UPLOADS, protocol.UPLOADS))

    def another(self) -> Api:
        api = copy(self)
        HttpClient.__init__(api, self.settings, self.request_ids)
        return api

    def warn(self, code: WarningCode, text: str) -> None:
        self.emit(RunWarning(code, text))

    def warn_once(self, code: WarningCode, text: str) -> None:
        if code not in self._warned:
            self._warned.add(code)
            self.warn(code, text)

    def authorization(self) -> dict[str, str]:
        token = self._token.value
        return {"Authorization": f"Bearer {token}"} if token else {}

    def resume_session(self, session: str, secret: str) -> None:
        """Use the secret of a session that another run has opened."""
        self._secrets[session] = secret
        self.earlier = (*self.earlier, session)

    def may_write(self, session: str) -> dict[str, str]:
        """Return the header with the secret of a session, if it is known (docs/extensions.md)."""
        secret = self._secrets.get(session)
        return {SESSION_SECRET: secret} if secret else {}

    @property
    def healthy(self) -> bool:
        """Whether the last `health` was answered as an upload server does."""
        return self._health_answer is not None and self._health_answer.ok and _is_health(self._health_answer)

    def health(self, **how: Any) -> Offer:
        """Return what `GET /health` offers. Raise `NetworkError`; no status but that of an outage fails.

        `how` (`retries`, `patient`) is for `_call`, as in other calls.
        """
        self._health(**how)
        return self.offer

    def _health(self, **how: Any) -> None:
        """Ask once more after a success that is none of an upload server: a page of a proxy, or a damaged body."""
        answer = self._call("GET", "/health", _unless_down, **how)
        if answer.ok and not _is_health(answer):
            answer = self._call("GET", "/health", _unless_down, **how)
        body = protocol.as_object(answer.body)
        self._offered(body, protocol.parse_limits(body.get("limits")))
        self._health_answer = answer

    def create_session(self, category: str, expected: int, size: int | None = None, **how: Any) -> protocol.Session:
        """Open a session of `size` bytes with a new secret. Raise `NotAnUploadServer` for any other answer."""
        asked, secret = {"category": category, "expectedFiles": expected}, new_secret()
        own = {SESSION_SECRET: secret, **({} if size is None else {EXPECTED_BYTES: str(size)})}
        self.pacer.wait_out_pause(creates=True)

        def read(answer: Answer) -> protocol.Session:
            session = protocol.parse_session(answer.body) if answer.ok else None
            if session is None:
                raise self._no_result(answer)
            self._offered(protocol.as_object(answer.body), session.limits)
            self._secrets[session.session_id] = secret
            return replace(session, category=category, secret=secret, expected=expected)

        return self._call("POST", "/api/upload/session", read, json=asked, headers=own, **how)

    def ask(self, wanted: Ask, body: Body | None) -> Answer:
        """Send one request of a machine, without a retry, and return its answer. Raise the error of a refusal."""
        own = {**wanted.headers, **self.may_write(wanted.session)}
        limit = READ_TIMEOUT if wanted.timeout is None else wanted.timeout
        sent = self._once(
            wanted.method, wanted.url, body=body, headers=own, read_timeout=limit, files=len(wanted.files)
        )
        return judged(sent, wanted)

    def lacking(self, words: str, *, hint: str) -> errors.UploaderError:
        """Return the error for what `/health` does not offer: a `UsageError` where an upload server answered it."""
        answer = self._health_answer
        if answer is None or is_tus(answer) or self.healthy:
            return errors.UsageError(words, hint=hint)
        return self._no_result(answer)

    def lookup(
        self, offer: LookupOffer, files: Sequence[LookedUp], *, digests: str = "known", **how: Any
    ) -> list[FoundFile | None]:
        """Ask for files, in as many requests as the categories and the `offer` need (docs/extensions.md).

        With the `digests` "compute" the server computes those that it does not know, with "read" all anew; an early
        version refuses "read" (400). Those that take long are `pending`.
        """
        found: dict[int, FoundFile | None] = {}
        for category in dict.fromkeys(file.category for file in files):
            same = iter([number for number, file in enumerate(files) if file.category == category])
            while part := list(islice(same, offer.max_files)):
                asked: dict[str, object] = {"category": category, "files": [files[number].asked for number in part]}
                if digests != "known":
                    asked["digests"] = digests
                answer = self._call("POST", offer.endpoint, _accepted, json=asked, files=len(part), **how)
                there = _checked(answer, packs.parse_found(answer.body, len(part)), f"{len(part)} files")
                found.update(zip(part, there, strict=True))
        return [found[number] for number in range(len(files))]

    def finish(self, session_id: str, failed: int = 0, **how: Any) -> None:
        """Close a session where the server has the call; `failed` counts files given up here."""
        given_up = {"failed": failed} if failed else None
        own = self.may_write(session_id)
        self._call(
            "POST", f"/api/upload/session/{_segment(session_id)}/finish", _finished, json=given_up, headers=own, **how
        )

    def progress(self, session_id: str, *, patient: bool = False, **how: Any) -> SessionProgress | None:
        """Return the progress of a session; None for 404. Wait for the end of a pause if `patient`."""
        path = f"/api/upload/progress/{_segment(session_id)}"
        return self._call("GET", path, self._progress, patient=patient, files=MOST_LISTED, **how)

    def _progress(self, answer: Answer) -> SessionProgress | None:
        refuse_missing_page(answer, self.option)
        return None if answer.status == 404 else protocol.parse_progress(_accepted(answer).body, Transport.HTTP)

    def progress_body(self, session_id: str) -> dict[str, object]:
        """Return the progress as received. Raise `NotFound`, or `NotAnUploadServer` for an answer of another kind."""
        return self._ask("GET", f"/api/upload/progress/{_segment(session_id)}", "overallStatus", files=MOST_LISTED)

    def has_page(self) -> bool:
        """Return whether the server has a page for browsers (docs/web.md); it may ask for a token."""
        answer = self._call("GET", "/api/activity", lambda answer: answer, files=MOST_LISTED)
        return answer.status == 401 or "sessions" in protocol.as_object(answer.body)

    def cancel(self, session_id: str) -> dict[str, object]:
        """Cancel a session; running work continues (docs/protocol.md, section 3.9). Raise `NotYours`."""
        path = f"/api/upload/cancel/{_segment(session_id)}"
        return self._ask("POST", path, "success", headers=self.may_write(session_id))

    def delete(self, file_id: str) -> dict[str, object]:
        """Delete a stored file. Raise `NotYours`."""
        return self._ask("DELETE", f"{protocol.STORED_FILE}{_segment(file_id)}", "success")

    def validate(self, files: Sequence[LocalFile], types: Callable[[str], str]) -> dict[str, object]:
        asked = [{"name": protocol.wire_name(one.name), "size": one.size, "type": types(one.name)} for one in files]
        return self._ask("POST", "/api/upload/validate", "files", json={"files": asked}, files=len(asked))

    def accepted(self, method: str, path: str, **how: Any) -> object:
        """Return the body of a good answer. Raise the error of any other one."""
        return self._call(method, path, _accepted, **how).body

    def stored(self, location: str, *, digest: bool = True, **how: Any) -> FoundFile | None:
        """Return what is known of the file at a path or URL from the server, with its `digest`; None for 404.

        Raise `DigestPending` while its digest is computed, `AnswerError` for another refusal, `ProtocolError` for
        another host.
        """
        url = self._located(location)
        if url is None:
            raise errors.ProtocolError(f"{location} is on another host than the server")
        wanted = {**AS_STORED, "Want-Repr-Digest": "sha-256=1"} if digest else AS_STORED

        def read(answer: Answer) -> FoundFile | None:
            if answer.status in (404, 410):
                return None
            if not answer.ok:
                error = answer_error(answer)
                if answer.status == 503 and error.retry_after:  # an answer to HEAD has no code
                    raise errors.DigestPending(str(error), status=503, retry_after=error.retry_after)
                raise error
            sha256 = protocol.sha256_in(answer.headers.get("Repr-Digest", ""))
            return packs.FoundFile(protocol.whole(answer.headers.get("Content-Length")), sha256, None)

        return self._call("HEAD", url, read, headers=wanted, **how)

    def read_back(self, location: str, take: Callable[[bytes], object]) -> bool:
        """Pass the stored bytes to `take`; return False where the server does not give them out."""
        url = self._located(location)
        if url is None:
            return False
        with self.stream(url, {**self.authorization(), **AS_STORED}) as (answer, pieces):
            if answer.status in NO_ANSWER:
                raise answer_error(answer)
            if answer.status != 200 or "Content-Encoding" in answer.headers:  # as some servers do with `x.gz`
                return False
            for piece in pieces:
                self.pacer.stop.checkpoint()
                take(piece)
        return True

    def _ask(self, method: str, path: str, field: str, **how: Any) -> protocol.JsonObject:
        """Return the object of an answer that has `field`. Raise `NotAnUploadServer` for anything else."""

        def read(answer: Answer) -> protocol.JsonObject:
            body = protocol.as_object(answer.body)
            if answer.ok and field in body:
                return body
            if protocol.error_code(body) not in ("", NO_ROUTE):
                raise answer_error(answer)
            raise self._no_result(answer)

        return self._call(method, path, read, **how)

    def _no_result(self, answer: Answer) -> errors.UploaderError:
        if answer.status < 400 or answer.status in (404, 405, 501) or is_tus(answer):
            return not_an_upload_server(answer, self.option)
        return answer_error(answer)

    def _call(
        self,
        method: str,
        path: str,
        read: Callable[[Answer], T],
        *,
        retries: int | None = None,
        patient: bool = True,
        **how: Any,
    ) -> T:
        """Return what `read` makes of the answer, after at most `retries` retries.

        Without `retries` only 429, 507 and an expired token are excused. Not `patient` (a poll, a probe): one request;
        a 429 slows polls alone.
        """

        def step() -> T:
            answer = self._once(method, path, **how)
            if answer.status in (401, 429, 507):
                raise answer_error(answer)
            return read(answer)

        if patient:
            return self.pacer.call(step, at_most=retries, only_excused=retries is None)
        try:
            return step()
        except errors.RateLimited as error:
            self.budget.pause_polls(pause_after(error))
            raise

    def _once(
        self, method: str, path: str, *, body: Body | None = None, headers: Mapping[str, str] | None = None, **how: Any
    ) -> Answer:
        began, sent = time.time(), {**self.authorization(), **(headers or {})}
        url = path if path.startswith(("http://", "https://")) else self.settings.server + path
        answer = self.request(method, url, body=body, headers=sent, **how)
        self.budget.note(answer.headers)
        known = protocol.server_time(answer.headers, answer.body) if body is None else None
        if known is not None:  # its clock was read between request and response
            ended = time.time()
            self.emit(ServerClock(known[0] - (began + ended) / 2, known[1] + (ended - began) / 2))
        return answer

    def _offered(self, body: protocol.JsonObject, limits: Limits | None) -> None:
        """Record what an answer offers beside the calls of section 1."""
        server = self.settings.server
        tus, pack = parse_capabilities(body.get("tus"), server), packs.parse_offer(body.get("packs"), server)
        self.offer = Offer(limits, tus, pack, packs.parse_lookup_offer(body.get("lookup"), server))

    def url_of(self, location: str) -> str:
        """Return the URL of a stored file, from its path or URL in an answer."""
        if self.server and location.startswith(protocol.UPLOADS):  # the common case, without parsing
            return self._uploads + location[len(protocol.UPLOADS) :]
        if usable(location):  # that of a tus endpoint
            return location
        return urljoin(self.settings.target_url, below(self.server, location, protocol.UPLOADS))

    def _located(self, location: str) -> str | None:
        """Return the URL of a stored file; None for another host than the server's (docs/resumable-uploads.md)."""
        url = self.url_of(location)
        return url if trusts(self.settings.target_url, url) else None


def _checked(answer: Answer, content: T | None, what: str) -> T:
    if content is None:
        raise errors.ProtocolError(f"{answer.url} answered {answer.status} without {what}")
    return content


def _accepted(answer: Answer) -> Answer:
    if not answer.ok:
        raise answer_error(answer)
    return answer


def _finished(answer: Answer) -> Answer:
    if not answer.ok:
        error = answer_error(answer)
        # A request of the session has not ended there yet: its connection may have been closed just now.
        error.retryable = error.retryable or error.error == "SESSION_BUSY"
        raise error
    return answer


def _is_health(answer: Answer) -> bool:
    return protocol.text(protocol.as_object(answer.body).get("status")) is not None


def _unless_down(answer: Answer) -> Answer:
    if not answer.ok and (error := answer_error(answer)).outage:
        raise error
    return answer


_segment = partial(quote, safe="")
