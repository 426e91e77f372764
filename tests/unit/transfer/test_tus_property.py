"""The loop against a server that answers anything within the protocol: it ends, with the file complete or a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.transfer.tus_model import ENDPOINT, REFUSALS, Emitted, Model, failure, file_of, make_client, make_terms, send

from uploader_cli import errors

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_cli.transfer.results import FileResult

PASSING = ["reset", "refused", "cut", "lost", "short", "408", "409", "423", "429", "460", "500", "503", "503!", "409!"]
"""Failures after which a retry succeeds."""
ALL = [*PASSING, *(f"{status}!" for status in REFUSALS), *REFUSALS, "403-", "404-", "forget", "shrink", "mute"]
DATA = bytes(range(251))


def words(of: list[str]) -> st.SearchStrategy[list[str]]:
    """Return scripts with more `ok` than anything else, so that runs get far."""
    return st.lists(st.one_of(st.just("ok"), st.sampled_from(of)), max_size=40)


@given(
    said=words(ALL),
    size=st.integers(0, 200),
    chunk_size=st.integers(1, 220),
    checksum=st.sampled_from([None, "sha1", "sha256"]),
    keys=st.booleans(),
    cwu=st.booleans(),
    retries=st.integers(0, 4),
    token=st.booleans(),
    foreign=st.booleans(),
    readable=st.booleans(),
)
def test_any_server_leads_to_a_complete_upload_or_an_error(
    tmp_path_factory: pytest.TempPathFactory,
    said: list[str],
    size: int,
    chunk_size: int,
    checksum: str | None,
    keys: bool,
    cwu: bool,
    retries: int,
    token: bool,
    foreign: bool,
    readable: bool,
) -> None:
    """A complete upload has equal bytes; the callbacks keep the promises of the event stream either way.

    On a foreign server it is confirmed only by the answer to the request that completed it, or by a reading.
    """
    file = file_of(scratch(tmp_path_factory), DATA[:size])
    model, told = Model([*said], keys=keys), Emitted()
    model.readable = readable
    terms = make_terms(
        chunk_size=chunk_size, checksum=checksum, cwu=cwu, retries=retries, refresh=lambda: token, max_wait=9.0
    )
    sent = send_or_fail(told, [make_client(model)], terms, file, foreign=foreign)
    if sent is None:
        return
    if sent.error is not None:
        assert (foreign, type(sent.error)) == (True, errors.OutcomeUnknown)
        return
    upload = model.uploads.get(sent.content_location or "")
    if upload is None:  # an empty file is complete with the answer to its creation: its upload may be forgotten
        assert not size
        assert "forget" in said
        return
    assert bytes(upload.data) == DATA[:size]
    assert not foreign or not upload.completed_by.endswith("!")
    assert not (foreign and size) or upload.completed_by != "lost" or (readable and not sent.verified)
    if not terms.in_one_request(size):
        assert (told.confirmed, told.urls[-1]) == (size, sent.content_location)
    assert not sent.verified or all(upload.covered)


@given(
    said=words(PASSING),
    size=st.integers(0, 200),
    chunk_size=st.integers(1, 220),
    checksum=st.sampled_from([None, "sha256"]),
    cwu=st.booleans(),
)
def test_temporary_failures_within_the_retries_lead_to_a_complete_upload(
    tmp_path_factory: pytest.TempPathFactory,
    said: list[str],
    size: int,
    chunk_size: int,
    checksum: str | None,
    cwu: bool,
) -> None:
    """There is one upload, with equal bytes; `flip` is found by the checksum."""
    file = file_of(scratch(tmp_path_factory), DATA[:size])
    model, told = Model([word if word != "460" or checksum is None else "flip" for word in said]), Emitted()
    terms = make_terms(chunk_size=chunk_size, checksum=checksum, cwu=cwu, retries=41)
    sent = send(told, [make_client(model)], terms, file)
    assert sent.error is None
    assert {url: bytes(upload.data) for url, upload in model.uploads.items()} == {sent.content_location: DATA[:size]}
    assert sent.verified == (checksum is not None or not size)
    assert terms.in_one_request(size) or set(told.urls) == {sent.content_location}


@given(
    offsets=st.lists(st.integers(0, 60), max_size=100),
    retries=st.integers(0, 3),
    length=st.integers(1, 50),
)
def test_server_with_random_offsets_ends_the_upload(
    tmp_path_factory: pytest.TempPathFactory, offsets: list[int], retries: int, length: int
) -> None:
    """Complete is only an upload whose last byte was sent."""
    file = file_of(scratch(tmp_path_factory), DATA[:length])
    model = Liar(offsets)
    terms = make_terms(chunk_size=8, cwu=False, retries=retries)
    sent = send_or_fail(Emitted(), [make_client(model)], terms, file)
    assert sent is None or model.furthest >= length


class Liar(Model):
    """A server whose answers are valid, but whose offsets come from a list, again and again."""

    def __init__(self, offsets: list[int]) -> None:
        super().__init__()
        self._offsets = offsets or [0]
        self._at = 0
        self.furthest = 0

    def answer(self, url: str, status: int, upload: object = None, **headers: str) -> object:  # type: ignore[override]
        answer = super().answer(url, status, None, **headers)
        if not answer.ok:
            return answer
        self._at += 1
        offset = self._offsets[self._at % len(self._offsets)]
        return super().answer(url, status, None, **{**headers, "Upload-Offset": str(offset)})

    def done(self, method: str, url: str, headers: dict[str, str], data: bytes, *, whole: bool) -> object:  # type: ignore[override]
        if method == "PATCH":
            self.furthest = max(self.furthest, int(headers["Upload-Offset"]) + len(data))
            return self.answer(url, 204)
        return super().done(method, url, headers, data, whole=whole)


@given(
    said=words([*PASSING, "forget", "403", "404-", "413", "mute"]),
    size=st.integers(2, 200),
    count=st.integers(1, 5),
    clients=st.integers(1, 3),
    checksum=st.sampled_from([None, "sha256"]),
    retries=st.integers(0, 4),
)
def test_any_server_leads_to_a_complete_file_in_parts_or_an_error(
    tmp_path_factory: pytest.TempPathFactory,
    said: list[str],
    size: int,
    count: int,
    clients: int,
    checksum: str | None,
    retries: int,
) -> None:
    """The progress of the whole file keeps the promises of the event stream."""
    file = file_of(scratch(tmp_path_factory), DATA[:size])
    model, told = Model(said), Emitted()
    terms = make_terms(chunk_size=16, checksum=checksum, retries=retries)
    sent = send_or_fail(told, [make_client(model) for _ in range(clients)], terms, file, idle=count)
    if sent is None:
        return
    upload = model.uploads[sent.content_location or ""]
    assert bytes(upload.data) == DATA[:size]
    assert told.confirmed == size
    assert sent.verified == all(upload.covered)


class Killed(BaseException):
    """The process was killed."""


class Fatal(Model):
    """A server whose `fatal`-th request kills the client: before the work is done, or (`does`) before the answer."""

    fatal, does = -1, False

    def respond(self, method: str, url: str, body: object, headers: object) -> object:  # type: ignore[override]
        self.fatal -= 1
        if self.fatal == 0 and not self.does:
            raise Killed
        answer = super().respond(method, url, body, headers)
        if self.fatal == 0:
            raise Killed
        return answer


@pytest.mark.thorough
@given(
    lives=st.lists(
        st.tuples(st.integers(1, 8), st.booleans(), st.integers(1, 45), st.sampled_from([None, "sha1", "sha256"])),
        min_size=2,
        max_size=6,
    ),
    said=words(["reset", "cut", "lost", "short", "503!", "shrink"]),
    count=st.integers(1, 3),
)
def test_runs_that_were_killed_leave_an_upload_that_is_verified_only_if_all_was_checked(
    tmp_path_factory: pytest.TempPathFactory,
    lives: list[tuple[int, bool, int, str | None]],
    said: list[str],
    count: int,
) -> None:
    """It is always verified where each run had checksums; in one piece and in parts."""
    if count > 1:
        said = [word for word in said if word != "shrink"]  # finished parts stay as they are
    file, model, told = file_of(scratch(tmp_path_factory), DATA[:40]), Fatal(said), Emitted()
    sent, resumes = None, False
    for fatal, does, chunk_size, checksum in [*lives, (-1, False, 10, "sha256")]:
        model.fatal, model.does = fatal, does
        terms = make_terms(chunk_size=chunk_size, checksum=checksum, cwu=False, retries=40)
        told = told.next_run()
        try:
            sent = send(told, [make_client(model)], terms, file, resumes=resumes, idle=0 if resumes else count - 1)
            break
        except Killed:
            resumes = True
    assert sent is not None
    assert sent.error is None, sent.error
    upload = model.uploads[sent.content_location or ""]
    covered = all(upload.covered)
    assert bytes(upload.data) == DATA[:40]
    assert not sent.verified or covered
    least = file.size // count
    if all(checksum and chunk_size < least for _, _, chunk_size, checksum in lives) and "shrink" not in said:
        assert sent.verified


def test_known_upload_that_is_complete_costs_one_request(tmp_path: Path) -> None:
    file = file_of(tmp_path / "a", DATA)
    model = Model()
    client, terms, told = make_client(model), make_terms(chunk_size=100), Emitted()
    send(told, [client], terms, file)
    model.calls.clear()
    again = send(told.next_run(), [client], terms, file, resumes=True)
    assert (again.content_location, model.methods) == (ENDPOINT + "1", "HEAD")


def send_or_fail(*arguments: Any, **options: Any) -> FileResult | None:
    """Return the outcome of a file that was sent; None for one that failed with a reason."""
    outcomes: list[FileResult] = []
    error = failure(lambda: outcomes.append(send(*arguments, **options)) or outcomes[0])  # type: ignore[func-returns-value]
    assert error is None or str(error)
    return outcomes[0] if error is None else None


def scratch(factory: pytest.TempPathFactory) -> Path:
    return factory.getbasetemp() / "file"
