"""The cases of docs/resumable-uploads.md, one by one, against a model server: requests, callbacks, and results."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from fakes import Clock
from unit.transfer.tus_model import (
    ENDPOINT,
    Emitted,
    FakeStop,
    Model,
    failure,
    file_of,
    make_client,
    make_terms,
    pauses,
    send,
)

from uploader_cli import errors
from uploader_cli.core.capabilities import LARGE
from uploader_cli.core.events import FailureCode
from uploader_cli.core.sizes import ChunkSize
from uploader_cli.transfer import bodies
from uploader_cli.transfer.journal.reading import PendingUpload
from uploader_cli.transfer.protocols.upload import RESTARTS
from uploader_cli.transfer.tus_state import Tus

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_cli.core import events as ev
    from uploader_cli.transfer.results import FileResult

DATA = bytes(range(25))


class Case:
    """One upload of `DATA` in chunks of ten bytes, to a server that follows the script `words`."""

    def __init__(self, tmp_path: Path, words: str = "", **terms: Any) -> None:
        self.model, self.told = Model(words.split(), keys=terms.pop("keys", True)), Emitted()
        self.events: list[ev.Event] = []
        self.terms = make_terms(emit=self.events.append, **terms)
        self.file = file_of(tmp_path / "a.bin", DATA)
        self.resumes = False

    def send(self, **options: Any) -> FileResult:
        return send(self.told, [make_client(self.model)], self.terms, self.file, resumes=self.resumes, **options)

    def sent(self) -> FileResult:
        """Send the file: the server has its bytes."""
        outcome = self.send()
        assert outcome.error is None, outcome.error
        assert bytes(self.model.uploads[outcome.content_location or ""].data) == DATA
        return outcome

    def run(self) -> str:
        """Send the file and return the calls that it took."""
        self.sent()
        return self.model.methods

    def fail(self) -> errors.UploaderError:
        error = failure(self.send)
        assert error is not None
        return error


CALLS = {
    # the script of the server: the calls, and the offset at which each attempt began
    "": ("POST PATCH PATCH PATCH", [0]),
    "ok lost": ("POST PATCH HEAD PATCH PATCH", [0, 10]),
    "ok ok ok lost": ("POST PATCH PATCH PATCH HEAD", [0, 25]),
    "ok cut": ("POST PATCH HEAD PATCH PATCH", [0, 5]),
    "ok reset": ("POST PATCH HEAD PATCH PATCH PATCH", [0, 0]),
    "ok refused refused": ("POST PATCH HEAD HEAD PATCH PATCH PATCH", [0, 0, 0]),
    "ok short": ("POST PATCH PATCH PATCH", [0]),
    "ok ok 409": ("POST PATCH PATCH HEAD PATCH PATCH", [0, 10]),
    "ok 423 500": ("POST PATCH HEAD HEAD PATCH PATCH PATCH", [0, 0, 0]),
    "ok 408": ("POST PATCH HEAD PATCH PATCH PATCH", [0, 0]),
    "ok 503!": ("POST PATCH HEAD PATCH PATCH", [0, 10]),
    "ok ok shrink": ("POST PATCH PATCH HEAD PATCH PATCH", [0, 5]),
    "ok ok 500 forget": ("POST PATCH PATCH HEAD POST PATCH PATCH PATCH", [0, 0]),
    "ok ok forget": ("POST PATCH PATCH HEAD POST PATCH PATCH PATCH", [0, 0]),
    "ok ok 500 403": ("POST PATCH PATCH HEAD POST PATCH PATCH PATCH", [0, 0]),
    "ok ok 500 403-": ("POST PATCH PATCH HEAD HEAD PATCH PATCH", [0, 10, 10]),
    "ok ok 404-": ("POST PATCH PATCH HEAD PATCH PATCH", [0, 10]),
    "503 503": ("POST POST POST PATCH PATCH PATCH", [0, 0, 0]),
    "lost": ("POST POST PATCH PATCH PATCH", [0, 0]),
}


@pytest.mark.parametrize("words", CALLS)
def test_each_failure_is_followed_by_head_and_the_servers_offset_holds(tmp_path: Path, words: str) -> None:
    case = Case(tmp_path, words)
    calls, attempts = CALLS[words]
    assert (case.run(), case.told.attempts) == (calls, attempts)


def test_sent_bytes_do_not_fall_when_the_server_takes_half_a_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next chunk begins before the end of the last one, in the same attempt."""
    monkeypatch.setattr(bodies, "REPORT_EVERY", 0.0)
    case = Case(tmp_path, "ok short", chunk_size=20)
    case.run()
    assert (case.told.attempts, case.told.sent) == ([0], 25)


