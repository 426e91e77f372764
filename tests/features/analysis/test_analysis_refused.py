"""Analyses after an upload that can't be started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from uploader_cli import Settings
from uploader_cli.core import events as ev
from uploader_cli.exit_status import Exit
from uploader_cli.features.analysis.events import AnalysisEnded, AnalysisStarted
from uploader_cli.features.analysis.phase import Analyses

if TYPE_CHECKING:
    from pathlib import Path

NOWHERE = "the server did not report the path of the file"


def completed(number: int, path: str, location: str | None) -> ev.FileCompleted:
    return ev.FileCompleted(number, path, 4, None, location, verified=True, attempts=1, seconds=0.1)


@pytest.mark.parametrize(
    ("kind", "locations", "refused"),
    [
        ("content", [None, None], [("a", NOWHERE), ("b", NOWHERE)]),
        ("fusion", ["/uploads/a"], [("two files", "the server does not have both files")]),
        ("fusion", ["/uploads/a", None], [("b", NOWHERE)]),
    ],
)
def test_analysis_of_a_file_without_a_place_is_refused(
    kind: Any, locations: list[str | None], refused: list[tuple[str, str]], tmp_path: Path
) -> None:
    """It fails for good, without a call of the server, and no result is written."""
    told: list[ev.Event] = []
    loop: Any = SimpleNamespace(emit=told.append, turn=lambda: None, flush=lambda: None, state=None)
    connections: Any = SimpleNamespace(
        api=SimpleNamespace(another=None), stop=False, channel=SimpleNamespace(takers={}), tend=lambda _state: None
    )
    interrupts: Any = SimpleNamespace(pending=lambda: False, count=0)
    result = tmp_path / "result.json"
    analyses = Analyses(Settings(server="http://h", analyze=kind, analysis_to=result), loop, connections)
    analyses.listen([completed(number, "ab"[number], location) for number, location in enumerate(locations)])
    assert analyses.run(interrupts, "run") == [Exit.FAILED_FOR_GOOD] * len(refused)
    assert told == [event for path, why in refused for event in (AnalysisStarted(kind, path), AnalysisEnded(error=why))]
    assert not result.exists()
