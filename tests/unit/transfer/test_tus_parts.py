"""One file in parallel parts: progress of the whole file, resume of each part, a failure that stops the others."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tus_model import ENDPOINT, Model, Told, file_of, make_client, make_terms, outcome, send_in_parts

from uploader_cli import errors
from uploader_cli.core.tus import encode_metadata, parts
from uploader_cli.transfer.tus_parts import Part, PartedUpload, PartsLost, PartStopped, _Whole
from uploader_cli.transfer.tus_upload import Known, Sent, Watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = bytes(range(100))


class Case:
    """`DATA` in `count` parts and chunks of ten bytes, to a server that follows the script `words`."""

    def __init__(self, tmp_path: Path, words: str = "", *, count: int = 2, clients: int = 1, **terms: Any) -> None:
        self.model, self.told, self.clients = Model(words.split()), Told(), clients
        self.terms = make_terms(**{"cwu": False, **terms})
        self.file = file_of(tmp_path / "a.bin", DATA)
        self.parts = [Part(start, length) for start, length in parts(len(DATA), count)]
        self.more: dict[str, Any] = {}

    def run(self) -> Sent:
        sent = self.send()
        assert bytes(self.model.uploads[sent.url].data) == DATA
        assert self.told.confirmed == len(DATA)
        return sent

    def send(self) -> Sent:
        return send_in_parts(
            [make_client(self.model) for _ in range(self.clients)],
            self.terms,
            self.file,
            {"filename": "a.bin"},
            self.parts,
            "whole",
            watch=self.told.watch,
            session="s",
            **self.more,
        )

    def fail(self) -> errors.UploaderError:
        error = outcome(self.send)
        assert isinstance(error, errors.UploaderError), error
        return error


@pytest.mark.parametrize("clients", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_parts_are_joined_to_the_whole_file(tmp_path: Path, clients: int, count: int) -> None:
    case = Case(tmp_path, count=count, clients=clients, checksum="sha256")
    sent = case.run()
    assert (sent.verified, sent.attempts, case.told.attempts) == (True, 1, [0])
    assert len(case.model.finals[sent.url]) == count
    assert case.told.urls == [sent.url]
    assert case.told.checked == len(DATA)


def test_only_the_joined_upload_has_the_files_metadata(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.run()
    posts = [headers for method, _, headers, _ in case.model.calls if method == "POST"]
    names = [{pair.split()[0] for pair in headers["Upload-Metadata"].split(",")} for headers in posts]
    place = {"finalKey", "finalLength", "partOffset"}
    assert names == [{"sessionId", "uploadKey"} | place] * 2 + [{"filename", "uploadKey"}]


def test_parts_tell_a_server_that_knows_keys_their_place(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.run()
    posts = [headers["Upload-Metadata"] for method, _, headers, _ in case.model.calls if method == "POST"]
    for start, metadata in zip((0, 50), posts[:2], strict=True):
        place = {"finalKey": "whole", "finalLength": "100", "partOffset": str(start)}
        assert set(encode_metadata(place).split(",")) <= set(metadata.split(","))


class TestForeignServer:
    """A server that knows no keys, and keeps parts beside what they were joined to."""

    def case(self, tmp_path: Path, words: str = "") -> Case:
        case = Case(tmp_path, words, extensions={"termination"})
        case.model.keys, case.model.keeps_parts = None, True
        case.more = {"recognises_keys": False}
        return case

    def test_parts_are_deleted_after_the_whole_is_confirmed(self, tmp_path: Path) -> None:
        case = self.case(tmp_path)
        sent = case.run()
        assert list(case.model.uploads) == [sent.url]
        assert case.model.methods.endswith("POST DELETE DELETE")
        assert not any("finalKey" in headers.get("Upload-Metadata", "") for _, _, headers, _ in case.model.calls)

    def test_parts_that_can_not_be_deleted_fail_nothing(self, tmp_path: Path) -> None:
        case = self.case(tmp_path, "ok " * 13 + "403 reset")
        case.run()
        assert len(case.model.uploads) == 3

    def test_whole_with_a_known_url_is_not_joined_again(self, tmp_path: Path) -> None:
        case = self.case(tmp_path)
        url, case.told = case.run().url, Told()
        case.more |= {"joined": url}
        case.parts = [replace(part, known=Known(ENDPOINT + str(n))) for n, part in enumerate(case.parts, 1)]
        case.model.calls.clear()
        assert case.run().url == url
        assert case.model.methods == "HEAD DELETE DELETE"

    def test_lost_part_alone_is_sent_again(self, tmp_path: Path) -> None:
        case = self.case(tmp_path, "ok " * 12 + "reset")
        case.terms = replace(case.terms, retry=make_terms(retries=0).retry)
        case.fail()
        case.told = Told()
        del case.model.uploads[ENDPOINT + "1"]
        case.parts = [replace(part, known=Known(ENDPOINT + str(n))) for n, part in enumerate(case.parts, 1)]
        case.model.calls.clear()
        case.run()
        assert sum(size for *_, size in case.model.calls) == 50


def test_retry_of_a_part_is_an_attempt_of_the_file(tmp_path: Path) -> None:
    case = Case(tmp_path, "ok ok ok 500")
    assert case.run().attempts == 2
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

    for name in ("_attempt", "_confirmed", "_sent", "_retry"):
        setattr(case.told, name, alone(getattr(case.told, name)))
    case.run()
    assert overlaps == []
    assert threads <= {"MainThread", *(f"part-{number}" for number in range(4))}


def test_no_thread_is_left(tmp_path: Path) -> None:
    before = threading.active_count()
    Case(tmp_path, clients=2, checksum="sha1").run()
    assert threading.active_count() == before


def test_checksums_of_all_parts_can_share_one_helper(tmp_path: Path) -> None:
    case = Case(tmp_path, count=3, checksum="sha256")
    upload = PartedUpload(case.terms, case.file, {}, case.parts, "whole", watch=case.told.watch)
    client = make_client(case.model)
    assert upload.begin(client) is None
    with ThreadPoolExecutor(1) as helper:
        sent = [upload.send(index, client, lambda: helper) for index in range(3)]
    assert sent[:2] == [None, None]
    assert sent[2] is not None
    assert sent[2].verified


def test_413_for_one_part_makes_the_chunks_of_the_next_smaller(tmp_path: Path) -> None:
    case = Case(tmp_path, "ok 413", checksum="sha256")
    case.run()
    assert {size for method, _, _, size in case.model.calls if method == "PATCH" and size} == {5}


class TestResume:
    def interrupted(self, tmp_path: Path) -> tuple[Case, dict[int, str]]:
        """Return two parts of fifty bytes, of which the server has twenty of the first."""
        case = Case(tmp_path, "ok ok ok reset reset reset", retries=0, checksum="sha256")
        urls: dict[int, str] = {}
        watches = [Watch(created=lambda url, at=part.start: urls.update({at: url})) for part in case.parts]  # type: ignore[misc]
        case.parts = [replace(part, watch=watch) for part, watch in zip(case.parts, watches, strict=True)]
        case.fail()
        case.model.words.clear()
        case.model.calls.clear()
        case.told = Told()
        return case, urls

    def test_known_url_of_a_part_resumes_that_part(self, tmp_path: Path) -> None:
        case, urls = self.interrupted(tmp_path)
        assert urls == {0: ENDPOINT + "1"}
        case.parts[0] = replace(case.parts[0], known=Known(urls[0], "k", checked_until=20))
        sent = case.run()
        assert case.told.attempts == [20], "what the server has counts as sent before"
        assert sent.verified
        assert sum(size for *_, size in case.model.calls) == 80

    def test_part_that_the_server_lost_is_sent_again(self, tmp_path: Path) -> None:
        case, urls = self.interrupted(tmp_path)
        case.parts[0] = replace(case.parts[0], known=Known(urls[0], "k", confirmed=20))
        case.model.uploads.clear()
        case.run()
        assert case.told.attempts == [0]

    def test_failed_head_at_the_start_begins_at_the_journals_offset(self, tmp_path: Path) -> None:
        case, urls = self.interrupted(tmp_path)
        case.parts[0] = replace(case.parts[0], known=Known(urls[0], "k", confirmed=20))
        case.model.words.append("reset")
        case.run()
        assert case.told.attempts == [20]

    def test_parts_joined_before_are_not_sent_again(self, tmp_path: Path) -> None:
        """The run ended before the answer to the last request: the parts are gone on the server."""
        case = Case(tmp_path, "ok " * 12 + "lost", retries=0)
        case.fail()
        assert list(case.model.finals) == [ENDPOINT + "3"]
        case.told = Told()
        urls = [ENDPOINT + "1", ENDPOINT + "2"]
        case.parts = [replace(part, known=Known(url)) for part, url in zip(case.parts, urls, strict=True)]
        case.model.calls.clear()
        assert case.run().url == ENDPOINT + "3"
        assert case.model.methods == "HEAD HEAD POST"

    @pytest.mark.parametrize(("pledged", "verified"), [(50, True), (40, False)])
    def test_joined_upload_is_verified_by_the_pledge_of_the_last_chunk(
        self, tmp_path: Path, pledged: int, verified: bool
    ) -> None:
        """Parts that can be joined are complete: the last chunk of each was accepted."""
        case = Case(tmp_path, "ok " * 12 + "lost", retries=0, checksum="sha256")
        case.fail()
        case.told, case.more = Told(), {}
        ends = [Known(ENDPOINT + "1", checked_until=50), Known(ENDPOINT + "2", checked_until=40, pledged_until=pledged)]
        case.parts = [replace(part, known=known) for part, known in zip(case.parts, ends, strict=True)]
        assert case.run().verified is verified

    def test_parts_that_are_lost_and_were_not_joined_are_given_up(self, tmp_path: Path) -> None:
        """No request asks to join parts that are not there; the file begins anew, and nothing is left behind."""
        case, urls = self.interrupted(tmp_path)
        case.parts = [replace(part, known=Known(urls.get(0, ""))) for part in case.parts]
        case.parts[1] = replace(case.parts[1], known=Known(ENDPOINT + "99"))
        with pytest.raises(PartsLost):
            case.send()
        assert case.model.methods == "HEAD HEAD POST DELETE"
        assert list(case.model.uploads) == [urls[0]]


class TestTheEnd:
    def test_failure_of_one_part_stops_the_others(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok ok 403", clients=2)
        assert isinstance(case.fail(), errors.Unauthorized)
        assert len(case.model.calls) < 12

    def test_stop_while_parts_are_sent_raises_interrupted(self, tmp_path: Path) -> None:
        case = Case(tmp_path, clients=2)
        case.told._confirmed = lambda offset, _: case.terms.retry.stop.set() if offset else None  # type: ignore[method-assign]
        assert isinstance(case.fail(), errors.Interrupted)

    def test_stop_before_the_first_request_sends_nothing(self, tmp_path: Path) -> None:
        case = Case(tmp_path)
        case.terms.retry.stop.set()
        assert isinstance(case.fail(), errors.Interrupted)
        assert case.model.calls == []

    def test_error_of_a_callback_is_raised(self, tmp_path: Path) -> None:
        def broken(_offset: int, _checked: int) -> None:
            raise KeyError("a bug of ours")

        case = Case(tmp_path, clients=2)
        case.told._confirmed = broken  # type: ignore[method-assign]
        with pytest.raises(KeyError):
            case.send()

    def test_joining_is_retried_and_joins_once(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok " * 12 + "503 429 lost")
        assert case.run().attempts == 4
        assert len(case.model.finals) == 1

    def test_refused_joining_fails_the_file(self, tmp_path: Path) -> None:
        assert isinstance(Case(tmp_path, "ok " * 12 + "403").fail(), errors.Unauthorized)

    def test_joined_upload_of_another_size_is_a_protocol_error(self, tmp_path: Path) -> None:
        case = Case(tmp_path)
        create = case.model._create

        def short(*arguments: Any, **more: Any) -> Any:
            for upload in case.model.uploads.values():
                if len(upload.data) == upload.length:
                    del upload.data[-1:]
            return create(*arguments, **more)

        case.model._create = short  # type: ignore[method-assign]
        assert isinstance(case.fail(), errors.ProtocolError)

    def test_joined_upload_without_offset_is_asked_by_head(self, tmp_path: Path) -> None:
        assert Case(tmp_path, "ok " * 12 + "mute").run().attempts == 1


class TestPartStopped:
    def failed(self, case: Case) -> PartedUpload:
        """Return an upload in two parts, of which the first has failed."""
        case.model.words.extend(["ok", "403"])
        upload = PartedUpload(case.terms, case.file, {}, case.parts, "whole", watch=case.told.watch)
        client = make_client(case.model)
        assert upload.begin(client) is None
        with pytest.raises(PartStopped):
            upload.send(0, client, None)
        return upload

    def test_part_that_ends_last_raises_the_first_error(self, tmp_path: Path) -> None:
        case = Case(tmp_path)
        upload = self.failed(case)
        calls = len(case.model.calls)
        with pytest.raises(errors.Unauthorized) as caught:
            upload.send(1, make_client(case.model), None)
        assert caught.value is upload.error
        assert len(case.model.calls) == calls

    def test_stop_after_a_failure_does_not_hide_the_failure(self, tmp_path: Path) -> None:
        case = Case(tmp_path)
        upload = self.failed(case)
        case.terms.retry.stop.set()
        with pytest.raises(errors.Unauthorized):
            upload.send(1, make_client(case.model), None)

    def test_retry_of_a_part_after_a_failure_is_not_reported(self, tmp_path: Path) -> None:
        """The other part is in the middle of a chunk when the first fails."""
        case = Case(tmp_path, "ok ok", clients=2)
        upload = PartedUpload(case.terms, case.file, {}, case.parts, "whole", watch=case.told.watch)
        clients = [make_client(case.model), make_client(case.model)]
        assert upload.begin(clients[0]) is None
        request, first = case.model.request, threading.Lock()

        def fail_both(method: str, *arguments: Any, **more: Any) -> Any:
            if method == "PATCH" and first.acquire(blocking=False):
                case.model.words.append("403")
                with pytest.raises(PartStopped):
                    upload.send(1, clients[1], None)
                raise errors.ConnectionLost("reset")
            return request(method, *arguments, **more)

        case.model.request = fail_both  # type: ignore[method-assign]
        with pytest.raises(errors.Unauthorized):
            upload.send(0, clients[0], None)
        assert case.told.retries == []


def test_sums_never_fall_within_an_attempt() -> None:
    """A part whose offset fell is reported when it has risen again."""
    told = Told()
    whole = _Whole(100, [0, 0], told.watch)
    whole.begin([30, 30])
    whole.confirmed(0, 10, 0)
    assert told.confirmed == 60
    whole.confirmed(0, 40, 0)
    whole.sent(1, 50)
    assert (told.confirmed, told.sent) == (70, 90)
    whole.retry(1, errors.ConnectionLost("x"), 0.5)
    assert told.attempts == [60, 70]
