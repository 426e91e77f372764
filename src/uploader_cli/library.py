"""The library: `upload`, `upload_async` and the reusable `Uploader`."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self, Unpack, cast

from uploader_cli.core import events as ev
from uploader_cli.core.plan import is_url
from uploader_cli.core.state import Observer, ProgressState
from uploader_cli.errors import Interrupted, UsageError
from uploader_cli.feature import instead
from uploader_cli.result import Progress, Receipts, Result
from uploader_cli.run.commands import stored_run
from uploader_cli.run.interrupts import Interrupts
from uploader_cli.run.piped_lists import readable_list
from uploader_cli.run.run_journal import begin, writable_state
from uploader_cli.run.upload import Upload
from uploader_cli.run.views import open_log
from uploader_cli.run.watch import watch
from uploader_cli.selection.standard_input import file_of
from uploader_cli.settings import (
    OPTIONS,
    Invalid,
    Layer,
    Option,
    Settings,
    resolve,
    resolve_here,
    resumed,
    working_directory,
)
from uploader_cli.settings.keywords import Options
from uploader_cli.settings.spelling import guess, lacking
from uploader_cli.settings.values import ChunkRule, Header, Metadata, Moment, ReportFile
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.run_handle import RunHandle


class Readable(Protocol):
    """A binary file object, which may be able to seek; a pipe, for example, is not."""

    def read(self, size: int = -1, /) -> bytes | None:
        """Return up to `size` bytes; none at the end."""


WAYS = ("proxy", "ca_bundle", "client_cert")
"""Stored options that say how a server is reached: those of the caller replace those of a run."""
Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | Readable


class Uploader:
    """Upload to one server, as often as you like, with the same options and callbacks.

        with Uploader(server="files.example.com", jobs=8) as uploader:
            result = uploader.upload(["videos"])

    Each call returns when its run has ended and leaves no thread behind. Calls may come from several threads. Leaving
    the `with` block cancels the calls that still run.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        on_event: Callable[[ev.Event], None] | None = None,
        on_progress: Callable[[ev.FileProgress], None] | None = None,
        on_overall: Callable[[Progress], None] | None = None,
        on_completed: Callable[[ev.FileCompleted], None] | None = None,
        on_error: Callable[[ev.FileFailed], None] | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Use `settings`, or what the environment and the config files say, with `options` in place of theirs.

        `options` are fields of `Settings` (`server`, `dest`, `jobs`, `token`, …): numbers, or strings as the
        command line takes them ("10M"). `on_event` gets each event of the stream that `--json` writes, `on_progress`
        those of running files, `on_completed` and `on_error` the end of a file, and `on_overall` the totals ten times a
        second. Callbacks run in the thread of the call; the first exception of one ends the run and leaves the call.

        Raises `UsageError` for an unknown option or a wrong value.
        """
        self.settings = _settings(settings, options)
        self._callbacks = _Callbacks(on_event, on_progress, on_overall, on_completed, on_error)
        self._running: set[threading.Event] = set()
        self._lock = threading.Lock()

    def upload(self, paths: Paths = (), *, cancel: threading.Event | None = None) -> Result:
        """Upload files and directories, or without `paths` what `settings.from_file` lists; return their receipts.

        A binary file object is sent from its position on, under the option `name`; that run can't be resumed.

        Failed files raise nothing: see `Result.ok` and `Result.receipts`. Set `cancel` from another thread to end the
        run in order; it can be resumed. Raises `UsageError` for a missing path or an empty selection.
        """
        settings, given = self._sending(), None
        if hasattr(paths, "read") and not isinstance(paths, os.PathLike):
            settings, given = file_of(settings, cast("BinaryIO", paths), "a file object")
            names = [given.path]
        else:
            names = _names(paths)
            if settings.name is not None and settings.source("name").layer in (Layer.FLAG, Layer.DEFAULT):
                raise UsageError("name=… names a file object, and paths were given", hint="omit it")
        settings, notices = writable_state(settings)
        with (
            self._interruptible(cancel) as interrupts,
            readable_list(settings, names) as ready,
            Journal(ready.state_path, checkpoint=interrupts.checkpoint) as journal,
        ):
            journal.notices += notices
            sending = Upload(ready, names, env={}, given=given)
            with begin(ready, names, journal, lasting=given is None) as run:
                return self._send(sending, run, interrupts)

    def resume(self, run: str | None = None, *, cancel: threading.Event | None = None) -> Result:
        """Resume the interrupted run with this id, by default the newest; return a receipt for each file.

        The run keeps the options that define it, as with `uploader resume`; all others are those of `settings`, as are
        `proxy`, `ca_bundle` and `client_cert` where it has them. Token and secret headers go only to the server of
        `settings`. Raises `UsageError` where there is no such run.
        """
        with (
            self._interruptible(cancel) as interrupts,
            Journal(self._sending().state_path, checkpoint=interrupts.checkpoint) as journal,
        ):
            ways = {name: _text(value) for name in WAYS if (value := getattr(self.settings, name))}
            run_id, stored, directory, typed = stored_run(journal, run, ways, env={})
            settings = resumed(self.settings, stored)
            names = [path if is_url(path) else os.path.join(directory, path) for path in typed]
            with readable_list(settings, names) as ready:
                sending = Upload(ready, names, env={})
                return self._send(sending, journal.resume(run_id), interrupts)

    def watch(self, *sessions: str, wait: float = 30.0, cancel: threading.Event | None = None) -> Result:
        """Follow sessions that another process uploads until they end; return a receipt for each file that ended.

        `wait` is how many seconds a session may be unknown to the server.
        """
        receipts = Receipts()
        with self._interruptible(cancel) as interrupts:
            outcome = watch(self.settings, sessions, wait, [self._callbacks, receipts], interrupts)
        return receipts.result(outcome)

    def cancel(self) -> None:
        """Cancel the calls that run, from any thread; each ends in order within seconds and can be resumed."""
        with self._lock:
            for event in self._running:
                event.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    @contextmanager
    def _interruptible(self, cancel: threading.Event | None) -> Iterator[Interrupts]:
        event = threading.Event() if cancel is None else cancel
        if not hasattr(event, "is_set"):
            raise UsageError(f"cancel must be a threading.Event, not {cancel!r}")
        early = Interrupted("the call was cancelled before its run began")
        with self._lock:
            self._running.add(event)
        try:
            yield Interrupts(cancel=event, error=lambda _code: early)
        finally:
            with self._lock:
                self._running.discard(event)

    def _sending(self) -> Settings:
        """Return the settings. Raises `UsageError` for those with which nothing would be sent."""
        if (other := instead(self.settings)) is not None:
            given_as = self.settings.given_as(other.options[0].name)
            raise UsageError(f"{given_as} is only for the command", hint="use the command uploader upload")
        return self.settings

    def _send(self, sending: Upload, run: RunHandle, interrupts: Interrupts) -> Result:
        receipts, log = Receipts(), open_log(sending.settings, run.id)
        observers: list[Observer] = [self._callbacks, receipts, *([log] if log else [])]
        outcome, notices = sending.send(run, observers, interrupts)
        problems = tuple(problem for one in notices for problem in one.problems)
        return replace(receipts.result(outcome), report_problems=problems)


def upload(
    paths: Paths = (),
    settings: Settings | None = None,
    *,
    on_event: Callable[[ev.Event], None] | None = None,
    on_progress: Callable[[ev.FileProgress], None] | None = None,
    on_overall: Callable[[Progress], None] | None = None,
    on_completed: Callable[[ev.FileCompleted], None] | None = None,
    on_error: Callable[[ev.FileFailed], None] | None = None,
    cancel: threading.Event | None = None,
    **options: Unpack[Options],
) -> Result:
    """Upload files and directories, or a binary file object, once; return a receipt for each file.

    `Uploader` describes settings, options and callbacks, `Uploader.upload` the rest.
    """
    uploader = Uploader(
        settings,
        on_event=on_event,
        on_progress=on_progress,
        on_overall=on_overall,
        on_completed=on_completed,
        on_error=on_error,
        **options,
    )
    return uploader.upload(paths, cancel=cancel)


async def upload_async(
    paths: Paths = (),
    settings: Settings | None = None,
    *,
    on_event: Callable[[ev.Event], None] | None = None,
    on_progress: Callable[[ev.FileProgress], None] | None = None,
    on_overall: Callable[[Progress], None] | None = None,
    on_completed: Callable[[ev.FileCompleted], None] | None = None,
    on_error: Callable[[ev.FileFailed], None] | None = None,
    cancel: threading.Event | None = None,
    **options: Unpack[Options],
) -> Result:
    """Upload as `upload` does, without blocking the event loop; callbacks run in the event loop's thread.

    A cancelled task cancels the upload, waits until it has ended in order, and raises `asyncio.CancelledError`. An
    exception of a callback goes to the event loop's exception handler and does not end the upload.
    """
    loop = asyncio.get_running_loop()
    cancel = cancel or threading.Event()

    def in_loop(callback: Callable[..., None] | None) -> Callable[..., None] | None:
        def later(*arguments: object) -> None:
            loop.call_soon_threadsafe(cast("Callable[..., None]", callback), *arguments)

        return None if callback is None else later

    callbacks = _Callbacks(on_event, on_progress, on_overall, on_completed, on_error)  # checks them
    in_thread: dict[str, Any] = {spec.name: in_loop(getattr(callbacks, spec.name)) for spec in fields(_Callbacks)}
    work = asyncio.ensure_future(asyncio.to_thread(upload, paths, settings, cancel=cancel, **in_thread, **options))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancel.set()
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # retrieved: the caller gets CancelledError
        raise


def _names(paths: Paths) -> list[str]:
    """Return the paths as text. Raises `UsageError` for something else than paths."""
    if isinstance(paths, str | bytes | os.PathLike):
        paths = [cast("str", paths)]
    elif not isinstance(paths, Iterable):
        raise UsageError(f"paths must be text or os.PathLike, not {paths!r}")
    names = []
    for path in paths:
        if not isinstance(path, str | bytes | os.PathLike):
            raise UsageError(f"a path must be text or os.PathLike, not {path!r}")
        names.append(os.fsdecode(path))
    return names


def _settings(settings: Settings | None, options: Options) -> Settings:
    """Return the settings with `options` in place of theirs. Raises `UsageError` that names the option."""
    for name in options:
        if name not in OPTIONS:
            hint = lacking(name) or guess(name, OPTIONS, "options are the fields of uploader_cli.Settings")
            raise UsageError(f"there is no option {name!r}", hint=hint)
    given = {name: _plain(name, value) for name, value in options.items() if value is not None}
    if settings is None:
        return resolve_here(given)
    settings = _parsed(settings)
    new = resolve({"server": "localhost", **given}, env={}, cwd=working_directory(), user_config=None)
    changes: dict[str, Any] = {name: getattr(new, name) for name in given}
    changes["sources"] = {**settings.sources, **{name: new.sources[name] for name in given}}
    if {"server", "tus_endpoint", "upload_url"} & given.keys():
        changes["distrust"] = ""
    if "server" in changes and "tus_endpoint" not in changes and settings.tus_endpoint:
        changes |= {"tus_endpoint": None, "protocol": "auto"}  # an endpoint had made it tus
    return replace(settings, **changes)


def _plain(name: str, value: object) -> object:
    """Return paths as text, and the values of an option that may be repeated as a tuple."""
    if not OPTIONS[name].many:
        return _text(value)
    is_one = isinstance(value, str | os.PathLike | _PARSED) or not isinstance(value, Iterable)
    return tuple(map(_text, [value] if is_one else cast("Iterable[object]", value)))


def _text(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _parsed(settings: Settings) -> Settings:
    """Return the settings of a caller with parsed values. Raises `UsageError` for a wrong one.

    Values are checked as on the command line; None and empty text stand for the default, and a path is taken as it is.
    """
    if not isinstance(settings, Settings):
        raise UsageError(f"settings must be an instance of Settings, not {settings!r}")
    if settings.sources:  # `resolve` has parsed them
        return settings
    changes: dict[str, Any] = {}
    for name, option in OPTIONS.items():
        value: Any = getattr(settings, name)
        if value == option.default or value == math.inf:
            continue
        try:
            if value is None or value == "":
                changes[name] = option.default
            elif option.many:
                changes[name] = tuple(_parse(option, item) for item in cast("tuple[object, ...]", _plain(name, value)))
            else:
                changes[name] = _parse(option, value)
            if option.resolve is not None and changes[name] != option.default:
                changes[name] = option.resolve(changes[name], os.environ)
        except Invalid as error:
            raise UsageError(f"{option.flag}: {error}", hint=error.hint) from None
    return replace(settings, **changes)


def _parse(option: Option, value: object) -> object:
    return value if isinstance(value, _PARSED | Path) else option.parse(value)


_PARSED = ChunkRule | Header | Metadata | Moment | ReportFile


@dataclass(slots=True)
class _Callbacks(Observer):
    """Calls the caller's functions. Raises `UsageError` for one that can't be called."""

    on_event: Callable[[ev.Event], None] | None = None
    on_progress: Callable[[ev.FileProgress], None] | None = None
    on_overall: Callable[[Progress], None] | None = None
    on_completed: Callable[[ev.FileCompleted], None] | None = None
    on_error: Callable[[ev.FileFailed], None] | None = None

    def __post_init__(self) -> None:
        for name, callback in ((spec.name, getattr(self, spec.name)) for spec in fields(self)):
            if callback is not None and not callable(callback):
                raise UsageError(f"{name} must be callable, not {callback!r}")

    def handle(self, event: ev.Event, _state: ProgressState, _now: float) -> None:
        if self.on_event is not None and event.type:
            self.on_event(event)
        match event:
            case ev.FileProgress() if self.on_progress is not None:
                self.on_progress(event)
            case ev.FileCompleted() if self.on_completed is not None:
                self.on_completed(event)
            case ev.FileFailed() if self.on_error is not None:
                self.on_error(event)

    def refresh(self, state: ProgressState, now: float) -> None:
        if self.on_overall is not None:
            self.on_overall(Progress.of(state, now))

    def close(self, state: ProgressState, now: float) -> None:
        if state.outcome is not None:  # no exception ended the run
            self.refresh(state, now)
