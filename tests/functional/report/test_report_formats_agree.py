"""One run, seen through everything that is told of it: the numbers are the same."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from command import check_stream
from junit_rules import check_junit
from serving import running_server

from server_stub.faults import Answer
from uploader_cli.core import events as ev
from uploader_cli.exit_status import Exit
from uploader_cli.result import Receipts, Result
from uploader_cli.run.reports import of_settings, settled
from uploader_cli.run.upload import Interrupts, begin, execute, select
from uploader_cli.run.views import observers
from uploader_cli.settings import resolve
from uploader_cli.transfer.journal import Journal

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_cli.core.state import ProgressState

OUTCOMES = ("completed", "failed", "skipped", "cancelled")
SENT = {"a.mp4": "completed", "bad.mp4": "failed", "c.mp4": "completed"}
LATER = ["d.mp4", "line\nbreak|`<b>`.mp4", "odd\udcff\x1b.mp4", "z-空.mp4"]
FOUND = {**SENT, **dict.fromkeys(LATER, "cancelled"), "link.mp4": "skipped", "notes.txt": "skipped", "x.txt": "skipped"}
REPORTS = ("r.json", "r.csv", "r.xml", "r.md")


class CtrlC:
    """Interrupts the run once a file failed: the rest is cancelled."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def handle(self, event: ev.Event, _state: ProgressState, _now: float) -> None:
        if isinstance(event, ev.FileFailed):
            self._interrupts.raise_(Exit.SIGINT)

    def refresh(self, _state: ProgressState, _now: float) -> None: ...

    def close(self, _state: ProgressState, _now: float) -> None: ...


