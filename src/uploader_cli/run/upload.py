"""An upload: selection, scheduler, channel and observers around one loop, and the handling of interrupts."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from uploader_cli import errors, exit_status
from uploader_cli.core import events as ev
from uploader_cli.core.plan import Limits, LocalFile, Shard, of_upload
from uploader_cli.core.sizes import ChunkSize
from uploader_cli.core.state import SERVER_TERMINAL, Observer, ProgressState
from uploader_cli.exit_status import Exit
from uploader_cli.render.words import plural
from uploader_cli.run import analysis, from_file, known_servers, reports
from uploader_cli.run.connections import Connections, caution
from uploader_cli.run.loop import Loop, alarms
from uploader_cli.selection.filters import Filters
from uploader_cli.selection.selection import MOST_OPEN, Selection, WalkQueue, holds, placed, sharded
from uploader_cli.selection.walk import Step, missing, walk
from uploader_cli.settings import OPTIONS, hide
from uploader_cli.settings.places import GONE, working_directory
from uploader_cli.sources.files import absolute, is_url
from uploader_cli.transfer.journal import Journal, Target
from uploader_cli.transfer.journal.schema import NAME
from uploader_cli.transfer.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from uploader_cli.fleet.driver import Driver
    from uploader_cli.report.recorder import Notices, Output
    from uploader_cli.run.interrupts import Interrupts
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.journal import RunHandle
    from uploader_cli.transfer.journal.reading import History

    Prepared = tuple[Selection, Sequence[Output]]

FILTERS = ("include", "exclude", "exclude_from", "min_size", "max_size", "newer_than")
LISTED = 5
"""Maximum failures of a run that the journal keeps for the list of runs."""
GRACE = 1.5
"""Seconds that a running request gets to end after an interrupt; the documented limit is 2 s."""


def prepare(
    settings: Settings,
    paths: Sequence[str],
    env: Mapping[str, str] = os.environ,
    given: LocalFile | None = None,
) -> Prepared:
    """Return the files of a run and its report files, after all checks that need no server. Raises `UsageError`.

    `given` is sent instead of `paths`: standard input or a file object.
    """
    if settings.on is not None:
        from uploader_cli.fleet import cluster

        cluster.check(settings, given)
    found = _selection(settings, [given]) if given is not None else select(settings, paths)
    analysis.check(settings, found)
    files = {"links": settings.links, "metrics_file": settings.metrics_file}
    return found, reports.outputs(settings.report, settings.failed_to, env, **files)


def select(settings: Settings, paths: Sequence[str]) -> Selection:
    """Return everything under `paths`, or without paths the list of `settings`, that passes the filters.

    Raises `UsageError` for a missing path, a list with invalid lines, or an empty selection; an empty list is no error.
    Only the start of a large selection is read here; if it turns out to be empty, that is raised at its end.
    """
    filters, listed = _filters(settings), from_file.manifest(settings)
    shard = Shard.of(settings.shard)
    if listed is not None and not paths:
        listed.check(lambda name: filters.wants(name) and (shard is None or holds(shard, name)))
        steps, what = listed.files(filters), listed.shown
    else:
        _check_paths(paths)
        steps, what = walk(paths, filters, follow_links=settings.follow_links), ", ".join(paths[:3])
    used = [OPTIONS[name].flag for name in FILTERS if getattr(settings, name) != OPTIONS[name].default]
    hint = f"check {', '.join(used)}" if used else "the directories contain no regular files"
    whole = _never_empty(steps, errors.UsageError(f"nothing to upload in {what}", hint=hint), listed=not paths)
    return _selection(settings, _concealed(sharded(whole, shard)))


def _selection(settings: Settings, steps: Iterable[Step]) -> Selection:
    """Return the selection with the files below `--dest`, or the only one with `--upload-url`."""
    found = Selection(placed(steps, settings.dest) if settings.dest else steps)
    if settings.upload_url:
        _use_existing(settings, settings.upload_url, found)
    return found


def _concealed(steps: Iterable[Step]) -> Iterator[Step]:
    """Yield the steps; from then on nothing that is printed contains their upload URLs."""
    for step in steps:
        if isinstance(step, LocalFile) and step.upload_url:
            hide(step.upload_url)
        yield step


def _use_existing(settings: Settings, url: str, found: Selection) -> None:
    """Give `--upload-url` to the only file of a selection. Raise `UsageError` for a directory or several files."""
    for file in found.ahead:  # none in another shard
        if not found.complete or len(found.ahead) > 1 or (isinstance(file, LocalFile) and not file.named):
            hint = "give one file; a list has a column upload_url for several ones"
            option = settings.given_as("upload_url")
            raise errors.UsageError(f"{option} is the upload of one file, not of a directory or of several", hint=hint)
        if isinstance(file, LocalFile):
            found.ahead[0] = replace(file, upload_url=url, destination=of_upload(url))


def _filters(settings: Settings) -> Filters:
    return Filters(
        settings.include,
        settings.exclude,
        exclude_from=settings.exclude_from,
        min_size=settings.min_size,
        max_size=settings.max_size,
        newer_than=settings.newer_than.at if settings.newer_than else None,
    )


def _check_paths(paths: Sequence[str]) -> None:
    if not paths:
        hint = "give files or directories: uploader upload PATH…, or a list: --from-file FILE"
        raise errors.UsageError("no path given", hint=hint)
    if working_directory() is GONE and not all(os.path.isabs(path) or is_url(path) for path in paths):
        raise errors.UsageError("the working directory was deleted", hint="change to another, or give full paths")
    if gone := missing(paths):
        more = f" (and {len(gone) - 1} more)" if len(gone) > 1 else ""
        raise errors.UsageError(f"{gone[0]}: no such file or directory{more}", hint="nothing was sent; check the path")


def _never_empty(steps: Iterable[Step], error: errors.UsageError, *, listed: bool) -> Iterator[Step]:
    """Yield the steps; raise `error` at the end if there was nothing to send and nothing failed.

    A list may be empty: `--failed-to` writes one when nothing failed.
    """
    empty, any_step = True, False
    for step in steps:
        any_step = True
        empty = empty and (step is None or isinstance(step, ev.FileSkipped))
        yield step
    if empty and (any_step or not listed):
        raise error


def execute(
    settings: Settings,
    prepared: Prepared,
    observers: Sequence[Observer],
    interrupts: Interrupts,
    *,
    journal: Journal,
    run: RunHandle,
) -> tuple[ev.RunFinished, list[Notices]]:
    """Upload the files; return the outcome, also of a run that was interrupted or lost its server.

    `run` is this run in the journal. The second result says which reports could not be written. Unexpected exceptions
    are raised after the run was closed in order.
    """
    found, outputs = prepared
    scheduler: Scheduler | Driver
    recorders = reports.recorders(outputs, settings, run)
    metrics = reports.metrics_files(settings, run)
    loop = Loop([*recorders, *metrics, *observers], alarms(settings))
    queue, connections = WalkQueue(found, loop.emit, most=_ahead(settings)), Connections(settings, loop, run.id)
    api, places, limits = connections.api, analysis.Places(), list[Limits]()
    loop.listeners += [queue.settle, *([places.listen] if settings.analyze != "none" else [])]
    seen = known_servers.recall(settings.target_url)
    chunk = ChunkSize(settings.chunk_size, seen.chunk if seen is not None else None, settings.chunk_rule)
    interrupts.begin(settings.deadline)
    with interrupts.raising():
        api.authorization()  # a missing token is a usage error, before anything starts
    run.check = connections.stop.check
    run.on_trouble = lambda text: loop.emit(ev.RunWarning(ev.WarningCode.JOURNAL, text))

    def announce(protocol: str, jobs: int) -> None:
        files = len(found.ahead) if found.complete else None
        is_known = found.complete and not any(file.once for file in found.files)
        size = sum(file.size for file in found.files) if is_known else None
        protocol = protocol if api.budget.answered else "auto"  # known after the server's response
        loop.emit(ev.RunStarted(settings.target_url, files, size, jobs, protocol, run.resumed_from, settings.dest))
        for notice in journal.notices:
            loop.emit(ev.RunWarning(ev.WarningCode.JOURNAL, notice))
        caution(settings, loop.emit)
        queue.start()
        if settings.on is None:
            connections.start_soon()

    with ExitStack() as after, loop.observed():
        if settings.on is None:
            scheduler = Scheduler(api, connections, run, remember=limits.append, announce=announce, chunk=chunk)
        else:
            from uploader_cli.fleet.driver import Driver

            scheduler = Driver(api, connections, run, remember=limits.append, announce=announce, after=after)
        name = "uploader-scheduler"
        thread = threading.Thread(target=_work, args=(scheduler, queue, loop.emit), name=name, daemon=True)
        thread.start()
        codes: list[Exit] = []
        try:
            stopped = _until_stopped(loop, connections, scheduler, interrupts)
            thread.join()
            loop.drain(connections.drain_seconds() if not interrupts.count else 0.0, _all_heard)
            if settings.analyze != "none" and stopped.error is None and not interrupts.count:
                codes = analysis.analyse(settings, loop, connections, interrupts, places, run.id)
        finally:
            connections.stop.set()
            if thread.is_alive():  # an observer failed
                scheduler.shut()
                thread.join()
            queue.close()
            connections.close()
        loop.flush()
        if limits:
            lookup = api.lookups.max_files if api.lookups is not None else 1
            seen = known_servers.KnownServer(limits[-1], api.tus, api.budget.metered, chunk.limit, lookup, api.packs)
            known_servers.remember(settings.target_url, seen)
        state, error = loop.state, stopped.error
        left = state.cancelled or state.failed or state.skips[ev.SkipReason.FAIL_FAST] or state.walking
        run.finish(ok=not left and error is None, outcome=_outcome(state))
        code = exit_status.worst([_exit_code(loop, connections, error, interrupts), *codes])
        outcome = loop.finish(
            code, connections.channel.stats(), written=lambda state: all(one.write(state) for one in recorders)
        )
        interrupts.finished = True
    if error is not None and not isinstance(error, errors.UploaderError):
        raise error
    return outcome, [*(one.notices for one in recorders), *(one.notices for one in metrics)]


def named(settings: Settings, paths: Sequence[str]) -> tuple[Target, dict[str, object], dict[str, object]]:
    """Return the journal's keys of a run: its target, the arguments to resume it, and the identity of its command."""
    # Other metadata may mean another bucket: what is known of a file there says nothing about this one.
    destination = " ".join(["tus", *map(str, settings.metadata)]) if settings.foreign else settings.category
    target = Target(settings.target_url, f"{destination}/{settings.dest}" if settings.dest else destination)
    here = working_directory()
    cwd = here.anchor if here is GONE else str(here)  # without it all paths are absolute
    arguments: dict[str, object] = {"paths": list(paths), "cwd": cwd, "options": settings.storable()}
    identity: dict[str, object] = {
        "paths": [absolute(path) for path in paths],
        "include": list(settings.include),
        "exclude": list(settings.exclude),
        "exclude_from": list(map(str, settings.exclude_from)),
        "min_size": settings.min_size,
        "max_size": settings.max_size,
        "newer_than": settings.newer_than.written if settings.newer_than else None,
        "follow_links": settings.follow_links,
        "shard": settings.shard,
    }
    if settings.from_file is not None:
        arguments["list"] = str(settings.from_file)
        identity["list"] = from_file.identity(settings)
    return target, arguments, identity


