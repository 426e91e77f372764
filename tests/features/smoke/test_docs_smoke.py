"""docs/smoke.md names every verdict and every field of its report."""

from __future__ import annotations

import re

from docs_pages import codes, page, rows, section

from uploader_cli.exit_status import Exit
from uploader_cli.features.checks.check import Checked, CheckReport, Finding, Verdict
from uploader_cli.features.smoke.runner import CHECKS
from uploader_cli.features.smoke.smoke_report import check_json, report_json

PAGE = section(page("smoke.md"), "## `uploader smoke`")


def test_the_verdicts_and_the_fields_are_those_of_the_report() -> None:
    named = [codes(row[0])[0] for row in rows(PAGE)]
    assert [name for name in named if not name.startswith("-")] == [str(verdict) for verdict in Verdict]
    result = Checked(CHECKS[0], Finding(Verdict.PASS))
    report = CheckReport("http://127.0.0.1", (result,), Verdict.PASS, "", Exit.OK, 0, 0.0, strict=False, budget=1)
    documented = [codes(found) for found in re.findall(r"\((`type`[^)]*)\)", PAGE)]
    assert [[name for name in names if name not in ("check", "verdict")] for names in documented] == [
        [name for name in check_json(result) if name != "verdict"],
        list(report_json(report)),
    ]
