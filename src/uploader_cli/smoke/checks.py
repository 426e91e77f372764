"""The checks, in the order in which a failure explains what follows."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from uploader_cli.errors import UsageError
from uploader_cli.smoke import basics, batches, cancelling, cleanup, extensions, limits, live, resumable, safety

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uploader_cli.smoke.site import Site


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `look` raises what `verdicts` has, or gives a note to a pass; an empty one says nothing."""

    id: str
    description: str
    """What must hold."""
    means: str
    """What it means for those who upload where it does not."""
    look: Callable[[Site], str]
    required: bool = True
    rests_on: str = ""
    """A check after whose failure one of this is no news."""


CHECKS = (
    Check("health", "GET /health says OK", "monitoring and `uploader doctor` take the server for down", basics.health),
    Check("session", "a session opens, and names its limits", "no upload can begin", basics.session),
    Check(
        "session-bad-input",
        "bad values for a session are refused",
        "mistakes are noticed only when files were sent already",
        basics.session_bad_input,
    ),
    Check(
        "validate",
        "files can be validated before they are sent",
        "`uploader validate` gives wrong answers, or none",
        basics.validate,
        required=False,
    ),
    Check("unknown-session", "unknown sessions are refused", "lost sessions go unnoticed", basics.unknown_session),
    Check("batch-one", "a batch of one file is stored", "files don't arrive", batches.batch_one),
    Check(
        "stored-file",
        "what is stored can be read, and is what was sent",
        "uploads can't be verified, or are damaged",
        batches.stored_file,
    ),
    Check(
        "batch-several",
        "a batch of several files is stored, whatever their names",
        "some files don't arrive, or can't be told apart",
        batches.batch_several,
        rests_on="batch-one",
    ),
    Check(
        "batch-cut",
        "a batch that broke off can be sent again",
        "after a lost connection an upload can't go on",
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
    Check("events", "a room hears of an upload, to its end", "progress is not shown, or wrong", live.events),
    Check(
        "polling",
        "/progress says what the events say",
        "without a live connection clients show a wrong progress",
        live.polling,
    ),
    Check(
        "join-late", "who joins in the middle hears the rest", "a late `uploader watch` hears nothing", live.join_late
    ),
    Check(
        "reconnect",
        "a cut connection can be made anew",
        "after a short loss clients never hear of the upload again",
        live.reconnect,
    ),
    Check(
        "cancel",
        "a session can be cancelled under way",
        "`uploader cancel` does nothing, or does not show",
        cancelling.cancel,
    ),
    Check(
        "tus-core",
        "tus: uploads are created, sent, and asked for",
        "resumable uploads don't work",
        resumable.core,
    ),
    Check(
        "tus-resume",
        "tus: a cut upload goes on where it stood",
        "after a lost connection files begin anew, or are damaged",
        resumable.resume,
        rests_on="tus-core",
    ),
    Check(
        "tus-checksum",
        "tus: right checksums are accepted",
        "clients with checksums can't upload",
        resumable.checksum,
        rests_on="tus-core",
    ),
    Check(
        "tus-checksum-mismatch",
        "tus: a chunk with a wrong checksum is dropped",
        "bytes that were damaged on the way are stored",
        resumable.checksum_mismatch,
        rests_on="tus-core",
    ),
    Check(
        "tus-creation-with-upload",
        "tus: a creation may carry the first bytes",
        "clients that rely on it lose their first bytes",
        extensions.creation_with_upload,
        rests_on="tus-core",
    ),
    Check(
        "tus-creation-defer-length",
        "tus: the length may be told later",
        "streams of unknown length can't be uploaded",
        extensions.defer_length,
        rests_on="tus-core",
    ),
    Check(
        "tus-expiration",
        "tus: unfinished uploads say when they expire",
        "clients go on with uploads that are gone",
        extensions.expiration,
        rests_on="tus-core",
        required=False,
    ),
    Check(
        "tus-termination",
        "tus: an upload can be taken back",
        "abandoned uploads stay until they expire",
        extensions.termination,
        rests_on="tus-core",
    ),
    Check(
        "tus-concatenation",
        "tus: partial uploads are joined",
        "large files that travel in parts don't arrive",
        extensions.concatenation,
        rests_on="tus-core",
    ),
    Check(
        "limit-type",
        "a type that is not allowed is refused",
        "files are stored that nothing can use",
        limits.limit_type,
    ),
    Check("limit-size", "a file that is too large is refused", "one file can fill the disk", limits.limit_size),
    Check("limit-count", "too many files are refused", "sessions outgrow what the server can hold", limits.limit_count),
    Check(
        "path-traversal",
        "no name leads out of the upload directory",
        "anybody who uploads may read or overwrite other files",
        safety.path_traversal,
    ),
    Check(
        "auth",
        "files are deleted only with a good token",
        "anybody can delete files, or nobody",
        safety.auth,
    ),
    Check(
        "rate-limit",
        "calls are counted, and the answers say so",
        "clients run into 429 instead of waiting in time",
        basics.rate_limit,
    ),
    Check(
        "clean-up",
        "what the checks made can be removed",
        "what was uploaded by mistake stays",
        cleanup.clean_up,
    ),
)


def chosen(only: Sequence[str] = (), skip: Sequence[str] = ()) -> tuple[Check, ...]:
    """The checks that match one of `only` (all, where that is empty) and none of `skip`: ids or globs.

    Raises `UsageError` for one that matches none, and where nothing is left.
    """
    for option, patterns in (("--only", only), ("--skip", skip)):
        for pattern in patterns:
            if not any(fnmatchcase(check.id, pattern) for check in CHECKS):
                ids = ", ".join(check.id for check in CHECKS)
                raise UsageError(f"{option}: no check is called {pattern!r}", hint=f"the checks are {ids}")
    found = tuple(check for check in CHECKS if (not only or _matches(check, only)) and not _matches(check, skip))
    if not found:
        raise UsageError("--skip leaves none of the checks that --only names", hint="leave one of them out")
    return found


def _matches(check: Check, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(check.id, pattern) for pattern in patterns)
