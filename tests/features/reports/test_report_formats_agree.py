"""All outputs of one run have the same numbers."""

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

from uploader_cli.core import events as ev
from uploader_cli.exit_status import Exit
from uploader_cli.report.run_files import settled
from uploader_cli.result import Receipts, Result
from uploader_cli.run.interrupts import Interrupts
from uploader_cli.run.run_journal import begin
from uploader_cli.run.upload import Upload
from uploader_cli.run.views import observers
from uploader_cli.settings import resolve
from uploader_cli.transfer.journal.journal import Journal
from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from uploader_cli.core.state import ProgressState

OUTCOMES = ("completed", "failed", "skipped", "cancelled")
SENT = ["a.mp4", "bad.mp4", "c.mp4"]
LOST = ["e.mp4", "f.mp4", "g.mp4"]
LATER = ["h.mp4", "line\nbreak|`<b>`.mp4", "odd\udcff\x1b.mp4", "z-空.mp4"]
LISTED = ["other.mp4", "x.txt", SENT[0], *SENT, *LOST, *LATER, LATER[0]]
"""The second of two equal lines is skipped."""
FOUND = [
    ("other.mp4", "failed", "mismatch"),
    ("x.txt", "failed", "refused_type"),
    ("a.mp4", "completed", ""),
    ("a.mp4", "skipped", "duplicate"),
    ("bad.mp4", "failed", "server_failed"),
    ("c.mp4", "completed", ""),
    *((name, "failed", "outcome_unknown") for name in LOST),
    *((name, "cancelled", "") for name in LATER),
    (LATER[0], "skipped", "duplicate"),
]
"""Name, outcome, and why."""
REPORTS = ("r.json", "r.csv", "r.xml", "r.md")