@contextmanager
def history_of(settings: Settings, paths: Sequence[str]) -> Iterator[History | None]:
    """Yield the journal's history; None without a journal, which is not created."""
    if not os.path.exists(settings.state_path / NAME):
        yield None
        return
    target, _, identity = named(settings, paths)
    with Journal(settings.state_path) as journal:
        yield journal.history(target, identity, fresh=not settings.resume)


def begin(settings: Settings, paths: Sequence[str], journal: Journal, *, lasting: bool = True) -> RunHandle:
    """Begin this run in the journal; it resumes an unfinished one of the same server, destination and selection.

    A run that is not `lasting` reads what can't be read again, so it can't be resumed.
    """
    target, arguments, identity = named(settings, paths)
    fresh = not (settings.resume and lasting)
    return journal.begin(target, arguments, identity=identity, fresh=fresh, lasting=lasting)


def _outcome(state: ProgressState) -> dict[str, object]:
    """Return what the list of runs says of a run that has ended."""
    failures = [{"path": one.path, "code": one.code, "message": one.message[:500]} for one in state.failures[:LISTED]]
    return {"failed": state.failed, "failures": failures, "trouble": state.trouble[:500]}


def _all_heard(state: ProgressState) -> bool:
    """Return whether the last message of each session has arrived."""
    return all(session.status in SERVER_TERMINAL for session in state.sessions.values())


