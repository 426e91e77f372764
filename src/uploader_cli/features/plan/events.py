"""The lines of a dry run in the event stream."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from uploader_cli.core.events import (
    Bytes,
    Count,
    Event,
    Extended,
    FileNumber,
    Internal,
    Ordinal,
    public_among,
    with_features,
)


class LimitsOrigin(StrEnum):
    """Whether a server reported its limits, earlier or now, or they are assumed (batch mode only), or unknown."""

    SEEN = "seen"
    ASSUMED = "assumed"
    UNKNOWN = "unknown"


class PlanStarted(Event, frozen=True, tag="plan.started"):
    """The first line. `max_files` of a session (None: no limit), `max_file_size` in bytes (None: no limit), `types`."""

    server: str
    protocol: str
    jobs: Count
    limits: LimitsOrigin
    max_files: Count | None
    max_file_size: Bytes | None
    types: tuple[str, ...]


class PlanSession(Event, frozen=True, tag="plan.session"):
    """A planned session (`session_number` from 1); its files follow.

    `category` is None at a tus endpoint, which has no sessions: there it is a group of as many files. `first` are the
    names of the first ones on the server.
    """

    session_number: Ordinal
    category: str | None
    files: Count
    bytes: Bytes
    kinds: Internal[tuple[str, ...]] = ()
    first: Internal[tuple[str, ...]] = ()


@with_features
class PlanFile(Extended, frozen=True, tag="plan.file"):
    """A file that would be sent, with its name on the server."""

    file: FileNumber
    path: str
    size: Bytes
    name: str
    session_number: Ordinal


class PlanFinished(Event, frozen=True, tag="plan.finished"):
    """The last line. `exit_code` is that of a run in which everything succeeds."""

    ends: ClassVar[bool] = True
    files: Count
    bytes: Bytes
    sessions: Count
    skipped: Count
    failed: Count
    exit_code: int


PLANNED = public_among((PlanStarted, PlanSession, PlanFile, PlanFinished))