class CtrlC:
    """Interrupts the run once a file has an unknown outcome: the rest is cancelled."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def handle(self, event: ev.Event, _state: ProgressState, _now: float) -> None:
        if isinstance(event, ev.FileFailed) and event.code is ev.FailureCode.OUTCOME_UNKNOWN:
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
    """Two files are never sent; of six that are, one fails, and the answer for three is lost; an interrupt cancels
    four, which wait; two lines of the list say nothing new.
    """
    files = tmp_path / "files"
    files.mkdir()
    lines = []
    for name in LISTED:
        raw = os.fsencode(f"files/{name}")
        (tmp_path / os.fsdecode(raw)).write_bytes(os.fsencode(name))
        lines.append({"path": raw.decode("utf-8", "replace"), "path_b64": base64.b64encode(raw).decode()})
    lines[0]["sha256"] = "0" * 64
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("uploader_cli.transfer.budget.POLL_INTERVAL", 0.02)  # five lookups make the outcome unknown
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    (tmp_path / "summary.md").write_text("# what another step said\n")
    with running_server(flavour="reference", processing_seconds=0.01, rate_limit=0, fail_files=("bad*",)) as server:
        server.faults.next_answers("POST", "/api/upload/session", [None, None, Answer(429, {"Retry-After": "600"})])
        server.faults.next_answers("POST", "/api/upload/batch", [None, Answer(when="after_body", close=True)])
        flags = {"server": server.url, "json": True, "progress": "plain", "failed_to": "again.jsonl"}
        flags["from_file"] = "list.jsonl"
        settings = resolve({**flags, "jobs": "1", "report": list(REPORTS)}, env={}, cwd=tmp_path, user_config=None)
        sending, interrupts, receipts = Upload(settings, []), Interrupts(), Receipts()
        with Journal(settings.state_path) as journal:
            run = begin(settings, [], journal)
            views: list[Any] = [*observers(settings, run.id), receipts, CtrlC(interrupts)]
            outcome, notices = sending.send(run, views, interrupts)
    result = Result(outcome, tuple(receipts.kept))
    out, err = capfd.readouterr()
    return Seen(result, settled(result.exit_code, notices), out, err, tmp_path)


def outcomes_of_the_stream(seen: Seen) -> dict[str, int]:
    events = [json.loads(line) for line in seen.out.splitlines()]
    check_stream(events)
    kinds = Counter(event["type"] for event in events)
    last = events[-1]
    assert {name: kinds[f"file.{name}"] for name in OUTCOMES[:3]} == {name: last[name] for name in OUTCOMES[:3]}
    return {name: last[name] for name in OUTCOMES}


def outcomes_of_the_summary(seen: Seen) -> dict[str, int]:
    done, total = re.search(r"stopped: (\d+) of (\d+) files stored", seen.err).groups()  # type: ignore[union-attr]
    failed = sum(map(int, re.findall(r"✗ (\d+) failed: ", seen.err)))
    skipped = re.search(r"- (\d+) skipped: ", seen.err)[1]  # type: ignore[index]
    return dict(
        zip(OUTCOMES, (int(done), int(failed), int(skipped), int(total) - int(done) - int(failed)), strict=True)
    )


def outcomes_of_the_log(seen: Seen) -> dict[str, int]:
    """The lines printed during the run; only the summary has the cancelled files."""
    signs = zip(OUTCOMES, "✓✗-", strict=False)
    return {name: len(re.findall(rf"^{sign} files/", seen.err, re.MULTILINE)) for name, sign in signs}


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
    """Plain lines and summary, event stream, JSON, CSV, JUnit, Markdown, library, and the new list."""
    expected = {name: [outcome for _, outcome, _ in FOUND].count(name) for name in OUTCOMES}
    assert all(expected.values()), "each outcome is there"
    told = {
        "stream": outcomes_of_the_stream(seen),
        "summary": outcomes_of_the_summary(seen),
        "result": Counter(str(receipt.status) for receipt in seen.result.receipts),
        "result's numbers": {name: getattr(seen.result.outcome, name) for name in OUTCOMES},
        "json": {name: seen.json()["counts"][name] for name in OUTCOMES},
        "json's rows": Counter(row["outcome"] for row in seen.json()["files"]),
        "csv": Counter(row["outcome"] for row in _csv(seen)),
        "junit": outcomes_of_the_junit(seen),
        "markdown": outcomes_of_the_markdown(seen),
    }
    assert told == dict.fromkeys(told, expected)
    assert outcomes_of_the_log(seen) == {name: expected[name] for name in OUTCOMES[:3]}
    assert seen.code == seen.result.exit_code == seen.json()["exit_code"] == 130
    again = seen.text("again.jsonl").splitlines()
    assert len(again) == expected["failed"] + expected["cancelled"]
    rows = {row["file"]: row["size"] or 0 for row in seen.json()["files"]}
    assert {receipt.file: receipt.size for receipt in seen.result.receipts} == rows
    sizes = sum(len(name) for name, outcome, _ in FOUND if outcome == "completed")
    assert seen.json()["bytes"] == seen.result.outcome.bytes == sizes


def test_each_output_lists_each_file_once(seen: Seen) -> None:
    document = seen.json()
    paths = [_raw(row["path"], row.get("path_b64")) for row in document["files"]]
    assert len(paths) == document["counts"]["selected"] == len(FOUND)
    assert [_raw(row["path"], row["path_b64"]) for row in _csv(seen)] == paths
    cases = [case.get("name") for case in check_junit(seen.text("r.xml")).iter("testcase")]
    shown = [row["path"].replace("\x1b", "\\x1b") for row in document["files"]]
    assert sorted(cases) == sorted(shown), "all but what XML can't carry"
    again = [json.loads(line) for line in seen.text("again.jsonl").splitlines()]
    left = sorted(os.fsencode(f"files/{name}") for name, outcome, _ in FOUND if outcome in ("failed", "cancelled"))
    assert sorted(_raw(row["path"], row.get("path_b64")) for row in again) == left


def test_failure_reasons_are_the_same_in_every_output(seen: Seen) -> None:
    """Another digest than listed, a refused type, a server failure, a lost answer, and a repeated line."""
    expected = sorted((os.fsencode(f"files/{name}"), why) for name, _, why in FOUND)
    counts = Counter(why for _, why in expected if why)
    assert _whys(seen.json()["files"]) == _whys(_csv(seen)) == expected
    events = [json.loads(line) for line in seen.out.splitlines()]
    ends = [event for event in events if event["type"] in ("file.failed", "file.skipped")]
    assert _whys(ends) == [(path, why) for path, why in expected if why]
    assert (
        Counter(str(receipt.code or receipt.message) for receipt in seen.result.receipts if receipt.message) == counts
    )
    root = check_junit(seen.text("r.xml"))
    told = [case.get("type") for case in root.iter("failure")] + [case.get("message") for case in root.iter("skipped")]
    assert Counter(told) == counts
    assert f"| skipped ({counts.pop('duplicate')} duplicate) |" in seen.text("r.md")
    for code, count in counts.items():
        assert seen.text("r.md").replace("\\", "").count(f"| {code}: ") == count
        assert f"✗ {count} failed: {code.replace('_', ' ')}" in seen.err


def test_junit_suites_are_the_sessions(seen: Seen) -> None:
    root = check_junit(seen.text("r.xml"))
    sessions = {row["session"] for row in seen.json()["files"] if "session" in row}
    names = [suite.get("name") for suite in root]
    assert len(sessions) == 2
    assert sorted(names) == sorted([*sessions, "without a session"])
    cases = [
        {case.get("name"): [verdict.tag for verdict in case] for case in suite.iter("testcase")}
        for suite in root
        if suite.get("name") in sessions
    ]
    assert {"files/a.mp4": [], "files/bad.mp4": ["failure"], "files/c.mp4": []} in cases
    assert {f"files/{name}": ["failure"] for name in LOST} in cases


def test_markdown_escapes_names(seen: Seen) -> None:
    """No name makes a cell, a code span or HTML."""
    line = next(line for line in seen.text("r.md").splitlines() if "bad.mp4" in line)
    assert line.count(" | ") == 2


@pytest.mark.feature("github")
def test_step_summary_is_the_markdown_report(seen: Seen) -> None:
    """The summary of another step stays."""
    assert seen.text("summary.md").startswith("# what another step said\n")
    assert seen.text("summary.md").endswith(seen.text("r.md"))


def _csv(seen: Seen) -> list[dict[str, str]]:
    return list(csv.DictReader(seen.text("r.csv").splitlines(keepends=True)))


def _whys(rows: Iterable[dict[str, Any]]) -> list[tuple[bytes, str]]:
    return sorted((_raw(row["path"], row.get("path_b64")), row.get("code") or row.get("reason") or "") for row in rows)


def _raw(path: str, encoded: str | None) -> bytes:
    return base64.b64decode(encoded) if encoded else path.encode()
