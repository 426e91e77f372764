"""The invariants of a round. Each check raises Find on a violation."""

from __future__ import annotations

import base64
import hashlib
import json
import mmap
import os
import re
import signal
import sqlite3
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command import check_stream

from chaos.processes import Find
from uploader_cli.core.codes import FailureCode
from uploader_cli.exit_status import Exit, of_failure, worst

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chaos.plan import Plan
    from chaos.processes import Ended, Secrets, Server

STORED = ("present", "receipt")
"""Reasons to skip a file that say that it is on the server."""
LEFT_OUT = ("empty", "type", "size", "symlink", "special", "duplicate")
"""Reasons to skip a file that are no failure."""
SIGNALS = {130: signal.SIGINT, 143: signal.SIGTERM}
"""Exit codes of a run that was interrupted, and the signals."""
BUGS = re.compile(
    r"Traceback|internal error|bug in uploader|never retrieved|ResourceWarning|Segmentation", re.IGNORECASE
)
MOST_MEMORY = 300 << 20
"""Bytes that a client may have resident at its peak."""
KNOWN_STATE = re.compile(r"journal\.(lock|sqlite3)|limits\.json|lists(/.*)?")
_NUMBER = re.compile(r" \(\d+\)(?=(\.[^./]*)?$)")
_AFTER_KILL = re.compile(r"journal\.sqlite3-(wal|shm|journal)|run-[0-9a-f]{16}\.lock")
"""What a process that was killed can't remove; the next run does."""


@dataclass
class Tree:
    """The files of a round, and what the client has reported about them."""

    top: Path
    digests: dict[str, str]
    """SHA-256 by path below the parent of `top`, as the server stores it."""
    confirmed: dict[str, str] = field(default_factory=dict)
    """Paths that were reported complete, and where they are stored below the category."""
    unknown: set[str] = field(default_factory=set)
    """Paths whose outcome was said to be unknown."""
    damaged: Counter[str] = field(default_factory=Counter)
    """How often the server gave out other bytes for a path: it is then sent again, and what was stored stays there."""
    left_out: set[str] = field(default_factory=set)
    """Paths that were skipped as no file for this server."""
    selected: dict[str, set[str]] = field(default_factory=dict)
    """What each run was to send, by its id."""
    changed: dict[str, set[str]] = field(default_factory=dict)
    """Names that another program changed or replaced by a link, and the digests of their whole bytes over time."""

    def change(self, path: Path, content: bytes | None = None) -> None:
        """Remember that a file changes, and its next content if that is another one."""
        name = stored_name(os.path.relpath(path, self.top.parent))
        versions = self.changed.setdefault(name, {self.digests[name]} if name in self.digests else set())
        if content is not None:
            self.digests[name] = hashlib.sha256(content).hexdigest()
            versions.add(self.digests[name])

    def has_changed(self, stored: str) -> bool:
        """Return whether a stored file is one of a changed name, or of its next name on the server."""
        return stored in self.changed or _NUMBER.sub("", stored) in self.changed

    def name(self, event: dict[str, Any]) -> str:
        """Return the path of an event relative to the parent of `top`."""
        return stored_name(os.path.relpath(path_in(event), self.top.parent))


def path_in(event: dict[str, Any]) -> Path:
    """Return the path in an event, or in a line of `--failed-to`."""
    raw = event.get("path_b64")
    return Path(os.fsdecode(base64.b64decode(raw)) if raw else event["path"])


def stored_name(path: str) -> str:
    """Return the name of a file on the server: bytes that are not UTF-8 are percent-encoded."""
    return "".join(f"%{ord(char) - 0xDC00:02X}" if "\udc80" <= char <= "\udcff" else char for char in path)


def events_of(ended: Ended) -> list[dict[str, Any]]:
    """Return the event stream, checked against the schema; of a killed client its beginning.

    Linux ends a write to a file at the end of a page when SIGKILL arrives: the last line may be cut there.
    """
    whole, end, rest = ended.out.rpartition("\n")
    cut = ended.killed and len(ended.out.encode(errors="surrogateescape")) % mmap.PAGESIZE == 0
    if rest and not cut:
        raise Find(f"half a line on stdout: {ended.out[-200:]!r}")
    events = [json.loads(line) for line in (whole + end).encode().splitlines()]
    if ended.killed:
        events_missing = not events or events[-1]["type"] != "run.finished"
        seqs = [event["seq"] for event in events]
        if seqs != list(range(1, len(seqs) + 1)):
            raise Find("seq has gaps")
        if events_missing:
            return events
    if events:
        try:
            check_stream(events)
        except Exception as error:
            raise Find(f"the event stream: {type(error).__name__}: {str(error)[:1500]}") from error
    return events


