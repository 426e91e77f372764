"""`--dry-run`: compute the plan with the planner of a real run. No file is sent."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from uploader_cli import exit_status
from uploader_cli.core import events as ev
from uploader_cli.core.capabilities import CREATION_WITH_UPLOAD, Capabilities
from uploader_cli.core.jobs import FIRST_JOBS
from uploader_cli.core.plan import ASSUMED, ENDLESS, LocalFile, PlannedSession, endless, plan_sessions, refusal
from uploader_cli.core.sizes import Groups, PackSize
from uploader_cli.core.terms import Offer
from uploader_cli.errors import AnswerError, NetworkError, ProtocolError
from uploader_cli.exit_status import Exit
from uploader_cli.feature import used
from uploader_cli.features.plan.events import LimitsOrigin, PlanFile, PlanFinished, PlanSession, PlanStarted
from uploader_cli.features.plan.plan_view import PlanView
from uploader_cli.render import columns
from uploader_cli.render.ndjson import NdjsonView
from uploader_cli.run.connections import client
from uploader_cli.run.known_servers import KnownServer, recall
from uploader_cli.run.phase import check_phases
from uploader_cli.run.piped_lists import readable_list
from uploader_cli.run.run_journal import history_of, writable_state
from uploader_cli.selection.selecting import check_together, select
from uploader_cli.selection.selection import differs
from uploader_cli.selection.standard_input import standard_input
from uploader_cli.selection.walk import Selected, forgiven
from uploader_cli.settings import Settings
from uploader_cli.transfer.journal.journal import History
from uploader_cli.transfer.ledger import SKIPS
from uploader_cli.transfer.scheduler import CHECKED_AT_ONCE
from uploader_cli.transfer.stored_files import shows_place
from uploader_cli.transfer.targets import target_of

FIRST_NAMES = 3
"""Number of files named in a session's row."""


def dry_run(settings: Settings, paths: Sequence[str]) -> int:
    """Print the plan; the exit code is that of a run in which everything succeeds."""
    check_together(settings)
    standard_input(settings, paths)  # it is not read
    with readable_list(writable_state(settings)[0], paths) as ready, history_of(ready, paths) as history:
        is_stored = history.is_stored if history is not None and ready.consumes else None
        found = select(ready, paths) if is_stored is None else select(ready, paths, is_stored)
        check_phases(ready, found)
        return Plan(ready, _view(ready), history).run(found).exit_code


def _view(settings: Settings) -> Callable[[ev.Event], None]:
    if settings.json:
        return NdjsonView(sys.stdout).tell
    if settings.quiet:
        return lambda _event: None
    return PlanView(sys.stdout, width=columns(stream=sys.stdout), verbose=settings.verbose > 0).tell


