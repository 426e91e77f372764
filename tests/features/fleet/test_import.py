"""Imports on a Dask cluster of real processes (docs/fleet.md)."""

from __future__ import annotations

import errno
import filecmp
import json
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
from collections import defaultdict
from functools import partial, reduce
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import command
import pytest
from command import Done, ended, read_until
from prometheus_client.parser import text_string_to_metric_families
from serving import running_server
from time_limits import PATIENCE, SLACK
from tus_services import Service, Unanswered, Upload

from uploader_cli import UsageError, __version__, upload
from uploader_cli.features.fleet import worker
from uploader_cli.sources.files import status
from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client
    from scripted_server import Answer as Answered
    from scripted_server import Request

    from uploader_server.serving import EmbeddedServer

PATIENT = {"uploader_cli.features.fleet.driver.NO_WORKERS": PATIENCE}
"""No warning while busy workers have not passed their checks."""
start, uploader = (
    partial(call, imported=("distributed",), constants=PATIENT) for call in (command.start, command.uploader)
)
PACKS = "/api/upload/packs"
SMALL, BIG = 300, 10 << 20
CHUNK = "1M"
patched: Any = worker  # what a test changes in a worker process
STALL = "stall:patch#5:in,seconds=60,at=1000"
"""Hold the large file, until something happens to its worker."""


@pytest.fixture(scope="module")
def _cluster() -> Iterator[Client]:
    """Run a cluster of two worker processes; Dask replaces those that are killed."""
    import dask  # only the worker that runs these tests imports it
    from distributed import Client, LocalCluster

    quiet: dict[str, Any] = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": None}
    config = {
        "distributed.worker.profile.enabled": False,
        "distributed.admin.tick.interval": "10s",
        "distributed.deploy.lost-worker-timeout": "5m",  # else a busy machine gives up those that were killed
    }
    with dask.config.set(config):
        processes = LocalCluster(n_workers=2, threads_per_worker=1, silence_logs=logging.CRITICAL, **quiet)
        with processes, Client(processes, set_as_default=False) as client:
            yield client


@pytest.fixture
def cluster(_cluster: Client) -> Client:
    """Wait for the worker that replaces one which an earlier test has killed."""
    _cluster.wait_for_workers(2, timeout=PATIENCE)
    return _cluster


@pytest.fixture
def bundled() -> Iterator[EmbeddedServer]:
    with running_server(packs=True) as server:
        yield server


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    """Accept connections, and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a directory of small files and of one large one, which is selected first."""
    top, chance = tmp_path / "tree", random.Random(7)
    (top / "below").mkdir(parents=True)
    (top / "a-large.bin").write_bytes(chance.randbytes(BIG))
    for number in range(SMALL):
        (top / "below" / f"{number:03}.bin").write_bytes(chance.randbytes(chance.randrange(4000)))
    return top