def _ahead(settings: Settings) -> int:
    """Return the maximum number of selected files that have not ended."""
    if settings.on is None:
        return MOST_OPEN
    from uploader_cli.fleet.batches import IN_PROGRESS

    return IN_PROGRESS


def _work(scheduler: Scheduler | Driver, queue: WalkQueue, emit: Callable[[ev.Event], None]) -> None:
    """Run the scheduler in its thread; always emit an event for its end."""
    error: BaseException | None = None
    try:
        error = scheduler.run(queue)
    except BaseException as bug:  # noqa: BLE001 - handed to the main thread, which raises it
        error = bug
    emit(ev.EngineStopped(error, scheduler.bottleneck()))


def _until_stopped(
    loop: Loop, connections: Connections, scheduler: Scheduler | Driver, interrupts: Interrupts
) -> ev.EngineStopped:
    """Turn the loop until the scheduler ends; the first interrupt stops it, the second closes its connections."""
    give_up: float | None = None
    keys = _keys(scheduler)
    interrupts.keys.update(keys)
    while True:
        stopped = loop.turn()
        connections.tend()
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
            scheduler.shut()
            give_up = time.monotonic() + GRACE  # --cancel-on-interrupt sends one more request


def _keys(scheduler: Scheduler | Driver) -> dict[str, Callable[[], str]]:
    """Return what keys of the live view do while files are sent; each function returns a note to be shown."""

    def change_jobs(step: int) -> str:
        return plural(scheduler.change_jobs(step), "job")

    def pause() -> str:
        scheduler.toggle_pause()
        return ""

    return {"p": pause, "+": lambda: change_jobs(1), "-": lambda: change_jobs(-1)}


def _exit_code(loop: Loop, connections: Connections, error: BaseException | None, interrupts: Interrupts) -> Exit:
    if error is not None and not isinstance(error, errors.UploaderError):
        return Exit.BUG
    left = interrupts.count and (loop.state.cancelled or loop.state.walking)
    if left and not interrupts.late:
        return interrupts.code
    answered = connections.api.budget.answered
    codes = [interrupts.code] if left else []
    codes += [Exit.NO_SERVER] if left and loop.state.measures.calls and not answered else []
    codes += [exit_status.of_failure(code, retryable=retryable) for code, retryable in loop.state.failed_as]
    if isinstance(error, errors.UsageError | errors.NotAnUploadServer):
        return exit_status.of_error(error)
    if isinstance(error, errors.NetworkError) and not answered:
        codes.append(Exit.NO_SERVER)
    elif error is not None:
        codes.append(exit_status.of_failure(error.code, retryable=error.retryable))
    return exit_status.worst(codes)
