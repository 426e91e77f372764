"""One file in parallel parts: progress of the whole file, resume of each part, a failure that stops the others."""

from __future__ import annotations

import threading
from base64 import b64decode
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from unit.transfer.tus_model import (
    ENDPOINT,
    Emitted,
    Model,
    failure,
    file_of,
    make_client,
    make_terms,
    send,
    tus_file,
    worker_of,
)

from uploader_cli import errors
from uploader_cli.core.codes import FailureCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_cli.transfer.pool import Step
    from uploader_cli.transfer.results import FileResult

DATA = bytes(range(100))


class Case:
    """`DATA` in `count` parts and chunks of ten bytes, to a server that follows the script `words`."""

    def __init__(self, tmp_path: Path, words: str = "", *, count: int = 2, clients: int = 1, **terms: Any) -> None:
        self.model, self.told, self.clients, self.count = Model(words.split()), Emitted(), clients, count
        self.terms = make_terms(**{"cwu": False, **terms})
        self.file = file_of(tmp_path / "a.bin", DATA)
        self.options: dict[str, Any] = {"session": "s"}

    def run(self) -> FileResult:
        sent = self.send()
        assert sent.error is None, sent.error
        assert bytes(self.model.uploads[sent.content_location or ""].data) == DATA
        assert self.told.confirmed == len(DATA)
        return sent

    def send(self) -> FileResult:
        clients = [make_client(self.model) for _ in range(self.clients)]
        return send(self.told, clients, self.terms, self.file, **{"idle": self.count - 1, **self.options})

    def fail(self) -> errors.UploaderError:
        error = failure(self.send)
        assert error is not None
        return error

    def next_run(self) -> None:
        """Resume in another run, which has the journal of this one, from a server that does not fail."""
        self.told = self.told.next_run()
        self.options |= {"resumes": True, "idle": 0}
        self.model.words.clear()
        self.model.calls.clear()

    @property
    def urls(self) -> list[str | None]:
        """The URLs of the parts in the journal."""
        return [part.url for part in self.told.upload.parts]

    @property
    def posts(self) -> list[dict[str, str]]:
        """The metadata of each creation."""
        sent = [headers["Upload-Metadata"] for method, _, headers, _ in self.model.calls if method == "POST"]
        return [
            {key: b64decode(value).decode() for key, value in (pair.split() for pair in metadata.split(","))}
            for metadata in sent
        ]


@pytest.mark.parametrize("clients", [1, 2, 4])
@pytest.mark.parametrize("count", [2, 3])
def test_parts_are_joined_to_the_whole_file(tmp_path: Path, clients: int, count: int) -> None:
    case = Case(tmp_path, count=count, clients=clients, checksum="sha256")
    sent = case.run()
    assert (sent.verified, case.told.attempts) == (True, [0])
    assert case.model.finals[sent.content_location or ""] == tuple(case.urls)
    assert case.told.urls == [sent.content_location]
    assert sum(part.checked_until for part in case.told.upload.parts) == len(DATA)


def test_parts_name_their_place_and_the_key_of_the_upload_that_joins_them(tmp_path: Path) -> None:
    """docs/extensions.md; the metadata of the file belong to the joined upload alone."""
    case = Case(tmp_path)
    case.run()
    *pieces, final = case.posts
    assert [piece.pop("partOffset") for piece in pieces] == ["0", "50"]
    assert len({piece.pop("uploadKey") for piece in pieces} | {final["uploadKey"]}) == 3
    assert pieces == [{"finalKey": final["uploadKey"], "finalLength": "100", "sessionId": "s"}] * 2
    assert final.keys() == {"filename", "filetype", "relativePath", "lastModified", "sessionId", "uploadKey"}


