"""The REST calls of docs/protocol.md, section 1. Retries by error class belong to the caller."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from uploader_cli import errors
from uploader_cli.core import packs, protocol
from uploader_cli.core.events import ServerClock, SessionProgress, Transport
from uploader_cli.core.tus import Capabilities, parse_capabilities, trusts
from uploader_cli.settings import mask
from uploader_cli.transfer.http import READ_TIMEOUT, Answer, Http, RequestIds, redirect_target
from uploader_cli.transfer.pacing import DEFAULT_WAIT, RateBudget, retry_after
from uploader_cli.transfer.retry import LEAST_WAIT, Retry, Tries

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from uploader_cli.core.events import Event
    from uploader_cli.core.plan import Limits, LocalFile
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.bodies import MultipartBody
    from uploader_cli.transfer.http import Payload
    from uploader_cli.transfer.pacing import Stop

    Kinds = Mapping[tuple[int, str], type[errors.AnswerError]]

PROCESSING_TIMEOUT = 300.0
PROCESSING_PER_FILE = 30.0
"""Seconds after the last byte in which the answer must begin: servers work minutes on it (wire contract 3.2)."""
STATUS_LIMIT = 5.0
"""Seconds for an answer on how an analysis stands: the next question comes anyway."""
NO_ANSWER = (401, 403, 408, 425, 429, 500, 502, 503, 504, 507)
"""Statuses that do not tell whether a server gives out what it stores; any other refusal says that it does not."""
BATCH_ERRORS: Kinds = {  # the caller knows of which server a 500 means a lost session (wire contract 3.14)
    (404, "SESSION_NOT_FOUND"): errors.SessionLost,
    (409, "SESSION_ENDED"): errors.SessionLost,
}
PACK_ERRORS: Kinds = {
    (404, "SESSION_NOT_FOUND"): errors.SessionLost,
    (409, "SESSION_ENDED"): errors.SessionLost,
    (409, "PACK_IN_PROGRESS"): errors.ServerFault,
    (404, ""): errors.PacksRefused,
    (405, ""): errors.PacksRefused,
    (501, ""): errors.PacksRefused,
    (413, ""): errors.TooLarge,
    (422, "KEY_REUSED"): errors.KeyReused,
}


class Api:
    """Call a server. Each thread has its own: connections aren't shared; budget, token and retry policy are."""

    def __init__(
        self,
        settings: Settings,
        emit: Callable[[Event], None],
        stop: Stop,
        *,
        beside: Api | None = None,
        run: str = "",
    ) -> None:
        """`beside` is another thread's client of the same server; `run` begins the ids of requests."""
        self._settings, self._emit, self._stop = settings, emit, stop
        self.request_ids: RequestIds = beside.request_ids if beside else RequestIds(run, emit)
        self.budget: RateBudget = beside.budget if beside else RateBudget()
        self._token: _Token = beside._token if beside else _Token(settings, stop)
        self.retry: Retry = (
            beside.retry
            if beside
            else Retry(
                stop,
                self.budget,
                retries=settings.retries,
                max_wait=settings.max_wait,
                refresh=self._token.refresh,
                emit=emit,
            )
        )
        self.http = Http(settings, self.request_ids)
        self.tus: Capabilities | None = None
        """What the server last offered of resumable uploads: `/health` and session answers say so."""
        self.packs: packs.PackOffer | None = None
        """What it last offered of packs."""
        self.lookups: packs.LookupOffer | None = None
        """What it last offered of lookups."""

    def another(self) -> Api:
        """Return a client of the same server for another thread."""
        return Api(self._settings, self._emit, self._stop, beside=self)

    @property
    def answered(self) -> bool:
        """True once anything at that address answered."""
        return self.budget.answered

    def authorization(self) -> dict[str, str]:
        """The header that carries the token, if there is one."""
        token = self._token.value
        return {"Authorization": f"Bearer {token}"} if token else {}

    def note(self, answer: Answer) -> None:
        """Take down what any answer of the server tells of its rate limit."""
        self.budget.note(answer.headers)

    def shut(self) -> None:
        """End the call under way, from another thread."""
        self.http.shut()

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    # --- calls --------------------------------------------------------------------------------------------------------

    def health(self) -> Limits | None:
        """`GET /health`: the limits, where it names them. Raises `NetworkError`; any answer will do."""
        body = protocol.as_object(self._call("GET", "/health", raises=False).body)
        self._note_offers(body)
        return protocol.parse_limits(body.get("limits"))

    def create_session(self, category: str, expected: int) -> protocol.Session:
        """`POST /api/upload/session`. Raises `NotAnUploadServer` where the answer is no session."""
        asked = {"category": category, "expectedFiles": expected}
        answer = self._call("POST", "/api/upload/session", json=asked, raises=False)
        session = protocol.parse_session(answer.body) if answer.ok else None
        if session is not None:
            self._note_offers(protocol.as_object(answer.body))
            return replace(session, category=category)
        raise _no_result(answer)

    def batch(self, make_body: Callable[[], MultipartBody], files: int) -> tuple[protocol.StoredFile, ...]:
        """`POST /api/upload/batch`, once. Raise `SessionLost` where the server does not know the session.

        A 429 or an expired token is raised as well: the request was stopped, and its body begins again.
        """
        body, limit = make_body(), PROCESSING_TIMEOUT + PROCESSING_PER_FILE * files
        try:
            answer = self._once("POST", "/api/upload/batch", body=body, read_timeout=limit)
        finally:
            body.close()
        if not answer.ok:
            raise _refused(answer, BATCH_ERRORS)
        stored = protocol.parse_batch(answer.body)
        if stored is None:
            raise errors.ProtocolError(f"{answer.url} answered {answer.status} without a list of files")
        return stored

    def pack(self, endpoint: str, key: str, body: Payload, count: int) -> list[packs.PackedFile]:
        """Send one pack of `count` files (docs/protocol.md, section 6). A repeat of `key` is answered as before.

        Raise `PacksRefused`, `KeyReused`, `SessionLost` or `TooLarge`, and what any call raises.
        """
        return _packed(self._once("POST", endpoint, body=body, headers={"Idempotency-Key": key}), count)

    def pack_answer(self, endpoint: str, key: str, count: int) -> list[packs.PackedFile] | None:
        """Return the answer to a pack that was sent before; None where the server has none.

        Raise `KeyReused` where it was a pack of another number of files: that run had cut them in another way.
        """
        answer = self._once("GET", f"{endpoint}/{key}")
        if answer.status == 404:
            return None
        if answer.status == 200 and packs.parse_answer(answer.body, count) is None:
            raise errors.KeyReused(f"{answer.url} is a pack of other files", status=answer.status)
        return _packed(answer, count)

    def lookup(self, endpoint: str, category: str, files: Sequence[tuple[str, int]]) -> list[packs.Found | None]:
        """Ask what the server has of files, each given by path and size (docs/protocol.md, section 9)."""
        asked = {"category": category, "files": [{"relativePath": path, "size": size} for path, size in files]}
        answer = self._call("POST", endpoint, json=asked)
        found = packs.parse_found(answer.body, len(files))
        if found is None:
            raise errors.ProtocolError(f"{answer.url} answered {answer.status} without {len(files)} files")
        return found

    def finish(self, session_id: str, failed: int = 0) -> None:
        """`POST /api/upload/session/{id}/finish`, on servers that have it; `failed` files were given up here."""
        self._call(
            "POST", f"/api/upload/session/{_segment(session_id)}/finish", json={"failed": failed} if failed else None
        )

    def progress(self, session_id: str, *, patient: bool = False) -> SessionProgress | None:
        """`GET /api/upload/progress/{id}`; None for 404. Waits out a pause if `patient`: polls come again anyway."""
        try:
            answer = self._call("GET", f"/api/upload/progress/{_segment(session_id)}", patient=patient)
        except errors.NotFound:
            return None
        return protocol.parse_progress(answer.body, Transport.HTTP)

    def progress_body(self, session_id: str) -> dict[str, object]:
        """The same, as the server wrote it. Raises `NotFound`."""
        return self._ask("GET", f"/api/upload/progress/{_segment(session_id)}")

    def cancel(self, session_id: str) -> dict[str, object]:
        """`POST /api/upload/cancel/{id}`. On the reference backend it stops nothing under way (wire contract 3.9)."""
        return self._ask("POST", f"/api/upload/cancel/{_segment(session_id)}")

    def delete(self, file_id: str) -> dict[str, object]:
        """`DELETE /api/upload/file/{id}`, with the token."""
        return self._ask("DELETE", f"/api/upload/file/{_segment(file_id)}")

    def validate(self, files: Sequence[LocalFile], types: Callable[[str], str]) -> dict[str, object]:
        """`POST /api/upload/validate` with name, size and type of each file."""
        listed = [
            {"name": protocol.wire_name(file.name), "size": file.size, "type": types(file.name)} for file in files
        ]
        return self._ask("POST", "/api/upload/validate", json={"files": listed})

    def analyse(self, path: str, asked: dict[str, object], limit: float) -> object:
        """One of the calls for an analysis (wire contract 4): its answer, which begins within `limit` seconds."""
        return self._call("POST", path, json=asked, read_timeout=limit).body

    def analysis_status(self, session: str) -> protocol.AnalysisStatus:
        """`GET /api/ai/analysis/{id}/status`. Raises `NotFound`; never waits out a pause."""
        path = f"/api/ai/analysis/{_segment(session)}/status"
        return protocol.parse_analysis_status(self._call("GET", path, patient=False, read_timeout=STATUS_LIMIT).body)

    def stored(self, category: str, relative_path: str) -> tuple[int | None, str | None] | None:
        """`HEAD /uploads/{category}/{path}`: size in bytes and SHA-256 (base64), where told; None for 404."""
        return self.stored_at(stored_path(category, relative_path))

    def stored_at(self, where: str) -> tuple[int | None, str | None] | None:
        """The same for a path or URL that the server gave.

        Raise `DigestPending` while the server computes the digest, `AnswerError` for another refusal, and
        `ProtocolError` for a URL on another host: they do not tell whether the file is stored.
        """
        if not self._is_ours(where):
            raise errors.ProtocolError(f"{where} is on another host than the server")
        answer = self._call("HEAD", where, raises=False, headers={"Want-Repr-Digest": "sha-256=1"})
        if answer.status in (404, 410):
            return None
        if not answer.ok:
            error = answer_error(answer)
            if answer.status == 503 and error.retry_after:  # an answer to HEAD has no code
                raise errors.DigestPending(str(error), status=503, retry_after=error.retry_after)
            raise error
        return protocol.whole(answer.headers.get("Content-Length")), sha256_of(answer.headers.get("Repr-Digest", ""))

    def read_back(self, where: str, take: Callable[[bytes], object]) -> bool:
        """Give the stored bytes to `take`, piece by piece; False where the server does not give them out."""
        if not self._is_ours(where):
            return False
        self.retry.wait_out_pause()
        with self.http.stream(self._url(where), self.authorization()) as (answer, pieces):
            if answer.status in NO_ANSWER:
                raise answer_error(answer)
            if answer.status != 200:
                return False
            for piece in pieces:
                self._stop.check()
                take(piece)
        return True

    # --- one call -----------------------------------------------------------------------------------------------------

    def _ask(self, method: str, path: str, **how: Any) -> protocol.JsonObject:
        """Return the object that the server answers with. Raise `NotAnUploadServer` where the answer is not one."""
        answer = self._call(method, path, raises=False, **how)
        if answer.ok and isinstance(answer.body, dict):
            return answer.body
        if protocol.error_code(answer.body):
            raise answer_error(answer)
        raise _no_result(answer)

    def _call(self, method: str, path: str, *, patient: bool = True, raises: bool = True, **how: Any) -> Answer:
        """Send one call. A 429 or an expired token is excused by the retry policy; raise for what is left.

        A call that is not `patient` is a poll: a 429 slows polls alone.
        """

        def step() -> Answer:
            answer = self._once(method, path, **how)
            if answer.status in (401, 429) or (raises and not answer.ok):
                raise answer_error(answer)
            return answer

        if patient:
            return Tries(self.retry).excusing(step)
        try:
            return step()
        except errors.RateLimited as error:
            delay = DEFAULT_WAIT if error.retry_after is None else max(LEAST_WAIT, error.retry_after)
            self.budget.pause_polls(delay)
            raise

    def _once(
        self,
        method: str,
        path: str,
        *,
        body: Payload | None = None,
        headers: Mapping[str, str] | None = None,
        json: object = None,
        read_timeout: float = READ_TIMEOUT,
    ) -> Answer:
        began, sent = time.time(), {**self.authorization(), **(headers or {})}
        answer = self.http.request(
            method, self._url(path), json=json, body=body, headers=sent, read_timeout=read_timeout
        )
        self.note(answer)
        told = protocol.server_time(answer.headers, answer.body) if body is None else None
        if told is not None:  # somewhere between the question and the answer: its middle, half of that time sure
            ended = time.time()
            self._emit(ServerClock(told[0] - (began + ended) / 2, told[1] + (ended - began) / 2))
        return answer

    def _note_offers(self, body: protocol.JsonObject) -> None:
        self.tus = parse_capabilities(body.get("tus"), self._settings.server)
        self.packs = packs.parse_offer(body.get("packs"), self._settings.server)
        self.lookups = packs.parse_lookup_offer(body.get("lookup"), self._settings.server)

    def _url(self, where: str) -> str:
        return where if where.startswith(("http://", "https://")) else self._settings.server + where

    def _is_ours(self, where: str) -> bool:
        """No call is made to another host, whatever an answer says (wire contract 5)."""
        return trusts(self._settings.target_url, self._url(where))


