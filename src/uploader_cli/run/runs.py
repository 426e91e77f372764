"""The runs and sessions in the journal of this machine: to list, delete and choose them."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from uploader_cli.core.origins import concealed
from uploader_cli.errors import UsageError
from uploader_cli.exit_status import Exit
from uploader_cli.render import UNFOLDED, columns
from uploader_cli.render.words import cells, clip, pad, safe
from uploader_cli.run.piped_lists import as_typed, drop
from uploader_cli.run.run_journal import existing_journal
from uploader_cli.run.views import resume_line
from uploader_cli.settings import NAMED_BY_DIRECTORY, Settings, resolve_here
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.run_rows import RunInfo

SHOWN_ID = 8
"""Characters of an ID in a list."""
NUMBER = 6
"""Cells of the number before a run to choose."""
GAP = "  "
"""Between two columns."""
LEAST = 8
"""Least cells for the place, the paths and the end of a run: a column that would have fewer is left out."""
OFFERED = 20
"""Maximum runs to choose from."""
ID_LENGTH = 36
NAMED_RUNS = 3
"""Maximum runs named in one line."""
ANSWER_TICK = 0.1
"""Seconds between two checks for a signal while an answer is awaited."""


def place(flags: Mapping[str, object]) -> Settings:
    """Return the settings that name the journal."""
    given = {name: flags.get(name) for name in ("profile", "state_dir", "quiet")}
    return resolve_here(given, need_server=False)


def show(flags: Mapping[str, object]) -> int:
    """Print a row for each stored run, newest last, and the command that resumes the newest interrupted one."""
    settings = place(flags)
    with existing_journal(replace(settings, state_dir=settings.state_path)) as journal:  # raises without a home
        runs = journal.runs() if journal is not None else []
        _warn(journal)
    for info in runs:
        options = info.arguments.get("options")
        if isinstance(options, dict) and str(options.get("upload_url", "none")) != "none":
            options["upload_url"] = concealed(str(options["upload_url"]))
    if flags.get("json"):
        listed = [asdict(info) | {"alive": info.state == "running"} for info in runs]
        sys.stdout.write(json.dumps(listed, ensure_ascii=True) + "\n")
        return Exit.OK
    if not runs:
        sys.stderr.write("no runs are stored\n")
        return Exit.OK
    sys.stdout.write("".join(f"{row}\n" for row in run_rows(runs[::-1], columns(stream=sys.stdout))))
    newest = next((info for info in runs if info.is_offered), None)
    if newest is not None:
        sys.stderr.write(f"→ {resume_line(settings, newest.id[:SHOWN_ID])}\n")
    return Exit.OK


def forget(run_id: str, flags: Mapping[str, object]) -> int:
    """Delete a run from the journal, so that it can't be resumed."""
    state = place(flags).state_path
    with Journal(state) as journal:
        listed = journal.forget(run_id)
    drop(state, [Path(listed)] if isinstance(listed, str) else [])
    sys.stderr.write(f"run {run_id} deleted; its unfinished uploads expire on the server\n")
    return Exit.OK


def resumable_ids() -> list[tuple[str, str]]:
    """Return the IDs of the runs that resuming helps, newest first, with their date, files and paths.

    There are none without a journal, which is not created.
    """
    with existing_journal(place({})) as journal:
        runs = journal.runs() if journal is not None else []
    return [(info.id, _told(info)) for info in runs if info.is_offered]


def session_ids() -> list[tuple[str, str]]:
    """Return the IDs of the open sessions of this machine, newest first, each with the words for its run."""
    return [(session, _told(info)) for session, info in _open_sessions(place({})).items()]


def _warn(journal: Journal | None) -> None:
    """Print what the journal has left out, or set aside."""
    for notice in journal.notices if journal is not None else ():
        sys.stderr.write(f"warning: {safe(notice)}\n")
    if journal is not None:
        journal.notices = ()


def _told(info: RunInfo) -> str:
    """Format when a run was last active, its files and its paths: `2026-01-31 18:05, 3/20 files, videos`."""
    return f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(info.updated_at))}, {_done(info)} files, {_what(info)}"


def choose(journal: Journal, settings: Settings) -> str | None:
    """Return the newest run that resuming helps, on a terminal the one of several that the user chooses, or None.

    Where it does not ask it names the others, unless `--quiet`. Raises `UsageError` if the user chooses none.
    """
    runs = [info for info in journal.runs() if info.is_offered]
    _warn(journal)
    if len(runs) < 2 or settings.quiet:
        return runs[0].id if runs else None
    if sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty() and not os.environ.get("CI"):
        return _ask(journal, runs)
    others = [f"{info.id} ({_what(info)})" for info in runs[1:]]
    more = f" and {len(others) - NAMED_RUNS:,} more" if len(others) > NAMED_RUNS else ""
    named = ", ".join(others[:NAMED_RUNS])
    sys.stderr.write(f"note: resuming the newest of {len(runs):,} interrupted runs; the others: {named}{more}\n")
    return runs[0].id


def _ask(journal: Journal, runs: Sequence[RunInfo]) -> str:
    lines = [f"{len(runs):,} interrupted runs, the newest last:"]
    if len(runs) > OFFERED:
        lines.append(f"   …  {len(runs) - OFFERED:,} more: uploader resume --list")
    rows = run_rows(runs[:OFFERED], columns() - NUMBER)
    lines += [f"{number:>{NUMBER - 2}}  {row}" for number, row in reversed(list(enumerate(rows, 1)))]
    sys.stderr.write("\n".join(lines) + "\nresume which one? number or id [1]: ")
    sys.stderr.flush()
    while not select.select([sys.stdin], [], [], ANSWER_TICK)[0]:
        pass  # a signal that arrives right before a read would not end it
    answer = sys.stdin.readline()
    if not answer:
        sys.stderr.write("\n")
        raise UsageError("no run was chosen", hint="name it: uploader resume RUN")
    chosen = answer.strip() or "1"
    if chosen.isascii() and chosen.isdigit() and 0 < int(chosen) <= min(len(runs), OFFERED):
        return runs[int(chosen) - 1].id
    return journal.run(chosen).id


