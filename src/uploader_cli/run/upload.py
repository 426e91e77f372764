"""An upload: selection, scheduler, channel and observers around one loop, and the handling of interrupts."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from uploader_cli import errors, exit_status
from uploader_cli.core import events as ev
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.state import SERVER_TERMINAL, Observer, ProgressState
from uploader_cli.exit_status import Exit
from uploader_cli.feature import used
from uploader_cli.render.words import plural
from uploader_cli.report import run_files
from uploader_cli.run import known_servers
from uploader_cli.run.connections import Connections, caution
from uploader_cli.run.interrupts import Interrupts
from uploader_cli.run.loop import Loop, alarms
from uploader_cli.run.phase import check_phases, phases
from uploader_cli.run.run_journal import history_of
from uploader_cli.selection.selecting import check_together, located, select
from uploader_cli.selection.selection import MOST_OPEN, Selection, WalkQueue
from uploader_cli.settings import Settings
from uploader_cli.transfer import engine
from uploader_cli.transfer.journal.run_handle import RunHandle
from uploader_cli.transfer.scheduler import Scheduler
from uploader_cli.transfer.upload_session import RunContext

if TYPE_CHECKING:
    from uploader_cli.report.recorder import Notices
    from uploader_cli.run.unending import Unending
    from uploader_cli.transfer.engine import Elsewhere, Sender

LISTED = 5
"""Maximum failures of a run that the journal keeps for the list of runs."""
GRACE = 1.5
"""Seconds that a running request gets to end after an interrupt; the documented limit is 2 s."""


class Upload:
    """The files of a run, and what writes its report files, after all checks that need no server."""

    def __init__(
        self,
        settings: Settings,
        paths: Sequence[str],
        env: Mapping[str, str] = os.environ,
        given: LocalFile | None = None,
    ) -> None:
        """`given` is sent instead of `paths`: standard input or a file object. Raises `UsageError`."""
        self._elsewhere = _elsewhere(settings)
        if self._elsewhere is not None:
            self._elsewhere.check(settings, given)
        self.settings = settings
        check_together(settings)
        self._unending = _unending(settings, paths)
        if self._unending is not None:
            self._found = located(settings, self._unending)
        else:
            self._found = located(settings, [given]) if given is not None else _selected(settings, paths)
        check_phases(settings, self._found)
        self._outputs = run_files.outputs(settings, env)

    def send(
        self, run: RunHandle, observers: Sequence[Observer], interrupts: Interrupts
    ) -> tuple[ev.RunFinished, list[Notices]]:
        """Send the files; return the outcome, also of a run that was interrupted or lost its server.

        The second result says which reports could not be written. Unexpected exceptions are raised after the run was
        closed in order.
        """
        settings = self.settings
        writers = run_files.writers(self._outputs, settings, run, interrupts.began)
        loop = Loop([*writers, *observers], alarms(settings), began=interrupts.began)
        sending = _Sending(settings, self._found, loop, interrupts, run, self._elsewhere)
        if self._unending is not None:
            self._unending.begin(run, loop.emit)
            loop.listeners.append(self._unending.listen)
        interrupts.begin(settings.deadline)
        with interrupts.raising():
            sending.connections.api.authorization()  # a missing token is a usage error, before anything starts
        with ExitStack() as after, loop.observed():
            if self._unending is not None:
                after.callback(self._unending.close)
            error, codes = sending.run(after)
            sending.remember()
            code, state = sending.exit_code(error), loop.state
            invalid = isinstance(error, errors.UsageError | errors.NotAnUploadServer)  # a wrong option or URL
            keep = state.resumable and (not invalid or state.completed > 0)
            run.finish(
                ok=error is None and not _is_left(state, late=interrupts.late), outcome=_outcome(state, code), keep=keep
            )
            outcome = loop.finish(
                exit_status.worst([code, *codes]),
                sending.connections.channel.stats(),
                written=lambda state: all(one.write(state) for one in writers),
                unwritten=lambda: interrupts.code if interrupts.count else Exit.USAGE,
            )
            interrupts.finished = True
        if error is not None and not isinstance(error, errors.UploaderError):
            raise error
        return outcome, [one.notices for one in writers]


class _Sending:
    """The parts of one run that send its files."""

    def __init__(
        self,
        settings: Settings,
        found: Selection,
        loop: Loop,
        interrupts: Interrupts,
        run: RunHandle,
        elsewhere: type[Elsewhere] | None,
    ) -> None:
        self.connections = Connections(settings, loop, run.id)
        self._settings, self._found, self._loop, self._interrupts, self._run = settings, found, loop, interrupts, run
        self._queue = WalkQueue(
            found,
            loop.emit,
            most=MOST_OPEN if elsewhere is None else elsewhere.most_open(settings),
            whole=settings.check_first,
            is_stored=lambda file: settings.consumes and run.is_stored(file),
        )
        self._phases = [phase(settings, loop, self.connections) for phase in phases(settings)]
        loop.listeners += [self._queue.listen, *(phase.listen for phase in self._phases)]
        seen = known_servers.recall(settings.target_url)
        self._context = RunContext(
            self.connections.api,
            self.connections,
            run,
            started=self._started,
            largest_chunk=seen.chunk if seen is not None else None,
            reads=elsewhere is None,
        )
        self._elsewhere = elsewhere

    def run(self, after: ExitStack) -> tuple[BaseException | None, list[Exit]]:
        """Send the files and run the phases; return what ended the run early, if anything, and the codes of the phases.

        `after` closes what a sender needs longer.
        """
        loop, connections, interrupts, elsewhere = self._loop, self.connections, self._interrupts, self._elsewhere
        self._run.checkpoint = connections.stop.checkpoint
        self._run.on_trouble = lambda text: loop.emit(ev.RunWarning(ev.WarningCode.JOURNAL, text))
        sender: Sender = Scheduler(self._context) if elsewhere is None else elsewhere(self._context, self._run, after)
        thread = threading.Thread(target=self._work, args=(sender,), name="uploader-scheduler", daemon=True)
        thread.start()
        codes: list[Exit] = []
        try:
            error = self._until_stopped(sender).error
            thread.join()
            loop.drain(connections.drain_seconds() if not interrupts.count else 0.0, _all_heard)
            if error is None and not interrupts.count:
                codes = [code for phase in self._phases for code in phase.run(interrupts, self._run.id)]
        finally:
            connections.stop.set()
            if thread.is_alive():  # an observer failed
                sender.shut()
                thread.join()
            self._queue.close()
            connections.close()
        loop.flush()
        return error, codes

    def _started(self, protocol: str, jobs: int) -> None:
        """Emit the start of the run, and begin what follows it."""
        found, settings, emit = self._found, self._settings, self._loop.emit
        files = len(found.ahead) if found.complete else None
        is_known = found.complete and not any(file.once for file in found.files)
        size = sum(file.size for file in found.files) if is_known else None
        api = self.connections.api
        is_batch = protocol == "batch" and api.healthy  # and no gateway has answered in place of the server
        protocol = protocol if api.budget.answered else "auto"  # known after the server's response
        resumed = self._run.resumed_from
        out = sum(isinstance(item, ev.FileSkipped) for item in found.ahead)
        finishes = not self._context.terms.tells_stored
        known = (settings.target_url, files, size, jobs, protocol, resumed, settings.dest, finishes, out)
        emit(ev.RunStarted(*known, elsewhere=self._elsewhere is not None))
        for notice in self._run.notices:
            emit(ev.RunWarning(ev.WarningCode.JOURNAL, notice))
        caution(settings, emit)
        self._queue.start()
        if self._elsewhere is None:
            # In batch mode and after the files only messages tell what the server does.
            self.connections.start_soon(at_once=is_batch or bool(self._phases))

    def _work(self, sender: Sender) -> None:
        """Run the sender in its thread; always emit an event for its end."""
        error: BaseException | None = None
        try:
            error = engine.upload(sender, self._queue)
        except BaseException as bug:  # noqa: BLE001 - handed to the main thread, which raises it
            error = bug
        self._loop.emit(ev.EngineStopped(error, sender.bottleneck()))

    def _until_stopped(self, sender: Sender) -> ev.EngineStopped:
        """Turn the loop until the sender ends; the first interrupt stops it, the second closes its connections."""
        loop, connections, interrupts = self._loop, self.connections, self._interrupts
        give_up: float | None = None
        keys = _keys(sender)
        interrupts.keys.update(keys)
        while True:
            stopped = loop.turn()
            connections.tend(loop.state)
            if stopped is not None:
                for key in keys:
                    del interrupts.keys[key]
                return stopped
            if not interrupts.pending():
                continue
            if give_up is None:
                interrupts.stop(connections.stop, loop.emit)
                give_up = time.monotonic() + GRACE
            if interrupts.count > 1 or time.monotonic() > give_up:
                sender.shut()
                give_up = time.monotonic() + GRACE  # --cancel-on-interrupt sends one more request

    def remember(self) -> None:
        """Store what the server has reported, for later runs."""
        context = self._context
        seen = known_servers.KnownServer(context.terms.offer, context.chunk.limit)
        known_servers.remember(self._settings.target_url, seen)

    def exit_code(self, error: BaseException | None) -> Exit:
        """Return the exit code of the run, without its phases; `error` is what ended it early, if anything."""
        if error is not None and not isinstance(error, errors.UploaderError):
            return Exit.BUG
        state, interrupts = self._loop.state, self._interrupts
        left = interrupts.count and (state.cancelled or (state.walking and not (interrupts.late and state.idle)))
        if left and not interrupts.late:
            return interrupts.code
        answered = self.connections.api.budget.answered
        codes = [interrupts.code] if left else []
        codes += [Exit.NO_SERVER] if left and state.measures.calls and not answered else []
        codes += [exit_status.of_failure(code, retryable=retryable) for code, retryable in state.failed_as]
        if isinstance(error, errors.UsageError | errors.NotAnUploadServer):
            return exit_status.of_error(error)
        if isinstance(error, errors.NetworkError) and not answered:
            codes.append(Exit.NO_SERVER)
        elif error is not None:
            codes.append(exit_status.of_failure(error.code, retryable=error.retryable))
        return exit_status.worst(codes)


def _elsewhere(settings: Settings) -> type[Elsewhere] | None:
    """Return what sends the files from other processes, if the settings ask for that."""
    return next((feature.load(feature.sender) for feature in used(settings) if feature.sender), None)


def _unending(settings: Settings, paths: Sequence[str]) -> Unending | None:
    """Return the files of a run without an end, if the settings ask for one."""
    return next(
        (feature.load(feature.unending)(settings, paths) for feature in used(settings) if feature.unending), None
    )


def _selected(settings: Settings, paths: Sequence[str]) -> Selection:
    """Return the files of a run; what a run to be resumed has consumed may be missing."""
    if not settings.consumes:
        return select(settings, paths)
    with history_of(settings, paths) as history:
        return select(settings, paths) if history is None else select(settings, paths, history.is_stored)


def _is_left(state: ProgressState, *, late: bool) -> bool:
    """Return whether a resumed run has something to send; not if an unending one was idle at its deadline (`late`)."""
    more = state.walking and not (state.idle and late)
    return bool(state.cancelled or state.failed or state.skips[ev.SkipReason.FAIL_FAST] or more)


def _outcome(state: ProgressState, code: Exit) -> dict[str, object]:
    """Return what the list of runs says of a run that has ended."""
    failures = [{"path": one.path, "code": one.code, "message": one.message[:500]} for one in state.failures[:LISTED]]
    done = state.completed + state.skips[ev.SkipReason.PRESENT] + state.skips[ev.SkipReason.RECEIPT]
    return {
        "done": done,
        "total": done + state.failed + state.cancelled + state.skips[ev.SkipReason.FAIL_FAST],
        "searched": not state.walking,
        "failed": state.failed,
        "failures": failures,
        "trouble": state.trouble[:500],
        "offered": state.resuming_helps(permanent=code in exit_status.PERMANENT),
    }


def _all_heard(state: ProgressState) -> bool:
    """Return whether the last message of each session has arrived."""
    return all(session.status in SERVER_TERMINAL for session in state.sessions.values())


def _keys(sender: Sender) -> dict[str, Callable[[], str]]:
    """Return what keys of the live view do while files are sent; each function returns a note to be shown."""

    def change_jobs(step: int) -> str:
        return plural(sender.change_jobs(step), "job")

    def pause() -> str:
        sender.toggle_pause()
        return ""

    return {"p": pause, "+": lambda: change_jobs(1), "-": lambda: change_jobs(-1)}
