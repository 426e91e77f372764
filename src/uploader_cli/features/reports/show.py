"""`uploader report show`: draw a report in the terminal."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from uploader_cli.errors import UsageError
from uploader_cli.exit_status import Exit
from uploader_cli.features.reports.read import Report
from uploader_cli.features.reports.terminal import rows_of
from uploader_cli.report.recorder import Notices, Output, Spool, write_all
from uploader_cli.report.run_files import outputs, settled
from uploader_cli.settings import Invalid, Settings
from uploader_cli.settings.report_files import report_file

NARROWEST, WIDEST = 40, 120
"""Columns: a narrower terminal wraps the rows, a wider one is not filled."""
MORE_SPACE = "set TMPDIR to a disk with more space"


def show(file: str, reports: Sequence[str], failed_to: str | None, *, quiet: bool) -> int:
    """Draw the report in `file` on stdout, and write it in other formats; return 0, or 2 where one was not written."""
    files_to_write = named_outputs(reports, failed_to)
    report, notices = Report.open(Path(file)), Notices()
    try:
        if not quiet:
            _draw(report)
        if files_to_write:
            with closing(Spool()) as spool:
                for number, row in enumerate(report.rows()):
                    spool.put({**row, "file": number})
                write_all(files_to_write, report.head, spool, notices)
    except (TypeError, KeyError, AttributeError, ValueError, IndexError, ArithmeticError) as error:
        raise UsageError(f"{file} is damaged: {error!r}", hint="use the report as uploader wrote it") from error
    except sqlite3.Error as error:
        raise UsageError(f"no space for the report: {error}", hint=MORE_SPACE) from error
    return settled(Exit.OK, [notices])


def named_outputs(reports: Sequence[str], failed_to: str | None) -> list[Output]:
    """Return the functions that write the files with these names, for reports of earlier runs. Raises `UsageError`."""
    try:
        files = tuple(report_file(name) for name in reports)
    except Invalid as error:
        raise UsageError(f"--report: {error}", hint=error.hint) from None
    return outputs(Settings(report=files, failed_to=Path(failed_to) if failed_to is not None else None), {})


def _draw(report: Report) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    rows = list(rows_of(report.head, report.rows(), max(NARROWEST, min(WIDEST, console.width))))
    for row in rows:
        console.print(Text.assemble(*row), soft_wrap=True)
