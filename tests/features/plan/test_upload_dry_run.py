"""`uploader upload --dry-run`: the plan matches the upload."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from command import uploader
from proxy import Proxy
from serving import running_server, runs_of
from tus_services import Plain

from uploader_cli import Settings, upload
from uploader_cli.core import events as ev
from uploader_cli.features.plan.dry_run import Plan
from uploader_cli.features.plan.events import LimitsOrigin, PlanFinished, PlanStarted
from uploader_cli.render.event_schema import schema_text
from uploader_cli.run.run_journal import history_of
from uploader_cli.selection.selecting import select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Files = Callable[..., Path]

KIB = 1 << 10
SET = {f"{number}.mp4": 1 + number for number in range(7)} | {"x.avi": 100 * KIB, "sub/y.avi": 64 * KIB, "z.txt": 3}
EMPTY = {"sub/empty.mp4": 0}
REFERENCE: dict[str, Any] = {"flavour": "reference", "processing_seconds": 0.01}


def planned(settings: Settings, *paths: Path) -> tuple[PlanFinished, list[ev.Event]]:
    events: list[ev.Event] = []
    return Plan(settings, events.append).run(select(settings, [str(path) for path in paths])), events


@contextmanager
def server_for(kind: str, tmp_path: Path) -> Iterator[tuple[Settings, Callable[[], list[str]]]]:
    """A server, how to use it, and the calls that it got: polls and the socket's are not planned."""
    state: dict[str, Any] = {"state_dir": tmp_path / "journal", "chunk_size": 16 * KIB}
    if kind == "plain tus":
        with Plain() as plain, Proxy(plain.url) as relay:
            yield (
                Settings(tus_endpoint=f"{relay.url}/files/", **state),
                lambda: [f"{r.method} {r.target}" for r in relay.requests],
            )
        return
    config = REFERENCE if kind == "reference" else {"types": ("mp4", "avi"), "packs": "pack" in kind or "look" in kind}
    with running_server(**config) as server:

        def calls() -> list[str]:
            seen = [f"{request.method} {request.path}" for request in server.faults.requests]
            return [call for call in seen if "/socket.io/" not in call and "/progress/" not in call]

        protocol: Any = "batch" if kind == "batch" else "auto"
        asked: dict[str, Any] = {"verify": "verified" in kind, "skip_existing": "look" in kind}
        yield Settings(server=server.url, protocol=protocol, **asked, **state), calls


@pytest.mark.parametrize(
    "kind",
    [
        *("batch", "plain tus", "packs", "packs verified", "lookups"),
        *(pytest.param(each, marks=pytest.mark.thorough) for each in ("reference", "tus", "verified")),
    ],
)
def test_dry_run_plan_matches_the_upload(kind: str, make_files: Files, tmp_path: Path) -> None:
    """Sessions, bytes and exclusions match the upload, once the server has been used."""
    with server_for(kind, tmp_path) as (settings, calls):
        assert upload(make_files("before", **{"first.mp4": 1}), settings).ok
        files = make_files(**SET, **EMPTY)
        before = calls()
        plan, events = planned(settings, files)
        assert calls() == before
        result = upload(files, settings)
        sessions = [call for call in calls()[len(before) :] if call == "POST /api/upload/session"]
    outcome = result.outcome
    assert result.exit_code == plan.exit_code == 0
    assert (plan.files, plan.bytes, plan.skipped) == (outcome.completed, outcome.bytes, outcome.skipped)
    assert plan.sessions == len(sessions)
    started = events[0]
    assert isinstance(started, PlanStarted)
    assert started.limits is LimitsOrigin.SEEN
    assert plan.sessions == {"reference": 4, "plain tus": 0}.get(kind, 1)


@pytest.mark.thorough
@pytest.mark.parametrize("protocol", ["batch", "auto"])
def test_dry_run_omits_what_the_interrupted_run_stored(protocol: Any, make_files: Files, tmp_path: Path) -> None:
    """The same command would resume the run: sessions and bytes exclude what was sent."""
    files = make_files(**SET)
    flavour = REFERENCE if protocol == "batch" else {"types": ("mp4", "avi")}
    with running_server(**flavour) as server:
        settings = Settings(server=server.url, protocol=protocol, retries=0, jobs=1, state_dir=tmp_path / "journal")
        failing = "/api/upload/batch" if protocol == "batch" else "/api/upload/files/"
        server.faults.next_answers("POST", failing, [None, 503])
        assert upload(files, settings).exit_code == 3
        before = runs_of(server)
        with history_of(settings, [str(files)]) as history:
            events: list[ev.Event] = []
            plan = Plan(settings, events.append, history).run(select(settings, [str(files)]))
        assert runs_of(server) == before
        result = upload(files, settings)
    assert result.exit_code == 0
    assert 0 < plan.files == result.outcome.completed < 9
    assert (plan.bytes, plan.skipped) == (result.outcome.bytes, result.outcome.skipped)
    reasons = [event.reason for event in events if isinstance(event, ev.FileSkipped)]
    assert reasons.count(ev.SkipReason.RECEIPT) == 9 - plan.files


def test_a_dry_run_sends_no_file(make_files: Files, tmp_path: Path) -> None:
    """It asks once at first, and not after a run. The reference backend does not tell its limits."""
    files = make_files(**SET)
    with running_server(**REFERENCE) as server:
        assumed = uploader("upload", files, "-s", server.url, "--dry-run", home=tmp_path)
        assert [entry.path for entry in server.faults.requests] == ["/health"]
        assert uploader("upload", files, "-s", server.url, home=tmp_path).code == 0
        before = runs_of(server)
        seen = uploader("upload", files, "-s", server.url, "--dry-run", home=tmp_path)
        assert runs_of(server) == before
    assert "assumed (the server has reported none)" in assumed.out
    assert "as last reported" in seen.out
    assert assumed.out.splitlines()[-1].startswith("9 files, ")
    assert assumed.out.splitlines()[-1].endswith(" in 4 sessions; no file was sent")
    assert seen.out.splitlines()[-1] == assumed.out.splitlines()[-1]
    assert assumed.err == seen.err == ""


