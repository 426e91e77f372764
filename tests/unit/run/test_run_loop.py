"""The loop between what happens and who looks on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.core import events as ev
from uploader_cli.core.alarms import Alarms
from uploader_cli.run.loop import Loop

if TYPE_CHECKING:
    from uploader_cli.core.state import ProgressState


class Onlooker:
    """Keeps what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def handle(self, event: ev.Event, _state: ProgressState, _now: float) -> None:
        self.told.append(type(event).__name__)

    def refresh(self, _state: ProgressState, _now: float) -> None:
        self.told.append("refresh")

    def close(self, _state: ProgressState, _now: float) -> None:
        self.told.append("close")


def test_nothing_is_shown_or_told_before_the_run_has_started() -> None:
    onlooker = Onlooker()
    loop = Loop([onlooker], Alarms(stall=0.0))
    loop.emit(ev.RunWarning(ev.WarningCode.STALLED, "early"))
    loop.turn()
    assert onlooker.told == []
    loop.apply(ev.RunStarted("http://127.0.0.1:1", None, None, 0, "batch"))
    loop.turn()
    assert onlooker.told[:2] == ["RunStarted", "RunWarning"]
    assert "refresh" in onlooker.told