class Plan:
    """Walks a selection as a run does and reports what that run would do."""

    def __init__(self, settings: Settings, tell: Callable[[ev.Event], None], history: History | None = None) -> None:
        """Raise `UsageError` where the server is known not to support the requested options."""
        self._settings, self._tell, self._history = settings, tell, history
        self._seen, self._origin = _known(settings)
        self._target = target = target_of(settings)
        self._terms = terms = target.terms(self._seen.offer)
        if self._origin is LimitsOrigin.SEEN or not terms.sessions:
            target.check(self._seen.offer)
        self._jobs = FIRST_JOBS if settings.jobs == "auto" else settings.jobs
        self._packs: PackSize | None = None
        if terms.packs is not None:
            self._packs = PackSize(terms.packs, settings.chunk_size, self._jobs, limit_rate=settings.limit_rate)
        self._skipped = 0  # files
        self._failed: list[Exit] = []

    @property
    def _protocol(self) -> str:
        if self._origin is LimitsOrigin.UNKNOWN and self._terms.sessions:
            return self._settings.protocol
        return self._terms.protocol

    def run(self, found: Iterable[Selected]) -> PlanFinished:
        """Report the whole plan and return its last event."""
        limits, sessions, files, size = self._terms.limits, 0, 0, 0
        self._tell(
            PlanStarted(
                server=self._settings.target_url,
                protocol=self._protocol,
                jobs=self._jobs if self._terms.tus is not None else 1,
                limits=self._origin,
                max_files=limits.max_files if limits.max_files < ENDLESS else None,
                max_file_size=limits.max_file_size if limits.max_file_size < ENDLESS else None,
                types=tuple(sorted(limits.allowed_types)),
            )
        )
        for session in plan_sessions(self._grouped(self._acceptable(found)), limits):
            left = PlannedSession([file for file in session.files if not self._is_done(file)])
            if not left.files:
                continue
            sessions += 1
            planned = self._session(sessions, left)
            files, size = files + planned.files, size + planned.bytes
        outcome = PlanFinished(
            files=files,
            bytes=size,
            sessions=sessions if self._terms.sessions else 0,
            skipped=self._skipped,
            failed=len(self._failed),
            exit_code=int(exit_status.worst(self._failed)),
        )
        self._tell(outcome)
        return outcome

    def _session(self, number: int, session: PlannedSession) -> PlanSession:
        planned = PlanSession(
            session_number=number,
            category=(session.category or self._settings.category) if self._terms.sessions else None,
            files=len(session.files),
            bytes=session.size,
            kinds=tuple(dict.fromkeys(file.kind for file in session.files)),
            first=tuple(file.relative_path for file in session.files[:FIRST_NAMES]),
        )
        self._tell(planned)
        for file in session.files:
            fields = _planned(self._settings, file)
            self._tell(PlanFile(file.file, file.path, file.size, file.relative_path, number, **fields))
        return planned

    def _grouped(self, files: Iterable[LocalFile]) -> Iterator[LocalFile]:
        """Yield files in the order in which the scheduler checks them, group by group."""
        checked: deque[LocalFile] = deque()
        groups = Groups(self._packs, CHECKED_AT_ONCE, lambda group, _packed: checked.extend(group))
        for file in files:
            groups.add(file)
            while checked:
                yield checked.popleft()
        groups.flush()
        yield from checked

    def _acceptable(self, found: Iterable[Selected]) -> Iterator[LocalFile]:
        """Yield the files that would be sent; report the others."""
        limits = self._terms.limits
        for item in found:
            if self._history is not None and self._settings.consumes:
                item = forgiven(item, self._history.is_stored)
            if isinstance(item, ev.FileSkipped):
                self._skip(item)
            elif isinstance(item, ev.FileFailed):
                self._fail(item)
            else:
                refused = refusal(item, limits)
                if self._is_sent(item):
                    self._skip_sent(item)
                elif refused is not None and not item.named:
                    self._skip(ev.FileSkipped(item.file, item.path, SKIPS[refused.code]))
                elif refused is not None or (refused := self._target.refusal(item, lambda: None)) is not None:
                    self._fail(ev.FileFailed(item.file, item.path, refused.code, refused.message, retryable=False))
                elif (wrong := differs(item)) is not None:
                    self._fail(wrong)
                else:
                    yield item

    def _is_sent(self, file: LocalFile) -> bool:
        """Return whether the run would skip the file by the receipt of an earlier one, if the server still has it."""
        settings, places = self._settings, self._terms.limits.relative_paths
        if self._history is None or not (settings.skips_sent or settings.skip_existing):
            return False
        if settings.skip_existing:
            return (places or settings.trust_receipts) and self._history.sent_before(file)
        if not places or self._seen.lookup == 1:
            return False
        (receipt,) = self._history.receipts([file])
        return receipt is not None and shows_place(receipt, file, settings.category)

    def _is_done(self, file: LocalFile) -> bool:
        """Return whether the resumed run has a receipt for the file."""
        if self._history is None or not self._history.done(file):
            return False
        self._skip_sent(file)
        return True

    def _skip_sent(self, file: LocalFile) -> None:
        fields = _planned(self._settings, file)
        self._skip(ev.FileSkipped(file.file, file.path, ev.SkipReason.RECEIPT, **fields))

    def _skip(self, item: ev.FileSkipped) -> None:
        self._skipped += 1
        self._tell(item)

    def _fail(self, item: ev.FileFailed) -> None:
        self._failed.append(exit_status.of_failure(item.code, retryable=False))
        self._tell(item)


def _planned(settings: Settings, file: LocalFile) -> dict[str, Any]:
    """Return the fields of an event that say what features would do with a file that the server has."""
    fields: dict[str, Any] = {}
    for feature in used(settings):
        if feature.plans:
            fields |= feature.load(feature.plans)(settings, file)
    return fields


def _known(settings: Settings) -> tuple[KnownServer, LimitsOrigin]:
    """Return what the cache knows of the server, else what `/health` says.

    Where neither has limits, those of the reference backend are assumed in batch mode (docs/protocol.md section 3.12).
    """
    seen, batch = recall(settings.target_url), settings.protocol == "batch"
    if seen is None and settings.base_url:
        seen, healthy = _asked(settings)
        batch = batch or (healthy and settings.protocol == "auto")
    if seen is not None:
        return seen, LimitsOrigin.SEEN
    if batch:
        return KnownServer(Offer(ASSUMED)), LimitsOrigin.ASSUMED
    tus = Capabilities(settings.target_url, extensions=frozenset({"creation", CREATION_WITH_UPLOAD}))
    return KnownServer(Offer(endless(tus.max_size), tus)), LimitsOrigin.UNKNOWN


def _asked(settings: Settings) -> tuple[KnownServer | None, bool]:
    """Ask the server for its limits; also return whether an upload server without resumable uploads has answered."""
    with client(settings) as api:
        try:
            offer = api.health()
        except (NetworkError, AnswerError, ProtocolError):
            return None, False
        if offer.limits is None:
            return None, api.healthy and offer.tus is None
        return KnownServer(offer), False
