"""The summary of a run in plain text: failures with their fixes, warnings, and at the end the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from uploader_cli.core.bottleneck import Bottleneck
from uploader_cli.core.events import FailureCode, FileFailed, Phase, RunFinished, SkipReason, WarningCode
from uploader_cli.core.state import ProgressState, SessionState
from uploader_cli.exit_status import MEANINGS, PERMANENT
from uploader_cli.feature import counted, features
from uploader_cli.render import overview
from uploader_cli.render.feature_views import views
from uploader_cli.render.lines import MOST_ENTRIES, NO_BREAK, Lines
from uploader_cli.render.plain import FAILURE_LINES
from uploader_cli.render.words import cells, plural, rate, safe, size, span

FEW_STORED = 3  # maximum stored files of a run that lists them with their URLs
Urls = Literal["none", "text", "links"]  # how the URLs of stored files are shown

FIXES = {
    FailureCode.REFUSED_TYPE: "The server does not accept this type: convert the file, or skip it with --exclude.",
    FailureCode.REFUSED_SIZE: "The file exceeds the server's limit: split or compress it, or have the limit raised.",
    FailureCode.EMPTY: "The server does not accept empty files: skip it with --exclude.",
    FailureCode.BAD_LINE: "Correct that line of the list (--from-file).",
    FailureCode.MISMATCH: "The file was not sent: its content differs from the list. Correct the file or the list.",
    FailureCode.UNREADABLE: "Check that it is a file and that you may read it.",
    FailureCode.VANISHED: "The file does not exist: restore it, or leave it out.",
    FailureCode.CHANGED: "The file was modified or replaced during the upload: upload it when nothing changes it.",
    FailureCode.NETWORK: "Check the network and the server, then run the command again.",
    FailureCode.TIMEOUT: "The server did not answer in time: try again when it is less busy.",
    FailureCode.TOO_SLOW: "The server's time limit for one request is too short for this connection: use a faster one.",
    FailureCode.RATE_LIMITED: "The server limits the rate of requests: try again after the time it names.",
    FailureCode.UNAUTHORIZED: "The server refuses access: check the token, its expiry and its server.",
    FailureCode.IN_USE: "Another run is sending the file: wait for it, then run the command again.",
    FailureCode.EXISTS: "Another file has this name there: give yours another name or --dest, or omit --if-exists.",
    FailureCode.SERVER_ERROR: "The server failed: contact its operator if the error persists.",
    FailureCode.SERVER_REFUSED: "The server refused the file for the reason above: correct that first.",
    FailureCode.SERVER_FAILED: "The server received the file but could not store it: contact its operator.",
    FailureCode.OUTCOME_UNKNOWN: "The server may have the file: look there. A retry asks again, and sends it again"
    " only with --resend-unknown.",
    FailureCode.PROTOCOL: "The server's answer could not be parsed: check the URL and the server's version.",
    FailureCode.INTEGRITY: "The stored file differs from the local one: delete it there and upload it again.",
    **{FailureCode(code.name): code.fix for feature in features() for code in feature.codes},
}
STORED = frozenset(code.name for feature in features() for code in feature.codes if code.is_stored)
"""Failures of a file that is stored."""
_UNREADABLE_NOW = "It could not be read now: run the command again, with fewer --jobs if too many files were open."
_SKIPS: dict[SkipReason, str | tuple[str, str]] = {
    SkipReason.TYPE: "type not accepted by the server",
    SkipReason.SIZE: "too large for the server",
    SkipReason.EMPTY: "empty",
    SkipReason.SYMLINK: ("symbolic link (--follow-links)", "symbolic links (--follow-links)"),
    SkipReason.SPECIAL: ("not a regular file", "not regular files"),
    SkipReason.DUPLICATE: "selected twice",
    SkipReason.PRESENT: "already on the server",
    SkipReason.RECEIPT: "uploaded by an earlier run",
    SkipReason.FAIL_FAST: "not started after the first failure (--fail-fast)",
}
_LIMITED_BY = {
    Bottleneck.LIMIT_RATE: "--limit-rate",
    Bottleneck.CPU: "the CPU of this machine",
    Bottleneck.DISK: "the disk of this machine",
    Bottleneck.NETWORK: "the network, or a server that reads slowly",
    Bottleneck.SERVER: "the server",
}
_EXITS_OF_A_WATCH = {
    3: "the connection to the server was lost; retryable",
    4: "a session did not complete",
    6: "a session is unknown, or the server never answered or is not an upload server",
}
_INTERRUPTED = (130, 143)
_USAGE, _LATE, _FOR_GOOD, _DIFFERS = 2, 3, 4, 7
_ANSI = {"✓": "\x1b[32m", "✗": "\x1b[1;31m", "!": "\x1b[1;33m", "■": "\x1b[1;33m", "→": "\x1b[36m"}


def summary(
    state: ProgressState,
    outcome: RunFinished,
    *,
    width: int = 80,
    color: bool = False,
    resume_hint: str = "",
    failed_to: str = "",
    verbose: bool = False,
    listed: bool = False,
    urls: Urls = "none",
) -> list[str]:
    """Return lines of at most `width` cells (20 at least), except those of a URL, which is never broken.

    `resume_hint` is the command that resumes the run, `failed_to` the file that lists all failed files. `listed`: the
    first failures, and what ended the run, were printed before and are not repeated. `urls` of a few stored files are
    shown as text, or their names are links (OSC 8).
    """
    lines = Lines(max(20, width), links=urls == "links")
    watching, interrupted = state.watched, outcome.exit_code in _INTERRUPTED or bool(_deadline(state, outcome))
    if watching:
        _sessions(lines, state)
    _skips(lines, state, listed=listed)
    if state.renamed:
        lines.add("!", "stored under another name:")
        names = [f"{done.path} → {done.stored_as}" for done in state.renames]
        lines.list(" ", names, state.renamed, urls=[done.url or "" for done in state.renames])
    shown = {text for view, own in views(state) for text in view.summarize(lines, own, interrupted=interrupted)}
    _warnings(lines, state, shown, listed=listed)
    _failures(lines, state, failed_to, listed=listed)
    if interrupted and not watching:
        _in_progress(lines, state, "interrupted" if outcome.exit_code in _INTERRUPTED else "stopped")
    lines.add(*(_watch_verdict(state, outcome) if watching else _verdict(state, outcome)))
    if not watching and (outcome.completed or outcome.failed):
        lines.add(" ", _place(state))
        if urls != "none" and state.completed <= FEW_STORED:
            _stored(lines, state)
    _added(lines, state)
    if verbose and state.bottleneck is not None:
        lines.add(" ", f"limited by {_LIMITED_BY[state.bottleneck]}")
    for_good = outcome.exit_code == _FOR_GOOD
    refused = for_good and not outcome.failed and state.skips[SkipReason.NOT_TRIED] > 0  # no file was begun
    if outcome.exit_code:
        words = "the run ended early; not retryable" if refused else _meaning(state, outcome, interrupted=interrupted)
        lines.add(" ", f"exit code {outcome.exit_code}: {words}")
    if state.advice:
        lines.add("→", safe(state.advice))
    # An interrupt may have ended the wait for the reader of a report alone.
    left = outcome.failed or outcome.cancelled or (interrupted and (state.walking or state.over < state.selected))
    unfinished = outcome.exit_code != _USAGE and left
    if resume_hint and state.resumable and unfinished and not watching and not _failed_after(state, outcome):
        asks = {code for code, _ in state.failed_as} == {FailureCode.OUTCOME_UNKNOWN}  # nothing need be corrected
        is_final = for_good or outcome.exit_code == _DIFFERS
        for_good = is_final and not asks and not any(retryable for _, retryable in state.failed_as)
        again = "retry once that is corrected" if for_good else "retry"
        again = again if outcome.failed or refused else "send the files in a new session" if for_good else again
        helps = state.resuming_helps(permanent=outcome.exit_code in PERMANENT)
        again = again if helps or for_good else "retry once that is corrected"
        command = safe(resume_hint) if helps else "run the same command again"
        lines.add("→", f"to {'resume' if interrupted else again}: {command}")
    return [_colored(line) for line in lines.out] if color else lines.out


def _meaning(state: ProgressState, outcome: RunFinished, *, interrupted: bool) -> str:
    """Return what the exit code says about the files."""
    code, exits = outcome.exit_code, {**MEANINGS, **_EXITS_OF_A_WATCH} if state.watched else MEANINGS
    if interrupted and code == _LATE:
        return "not all files were sent in time; resumable"
    if outcome.failed and outcome.failed == state.kept_here and not (interrupted or outcome.cancelled):
        return "stored files were kept here"
    if code == _FOR_GOOD and outcome.cancelled and not outcome.failed:
        return "another client cancelled the session"
    words = exits.get(code, "see above")
    return words.replace("some files", _failed_after(state, outcome) or "some files")


def _verdict(state: ProgressState, outcome: RunFinished) -> tuple[str, str]:
    total = outcome.completed + outcome.failed + outcome.cancelled
    deadline = _deadline(state, outcome)
    interrupted = deadline or ("stopped" if outcome.exit_code in _INTERRUPTED else "")
    seconds = outcome.seconds if state.stopped is None else state.stopped - state.started
    stored = outcome.bytes + state.kept_here_bytes
    speed = f"({rate(outcome.rate)})" if stored and outcome.rate > 0 else ""
    if speed and state.sending is not None and state.stopped is not None:
        seconds = state.stopped - state.sending  # the time of that rate: bytes, time and rate agree
    sent = min(stored, state.sent_total)
    moved = size(stored) + (f", {size(sent)} of it sent" if size(stored) != size(sent) else "")
    moved, took, speed = (text.replace(" ", NO_BREAK) for text in (moved, span(seconds), speed))
    took = f"{moved} in {took} {speed}".rstrip()
    if _failed_after(state, outcome) or (outcome.ok and total):
        all_verified = 0 < outcome.completed == state.verified
        what = "all confirmed and verified" if all_verified else "all confirmed by the server"
        if _unconfirmed(state):
            what = "stored, but not all confirmed by the server"
        return "✓", f"{plural(outcome.completed, 'file')}, {took}, {what}"
    if interrupted:
        least = "at least " if state.growing else ""
        done, known = state.files_done
        kept = f"{size(state.kept_bytes)} of {state.kept:,} more".replace(" ", NO_BREAK)
        kept = f"; {kept} {'is' if state.kept == 1 else 'are'} on the server" if state.kept else ""
        return "■", f"{interrupted}: {done:,} of {least}{plural(known, 'file')} stored, {took}{kept}"
    if outcome.ok:
        return "✓", "already up to date" if outcome.skipped else "nothing to send"
    if not total:
        return "✗", "nothing was sent"
    untried = state.skips[SkipReason.NOT_TRIED]
    ends = [(outcome.cancelled - untried, "cancelled"), (untried, "not tried")]
    if outcome.failed:
        ends = [(outcome.failed - state.kept_here, "failed"), (state.kept_here, "kept here")]
    failed = "".join(f", {count:,} {word}" for count, word in ends if count)
    there = state.there
    before = f" ({there:,} before)" if there else ""
    done, total = outcome.completed + state.kept_here + there, total + there
    what = "stored" if _unconfirmed(state) else "confirmed by the server"
    return "✗", f"{done:,} of {plural(total, 'file')} {what}{before}{failed}, {took}"


def _unconfirmed(state: ProgressState) -> bool:
    """Return whether a file counts as stored that no answer has confirmed."""
    return any(warning.code is WarningCode.UNCONFIRMED for warning in state.warnings)


def _deadline(state: ProgressState, outcome: RunFinished) -> str:
    late = (warning.text for warning in state.warnings if warning.code is WarningCode.DEADLINE)
    return "" if outcome.ok else next(late, "")


def _place(state: ProgressState) -> str:
    """Format `to files.example.com/personal, session 2ba25c4c-…`."""
    created = state.sessions_in.total()
    session = f", session {safe(state.session)}" if created else ""
    return f"to {overview.destination(state)}" + (f", {created:,} sessions" if created > 1 else session)


def _added(lines: Lines, state: ProgressState) -> None:
    """Add what features have counted."""
    for feature in counted():
        if counts := state.counted[feature.counts]:
            lines.add(" ", feature.load(feature.words).total(counts))


def _stored(lines: Lines, state: ProgressState) -> None:
    """List the files that were stored: as links, or with their URLs."""
    done = [end for end in state.finished if end.outcome is Phase.COMPLETED and end.url]
    for end in sorted(done, key=lambda end: end.file):
        name, url = safe(end.path), safe(end.url or "")
        if lines.links or cells(name) + cells(url) + 5 > lines.width:
            lines.add(" ", name, url=url)
            lines.out += [] if lines.links else [f"    {url}"]
        else:
            lines.add(" ", f"{name} → {url}")


def _failed_after(state: ProgressState, outcome: RunFinished) -> str:
    """Return what failed after a complete upload; empty if nothing did, or the upload is not complete."""
    unfinished = outcome.failed or outcome.cancelled or state.running or state.over < state.selected
    return "" if outcome.ok or unfinished else next(filter(None, (view.failed(own) for view, own in views(state))), "")


def _watch_verdict(state: ProgressState, outcome: RunFinished) -> tuple[str, str]:
    sessions = plural(len(state.sessions), "session")
    done, files = state.files_done
    through = size(state.bytes_through) if state.bytes_through else ""
    known = ", ".join(filter(None, [f"{done:,} of {plural(files, 'file')}" if files else "", through]))
    numbers = f"{known} in {span(outcome.seconds)}".lstrip()
    if outcome.exit_code in _INTERRUPTED:
        return "■", f"stopped watching, {numbers} so far; the upload continues"
    if outcome.ok:
        return "✓", f"{sessions} completed, {numbers}"
    return "✗", f"{sum(map(_is_good, state.sessions.values())):,} of {sessions} completed, {numbers}"


def _is_good(session: SessionState) -> bool:
    return session.over and session.status == "completed" and not session.failed


def _sessions(lines: Lines, state: ProgressState) -> None:
    """List the error that lost the server, and each watched session that did not complete."""
    if state.trouble:
        lines.add("✗", safe(state.trouble))
    ends = []
    for session in state.sessions.values():
        if session.over and not _is_good(session):
            end = session.status + (f", {plural(session.failed, 'file')} failed" if session.failed else "")
            if session.status == "unknown":
                end = "unknown to the server" if session.heard is None else "no longer known to the server"
            ends.append(f"session {session.session}: {end}")
    lines.list("✗", ends, mark="✗", noun="session")


def _skips(lines: Lines, state: ProgressState, *, listed: bool) -> None:
    if state.skipped:
        known = ((_SKIPS.get(reason, ""), count) for reason, count in state.skips.most_common())
        named = ((words if isinstance(words, str) else words[count != 1], count) for words, count in known)
        why = ", ".join(f"{count:,} {words}" for words, count in named if words)
        lines.add("-", f"{state.skipped:,} skipped: {why}" if why else f"{state.skipped:,} skipped")
    untried = state.skips[SkipReason.NOT_TRIED]
    if untried:
        why = "" if listed else safe(state.trouble[:1000])
        lines.add("-", f"{untried:,} not tried: {why or 'the run ended before'}")


def _failures(lines: Lines, state: ProgressState, failed_to: str, *, listed: bool) -> None:
    """List failures grouped by cause, each group with its fix: the first files unless `listed`, and a number."""
    groups: dict[tuple[FailureCode, bool], list[FileFailed]] = {}
    for failed in state.failures:
        groups.setdefault((failed.code, failed.retryable), []).append(failed)
    left = MOST_ENTRIES
    for later, ((code, retryable), count) in enumerate(state.failed_as.most_common(), 1 - len(state.failed_as)):
        shown = groups.get((code, retryable), [])[: max(1, left + later)]  # one for each later group
        what = "kept here" if code in STORED else f"failed: {code.replace('_', ' ')}"
        lines.add("✗", f"{count:,} {what} – {'' if retryable else 'not '}retryable")
        if not listed:
            _reasons(lines, shown)
        left -= len(shown)
        lines.add("→", _UNREADABLE_NOW if retryable and code is FailureCode.UNREADABLE else FIXES[code], indent=2)
    rest = state.failed - (FAILURE_LINES if listed else MOST_ENTRIES - left)
    if rest > 0:
        lines.add("…", f"{rest:,} more: {safe(failed_to) or '--failed-to FILE lists all'}")


def _reasons(lines: Lines, group: Sequence[FileFailed]) -> None:
    """List files with their reasons; a reason shared by several files is printed once, above them."""
    by_message: dict[str, list[FileFailed]] = {}
    for failed in group:
        by_message.setdefault(safe(failed.message[:500]), []).append(failed)
    for message, files in by_message.items():
        if message and len(files) > 1:
            lines.add(" ", message)
            message = ""
        for failed in files:
            lines.add("✗", safe(failed.path) + (f": {message}" if message else ""), indent=2)


def _warnings(lines: Lines, state: ProgressState, shown: set[str], *, listed: bool) -> None:
    """List each warning once, without those that are `shown`.

    Files that may be stored without confirmation come first, without a limit.
    """
    elsewhere: tuple[WarningCode, ...] = (WarningCode.RUN_ENDED, WarningCode.DEADLINE)  # in `_skips` and `_verdict`
    if listed:
        elsewhere += (WarningCode.INSECURE,)  # at the start; nothing has changed since
    shown = shown | {warning.text for warning in state.warnings if warning.code in elsewhere}
    counts = Counter(warning for warning in state.warnings if warning.text not in shown)
    stored, others = list[str](), list[str]()
    for warning, times in counts.items():
        text = warning.text[:1000] + (f" ({times} times)" if times > 1 else "")
        (stored if warning.code is WarningCode.MAY_BE_STORED else others).append(text)
    lines.list("!", stored, most=len(stored))
    lines.list("!", others, mark="!", noun="warning")


def _in_progress(lines: Lines, state: ProgressState, when: str) -> None:
    flying = [file.path for file in state.running.values()]
    flying += [done.path for done in state.finished if done.outcome is Phase.CANCELLED and done.path]
    if flying:
        lines.add("■", f"in progress when {when}:")
        lines.list("■", flying, indent=2)


def _colored(line: str) -> str:
    head = line.lstrip(" ")[:1]
    if head not in _ANSI or line.lstrip(" ")[1:2] != " ":
        return line
    return line.replace(head, f"{_ANSI[head]}{head}\x1b[0m", 1)
