"""The traps of wire contract 5, one by one, against a model server: what is asked, what is told, how it ends."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fakes import Clock
from tus_model import ENDPOINT, FakeStop, Model, Told, file_of, make_client, make_terms, outcome

from uploader_cli import errors
from uploader_cli.core.events import FailureCode
from uploader_cli.transfer import chunk
from uploader_cli.transfer.tus import TusClient
from uploader_cli.transfer.tus_types import Known
from uploader_cli.transfer.tus_upload import ANEW, TusUpload

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_cli.core.plan import LocalFile

DATA = bytes(range(25))


class Case:
    """One upload of `DATA` in chunks of ten bytes, to a server that says `words`."""

    def __init__(self, tmp_path: Path, words: str = "", *, known: Known | None = None, **terms: Any) -> None:
        self.model, self.told = Model(words.split(), keys=terms.pop("keys", True)), Told()
        self.terms = make_terms(**terms)
        self.file = file_of(tmp_path / "a.bin", DATA)
        self.known = known or Known()
        self.keys = iter(["k1", "k2", "k3", "k4", "k5"])

    @property
    def upload(self) -> TusUpload:
        return TusUpload(
            make_client(self.model),
            self.terms,
            self.file,
            {"filename": "a.bin"},
            watch=self.told.watch,
            known=self.known,
            make_key=lambda: next(self.keys),
        )

    def run(self) -> str:
        """The calls that it took to bring the file there."""
        sent = self.upload.run()
        assert bytes(self.model.uploads[sent.url].data) == DATA
        return self.model.methods

    def fail(self) -> errors.UploaderError:
        error = outcome(self.upload.run)
        assert isinstance(error, errors.UploaderError), error
        return error


CALLS = {
    # what the server says: the calls, and the offset at which each attempt began
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
    "503 503": ("POST POST POST PATCH PATCH PATCH", [0, 0, 0]),
    "lost": ("POST POST PATCH PATCH PATCH", [0, 0]),
}


@pytest.mark.parametrize("words", CALLS)
def test_calls_after_each_trouble(tmp_path: Path, words: str) -> None:
    """HEAD after every failure, and the server's offset wins."""
    case = Case(tmp_path, words)
    calls, attempts = CALLS[words]
    assert (case.run(), case.told.attempts) == (calls, attempts)


