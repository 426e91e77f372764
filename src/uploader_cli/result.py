"""The result of a run for a program: one receipt for each file, and the totals."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, TypeVar

from uploader_cli.core import events as ev
from uploader_cli.core.events import Event, FailureCode, Metrics, Phase, VerifiedBy
from uploader_cli.core.incidents import Incident
from uploader_cli.core.state import Observer, ProgressState
from uploader_cli.feature import fields_of
from uploader_cli.render.feature_views import views

if TYPE_CHECKING:
    from uploader_cli.features.typed import Added, AddedResult
else:
    Added = AddedResult = object

T = TypeVar("T")


def _with_features(kind: type[T]) -> type[T]:
    """Add the fields of features, after its own."""
    for name, annotation, default in fields_of(kind.__name__):
        kind.__annotations__[name] = annotation
        setattr(kind, name, default)
    return kind


@dataclass(frozen=True, slots=True)
@_with_features
class Receipt(Added):
    """The outcome of a file. `size` is in bytes, 0 if unknown; `code`, `message` and `retryable` describe a failure."""

    file: int
    path: str
    status: Phase
    size: int = 0
    server_id: str | None = None
    location: str | None = None
    checksum: str | None = None
    verified: bool = False
    code: FailureCode | None = None
    message: str = ""
    retryable: bool = False
    stored_as: str | None = None
    """The name under which the server stored it, if it is another one."""
    url: str | None = None
    """Where the file can be read, if it is on the server."""
    verified_by: VerifiedBy | None = None
    """What showed that the stored bytes are those of the file; None also for chunks with SHA-1."""


_AS_IN_EVENT = {spec.name for spec in fields(Receipt)} - {"status", "size", "message", "retryable"}


@dataclass(frozen=True, slots=True)
class Progress:
    """The totals of a run at one moment. Sizes are in bytes, `rate` in bytes a second, times in seconds.

    `files` and `bytes` grow while directories are walked; failed files leave `bytes`. `fraction` is 1 only when the
    server has confirmed every file, and does not change when files are cancelled. `eta` is None where nothing advances.
    """

    files: int
    completed: int
    failed: int
    skipped: int
    bytes: int
    sent: int
    rate: float
    eta: float | None
    fraction: float
    seconds: float

    @classmethod
    def of(cls, state: ProgressState, now: float) -> Progress:
        """Return the totals of `state` at `now` (run clock, seconds)."""
        return cls(
            state.selected,
            state.completed,
            state.failed,
            state.skipped,
            state.total_bytes,
            state.bytes_through,
            round(state.rate(now), 1),
            state.eta(now),
            state.fraction,
            round(now - state.started, 3),
        )


@dataclass(frozen=True, slots=True)
@_with_features
class Result(AddedResult):
    """The result of a run. `exit_code` is that of the command; `outcome` holds the totals."""

    outcome: ev.RunFinished
    receipts: tuple[Receipt, ...]
    incidents: tuple[Incident, ...] = ()
    """The newest incidents and how they ended (at most `core.incidents.MOST`)."""
    report_problems: tuple[str, ...] = ()
    """Requested reports that could not be written, one sentence each."""

    error: str = ""
    """What ended the run early, as a server that does not answer; empty if nothing did."""

    @property
    def ok(self) -> bool:
        """True where every selected file is on the server and confirmed."""
        return self.outcome.ok

    @property
    def metrics(self) -> Metrics:
        """What was measured: latencies, lag, failure rates, throughput."""
        return self.outcome.metrics

    @property
    def exit_code(self) -> int:
        """The exit code that the command would have: 2 if only a report failed."""
        return self.outcome.exit_code or (2 if self.report_problems else 0)


@dataclass(slots=True)
class Receipts(Observer):
    """An observer that collects a receipt for each finished file."""

    kept: list[Receipt] = field(default_factory=list)
    _final: ProgressState = field(init=False)  # once the run has ended

    def result(self, outcome: ev.RunFinished) -> Result:
        """Return the result of the finished run."""
        state = self._final
        added = {name: value for view, own in views(state) for name, value in view.result(own).items()}
        return Result(outcome, tuple(self.kept), tuple(state.incidents.kept), error=state.trouble, **added)

    def handle(self, event: Event, _state: ProgressState, _now: float) -> None:
        """Add a receipt for a file that ended."""
        if isinstance(event, ev.FileEnded):
            self.kept.append(
                Receipt(
                    status=Phase.SKIPPED if event.reason else event.outcome,
                    size=event.size or 0,
                    message=event.message or event.reason or "",
                    retryable=bool(event.retryable),
                    **{name: getattr(event, name) for name in _AS_IN_EVENT},
                )
            )

    def close(self, state: ProgressState, _now: float) -> None:
        """Keep the final state, of which the result has a part."""
        self._final = state