class Counting(Service):
    """Counts the creations at the same time, which take a while.

    The chunk at 3 MiB gets no answer before `killed`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.creations = self.most_creations = 0
        self.killed = threading.Event()
        self._counting = threading.Lock()

    def _patch(self, request: Request) -> Answered:
        if request.headers["upload-offset"] == f"{3 << 20}" and not self.killed.is_set():
            assert self.killed.wait(PATIENCE)
            raise Unanswered
        return super()._patch(request)

    def _post(self, request: Request) -> Answered:
        with self._counting:
            self.creations += 1
            self.most_creations = max(self.most_creations, self.creations)
        time.sleep(0.01)
        answer = super()._post(request)
        with self._counting:
            self.creations -= 1
        return answer


def on(cluster: Client) -> str:
    return cluster.scheduler.address.replace("tcp", "dask")


def check_stored(server: EmbeddedServer, tree: Path) -> None:
    """Check that the server has each file with its bytes, and no other file."""
    stored = server.root / "personal"
    wanted = {str(path.relative_to(tree.parent)) for path in tree.rglob("*") if path.is_file()}
    assert {str(path.relative_to(stored)) for path in stored.rglob("*") if path.is_file()} == wanted
    assert filecmp.cmpfiles(tree.parent, stored, wanted, shallow=False) == (list(wanted), [], [])


def ends(done: Done) -> int:
    """Return the number of files that ended; `Done.events` checks that each ended once."""
    return sum(len(done.of(kind)) for kind in ("file.completed", "file.skipped"))


def warnings(done: Done) -> list[dict[str, Any]]:
    """Return the warnings, except those about a socket that the server lost while the machine was busy."""
    return [event for event in done.of("warning") if event["code"] != "recovered"]


@pytest.mark.thorough
def test_task_of_a_killed_worker_continues_on_another(cluster: Client, bundled: EmbeddedServer, tree: Path) -> None:
    """The large file is resumed at the offset of the server, which had confirmed some chunks."""
    bundled.faults.add(STALL)
    options = ("--json", "--chunk-size", CHUNK, "--limit-rate", "8M", "-j", "1")
    process = start("import", tree, "--on", on(cluster), "-s", bundled.url, *options, home=tree.parent)
    seen = read_until(process, "file.progress", lambda event: event["confirmed"] >= 2 << 20)
    pids = cluster.run(os.getpid)
    address = next(name for name, keys in cluster.processing().items() if any(str(key).endswith("-1") for key in keys))
    os.kill(pids[address], signal.SIGKILL)
    done = ended(process, seen)
    assert done.code == 0
    assert ends(done) == SMALL + 1
    assert [event["code"] for event in warnings(done)] == ["workers"]
    (first, *later) = [event["offset"] for event in done.of("file.started") if event["path"].endswith("a-large.bin")]
    assert first == 0
    assert max(later) >= 2 << 20
    check_stored(bundled, tree)


@pytest.mark.thorough
def test_import_to_a_tus_endpoint_continues_after_kills_of_a_worker_and_of_the_driver(
    cluster: Client, tree: Path
) -> None:
    """The server knows no keys. A kill leaves at most the upload that was being created, which a warning names.

    Workers may store more files after the last news that reaches a driver before its death. At a server that gives out
    no bytes, the outcome of a file is unknown if all of them had been sent, and news of the answer is missing.
    """
    with Counting() as service:
        line = ("import", tree, "--on", on(cluster), "--tus-endpoint", service.url, "-j", "4", "--chunk-size", CHUNK)
        process = start(*line, "--json", "--limit-rate", "8M", home=tree.parent)
        seen = read_until(process, "file.progress", lambda event: event["confirmed"] >= 2 << 20)
        keys = cluster.processing().items()
        address = next(name for name, tasks in keys if any(str(key).endswith("-1") for key in tasks))
        os.kill(cluster.run(os.getpid)[address], signal.SIGKILL)
        service.killed.set()
        seen += read_until(process, "file.started", lambda event: event["offset"] >= 2 << 20)
        first = [json.loads(line) for line in ended(process, seen, signal.SIGKILL).out.splitlines(keepends=True)[:-1]]
        second = uploader(*line, "--json", home=tree.parent)
        unknown = second.of("file.failed")
        assert {event["code"] for event in unknown} <= {"outcome_unknown"}, unknown
        assert second.code == (4 if unknown else 0)
        assert len(unknown) <= 2 * 4  # one for each job of each worker
        uploads = defaultdict[str, list[Upload]](list)
        for upload in service.uploads.values():
            uploads[upload.metadata["filename"]].append(upload)
        assert len(uploads) == SMALL + 1
        names = {Path(event["path"]).name for event in unknown}
        assert [name for name in names if all(len(one.content) != one.length for one in uploads[name])] == []
        completed = [event["path"] for event in [*first, *second.events] if event["type"] == "file.completed"]
        assert not {event["path"] for event in unknown} & set(completed)
        assert len(completed) == len(set(completed)) <= SMALL + 1  # one may be in the journal, and not in the stream
        assert len(completed) + second.finished["skipped"] + len(unknown) >= SMALL + 1
        unsure = [event for event in first if "created the upload of" in event.get("text", "")]
        assert len(unsure) <= 1
        reported = [Path(event["path"]).name for event in first if event["type"] == "file.completed"]
        assert reported
        assert [
            name for name in reported if len(uploads[name]) > 1 and not any(name in event["text"] for event in unsure)
        ] == []
        if unknown:
            third = uploader(*line, "--resend-unknown", "--json", home=tree.parent)
            assert (third.code, len(third.of("file.completed"))) == (0, len(unknown))
        whole = [bytes(upload.content) for upload in service.uploads.values() if upload.length == BIG]
        assert whole == [(tree / "a-large.bin").read_bytes()], [len(content) for content in whole]
        assert not service.refusals
        assert service.most_creations <= 2  # one for each worker, which has four jobs


@pytest.mark.feature("metrics")
def test_same_command_continues_after_ctrl_c(cluster: Client, bundled: EmbeddedServer, tree: Path) -> None:
    bundled.faults.add(STALL)
    line = ("import", tree, "--on", on(cluster), "-s", bundled.url, "--json", "--chunk-size", CHUNK, "-j", "1")
    process = start(*line, "--limit-rate", "8M", home=tree.parent)
    seen = read_until(process, "file.progress", lambda event: event["confirmed"] >= 2 << 20)
    began = time.monotonic()
    first = ended(process, seen, signal.SIGINT)
    assert first.code == 130
    assert time.monotonic() - began < 2 * SLACK
    bundled.faults.clear()  # the stall may not have been met yet
    second = uploader(*line, "--metrics-file", "m.prom", home=tree.parent)
    assert second.code == 0
    assert len(first.of("file.completed")) + len(second.of("file.completed")) == SMALL + 1
    assert ends(second) == SMALL + 1
    (large,) = [event for event in second.of("file.started") if event["path"].endswith("a-large.bin")]
    assert large["offset"] >= 2 << 20
    sent = sum(event["size"] for event in second.of("file.completed")) - large["offset"]
    # A pack that the first import sent just before its end is found as stored: it is not resent.
    assert BIG - large["offset"] <= metrics(tree.parent / "m.prom")["sent_bytes_total"] <= sent
    check_stored(bundled, tree)


@pytest.mark.feature("metrics")
def test_429_to_one_worker_is_waited_out_and_counted_once(cluster: Client, bundled: EmbeddedServer, tree: Path) -> None:
    """Reports and metrics have the sums over all workers.

    That the other one pauses, too, is tested in `tests/unit/fleet` (test_task_news, test_cluster, test_worker).
    """
    (tree / "a-large.bin").unlink()
    for path in (tree / "below").iterdir():
        path.write_bytes(random.Random(path.name).randbytes(8000))
    bundled.faults.next_answers("POST", PACKS, [None, None, Answer(429, {"Retry-After": "3"})])
    outputs = ("--report", "run.json", "--report", "run.csv", "--metrics-file", "m.prom")
    options = ("--limit-rate", "2M", "--chunk-size", "64K", *outputs)
    done = uploader("import", tree, "--on", on(cluster), "-s", bundled.url, "--json", *options, home=tree.parent)
    assert (done.code, done.finished["completed"]) == (0, SMALL)
    assert [event["code"] for event in warnings(done)] == ["rate_limited"]
    packs = [request for request in bundled.faults.requests if request.path == PACKS]
    assert [request.status for request in packs].count(429) == 1
    assert max(after.time - before.time for before, after in pairwise(packs)) >= 1.0
    report, found = json.loads((tree.parent / "run.json").read_text()), metrics(tree.parent / "m.prom")
    assert report["counts"]["completed"] == found["files_total completed"] == sum(report["timeline"]["files"]) == SMALL
    assert report["bytes"] == found["completed_bytes_total"] == found["sent_bytes_total"] == 8000 * SMALL
    assert report["metrics"]["calls"] == found["requests_total"] == len(bundled.faults.requests)
    assert report["metrics"]["failed_calls"] == found["failed_requests_total"] == 1
    answered = sum(report["latency_histogram"]["counts"])
    assert answered == found["request_duration_seconds_count"] == len(bundled.faults.requests) - len(packs)
    assert (tree.parent / "run.csv").read_text().count("\n") == SMALL + 1
    check_stored(bundled, tree)


@pytest.mark.thorough
def test_outage_is_waited_out_from_the_first_request_of_a_task(
    cluster: Client, bundled: EmbeddedServer, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    bundled.faults.next_answers("GET", "/health", [*[None] * 2, *[Answer(502)] * 6])  # the second check may take three
    done = uploader("import", "a.bin", "--on", on(cluster), "-s", bundled.url, "--json", home=tmp_path)
    assert (done.code, done.finished["completed"]) == (0, 1)
    assert [event["code"] for event in warnings(done)] == ["unreachable"]


def metrics(path: Path) -> dict[str, float]:
    """Return the values of a metrics file, by the names without prefix and the outcome."""
    return {
        " ".join([sample.name.removeprefix("uploader_run_"), sample.labels.get("outcome", "")]).strip(): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }


def test_token_does_not_travel(cluster: Client, tmp_path: Path) -> None:
    """The workers have no token of their own: the run ends with exit code 5."""
    (tmp_path / "a.bin").write_bytes(b"a")
    with running_server(packs=True, auth_token="secret") as server:
        line = ("import", "a.bin", "--on", on(cluster), "-s", server.url, "--json")
        done = uploader(*line, home=tmp_path, UPLOADER_TOKEN="secret")
        assert done.code == 5
        (tmp_path / "token").write_text("secret")
        rarely = {"uploader_cli.features.fleet.driver.TICK": PATIENCE}  # the end of a task wakes the driver
        done = uploader(*line, "--token-file", "token", home=tmp_path, constants=rarely)
        assert done.code == 0
        assert done.finished["seconds"] < PATIENCE


def set_version(version: str) -> None:
    patched.__version__ = version


@pytest.mark.thorough
def test_worker_of_another_version_is_kept_out_and_named(cluster: Client, bundled: EmbeddedServer, tree: Path) -> None:
    there, here = list(cluster.nthreads())
    cluster.run(set_version, "0.0.0", workers=[there])
    try:
        done = uploader("import", tree, "--on", on(cluster), "-s", bundled.url, "--json", home=tree.parent)
        assert (done.code, ends(done)) == (0, SMALL + 1)
        (text,) = [event["text"] for event in warnings(done)]
        name = cluster.scheduler_info()["workers"][there]["name"]
        assert text == f"worker {name} takes no part: it runs uploader 0.0.0, and this machine {__version__}"
        cluster.run(set_version, "0.0.0", workers=[here])
        (tree.parent / "new.bin").write_bytes(b"new")
        done = uploader("import", "new.bin", "--on", on(cluster), "-s", bundled.url, home=tree.parent)
        assert done.code == 2
        assert "takes no part: it runs uploader 0.0.0" in done.err
    finally:
        cluster.run(set_version, __version__)
    check_stored(bundled, tree)


def hide_files(hidden: bool) -> None:
    def gone(path: str) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    patched.status = gone if hidden else status


def test_worker_that_does_not_see_the_files_is_kept_out_and_named(
    cluster: Client, bundled: EmbeddedServer, tree: Path
) -> None:
    there = next(iter(cluster.nthreads()))
    cluster.run(hide_files, True, workers=[there])
    try:
        done = uploader("import", tree, "--on", on(cluster), "-s", bundled.url, "--json", home=tree.parent)
    finally:
        cluster.run(hide_files, False)
    assert (done.code, ends(done)) == (0, SMALL + 1)
    (text,) = [event["text"] for event in warnings(done)]
    name = cluster.scheduler_info()["workers"][there]["name"]
    assert text.startswith(f"worker {name} takes no part: it can't read {tree}")


@pytest.mark.thorough
def test_tasks_of_a_worker_that_hangs_go_to_others(cluster: Client, bundled: EmbeddedServer, tree: Path) -> None:
    bundled.faults.add(STALL)
    options = ("--json", "--chunk-size", CHUNK, "--limit-rate", "8M", "-j", "1", "--task-timeout", "10")
    process = start("import", tree, "--on", on(cluster), "-s", bundled.url, *options, home=tree.parent)
    seen = read_until(process, "file.progress", lambda event: event["confirmed"] >= 2 << 20)
    address = next(name for name, keys in cluster.processing().items() if any(str(key).endswith("-1") for key in keys))
    pid, name = cluster.run(os.getpid)[address], cluster.scheduler_info()["workers"][address]["name"]
    os.kill(pid, signal.SIGSTOP)
    try:
        done = ended(process, seen)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (done.code, ends(done)) == (0, SMALL + 1)
    (text,) = [event["text"] for event in warnings(done) if event["code"] == "workers"]
    assert text.startswith(f"worker {name} made no progress for 10 s: its task with ")
    check_stored(bundled, tree)


def hang(hangs: bool) -> None:
    """Make tasks of this worker process hang until they are stopped."""
    sends = patched.Scheduler.send

    def wait(sender: Any, _supply: object) -> None:
        while True:
            sender.context.stop.wait(0.1)
            sender.context.stop.check()

    if hangs:
        patched.Scheduler.kept, patched.Scheduler.send = sends, wait
    else:
        patched.Scheduler.send = patched.Scheduler.kept


@pytest.mark.thorough
def test_files_with_which_each_worker_hangs_fail(cluster: Client, bundled: EmbeddedServer, tmp_path: Path) -> None:
    """A worker that passes its check again would get them again, for ever."""
    (tmp_path / "a.bin").write_bytes(b"a")
    cluster.run(hang, True)
    try:
        options = ("--task-timeout", "2", "--wait-for-server", "30", "--json")
        done = uploader("import", "a.bin", "--on", on(cluster), "-s", bundled.url, *options, home=tmp_path)
    finally:
        cluster.run(hang, False)
    (failed,) = done.of("file.failed")
    assert (done.code, failed["code"]) == (3, "network")
    assert failed["message"].startswith("the workers that sent it died or made no progress: ")


def test_files_of_an_earlier_run_are_compared_with_verify(
    cluster: Client, bundled: EmbeddedServer, tmp_path: Path
) -> None:
    for name in ("changed", "equal", "gone"):
        (tmp_path / name).write_bytes(b"one")
    line = ("import", "changed", "equal", "gone", "--on", on(cluster), "-s", bundled.url, "--no-pack", "--json")
    assert uploader(*line, home=tmp_path).code == 0
    (bundled.root / "personal" / "changed").write_bytes(b"six")
    (bundled.root / "personal" / "gone").unlink()
    done = uploader(*line, "--verify", home=tmp_path)
    assert [(event["path"], event["code"]) for event in done.of("file.failed")] == [("changed", "integrity")]
    assert [(event["path"], event["reason"]) for event in done.of("file.skipped")] == [("equal", "present")]
    assert [event["path"] for event in done.of("file.completed")] == ["gone"]
    assert (warnings(done), done.code) == ([], 7)


def test_import_begins_while_its_server_says_nothing(tmp_path: Path) -> None:
    """A view shows what it waits for. The number of local workers is known."""
    (tmp_path / "a").touch()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = start("import", "a", "--on", "local:2", "-s", url, "--json", home=tmp_path)
        done = ended(process, read_until(process, "run.started"), signal.SIGINT)
    assert (done.code, done.events[0]["jobs"], done.finished["cancelled"]) == (130, 2, 1)


@pytest.mark.thorough
@pytest.mark.parametrize("times", [1, 2])
def test_interrupt_ends_the_wait_for_a_scheduler_that_says_nothing(
    times: int, bundled: EmbeddedServer, mute: socket.socket, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    place = f"dask://127.0.0.1:{mute.getsockname()[1]}"
    process = start("import", "a.bin", "--on", place, "-s", bundled.url, "--json", home=tmp_path)
    connection, _ = mute.accept()
    began = time.monotonic()
    for _ in range(times - 1):
        process.send_signal(signal.SIGINT)
    assert ended(process, "", signal.SIGINT).code == 130
    assert time.monotonic() - began < 2 * SLACK
    connection.close()


@pytest.mark.feature("urls")
@pytest.mark.thorough
def test_import_on_processes_of_this_machine(
    bundled: EmbeddedServer, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Client.scheduler_info` may miss workers: a timer of the client changes what it returns.

    Dask's own directory in TMPDIR may be another user's, who could put code there: nothing is written to it.
    """
    from distributed import Client

    monkeypatch.setattr(Client, "scheduler_info", lambda *_arguments, **_options: {"services": {}, "workers": {}})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp" / "dask-scratch-space").mkdir(parents=True)
    result = upload(f"file://{tree}", server=bundled.url, on="local:1", wait_for_server=0)
    assert (result.ok, len(result.receipts)) == (True, SMALL + 1)
    check_stored(bundled, tree)
    assert list((tmp_path / "tmp").rglob("*")) == [tmp_path / "tmp" / "dask-scratch-space"]
    assert not [entry for entry in sys.path if entry.startswith(str(tmp_path / "tmp"))]


