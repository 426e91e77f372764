"""What a run knows of its worker processes: an event, and the part of the state that it makes."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct, field

from uploader_cli.core.events import Event, WarningCode
from uploader_cli.core.rate import Meter
from uploader_cli.core.record import Record
from uploader_cli.core.state import FeatureEvent, ProgressState

WORKERS = WarningCode("workers")


class WorkerPhase(StrEnum):
    """What a worker process does."""

    CHECKED = "checked"
    READY = "ready"
    KEPT_OUT = "kept_out"
    SILENT = "silent"


class WorkerSeen(Record, frozen=True):
    """A worker process: files that have ended there, bytes sent, seconds since its last sign of life."""

    name: str
    phase: WorkerPhase
    files: int
    bytes: int
    silent: float


class WorkerState(Struct):
    """A worker process, and its speed."""

    seen: WorkerSeen
    meter: Meter = field(default_factory=Meter)


class Workers(Struct):
    """The worker processes by their names, and the URL of Dask's dashboard."""

    known: dict[str, WorkerState] = field(default_factory=dict)
    dashboard: str = ""

    @property
    def taking_part(self) -> int:
        return sum(one.seen.phase in (WorkerPhase.READY, WorkerPhase.CHECKED) for one in self.known.values())


class WorkersChanged(FeatureEvent, frozen=True):
    """The processes of an import now, and the URL of Dask's dashboard, empty without one."""

    workers: tuple[WorkerSeen, ...]
    dashboard: str = ""

    def apply(self, state: ProgressState, now: float) -> list[Event]:
        own: Workers = state.added.setdefault("fleet", Workers())
        own.dashboard = self.dashboard
        own.known = {one.name: own.known.get(one.name, WorkerState(one)) for one in self.workers}
        for one in self.workers:
            known = own.known[one.name]
            if one.bytes < known.seen.bytes:  # a process that took the place of another one
                known.meter = Meter()
            known.seen = one
            known.meter.update(now, one.bytes)
        state.meters = [known.meter for known in own.known.values()]
        return []
