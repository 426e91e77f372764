"""The checks, ordered so that a failure explains the following ones."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from uploader_cli.checks.smoke import basics, batches, cancelling, cleanup, extensions, limits, live, resumable, safety
from uploader_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uploader_cli.checks.smoke.site import Site


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `look` raises an exception of `verdicts`, or returns a note, which may be empty."""

    id: str
    description: str
    """The expectation."""
    means: str
    """The consequence of a failure for users."""
    look: Callable[[Site], str]
    required: bool = True
    rests_on: str = ""
    """The ID of a check without which this one is meaningless."""


CHECKS = (
    Check(
        "health", "GET /health returns OK", "monitoring and `uploader doctor` report the server as down", basics.health
    ),
    Check("session", "a session is created, with its limits", "no upload is possible", basics.session),
    Check(
        "session-bad-input",
        "invalid values for a session are refused",
        "mistakes are noticed only after files were sent",
        basics.session_bad_input,
    ),
    Check(
        "validate",
        "files can be validated before they are sent",
        "`uploader validate` gives wrong results, or none",
        basics.validate,
        required=False,
    ),
    Check("unknown-session", "unknown sessions are refused", "lost sessions go unnoticed", basics.unknown_session),
    Check("batch-one", "a batch of one file is stored", "files don't arrive", batches.batch_one),
    Check(
        "stored-file",
        "stored files can be read and are what was sent",
        "uploads can't be verified, or are corrupted",
        batches.stored_file,
    ),
    Check(
        "batch-several",
        "a batch of several files is stored, whatever their names",
        "some files don't arrive, or are mixed up",
        batches.batch_several,
        rests_on="batch-one",
    ),
    Check(
        "batch-cut",
        "a batch can be sent again after a cut",
        "after a lost connection an upload can't continue",
        batches.batch_cut,
        rests_on="batch-one",
    ),
    Check("websocket", "Socket.IO connects over websocket", "progress comes late: clients poll", live.websocket),
    Check(
        "long-polling",
        "Socket.IO connects over long polling",
        "behind proxies without websockets there is no live progress",
        live.long_polling,
    ),
    Check("events", "a room gets the events of an upload to its end", "progress is missing or wrong", live.events),
    Check(
        "polling",
        "/progress agrees with the events",
        "without a live connection the progress is wrong",
        live.polling,
    ),
    Check(
        "join-late", "a late client gets the remaining events", "a late `uploader watch` shows nothing", live.join_late
    ),
    Check(
        "reconnect",
        "a cut connection can be restored",
        "after a short interruption clients get no events",
        live.reconnect,
    ),
    Check(
        "cancel",
        "a running session can be cancelled",
        "`uploader cancel` has no effect, or none that shows",
        cancelling.cancel,
    ),
    Check(
        "tus-core",
        "tus: uploads can be created, sent and queried",
        "resumable uploads don't work",
        resumable.core,
    ),
    Check(
        "tus-resume",
        "tus: a cut upload resumes at its offset",
        "after a lost connection files restart, or are corrupted",
        resumable.resume,
        rests_on="tus-core",
    ),
    Check(
        "tus-checksum",
        "tus: correct checksums are accepted",
        "clients with checksums can't upload",
        resumable.checksum,
        rests_on="tus-core",
    ),
    Check(
        "tus-checksum-mismatch",
        "tus: a chunk with a wrong checksum is discarded",
        "bytes that were corrupted on their way are stored",
        resumable.checksum_mismatch,
        rests_on="tus-core",
    ),
    Check(
        "tus-creation-with-upload",
        "tus: a creation may carry the first bytes",
        "clients that rely on it lose the first bytes",
        extensions.creation_with_upload,
        rests_on="tus-core",
    ),
    Check(
        "tus-creation-defer-length",
        "tus: the length may be sent later",
        "streams of unknown length can't be uploaded",
        extensions.defer_length,
        rests_on="tus-core",
    ),
    Check(
        "tus-expiration",
        "tus: unfinished uploads report their expiry",
        "clients resume uploads that have expired",
        extensions.expiration,
        rests_on="tus-core",
        required=False,
    ),
    Check(
        "tus-termination",
        "tus: an upload can be deleted",
        "abandoned uploads stay until they expire",
        extensions.termination,
        rests_on="tus-core",
    ),
    Check(
        "tus-concatenation",
        "tus: partial uploads are joined",
        "large files sent in parts don't arrive",
        extensions.concatenation,
        rests_on="tus-core",
    ),
    Check(
        "limit-type",
        "a type that is not allowed is refused",
        "unusable files are stored",
        limits.limit_type,
    ),
    Check("limit-size", "a file that is too large is refused", "one file can fill the disk", limits.limit_size),
    Check("limit-count", "too many files are refused", "sessions exceed the server's capacity", limits.limit_count),
    Check(
        "path-traversal",
        "no file name escapes the upload directory",
        "anybody who uploads may read or overwrite other files",
        safety.path_traversal,
    ),
    Check(
        "auth",
        "files are deleted only with a valid token",
        "anybody can delete files, or nobody",
        safety.auth,
    ),
    Check(
        "rate-limit",
        "requests are counted, and responses report it",
        "clients run into 429 instead of waiting in time",
        basics.rate_limit,
    ),
    Check(
        "clean-up",
        "what the checks created can be deleted",
        "files uploaded by mistake stay",
        cleanup.clean_up,
    ),
)


def chosen(only: Sequence[str] = (), skip: Sequence[str] = ()) -> tuple[Check, ...]:
    """Return the checks that match one of `only` (empty: all) and none of `skip`; both are IDs or globs.

    Raises `UsageError` for a pattern without a match, and if no check is left.
    """
    for option, patterns in (("--only", only), ("--skip", skip)):
        for pattern in patterns:
            if not any(fnmatchcase(check.id, pattern) for check in CHECKS):
                ids = ", ".join(check.id for check in CHECKS)
                raise UsageError(f"{option}: no check matches {pattern!r}", hint=f"the checks are {ids}")
    found = tuple(check for check in CHECKS if (not only or _matches(check, only)) and not _matches(check, skip))
    if not found:
        raise UsageError("--skip excludes all checks of --only", hint="omit one of them")
    return found


def _matches(check: Check, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(check.id, pattern) for pattern in patterns)