def test_a_dry_run_asks_a_server_for_its_limits(make_files: Files, tmp_path: Path) -> None:
    """One that was never used: files of any type are planned, as they would be sent."""
    files = make_files(**{"a.txt": 1, "b.bin": 2, "empty": 0})
    with running_server() as server:
        plan = uploader("upload", files, "-s", server.url, "-n", "--json", home=tmp_path)
        assert [(entry.method, entry.path) for entry in server.faults.requests] == [("GET", "/health")]
    lines = [json.loads(line) for line in plan.out.splitlines()]
    assert (lines[0]["limits"], lines[0]["protocol"]) == ("seen", "tus")
    assert (plan.code, lines[-1]["files"], lines[-1]["skipped"]) == (0, 3, 0)


@pytest.mark.parametrize("options", [(), ("--protocol", "tus")])
def test_a_dry_run_without_an_answer_has_unknown_limits(
    options: tuple[str, ...], make_files: Files, tmp_path: Path
) -> None:
    files = make_files(**{"a.txt": 1, "empty": 0})
    plan = uploader("upload", files, "-s", "http://127.0.0.1:9", "-n", *options, home=tmp_path)
    assert plan.code == 0
    assert plan.out.splitlines()[0].endswith("limits unknown")
    assert plan.out.splitlines()[-1].startswith("2 files, 1 B in 1 session;")
    assumed = uploader("upload", files, "-s", "http://127.0.0.1:9", "-n", "--protocol", "batch", home=tmp_path)
    assert "limits assumed" in assumed.out
    assert "2 skipped (type)" in assumed.out


@pytest.mark.parametrize("verbose", [False, True])
def test_a_dry_run_shows_destinations(verbose: bool, make_files: Files, tmp_path: Path) -> None:
    files = make_files(**{"sub/a.mp4": 1})
    options = ("-n", "-c", "scenic", *(["-v"] if verbose else []))
    plan = uploader("upload", files / "sub", *options, home=tmp_path).out
    assert "scenic: sub/a.mp4" in plan
    assert (f"{files}/sub/a.mp4 → scenic/sub/a.mp4" in plan) is verbose


def test_dry_run_json_has_one_line_per_entry(make_files: Files, tmp_path: Path) -> None:
    """Each fits the schema; what would fail is a failure with its code, and decides the exit code."""
    files = make_files(**SET)
    options = ("--dry-run", "--json", "--protocol", "batch")
    done = uploader("upload", files, files / "z.txt", *options, home=tmp_path)
    assert done.code == 0  # named, and met in the directory before
    named = uploader("upload", files / "z.txt", files, *options, home=tmp_path)
    assert named.code == 4
    lines = [json.loads(line) for line in named.out.splitlines()]
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))
    for number, line in enumerate(lines, 1):
        validator.validate(line)
        assert line["seq"] == number
    assert lines[0]["limits"] == "assumed"
    assert (lines[0]["type"], lines[-1]["type"]) == ("plan.started", "plan.finished")
    sessions = [line for line in lines if line["type"] == "plan.session"]
    assert [line["files"] for line in sessions] == [3, 3, 1, 2]
    sent = [line for line in lines if line["type"] == "plan.file"]
    assert [line["session_number"] for line in sent] == [1, 1, 1, 2, 2, 2, 3, 4, 4]
    assert sent[-1]["name"] == "files/x.avi"
    (failed,) = [line for line in lines if line["type"] == "file.failed"]
    assert (failed["code"], failed["retryable"]) == ("refused_type", False)
    (skipped,) = [line for line in lines if line["type"] == "file.skipped"]
    assert skipped["reason"] == "duplicate"
    last = lines[-1]
    assert (last["files"], last["sessions"], last["failed"], last["exit_code"]) == (9, 4, 1, 4)
    assert last["bytes"] == sum(line["size"] for line in sent) == sum(line["bytes"] for line in sessions)


def test_dry_run_refuses_options_that_the_server_lacks(make_files: Files, tmp_path: Path) -> None:
    """As in the run itself, exit 2."""
    files = make_files(**{"a.mp4": 1})
    with running_server(**REFERENCE) as server:
        assert uploader("upload", files, "-s", server.url, home=tmp_path).code == 0
        done = uploader("upload", files, "-s", server.url, "--protocol", "tus", "--dry-run", home=tmp_path)
    assert done.code == 2
    assert "offers no resumable uploads" in done.err


def test_plan_of_an_empty_list_is_exit_0(tmp_path: Path) -> None:
    """What `--failed-to` writes after a good run."""
    (tmp_path / "again.jsonl").touch()
    assert uploader("upload", "--from-file", "again.jsonl", "--dry-run", home=tmp_path).code == 0


def test_plan_skips_files_with_a_receipt(make_files: Files, tmp_path: Path) -> None:
    make_files(**{"a.mp4": b"one", "b.mp4": b"two"})
    with running_server(packs=True) as server:
        command = ("upload", "files", "-s", server.url)
        assert uploader(*command, home=tmp_path).code == 0
        planned = uploader(*command, "-n", "--json", home=tmp_path)
    assert json.loads(planned.out.splitlines()[-1])["skipped"] == 2