class TestForeignServer:
    """A server that knows no keys, and keeps parts beside what they were joined to."""

    def case(self, tmp_path: Path, words: str = "", extensions: tuple[str, ...] = ("termination",)) -> Case:
        case = Case(tmp_path, words, extensions=extensions)
        case.model.keys, case.model.keeps_parts = None, True
        case.options = {"foreign": True}
        return case

    def test_parts_are_deleted_after_the_whole_is_confirmed(self, tmp_path: Path) -> None:
        case = self.case(tmp_path)
        sent = case.run()
        assert list(case.model.uploads) == [sent.content_location]
        assert case.model.methods.endswith("POST DELETE DELETE")
        assert all("finalKey" not in metadata for metadata in case.posts)

    def test_parts_are_not_deleted_before_the_whole_is_confirmed(self, tmp_path: Path) -> None:
        case = self.case(tmp_path, "ok " * 12 + "mute 500")
        case.run()
        assert case.model.methods.endswith("POST HEAD HEAD DELETE DELETE")

    def test_parts_stay_where_termination_is_not_offered(self, tmp_path: Path) -> None:
        case = self.case(tmp_path, extensions=())
        case.run()
        assert "DELETE" not in case.model.methods

    def test_parts_that_can_not_be_deleted_fail_nothing(self, tmp_path: Path) -> None:
        case = self.case(tmp_path, "ok " * 13 + "403 500 500 500")
        case.run()
        assert len(case.model.uploads) == 3

    def test_whole_with_a_known_url_is_not_joined_again(self, tmp_path: Path) -> None:
        """The run was killed before the receipt was written."""
        case = self.case(tmp_path, "ok " * 13 + "403 403")
        url = case.run().content_location
        case.next_run()
        assert case.run().content_location == url
        assert case.model.methods == "HEAD DELETE DELETE"

    @pytest.mark.parametrize("lost", [1, 2])
    def test_lost_parts_alone_are_sent_again(self, tmp_path: Path, lost: int) -> None:
        case = self.case(tmp_path, "ok " * 12 + "reset")
        case.terms = case.terms.with_retries(0)
        case.fail()
        case.next_run()
        for number in range(lost):
            del case.model.uploads[f"{ENDPOINT}{number + 1}"]
        case.run()
        assert sum(size for *_, size in case.model.calls) == 50 * lost


def test_parts_of_the_bundled_server_are_never_deleted_after_the_join(tmp_path: Path) -> None:
    case = Case(tmp_path, extensions={"termination"})
    case.run()
    assert "DELETE" not in case.model.methods


def test_retry_of_a_part_is_an_attempt_of_the_file(tmp_path: Path) -> None:
    case = Case(tmp_path, "ok ok ok 500")
    case.run()
    assert case.told.attempts == [0, 20]