def remember_selection(tree: Tree, events: list[dict[str, Any]], listed: Path | None) -> None:
    """Remember from the first event what the run sends: the tree, the files of a list, or those of an earlier run."""
    if not events:
        return
    everything = set(tree.digests)
    if listed is not None:
        everything = {tree.name(json.loads(line)) for line in listed.read_text(encoding="utf-8").splitlines()}
    earlier = events[0].get("resumed_from", "")
    tree.selected[events[0]["run"]] = tree.selected.get(earlier, everything)


def check_invocation(tree: Tree, ended: Ended, events: list[dict[str, Any]]) -> None:
    """Check exit code, end events, counts, list and report of one call; remember the outcomes of the files."""
    ends = [event for event in events if event["type"] in ("file.completed", "file.failed", "file.skipped")]
    for event in ends:
        name = tree.name(event)
        if name not in tree.digests and name not in tree.changed:
            raise Find(f"an event about {name!r}, which is no file of the tree")
        if event["type"] == "file.completed":
            tree.confirmed[name] = event.get("stored_as", name)
            tree.unknown.discard(name)
            if "stored_as" in event and name not in tree.changed:
                raise Find(f"{name!r} was stored as {event['stored_as']!r}")
        elif event["type"] == "file.skipped" and event["reason"] in STORED and name not in tree.changed:
            tree.confirmed.setdefault(name, name)  # of a changed file the end of the round tells where it is
        elif event["type"] == "file.skipped" and event["reason"] in LEFT_OUT:
            tree.left_out.add(name)
        elif event.get("code") == FailureCode.OUTCOME_UNKNOWN:
            tree.unknown.add(name)
        elif event.get("code") == FailureCode.INTEGRITY:
            tree.damaged[name] += 1
    if ended.killed:
        return
    _check_code(ended, events, ends)
    if not events:
        return
    _check_counts(tree, events, ends, interrupted=ended.code in (130, 143))
    _check_papers(tree, ended, events, ends)


def _check_code(ended: Ended, events: list[dict[str, Any]], ends: list[dict[str, Any]]) -> None:
    """Check that the exit code agrees with the last event, the end events and the warnings."""
    code = ended.code
    if code == 2 and "no interrupted run to resume" in ended.err:  # the run before was killed after its last file
        return
    if code not in (0, 3, 4, 5, 6, 7, 130, 143):
        raise Find(f"exit code {code}")
    if code in SIGNALS and SIGNALS[code] not in ended.sent:
        raise Find(f"exit code {code} without such a signal")
    if not events:
        if code not in (5, 6, *SIGNALS):
            raise Find(f"exit code {code} and no events")
        return
    finished = events[-1]
    if finished["exit_code"] != code or finished["ok"] != (code == 0):
        raise Find(f"exit code {code}, and run.finished says {finished['exit_code']}, ok {finished['ok']}")
    if code not in SIGNALS:
        _check_cause(code, events, ends)


def _check_cause(code: int, events: list[dict[str, Any]], ends: list[dict[str, Any]]) -> None:
    failures = [of_failure(FailureCode(end["code"]), retryable=end["retryable"]) for end in ends if "code" in end]
    untried = any(end.get("reason") in ("not_tried", "fail_fast") for end in ends)
    warnings = {event["code"] for event in events if event["type"] == "warning"}
    asked = worst(failures)
    if code == 0:
        if failures or untried or events[-1]["cancelled"]:
            raise Find("exit code 0 although files failed or were not tried")
    elif warnings & {"run_ended", "analysis_failed"} or not ends:  # they have codes of their own
        if worst([asked, Exit(code)]) != code:
            raise Find(f"exit code {code}, and the failed files ask for {int(asked)}")
    elif asked != code:
        raise Find(f"exit code {code}, and the failed files ask for {int(asked)}")