@pytest.mark.parametrize(
    ("terms", "pledges"),
    [
        ({"checksum": "sha1"}, [10, 20, 25]),
        ({"checksum": None}, []),
        ({"checksum": "sha1", "chunk_size": 25}, []),
        ({"checksum": "sha1", "chunk_size": 25, "cwu": False}, []),
    ],
    ids=["chunks", "no checksum", "with its creation", "one chunk"],
)
def test_chunk_with_checksum_is_pledged_unless_it_is_the_whole_file(
    tmp_path: Path, terms: dict[str, Any], pledges: list[int]
) -> None:
    """A small file should not cost one more write to the journal."""
    case = Case(tmp_path, **terms)
    case.run()
    assert case.told.pledges == pledges


@pytest.mark.parametrize(
    ("terms", "ends", "writes"),
    [
        ({}, [10, 20, 25], 3),
        ({"checksum": "sha1"}, [10, 20, 25], 6),
        ({"chunk_size": 25, "cwu": False}, [25], 1),
        ({"chunk_size": 25}, [], 0),
    ],
    ids=["chunks", "checksums", "one chunk", "with its creation"],
)
def test_end_of_each_request_is_journaled_before_it_is_sent(
    tmp_path: Path, terms: dict[str, Any], ends: list[int], writes: int
) -> None:
    """The first one is written with the URL; with checksums it needs no write of its own, nor for a small file."""
    case = Case(tmp_path, **terms)
    known: list[int] = []
    request = case.model.request

    def look(method: str, *arguments: Any, body: Any = None, **more: Any) -> Any:
        if method == "PATCH":
            known.append(case.told.upload.sent_until or 0)
            assert int(more["headers"]["Upload-Offset"]) + len(body) <= known[-1]
        return request(method, *arguments, body=body, **more)

    case.model.request = look  # type: ignore[method-assign]
    case.sent()
    assert (case.told.ends, case.told.writes) == (ends, writes)


def test_chunk_that_has_grown_since_the_creation_is_journaled(tmp_path: Path) -> None:
    """Another worker may change the size; the whole file is sent in a request that ends beyond the journaled one."""
    case = Case(tmp_path, cwu=False)
    update = case.told.update

    def grow(*arguments: Any, **values: Any) -> None:
        update(*arguments, **values)
        case.terms.chunk.size = 25

    case.told.update = grow  # type: ignore[method-assign]
    assert case.run() == "POST PATCH"
    assert case.told.ends == [10, 25]