class _Token:
    """The bearer token, read when it is first needed; a command is asked again once the server refuses it."""

    def __init__(self, settings: Settings, stop: Stop) -> None:
        self._settings, self._stop, self._lock = settings, stop, threading.Lock()
        self._value: str | None = None
        self._read = False

    @property
    def value(self) -> str | None:
        with self._lock:
            if not self._read:
                self._value, self._read = self._settings.bearer(stopped=lambda: bool(self._stop)), True
            return self._value

    def refresh(self) -> bool:
        """Ask again; True where that brought another token."""
        with self._lock:
            if self._value is None:
                return False
            before = self._value
            self._value = self._settings.bearer(refresh=True, stopped=lambda: bool(self._stop))
            return self._value != before


# --- answers ----------------------------------------------------------------------------------------------------------


def _packed(answer: Answer, count: int) -> list[packs.PackedFile]:
    """Return the entries of a 200; raise the error for anything else."""
    if answer.status != 200:
        raise _refused(answer, PACK_ERRORS)
    entries = packs.parse_answer(answer.body, count)
    if entries is None:
        raise errors.ProtocolError(f"{answer.url} answered {answer.status} without {count} files")
    return entries


def _refused(answer: Answer, kinds: Kinds) -> errors.AnswerError:
    """The error for a refused batch or pack: by `kinds`, else as for any call."""
    error = answer_error(answer)
    kind = kinds.get((error.status, error.error)) or kinds.get((error.status, ""))
    if kind is not None:
        error = kind(str(error), status=error.status, error=error.error, retry_after=error.retry_after)
        error.retryable = kind in (errors.SessionLost, errors.ServerFault)  # in another session; once it is through
    elif isinstance(error, errors.TooSlow):
        error.retryable = False  # never repeated with the same files (3.10)
    return error


