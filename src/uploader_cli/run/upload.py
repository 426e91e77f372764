"""An upload: selection, scheduler, channel and observers around one loop, and what interrupts do to it."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uploader_cli import errors, exit_status
from uploader_cli.core import events as ev
from uploader_cli.core.plan import Limits, Shard
from uploader_cli.core.sizes import ChunkSize
from uploader_cli.core.state import SERVER_TERMINAL
from uploader_cli.exit_status import Exit
from uploader_cli.run import from_file
from uploader_cli.run.analysis import Places, analyse
from uploader_cli.run.connections import Connections
from uploader_cli.run.loop import Loop, alarms
from uploader_cli.selection.filters import Filters
from uploader_cli.selection.selection import Selection
from uploader_cli.selection.shard import holds, sharded
from uploader_cli.selection.walk import Skipped, Step, missing, walk
from uploader_cli.selection.walk_queue import WalkQueue
from uploader_cli.settings import OPTIONS
from uploader_cli.transfer import pacing
from uploader_cli.transfer.journal import Target
from uploader_cli.transfer.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from uploader_cli.core.state import ProgressState
    from uploader_cli.render import Renderer
    from uploader_cli.report.recorder import Recorder
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.journal import Journal, RunHandle

GRACE = 1.5
"""Seconds that a running request gets to end after an interrupt: 2 s are promised."""


@dataclass(slots=True)
class Interrupts:
    """What a signal handler counts up; the loop looks at it every frame."""

    count: int = 0
    code: Exit = Exit.SIGINT
    finished: bool = False
    """The run has told its exit code."""
    _raises: bool = False

    def raise_(self, code: Exit) -> None:
        """One more interrupt; the first one decides the exit code. Called by a signal handler, in the main thread."""
        if not self.count:
            self.code = code
        self.count += 1
        if self._raises:
            self.check()

    def check(self) -> None:
        """End the process with the interrupt's exit code, where there was one: before a run there is nothing to end."""
        if self.count and not self.finished:
            raise SystemExit(self.code)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """End the process also in the middle of the block, which may wait for long (a token command)."""
        self._raises = True
        try:
            self.check()
            yield
        finally:
            self._raises = False


def select(settings: Settings, paths: Sequence[str]) -> Selection:
    """Everything under `paths`, or where there are none in the list of `settings`, that the filters want.

    Raises `UsageError` for a missing path, a list with bad lines, or an empty selection; a list without lines is none.
    Of a large selection only the beginning is looked at; that it holds nothing is raised when its end is reached.
    """
    filters, listed = Filters(settings.include, settings.exclude), from_file.manifest(settings)
    shard = Shard.of(settings.shard)
    if listed is not None and not paths:
        listed.check(lambda name: filters.wants(name) and (shard is None or holds(shard, name)))
        steps, what = listed.files(filters.wants), listed.shown
    else:
        _refuse_missing(paths)
        steps, what = walk(paths, filters, follow_links=settings.follow_links), ", ".join(paths[:3])
    filtered = settings.include or settings.exclude
    hint = "check --include and --exclude" if filtered else "the directories hold no regular files"
    whole = _never_empty(steps, errors.UsageError(f"nothing to upload in {what}", hint=hint), listed=not paths)
    return Selection(sharded(whole, shard))


def _refuse_missing(paths: Sequence[str]) -> None:
    if not paths:
        raise errors.UsageError(
            "no path was given", hint="name files or directories: uploader upload PATH…, or a list: --from-file FILE"
        )
    gone = missing(paths)
    if gone:
        more = f" (and {len(gone) - 1} more)" if len(gone) > 1 else ""
        raise errors.UsageError(f"{gone[0]}: no such file or directory{more}", hint="nothing was sent; check the path")


