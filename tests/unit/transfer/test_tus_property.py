"""The loop against a server that answers anything within the protocol: it ends, with the file complete or a reason."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from tus_model import ENDPOINT, REFUSALS, Model, Told, file_of, make_client, make_terms, outcome, send_in_parts

from uploader_cli import errors
from uploader_cli.core.tus import parts
from uploader_cli.transfer.tus_parts import Part
from uploader_cli.transfer.tus_upload import Known, TusUpload, Watch

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PASSING = ["reset", "refused", "cut", "lost", "short", "408", "409", "423", "429", "460", "500", "503", "503!", "409!"]
"""Failures after which a retry succeeds."""
ALL = [*PASSING, *(f"{status}!" for status in REFUSALS), *REFUSALS, "403-", "404-", "forget", "shrink", "mute"]
DATA = bytes(range(251))


def words(of: list[str]) -> st.SearchStrategy[list[str]]:
    """Return scripts with more `ok` than anything else, so that runs get far."""
    return st.lists(st.one_of(st.just("ok"), st.sampled_from(of)), max_size=40)


@settings(max_examples=300, deadline=None)
@given(
    said=words(ALL),
    size=st.integers(0, 200),
    chunk_size=st.integers(1, 220),
    checksum=st.sampled_from([None, "sha1", "sha256"]),
    keys=st.booleans(),
    cwu=st.booleans(),
    retries=st.integers(0, 4),
    token=st.booleans(),
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
) -> None:
    """A complete upload has equal bytes; the callbacks keep the promises of the event stream either way."""
    file = file_of(scratch(tmp_path_factory), DATA[:size])
    model, told = Model([*said], keys=keys), Told()
    terms = make_terms(
        chunk_size=chunk_size, checksum=checksum, cwu=cwu, retries=retries, refresh=lambda: token, max_wait=9.0
    )
    sent = outcome(TusUpload(make_client(model), terms, file, {"filename": "a"}, watch=told.watch).run)
    if isinstance(sent, errors.UploaderError):
        assert str(sent)
        return
    assert bytes(model.uploads[sent.url].data) == DATA[:size]
    assert told.confirmed == size
    assert sent.url == told.urls[-1]
    assert sent.attempts == len(told.attempts)
    assert not sent.verified or all(model.uploads[sent.url].covered)


@settings(max_examples=200, deadline=None)
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
    model, told = Model([word if word != "460" or checksum is None else "flip" for word in said]), Told()
    terms = make_terms(chunk_size=chunk_size, checksum=checksum, cwu=cwu, retries=41)
    sent = TusUpload(make_client(model), terms, file, {"filename": "a"}, watch=told.watch).run()
    assert {url: bytes(upload.data) for url, upload in model.uploads.items()} == {sent.url: DATA[:size]}
    assert sent.verified == (checksum is not None or not size)
    assert set(told.urls) == {sent.url}


@settings(max_examples=150, deadline=None)
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
    sent = outcome(TusUpload(make_client(model), terms, file, {}).run)
    assert str(sent)
    assert isinstance(sent, errors.UploaderError) or model.furthest >= length


class Liar(Model):
    """A server whose answers are valid, but whose offsets come from a list, again and again."""

    def __init__(self, offsets: list[int]) -> None:
        super().__init__()
        self._offsets = offsets or [0]
        self._at = 0
        self.furthest = 0

    def _answer(self, url: str, status: int, upload: object = None, **headers: str) -> object:  # type: ignore[override]
        answer = super()._answer(url, status, None, **headers)
        if not answer.ok:
            return answer
        self._at += 1
        offset = self._offsets[self._at % len(self._offsets)]
        return super()._answer(url, status, None, **{**headers, "Upload-Offset": str(offset)})

    def _done(self, method: str, url: str, headers: dict[str, str], data: bytes, *, whole: bool) -> object:  # type: ignore[override]
        if method == "PATCH":
            self.furthest = max(self.furthest, int(headers["Upload-Offset"]) + len(data))
            return self._answer(url, 204)
        return super()._done(method, url, headers, data, whole=whole)


@settings(max_examples=100, deadline=None)
@given(
    said=words([*PASSING, "forget", "403", "404-", "413", "mute"]),
    size=st.integers(1, 200),
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
    model, told = Model(said), Told()
    terms = make_terms(chunk_size=16, checksum=checksum, retries=retries)
    clients_of_model = [make_client(model) for _ in range(clients)]
    cut = [Part(start, length) for start, length in parts(size, count)]
    sent = outcome(
        lambda: send_in_parts(clients_of_model, terms, file, {"filename": "a"}, cut, "whole", watch=told.watch)
    )
    if isinstance(sent, errors.UploaderError):
        assert str(sent)
        return
    assert bytes(model.uploads[sent.url].data) == DATA[:size]
    assert told.confirmed == size
    assert sent.verified == all(model.uploads[sent.url].covered)


class Killed(BaseException):
    """The process was killed."""


class Fatal(Model):
    """A server whose `fatal`-th request kills the client: before the work is done, or (`does`) before the answer."""

    fatal, does = -1, False

    def _request(self, method: str, url: str, body: object, headers: object) -> object:  # type: ignore[override]
        self.fatal -= 1
        if self.fatal == 0 and not self.does:
            raise Killed
        answer = super()._request(method, url, body, headers)
        if self.fatal == 0:
            raise Killed
        return answer


@settings(max_examples=300, deadline=None)
@given(
    lives=st.lists(
        st.tuples(st.integers(1, 8), st.booleans(), st.integers(1, 45), st.sampled_from([None, "sha1", "sha256"])),
        min_size=2,
        max_size=6,
    ),
    said=words(["reset", "cut", "lost", "short", "503!", "shrink"]),
)
def test_runs_that_were_killed_leave_an_upload_that_is_verified_only_if_all_was_checked(
    tmp_path_factory: pytest.TempPathFactory, lives: list[tuple[int, bool, int, str | None]], said: list[str]
) -> None:
    """It is always verified where each run had checksums."""
    file, model, known = file_of(scratch(tmp_path_factory), DATA[:40]), Fatal(said), Known()
    sent = None
    for fatal, does, chunk_size, checksum in [*lives, (-1, False, 10, "sha256")]:
        model.fatal, model.does = fatal, does
        terms = make_terms(chunk_size=chunk_size, checksum=checksum, cwu=False, retries=40)
        row = Row(known)
        try:
            sent = TusUpload(
                make_client(model), terms, file, {}, watch=row.watch, known=known, make_key=lambda: "key"
            ).run()
            break
        except Killed:
            known = row.known
    assert sent is not None
    covered = all(model.uploads[sent.url].covered)
    assert not sent.verified or covered
    if all(checksum and chunk_size < file.size for _, _, chunk_size, checksum in lives) and "shrink" not in said:
        assert sent.verified


class Row:
    """What the journal keeps of one upload."""

    def __init__(self, known: Known) -> None:
        self.known = replace(known, key="key")

    @property
    def watch(self) -> Watch:
        return Watch(
            created=lambda url: self._put(url=url),
            confirmed=lambda offset, checked: self._put(confirmed=offset, checked_until=checked),
            pledged=lambda until: self._put(pledged_until=until),
        )

    def _put(self, **values: object) -> None:
        self.known = replace(self.known, **values)  # type: ignore[arg-type]


def test_known_upload_that_is_complete_costs_one_request(tmp_path: Path) -> None:
    file = file_of(tmp_path / "a", DATA)
    model = Model()
    client, terms = make_client(model), make_terms(chunk_size=100)
    sent = TusUpload(client, terms, file, {}).run()
    model.calls.clear()
    again = TusUpload(client, terms, file, {}, known=Known(url=sent.url)).run()
    assert (again.url, model.methods) == (ENDPOINT + "1", "HEAD")


def scratch(factory: pytest.TempPathFactory) -> Path:
    return factory.getbasetemp() / "file"
