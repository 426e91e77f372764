"""Reports that are read, and files that are not reports."""

from __future__ import annotations

import json
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from features.reports.report_samples import rows, write
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli.__main__ import main
from uploader_cli.errors import UsageError
from uploader_cli.features.reports.read import Report
from uploader_cli.report.formats import as_json
from uploader_cli.report.recorder import Spool


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not valid JSON"),
        ("[]", "not valid JSON"),
        ("{}", "not a report of uploader"),
        ('{"format": "uploader-report", "v": 2}', "format version 2"),
        ('{"format": "uploader-report", "v": 1}', "identify its run"),
        ('{"format": "uploader-report", "v": 1, "files": [{"path": 1}]}', "file 1 has no path"),
        ('{"format": "uploader-report", "v": 1, "files": [{"path": "a", "outcome": "completed"}', "not valid JSON"),
        ('{"format": "uploader-report", "v": 1, "runs": [1], "counts": {}}', "identify its run"),
        ("[" * 100_000, "not valid JSON"),
        ('{"files": ' + "[" * 100_000, "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
    ],
)
def test_invalid_report_is_refused(
    tmp_path: Path, content: str | bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert main(["report", "show", str(path)]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "r.json" in err


def test_missing_report_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "show", "gone.json"]) == 2
    assert "gone.json can't be read" in capsys.readouterr().err
    assert main(["report", "split", "gone.json"]) == 2


def test_report_from_a_pipe_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As from `<(jq . r.json)`."""
    reader, writer = os.pipe()
    with open(writer, "w") as stream:
        json.dump(json.loads((tmp_path / write(tmp_path, "one", "a✓")).read_text()), stream, indent=2)
    assert main(["report", "show", f"/dev/fd/{reader}"]) == 2
    os.close(reader)
    assert f"/dev/fd/{reader} is not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("indent", [None, 2, 4])
def test_report_is_read_in_any_json_layout(subtests: pytest.Subtests, tmp_path: Path, indent: int | None) -> None:
    """With the rows first or last, as `jq` or `jq -S` leave it."""
    path = tmp_path / write(tmp_path, "one", "a✓ b✗ 空✓")
    document = json.loads(path.read_text())
    for order in (list(document), sorted(document), ["files", *document]):
        with subtests.test(order=order):
            path.write_text(json.dumps({name: document[name] for name in order}, indent=indent, ensure_ascii=False))
            report = Report.open(path)
            assert list(report.rows()) == document["files"]
            assert report.head == {name: value for name, value in document.items() if name != "files"}


def as_written(tmp_path: Path, files: list[dict[str, Any]]) -> Path:
    """Return a report in the layout in which the program writes it."""
    head = {"format": "uploader-report", "v": 1, "run": "r", "started": "s", "finished": "f", "counts": {}}
    spool, path = Spool(), tmp_path / "report.json"
    for number, row in enumerate(files):
        spool.put({**row, "file": number})
    path.write_text("".join(as_json(head, spool)))
    spool.close()
    return path


@pytest.mark.thorough
def test_reading_a_report_needs_no_memory_for_its_rows(tmp_path: Path) -> None:
    path = as_written(tmp_path, [{"path": f"{number:0500}", "outcome": "completed"} for number in range(5000)])
    tracemalloc.start()
    try:
        assert sum(1 for _ in Report.open(path).rows()) == 5000
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size / 10
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("place", [0.5, 0.9, 0.99])
def test_truncated_report_is_refused(tmp_path: Path, place: float) -> None:
    path = as_written(tmp_path, rows("a✓ b✗ c✓ d✓"))
    content = path.read_text()
    for broken in (content[: int(len(content) * place)], content + "{}"):
        path.write_text(broken)
        with pytest.raises(UsageError, match="not valid JSON"):
            Report.open(path)


def test_report_row_with_invalid_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / write(tmp_path, "one", "", files=[{"path": "a", "outcome": "completed", "size": "big"}])
    with pytest.raises(UsageError, match="invalid numbers"):
        Report.open(path)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["completed", "uploader-report", "\ud800"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["path", "run"]), inner, max_size=2),
    max_leaves=4,
)
BROKEN = ["", "{", "{[]: 1}", '{"files": [', '{"a": ' * 5000, '{"a": %s}' % ("9" * 5000), "\0", "[]", '{"files": [1,]}']


@given(st.data())
def test_any_document_is_a_report_or_a_usage_error(data: st.DataObject) -> None:
    """A report in which any value is another one; or no JSON at all."""
    row = {"path": "a", "outcome": "completed", "size": 1, "seconds": 0.5, "attempts": 1}
    run = {"run": "r", "started": "s", "finished": "f", "shard": {"index": 1, "count": 2}}
    report = {"format": "uploader-report", "v": 1, **run, "runs": [run], "counts": {}, "files": [row]}
    place: Any = data.draw(st.sampled_from([report, run, row]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(VALUES)
    text = data.draw(st.sampled_from(BROKEN) | st.just(json.dumps(report)) | st.text(max_size=9))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "report.json"
        path.write_bytes(text.encode("utf-8", "replace"))
        try:
            list(Report.open(path).rows())
        except UsageError as error:
            said = str(error)
        else:
            said = str(path)
        assert str(path) in said
