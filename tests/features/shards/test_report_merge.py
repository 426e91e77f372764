"""Merged reports: which report of a file counts, and what is missing."""

from __future__ import annotations

import base64
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from features.reports import report_samples
from features.reports.report_samples import OUTCOMES, rows
from junit_rules import check_junit

from uploader_cli.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a report in the working directory."""
    monkeypatch.chdir(tmp_path)
    return partial(report_samples.write, tmp_path)


def merged(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    code = main(["report", "merge", *arguments, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


def said(document: dict[str, Any]) -> str:
    """The rows in the words of `rows`."""
    signs = {"completed": "✓", "failed": "✗", "cancelled": "■"}
    return " ".join(
        row["path"] + (signs.get(row["outcome"]) or ("=" if row["reason"] == "present" else "-"))
        for row in document["files"]
    )


def shard(index: int, count: int) -> dict[str, int]:
    return {"index": index, "count": count}


@pytest.mark.parametrize(
    ("earlier", "later", "counts", "code"),
    [
        ("a✓ b✗", "b✓", "a✓ b✓", 0),
        ("a✗", "a✗", "a✗", 3),
        ("a✓", "a✗", "a✗", 3),
        ("a✓ b■", "a= b✓", "a✓ b✓", 0),
        ("a=", "a✓", "a✓", 0),
        ("a✗", "a■", "a✗", 3),
        ("a✗", "a-", "a✗", 3),
        ("a✓", "a■", "a✓", 0),
        ("a■", "a✗", "a✗", 3),
        ("a■", "a-", "a-", 0),
        ("a■", "b✓", "a■ b✓", 3),
    ],
)
def test_later_report_of_a_file_replaces_the_earlier(
    write: Write,
    earlier: str,
    later: str,
    counts: str,
    code: int,
    capsys: pytest.CaptureFixture[str],
    subtests: pytest.Subtests,
) -> None:
    """Whatever the order in which the reports are named."""
    one, two = write("one", earlier, at=1), write("two", later, at=2)
    for order in ((one, two), (two, one)):
        with subtests.test(order=order):
            done, document, _ = merged(*order, capsys=capsys)
            assert (done, sorted(said(document).split())) == (code, sorted(counts.split()))
            assert document["exit_code"] == code
            assert [row["file"] for row in document["files"]] == [*range(len(counts.split()))]
            assert sum(document["counts"][name] for name in set(OUTCOMES.values())) == document["counts"]["selected"]


@pytest.mark.parametrize("place", [{"server": "http://y"}, {"category": "scenic"}, {"dest": "there"}])
def test_two_destinations_are_two_files(
    write: Write, place: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = write("one", "a✗"), write("two", "a✓", at=2, **place)
    code, document, _ = merged(one, two, capsys=capsys)
    assert (code, said(document), document["server"]) == (3, "a✗ a✓", None)


def test_the_same_file_under_two_names_is_two_files(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = {**rows("a✗")[0], "file": 1, "destination": "/b"}
    code, document, _ = merged(write("one", "", files=[*rows("a✓"), elsewhere]), capsys=capsys)
    assert (code, said(document)) == (3, "a✓ a✗")


def test_reports_of_all_shards_are_complete(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    names = [write(f"s{index}", f"f{index}✓", shard=shard(index, 3)) for index in (3, 1, 2)]
    code, document, err = merged(*names, capsys=capsys)
    assert (code, document["missing"], said(document)) == (0, [], "f3✓ f1✓ f2✓")
    assert "3 of 3 files on the server" in err
    assert (document["bytes"], document["seconds"]) == (30, 3600.0)
    code, document, err = merged(*names[:1], capsys=capsys)
    assert (code, document["missing"]) == (3, ["no report of shards 1, 2 of 3"])
    assert "missing: no report of shards 1, 2 of 3" in err
    _, document, _ = merged(*names[1:], capsys=capsys)
    assert document["missing"] == ["no report of shard 3 of 3"]


def test_a_file_that_fail_fast_left_out_may_be_tried_again(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    left = {**rows("a✓")[0], "outcome": "skipped", "reason": "fail_fast"}
    code, _, _ = merged(write("one", "", files=[left]), capsys=capsys)
    assert code == 3


def test_shards_of_different_counts_are_incomplete(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    names = [write(f"s{i}{n}", f"f{i}{n}✓", shard=shard(i, n)) for i, n in ((1, 1), (1, 2), (2, 2))]
    code, document, _ = merged(*names, capsys=capsys)
    assert (code, document["missing"]) == (3, ["the reports are of different numbers of shards: 1 and 2"])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"all_shards": {"files": 2, "digest": "a"}}, "are parts of different selections, of 3 and 2 files"),
        ({"all_shards": {"files": 3, "digest": "b"}}, "are parts of different selections, of 3 and 3 files"),
        ({"all_shards": {"files": 3, "digest": "a"}, "dest": "b"}, "have another dest: None and b"),
        ({"all_shards": {"files": 3, "digest": "a"}}, ""),
        ({}, ""),  # of an earlier version
    ],
)
def test_shards_of_different_commands_are_not_complete(
    write: Write, other: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write("one", "a✓ b✓", shard=shard(1, 2), all_shards={"files": 3, "digest": "a"})
    code, document, _ = merged(one, write("two", "c✓", shard=shard(2, 2), **other), capsys=capsys)
    assert (code, document["ok"]) == ((3, False) if words else (0, True))
    assert document["missing"] == ([f"shard 1 and shard 2 of 2 {words}"] if words else [])


def test_file_in_two_shards_is_reported_and_counted_once(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = write("one", "a✓ b✓", shard=shard(1, 2)), write("two", "b✓ c✓", shard=shard(2, 2))
    code, document, err = merged(one, two, capsys=capsys)
    assert (code, document["in_several_shards"], said(document)) == (0, 1, "a✓ b✓ c✓")
    assert "1 file in more than one shard" in err
    assert merged(one, two, write("all", "a✓", at=2), capsys=capsys)[1]["in_several_shards"] == 1
    assert "    b\n" in err


def test_unfinished_run_is_missing_until_it_is_resumed(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    half = write("half", "a✓ b■", selection_complete=False, exit_code=130)
    code, document, _ = merged(half, capsys=capsys)
    assert (code, document["missing"]) == (3, ["run half: it ended before all files were found"])
    rest = write("rest", "a= b✓ c✓", at=2, resumed_from="half")
    code, document, _ = merged(half, rest, capsys=capsys)
    assert (code, document["missing"], said(document)) == (0, [], "a✓ b✓ c✓")


def test_failed_shard_is_replaced_by_its_later_run(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    broken = write("broken", "a✓", shard=shard(1, 1), counts={"selected": 3, "completed": 1})
    code, document, _ = merged(broken, capsys=capsys)
    assert (code, document["missing"]) == (3, ["run broken (shard 1 of 1): it does not report 2 files"])
    whole = write("whole", "a= b✓ c✓", at=2, shard=shard(1, 1))
    assert merged(broken, whole, capsys=capsys)[0] == 0
    last = write("last", "a✓", at=3, shard=shard(1, 1), counts={"selected": 3, "completed": 1})
    assert merged(whole, last, capsys=capsys)[0] == 3


def test_merged_report_can_be_merged_again(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also together with its own parts, as `*.json` has it."""
    one, two = write("one", "a✗", shard=shard(1, 2)), write("two", "b✓", shard=shard(2, 2))
    assert main(["report", "merge", one, two, "-q", "-o", "all.json"]) == 3
    repaired = write("repaired", "a✓", at=3, shard=shard(1, 2))
    code, document, _ = merged("all.json", one, two, repaired, capsys=capsys)
    assert (code, said(document), document["in_several_shards"]) == (0, "a✓ b✓", 0)
    assert [run["run"] for run in document["runs"]] == ["one", "two", "repaired"]
    assert [row["run"] for row in document["files"]] == ["repaired", "two"]