def _check_counts(tree: Tree, events: list[dict[str, Any]], ends: list[dict[str, Any]], *, interrupted: bool) -> None:
    finished = events[-1]
    kinds = Counter(event["type"] for event in ends)
    untried = sum(event.get("reason") == "not_tried" for event in ends)
    counts = finished["completed"], finished["failed"], finished["skipped"]
    if counts != (kinds["file.completed"], kinds["file.failed"], kinds["file.skipped"] - untried):
        raise Find(f"run.finished counts {counts}, the end events are {dict(kinds)}, {untried} of them not tried")
    missing = sorted(tree.selected[finished["run"]] - tree.changed.keys() - {tree.name(event) for event in ends})
    ended = any(event["type"] == "warning" and event["code"] == "run_ended" for event in events)
    if missing and not (interrupted or (ended and len(missing) <= finished["cancelled"])):
        raise Find(f"{len(missing)} files have no end event, as {missing[:3]}")
    if finished["peak_rss"] > MOST_MEMORY:
        raise Find(f"the client used {finished['peak_rss'] >> 20} MiB")


def _check_papers(tree: Tree, ended: Ended, events: list[dict[str, Any]], ends: list[dict[str, Any]]) -> None:
    """Check that `--failed-to` and `--report` list the remaining files, and stderr the number of failed files."""
    good = {tree.name(e) for e in ends if e["type"] == "file.completed" or e.get("reason") in (*STORED, *LEFT_OUT)}
    left = tree.selected[events[0]["run"]] - good
    listed_path = ended.directory / "failed.jsonl"
    if not listed_path.exists():
        raise Find("--failed-to was not written")
    listed = [json.loads(line) for line in listed_path.read_text(encoding="utf-8").splitlines()]
    names = [tree.name(line) for line in listed]
    if len(names) != len(set(names)):
        raise Find("--failed-to names a file twice")
    partial = "has only those that it knew of" in ended.err
    foreign, missing = set(names) - left - tree.changed.keys(), left - set(names) - tree.changed.keys()
    if foreign or (missing and not partial):
        raise Find(
            f"--failed-to: {sorted(foreign)[:3]} are listed and are not left,"
            f" {sorted(missing)[:3]} are left and are not listed"
        )
    report = json.loads((ended.directory / "report.json").read_text(encoding="utf-8"))
    finished = events[-1]
    said = [report["exit_code"], *(report["counts"][key] for key in ("completed", "failed", "skipped", "cancelled"))]
    if said != [finished[key] for key in ("exit_code", "completed", "failed", "skipped", "cancelled")]:
        raise Find(f"the report counts {said}")
    if finished["failed"] and f"{finished['failed']:,} failed" not in re.sub(r"\s+", " ", ended.err):
        groups = [int(count.replace(",", "")) for count in re.findall(r"([\d,]+) failed: ", ended.err)]
        if sum(groups) != finished["failed"]:
            raise Find(f"{finished['failed']} files failed, and stderr does not say so")


def check_complete(plan: Plan, tree: Tree, server: Server, category: str, when: str = "") -> dict[str, str]:
    """Check that each file under its final name has all bytes of a file of the tree, at any moment; return digests."""
    stored, of_any = digests(server.root / category), set(tree.digests.values())
    if plan.flavour == "reference":
        foreign = sum(digest not in of_any for digest in stored.values())
        if foreign:
            raise Find(f"{when}: {foreign} files are stored whose bytes are those of no file".removeprefix(": "))
        return stored
    stored = {name: digest for name, digest in stored.items() if name.split("/")[0] == tree.top.name}
    for name, digest in stored.items():
        if tree.digests.get(name) != digest and not tree.has_changed(name):
            size, whole = (server.root / category / name).stat().st_size, tree.top.parent / name
            most = f" of {whole.stat().st_size}" if whole.exists() else ""
            wrong = f"{name!r} is stored with {size}{most} bytes, and no file of the tree has this name and these bytes"
            raise Find(f"{when}: {wrong}".removeprefix(": "))
    return stored