def _never_empty(steps: Iterable[Step], error: errors.UsageError, *, listed: bool) -> Iterator[Step]:
    """The same steps; raises `error` at their end where there was nothing to send, nor anything that failed.

    A list may have no lines: `--failed-to` writes such a list when nothing failed.
    """
    empty, any_step = True, False
    for step in steps:
        any_step = True
        empty = empty and (step is None or isinstance(step, Skipped))
        yield step
    if empty and (any_step or not listed):
        raise error


def execute(
    settings: Settings,
    found: Selection,
    observers: Sequence[Renderer],
    interrupts: Interrupts,
    *,
    journal: Journal,
    run: RunHandle,
    kept: Sequence[Recorder] = (),
) -> ev.RunFinished:
    """Upload what was selected; return the outcome also of a run that was interrupted or lost its server.

    `run` is this run in the journal, `kept` are the observers that write reports. Raise what is a bug of ours, after
    the run was closed in order.
    """
    places, known = Places(run), list[Limits]()
    loop = Loop([*kept, *observers], alarms(settings))
    queue = WalkQueue(found, loop.emit)
    seen = pacing.recall(settings.target_url)
    chunk = ChunkSize(settings.chunk_size, seen.chunk if seen is not None else None)
    loop.listeners += [queue.settle, *([places.listen] if settings.analyze != "none" else [])]
    connections = Connections(settings, loop, run.id)
    with interrupts.raising():
        connections.api.authorization()  # a token that can't be had is a usage error, before anything starts
    run.check = connections.stop.check
    run.on_trouble = lambda text: loop.emit(ev.RunWarning(ev.WarningCode.JOURNAL, text))
    with loop.observed():

        def announce(protocol: str, jobs: int) -> None:
            files = len(found.ahead) if found.complete else None
            size = sum(file.size for file in found.files) if found.complete else None
            known = protocol if connections.api.answered else "auto"  # the server's answer decides
            loop.emit(ev.RunStarted(settings.target_url, files, size, jobs, known, run.resumed_from))
            for notice in journal.notices:
                loop.emit(ev.RunWarning(ev.WarningCode.JOURNAL, notice))
            caution(settings, loop.emit)
            queue.start()
            connections.start_soon()

        scheduler = Scheduler(
            connections.api,
            settings,
            loop.emit,
            connections,
            connections.last_heard,
            connections.stop,
            run=run,
            remember=known.append,
            chunk=chunk,
            announce=announce,
        )
        thread = threading.Thread(
            target=_work, args=(scheduler, queue, loop.emit), name="uploader-scheduler", daemon=True
        )
        thread.start()
        codes: list[Exit] = []
        try:
            stopped = _until_stopped(loop, connections, scheduler, interrupts)
            thread.join()
            loop.drain(connections.drain_seconds() if not interrupts.count else 0.0, _is_all_heard)
            if settings.analyze != "none" and stopped.error is None and not interrupts.count:
                codes = analyse(settings, loop, connections, interrupts, places, run.id)
        finally:
            connections.stop.set()
            if thread.is_alive():  # an observer failed
                scheduler.shut()
                thread.join()
            queue.close()
            connections.close()
        loop.flush()
        if known:
            api = connections.api
            lookup = api.lookups.max_files if api.lookups is not None else 1
            seen = pacing.KnownServer(known[-1], api.tus, api.budget.metered, chunk.limit, lookup)
            pacing.remember(settings.target_url, seen)
        run.finish(ok=_is_complete(loop, stopped.error))
        code = exit_status.worst([_exit_code(loop, connections, stopped.error, interrupts), *codes])

        def written(state: ProgressState) -> bool:
            return [one.write(state) for one in kept].count(False) == 0

        outcome = loop.finish(code, connections.stats(), written=written)
        interrupts.finished = True
    if stopped.error is not None and not isinstance(stopped.error, errors.UploaderError):
        raise stopped.error
    return outcome