def test_sent_does_not_fall_where_the_server_takes_less_than_it_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next chunk begins before the end of the last one, in the same attempt."""
    monkeypatch.setattr(chunk, "REPORT_EVERY", 0.0)
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
def test_chunks_are_pledged_before_they_go(tmp_path: Path, terms: dict[str, Any], pledges: list[int]) -> None:
    """Not those that are all of the file: they would cost a small file one more write."""
    case = Case(tmp_path, **terms)
    case.run()
    assert case.told.pledges == pledges


def test_a_chunk_without_its_checksum_takes_the_pledge_back(tmp_path: Path) -> None:
    case = Case(tmp_path, known=Known(key="k1", pledged_until=10))
    case.run()
    assert case.told.pledges == [0]


def test_what_fits_one_chunk_takes_one_request(tmp_path: Path) -> None:
    case = Case(tmp_path, chunk_size=25, checksum="sha256")
    sent = case.upload.run()
    assert (case.model.methods, sent.verified, sent.attempts) == ("POST+", True, 1)


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
def test_a_creation_is_not_doubled(tmp_path: Path, words: str, keys: bool, calls: str, uploads: int) -> None:
    """The key goes again, without a body: a server that knows it has one upload and says how far it is."""
    case = Case(tmp_path, words, chunk_size=25, keys=keys)
    assert (case.run(), len(case.model.uploads)) == (calls, uploads)
    sent_keys = {headers["Upload-Metadata"] for method, _, headers, _ in case.model.calls if method == "POST"}
    assert len(sent_keys) == 1


def test_a_new_upload_has_a_new_key(tmp_path: Path) -> None:
    """A server may know the key of an upload whose bytes it has lost."""
    case = Case(tmp_path, "ok ok 500 forget")
    case.run()
    assert (next(case.keys), case.told.gone, case.told.urls) == (
        "k3",
        [ENDPOINT + "1"],
        [ENDPOINT + "1", ENDPOINT + "2"],
    )


class TestResume:
    def begun(self, tmp_path: Path, **known: Any) -> Case:
        """A case whose server has ten bytes, brought by an earlier run."""
        case = Case(tmp_path, "ok ok reset reset", retries=0, checksum="sha256")
        case.fail()
        case.model.calls.clear()
        case.model.words.clear()
        case.told = Told()
        case.terms = replace(case.terms, retries=1)
        case.known = Known(**known)
        return case

    def test_by_its_url(self, tmp_path: Path) -> None:
        case = self.begun(tmp_path, url=ENDPOINT + "1", confirmed=10, checked_until=10)
        sent = case.upload.run()
        assert (case.model.methods, case.told.attempts, sent.verified) == ("HEAD PATCH PATCH", [10], True)

    def test_by_its_key(self, tmp_path: Path) -> None:
        """The run ended between the creation and its answer."""
        case = self.begun(tmp_path, key="k1")
        assert (case.run(), case.told.attempts) == ("POST PATCH PATCH", [10])

    def test_unchecked_bytes_stay_unchecked(self, tmp_path: Path) -> None:
        case = self.begun(tmp_path, url=ENDPOINT + "1", confirmed=10, checked_until=3)
        assert case.upload.run().verified is False
        assert case.told.checked == 3

    @pytest.mark.parametrize(("pledged", "verified"), [(0, False), (9, False), (10, True), (20, False)])
    def test_a_chunk_whose_answer_came_too_late(self, tmp_path: Path, pledged: int, verified: bool) -> None:
        """The run was killed between a chunk and its row: a server that is at the chunk's end has compared it."""
        case = self.begun(tmp_path, url=ENDPOINT + "1", pledged_until=pledged)
        assert case.upload.run().verified is verified

    def test_the_upload_is_another_file(self, tmp_path: Path) -> None:
        case = self.begun(tmp_path, url=ENDPOINT + "1")
        case.model.uploads[ENDPOINT + "1"].length = 99
        case.run()
        assert case.told.gone == [ENDPOINT + "1"]

    def test_more_than_the_file_has(self, tmp_path: Path) -> None:
        case = self.begun(tmp_path, url=ENDPOINT + "1")
        case.model.uploads[ENDPOINT + "1"].data += bytes(99)
        case.run()
        assert case.told.gone == [ENDPOINT + "1"]

    def test_an_attempt_without_an_offset_begins_where_the_journal_says(self, tmp_path: Path) -> None:
        case = self.begun(tmp_path, url=ENDPOINT + "1", confirmed=10)
        case.model.words.append("500")
        case.run()
        assert case.told.attempts == [10, 10]


