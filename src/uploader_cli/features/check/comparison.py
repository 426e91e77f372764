"""The command `check`: compare local files with those on the server (docs/extensions.md)."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import TypeAlias, TypeVar

from uploader_cli.core import events as ev
from uploader_cli.core.jobs import FIRST_JOBS
from uploader_cli.core.packs import FoundFile, LookedUp, LookupOffer
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.protocol import location_in, utf8
from uploader_cli.errors import (
    AnswerError,
    FileError,
    FileFailure,
    NetworkError,
    Unreachable,
    UsageError,
)
from uploader_cli.exit_status import Exit
from uploader_cli.features.check.comparison_view import ComparisonView
from uploader_cli.features.check.events import CheckFile, CheckFinished, CheckResult
from uploader_cli.render import choose, columns
from uploader_cli.render.ndjson import NdjsonView
from uploader_cli.run.connections import client
from uploader_cli.run.piped_lists import readable_list
from uploader_cli.run.run_journal import history_of, writable_state
from uploader_cli.selection.selecting import select
from uploader_cli.settings import Settings
from uploader_cli.sources.content import OnRead, sha256_of
from uploader_cli.transfer.api import Api
from uploader_cli.transfer.journal.journal import History
from uploader_cli.transfer.stored_files import digest_read_back, looked_up, with_digests

Item: TypeAlias = LocalFile | ev.FileFailed | ev.FileSkipped
Compared: TypeAlias = CheckFile | ev.FileFailed | ev.FileSkipped

A = TypeVar("A")
B = TypeVar("B")

AS_SENT = "compare the files as they are sent, with: uploader upload --verify"
COMPARISONS_AHEAD = 256  # most files whose comparisons run or wait


def compare(settings: Settings, paths: Sequence[str], *, content: bool, read: bool = False) -> int:
    """Compare the files with the server's by SHA-256, without `content` by size; exit 4 unless all are the same.

    With `read` the server reads its files anew; digests that it has recorded do not count.
    """
    if settings.tus_endpoint:
        raise UsageError(
            f"{settings.tus_endpoint} can't be asked which files it has: a tus server has no lookup",
            hint=AS_SENT,
        )
    hint = f"{AS_SENT}, or sizes, with: --size-only" if content else AS_SENT
    with readable_list(writable_state(settings)[0], paths) as ready:
        found = select(ready, paths)
        view, lock = _view(ready, content=content), threading.Lock()
        show = NdjsonView(sys.stdout).tell if ready.json else view.tell

        def tell(event: ev.Event) -> None:
            with lock:
                show(event)

        def emit(event: ev.Event) -> None:  # in the threads of the comparison, as `on_read`
            if isinstance(event, ev.RunWarning):
                tell(event)

        def on_read(_file: LocalFile, _position: int, data: bytes | memoryview) -> None:
            with lock:
                view.read(len(data))

        with closing(view), history_of(ready, paths) as history, client(ready, emit=emit) as api:
            known = api.health()
            limits, offer = known.limits, known.lookup
            if offer is None and (content or limits is None or not limits.relative_paths):
                offer = _lookup_of(api, hint)
            api.pacer.probe = partial(api.health, patient=False)
            reads = on_read if content else None
            with closing(Comparison(api, offer, ready, history, reads, anew=read)) as comparison:
                try:
                    return _report(comparison.results(found), tell)
                except NetworkError as error:
                    raise Unreachable(str(error), hint=error.hint) from error
                except AnswerError as error:
                    if not content or error.status != 400:  # an older server refuses what it does not know
                        raise
                    words = f"{settings.server} can't be asked for the contents of its files: {error}"
                    raise UsageError(words, hint=hint) from error


def _lookup_of(api: Api, hint: str) -> LookupOffer:
    """Ask again for the lookup. Raise `UsageError` with `hint` without one, and `NotAnUploadServer` for others."""
    offer = api.health().lookup
    if offer is None:
        raise api.lacking(f"{api.settings.server} can't be asked which files it has: it has no lookup", hint=hint)
    return offer


def _report(results: Iterable[Compared], tell: Callable[[ev.Event], None]) -> int:
    """Report each result and the summary; return the exit code."""
    counts, size, began = Counter[str](), 0, time.monotonic()
    for result in results:
        match result:
            case CheckFile():
                counts[result.result] += 1
                size += result.size
            case ev.FileFailed():
                counts["failed"] += 1
            case ev.FileSkipped():
                counts["skipped"] += 1
        tell(result)
    same = not counts["different"] and not counts["missing"] and not counts["failed"]
    tell(
        CheckFinished(
            same=counts["same"] + counts["same_size"],
            different=counts["different"],
            missing=counts["missing"],
            failed=counts["failed"],
            skipped=counts["skipped"],
            bytes=size,
            seconds=round(time.monotonic() - began, 3),
            exit_code=Exit.OK if same else Exit.FAILED_FOR_GOOD,
        )
    )
    return Exit.OK if same else Exit.FAILED_FOR_GOOD


class Comparison:
    """Compare files in threads with a connection each. Memory does not grow with the number of files."""

    def __init__(
        self,
        api: Api,
        offer: LookupOffer | None,
        settings: Settings,
        history: History | None,
        on_read: OnRead | None = None,
        *,
        anew: bool = False,
    ) -> None:
        """Compare sizes, with `on_read` also the SHA-256; it gets what is read. `close` ends the threads.

        Without an `offer` each file needs a request of its own. With `anew` the server reads its files; from one that
        refuses that, as early versions do, the bytes are read back.
        """
        self._digests = ("read" if anew else "compute") if on_read is not None else "known"
        self._reads_back = False
        self._api, self._offer, self._history, self._on_read = api, offer, history, on_read
        self._own, self._max_wait = settings.category, settings.max_wait
        self._jobs = FIRST_JOBS if settings.jobs == "auto" else settings.jobs
        self._pool = ThreadPoolExecutor(self._jobs, thread_name_prefix="uploader-check")
        self._thread = threading.local()
        self._apis: list[Api] = []  # one per thread

    def results(self, items: Iterable[Item]) -> Iterator[Compared]:
        """Yield the result of each file in order, and the other items as they are. Raise what ends the check."""
        rest = iter(items)
        most = 1 if self._offer is None else self._offer.max_files
        groups = iter(lambda: list(islice(rest, most)), [])
        found = chain.from_iterable(self._in_order(self._look_up, groups, self._jobs))
        return self._in_order(self._compare, found, COMPARISONS_AHEAD) if self._on_read else map(self._compare, found)

    def close(self) -> None:
        """End running calls and the threads."""
        self._api.pacer.stop.set()
        for api in self._apis:
            api.shut()
        self._pool.shutdown(cancel_futures=True)
        for api in self._apis:
            api.close()

    def _in_order(self, call: Callable[[A], B], items: Iterable[A], ahead: int) -> Iterator[B]:
        """Yield `call(item)` of each item, computed in the threads, at most `ahead` in advance."""
        running: deque[Future[B]] = deque()
        for item in items:
            running.append(self._pool.submit(call, item))
            if len(running) > ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()

    def _look_up(self, group: Sequence[Item]) -> list[tuple[Item, FoundFile | None]]:
        files = [item for item in group if isinstance(item, LocalFile)]
        receipts = self._history.receipts(files) if self._history is not None else [None] * len(files)
        known = zip(files, receipts, strict=True)
        found = iter(self._find([looked_up(file, self._own, receipt) for file, receipt in known]))
        return [(item, next(found) if isinstance(item, LocalFile) else None) for item in group]

    def _compare(self, asked: tuple[Item, FoundFile | None]) -> Compared:
        file, found = asked
        if not isinstance(file, LocalFile):
            return file
        same = found is not None and found.size == file.size
        if found is not None and self._on_read is not None:
            try:
                found, same = self._by_content(file, found, self._on_read)
            except (FileError, FileFailure) as error:
                return ev.FileFailed(file.file, file.path, error.code, error.reason, error.retryable)
        equal = CheckResult.SAME if self._on_read is not None else CheckResult.SAME_SIZE
        result = CheckResult.MISSING if found is None else equal if same else CheckResult.DIFFERENT
        size, location = (found.size, found.location) if found is not None else (None, None)
        return CheckFile(file.file, file.path, file.size, utf8(file.relative_path), result, size, location)

    def _by_content(self, file: LocalFile, found: FoundFile, on_read: OnRead) -> tuple[FoundFile | None, bool]:
        """Return the stored file, and whether its bytes are equal. One under another name is found by its digest."""
        found = self._read_back(found, file)
        if found.sha256 is None and found.size == file.size:
            words = "the server gives no digest of it: compare sizes with --size-only"
            raise FileFailure(words, code=ev.FailureCode.SERVER_FAILED)
        mine = sha256_of(file, self._api.pacer.stop.checkpoint, on_read=on_read)
        if (found.size, found.sha256) == (file.size, mine):
            return found, True
        (other,) = self._find([looked_up(file, self._own)._replace(sha256=mine)])
        if other is not None and (other.size, self._read_back(other, file).sha256) == (file.size, mine):
            return other, True
        return found, False

    def _read_back(self, found: FoundFile, file: LocalFile) -> FoundFile:
        """Return a stored file with the SHA-256 of its bytes, if the server reads none anew and the sizes are equal."""
        if not self._reads_back or found.size != file.size or found.location is None:
            return found
        api, location = self._own_api(), found.location
        return replace(found, sha256=api.pacer.call(lambda: digest_read_back(api, location)))

    def _find(self, files: Sequence[LookedUp]) -> list[FoundFile | None]:
        if self._offer is None:
            return [self._size_of(file) for file in files]
        return with_digests(self._ask_for, files, self._api.pacer.stop, self._max_wait)

    def _size_of(self, file: LookedUp) -> FoundFile | None:
        api, where = self._own_api(), location_in(file.category, file.path)
        there = api.stored(where, digest=False, retries=api.pacer.retries)
        return None if there is None else replace(there, location=where)

    def _ask_for(self, files: Sequence[LookedUp]) -> list[FoundFile | None]:
        api, offer = self._own_api(), self._offer
        assert offer is not None  # noqa: S101 - for the type checker
        try:
            digests = "known" if self._reads_back else self._digests
            return api.lookup(offer, files, digests=digests, retries=api.pacer.retries)
        except AnswerError as error:
            if error.status != 400 or digests != "read":
                raise
            self._reads_back = True
            return self._ask_for(files)

    def _own_api(self) -> Api:
        """Return the client of this thread."""
        api: Api | None = getattr(self._thread, "api", None)
        if api is None:
            api = self._thread.api = self._api.another()
            self._apis.append(api)
        return api


def _view(settings: Settings, *, content: bool) -> ComparisonView:
    return ComparisonView(
        sys.stdout,
        sys.stderr,
        width=columns(stream=sys.stdout),
        content=content,
        verbose=settings.verbose > 0,
        quiet=settings.quiet,
        moves=choose("auto", stderr_is_tty=sys.stderr.isatty(), env=os.environ, quiet=settings.json) == "live",
    )
