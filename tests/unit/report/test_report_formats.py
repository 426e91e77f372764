"""The text of a CSV report, and of a Markdown report with many failures."""

from __future__ import annotations

from uploader_cli.core.plan import Shard
from uploader_cli.core.state import ProgressState
from uploader_cli.report.document import RunFacts, report_head
from uploader_cli.report.formats import CSV_COLUMNS, as_csv
from uploader_cli.report.markdown import as_markdown
from uploader_cli.report.recorder import Spool


def test_csv_has_crlf_lower_case_booleans_and_empty_cells() -> None:
    spool = Spool()
    spool.put({"file": 0, "path": "=a,b", "outcome": "failed", "size": 3, "verified": False, "retryable": True})
    header, row, end = "".join(as_csv({}, spool)).split("\r\n")
    assert header == ",".join(CSV_COLUMNS)
    assert row == '0,"./=a,b",,,failed,3,,,,,,,,false,,,true,,,,,,,,,'
    assert end == ""


def test_markdown_names_the_first_50_failures_and_counts_the_others() -> None:
    spool = Spool()
    for number in range(52):
        spool.put({"file": number, "path": f"{number}|.mp4", "outcome": "failed", "code": "network", "message": "gone"})
    spool.put({"file": 52, "path": "x" * 400, "outcome": "completed", "stored_as": "x"})
    head = report_head(ProgressState(), RunFacts("run", "1.0", started=0.0, shard=Shard(2, 3)), finished=1.0)
    head["counts"]["failed"], head["renamed"] = 52, 1
    shown = "".join(as_markdown(head, spool))
    assert "· shard 2 of 3 · run run ·" in shown
    assert shown.count("gone") == 50
    assert r"49\|.mp4" in shown
    assert "50" not in shown.partition(r"49\|.mp4")[2]
    assert "… and 2 more." in shown
    assert f"| {'x' * 299}… | x |" in shown
