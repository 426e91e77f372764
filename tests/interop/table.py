"""The table of partners and cases in `docs/tus-servers.md`, from the results of the tests.

A test with the marker `cases` shows these cases of its partner: that of the fixture, or of the marker `partner`. It may
say more of a case with `record_property`.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import platform
import subprocess
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from uploader_cli import __version__

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

CASES = ("upload", "empty", "unicode", "50 MB", "resume", "kill client", "kill server", "checksum", "smoke")
BEGIN, END = "<!-- table: python -m pytest tests/interop --interop-table -->\n", "<!-- end of the table -->\n"


RecordProperty = Callable[[str, object], None]


class Row(NamedTuple):
    """A partner: its name in the table, and the package whose version is shown."""

    name: str
    package: str


class Table:
    """A plugin that collects the results of cases, and writes them to a page if there is one."""

    def __init__(self, page: Path | None) -> None:
        self._page = page
        self._cells: defaultdict[Row, dict[str, str]] = defaultdict(dict)
        self.versions: dict[str, str] = {}
        """Versions of packages, as far as they are not those of this environment."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        cases = {case for marker in item.iter_markers("cases") for case in marker.args}
        if cases and (report.when == "call" or report.failed):
            self._record(row_of(item), cases, dict(report.user_properties), failed=report.failed)
        return report

    def _record(self, row: Row, cases: set[str], said: dict[str, object], *, failed: bool) -> None:
        for case in cases:
            cell = "✗ fails" if failed else str(said.get(case, "✓"))
            if self._cells[row].get(case, "✓") == "✓":
                self._cells[row][case] = cell

    def pytest_sessionfinish(self) -> None:
        if self._page is None:
            return
        before, _, rest = self._page.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        self._page.write_text(f"{before}{BEGIN}\n{self.markdown()}\n{END}{after}", encoding="utf-8")

    def markdown(self) -> str:
        """Return the lines of the table, and what it was made with."""
        lines = [f"| partner | version | {' | '.join(CASES)} |", "|---" * (2 + len(CASES)) + "|"]
        for row, cells in sorted(self._cells.items()):
            found = " | ".join(cells.get(case, "") for case in CASES)
            lines.append(f"| {row.name} | {self._version(row.package)} | {found} |")
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
        today = dt.datetime.now(dt.UTC).date()
        with_what = f"uploader {__version__}, Python {platform.python_version()}, Node.js {node.lstrip('v')}"
        return "\n".join([*lines, "", f"Run on {today} with {with_what}, {platform.system()}.", ""])

    def _version(self, package: str) -> str:
        return self.versions.get(package) or importlib.metadata.version(package)


def row_of(item: pytest.Function) -> Row:
    own = item.get_closest_marker("partner")
    if own is not None:
        return Row(*own.args)
    partner: Any = item.callspec.params["partner"]
    return Row(partner.name, partner.package)


def table_of(request: pytest.FixtureRequest) -> Table:
    table = request.config.pluginmanager.get_plugin("interop-table")
    assert isinstance(table, Table)
    return table
