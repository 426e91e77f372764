"""The order of a run: its files are sent, and each ends exactly once, however the run ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from uploader_cli import errors
from uploader_cli.core.events import WarningCode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from uploader_cli.core.bottleneck import Bottleneck
    from uploader_cli.core.plan import LocalFile
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.journal.run_handle import RunHandle
    from uploader_cli.transfer.upload_session import RunContext

TICK = 0.1  # seconds between two checks for a stop


class Supply(Protocol):
    """The source of files: a walk that may still run."""

    @property
    def ahead(self) -> Sequence[LocalFile]:
        """The first files, known before the first request."""

    @property
    def ended(self) -> bool:
        """True when no more files will come."""

    def take(self, wait: float = 0.0) -> LocalFile | None:
        """Return the next file; None after `wait` seconds or at the end. Raise the error of the walk."""

    def close(self) -> list[LocalFile]:
        """End the walk; return the remaining files."""


class Sender(Protocol):
    """What sends the files of a run: threads of this process, or those of others."""

    context: RunContext

    def begin(self) -> None:
        """Announce the protocol and the number of jobs, once, before any event of a file or a session."""

    def send(self, supply: Supply) -> None:
        """Send all files. Raise what ends the run."""

    def interrupted(self) -> None:
        """Prepare the end of a run that was interrupted, before its sessions are left."""

    def bottleneck(self) -> Bottleneck | None:
        """Return what limited the run, if that is known."""

    def toggle_pause(self) -> None:
        """Start nothing new until this is called again."""

    def change_jobs(self, step: int) -> int:
        """Change the number of jobs and return it."""

    def shut(self) -> None:
        """End all waits and close the connections, from another thread."""


class Elsewhere(Sender, Protocol):
    """A sender whose files other processes read and send, which also follow their sessions.

    It is made with the context of a run, the run and what is closed after it.
    """

    @staticmethod
    def check(settings: Settings, given: LocalFile | None) -> None:
        """Raise `UsageError` for a run that can't work, before anything is started. `given` is no file of a disk."""

    @staticmethod
    def most_open(settings: Settings) -> int:
        """Return how many selected files may be open."""

    def __init__(self, context: RunContext, run: RunHandle, after: ExitStack) -> None: ...


def upload(sender: Sender, supply: Supply) -> errors.UploaderError | None:
    """Send all files. Return the error that ended the run early, if any. Every file ends exactly once."""
    context = sender.context
    try:
        sender.send(supply)
    except errors.Interrupted:
        _interrupted(sender, supply)
    except errors.SessionCancelled as error:
        context.warn(WarningCode.RUN_ENDED, f"the run ended early: {error}")
        _cancel_rest(context, supply)
        return error
    except Exception as error:
        reason = error if isinstance(error, errors.UploaderError) else errors.exhausted(error)
        if reason is None:
            raise
        try:
            sender.begin()
            _fail_rest(context, supply, reason)
        except errors.Interrupted:
            _interrupted(sender, supply)
        return reason
    return None


def _fail_rest(context: RunContext, supply: Supply, error: errors.UploaderError) -> None:
    """End the run, also for files that the walk has not found yet."""
    context.warn(WarningCode.RUN_ENDED, f"the run ended early: {error}")
    context.ledger.fail_all(error)
    for session in list(context.sessions):
        session.abandon("partial")
    if context.settings.unending:
        for left in supply.close():
            context.ledger.admit(left)
        context.ledger.fail_all(error)
    while not supply.ended:
        context.stop.checkpoint()
        file = supply.take(TICK)
        if file is not None:
            context.ledger.admit(file)
            context.ledger.fail_all(error)


def _interrupted(sender: Sender, supply: Supply) -> None:
    """Leave the sessions, with `--cancel-on-interrupt` cancelled, and end all files."""
    sender.begin()
    sender.interrupted()
    context = sender.context
    if context.settings.cancel_on_interrupt:
        for session in list(context.sessions):
            session.cancel(context.api)
    _cancel_rest(context, supply)


def _cancel_rest(context: RunContext, supply: Supply) -> None:
    """Leave the sessions, which another client may have cancelled, and end all files as cancelled."""
    for session in list(context.sessions):
        session.abandon("cancelled")
    for file in supply.close():
        context.ledger.admit(file)
    if context.stop.late:
        context.ledger.skip_untried()
    context.ledger.cancel_all()