def test_a_path_that_was_selected_twice_is_one_file(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two reports of one run the first counts, unless only the second has the result of the file."""
    twice = {"path": "a", "outcome": "skipped", "reason": "duplicate", "size": None}
    kept = {"path": "b", "outcome": "skipped", "reason": "type", "size": None}
    files = [*rows("a✓"), {**twice, "file": 1}, {**kept, "file": 2}, {**twice, "path": "b", "file": 3}]
    code, document, _ = merged(write("one", "", files=files), capsys=capsys)
    assert (code, said(document), document["skips"]) == (0, "a✓ b-", {"type": 1})


def test_similar_names_are_different_files(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    odd = {"path": "\\xff", "path_b64": base64.b64encode(b"\xff").decode(), "outcome": "completed", "size": 1}
    plain = {"path": "\\xff", "outcome": "failed", "size": 1, "code": "a_code_of_later", "retryable": False}
    files = [{"file": number, **row} for number, row in enumerate((odd, plain))]
    code, document, _ = merged(write("one", "", files=files), capsys=capsys)
    assert (code, len(document["files"])) == (4, 2)


def test_merge_writes_every_format(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hashed = [row | {"checksum": "sha256:00"} for row in rows("a✓ b✗")]
    one, two = write("one", "", files=hashed), write("two", "c✓ d■ e-", at=2)
    options = [f"--report={name}" for name in ("m.json", "m.csv", "m.xml", "m.md", "m.sha256")]
    assert main(["report", "merge", one, two, "-q", *options, "--failed-to", "again.txt"]) == 3
    assert (tmp_path / "m.sha256").read_text() == "00  a\n"
    assert "m.sha256 lacks 1 file whose digest is not known" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "m.json").read_text())["files"]) == 5
    assert (tmp_path / "m.csv").read_text().count("\n") == 6
    (suite,) = check_junit((tmp_path / "m.xml").read_text())
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["5", "1", "1", "1"]
    assert "2 of 4 files uploaded, 1 failed, 1 cancelled" in (tmp_path / "m.md").read_text()
    assert (tmp_path / "again.txt").read_text() == "b\nd\n"