class TestVerified:
    def test_every_chunk_is_checked(self, tmp_path: Path) -> None:
        case = Case(tmp_path, checksum="sha1")
        assert case.upload.run().verified
        assert all(headers["Upload-Checksum"].startswith("sha1 ") for *_, headers, size in case.model.calls if size)

    def test_a_flipped_bit_is_sent_again(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok flip", checksum="sha256")
        assert case.run() == "POST PATCH HEAD PATCH PATCH PATCH"
        assert case.told.retries == ["ChecksumMismatch"]

    def test_flipped_again_and_again_is_an_integrity_failure(self, tmp_path: Path) -> None:
        error = Case(tmp_path, "ok" + " flip ok" * 3, checksum="sha256", retries=2).fail()
        assert error.code is FailureCode.INTEGRITY

    def test_a_lost_answer_counts_where_the_chunk_is_there_whole(self, tmp_path: Path) -> None:
        """With a checksum a chunk is stored whole or not at all."""
        assert Case(tmp_path, "ok lost", checksum="sha256").upload.run().verified

    def test_a_part_of_a_chunk_does_not(self, tmp_path: Path) -> None:
        """A server that keeps a cut chunk has compared nothing."""
        case = Case(tmp_path, "ok cut", checksum="sha256")
        case.model.checks = False
        assert not case.upload.run().verified

    def test_what_the_server_has_lost_is_not_checked_any_more(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok ok ok 500 shrink reset", checksum="sha256", retries=1)
        case.fail()
        assert (case.told.confirmed, case.told.checked) == (10, 10)

    def test_without_checksums_it_is_sent_not_verified(self, tmp_path: Path) -> None:
        assert not Case(tmp_path).upload.run().verified


class TestTheEnd:
    def test_retries_are_counted_anew_with_each_advance(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok 500 500 ok ok 500 ok ok 500 500", retries=2)
        case.run()
        assert len(case.told.attempts) == 6

    def test_and_not_without_one(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok" + " 500" * 9, retries=2)
        error = case.fail()
        assert isinstance(error, errors.ServerFault)
        assert case.model.methods == "POST PATCH HEAD HEAD"

    @pytest.mark.parametrize("words", ["shrink ok 500", "shrink 500 ok ok 500"])
    def test_back_and_forth_is_no_advance(self, tmp_path: Path, words: str) -> None:
        """The server loses half and gets it again, for ever."""
        case = Case(tmp_path, "ok ok ok 500" + f" {words}" * 99, retries=3)
        assert isinstance(case.fail(), errors.ServerFault)
        assert len(case.model.calls) < 20

    @pytest.mark.parametrize("status", [400, 403, 413, 415])
    def test_refusals_are_not_retried(self, tmp_path: Path, status: int) -> None:
        case = Case(tmp_path)
        case.model.words.extend(["ok", "ok"])
        case.model._done = refusing(case.model, status)  # type: ignore[method-assign]
        error = case.fail()
        assert isinstance(error, errors.AnswerError)
        assert (error.status, error.retryable) == (status, False)
        assert case.model.methods.count("PATCH") == (2 if status == 413 else 1)

    def test_the_server_loses_every_upload(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok 500 forget " * (ANEW + 2), retries=9)
        assert isinstance(case.fail(), errors.UploadGone)
        assert len(case.told.gone) == ANEW

    def test_an_answer_that_was_lost_with_the_last_retry(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok ok ok lost", retries=0)
        assert case.run() == "POST PATCH PATCH PATCH HEAD"

    @pytest.mark.parametrize("words", ["ok ok ok lost reset", "ok ok ok cut"])
    def test_a_last_look_that_does_not_find_it_whole(self, tmp_path: Path, words: str) -> None:
        assert isinstance(Case(tmp_path, words, retries=0).fail(), errors.ConnectionLost)

    def test_a_patch_that_finds_nothing_where_head_finds_it(self, tmp_path: Path) -> None:
        """A contradiction, counted as any failure: no endless loop."""
        case = Case(tmp_path, retries=2)
        case.model._done = refusing(case.model, 404)  # type: ignore[method-assign]
        assert isinstance(case.fail(), errors.UploadGone)
        assert case.model.methods == "POST" + " PATCH HEAD" * 2 + " PATCH"

    def test_an_answer_that_is_no_tus(self, tmp_path: Path) -> None:
        assert isinstance(Case(tmp_path, "ok mute").fail(), errors.ProtocolError)

    def test_backoff_and_what_the_server_asks(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok 500 500 500", retries=5)
        case.run()
        slept = case.terms.stop.slept  # type: ignore[attr-defined]
        assert len(slept) == 3
        assert slept[0] < slept[1] < slept[2] <= 2.5


def refusing(model: Model, status: int) -> Any:
    done = model._done

    def refuse(method: str, *arguments: Any, **more: Any) -> Any:
        return model._answer(arguments[0], status) if method == "PATCH" else done(method, *arguments, **more)

    return refuse


class TestPause:
    def test_429_uses_up_no_retry_and_is_everybodys(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok 429 429 ok 429", retries=0)
        case.run()
        assert case.told.pauses == [2.0] * 3
        assert case.told.retries == ["RateLimited"] * 3

    def test_a_pause_that_another_worker_was_told_of(self, tmp_path: Path) -> None:
        case = Case(tmp_path)
        case.terms.budget.pause(7.0)
        case.run()
        assert case.told.pauses == [7.0]
        assert case.told.retries == []

    def test_max_wait_ends_it(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok" + " 429" * 99, max_wait=9.0)
        assert isinstance(case.fail(), errors.RateLimited)
        assert sum(case.told.pauses) == 8.0

    def test_an_advance_renews_the_patience(self, tmp_path: Path) -> None:
        Case(tmp_path, "ok 429 429 ok ok 429 429 ok ok 429 429", max_wait=5.0).run()


class TestToken:
    def test_401_asks_once_and_goes_on(self, tmp_path: Path) -> None:
        asked: list[int] = []
        case = Case(tmp_path, "ok 401", retries=0, refresh=lambda: not asked.append(1))
        assert case.run() == "POST PATCH HEAD PATCH PATCH PATCH"
        assert len(asked) == 1

    def test_no_new_token(self, tmp_path: Path) -> None:
        error = Case(tmp_path, "ok 401").fail()
        assert isinstance(error, errors.Unauthorized)

    def test_refused_with_the_new_one(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok 401 401", refresh=lambda: True)
        assert isinstance(case.fail(), errors.Unauthorized)

    def test_once_more_after_an_advance(self, tmp_path: Path) -> None:
        """Tokens of an hour and files of a day."""
        Case(tmp_path, "ok 401 ok ok 401 ok ok 401", refresh=lambda: True).run()

    def test_another_worker_has_it_already(self, tmp_path: Path) -> None:
        """Its token is taken: asking again would bring the same one, and look like none."""
        case = Case(tmp_path, "ok 401")
        tokens = iter(["old", "old"])
        client = TusClient(case.model, ENDPOINT, lambda: {"Authorization": next(tokens, "new")})
        TusUpload(client, case.terms, case.file, {"filename": "a.bin"}).run()
        assert [headers["Authorization"] for _, _, headers, _ in case.model.calls][:3] == ["old", "old", "new"]


def test_413_halves_the_chunk_once(tmp_path: Path) -> None:
    case = Case(tmp_path, "ok 413")
    assert case.run() == "POST PATCH HEAD PATCH PATCH PATCH PATCH PATCH"
    assert [size for method, _, _, size in case.model.calls if method == "PATCH"] == [0, 5, 5, 5, 5, 5]


def test_413_for_a_creation_with_the_whole_file(tmp_path: Path) -> None:
    case = Case(tmp_path, "413", chunk_size=25)
    assert case.run() == "POST POST PATCH PATCH"


class TestTheFile:
    def test_it_changes_while_it_is_read(self, tmp_path: Path) -> None:
        """Nothing of it is ever complete."""
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

    def test_it_is_gone(self, tmp_path: Path) -> None:
        case = Case(tmp_path)
        (tmp_path / "a.bin").unlink()
        assert case.fail().code is FailureCode.VANISHED
        assert case.model.calls == []

    def test_an_empty_one_needs_no_body(self, tmp_path: Path) -> None:
        case = Case(tmp_path, chunk_size=25)
        case.file = file_of(tmp_path / "empty", b"")
        sent = case.upload.run()
        assert (case.model.methods, len(case.model.uploads[sent.url].data)) == ("POST", 0)


class TestStop:
    def stopped(self, tmp_path: Path, words: str) -> tuple[Case, FakeStop]:
        stop = FakeStop(Clock())
        return Case(tmp_path, words, stop=stop), stop

    def test_before_the_first_request(self, tmp_path: Path) -> None:
        case, stop = self.stopped(tmp_path, "")
        stop.set()
        assert isinstance(case.fail(), errors.Interrupted)
        assert case.model.calls == []

    def test_in_a_wait(self, tmp_path: Path) -> None:
        case, stop = self.stopped(tmp_path, "ok 500")
        case.told._retry = lambda *_: stop.set()  # type: ignore[method-assign]
        assert isinstance(case.fail(), errors.Interrupted)
        assert case.model.methods == "POST PATCH"

    def test_no_thread_is_left(self, tmp_path: Path) -> None:
        """Also where the next chunk's checksum is under way."""
        case, stop = self.stopped(tmp_path, "")
        case.terms = make_terms(checksum="sha256", stop=stop)
        case.told._confirmed = lambda offset, _: stop.set() if offset else None  # type: ignore[method-assign]
        assert isinstance(case.fail(), errors.Interrupted)
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("checksum")] == []


def test_ranges_of_a_file_are_partial_uploads(tmp_path: Path) -> None:
    case = Case(tmp_path)
    file: LocalFile = case.file
    sent = TusUpload(make_client(case.model), case.terms, file, {}, part=(7, 12)).run()
    assert bytes(case.model.uploads[sent.url].data) == DATA[7:19]
    assert case.model.calls[0][2]["Upload-Concat"] == "partial"
