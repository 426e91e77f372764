"""The rows of `uploader runs` on terminals of any width."""

from __future__ import annotations

from typing import Any

import pytest

from uploader_cli.render import UNFOLDED
from uploader_cli.render.words import cells
from uploader_cli.run.runs import run_rows
from uploader_cli.transfer.journal.run_rows import RunInfo

FAILED = {"done": 3, "total": 10, "failed": 7, "failures": [{"path": "视频.mp4", "code": "network", "message": "lost"}]}
OUTCOMES: list[tuple[str, dict[str, Any]]] = [
    ("interrupted", FAILED),
    ("interrupted", {}),
    ("finished", {"done": 9_999, "total": 9_999}),
]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200, UNFOLDED])
def test_row_has_at_most_the_width_and_only_a_pipe_gets_all(width: int) -> None:
    """Id, age and count are never cut from 40 columns on, and from 80 on the end of the place is there."""
    runs = [
        RunInfo(
            f"{number}0d2aef37",
            "https://files.example",
            "scenic",
            0.0,
            0.0,
            state,
            3,
            9,
            0,
            {"paths": ["视频" * 9]},
            outcome,
            (),
        )
        for number, (state, outcome) in enumerate(OUTCOMES)
    ]
    rows = list(run_rows(runs, width))
    assert max(map(cells, rows)) <= width
    assert all(row.startswith(run.id[:8]) for row, run in zip(rows, runs, strict=True))
    counts = ["3/10", "3/?", "9,999/9,999"]
    assert width < 40 or all(f"{count}  " in row for row, count in zip(rows, counts, strict=True))
    assert width < 80 or "enic  " in rows[0]
    ends = [
        "files.example/scenic  视频视频视频视频视频视频视频视频视频  7 failed: 视频.mp4: lost",
        "killed",
        "complete",
    ]
    assert width < 200 or all(row.endswith(end) for row, end in zip(rows, ends, strict=True))
