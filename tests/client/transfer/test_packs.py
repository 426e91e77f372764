"""Many small files in packs: the client against the bundled server, with requests that fail on purpose."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from server.batches import eventually
from serving import inside, running_server

from uploader_cli import Progress, upload
from uploader_cli.core import events as ev
from uploader_cli.core import sizes
from uploader_cli.core.events import FailureCode
from uploader_cli.errors import FileError
from uploader_cli.settings import Settings
from uploader_cli.sources.content import read_whole
from uploader_cli.transfer import pack_job
from uploader_cli.transfer.pacer import Stop
from uploader_cli.transfer.protocols import pack
from uploader_server.batch.packstore import Unpacking
from uploader_server.simulation.exchange import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uploader_cli.result import Result
    from uploader_server.serving import EmbeddedServer

PACKS = "/api/upload/packs"
TUS = "/api/upload/files/*"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    root = tmp_path / "root"
    root.mkdir()
    with running_server(packs=True, root=root) as made:
        yield made


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Twenty small files, one of them empty, and one that is too large for a pack."""
    source = tmp_path / "many"
    (source / "deep").mkdir(parents=True)
    for number in range(20):
        (source / "deep" / f"{number:02}.bin").write_bytes(os.urandom(100 * number))
    (source / "large.bin").write_bytes(os.urandom(sizes.LARGEST_PACKED + 1))
    return source


class Sending:
    """Runs of one command, each with its events by type."""

    def __init__(self, server: EmbeddedServer, source: Path, home: Path, **settings: Any) -> None:
        self.server, self.source = server, source
        self.settings = Settings(server=server.url, state_dir=home / "state", **settings)
        self.root = home / "root"

    def run(self, **settings: Any) -> Result:
        return upload([str(self.source)], replace(self.settings, **settings))

    def check_stored_once(self) -> None:
        """Every file is on the server with equal bytes, and none is there twice."""
        sent = {path.relative_to(self.source.parent): digest(path) for path in files_of(self.source)}
        kept = self.root / "personal"
        assert {path.relative_to(kept): digest(path) for path in files_of(kept)} == sent