def answer_error(answer: Answer) -> errors.AnswerError:
    """The error for a refusal, by status and code. A 5xx is told with the id of the request, for the server's log."""
    status, target = answer.status, redirect_target(answer)
    code, said = protocol.error_code(answer.body), mask(protocol.error_sentence(answer.body))  # it may quote the token
    named = f", request {answer.request_id}" if answer.request_id and status >= 500 else ""
    words = f"{status}" + (f" {code}" if code else "") + named + (f" ({said})" if said else "")
    kind, text, hint = errors.AnswerError, f"the server refused: {words}", ""
    match status:
        case 401 | 403:
            kind, hint = errors.Unauthorized, "give a token with UPLOADER_TOKEN, --token-file or --token-command"
        case 404 | 410:
            kind, text = errors.NotFound, f"{answer.url}: {words}"
        case 408:
            kind, text = errors.TooSlow, "the request did not arrive in the server's time (408)"
        case 429:
            kind, text = errors.RateLimited, f"the server's rate limit is used up: {words}"
            hint = "try again later, or allow a longer --max-wait"
        case _ if target is not None:
            text, hint = f"the server sends us on to {mask(target)}", "use that address as --server"
        case _ if status >= 500:
            kind, text = errors.ServerFault, f"the server failed: {words}"
    return kind(text, status=status, error=code, hint=hint, retry_after=retry_after(answer.headers))


def _no_result(answer: Answer) -> errors.UploaderError:
    """Return the error for an answer without the result that the contract asks for.

    What web servers answer to calls that they do not know says that it is no upload server.
    """
    if answer.status < 400 or answer.status in (404, 405, 501):
        return not_an_upload_server(answer)
    return answer_error(answer)


def not_an_upload_server(answer: Answer) -> errors.NotAnUploadServer:
    """What answered does not speak the contract."""
    target = redirect_target(answer)
    return errors.NotAnUploadServer(
        f"{answer.url} answered {answer.status}, but not as an upload server does",
        hint=f"it points to {mask(target)}: is that the --server?"
        if target
        else "check --server: its path, its port, and whether a proxy answers in its place",
    )


def stored_path(category: str, file_name: str) -> str:
    """The URL path of a stored file."""
    return f"/uploads/{category}/{quote(file_name)}"


def _segment(identifier: str) -> str:
    """An id as one segment of a path: it may come from a person or a stranger's server."""
    return quote(identifier, safe="")


def sha256_of(repr_digest: str) -> str | None:
    """The SHA-256 of a `Repr-Digest` header (RFC 9530), base64."""
    for part in repr_digest.split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "sha-256":
            return value.strip(": ")
    return None
