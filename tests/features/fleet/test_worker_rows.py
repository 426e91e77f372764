"""The workers of an import as people see them: rows of the live view, lines of a log."""

from __future__ import annotations

import io

import pytest
from unit.render.render_script import MIB, Script

from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode
from uploader_cli.features.fleet.events import WorkerPhase, WorkersChanged, WorkerSeen
from uploader_cli.render.frame import Frame
from uploader_cli.render.plain import PlainView

DASHBOARD = "http://127.0.0.1:8787/status"


class Import(Script):
    """An import whose files are selected; `log` has what is written for a pipe."""

    def __init__(self) -> None:
        self.log = io.StringIO()
        super().__init__(PlainView(self.log))
        self.begin(40)
        self.put(ev.RunStarted("http://127.0.0.1:8765", None, None, 4, "tus", elsewhere=True))

    def lines(self, width: int = 80) -> list[str]:
        return ["".join(text for text, _ in row) for row in Frame().rows(self.state, self.now, width, 24)]


@pytest.mark.parametrize("width", [40, 80])
def test_import_has_a_row_for_each_worker(width: int) -> None:
    """Those that take no part come first, and have a row also where there is little space."""
    run, phases = Import(), [WorkerPhase.READY] * 20 + [WorkerPhase.KEPT_OUT]
    for sent in (0, MIB):
        seen = tuple(WorkerSeen(f"w{n:02}", phase, 1200 + n, sent, 1.0) for n, phase in enumerate(phases))
        run.put(WorkersChanged(seen, DASHBOARD))
        run.now += 1
    lines = run.lines(width)
    first = next(number for number, line in enumerate(lines) if "w20" in line)
    assert "takes no part" in lines[first]
    assert [word in lines[first + 1] for word in ("w00", "1,200", "512.0 KiB/s", "2 s ago")] == [True] * 4
    assert any(line.strip().startswith("… and ") and "more workers" in line for line in lines)
    assert "20 workers" in lines[0]
    run.put(WorkersChanged(seen[:2], DASHBOARD))
    assert "dashboard: http://127.0.0.1:8787" in "\n".join(run.lines(width))


def test_workers_have_no_rate_while_the_import_is_paused() -> None:
    """After it they measure anew."""
    run = Import()
    run.start(0)

    def work(sent: int) -> None:
        run.put(WorkersChanged((WorkerSeen("w0", WorkerPhase.READY, 3, sent, 1.0),)))
        run.sent(0, sent)
        run.now += 1

    def row() -> str:
        (found,) = [line for line in run.lines() if "w0" in line]
        return found

    for step in range(1, 5):
        work(step * MIB)
    assert "KiB/s" in row()
    run.put(ev.Paused(1.0, ev.PauseReason.UNREACHABLE, 0.0))
    for _ in range(6):
        work(4 * MIB)
        assert "B/s" not in "\n".join(run.lines())
    run.put(ev.Paused(0.0, ev.PauseReason.UNREACHABLE))
    run.now += 1
    for step in range(5, 8):
        work(step * MIB)
    run.now -= 1
    assert "1.0 MiB/s" in row()


def test_progress_line_of_an_import_has_workers_retries_and_causes() -> None:
    run = Import()
    run.put(WorkersChanged(tuple(WorkerSeen(str(n), WorkerPhase.READY, 0, 0, 0.0) for n in range(4)), DASHBOARD))
    run.start(0, 1, 2, 3)
    run.put(ev.FileRetry(0, 2, 0.0, FailureCode.NETWORK, "its worker died"))
    run.fail(1)
    run.fail(2)
    for _ in range(60):
        run.tick()
    log = run.log.getvalue().splitlines()
    (line,) = [line for line in log if " % · " in line]
    assert "0 of 40 done · 2 failed (2 server failed) · " in line
    assert " · 0.0 of 380.0 MiB · 1 retried · 4 workers · no progress for 0:05" in line
    assert log.count(f"dashboard of Dask: {DASHBOARD}") == 1