def files_of(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def sending(server: EmbeddedServer, files: Path, tmp_path: Path) -> Sending:
    return Sending(server, files, tmp_path)


@pytest.mark.thorough
def test_resume_resends_files_refused_in_a_pack(sending: Sending) -> None:
    sending.server.faults.fail_files = ["*/deep/*"]
    assert sending.run().outcome.failed == 20
    sending.server.faults.clear()
    assert sending.run().outcome.failed == 0
    sending.check_stored_once()


def test_small_files_travel_in_one_request(sending: Sending) -> None:
    result = sending.run()
    assert (result.ok, result.outcome.completed) == (True, 21)
    assert sending.server.faults.count("POST", PACKS) == 1
    assert sending.server.faults.count("POST", TUS) == 1, "the large one goes by tus"
    receipt = next(one for one in result.receipts if one.path.endswith("07.bin"))
    assert receipt.checksum == "sha256:" + digest(sending.source / "deep" / "07.bin")
    sending.check_stored_once()


@pytest.mark.thorough
def test_no_pack_sends_each_file_by_itself(sending: Sending) -> None:
    assert sending.run(pack=False).outcome.completed == 21
    assert sending.server.faults.count("POST", PACKS) == 0
    sending.check_stored_once()


def test_lost_answer_stores_nothing_twice(sending: Sending) -> None:
    """The answer is requested by the key of the pack."""
    sending.server.faults.next_answers("POST", PACKS, [Answer(when="after_store", close=True)])
    assert sending.run().outcome.completed == 21
    assert sending.server.faults.count("POST", PACKS) == 1
    sending.check_stored_once()


def test_pack_that_is_stored_slowly_is_sent_once_and_uses_no_retry(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer comes later than the client waits for one: it asks for the answer until it is there."""
    faults, write, totals = sending.server.faults, Unpacking.write, list[Progress]()

    def calls() -> list[tuple[str, int]]:
        return [(entry.method, entry.status) for entry in faults.requests if entry.path.startswith(PACKS)]

    def sent_before_an_end() -> set[int]:
        return {total.sent for total in list(totals) if not total.completed}

    def slowly(unpacking: Unpacking) -> None:
        eventually(lambda: calls().count(("GET", 409)) >= 3 and packed in sent_before_an_end())
        write(unpacking)

    monkeypatch.setattr(Unpacking, "write", slowly)
    monkeypatch.setattr(pack, "PACK_TIMEOUT", 2.0)  # enough for the server to begin
    monkeypatch.setattr(Stop, "sleep", lambda stop, seconds: Event.wait(stop, min(seconds, 0.05)))
    (sending.source / "large.bin").unlink()
    packed = sum(path.stat().st_size for path in files_of(sending.source))
    result = upload([str(sending.source)], replace(sending.settings, retries=1), on_overall=totals.append)
    assert (result.outcome.completed, result.outcome.failed) == (20, 0)
    assert [call for call in calls() if call[0] == "POST"] == [("POST", 200)]
    assert packed in sent_before_an_end(), "what was sent is shown before its end"
    sending.check_stored_once()


@pytest.mark.thorough
def test_pack_that_is_not_stored_within_max_wait_can_be_retried(sending: Sending) -> None:
    """The next run asks for its answer."""
    (sending.source / "large.bin").unlink()
    busy = Answer(409, {"Retry-After": "1"}, b'{"error": "PACK_IN_PROGRESS", "message": "busy"}', "after_store")
    sending.server.faults.next_answers("POST", PACKS, [busy])
    result = sending.run(max_wait=0.5)
    assert (result.outcome.exit_code, result.outcome.failed) == (3, 20)
    assert sending.run().ok
    assert sending.server.faults.count("POST", PACKS) == 1
    sending.check_stored_once()


def test_pack_of_a_session_that_is_not_ours_is_repeated_by_its_key(sending: Sending) -> None:
    """Its answer can't be requested without the secret of its session; the repeated key stores nothing twice."""
    sending.server.faults.next_answers("POST", PACKS, [Answer(when="after_store", close=True)])
    assert not sending.run(retries=0).ok
    with closing(sqlite3.connect(sending.settings.state_path / "journal.sqlite3")) as journal, journal:
        journal.execute("UPDATE session SET secret = 'a-secret-of-another-session'")
    assert sending.run().ok
    posts = [entry.status for entry in sending.server.faults.requests if (entry.method, entry.path) == ("POST", PACKS)]
    assert posts[-1] == 200
    sending.check_stored_once()


@pytest.mark.parametrize("status", [500, 503, 429])
def test_temporary_refusal_of_a_pack_is_retried(sending: Sending, status: int) -> None:
    sending.server.faults.next_answers("POST", PACKS, [Answer(status, {"Retry-After": "0"})])
    assert sending.run().outcome.completed == 21
    sending.check_stored_once()


@pytest.mark.thorough
def test_packs_that_keep_failing_are_replaced_by_single_files(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stop, "sleep", lambda _stop, _seconds: None)
    sending.server.faults.next_answers("POST", PACKS, [500] * 10)
    warnings: list[tuple[str, str]] = []
    result = upload([str(sending.source)], replace(sending.settings, retries=1), on_event=warned(warnings))
    assert (result.outcome.completed, result.outcome.failed) == (21, 0)
    assert sending.server.faults.count("POST", PACKS) == 2
    assert [(code, "small files are sent one by one" in text) for code, text in warnings] == [("packs", True)]
    sending.check_stored_once()


def test_lookup_that_keeps_failing_is_replaced_by_single_calls(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sending.run().outcome.completed == 21
    monkeypatch.setattr(Stop, "sleep", lambda _stop, _seconds: None)
    sending.server.faults.next_answers("POST", "/api/upload/lookup", [500] * 10)
    settings = replace(sending.settings, jobs=1, retries=1, skip_existing=True, state_dir=sending.root / "other")
    warnings: list[tuple[str, str]] = []
    result = upload([str(sending.source)], settings, on_event=warned(warnings))
    assert (result.outcome.skipped, result.outcome.completed) == (21, 0)
    assert sending.server.faults.count("POST", "/api/upload/lookup") == 2
    assert [(code, "looked up one by one" in text) for code, text in warnings] == [("lookup", True)]


def warned(warnings: list[tuple[str, str]]) -> Callable[[ev.Event], None]:
    """Collect code and text of the warnings of a run."""

    def collect(event: ev.Event) -> None:
        if isinstance(event, ev.RunWarning):
            warnings.append((event.code, event.text))

    return collect


@pytest.mark.thorough
@pytest.mark.parametrize("status", [404, 405, 501])
def test_missing_pack_route_falls_back_to_single_files(sending: Sending, status: int) -> None:
    sending.server.faults.next_answers("POST", PACKS, [status])
    assert sending.run().outcome.completed == 21
    assert sending.server.faults.count("POST", PACKS) == 1
    sending.check_stored_once()


def test_pack_that_is_too_large_is_halved_down_to_single_files(sending: Sending) -> None:
    sending.server.faults.next_answers("POST", PACKS, [413] * 99)
    assert sending.run().outcome.completed == 21
    assert sending.server.faults.count("POST", PACKS) > 20
    sending.check_stored_once()


@pytest.mark.thorough
def test_401_keeps_the_pack_for_the_next_run(sending: Sending) -> None:
    sending.server.faults.next_answers("POST", PACKS, [401])
    assert not sending.run().ok
    assert sending.run().ok
    sending.check_stored_once()


@pytest.mark.parametrize(
    ("status", "sessions"),
    [(403, 2), *(pytest.param(*each, marks=pytest.mark.thorough) for each in ((None, 1), (404, 2)))],
)
def test_resume_opens_another_session_where_the_old_one_is_refused(
    sending: Sending, status: int | None, sessions: int
) -> None:
    sending.server.faults.next_answers("POST", PACKS, [401])
    assert not sending.run().ok
    sending.server.faults.next_answers("GET", "/api/upload/progress/*", [status])
    assert sending.run().ok
    assert sending.server.faults.count("POST", "/api/upload/session") == sessions
    sending.check_stored_once()


@pytest.mark.thorough
def test_resume_after_a_stored_pack_sends_no_byte(sending: Sending) -> None:
    """A resume asks for the answer by the key that the journal has."""
    sending.server.faults.next_answers("POST", PACKS, [Answer(when="after_store", close=True)])
    assert not sending.run(retries=0).ok
    again = sending.run()
    assert again.ok
    assert sending.server.faults.count("POST", PACKS) == 1
    assert sending.server.faults.count("GET", f"{PACKS}/*") == 1
    sending.check_stored_once()


def test_file_that_changes_before_its_pack_is_read_fails_alone(sending: Sending, monkeypatch: Any) -> None:
    read = read_whole

    def meddled(file: Any, *how: Any, **more: Any) -> str:
        if file.name == "03.bin":
            os.utime(file.path, ns=(0, 0))
        return read(file, *how, **more)

    monkeypatch.setattr(pack_job, "read_whole", meddled)
    result = sending.run()
    failed = [one for one in result.receipts if one.status == "failed"]
    assert [(os.path.basename(one.path), one.code) for one in failed] == [("03.bin", "changed")]
    assert result.outcome.completed == 20


@pytest.mark.parametrize("rewrites", [True, False])
def test_file_with_another_ctime_is_read_twice_before_its_pack_is_sent(
    sending: Sending, monkeypatch: Any, rewrites: bool
) -> None:
    """One that was rewritten while it was read, and whose mtime was restored, fails alone."""
    read, path = read_whole, sending.source / "deep/03.bin"

    def meddled(file: Any, *how: Any, **more: Any) -> str:
        if file.name == path.name:
            path.chmod(0o600)
        digest = read(file, *how, **more)
        if file.name == path.name and rewrites:
            path.write_bytes(bytes(file.size))
            os.utime(path, ns=(0, file.mtime_ns))
        return digest

    monkeypatch.setattr(pack_job, "read_whole", meddled)
    failed = [(os.path.basename(one.path), one.code) for one in sending.run().receipts if one.status == "failed"]
    assert failed == [(path.name, "changed")] * rewrites


def refusal(status: int, code: str) -> Answer:
    return Answer(status, {}, json.dumps({"error": code, "message": "no"}).encode())


@pytest.mark.parametrize(("times", "failed"), [(1, 0), (2, 20)])
@pytest.mark.parametrize(
    ("answer", "code"),
    [(refusal(422, "KEY_REUSED"), "server_refused"), (refusal(404, "SESSION_NOT_FOUND"), "server_error")],
    ids=["key", "session"],
)
def test_pack_gets_another_key_or_session_once(
    sending: Sending, answer: Answer, code: str, times: int, failed: int
) -> None:
    """The same answer again fails its files, and no loop begins."""
    (sending.source / "large.bin").unlink()
    sending.server.faults.next_answers("POST", PACKS, [answer] * times)
    result = sending.run(retries=0)
    assert (result.outcome.completed, result.outcome.failed) == (20 - failed, failed)
    assert {one.code for one in result.receipts if one.status == "failed"} == ({code} if failed else set())
    assert sending.server.faults.count("POST", PACKS) == 2
    assert sending.run(retries=0).ok
    sending.check_stored_once()


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have seven files in a pack, so that the files of a run need three."""
    monkeypatch.setattr(sizes, "MOST_PACK_FILES", 7)


@pytest.mark.usefixtures("small_packs")
def test_packs_are_refused_once_for_all_that_follow(sending: Sending) -> None:
    sending.server.faults.next_answers("POST", PACKS, [404])
    assert sending.run(jobs=1).outcome.completed == 21
    assert sending.server.faults.count("POST", PACKS) == 1
    sending.check_stored_once()


@pytest.mark.usefixtures("small_packs")
def test_fail_fast_sends_no_pack_after_a_failure(sending: Sending) -> None:
    sending.server.faults.fail_files = ["00.bin"]
    result = sending.run(jobs=1, fail_fast=True)
    assert sending.server.faults.count("POST", PACKS) == 1
    assert (result.outcome.failed, result.outcome.completed, result.outcome.skipped) == (1, 6, 14)


def test_422_of_something_else_ends_the_files_without_a_loop(sending: Sending) -> None:
    """A proxy that refuses packs: only the server's own KEY_REUSED asks for another key."""
    sending.server.faults.next_answers("POST", PACKS, [422] * 99)
    result = sending.run()
    assert [one.code for one in result.receipts if one.status == "failed"] == ["server_refused"] * 20
    assert sending.server.faults.count("POST", PACKS) == 1


def test_corrupted_pack_is_resent_and_then_fails_with_integrity(sending: Sending, monkeypatch: Any) -> None:
    read = read_whole
    monkeypatch.setattr(
        pack_job, "read_whole", lambda *how, **more: hashlib.sha256(read(*how, **more).encode()).hexdigest()
    )
    result = sending.run(retries=1)
    codes = {one.code for one in result.receipts if one.status == "failed"}
    assert codes == {"integrity"}
    assert result.exit_code == 7


def test_abandoned_files_make_the_session_partial(sending: Sending, monkeypatch: Any) -> None:
    def unreadable(file: Any, *_how: Any, **_more: Any) -> str:
        raise FileError("it changed", path=file.path, code=FailureCode.CHANGED)

    monkeypatch.setattr(pack_job, "read_whole", unreadable)
    sending.run()
    (session,) = inside(sending.server).backend.sessions.known.values()
    assert session.status == "partial"


def test_conflicting_path_fails_alone(sending: Sending) -> None:
    """A directory on the server is where the file would go."""
    (sending.root / "personal" / "many" / "deep" / "05.bin").mkdir(parents=True)
    result = sending.run()
    failed = [one for one in result.receipts if one.status == "failed"]
    assert [(os.path.basename(one.path), one.code) for one in failed] == [("05.bin", "server_failed")]
    assert result.outcome.completed == 20


def test_packed_file_has_one_verified_end_and_no_progress(sending: Sending) -> None:
    completed: list[ev.FileCompleted] = []
    progress: list[ev.FileProgress] = []
    upload([str(sending.source / "deep")], sending.settings, on_completed=completed.append, on_progress=progress.append)
    assert len(completed) == len({event.file for event in completed}) == 20
    assert all(event.verified and event.verified_by is ev.VerifiedBy.SHA256 and event.checksum for event in completed)
    assert progress == []


@pytest.mark.thorough
def test_files_in_packs_of_several_sessions_are_all_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs and sessions are cut at different files."""
    monkeypatch.setattr(sizes, "MOST_PACK_FILES", 7)
    source = tmp_path / "many"
    source.mkdir()
    for number in range(50):
        (source / f"{number:02}.bin").write_bytes(os.urandom(50))
    (tmp_path / "root").mkdir()
    with running_server(packs=True, root=tmp_path / "root", max_files=10) as server:
        sending = Sending(server, source, tmp_path)
        assert sending.run().outcome.completed == 50
        sending.check_stored_once()


@pytest.mark.thorough
def test_skip_existing_asks_for_many_files_at_once(sending: Sending, tmp_path: Path) -> None:
    """Another user has uploaded them: this user has no receipt. The server knows the digests of packed files."""
    sending.run()
    (sending.source / "deep" / "new.bin").write_bytes(b"new")
    (sending.source / "deep" / "04.bin").write_bytes(b"other bytes")
    result = sending.run(skip_existing=True, state_dir=tmp_path / "other state")
    assert (result.outcome.skipped, result.outcome.completed) == (20, 2)
    assert 1 <= sending.server.faults.count("POST", "/api/upload/lookup") <= 2
    assert sending.server.faults.count("HEAD", "/uploads/*") == 1