@pytest.mark.parametrize(("mode", "above"), [(0o777, 0o755), (0o700, 0o777)])
def test_directory_for_dask_that_others_may_replace_is_refused(
    mode: int, above: int, bundled: EmbeddedServer, tmp_path: Path
) -> None:
    place = tmp_path / "shared" / "tmp"
    place.mkdir(parents=True)
    place.chmod(mode)
    place.parent.chmod(above)
    (tmp_path / "a.bin").write_bytes(b"a")
    words = ("import", "a.bin", "-s", bundled.url, "--on", "local:1")
    done = uploader(*words, home=tmp_path, TMPDIR=str(place))
    assert (done.code, done.out) == (2, "")
    assert "is not private: other users may write there (mode 0777)" in done.err
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ((), 2, "give --on local:4"),
        (("--on", "local:1", "-"), 2, "an import can't send standard input"),
        (("--on", "somewhere"), 2, "--on: must be local:N or dask://HOST:PORT, not 'somewhere'"),
        (("--on", "dask://127.0.0.1"), 2, "--on: must be local:N or dask://HOST:PORT"),
        (("--on", "dask+tls://127.0.0.1:{port}"), 2, "set distributed.comm.tls in Dask's configuration"),
        (("--on", "dask://127.0.0.1:{port}"), 2, "that is a web server, and no Dask scheduler"),
        (("--on", "local:1", "--protocol", "batch"), 2, "--protocol batch and --on exclude each other"),
        (("--on", "dask://localhost:1", "--header", "K: V"), 2, "--header is not sent to the workers"),
        (("--on", "dask://127.0.0.1:{mute}"), 3, "it did not answer within 3 s (--cluster-timeout)"),
        (("--on", "dask://127.0.0.1:1"), 3, "no Dask scheduler answers at dask://127.0.0.1:1"),
    ],
)
def test_place_that_can_not_be_used_is_an_error(
    options: tuple[str, ...], code: int, words: str, bundled: EmbeddedServer, mute: socket.socket, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    soon = {"uploader_cli.features.fleet.cluster.SPEAKS_WITHIN": 0.1}
    ports = {"{port}": bundled.url.rpartition(":")[2], "{mute}": str(mute.getsockname()[1])}
    options = tuple(reduce(lambda text, port: text.replace(*port), ports.items(), word) for word in options)
    line = ("import", "a.bin", "-s", bundled.url, "--cluster-timeout", "3", *options)
    done = uploader(*line, home=tmp_path, constants=soon)
    assert done.code == code
    assert words in done.err


def test_server_without_lookup_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a")
    with running_server(flavour="reference") as server:
        done = uploader("import", "a.mp4", "-s", server.url, "--on", "local:1", home=tmp_path)
    assert done.code == 2
    assert "can't take imports" in done.err


@pytest.mark.parametrize("fault", ["types:health#1", "html:health#1:200", "truncated:health#1", "empty:health#1"])
def test_one_answer_to_health_that_no_upload_server_gives_is_asked_for_again(
    fault: str, bundled: EmbeddedServer, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    bundled.faults.add(fault)
    done = uploader("import", "a.bin", "-s", bundled.url, "--on", "local:1", "--json", home=tmp_path)
    assert (done.code, done.finished["completed"]) == (0, 1), done.err


@pytest.mark.parametrize("fault", ["status:any:204", "html:any:200"])
def test_server_that_never_answers_health_as_an_upload_server_does_exits_6(
    fault: str, bundled: EmbeddedServer, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    bundled.faults.add(fault)
    done = uploader("import", "a.bin", "-s", bundled.url, "--on", "local:1", home=tmp_path)
    assert done.code == 6, done.err
    assert "not as an upload server does" in done.err


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("uploader_cli.extras.find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="not installed") as raised:
        upload(tmp_path, server="localhost", on="local:1")
    assert raised.value.hint.startswith("pip install '")
    assert "'distributed>=" in raised.value.hint
    assert "uploader" not in raised.value.hint, "it is not on PyPI"