def test_callbacks_of_several_threads_never_overlap(tmp_path: Path) -> None:
    case = Case(tmp_path, "ok " * 6 + "500 ok ok cut", count=4, clients=4)
    busy, overlaps, threads = threading.Lock(), [], set[str]()

    def alone(callback: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            if not busy.acquire(blocking=False):
                overlaps.append(callback)
                return
            threads.add(threading.current_thread().name)
            callback(*arguments)
            busy.release()

        return call

    for name in ("start", "retry", "emit"):
        setattr(case.told, name, alone(getattr(case.told, name)))
    case.run()
    assert overlaps == []
    assert threads <= {"MainThread", *(f"part-{number}" for number in range(4))}


def test_no_thread_is_left(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    Case(tmp_path, clients=2, checksum="sha1").run()
    assert set(threading.enumerate()) <= before


def test_checksums_of_all_parts_can_share_one_helper(tmp_path: Path) -> None:
    case = Case(tmp_path, count=3, checksum="sha256")
    with ThreadPoolExecutor(1) as helper:
        case.options["helper"] = helper
        assert case.run().verified


def test_413_for_one_part_makes_the_chunks_of_the_next_smaller(tmp_path: Path) -> None:
    case = Case(tmp_path, "ok 413", checksum="sha256")
    case.run()
    assert {size for method, _, _, size in case.model.calls if method == "PATCH" and size} == {5}


class TestResume:
    def interrupted(self, tmp_path: Path, words: str = "ok ok ok reset reset reset") -> Case:
        """Return two parts of fifty bytes, of which the server has twenty of the first."""
        case = Case(tmp_path, words, retries=0, checksum="sha256")
        case.fail()
        case.next_run()
        return case

    def test_known_url_of_a_part_resumes_that_part(self, tmp_path: Path) -> None:
        case = self.interrupted(tmp_path)
        assert case.urls == [ENDPOINT + "1", None]
        sent = case.run()
        assert case.told.attempts == [20], "what the server has counts as sent before"
        assert sent.verified
        assert sum(size for *_, size in case.model.calls) == 80
        assert len(case.posts) == 2, "the other part and the whole"

    def test_part_that_the_server_lost_is_sent_again(self, tmp_path: Path) -> None:
        case = self.interrupted(tmp_path)
        case.model.uploads.clear()
        case.run()
        assert case.told.attempts == [0]

    def test_failed_head_of_joined_parts_is_repeated(self, tmp_path: Path) -> None:
        """A failed request does not resend anything; it is an attempt of the file."""
        case = self.interrupted(tmp_path, "ok " * 12 + "lost")
        case.terms = make_terms(checksum="sha256", cwu=False, retries=1)
        case.model.words.append("reset")
        case.run()
        assert case.model.methods == "HEAD HEAD HEAD POST"
        assert case.told.attempts == [0, len(DATA)]

    def test_parts_move_to_another_session_by_their_keys(self, tmp_path: Path) -> None:
        case = self.interrupted(tmp_path)
        keys = [part.upload_key for part in case.told.upload.parts]
        case.options["session"] = "another"
        case.run()
        assert [metadata["uploadKey"] for metadata in case.posts[:2]] == keys
        assert {metadata["sessionId"] for metadata in case.posts} == {"another"}
        assert sum(size for *_, size in case.model.calls) == 80

    def test_parts_joined_before_are_not_sent_again(self, tmp_path: Path) -> None:
        """The run ended before the answer to the last request: the parts are gone on the server."""
        case = self.interrupted(tmp_path, "ok " * 12 + "lost")
        assert list(case.model.finals) == [ENDPOINT + "3"]
        assert case.run().content_location == ENDPOINT + "3"
        assert case.model.methods == "HEAD HEAD POST"
        assert case.told.attempts == [len(DATA)]

    def test_joined_upload_is_verified_by_the_pledge_of_the_last_chunk(
        self, subtests: pytest.Subtests, tmp_path: Path
    ) -> None:
        """Parts that can be joined are complete: the last chunk of each was accepted."""
        for pledged, verified in ((50, True), (40, False)):
            with subtests.test(pledged=pledged, verified=verified):
                case = self.interrupted(tmp_path, "ok " * 12 + "lost")
                first, second = case.told.upload.parts
                second = replace(second, checked_until=40, pledged_until=pledged)
                case.told.upload = replace(case.told.upload, parts=(first, second))
                assert case.run().verified is verified

    def test_parts_of_which_one_is_left_are_not_asked_for_by_key(self, tmp_path: Path) -> None:
        """They were not joined: only the lost one is resent."""
        case = self.interrupted(tmp_path, "ok " * 12 + "503")
        del case.model.uploads[ENDPOINT + "2"]
        case.run()
        assert sum(size for *_, size in case.model.calls) == 50
        assert [metadata.get("partOffset") for metadata in case.posts] == ["50", None]

    def test_parts_that_are_lost_and_were_not_joined_are_given_up(self, tmp_path: Path) -> None:
        """No request asks to join parts that are missing; the file restarts, and no part is left behind."""
        case = self.interrupted(tmp_path, "ok " * 12 + "503")
        case.terms = replace(case.terms, capabilities=replace(case.terms.capabilities, extensions=frozenset()))
        case.model.uploads.clear()
        sent = case.run()
        assert case.model.methods.startswith("HEAD HEAD POST DELETE POST PATCH")
        assert list(case.model.uploads) == [sent.content_location]


class TestTheEnd:
    def test_failure_of_one_part_stops_the_others(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok ok 403", clients=2)
        assert isinstance(case.fail(), errors.Unauthorized)
        assert len(case.model.calls) < 12

    def test_stop_while_parts_are_sent_raises_interrupted(self, tmp_path: Path) -> None:
        case = Case(tmp_path, clients=2)
        case.told.checked = lambda *_, **__: case.terms.pacer.stop.set()  # type: ignore[method-assign]
        case.terms.context.terms = replace(case.terms.context.terms, checksum="sha256")
        assert isinstance(case.fail(), errors.Interrupted)

    def test_stop_before_the_first_request_sends_nothing(self, tmp_path: Path) -> None:
        case = Case(tmp_path)
        case.terms.pacer.stop.set()
        assert isinstance(case.fail(), errors.Interrupted)
        assert case.model.calls == []

    def test_error_of_a_callback_is_raised(self, tmp_path: Path) -> None:
        def broken(*_: Any, **__: Any) -> None:
            raise KeyError("a bug of ours")

        case = Case(tmp_path, clients=2)
        case.told.emit = broken  # type: ignore[method-assign]
        with pytest.raises(KeyError):
            case.send()

    def test_joining_is_retried_and_joins_once(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok " * 12 + "503 429 lost")
        case.run()
        assert len(case.told.attempts) == 4
        assert len(case.model.finals) == 1

    def test_refused_joining_fails_the_file(self, tmp_path: Path) -> None:
        assert isinstance(Case(tmp_path, "ok " * 12 + "403").fail(), errors.Unauthorized)

    def test_joined_upload_of_another_size_fails_with_both_sizes(self, tmp_path: Path) -> None:
        case = Case(tmp_path)
        create = case.model.create

        def short(*arguments: Any, **more: Any) -> Any:
            for upload in case.model.uploads.values():
                if len(upload.data) == upload.length:
                    del upload.data[-1:]
            return create(*arguments, **more)

        case.model.create = short  # type: ignore[method-assign]
        error = case.fail()
        assert (error.code, error.retryable) == (FailureCode.INTEGRITY, False)
        assert str(error) == "the server has joined its parts to 98 bytes, and it has 100"

    def test_joined_upload_without_offset_is_asked_by_head(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok " * 12 + "mute")
        case.run()
        assert case.told.attempts == [0]


class TestStoppedPart:
    def failed(self, case: Case) -> Step:
        """Return the second of two parts, after the first has failed."""
        case.model.words.extend(["ok", "403"])
        first, second = self.jobs(case)
        assert list(first.run(worker_of(make_client(case.model)))) == []
        return second

    def jobs(self, case: Case) -> deque[Step]:
        line: deque[Step] = deque()
        job = tus_file(case.told, line, case.terms, case.file, idle=1)
        assert list(job.run(worker_of(make_client(case.model)))) == []
        return line

    def test_part_that_ends_last_yields_the_first_error(self, tmp_path: Path) -> None:
        case = Case(tmp_path)
        second = self.failed(case)
        calls = len(case.model.calls)
        ((outcome,),) = second.run(worker_of(make_client(case.model)))
        assert isinstance(outcome.error, errors.Unauthorized)
        assert len(case.model.calls) == calls

    def test_stop_after_a_failure_does_not_hide_the_failure(self, tmp_path: Path) -> None:
        case = Case(tmp_path)
        second = self.failed(case)
        case.terms.pacer.stop.set()
        ((outcome,),) = second.run(worker_of(make_client(case.model)))
        assert isinstance(outcome.error, errors.Unauthorized)

    def test_retry_of_a_part_after_a_failure_is_not_reported(self, tmp_path: Path) -> None:
        """The other part is in the middle of a chunk when the first fails."""
        case = Case(tmp_path)
        first, second = self.jobs(case)
        request, once = case.model.request, threading.Lock()

        def fail_both(method: str, *arguments: Any, **more: Any) -> Any:
            if method == "PATCH" and once.acquire(blocking=False):
                case.model.words.append("403")
                assert list(second.run(worker_of(make_client(case.model)))) == []
                raise errors.ConnectionLost("reset")
            return request(method, *arguments, **more)

        case.model.request = fail_both  # type: ignore[method-assign]
        ((outcome,),) = first.run(worker_of(make_client(case.model)))
        assert isinstance(outcome.error, errors.Unauthorized)
        assert case.told.retries == []


def test_sums_never_fall_within_an_attempt(tmp_path: Path) -> None:
    """A part whose offset fell is reported when it has risen again."""
    case = Case(tmp_path)
    told = case.told
    job = tus_file(told, deque(), case.terms, case.file, idle=1)
    list(job.run(worker_of(make_client(case.model))))
    state = job.state
    for part in (0, 1):
        state.found(part, 30)
    state.retry(errors.ConnectionLost("x"), 0.0)
    state.begin()
    for offset in (10, 40):
        state.found(0, offset)
        state.report_confirmed(offset)
        assert told.confirmed == max(60, offset + 30)
    state.report_sent(1, 50)
    assert (told.confirmed, told.sent) == (70, 90)
    state.retry(errors.ConnectionLost("x"), 0.5, 1)
    state.report_sent(0, 45)
    assert (told.attempts, told.sent) == ([0, 60, 70], 75)