class Seen:
    """What one run left: the library's result, both streams, and its files."""

    def __init__(self, result: Result, code: int, out: str, err: str, place: Path) -> None:
        self.result, self.code, self.out, self.err, self.place = result, code, out, err, place

    def text(self, name: str) -> str:
        return (self.place / name).read_text(encoding="utf-8")

    def json(self, name: str = "r.json") -> dict[str, Any]:
        return json.loads(self.text(name))


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Seen:
    """Three files are sent, one of which fails; an interrupt cancels four, which wait; three are left out."""
    files = tmp_path / "files"
    files.mkdir()
    for name in FOUND:
        if name != "link.mp4":
            (files / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    (files / "link.mp4").symlink_to("a.mp4")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    (tmp_path / "summary.md").write_text("# what another step said\n")
    with running_server(flavour="reference", processing_seconds=0.01, fail_files=("bad*",)) as server:
        server.faults.next_answers("POST", "/api/upload/session", [None, Answer(429, {"Retry-After": "600"})])
        flags = {"server": server.url, "json": True, "progress": "plain", "failed_to": "again.jsonl"}
        settings = resolve({**flags, "report": list(REPORTS)}, env={}, cwd=tmp_path, user_config=None)
        found, interrupts = select(settings, ["files"]), Interrupts()
        with Journal(settings.state_path) as journal:
            run = begin(settings, ["files"], journal, "run-1")
            kept = of_settings(settings, "run-1").recorder(settings, "run-1", run.resumed_from)
            receipts = Receipts()
            views = [*kept, *observers(settings, "run-1"), receipts, CtrlC(interrupts)]
            outcome = execute(settings, found, views, interrupts, journal=journal, run=run)
    result = Result(outcome, tuple(receipts.kept))
    out, err = capfd.readouterr()
    return Seen(result, settled(result.exit_code, [recorder.said for recorder in kept]), out, err, tmp_path)


def outcomes_of_the_stream(seen: Seen) -> dict[str, int]:
    events = [json.loads(line) for line in seen.out.splitlines()]
    check_stream(events)
    kinds = Counter(event["type"] for event in events)
    last = events[-1]
    assert {name: kinds[f"file.{name}"] for name in OUTCOMES[:3]} == {name: last[name] for name in OUTCOMES[:3]}
    return {name: last[name] for name in OUTCOMES}


def outcomes_of_the_summary(seen: Seen) -> dict[str, int]:
    done, total = re.search(r"interrupted: (\d+) of (\d+) files confirmed", seen.err).groups()  # type: ignore[union-attr]
    failed = re.search(r"✗ (\d+) failed: ", seen.err)[1]  # type: ignore[index]
    skipped = re.search(r"- (\d+) skipped: ", seen.err)[1]  # type: ignore[index]
    return dict(
        zip(OUTCOMES, (int(done), int(failed), int(skipped), int(total) - int(done) - int(failed)), strict=True)
    )


def outcomes_of_the_junit(seen: Seen) -> dict[str, int]:
    root = check_junit(seen.text("r.xml"))
    tests, failed, skipped, cancelled = (
        sum(int(suite.get(name)) for suite in root) for name in ("tests", "failures", "skipped", "errors")
    )
    return dict(zip(OUTCOMES, (tests - failed - skipped - cancelled, failed, skipped, cancelled), strict=True))


def outcomes_of_the_markdown(seen: Seen, name: str = "r.md") -> dict[str, int]:
    return {
        word: int(count) for word, count in re.findall(r"^\| (\w+)[^|]* \| (\d+) \|$", seen.text(name), re.MULTILINE)
    }


def test_every_output_of_one_run_has_the_same_numbers(seen: Seen) -> None:
    """Plain summary, event stream, JSON, CSV, JUnit, Markdown, step summary, the library's result, and the manifest."""
    expected = {name: list(FOUND.values()).count(name) for name in OUTCOMES}
    assert all(expected.values()), "each outcome is there"
    rows = list(csv.DictReader(seen.text("r.csv").splitlines(keepends=True)))
    told = {
        "stream": outcomes_of_the_stream(seen),
        "summary": outcomes_of_the_summary(seen),
        "result": Counter(str(receipt.status) for receipt in seen.result.receipts),
        "result's numbers": {name: getattr(seen.result.outcome, name) for name in OUTCOMES},
        "json": {name: seen.json()["counts"][name] for name in OUTCOMES},
        "json's rows": Counter(row["outcome"] for row in seen.json()["files"]),
        "csv": Counter(row["outcome"] for row in rows),
        "junit": outcomes_of_the_junit(seen),
        "markdown": outcomes_of_the_markdown(seen),
        "step summary": outcomes_of_the_markdown(seen, "summary.md"),
    }
    assert told == dict.fromkeys(told, expected)
    assert seen.code == seen.result.exit_code == seen.json()["exit_code"] == 130
    again = seen.text("again.jsonl").splitlines()
    assert len(again) == expected["failed"] + expected["cancelled"]
    sizes = sum(len(name) for name, outcome in FOUND.items() if outcome == "completed")
    assert seen.json()["bytes"] == seen.result.outcome.bytes == sizes


def test_each_file_is_there_once_under_its_own_name(seen: Seen) -> None:
    expected = {os.fsencode(f"files/{name}"): outcome for name, outcome in FOUND.items()}
    document = seen.json()
    paths = [_raw(row["path"], row.get("path_b64")) for row in document["files"]]
    assert dict(zip(paths, (row["outcome"] for row in document["files"]), strict=True)) == expected
    assert len(paths) == document["counts"]["selected"] == len(FOUND)
    rows = list(csv.DictReader(seen.text("r.csv").splitlines(keepends=True)))
    assert [_raw(row["path"], row["path_b64"]) for row in rows] == paths
    cases = [case.get("name") for case in check_junit(seen.text("r.xml")).iter("testcase")]
    shown = [row["path"].replace("\x1b", "\\x1b") for row in document["files"]]
    assert sorted(cases) == sorted(shown), "all but what XML can't carry"
    again = [json.loads(line) for line in seen.text("again.jsonl").splitlines()]
    left = {os.fsencode(f"files/{name}") for name in [*LATER, "bad.mp4"]}
    assert {_raw(row["path"], row.get("path_b64")) for row in again} == left


def test_the_suites_are_the_sessions(seen: Seen) -> None:
    root = check_junit(seen.text("r.xml"))
    sessions = {row["session"] for row in seen.json()["files"] if "session" in row}
    names = [suite.get("name") for suite in root]
    assert len(sessions) == 1
    assert sorted(names) == sorted([*sessions, "without a session"])
    (suite,) = (suite for suite in root if suite.get("name") in sessions)
    assert {case.get("name"): [verdict.tag for verdict in case] for case in suite.iter("testcase")} == {
        "files/a.mp4": [],
        "files/bad.mp4": ["failure"],
        "files/c.mp4": [],
    }


def test_names_are_text_in_markdown(seen: Seen) -> None:
    """No name makes a cell, a code span or HTML; the summary of another step stays."""
    line = next(line for line in seen.text("r.md").splitlines() if "bad.mp4" in line)
    assert line.count(" | ") == 2
    assert seen.text("summary.md").startswith("# what another step said\n")
    assert seen.text("summary.md").endswith(seen.text("r.md"))


def _raw(path: str, encoded: str | None) -> bytes:
    return base64.b64decode(encoded) if encoded else path.encode()