def find_sessions(settings: Settings, begins: Sequence[str]) -> tuple[tuple[str, ...], dict[str, object]]:
    """Return the sessions that `begins` name by their first characters, without any the newest one of this machine.

    The journal has the open sessions, of the server of `settings` if there is one. A whole id may be unknown here.
    The second result are stored options for `resolve`: the server of the sessions where `settings` has none.
    """
    if settings.server and begins and all(len(begin) == ID_LENGTH for begin in begins):
        return tuple(begins), {}
    known = _open_sessions(settings)
    if not begins:
        if not known:
            raise UsageError("this machine has no open session", hint="name it: uploader watch SESSION")
        begins = [next(iter(known))]
    found = dict.fromkeys(_session(begin, known) for begin in begins)
    runs = {known[session].server: known[session] for session in found if session in known}
    if settings.server or not runs:
        return tuple(found), {}
    if len(runs) > 1:
        raise UsageError("the sessions are on different servers", hint="watch those of one server at a time")
    ((server, run),) = runs.items()
    options = run.arguments.get("options")
    untrusted = isinstance(options, dict) and bool(options.get(NAMED_BY_DIRECTORY))
    return tuple(found), {"server": server, NAMED_BY_DIRECTORY: untrusted}


def session_secret(settings: Settings, session: str) -> str:
    """Return the secret of a session of any run on the server of `settings`; empty if it is unknown."""
    with existing_journal(settings) as journal:
        return journal.session_secret(session, settings.server) if journal is not None else ""


def _session(begin: str, known: Mapping[str, RunInfo]) -> str:
    matching = [session for session in known if session.startswith(begin)]
    if len(matching) > 1:
        hint = f"use more of the ID: {', '.join(matching[:NAMED_RUNS])}"
        raise UsageError(f"SESSION: {len(matching)} sessions of this machine begin with {begin}", hint=hint)
    if matching:
        return matching[0]
    if len(begin) < ID_LENGTH:
        raise UsageError(
            f"SESSION: {begin!r} is not an ID, nor the beginning of an open session of this machine",
            hint="an ID looks like 3f2b8c1e-5d4a-4b6f-9a7e-0c1d2e3f4a5b",
        )
    return begin


def _open_sessions(settings: Settings) -> dict[str, RunInfo]:
    """Return the open sessions with their runs, newest first; none without a journal, which is not created."""
    with existing_journal(settings) as journal:
        known = journal.runs() if journal is not None else []
    runs = [info for info in known if settings.server in ("", info.server)]
    return {session: info for info in runs for session in reversed(info.sessions)}


def run_rows(runs: Sequence[RunInfo], width: int) -> Iterator[str]:
    """Yield a row for each run, cut to `width`: id, age, files done and all, place, paths, and how it ended."""
    now = time.time()
    known = [(info.id[:SHOWN_ID], _age(now - info.updated_at), _done(info)) for info in runs]
    others = [(_place(info), _what(info), _why(info)) for info in runs]
    ident, age, done = (max(map(cells, column)) for column in zip(*known, strict=True))
    places, whats, whys = (max(map(cells, column)) for column in zip(*others, strict=True))
    left = width - ident - age - done - 3 * len(GAP)
    left -= min(whys, max(left // 2, LEAST)) + len(GAP)
    what = min(whats, max(left // 2, left - places - len(GAP)))
    place = min(places, left - what - len(GAP))
    for (short, since, count), (where, paths, end) in zip(known, others, strict=True):
        cut = [pad(where, place)] if place >= min(places, LEAST) else []
        cut += [pad(paths, what)] if what >= min(whats, LEAST) else []
        shown = [where, paths] if width >= UNFOLDED else cut
        yield clip(GAP.join((short, f"{since:>{age}}", f"{count:>{done}}", *shown, end)).rstrip(), width)


def _age(seconds: float) -> str:
    """Format how long ago something was: `45 s`, `12 min`, `3 h`, `5 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:,.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _done(info: RunInfo) -> str:
    """Format how many files are on the server, and of how many; `?` if that is unknown, as of a killed run."""
    done, total = info.outcome.get("done"), info.outcome.get("total")
    if done is None or total is None:
        return f"{info.completed_files:,}/?"
    return f"{done:,}/{total:,}{'' if info.outcome.get('searched', True) else '+'}"


def _place(info: RunInfo) -> str:
    """Format where the files go: the server and the category, without the scheme."""
    server = info.server.partition("://")[2] or info.server
    return safe(server if info.destination.startswith("tus") else f"{server}/{info.destination}")


def _what(info: RunInfo) -> str:
    paths, listed = info.arguments.get("paths"), info.arguments.get("list")
    names = [str(path) for path in paths[:NAMED_RUNS]] if isinstance(paths, list) else []
    names += [as_typed(Path(str(listed)))] if listed else []
    return " ".join(map(safe, names))


def _why(info: RunInfo) -> str:
    """Say how a run ended: the error that ended it, or its first failure."""
    failures, failed = info.outcome.get("failures", []), info.outcome.get("failed", 0)
    if info.state != "interrupted":
        return "complete" if info.state == "finished" else info.state
    if info.outcome.get("trouble"):
        return safe(info.outcome["trouble"])
    if not failures:
        return "interrupted" if info.outcome else "killed"
    first = failures[0]
    return f"{failed:,} failed: {safe(first['path'])}: {safe(first['message'] or first['code'])}"
