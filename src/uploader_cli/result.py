"""What a run gives back to a program: one receipt for each file, and the numbers of the whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uploader_cli.core import events as ev
from uploader_cli.core.events import Event, FailureCode, Phase

if TYPE_CHECKING:
    from uploader_cli.core.incidents import Incident
    from uploader_cli.core.metrics import Metrics
    from uploader_cli.core.state import Analysed, ProgressState


@dataclass(frozen=True, slots=True)
class Receipt:
    """How a file ended. `size` is in bytes, 0 if unknown; `code`, `message` and `retryable` are of a failure."""

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
    """Where the server stored it, if it chose another name."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The totals of a run at one moment. Sizes are in bytes, `rate` in bytes a second, times in seconds.

    `files` and `bytes` grow while directories are walked; failed and cancelled files leave `bytes`. `fraction` is 1
    only when the server has confirmed every file. `eta` is None where nothing moves.
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
class Result:
    """A whole run. `exit_code` is what the command would end with; `outcome` holds the numbers."""

    outcome: ev.RunFinished
    receipts: tuple[Receipt, ...]
    incidents: tuple[Incident, ...] = ()
    """What went wrong, and how it ended: the newest ones (`core.incidents.MOST`)."""
    analyses: tuple[Analysed, ...] = ()
    """What the analyses came to, in the order in which they were made."""
    analysis_file: str = ""
    """Where their results are saved; empty where there are none."""
    report_problems: tuple[str, ...] = ()
    """Reports that the settings ask for and that could not be written, one sentence each."""

    @property
    def ok(self) -> bool:
        """True where every selected file is on the server and confirmed."""
        return self.outcome.ok

    @property
    def metrics(self) -> Metrics:
        """What was measured: latencies, lag, failure rates, speed."""
        return self.outcome.metrics

    @property
    def exit_code(self) -> int:
        """The exit code of the same run from a shell: 2 where nothing is wrong but a report."""
        return self.outcome.exit_code or (2 if self.report_problems else 0)


@dataclass(slots=True)
class Receipts:
    """An observer that keeps a receipt for each file that is over, and at the end what else there is to say."""

    kept: list[Receipt] = field(default_factory=list)
    incidents: tuple[Incident, ...] = ()
    analyses: tuple[Analysed, ...] = ()
    analysis_file: str = ""

    def result(self, outcome: ev.RunFinished) -> Result:
        """The whole of a run that is over."""
        return Result(outcome, tuple(self.kept), self.incidents, self.analyses, self.analysis_file)

    def handle(self, event: Event, _state: ProgressState, _now: float) -> None:
        """Keep the ends."""
        match event:
            case ev.FileCompleted():
                self.kept.append(
                    Receipt(
                        event.file,
                        event.path,
                        Phase.COMPLETED,
                        event.size,
                        event.server_id,
                        event.location,
                        event.checksum,
                        event.verified,
                        stored_as=event.stored_as,
                    )
                )
            case ev.FileFailed():
                self.kept.append(
                    Receipt(
                        event.file,
                        event.path,
                        Phase.FAILED,
                        event.local.size if event.local is not None else 0,
                        code=event.code,
                        message=event.message,
                        retryable=event.retryable,
                    )
                )
            case ev.FileSkipped():
                size = event.local.size if event.local is not None else 0
                self.kept.append(Receipt(event.file, event.path, Phase.SKIPPED, size, message=event.reason))
            case ev.FileCancelled():
                local = event.local
                self.kept.append(Receipt(local.file, local.path, Phase.CANCELLED, local.size))
            case _:
                pass

    def refresh(self, state: ProgressState, now: float) -> None:
        """Nothing to draw."""

    def close(self, state: ProgressState, now: float) -> None:  # noqa: ARG002 - the protocol's signature
        """Keep what the state has of the whole."""
        self.incidents, self.analyses = tuple(state.incidents.kept), tuple(state.analyses)
        self.analysis_file = state.analysis_file