def test_chunk_without_checksum_resets_the_pledge(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.resumes, case.told = True, Emitted(PendingUpload("k1", pledged_until=10))
    case.run()
    assert case.told.pledges == [0]


def test_file_of_one_chunk_takes_one_request(tmp_path: Path) -> None:
    case = Case(tmp_path, chunk_size=25, checksum="sha256")
    assert case.sent().verified
    assert (case.model.methods, case.told.attempts) == ("POST+", [0])


FAR_CALLS = {
    # the script of a distant server: the calls, and the offset at which each attempt began
    "": ("POST+ PATCH PATCH", [0]),
    "lost": ("POST+ POST PATCH PATCH", [0, 10]),
    "cut": ("POST+ POST PATCH PATCH", [0, 5]),
    "413": ("POST POST PATCH PATCH PATCH PATCH PATCH", [0, 0]),
}


@pytest.mark.parametrize("script", FAR_CALLS)
def test_creation_at_a_distant_server_carries_the_first_chunk(
    tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows the key of an upload whose creation was not answered; other servers would keep it as garbage."""
    monkeypatch.setattr("uploader_cli.transfer.upload_driver.ONE_TRIP_LESS", len(DATA))
    case = Case(tmp_path, script)
    outcome = case.send(round_trip=0.08)
    assert bytes(case.model.uploads[outcome.content_location or ""].data) == DATA
    assert (case.model.methods, case.told.attempts) == FAR_CALLS[script]


def test_creation_at_a_distant_foreign_server_has_no_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uploader_cli.transfer.upload_driver.ONE_TRIP_LESS", len(DATA))
    case = Case(tmp_path, keys=False)
    case.send(round_trip=0.08, foreign=True)
    assert case.model.methods == "POST PATCH PATCH PATCH"


@pytest.mark.parametrize(
    ("words", "keys", "calls", "uploads"),
    [
        ("lost", True, "POST+ POST", 1),
        ("lost", False, "POST+ POST PATCH", 2),
        ("cut", True, "POST+ POST PATCH", 1),
        ("refused", True, "POST POST PATCH", 1),
        ("mute", True, "POST+ HEAD", 1),
        ("503!", True, "POST+ POST", 1),
    ],
)
def test_creation_after_lost_answer_repeats_the_key_without_a_body(
    tmp_path: Path, words: str, keys: bool, calls: str, uploads: int
) -> None:
    case = Case(tmp_path, words, chunk_size=25, keys=keys)
    assert (case.run(), len(case.model.uploads)) == (calls, uploads)
    sent_keys = {headers["Upload-Metadata"] for method, _, headers, _ in case.model.calls if method == "POST"}
    assert len(sent_keys) == 1


def test_restarted_upload_has_a_new_key(tmp_path: Path) -> None:
    """A server may know the key of an upload whose bytes it has lost."""
    case = Case(tmp_path, "ok ok 500 forget")
    case.run()
    assert (case.told.upload.upload_key, case.told.urls) == ("k2", [ENDPOINT + "1", ENDPOINT + "2"])


@pytest.mark.parametrize("status", [403, 404, 410])
def test_head_refused_by_something_else_does_not_restart_the_upload(tmp_path: Path, status: int) -> None:
    """An answer without `Tus-Resumable` comes from a proxy, a captive portal or a redeploy."""
    case = Case(tmp_path, f"ok ok 500 {status}- {status}-", retries=3)
    assert case.run() == "POST PATCH PATCH HEAD HEAD HEAD PATCH PATCH"
    assert case.told.urls == [ENDPOINT + "1"]
    assert case.told.retries == ["ServerFault", "NotFound", "NotFound"]


def test_head_refused_by_something_else_for_good_fails_and_keeps_the_upload(tmp_path: Path) -> None:
    case = Case(tmp_path, "ok ok 500" + " 404-" * 9, retries=2)
    error = case.fail()
    assert type(error) is errors.NotFound
    assert error.retryable
    assert case.told.urls == [ENDPOINT + "1"]
    assert case.model.methods == "POST PATCH PATCH HEAD HEAD"


class TestResume:
    def begun(self, tmp_path: Path, **known: Any) -> Case:
        """Return a case whose server has ten bytes, from an earlier run."""
        case = Case(tmp_path, "ok ok reset reset", retries=0, checksum="sha256")
        case.fail()
        case.model.calls.clear()
        case.model.words.clear()
        case.told, case.resumes = Emitted(PendingUpload("k1", **known)), True
        case.terms = make_terms(checksum="sha256", retries=1)
        return case

    def test_known_url_resumes_at_the_servers_offset(self, tmp_path: Path) -> None:
        case = self.begun(tmp_path, url=ENDPOINT + "1", checked_until=10)
        assert case.sent().verified
        assert (case.model.methods, case.told.attempts) == ("HEAD PATCH PATCH", [10])

    def test_known_key_resumes_at_the_servers_offset(self, tmp_path: Path) -> None:
        """The run ended between the creation and its answer."""
        case = self.begun(tmp_path)
        assert (case.run(), case.told.attempts) == ("POST PATCH PATCH", [10])

    def test_unchecked_bytes_of_an_earlier_run_are_not_verified(self, tmp_path: Path) -> None:
        case = self.begun(tmp_path, url=ENDPOINT + "1", checked_until=3)
        assert case.sent().verified is False
        assert case.told.upload.checked_until == 3

    @pytest.mark.parametrize(("pledged", "verified"), [(0, False), (9, False), (10, True), (20, False)])
    def test_pledged_chunk_is_verified_when_the_server_has_exactly_that(
        self, tmp_path: Path, pledged: int, verified: bool
    ) -> None:
        """The run was killed before the journal had the chunk: a server whose offset is the chunk's end compared it."""
        case = self.begun(tmp_path, url=ENDPOINT + "1", pledged_until=pledged)
        assert case.sent().verified is verified

    def test_upload_of_another_length_is_restarted(self, tmp_path: Path) -> None:
        case = self.begun(tmp_path, url=ENDPOINT + "1")
        case.model.uploads[ENDPOINT + "1"].length = 99
        case.run()
        assert case.told.urls == [ENDPOINT + "2"]

    @pytest.mark.parametrize("foreign", [False, True])
    @pytest.mark.parametrize("there", [11, 25])
    def test_offset_beyond_what_was_sent_restarts_the_upload(self, tmp_path: Path, there: int, foreign: bool) -> None:
        """Somebody else wrote: their upload is left alone."""
        case = self.begun(tmp_path, url=ENDPOINT + "1", sent_until=10)
        case.model.uploads[ENDPOINT + "1"].data += bytes(there - 10)
        assert case.send(foreign=foreign).error is None
        assert bytes(case.model.uploads[ENDPOINT + "2"].data) == DATA
        assert len(case.model.uploads[ENDPOINT + "1"].data) == there
        assert case.terms.context.warnings == ["foreign_bytes"]  # type: ignore[attr-defined]

    def test_repeated_creation_with_an_offset_beyond_what_was_sent_restarts_the_upload(self, tmp_path: Path) -> None:
        case = self.begun(tmp_path, sent_until=3, url=ENDPOINT + "1")
        assert case.send(session="s").error is None
        assert case.model.methods.startswith("POST POST")

    def test_offset_of_an_older_journal_is_taken(self, tmp_path: Path) -> None:
        """It does not have the end of what was sent."""
        case = self.begun(tmp_path, url=ENDPOINT + "1")
        case.model.uploads[ENDPOINT + "1"].data += DATA[10:20]
        assert (case.run(), case.told.attempts) == ("HEAD PATCH", [20])

    def test_offset_beyond_the_file_restarts_the_upload(self, tmp_path: Path) -> None:
        case = self.begun(tmp_path, url=ENDPOINT + "1")
        case.model.uploads[ENDPOINT + "1"].data += bytes(99)
        case.run()
        assert case.told.urls == [ENDPOINT + "2"]


class TestFinishOfForeignServers:
    """Case by case what `core.confirmation` decides; docs/tus-servers.md has the events of a run."""

    def send(self, tmp_path: Path, words: str, **terms: Any) -> tuple[Case, FileResult]:
        case = Case(tmp_path, words, keys=False, **terms)
        return case, case.send(foreign=True)

    @pytest.mark.parametrize("status", ["500", "409", "423", "460"])
    def test_error_after_the_last_byte_leads_to_one_new_upload(self, tmp_path: Path, status: str) -> None:
        case, sent = self.send(tmp_path, f"ok ok ok {status}!")
        assert sent.content_location == ENDPOINT + "2"
        assert case.model.methods == "POST PATCH PATCH PATCH HEAD POST PATCH PATCH PATCH"

    @pytest.mark.parametrize("status", ["500", "409"])
    def test_second_error_after_the_last_byte_is_the_end(self, tmp_path: Path, status: str) -> None:
        case, sent = self.send(tmp_path, f"ok ok ok {status}! ok ok ok ok {status}!")
        assert isinstance(sent.error, errors.NotFinished)
        assert (sent.error.status, sent.error.retryable) == (int(status), True)
        assert case.model.methods.endswith("PATCH HEAD")
        assert case.told.upload.ending == "error"

    def test_bytes_that_the_server_dropped_are_sent_again(self, tmp_path: Path) -> None:
        """An object store may refuse the last piece alone."""
        case, sent = self.send(tmp_path, "ok ok ok 500 ok ok")
        assert (sent.error, len(case.model.uploads)) == (None, 1)

    @pytest.mark.parametrize("status", ["400", "403", "413", "422"])
    def test_refused_file_is_forgotten(self, tmp_path: Path, status: str) -> None:
        case = Case(tmp_path, "ok ok ok", keys=False)
        case.model.done = refusing(case.model, int(status), at=20)  # type: ignore[method-assign]
        error = case.send(foreign=True).error
        assert error is not None
        assert (error.forgets, error.retryable) == (True, False)

    def test_refusal_before_the_last_byte_is_not_forgotten(self, tmp_path: Path) -> None:
        case = Case(tmp_path, keys=False)
        case.model.done = refusing(case.model, 400, at=10)  # type: ignore[method-assign]
        error = case.send(foreign=True).error
        assert error is not None
        assert not error.forgets

    def test_bundled_server_is_asked(self, tmp_path: Path) -> None:
        """Its offset is the authority."""
        assert Case(tmp_path, "ok ok ok 500!").run() == "POST PATCH PATCH PATCH HEAD"

    @pytest.mark.parametrize(("words", "retries"), [("ok ok ok 500!", 0), ("ok ok ok 500! ok ok ok ok 500!", 1)])
    def test_error_without_retries_is_no_confirmation(self, tmp_path: Path, words: str, retries: int) -> None:
        _, sent = self.send(tmp_path, words, retries=retries)
        assert isinstance(sent.error, errors.ServerFault)

    def test_uploads_named_by_their_metadata_are_not_deleted(self, tmp_path: Path) -> None:
        """The new upload may have the URL of the one that it replaces."""
        case = Case(tmp_path, "ok ok ok 500!", keys=False, extensions=["termination"])
        made = case.model.create

        def create(*arguments: Any, **more: Any) -> Any:
            case.model.made = 0
            return made(*arguments, **more)

        case.model.create = create  # type: ignore[method-assign]
        assert case.send(foreign=True).error is None
        assert "DELETE" not in case.model.methods


class TestVerified:
    def test_checksum_goes_with_every_chunk(self, tmp_path: Path) -> None:
        case = Case(tmp_path, checksum="sha1")
        assert case.sent().verified
        assert all(headers["Upload-Checksum"].startswith("sha1 ") for *_, headers, size in case.model.calls if size)

    def test_flipped_bit_is_sent_again(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok flip", checksum="sha256")
        assert case.run() == "POST PATCH HEAD PATCH PATCH PATCH"
        assert case.told.retries == ["ChecksumMismatch"]

    def test_bits_flipped_in_every_attempt_fail_with_integrity(self, tmp_path: Path) -> None:
        error = Case(tmp_path, "ok" + " flip ok" * 3, checksum="sha256", retries=2).fail()
        assert error.code is FailureCode.INTEGRITY

    def test_whole_chunk_whose_answer_was_lost_is_verified(self, tmp_path: Path) -> None:
        """With a checksum a chunk is stored whole or not at all."""
        assert Case(tmp_path, "ok lost", checksum="sha256").sent().verified

    def test_half_a_chunk_is_not_verified(self, tmp_path: Path) -> None:
        """A server that keeps a cut chunk has compared nothing."""
        case = Case(tmp_path, "ok cut", checksum="sha256")
        case.model.checks = False
        assert not case.sent().verified

    def test_bytes_that_the_server_lost_are_not_checked_any_more(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok ok ok 500 shrink reset", checksum="sha256", retries=1)
        case.fail()
        assert (case.told.confirmed, case.told.upload.checked_until) == (10, 10)

    def test_upload_without_checksums_is_not_verified(self, tmp_path: Path) -> None:
        assert not Case(tmp_path).sent().verified


class TestTheEnd:
    def test_advance_resets_the_count_of_retries(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok 500 500 ok ok 500 ok ok 500 500", retries=2)
        case.run()
        assert len(case.told.attempts) == 6

    def test_without_advance_retries_end(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok" + " 500" * 9, retries=2)
        error = case.fail()
        assert isinstance(error, errors.ServerFault)
        assert case.model.methods == "POST PATCH HEAD HEAD"

    @pytest.mark.parametrize("words", ["shrink ok 500", "shrink 500 ok ok 500"])
    def test_bytes_lost_and_sent_again_do_not_reset_the_count(self, tmp_path: Path, words: str) -> None:
        """The server loses half of the bytes after each advance."""
        case = Case(tmp_path, "ok ok ok 500" + f" {words}" * 99, retries=3)
        assert isinstance(case.fail(), errors.ServerFault)
        assert len(case.model.calls) < 20

    @pytest.mark.parametrize("status", [400, 403, 413, 415])
    def test_refused_chunk_is_not_retried(self, tmp_path: Path, status: int) -> None:
        case = Case(tmp_path)
        case.model.words.extend(["ok", "ok"])
        case.model.done = refusing(case.model, status)  # type: ignore[method-assign]
        error = case.fail()
        assert isinstance(error, errors.AnswerError)
        assert (error.status, error.retryable) == (status, False)
        assert case.model.methods.count("PATCH") == (2 if status == 413 else 1)

    def test_upload_is_restarted_at_most_three_times(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok 500 forget " * (RESTARTS + 2), retries=9)
        assert isinstance(case.fail(), errors.UploadGone)
        assert len(case.told.urls) == 1 + RESTARTS

    def test_last_answer_lost_without_retries_is_settled_by_head(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok ok ok lost", retries=0)
        assert case.run() == "POST PATCH PATCH PATCH HEAD"

    @pytest.mark.parametrize("words", ["ok ok ok lost reset", "ok ok ok cut"])
    def test_incomplete_upload_after_the_last_retry_fails(self, tmp_path: Path, words: str) -> None:
        assert isinstance(Case(tmp_path, words, retries=0).fail(), errors.ConnectionLost)

    def test_patch_404_with_head_200_ends_after_the_retries(self, tmp_path: Path) -> None:
        case = Case(tmp_path, retries=2)
        case.model.done = refusing(case.model, 404)  # type: ignore[method-assign]
        assert isinstance(case.fail(), errors.UploadGone)
        assert case.model.methods == "POST" + " PATCH HEAD" * 2 + " PATCH"

    def test_answer_without_offset_is_a_protocol_error(self, tmp_path: Path) -> None:
        assert isinstance(Case(tmp_path, "ok mute").fail(), errors.ProtocolError)

    def test_backoff_grows_with_each_failure(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok 500 500 500", retries=5)
        case.run()
        slept = case.terms.pacer.stop.slept  # type: ignore[attr-defined]
        assert len(slept) == 3
        assert slept[0] < slept[1] < slept[2] <= 2.5


def refusing(model: Model, status: int, at: int = 0) -> Any:
    """Return a replacement of `_done` that refuses each PATCH from the offset `at` on."""
    done = model.done

    def refuse(method: str, *arguments: Any, **more: Any) -> Any:
        is_refused = method == "PATCH" and int(arguments[1]["Upload-Offset"]) >= at
        return model.answer(arguments[0], status) if is_refused else done(method, *arguments, **more)

    return refuse


class TestPause:
    def slept(self, case: Case) -> list[float]:
        return case.terms.pacer.stop.slept  # type: ignore[attr-defined, no-any-return]

    def test_429_costs_no_retry_and_pauses_as_long_as_asked(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok 429 429 ok 429", retries=0)
        case.run()
        assert self.slept(case) == [2.0] * 3
        assert case.told.retries == ["RateLimited"] * 3

    def test_pause_from_another_worker_is_waited_out_without_a_retry(self, tmp_path: Path) -> None:
        case = Case(tmp_path)
        case.terms.pacer.budget.pause(7.0)
        case.run()
        assert (self.slept(case), pauses(case.events)) == ([7.0], [7.0])
        assert case.told.retries == []

    def test_429_beyond_max_wait_fails_before_the_wait(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok" + " 429" * 99, max_wait=9.0)
        assert isinstance(case.fail(), errors.RateLimited)
        assert self.slept(case) == [2.0] * 4
        assert case.terms.pacer.budget.pause_left() == 0.0

    def test_advance_resets_the_time_spent_on_pauses(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok 429 429 ok ok 429 429 ok ok 429 429", max_wait=5.0)
        case.run()
        assert sum(self.slept(case)) > 5.0


class TestToken:
    def test_401_refreshes_the_token_and_costs_no_retry(self, tmp_path: Path) -> None:
        asked: list[int] = []
        case = Case(tmp_path, "ok 401", retries=0, refresh=lambda: not asked.append(1))
        assert case.run() == "POST PATCH HEAD PATCH PATCH PATCH"
        assert len(asked) == 1

    def test_401_without_a_new_token_fails(self, tmp_path: Path) -> None:
        error = Case(tmp_path, "ok 401").fail()
        assert isinstance(error, errors.Unauthorized)

    def test_second_401_with_the_new_token_fails(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok 401 401", refresh=lambda: True)
        assert isinstance(case.fail(), errors.Unauthorized)

    def test_401_after_an_advance_refreshes_again(self, tmp_path: Path) -> None:
        """A token may last an hour and a file take a day."""
        asked: list[int] = []
        Case(tmp_path, "ok 401 ok ok 401 ok ok 401", refresh=lambda: not asked.append(1)).run()
        assert len(asked) == 3


def test_413_halves_the_chunk(tmp_path: Path) -> None:
    case = Case(tmp_path, "ok 413")
    assert case.run() == "POST PATCH HEAD PATCH PATCH PATCH PATCH PATCH"
    assert [size for method, _, _, size in case.model.calls if method == "PATCH"] == [0, 5, 5, 5, 5, 5]


def test_413_for_creation_with_upload_halves_the_chunk(tmp_path: Path) -> None:
    case = Case(tmp_path, "413", chunk_size=25)
    assert case.run() == "POST POST PATCH PATCH"


def test_413_makes_the_chunks_of_other_uploads_smaller(tmp_path: Path) -> None:
    case = Case(tmp_path, "ok 413")
    case.run()
    case.model.calls.clear()
    case.told = Emitted(PendingUpload("another"))
    case.run()
    assert [size for method, _, _, size in case.model.calls if method == "PATCH"] == [5] * 5


@pytest.mark.parametrize(("word", "times"), [("503", 1), ("500", 0)])
def test_chunk_that_ended_with_an_outage_of_its_server_makes_chunks_smaller(
    word: str, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A smaller one arrives before a server behind a gateway is killed again."""
    case, failures = Case(tmp_path, f"ok {word}"), list[int]()
    monkeypatch.setattr(case.terms.chunk, "failed", lambda: failures.append(1))
    case.run()
    assert len(failures) == times


def test_413_for_a_chunk_that_others_made_smaller_meanwhile_halves_once(tmp_path: Path) -> None:
    case = Case(tmp_path, "ok 413")
    chunk, request = case.terms.chunk, case.model.request

    def refuse_elsewhere(method: str, *arguments: Any, **more: Any) -> Any:
        if method == "PATCH" and len(case.model.calls) == 1:
            assert chunk.refuse(10)
        return request(method, *arguments, **more)

    case.model.request = refuse_elsewhere  # type: ignore[method-assign]
    case.run()
    assert chunk.size == 5


@pytest.mark.parametrize(
    ("size", "idle", "spare", "round_trip", "parts"),
    [
        (60_000_000, 3, 15, 0.08, 4),
        (128 << 20, 3, 15, 0.08, 8),
        ((128 << 20) - 1, 3, 15, 0.08, 4),
        (1 << 30, 3, 15, 0.08, 16),
        (1 << 30, 3, 3, 0.08, 4),
        (10 << 20, 3, 15, 0.08, 2),
        ((10 << 20) - 1, 3, 15, 0.08, 1),
        (60_000_000, 0, 0, 0.08, 1),
        (1 << 30, 3, 15, 0.001, 1),
        (1 << 30, 3, 15, None, 1),
    ],
)
def test_file_is_cut_where_the_server_is_far_and_workers_are_idle(
    size: int, idle: int, spare: int, round_trip: float | None, parts: int
) -> None:
    assert Tus.parts(make_terms(), size, idle, spare, round_trip) == parts


def test_file_is_cut_where_each_connection_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = make_terms()
    monkeypatch.setattr(ChunkSize, "capped", True)
    assert [Tus.parts(terms, size, 3, 3, 0.001) for size in (LARGE, LARGE - 1)] == [4, 1]
    assert Tus.parts(terms, LARGE, 63, 63, 0.001) == 51, "of 5 MiB"


class TestTheFile:
    def test_change_while_it_is_read_fails_the_upload(self, tmp_path: Path) -> None:
        case = Case(tmp_path)
        request = case.model.request

        def change(method: str, *arguments: Any, **more: Any) -> Any:
            if method == "PATCH" and len(case.model.calls) == 2:
                (tmp_path / "a.bin").write_bytes(bytes(25))
            return request(method, *arguments, **more)

        case.model.request = change  # type: ignore[method-assign]
        error = case.fail()
        assert error.code is FailureCode.CHANGED
        assert not error.retryable
        assert len(case.model.uploads[ENDPOINT + "1"].data) == 10

    def test_vanished_file_costs_no_request(self, tmp_path: Path) -> None:
        case = Case(tmp_path)
        (tmp_path / "a.bin").unlink()
        assert case.fail().code is FailureCode.VANISHED
        assert case.model.calls == []

    def test_empty_file_is_created_without_a_body(self, tmp_path: Path) -> None:
        case = Case(tmp_path, chunk_size=25)
        case.file = file_of(tmp_path / "empty", b"")
        assert case.send().error is None
        assert (case.model.methods, len(case.model.uploads[ENDPOINT + "1"].data)) == ("POST", 0)


class TestStop:
    def stopped(self, tmp_path: Path, words: str) -> tuple[Case, FakeStop]:
        stop = FakeStop(Clock())
        return Case(tmp_path, words, stop=stop), stop

    def test_stop_before_the_first_request_sends_nothing(self, tmp_path: Path) -> None:
        case, stop = self.stopped(tmp_path, "")
        stop.set()
        assert isinstance(case.fail(), errors.Interrupted)
        assert case.model.calls == []

    def test_stop_during_a_wait_sends_nothing_more(self, tmp_path: Path) -> None:
        case, stop = self.stopped(tmp_path, "ok 500")
        case.told.retry = lambda *_: stop.set()  # type: ignore[method-assign]
        assert isinstance(case.fail(), errors.Interrupted)
        assert case.model.methods == "POST PATCH"

    def test_stop_ends_the_checksum_computed_ahead(self, tmp_path: Path) -> None:
        case, stop = self.stopped(tmp_path, "")
        case.terms = make_terms(checksum="sha256", stop=stop)
        case.told.checked = lambda *_, **__: stop.set()  # type: ignore[method-assign]
        with ThreadPoolExecutor(1) as helper, pytest.raises(errors.Interrupted):
            case.send(helper=helper)
        assert case.model.methods == "POST PATCH"
