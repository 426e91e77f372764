"""One file in parallel parts: progress of the whole, resume of each part, one failure that stops all."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tus_model import ENDPOINT, Model, Told, file_of, make_client, make_terms, outcome

from uploader_cli import errors
from uploader_cli.core.tus import parts
from uploader_cli.transfer.stop import Stop
from uploader_cli.transfer.tus_parts import Part, _Halt, send_in_parts
from uploader_cli.transfer.tus_parts_progress import PartsProgress
from uploader_cli.transfer.tus_types import Known, Sent, Watch

if TYPE_CHECKING:
    from pathlib import Path

DATA = bytes(range(100))


class Case:
    """`DATA` in `count` parts, chunks of ten bytes, and what became of it."""

    def __init__(self, tmp_path: Path, words: str = "", *, count: int = 2, clients: int = 1, **terms: Any) -> None:
        self.model, self.told, self.clients = Model(words.split()), Told(), clients
        self.terms = make_terms(**{"cwu": False, **terms})
        self.file = file_of(tmp_path / "a.bin", DATA)
        self.parts = [Part(start, length) for start, length in parts(len(DATA), count)]
        self.known = Known()

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
            part_metadata={"sessionId": "s"},
            watch=self.told.watch,
            known=self.known,
            make_key=lambda: "whole",
        )

    def fail(self) -> errors.UploaderError:
        error = outcome(self.send)
        assert isinstance(error, errors.UploaderError), error
        return error


@pytest.mark.parametrize("clients", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_whole_is_made_of_its_parts(tmp_path: Path, clients: int, count: int) -> None:
    case = Case(tmp_path, count=count, clients=clients, checksum="sha256")
    sent = case.run()
    assert (sent.verified, sent.attempts, case.told.attempts) == (True, 1, [0])
    assert len(case.model.finals[sent.url]) == count
    assert case.told.urls == [sent.url]
    assert case.told.checked == len(DATA)


def test_metadata_of_the_parts_and_of_the_whole(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.run()
    posts = [headers for method, _, headers, _ in case.model.calls if method == "POST"]
    names = [{pair.split()[0] for pair in headers["Upload-Metadata"].split(",")} for headers in posts]
    assert names == [{"sessionId", "uploadKey"}] * 2 + [{"filename", "uploadKey"}]


def test_a_retry_of_a_part_is_an_attempt_of_the_file(tmp_path: Path) -> None:
    case = Case(tmp_path, "ok ok ok 500")
    assert case.run().attempts == 2
    assert case.told.attempts == [0, 20]


def test_it_is_told_in_the_callers_thread(tmp_path: Path) -> None:
    case = Case(tmp_path, clients=2)
    threads: set[str] = set()
    told = case.told._sent
    case.told._sent = lambda total: (threads.add(threading.current_thread().name), told(total))  # type: ignore[assignment]
    case.run()
    assert threads == {threading.current_thread().name}


def test_no_thread_is_left(tmp_path: Path) -> None:
    Case(tmp_path, clients=2, checksum="sha1").run()
    left = [thread.name for thread in threading.enumerate()]
    assert not [name for name in left if name.startswith(("part", "checksum"))]


class TestResume:
    def interrupted(self, tmp_path: Path) -> tuple[Case, dict[int, str]]:
        """Two parts of fifty bytes; twenty of the first are there."""
        case = Case(tmp_path, "ok ok ok reset reset reset", retries=0, checksum="sha256")
        urls: dict[int, str] = {}
        watches = [Watch(created=lambda url, at=part.start: urls.update({at: url})) for part in case.parts]  # type: ignore[misc]
        case.parts = [replace(part, watch=watch) for part, watch in zip(case.parts, watches, strict=True)]
        case.fail()
        case.model.words.clear()
        case.model.calls.clear()
        case.told = Told()
        return case, urls

    def test_each_part_by_its_own_url(self, tmp_path: Path) -> None:
        case, urls = self.interrupted(tmp_path)
        assert urls == {0: ENDPOINT + "1"}
        case.parts[0] = replace(case.parts[0], known=Known(urls[0], "k", checked_until=20))
        sent = case.run()
        assert case.told.attempts == [20], "what the server has counts as sent before"
        assert sent.verified
        assert sum(size for *_, size in case.model.calls) == 80

    def test_a_part_that_the_server_has_lost(self, tmp_path: Path) -> None:
        case, urls = self.interrupted(tmp_path)
        case.parts[0] = replace(case.parts[0], known=Known(urls[0], "k", confirmed=20))
        case.model.uploads.clear()
        case.run()
        assert case.told.attempts == [0]

    def test_a_server_that_does_not_answer_at_first(self, tmp_path: Path) -> None:
        case, urls = self.interrupted(tmp_path)
        case.parts[0] = replace(case.parts[0], known=Known(urls[0], "k", confirmed=20))
        case.model.words.append("reset")
        case.run()
        assert case.told.attempts == [20]

    def test_joined_already(self, tmp_path: Path) -> None:
        """The answer to the last request was lost with the run: the parts are gone, and must not be sent again."""
        case = Case(tmp_path, "ok " * 12 + "lost", retries=0)
        case.fail()
        assert list(case.model.finals) == [ENDPOINT + "3"]
        case.told = Told()
        case.known = Known(key="whole")
        urls = [ENDPOINT + "1", ENDPOINT + "2"]
        case.parts = [replace(part, known=Known(url)) for part, url in zip(case.parts, urls, strict=True)]
        case.model.calls.clear()
        assert case.run().url == ENDPOINT + "3"
        assert case.model.methods == "HEAD HEAD POST"

    @pytest.mark.parametrize(("pledged", "verified"), [(50, True), (40, False)])
    def test_joined_before_the_last_chunk_was_noted(self, tmp_path: Path, pledged: int, verified: bool) -> None:
        """Parts that can be joined are complete: the chunk that was under way at the end of each was accepted."""
        case = Case(tmp_path, "ok " * 12 + "lost", retries=0, checksum="sha256")
        case.fail()
        case.told, case.known = Told(), Known(key="whole")
        ends = [Known(ENDPOINT + "1", checked_until=50), Known(ENDPOINT + "2", checked_until=40, pledged_until=pledged)]
        case.parts = [replace(part, known=known) for part, known in zip(case.parts, ends, strict=True)]
        assert case.run().verified is verified

    def test_not_joined_yet(self, tmp_path: Path) -> None:
        """Parts that are not complete are refused; then they are sent."""
        case, urls = self.interrupted(tmp_path)
        case.known = Known(key="whole")
        case.parts = [replace(part, known=Known(urls.get(0, ""))) for part in case.parts]
        case.parts[1] = replace(case.parts[1], known=Known(ENDPOINT + "99"))
        case.run()


class TestTheEnd:
    def test_one_failure_stops_the_others(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok ok 403", clients=2)
        assert isinstance(case.fail(), errors.Unauthorized)
        assert len(case.model.calls) < 12

    def test_an_interrupt(self, tmp_path: Path) -> None:
        case = Case(tmp_path, clients=2)
        case.told._confirmed = lambda offset, _: case.terms.stop.set() if offset else None  # type: ignore[method-assign]
        assert isinstance(case.fail(), errors.Interrupted)

    def test_an_interrupt_before_it_begins(self, tmp_path: Path) -> None:
        case = Case(tmp_path)
        case.terms.stop.set()
        assert isinstance(case.fail(), errors.Interrupted)
        assert case.model.calls == []

    def test_a_listener_that_fails_ends_it(self, tmp_path: Path) -> None:
        def broken(_offset: int, _checked: int) -> None:
            raise KeyError("a bug of ours")

        case = Case(tmp_path, clients=2)
        case.told._confirmed = broken  # type: ignore[method-assign]
        with pytest.raises(KeyError):
            case.send()

    def test_joining_is_retried(self, tmp_path: Path) -> None:
        case = Case(tmp_path, "ok " * 12 + "503 429 lost")
        assert case.run().attempts == 4
        assert len(case.model.finals) == 1

    def test_joining_is_refused(self, tmp_path: Path) -> None:
        assert isinstance(Case(tmp_path, "ok " * 12 + "403").fail(), errors.Unauthorized)

    def test_joined_to_something_else(self, tmp_path: Path) -> None:
        case = Case(tmp_path)
        create = case.model._create

        def short(*arguments: Any, **more: Any) -> Any:
            for upload in case.model.uploads.values():
                if len(upload.data) == upload.length:
                    del upload.data[-1:]
            return create(*arguments, **more)

        case.model._create = short  # type: ignore[method-assign]
        assert isinstance(case.fail(), errors.ProtocolError)

    def test_an_offset_only_head_tells(self, tmp_path: Path) -> None:
        assert Case(tmp_path, "ok " * 12 + "mute").run().attempts == 1


class TestHalt:
    def test_a_long_wait_ends_when_another_part_fails(self) -> None:
        halt = _Halt(Stop())
        threading.Timer(0.05, halt.set).start()
        with pytest.raises(errors.Interrupted):
            halt.sleep(60.0)

    def test_the_runs_stop_is_its_stop(self) -> None:
        outer = Stop()
        halt = _Halt(outer)
        assert not halt
        outer.set()
        assert halt
        with pytest.raises(errors.Interrupted):
            halt.check()
        with pytest.raises(errors.Interrupted):
            halt.sleep(1.0)


def test_sums_do_not_fall_within_an_attempt() -> None:
    """A part whose server went back is told of once it has caught up."""
    told = Told()
    whole = PartsProgress(100, [30, 30], [0, 0], told.watch)
    whole.begin()
    whole.confirmed(0, 10, 0)
    assert told.confirmed == 60
    whole.confirmed(0, 40, 0)
    whole.sent(1, 50)
    assert (told.confirmed, told.sent) == (70, 90)
    whole.retry(1, errors.ConnectionLost("x"), 0.5)
    assert told.attempts == [60, 70]