def check_stored(plan: Plan, tree: Tree, server: Server, category: str, *, finally_: bool) -> None:
    """Check that completed files are stored once with equal bytes; at the end all files, and no others."""
    stored = check_complete(plan, tree, server, category)
    if plan.flavour == "reference":
        _check_renamed(tree, Counter(stored.values()), finally_=finally_)
        return
    for name, where in tree.confirmed.items():
        if where not in stored:
            raise Find(f"{name!r} was reported complete and is not stored")
        if name in tree.changed and stored[where] not in tree.changed[name]:
            raise Find(f"{name!r} changed while it was sent, and was reported complete with mixed bytes")
    missing = tree.digests.keys() - stored.keys() - tree.left_out - tree.changed.keys()
    if finally_ and missing:
        raise Find(f"at the end {len(missing)} files are not stored, as {min(missing)!r}")
    for name in tree.changed.keys() & tree.digests.keys() - tree.confirmed.keys() - tree.left_out if finally_ else ():
        path = tree.top.parent / name  # one that was confirmed before its change has the time that it had
        behind_link = not path.resolve().is_relative_to(tree.top.resolve())
        if path.is_file() and not behind_link and tree.digests[name] not in stored.values():
            raise Find(f"at the end {name!r} is not stored as it is now")


def _check_renamed(tree: Tree, stored: Counter[str], *, finally_: bool) -> None:
    for name, digest in tree.digests.items():
        if stored[digest] > 1 + tree.damaged[name]:
            raise Find(f"{name!r} is stored {stored[digest]} times")
        if name in tree.confirmed and not stored[digest]:
            raise Find(f"{name!r} was reported complete and is not stored")
        if finally_ and not stored[digest] and name not in tree.left_out | tree.unknown:
            raise Find(f"at the end {name!r} is not stored")


def digests(top: Path) -> dict[str, str]:
    """Return the SHA-256 of each file below a directory by its relative path."""
    found = {}
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, top)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def check_left_by_client(home: Path, *, killed: bool) -> None:
    """Check that the state directory has only the journal and the known limits, and TMPDIR is empty."""
    state = home / "state" / "uploader"
    for path in state.rglob("*"):
        name = path.relative_to(state).as_posix()
        if not KNOWN_STATE.fullmatch(name) and not (killed and _AFTER_KILL.fullmatch(name)):
            raise Find(f"the client left {name} in its state directory")
    if not killed and any((home / "tmp").iterdir()):
        raise Find(f"the client left {sorted(path.name for path in (home / 'tmp').iterdir())} in TMPDIR")


def check_left_by_server(server: Server, *, unfinished: bool, forgot: bool = False) -> None:
    """Check that each data file of a stopped server belongs to a known upload and `incoming` is empty.

    Without `unfinished` there must be no data file. A server that `forgot` its state had a temporary root, which stays
    if it was killed.
    """
    private = server.root / ".uploader"
    incoming = list((private / "incoming").iterdir())
    if incoming:
        raise Find(f"the server left {len(incoming)} files in incoming")
    data = {path.name for path in (private / "tus").glob("*")}
    db = sqlite3.connect(f"file:{private / 'server.sqlite3'}?mode=ro", uri=True)
    try:
        rows = {row[0] or row[1] for row in db.execute("SELECT data, id FROM tus_uploads WHERE path IS NULL")}
    finally:
        db.close()
    if data - rows:
        raise Find(f"the server left {len(data - rows)} data files that belong to no upload")
    if data and not unfinished:
        raise Find(f"the server left {len(data)} unfinished uploads, and no fault made the client give one up")
    if any(server.temporary.iterdir()) and not forgot:
        raise Find(f"the server left {sorted(path.name for path in server.temporary.iterdir())} in TMPDIR")


def check_texts(texts: Iterable[tuple[str, bytes]], secrets: Secrets) -> None:
    """Check that no text contains a traceback or a secret."""
    encoded = [base64.b64encode(b"user:" + secrets.password.encode()), *secrets.words]
    for name, text in texts:
        for word in encoded:
            if word in text:
                raise Find(f"a secret ({word[:3].decode()}…) is in {name}")
        if not name.endswith((".sqlite3", "-wal", "-shm")):
            bug = BUGS.search(text.decode("utf-8", "replace"))
            if bug is not None:
                raise Find(f"{bug[0]!r} is in {name}")


def texts_below(directory: Path, leave_out: Iterable[Path]) -> list[tuple[str, bytes]]:
    """Return the files below a directory, except those of trees, by relative path.

    The server may still be running and may delete a file of its own between the listing and the read.
    """
    out = set(leave_out)
    found = []
    for top, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if Path(top, name) not in out]
        for path in (Path(top, name) for name in names):
            if path not in out:
                with suppress(FileNotFoundError):
                    found.append((str(path.relative_to(directory)), path.read_bytes()))
    return found
