"""The text of `uploader check`."""

from __future__ import annotations

import io

from uploader_cli.features.check.comparison_view import ComparisonView
from uploader_cli.features.check.events import CheckFile, CheckFinished, CheckResult

SAME = CheckFile(0, "a", 5, "a", CheckResult.SAME, 5, "/uploads/personal/a")
MISSING = CheckFile(1, "long directory/\x1b[31m name", 5, "b", CheckResult.MISSING, None, None)
END = CheckFinished(1, 0, 1, 0, 0, 10, 0.5, 4)


def test_count_on_a_terminal_gives_way_to_each_line() -> None:
    """It is updated ten times a second, and names are escaped."""
    stream, clock = io.StringIO(), iter([0.0, 0.0, 0.05, 0.2, 0.2, 0.3, 0.3])
    view = ComparisonView(stream, stream, width=30, content=True, moves=True, clock=lambda: next(clock))
    view.tell(SAME)
    view.read(1 << 20)
    view.read(1 << 20)
    view.tell(MISSING)
    view.tell(END)
    view.close()
    assert stream.getvalue().split("\r\x1b[K") == [
        "",
        "1 file compared",
        "1 file compared, 2.0 MiB read",
        "missing: long\n  directory/\\x1b[31m name\n",
        "2 files compared, 2.0 MiB re…",
        "1 same, 1 missing (10 B in 0.5\n  s, by content)\n",
        "",
    ]
