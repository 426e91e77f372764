"""The journal against a model of a few lines: any order of calls by two processes, each with a run of its own."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from unit.transfer.journal_fakes import Clock, a_file, begin, claimed, complete

from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.reading import PendingUpload

WHO = st.sampled_from([0, 1])
PATH = st.sampled_from(["/a", "/b", "/c"])
VERSION = st.sampled_from([1, 2])


@dataclass
class Known:
    """What is under way for a path: which content, of whose run, and the upload as it should be."""

    version: int
    run: int
    upload: PendingUpload


@dataclass
class Model:
    runs: int = 0
    done: dict[str, tuple[int, int]] = field(default_factory=dict)  # path → content, serial
    serial: int = 0
    pending: dict[str, Known] = field(default_factory=dict)
    interrupted: dict[int, list[tuple[int, int, str]]] = field(default_factory=lambda: {0: [], 1: []})


class JournalMachine(RuleBasedStateMachine):
    """Process `who` runs command `who`: both send the same three files, whose content has a version."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.journals = [self.open(), self.open()]
        self.handles: list[Any] = [None, None]
        self.rows: list[Any] = [None, None]  # run number, serial at its beginning
        self.last: list[Any] = [None, None]  # the unfinished run of each command
        self.model = Model()
        self.claimed: list[set[str]] = [set(), set()]
        """Paths that each process has claimed: only those may be changed."""

    def open(self) -> Journal:
        return Journal(self.directory, now=Clock())

    def teardown(self) -> None:
        for journal in self.journals:
            journal.close()
        shutil.rmtree(self.directory)

    def alive(self, run: int) -> bool:
        return any(row is not None and row[0] == run for row in self.rows)

    @rule(who=WHO)
    def begin(self, who: int) -> None:
        if self.handles[who] is not None:
            return
        self.handles[who] = handle = begin(self.journals[who], str(who))
        self.claimed[who].clear()
        if self.last[who] is None:
            assert handle.resumed_from is None
            self.model.runs += 1
            self.rows[who] = (self.model.runs, self.model.serial)
        else:
            number, since, name = self.last[who]
            assert handle.resumed_from == name
            self.rows[who] = (number, since)
        self.last[who] = (*self.rows[who], handle.id)

    @precondition(lambda self: any(self.handles))
    @rule(who=WHO, path=PATH, version=VERSION)
    def claim(self, who: int, path: str, version: int) -> None:
        if self.handles[who] is None:
            return
        claim = claimed(self.handles[who], a_file(path, size=version))
        number, since = self.rows[who]
        self.claimed[who].add(path)
        known, (content, serial) = self.model.pending.get(path), self.model.done.get(path, (0, 0))
        is_done = serial > since
        if known and known.run != number and self.alive(known.run):
            assert claim.state == "busy"
        elif is_done and content == version:
            assert claim.state == "done"
        elif known and known.version == version:
            assert (claim.state, claim.upload) == ("resume", known.upload)
            known.run = number
        else:
            assert claim.state == ("changed" if known or is_done else "new")
            assert claim.outdated == (known.upload if known else None)
            assert claim.upload == PendingUpload(claim.upload.upload_key)
            self.model.pending[path] = Known(version, number, claim.upload)

    def mine(self, who: int, path: str) -> Known | None:
        known = self.model.pending.get(path)
        held = known and path in self.claimed[who] and self.rows[who] is not None and known.run == self.rows[who][0]
        return known if held else None

    @rule(who=WHO, path=PATH, until=st.integers(0, 9))
    def advance(self, who: int, path: str, until: int) -> None:
        if known := self.mine(who, path):
            self.handles[who].update(a_file(path, size=known.version), url=f"http://here:1/{until}")
            self.handles[who].update(a_file(path, size=known.version), checked_until=until)
            url = f"http://here:1/{until}"
            known.upload = replace(known.upload, url=url, session=None, checked_until=until)

    @rule(who=WHO, path=PATH)
    def split(self, who: int, path: str) -> None:
        if known := self.mine(who, path):
            parts = self.handles[who].split(a_file(path, size=known.version), [3, 4])
            known.upload = replace(known.upload, parts=parts)

    @rule(who=WHO, path=PATH)
    def complete(self, who: int, path: str) -> None:
        if known := self.mine(who, path):
            complete(self.handles[who], a_file(path, size=known.version))
            self.model.serial += 1
            self.model.done[path] = (known.version, self.model.serial)
            del self.model.pending[path]

    @rule(who=WHO, path=PATH)
    def drop(self, who: int, path: str) -> None:
        if known := self.mine(who, path):
            self.handles[who].forget([a_file(path, size=known.version)])
            del self.model.pending[path]

    @rule(who=WHO, ok=st.booleans())
    def finish(self, who: int, ok: bool) -> None:
        if self.handles[who] is None:
            return
        self.handles[who].finish(ok=ok)
        number = self.rows[who][0]
        self.handles[who] = self.rows[who] = None
        if ok:
            self.last[who] = None
            self.model.pending = {path: known for path, known in self.model.pending.items() if known.run != number}

    @rule(who=WHO)
    def die(self, who: int) -> None:
        """The process is killed, and another opens the journal."""
        self.journals[who].close()
        self.journals[who] = self.open()
        self.handles[who] = self.rows[who] = None

    @invariant()
    def the_list_is_right(self) -> None:
        unfinished = {info.id: info.state == "running" for info in self.journals[0].runs() if info.state != "finished"}
        assert unfinished == {last[2]: self.alive(last[0]) for last in self.last if last}


TestJournal = pytest.mark.thorough(JournalMachine.TestCase)
TestJournal.settings = settings(stateful_step_count=40)