def named(settings: Settings, paths: Sequence[str]) -> tuple[Target, dict[str, object], dict[str, object]]:
    """Return what the journal knows a run by: its target, what `resume` needs, what makes two commands the same."""
    target = Target(settings.target_url, "tus" if settings.tus_endpoint else settings.category)
    arguments: dict[str, object] = {"paths": list(paths), "cwd": str(Path.cwd()), "options": settings.storable()}
    identity: dict[str, object] = {
        "paths": [os.path.abspath(path) for path in paths],
        "include": list(settings.include),
        "exclude": list(settings.exclude),
        "follow_links": settings.follow_links,
        "shard": settings.shard,
    }
    if settings.from_file is not None:
        arguments["list"] = str(settings.from_file)
        identity["list"] = from_file.identity(settings)
    return target, arguments, identity


def begin(settings: Settings, paths: Sequence[str], journal: Journal, run_id: str) -> RunHandle:
    """Begin this run in the journal: it resumes an unfinished one of the same server, destination and selection."""
    target, arguments, identity = named(settings, paths)
    return journal.begin(target, arguments, identity=identity, run_id=run_id, fresh=not settings.resume)


def _is_all_heard(state: ProgressState) -> bool:
    """Return whether the last message of each session has come: there is nothing to listen for."""
    return all(session.status in SERVER_TERMINAL for session in state.sessions.values())


def _is_complete(loop: Loop, error: BaseException | None) -> bool:
    """Return whether nothing is left to resume: no file failed, and none was left out by an interrupt or an error."""
    state = loop.state
    left = state.cancelled or state.failed or state.skips[ev.SkipReason.FAIL_FAST]
    return not left and not state.walking and error is None


def caution(settings: Settings, emit: Callable[[ev.Event], None]) -> None:
    """Warn of what a user should know before anything is sent."""
    if settings.insecure:
        text = "certificates are not checked (--insecure): others on the network can read and change what is sent"
        emit(ev.RunWarning(ev.WarningCode.INSECURE, text))
    if settings.token_withheld:
        variable = OPTIONS[settings.target_option].variable
        text = "the token is not sent: only the config of a directory names the server"
        text += f"; name it yourself, with {variable} or in your own config"
        emit(ev.RunWarning(ev.WarningCode.TOKEN_WITHHELD, text))


def _work(scheduler: Scheduler, queue: WalkQueue, emit: Callable[[ev.Event], None]) -> None:
    """Run the scheduler in its thread: whatever happens, the loop gets an event for the end."""
    error: BaseException | None = None
    try:
        error = scheduler.run(queue)
    except BaseException as bug:  # noqa: BLE001 - handed to the main thread, which raises it
        error = bug
    emit(ev.EngineStopped(error, scheduler.bottleneck()))


def _until_stopped(
    loop: Loop, connections: Connections, scheduler: Scheduler, interrupts: Interrupts
) -> ev.EngineStopped:
    """Turn the loop until the scheduler ends; the first interrupt stops it, the second cuts its connections."""
    give_up: float | None = None
    while True:
        stopped = loop.turn()
        connections.tend()
        if stopped is not None:
            return stopped
        if not interrupts.count:
            continue
        if give_up is None:
            connections.stop.set()
            give_up = time.monotonic() + GRACE
        if interrupts.count > 1 or time.monotonic() > give_up:
            scheduler.shut()
            give_up = time.monotonic() + GRACE  # --cancel-on-interrupt makes one more call


def _exit_code(loop: Loop, connections: Connections, error: BaseException | None, interrupts: Interrupts) -> Exit:
    if error is not None and not isinstance(error, errors.UploaderError):
        return Exit.BUG
    if interrupts.count and (loop.state.cancelled or loop.state.walking):
        return interrupts.code
    codes = loop.failure_codes()
    if isinstance(error, errors.UsageError | errors.NotAnUploadServer):
        return exit_status.of_error(error)
    if isinstance(error, errors.NetworkError) and not connections.api.answered:
        codes.append(Exit.NO_SERVER)
    elif error is not None:
        codes.append(exit_status.of_failure(error.code, retryable=error.retryable))
    return exit_status.worst(codes)
